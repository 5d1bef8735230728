//! A real scan: ptypy's own parameter file, as it is, gives ptypy's file, chunks and meta.

use crate::roles;
use ptystream::compare::{CompareOptions, Tolerance, compare};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who reads the frames, and in how many processes.
#[derive(Clone, Copy)]
pub enum Reads {
    /// One process.
    Run,
    /// Three; the worker.
    Worker,
    /// Three; the producer, which sends pixels.
    Producer,
}

/// Returns the folder of real scans; `None` if it is absent.
pub fn root() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/real");
    path.is_dir().then_some(path)
}

/// Prepares the scan and compares.
pub fn run(reads: Reads) -> Result<(), String> {
    let temp = tempfile::tempdir().map_err(|e| e.to_string())?;
    let folder = temp.path().join("ours");
    std::fs::create_dir(&folder).map_err(|e| e.to_string())?;
    let program = Path::new(env!("CARGO_BIN_EXE_ptystream"));
    let written = folder.join("petra.ptyd");
    let dfile = format!("data.dfile={}", written.display());
    match reads {
        Reads::Run => {
            let out = Command::new(program)
                .args(["run", "../shared/real/petra_p25_full.json", "--set", &dfile])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .output()
                .map_err(|e| e.to_string())?;
            if !out.status.success() {
                return Err(String::from_utf8_lossy(&out.stderr).into_owned());
            }
        }
        Reads::Worker | Reads::Producer => {
            let file = root().expect("it is there").join("petra_p25_full.json");
            let load = match reads {
                Reads::Producer => "data.load_parallel=None",
                _ => "data.load_parallel=data",
            };
            let scan = [file.as_os_str()];
            let set = ["--set", &dfile, "--set", load].map(OsStr::new);
            let scan: Vec<&OsStr> = scan.into_iter().chain(set).collect();
            let ended = roles::run(program, &scan, &folder, false)?;
            if ended.code != 0 {
                return Err(ended.text);
            }
        }
    }
    let theirs = root().expect("it is there").join("petra_p25_full.ptyd");
    let mut found = Vec::new();
    for (chunks, relative) in [(true, 0.0), (false, 1e-14)] {
        let options = CompareOptions {
            tolerance: Tolerance { relative, absolute: 0.0 },
            chunks,
            meta: !chunks,
            ..CompareOptions::default()
        };
        found.extend(compare(&written, &theirs, &options).map_err(|e| e.to_string())?);
    }
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    if found.is_empty() { Ok(()) } else { Err(format!("ours | ptypy's\n{}", found.join("\n"))) }
}
