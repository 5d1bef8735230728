//! A scan whose file is open, as the sink holds it.

use crate::assemble::{Assembler, ClosedChunk, Counts};
use crate::error::SinkError;
use crate::pause::Patience;
use crate::report::Tally;
use crate::threads::Disk;
use crate::writer::Hold;
use ptystream_common::index::IndexRange;
use ptystream_common::message::{Aborted, Announce, Stamp};
use ptystream_common::params::Follow;
use std::time::Instant;

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
    /// The common weights came damaged, and have been asked for again: no chunk closes without.
    pub(crate) lacks_weights: bool,
    pub(crate) end_announced: bool,
    pub(crate) aborted: Option<Aborted>,
    pub(crate) finishing: bool,
    pub(crate) state_changed: bool,
    /// Since when frames wait whose turn has come.
    pub(crate) waiting_since: Option<Instant>,
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
            mismatched: now.mismatched + before.mismatched,
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
        self.close();
        announced
    }

    /// The common weights are there: chunks that waited for them close.
    pub(crate) fn close_waiting(&mut self) {
        self.lacks_weights = false;
        self.close();
    }

    /// The scan's length has become known.
    pub(crate) fn set_length(&mut self, length: u64) {
        self.assembler.set_length(length);
        self.close();
    }

    /// Closes what is whole.
    pub(crate) fn close(&mut self) {
        if self.lacks_weights {
            return;
        }
        for chunk in self.assembler.close() {
            self.store(chunk);
        }
        if self.assembler.has_closed_all() {
            self.disk.hurry();
        }
    }

    /// Closes a chunk before it is whole, where frames have waited for too long.
    pub(crate) fn flush(&mut self) {
        let Some(after) = self.announce.pipeline.flush_after_secs else { return };
        if self.lacks_weights || !self.assembler.is_waiting() {
            return;
        }
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        if since.elapsed().as_secs_f64() < after {
            return;
        }
        if let Some(chunk) = self.assembler.flush(self.announce.form.batch) {
            tracing::debug!(range = %chunk.range, "closed before it was whole");
            self.store(chunk);
        }
    }

    fn store(&mut self, chunk: ClosedChunk) {
        self.tally.judge.add(&self.announce.per_frame, &chunk);
        self.disk.close(chunk);
        self.waiting_since = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::threads::{DiskEvent, Pace};
    use ptystream_common::dtype::Dtype;
    use ptystream_common::index::IndexSet;
    use ptystream_common::message::{Prepared, PreparedForm};
    use ptystream_common::params::PipelineParams;
    use std::time::Duration;

    /// A scan of 10 announced frames in chunks of 4, of which nothing is written.
    fn scan(follow: Follow) -> Scan {
        let announce = Announce {
            scan_key: "k".into(),
            key_parts: std::collections::BTreeMap::new(),
            num_frames: Some(10),
            frames_per_chunk: 4,
            form: PreparedForm {
                data: Dtype::U8,
                weights: Dtype::U8,
                shape: [1, 1],
                weights_shape: [1, 1],
                batch: 1,
                data_filters: vec![],
                weights_filters: vec![],
                common_weights: false,
            },
            positions: None,
            meta: vec![],
            info: vec![],
            positions_scan: None,
            dfile: None,
            chunk_format: None,
            save: None,
            pipeline: PipelineParams { follow, ..PipelineParams::default() },
            warnings: vec![],
            origins: vec![],
            config: String::new(),
            per_frame: vec![],
        };
        Scan {
            announce,
            stamp: Stamp::default(),
            horizon: 8,
            assembler: Assembler::new(4, Some(10), false, &IndexSet::new(), 0),
            disk: Disk::start(None, Pace { interval: Duration::ZERO, frames: 4 }).unwrap(),
            hold: None,
            patience: Patience::new(Duration::ZERO),
            failed: None,
            largest_chunk: 0,
            has_common_weights: false,
            lacks_weights: false,
            end_announced: false,
            aborted: None,
            finishing: false,
            state_changed: false,
            waiting_since: None,
            tally: Tally::default(),
            before: Counts::default(),
        }
    }

    #[test]
    fn a_scan_that_ends_early_is_filled_up_for_a_reader_that_counts() {
        assert_eq!(scan(Follow::Any).fill_up(5), 5);
        let mut scan = scan(Follow::Ptypy);
        for first in 0..5 {
            scan.assembler.prepared(&Prepared {
                range: IndexRange::new(first, 1),
                positions: None,
                max_valid: None,
                invalid: None,
                scalars: None,
                checksums: None,
                load_us: 0,
                prepare_us: 0,
            });
        }
        scan.close();
        assert_eq!(scan.fill_up(5), 10);
        scan.disk.abandon();
        let closed: Vec<IndexRange> = scan
            .disk
            .events
            .iter()
            .filter_map(|e| if let DiskEvent::Durable(range) = e { Some(range) } else { None })
            .collect();
        assert_eq!(closed, [(0, 4), (4, 4), (8, 2)].map(|(a, n)| IndexRange::new(a, n)));
        let why = "the scan ended before this frame".to_owned();
        assert_eq!(scan.assembler.gaps(), [(IndexRange::new(5, 5), why)]);
    }
}
