//! `--watch FOLDER`: prepares each scan whose file appears.
//!
//! A file counts once it is whole: its size and time have not changed for a while. What was prepared is
//! kept in a list in the folder, so that a start anew goes on with what is new, and with what was ended
//! by a signal.

use ptystream_common::error::{Failure, Kind};
use ptystream_common::names::fits;
use ptystream_common::shutdown::Shutdown;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

const TICK: Duration = Duration::from_millis(200);

/// The list of what was prepared.
const LIST: &str = ".ptystream-prepared";

/// Size and time of modification of a file.
type Stamp = (u64, u128);

/// A folder that is watched.
#[derive(Debug)]
pub struct Watch {
    folder: PathBuf,
    pattern: String,
    settle: Duration,
    seen: BTreeMap<PathBuf, (Stamp, Instant)>,
    done: BTreeSet<String>,
}

/// What stands in the list for a file.
fn entry(path: &Path, (size, time): Stamp) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("{size} {time} {name}")
}

impl Watch {
    /// Begins to watch for files whose names are like `pattern` (`*`, `?`) and have stood unchanged for
    /// `settle`.
    ///
    /// # Errors
    /// [`Kind::Config`] if there is no such folder.
    pub fn new(folder: &Path, pattern: &str, settle: Duration) -> Result<Self, Failure> {
        if !folder.is_dir() {
            let text = format!("--watch: '{}' is no folder", folder.display());
            return Err(Failure::new(Kind::Config, text));
        }
        let list = std::fs::read_to_string(folder.join(LIST)).unwrap_or_default();
        Ok(Self {
            folder: folder.to_owned(),
            pattern: pattern.to_owned(),
            settle,
            seen: BTreeMap::new(),
            done: list.lines().filter_map(|l| l.split_once(' ')).map(|l| l.1.to_owned()).collect(),
        })
    }

    /// Returns the next file that is whole and was not prepared, in the order of their names.
    pub fn poll(&mut self, now: Instant) -> Option<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).ok()?;
        let mut there = BTreeMap::new();
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let meta = entry.metadata().ok().filter(|m| m.is_file());
            if let Some(meta) =
                meta.filter(|_| !name.starts_with('.') && fits(&self.pattern, &name))
            {
                let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
                there.insert(entry.path(), (meta.len(), time.map_or(0, |t| t.as_nanos())));
            }
        }
        self.seen.retain(|path, _| there.contains_key(path));
        let mut ready = None;
        for (path, stamp) in there {
            let known = self.seen.get(&path).filter(|(before, _)| *before == stamp);
            let since = known.map_or(now, |(_, since)| *since);
            self.seen.insert(path.clone(), (stamp, since));
            let whole = now.duration_since(since) >= self.settle;
            if ready.is_none() && whole && !self.done.contains(&entry(&path, stamp)) {
                ready = Some(path);
            }
        }
        ready
    }

    /// Waits for the next file; `None` once `shutdown` begins.
    pub fn next(&mut self, shutdown: &Shutdown) -> Option<PathBuf> {
        while !shutdown.is_begun() {
            if let Some(path) = self.poll(Instant::now()) {
                return Some(path);
            }
            shutdown.set_waits_for(format!("files in '{}'", self.folder.display()));
            std::thread::sleep(TICK);
        }
        None
    }

    /// Notes that a file was prepared, with which exit code.
    pub fn done(&mut self, path: &Path, code: u8) {
        let Some((stamp, _)) = self.seen.get(path) else { return };
        let entry = entry(path, *stamp);
        let list = self.folder.join(LIST);
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&list)
            .and_then(|mut file| writeln!(file, "{code} {entry}"));
        if let Err(error) = written {
            tracing::warn!(
                "{} cannot be written, so that a start anew begins with all files: {error}",
                list.display()
            );
        }
        self.done.insert(entry);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn files_count_once_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let settle = Duration::from_secs(2);
        let mut watch = Watch::new(dir.path(), "*.h5", settle).unwrap();
        let start = Instant::now();
        let at = |secs: u64| start + Duration::from_secs(secs);
        let path = dir.path().join("b.h5");
        std::fs::write(&path, "half").unwrap();
        std::fs::write(dir.path().join("b.h5.tmp"), "other").unwrap();
        assert_eq!(watch.poll(at(0)), None);
        std::fs::write(&path, "half and the rest").unwrap();
        assert_eq!(watch.poll(at(1)), None, "it has grown");
        assert_eq!(watch.poll(at(2)), None);
        std::fs::write(dir.path().join("a.h5"), "whole").unwrap();
        assert_eq!(watch.poll(at(3)), Some(path.clone()));
        watch.done(&path, 0);
        assert_eq!(watch.poll(at(4)), None);
        assert_eq!(watch.poll(at(5)), Some(dir.path().join("a.h5")));
        // A start anew knows what was prepared.
        let mut again = Watch::new(dir.path(), "*.h5", Duration::ZERO).unwrap();
        assert_eq!(again.poll(at(9)), Some(dir.path().join("a.h5")));
        again.done(&dir.path().join("a.h5"), 3);
        assert_eq!(again.poll(at(9)), None);
        // A file of the same name with another content is another scan.
        std::fs::write(&path, "another scan altogether").unwrap();
        assert_eq!(again.poll(at(9)), Some(path));
        assert!(Watch::new(&dir.path().join("no"), "*", settle).is_err());
    }
}
