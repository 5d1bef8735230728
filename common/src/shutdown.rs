//! The trigger that ends a role: the same door for signals and for tests.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Tells a role whether it is to end; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    level: Arc<AtomicU8>,
    waits_for: Arc<Mutex<String>>,
}

impl Shutdown {
    /// Makes a trigger that has not fired.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for an orderly end.
    pub fn begin(&self) {
        self.level.fetch_max(1, Ordering::SeqCst);
    }

    /// Tells whether an orderly end was asked for.
    pub fn is_begun(&self) -> bool {
        self.level.load(Ordering::SeqCst) > 0
    }

    /// Notes what the role waits for before it can end, for people.
    pub fn set_waits_for(&self, what: impl Into<String>) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// Returns what the role waits for; empty if it said nothing.
    pub fn waits_for(&self) -> String {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
