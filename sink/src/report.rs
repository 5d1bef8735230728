//! What the sink counts, and what it says of a finished scan.

use crate::alignment::Judge;
use crate::assemble::Counts;
use crate::run::Sink;
use crate::threads::DiskTimes;
use crate::writer::{self, Finished};
use ptystream_common::message::{Announce, SinkReport, Stamp};
use ptystream_common::report::{ProducerPart, ScanReport, WorkerShare};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

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
    /// Prepared frames that came damaged.
    pub(crate) damaged: u64,
    pub(crate) bytes: u64,
    pub(crate) begun: Option<Instant>,
    pub(crate) times: DiskTimes,
    /// Whether frames and positions belong together.
    pub(crate) judge: Judge,
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
        let report = self.sum_up(&scan.announce, scan.stamp, frames, &tally, counts, report);
        self.written = scan.hold.is_some().then(|| (scan.announce, report.clone()));
        Some(report)
    }

    /// Writes the report anew, now that the producer has told its part.
    pub(crate) fn complete_report(&mut self, part: &ProducerPart) {
        let Some((announce, report)) = self.written.take() else { return };
        let report = ScanReport::new(&announce, &report, Some(part), SystemTime::now());
        writer::complete_report(&report);
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
        if counts.received != counts.kept + counts.duplicates + counts.out_of_range {
            tracing::error!(?counts, "frames that came and frames accounted for differ");
        }
        let mut by_worker: BTreeMap<&str, WorkerShare> = BTreeMap::new();
        for tally in self.workers.values().chain(&self.gone).filter(|t| t.frames > 0) {
            let share = by_worker.entry(&tally.name).or_default();
            share.name.clone_from(&tally.name);
            share.frames += tally.frames;
            share.load_secs += tally.load.as_secs_f64();
            share.prepare_secs += tally.prepare.as_secs_f64();
        }
        SinkReport {
            already_complete: false,
            frames,
            resumed: tally.resumed,
            chunks: report.chunks,
            received: counts.received,
            duplicates: counts.duplicates,
            stale: tally.stale,
            mismatched: counts.mismatched,
            damaged: tally.damaged,
            aborted: report.aborted,
            // The file's own list knows those of earlier runs too.
            gaps: report.gaps,
            alignment: report.alignment,
            invalid_pixels: counts.invalid_pixels,
            bytes: tally.bytes,
            workers: by_worker.into_values().collect(),
            write_secs: tally.times.write.as_secs_f64(),
            publish_secs: tally.times.publish.as_secs_f64(),
            elapsed_secs: tally.begun.map_or(0.0, |b| b.elapsed().as_secs_f64()),
            run_id: stamp.run_id,
            epoch: stamp.epoch,
            file: announce.dfile.clone().filter(|_| announce.save.is_some()),
        }
    }
}
