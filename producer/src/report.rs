//! What the producer says while a scan runs, and at its end.

use crate::dispatch::{Counts, Tally};
use ptystream_common::message::{Aborted, SinkReport};
use std::borrow::Cow;
use std::collections::BTreeMap;

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

/// What the producer says of a finished scan.
#[derive(Clone, Debug, Default)]
pub struct ProducerReport {
    /// The sink's report.
    pub sink: SinkReport,
    /// What became of the tickets.
    pub counts: Counts,
    /// And of those of each worker, by its name.
    pub workers: BTreeMap<String, Tally>,
    /// Why the scan ended before its announced number of frames, if it did.
    pub aborted: Option<Aborted>,
    /// Things that a user should know.
    pub warnings: Vec<String>,
    /// Where energy, distance, psize and centre came from: name, value, origin.
    pub origins: Vec<(String, String, String)>,
    /// Seconds from the start to the end of the scan.
    pub elapsed_secs: f64,
}
