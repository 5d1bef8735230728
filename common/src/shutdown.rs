//! The trigger that ends a role: the same door for signals and for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Tells a role whether it is to end; clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    level: Arc<AtomicU8>,
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
}
