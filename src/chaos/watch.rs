//! Threads that follow the file while the scan is disturbed.

use super::reader::{self, Follower, Look};
use ptystream_common::error::chain;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(15);
const SLOW: Duration = Duration::from_millis(40);
/// A reader of a finished file that gets nothing new so often will not get it any more.
const PATIENCE: usize = 20;

/// A reader on a thread of its own.
#[derive(Debug)]
pub struct Watch {
    closing: Arc<AtomicBool>,
    thread: JoinHandle<Result<Option<Follower>, String>>,
}

impl Watch {
    /// Attaches as soon as the file is there and is not that of the run `before`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(path: &Path, before: Option<u64>) -> std::io::Result<Self> {
        let path = path.to_owned();
        Self::spawn(move |closing| match attach(&path, before, closing)? {
            Some(follower) => follow(follower, PAUSE, closing).map(Some),
            None => Ok(None),
        })
    }

    /// Goes on with a reader that is attached, slowly enough to be still at it when the file goes.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn slowly(follower: Follower) -> std::io::Result<Self> {
        Self::spawn(move |closing| follow(follower, SLOW, closing).map(Some))
    }

    fn spawn(
        work: impl FnOnce(&AtomicBool) -> Result<Option<Follower>, String> + Send + 'static,
    ) -> std::io::Result<Self> {
        let closing = Arc::new(AtomicBool::new(false));
        let flag = closing.clone();
        let thread =
            std::thread::Builder::new().name("reader".into()).spawn(move || work(&flag))?;
        Ok(Self { closing, thread })
    }

    /// Lets it read what there still is; returns the reader, if there was a file to attach to.
    ///
    /// # Errors
    /// What the reader could not read.
    pub fn end(self) -> Result<Option<Follower>, String> {
        self.closing.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|_| Err("the reader panicked".into()))
    }
}

fn attach(
    path: &Path,
    before: Option<u64>,
    closing: &AtomicBool,
) -> Result<Option<Follower>, String> {
    loop {
        let last = closing.load(Ordering::SeqCst);
        if path.exists() {
            match Follower::attach(path) {
                Ok(follower) if before != Some(follower.run_id) => return Ok(Some(follower)),
                Ok(_) => {}
                // A file that makes way for another may lose its parts under the reader.
                Err(_) if before.is_some() && !last => {}
                Err(e) => return Err(format!("a reader could not attach: {}", chain(&e))),
            }
        }
        if last {
            return Ok(None);
        }
        std::thread::sleep(PAUSE / 3);
    }
}

fn follow(
    mut follower: Follower,
    pause: Duration,
    closing: &AtomicBool,
) -> Result<Follower, String> {
    let mut idle = 0;
    while idle < PATIENCE {
        let had = follower.frames.len();
        match follower.look() {
            Ok(Look::More) => {}
            Ok(Look::End | Look::Over) => break,
            Err(e) => {
                let text = chain(&e);
                return Err(format!("a reader at frame {had} could not read: {text}"));
            }
        }
        let waits = closing.load(Ordering::SeqCst) && follower.frames.len() == had;
        idle = if waits { idle + 1 } else { 0 };
        std::thread::sleep(pause);
    }
    Ok(follower)
}

/// Compares what a reader got with the frames of a file; `all`: nothing may be missing.
///
/// # Errors
/// What differs.
pub fn judge(got: &Follower, wanted: &Path, all: bool) -> Result<(), String> {
    let wanted = reader::frames(wanted).map_err(|e| chain(&e))?;
    let pairs = got.frames.iter().zip(&wanted);
    if let Some(at) = pairs.into_iter().position(|(a, b)| a != b) {
        return Err(format!("a reader got another frame than that of the file as frame {at}"));
    }
    let (n, m) = (got.frames.len(), wanted.len());
    if n > m || (all && n < m) {
        return Err(format!("a reader got {n} frames of {m}"));
    }
    Ok(())
}
