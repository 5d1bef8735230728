//! What the producer says while a scan runs.

use std::borrow::Cow;

/// How far a scan has come.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// What is going on, in a word or two; where the sink has paused, with the reason.
    pub phase: Cow<'static, str>,
    /// Frames that the sink holds.
    pub accepted: u64,
    /// Frames that are on disk.
    pub durable: u64,
    /// Frames of the scan, once known.
    pub total: Option<u64>,
    /// Frames of a chunk.
    pub frames_per_chunk: u64,
    /// Workers that are connected.
    pub workers: usize,
}
