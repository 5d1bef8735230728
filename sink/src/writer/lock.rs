//! One sink per file: a lock on `<dfile>.lock`, held for life.
//!
//! The lock file also remembers run and epoch, so that an epoch is never used twice even if the
//! sink that had it wrote nothing. Each holder adds a line; the last whole one counts, so that a
//! write that is cut off takes nothing away.

use super::{disk, operations};
use crate::error::SinkError;
use ptystream_common::names::host;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
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

/// Tells whether a file system knows no locks.
fn cannot_lock(error: &io::Error) -> bool {
    let known = [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS, libc::EINVAL];
    error.raw_os_error().is_some_and(|code| known.contains(&code))
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
            operations::next("open the lock", &path)?;
            let mut file = OpenOptions::new()
                .read(true)
                .append(true)
                .create(true)
                .open(&path)
                .map_err(SinkError::file("open the lock", &path))?;
            // SAFETY: the descriptor is open for as long as `file` lives.
            let taken = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
            let refused = (taken != 0).then(io::Error::last_os_error);
            let mut bytes = Vec::new();
            let read = file.read_to_end(&mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            match refused {
                Some(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let owner = owner(&text).unwrap_or_else(|| "another process".to_owned());
                    return Err(SinkError::Locked { file: dfile.to_owned(), owner });
                }
                // Shared file systems without a lock service: somebody has to see to it that there is one
                // sink a file.
                Some(e) if cannot_lock(&e) => {
                    tracing::warn!(
                        "'{}' cannot be locked on this file system ({e}); start no second sink for \
                         this file",
                        path.display()
                    );
                    read.map_err(SinkError::file("read the lock", &path))?;
                }
                Some(e) => return Err(SinkError::file("lock", &path)(e)),
                None => {
                    read.map_err(SinkError::file("read the lock", &path))?;
                }
            };
            // The previous holder may have deleted the file between our opening and locking it.
            if is_at(&file, &path) {
                let lock = Self { dfile: dfile.to_owned(), path, file: Mutex::new(file) };
                return Ok((lock, previous(&text)));
            }
        }
    }

    /// Returns run and epoch that were written last.
    pub(crate) fn previous(&self) -> Option<Previous> {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        previous(&String::from_utf8_lossy(&bytes))
    }

    /// Makes sure that the lock is still this one.
    pub(crate) fn stands(&self) -> Result<(), SinkError> {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if is_at(&file, &self.path) {
            return Ok(());
        }
        Err(SinkError::LockLost { file: self.dfile.clone() })
    }

    /// Writes who holds the lock, and for what.
    pub(crate) fn sign(&self, run_id: u64, epoch: u32) -> Result<(), SinkError> {
        // The line before may lack its end.
        let text = format!("\n{} {} {run_id:016x} {epoch}\n", std::process::id(), host());
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        operations::next("write the lock", &self.path)?;
        let written = file.write_all(text.as_bytes());
        written.map_err(SinkError::file("write the lock", &self.path))?;
        operations::next("sync the lock", &self.path)?;
        file.sync_all().map_err(SinkError::file("sync the lock", &self.path))
    }

    /// Makes sure that the lock still stands for this run and epoch.
    pub(crate) fn check(&self, run_id: u64, epoch: u32) -> Result<(), SinkError> {
        self.stands()?;
        if self.previous() == Some(Previous { run_id, epoch }) {
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

/// Returns the words of the last line that is whole and of the right form.
fn last_line(text: &str) -> Option<[&str; 4]> {
    let whole = text.rsplit_once('\n')?.0;
    whole.lines().rev().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        <[&str; 4]>::try_from(words).ok()
    })
}

fn owner(text: &str) -> Option<String> {
    let [process, host, ..] = last_line(text)?;
    Some(format!("process {process} on {host}"))
}

fn previous(text: &str) -> Option<Previous> {
    let [_, _, run_id, epoch] = last_line(text)?;
    Some(Previous { run_id: u64::from_str_radix(run_id, 16).ok()?, epoch: epoch.parse().ok()? })
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

    #[test]
    fn a_line_that_was_cut_off_takes_nothing_away() {
        let folder = tempfile::tempdir().unwrap();
        let dfile = folder.path().join("a.ptyd");
        let path = folder.path().join("a.ptyd.lock");
        Lock::take(&dfile).unwrap().0.sign(7, 12).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for more in ["", "\n99 host 0000000000000007 1", "\0\0\0\0\n", "\nonly two\n"] {
            std::fs::write(&path, [&whole, more.as_bytes()].concat()).unwrap();
            let (lock, before) = Lock::take(&dfile).unwrap();
            assert_eq!(before, Some(Previous { run_id: 7, epoch: 12 }), "{more:?}");
            lock.sign(7, 13).unwrap();
            lock.check(7, 13).unwrap();
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(Lock::take(&dfile).unwrap().1, None);
    }
}
