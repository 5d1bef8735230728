//! A small file system in memory that can be filled up.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Room for the files of any scan that a plan makes, twice.
const BYTES: u64 = 48 << 20;

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: PathBuf,
    full_until: Option<Instant>,
}

fn run(name: &str, words: &[&str], folder: &Path) -> io::Result<()> {
    let mut command = Command::new(name);
    command.args(words).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{name} refuses {}", folder.display()))),
    }
}

impl SmallDisk {
    /// Mounts one at an empty folder.
    ///
    /// # Errors
    /// If that is not permitted.
    pub fn mount(folder: &Path) -> io::Result<Self> {
        let size = format!("size={BYTES}");
        run("mount", &["-t", "tmpfs", "-o", &size, "ptystream-chaos"], folder)?;
        Ok(Self { folder: folder.to_owned(), full_until: None })
    }

    fn ballast(&self) -> PathBuf {
        self.folder.join("ballast")
    }

    /// Fills it for a time.
    ///
    /// # Errors
    /// The system's, but that it is full.
    pub fn fill(&mut self, time: Duration) -> io::Result<()> {
        self.full_until = Some(Instant::now() + time);
        let mut file = File::create(self.ballast())?;
        let block = vec![0; 4096];
        loop {
            match file.write(&block) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(e) => return Err(e),
            }
        }
    }

    /// Tells whether it is filled.
    pub fn is_full(&self) -> bool {
        self.full_until.is_some()
    }

    /// Makes room again when the time is over.
    ///
    /// # Errors
    /// The system's.
    pub fn empty_in_time(&mut self) -> io::Result<()> {
        if self.full_until.is_some_and(|at| Instant::now() >= at) { self.empty() } else { Ok(()) }
    }

    /// Makes room again.
    ///
    /// # Errors
    /// The system's.
    pub fn empty(&mut self) -> io::Result<()> {
        match self.full_until.take() {
            Some(_) => std::fs::remove_file(self.ballast()),
            None => Ok(()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is about to end may still have a file open there.
        if let Err(error) = run("umount", &["-l"], &self.folder) {
            tracing::warn!("{error}; unmount it by hand");
        }
    }
}
