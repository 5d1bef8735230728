//! `ptystream inspect --checksums`: whether a file still is what was written.

use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::sums::{Difference, verify};
use std::fmt::Write;
use std::path::Path;

/// Compares a file with its checksums; says what came of it, and whether all is well.
///
/// # Errors
/// [`PtydError`] if the file cannot be opened, or holds no checksums.
pub fn check(path: &Path) -> Result<(String, bool), PtydError> {
    let found = verify(path)?;
    let mut text = format!("{}\n", path.display());
    for difference in &found.different {
        let _ = writeln!(text, "  - {}", show(difference));
    }
    let different = found.different.len();
    let _ = match different {
        0 => writeln!(text, "as written: {} storage chunks compared", found.compared),
        n => writeln!(text, "DAMAGED: {n} of {} storage chunks", found.compared),
    };
    if found.unknown > 0 {
        let unknown = found.unknown;
        let _ = writeln!(text, "  note: {unknown} storage chunks have no checksum to compare with");
    }
    Ok((text, different == 0))
}

fn show(difference: &Difference) -> String {
    let Difference { file, object, frames, text } = difference;
    let frames = match frames {
        None => String::new(),
        Some((first, last)) if first == last => format!(", frame {first}"),
        Some((first, last)) => format!(", frames {first}-{last}"),
    };
    format!("{}: {object}{frames}: {text}", file.display())
}
