//! What the sink counts, and what it says of a finished scan.

use crate::assemble::Counts;
use crate::run::Sink;
use crate::threads::DiskTimes;
use crate::writer::Finished;
use ptystream_common::message::{Announce, SinkReport, Stamp};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What has come from one worker.
#[derive(Debug, Default)]
pub(crate) struct WorkerTally {
    pub(crate) name: String,
    pub(crate) frames: u64,
    pub(crate) load: Duration,
    pub(crate) prepare: Duration,
}

/// What has been counted over all openings of the file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) resumed: u64,
    pub(crate) stale: u64,
    pub(crate) bytes: u64,
    pub(crate) begun: Option<Instant>,
    pub(crate) times: DiskTimes,
}

impl Tally {
    pub(crate) fn add(&mut self, times: DiskTimes) {
        self.times.add(times);
    }
}

impl Sink {
    /// Joins the disk's threads and sums up.
    pub(crate) fn report(&mut self, finished: Finished) -> Option<SinkReport> {
        let scan = self.scan.take()?;
        self.linger = finished.linger.map(|parts| {
            let secs = Duration::from_secs_f64(scan.announce.pipeline.parts_linger_secs);
            (Instant::now() + secs, parts)
        });
        let counts = scan.counts();
        let mut tally = scan.tally;
        tally.add(scan.disk.join());
        let mut report = SinkReport { aborted: scan.aborted, ..finished.report };
        if scan.hold.is_none() {
            report.gaps = scan.assembler.gaps();
        }
        let frames = scan.assembler.length().unwrap_or(0);
        Some(self.sum_up(&scan.announce, scan.stamp, frames, &tally, counts, report))
    }

    /// Fills in what the sink has counted; `report`: what the file's writer says.
    pub(crate) fn sum_up(
        &self,
        announce: &Announce,
        stamp: Stamp,
        frames: u64,
        tally: &Tally,
        counts: Counts,
        report: SinkReport,
    ) -> SinkReport {
        let everybody = || self.workers.values().chain(&self.gone);
        let sum =
            |of: fn(&WorkerTally) -> Duration| everybody().map(of).sum::<Duration>().as_secs_f64();
        if counts.received != counts.kept + counts.duplicates + counts.out_of_range {
            tracing::error!(?counts, "frames that came and frames accounted for differ");
        }
        let mut by_worker: BTreeMap<String, u64> = BTreeMap::new();
        for worker in everybody().filter(|t| t.frames > 0) {
            *by_worker.entry(worker.name.clone()).or_default() += worker.frames;
        }
        SinkReport {
            already_complete: false,
            frames,
            resumed: tally.resumed,
            chunks: report.chunks,
            received: counts.received,
            duplicates: counts.duplicates,
            stale: tally.stale,
            mismatched: 0,
            aborted: report.aborted,
            // The file's own list knows those of earlier runs too.
            gaps: report.gaps,
            invalid_pixels: counts.invalid_pixels,
            bytes: tally.bytes,
            workers: by_worker.into_iter().collect(),
            load_secs: sum(|t| t.load),
            prepare_secs: sum(|t| t.prepare),
            write_secs: tally.times.write.as_secs_f64(),
            publish_secs: tally.times.publish.as_secs_f64(),
            elapsed_secs: tally.begun.map_or(0.0, |b| b.elapsed().as_secs_f64()),
            run_id: stamp.run_id,
            epoch: stamp.epoch,
            file: announce.dfile.clone().filter(|_| announce.save.is_some()),
        }
    }
}
