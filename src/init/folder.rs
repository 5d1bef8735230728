//! What a folder holds: a scan in the tutorial's layout, or HDF5 files.

use super::{Written, file};
use ptystream_common::error::{Failure, Kind};
use std::path::{Path, PathBuf};

/// Endings of HDF5 files.
const HDF5: [&str; 6] = ["h5", "hdf5", "nxs", "cxi", "hdf", "nx"];

/// Looks into a folder.
///
/// # Errors
/// If it holds no scan that is understood, or several files that could be one.
pub fn look(folder: &Path) -> Result<Written, Failure> {
    if folder.join("positions.txt").is_file() {
        return Ok(tutorial(folder));
    }
    let entries = std::fs::read_dir(folder)
        .map_err(|e| Failure::new(Kind::Input, format!("{}: {e}", folder.display())))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| HDF5.iter().any(|h| e.eq_ignore_ascii_case(h))))
        .collect();
    files.sort();
    // A detector's master file links to the others.
    let is_master =
        |p: &&PathBuf| p.file_stem().is_some_and(|s| s.to_string_lossy().ends_with("_master"));
    let masters: Vec<PathBuf> = files.iter().filter(is_master).cloned().collect();
    match (&masters[..], &files[..]) {
        ([one], _) | ([], [one]) => file(one),
        ([], []) => {
            let text = format!(
                "{}: no scan is found there: neither positions.txt (the layout of ptypy's tutorial) nor \
                 an HDF5 file (.{})",
                folder.display(),
                HDF5.join(", .")
            );
            Err(Failure::new(Kind::Input, text))
        }
        (several, all) => {
            let several = if several.is_empty() { all } else { several };
            let names: Vec<String> = several
                .iter()
                .take(6)
                .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
                .collect();
            let more = if several.len() > 6 { ", …" } else { "" };
            let text = format!(
                "{}: {} files could be the scan ({}{more}); name one",
                folder.display(),
                several.len(),
                names.join(", ")
            );
            Err(Failure::new(Kind::Input, text))
        }
    }
}

/// A folder with `positions.txt`.
fn tutorial(folder: &Path) -> Written {
    let mut written = Written::new("numpy", folder);
    written.path("path", folder, "positions.txt: lines `file y x`, metres");
    let points = std::fs::read_to_string(folder.join("positions.txt")).map_or(0, |text| {
        text.lines().filter(|l| !l.trim().is_empty() && !l.trim().starts_with('#')).count()
    });
    written.said.push(format!("positions  positions.txt: {points} scan points"));
    if folder.join("geometry.txt").is_file() {
        written.said.push("geometry   geometry.txt".to_owned());
    } else {
        for (key, value, unit) in
            [("energy", "7.2", "keV"), ("distance", "7.19", "m"), ("psize", "0.000172", "m")]
        {
            let comment = format!("{unit}; there is no geometry.txt: this is ptypy's default");
            written.line(&format!("# {key}"), value, comment);
        }
        written.said.push("geometry   none: give data.energy, distance and psize".to_owned());
    }
    for name in ["mask", "dark", "flat"] {
        let path = folder.join(format!("{name}.npy"));
        if path.is_file() {
            written.path(name, &path, "");
            written.said.push(format!("{name:<10} {name}.npy"));
        }
    }
    written.line("shape", super::quoted("None"), "the largest square; or a region of interest");
    written.line("# orientation", "0", "0 to 7: `ptystream check` draws all eight");
    written
}
