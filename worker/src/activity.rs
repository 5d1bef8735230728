//! What a worker does at the moment, for those who watch it from another thread.
//!
//! A read may never return, and the worker's thread with it: whoever waits for the thread finds
//! out here what it is at, and since when.

use ptystream_common::index::IndexRange;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The ticket that a worker is at.
#[derive(Debug, Default)]
pub struct Activity(Mutex<Option<(IndexRange, Instant)>>);

impl Activity {
    /// A ticket is begun.
    pub fn begin(&self, range: IndexRange) {
        self.set(Some((range, Instant::now())));
    }

    /// It is done.
    pub fn end(&self) {
        self.set(None);
    }

    fn set(&self, now: Option<(IndexRange, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Returns the frames that the worker is at, and for how long.
    pub fn current(&self) -> Option<(IndexRange, Duration)> {
        let now = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.map(|(range, since)| (range, since.elapsed()))
    }
}
