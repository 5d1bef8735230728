//! A scan whose file is open, as the sink holds it.

use crate::assemble::{Assembler, Counts};
use crate::error::SinkError;
use crate::pause::Patience;
use crate::report::Tally;
use crate::threads::Disk;
use crate::writer::Hold;
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{Aborted, Announce, Stamp};
use ptystream_common::params::Follow;

/// A scan whose file is open.
pub(crate) struct Scan {
    pub(crate) announce: Announce,
    pub(crate) stamp: Stamp,
    pub(crate) horizon: u64,
    pub(crate) assembler: Assembler,
    pub(crate) disk: Disk,
    /// `None`: nothing is written.
    pub(crate) hold: Option<Hold>,
    pub(crate) patience: Patience,
    /// Why the disk refuses; its threads are about to end.
    pub(crate) failed: Option<SinkError>,
    /// Bytes of the largest chunk as it is stored.
    pub(crate) largest_chunk: u64,
    pub(crate) has_common_weights: bool,
    pub(crate) end_announced: bool,
    pub(crate) aborted: Option<Aborted>,
    pub(crate) finishing: bool,
    pub(crate) state_changed: bool,
    pub(crate) tally: Tally,
    /// Counts of the openings before.
    pub(crate) before: Counts,
}

impl Scan {
    /// Returns the counts of all openings of the file.
    pub(crate) fn counts(&self) -> Counts {
        let (now, before) = (self.assembler.counts(), self.before);
        Counts {
            received: now.received + before.received,
            kept: now.kept + before.kept,
            duplicates: now.duplicates + before.duplicates,
            out_of_range: now.out_of_range + before.out_of_range,
            invalid_pixels: now.invalid_pixels + before.invalid_pixels,
        }
    }

    /// Fills a scan that ended early up to its announced length with gaps, which take no space,
    /// where a reader waits for all of them (`follow = "ptypy"`); returns the length.
    pub(crate) fn fill_up(&mut self, expected: u64) -> u64 {
        let announced = self.announce.num_frames.unwrap_or(expected);
        if self.announce.pipeline.follow != Follow::Ptypy || announced <= expected {
            return expected;
        }
        for first in (expected..announced).step_by(self.announce.frames_per_chunk as usize) {
            let count = (announced - first).min(u64::from(self.announce.frames_per_chunk));
            let range = IndexRange::new(first, count as u32);
            self.assembler.gap(range, "the scan ended before this frame", None);
        }
        for first in (0..announced).step_by(self.announce.frames_per_chunk as usize) {
            self.close(Index(first));
        }
        announced
    }

    pub(crate) fn close(&mut self, index: Index) {
        if let Some(chunk) = self.assembler.close_chunk_of(index) {
            self.disk.close(chunk);
        }
    }
}
