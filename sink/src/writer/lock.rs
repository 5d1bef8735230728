//! One sink per file: a lock on `<dfile>.lock`, held for life.
//!
//! The lock file also remembers run and epoch, so that an epoch is never used twice even if the
//! sink that had it wrote nothing.

use super::disk;
use crate::error::SinkError;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The lock; released when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    dfile: PathBuf,
    path: PathBuf,
    file: Mutex<File>,
}

/// Run and epoch that the previous holder left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) run_id: u64,
    pub(crate) epoch: u32,
}

impl Lock {
    /// Takes the lock.
    pub(crate) fn take(dfile: &Path) -> Result<(Self, Option<Previous>), SinkError> {
        let path = disk::beside(dfile, &format!("{}.lock", disk::name_of(dfile)));
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
                .map_err(SinkError::file("open the lock", &path))?;
            // SAFETY: the descriptor is open for as long as `file` lives.
            let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            let refused = (taken != 0).then(io::Error::last_os_error);
            let mut text = String::new();
            // What another process is writing may be unreadable: it serves the message only.
            let read = file.read_to_string(&mut text);
            match refused {
                Some(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let owner = owner(&text).unwrap_or_else(|| "another process".to_owned());
                    return Err(SinkError::Locked { file: dfile.to_owned(), owner });
                }
                Some(e) => return Err(SinkError::file("lock", &path)(e)),
                None => read.map_err(SinkError::file("read the lock", &path))?,
            };
            // The previous holder may have deleted the file between our opening and locking it.
            if is_at(&file, &path) {
                let lock = Self { dfile: dfile.to_owned(), path, file: Mutex::new(file) };
                return Ok((lock, previous(&text)));
            }
        }
    }

    /// Writes who holds the lock, and for what.
    pub(crate) fn sign(&self, run_id: u64, epoch: u32) -> Result<(), SinkError> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let text = format!("{} {} {run_id:016x} {epoch}\n", std::process::id(), host.trim());
        let write = |file: &mut File| -> io::Result<()> {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        write(&mut file).map_err(SinkError::file("write the lock", &self.path))
    }

    /// Makes sure that the lock still stands for this run and epoch.
    pub(crate) fn check(&self, run_id: u64, epoch: u32) -> Result<(), SinkError> {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        if is_at(&file, &self.path) && previous(&text) == Some(Previous { run_id, epoch }) {
            return Ok(());
        }
        Err(SinkError::LockLost { file: self.dfile.clone() })
    }

    /// Deletes the lock file; the lock itself goes with the value.
    pub(crate) fn forget(&self) -> Result<(), SinkError> {
        disk::remove(&self.path)
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let id = |m: &std::fs::Metadata| (m.dev(), m.ino());
    matches!((file.metadata(), std::fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

fn owner(text: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    Some(format!("process {} on {}", words.next()?, words.next()?))
}

fn previous(text: &str) -> Option<Previous> {
    let mut words = text.split_whitespace().skip(2);
    let run_id = u64::from_str_radix(words.next()?, 16).ok()?;
    Some(Previous { run_id, epoch: words.next()?.parse().ok()? })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_second_sink_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let dfile = folder.path().join("a.ptyd");
        let (lock, before) = Lock::take(&dfile).unwrap();
        assert_eq!(before, None);
        lock.sign(7, 2).unwrap();
        let refused = Lock::take(&dfile).unwrap_err();
        let pid = std::process::id().to_string();
        assert!(matches!(&refused, SinkError::Locked { owner, .. } if owner.contains(&pid)));
        drop(lock);
        let (lock, before) = Lock::take(&dfile).unwrap();
        assert_eq!(before, Some(Previous { run_id: 7, epoch: 2 }));
        lock.check(7, 2).unwrap();
        assert!(matches!(lock.check(7, 3), Err(SinkError::LockLost { .. })));
        lock.forget().unwrap();
        assert!(matches!(lock.check(7, 2), Err(SinkError::LockLost { .. })));
    }
}
