//! The report of a scan, for the logbook: the JSON beside a finished file.
//!
//! The sink writes it, from what it has counted itself and from what the producer tells it at the
//! end ([`ProducerPart`]); the producer shows the same. `docs/report.md` explains every field.

use crate::h5;
use crate::message::{Aborted, Alignment, Announce, SinkReport, is_wanted};
use crate::ptyd::record;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

/// Version of the report's layout.
pub const FORMAT: u32 = 1;

/// Counts of tickets; `sent = settled + failed + lost + held` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Handed out, repeats and copies included.
    pub sent: u64,
    /// Ended because the sink holds the frames, whoever prepared them.
    pub settled: u64,
    /// Ended because a frame was declared a gap.
    pub failed: u64,
    /// Taken back: the worker was lost, left, began anew or stood still, the sink restarted, or
    /// something came damaged.
    pub lost: u64,
    /// Held by workers at the moment.
    pub held: u64,
}

/// Counts of what happened to tickets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All tickets.
    pub tickets: Tally,
    /// Tickets handed out again after they were taken back.
    pub again: u64,
    /// Copies for a second or third worker, because the first took too long.
    pub doubled: u64,
    /// Frames in tickets handed out again, and in copies.
    pub frames_again: u64,
    /// Tickets of which the raw pixels, or the prepared ones, came damaged.
    pub damaged: u64,
    /// Tickets that became suspects because their worker died.
    pub suspects: u64,
    /// Workers that died over a suspect, holding nothing else.
    pub solo_deaths: u64,
    /// Frames that became gaps because three workers died over them.
    pub convicted: u64,
    /// Frames that became gaps because nobody finished them.
    pub given_up: u64,
}

/// What the producer knows of a scan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProducerPart {
    /// Version of the program.
    pub version: String,
    /// What became of the tickets.
    pub dispatch: Counts,
    /// And of those of each worker, by its name.
    pub workers: BTreeMap<String, Tally>,
    /// Things that a user should know.
    pub warnings: Vec<String>,
    /// Where energy, distance, psize and centre came from: name, value, origin.
    pub origins: Vec<(String, String, String)>,
    /// When the producer began, UTC, RFC 3339.
    pub started: String,
    /// Seconds from the start to the end of the scan.
    pub elapsed_secs: f64,
    /// From a frame's arrival until it was visible, of a live source.
    #[serde(default)]
    pub latency: Option<Latency>,
}

/// From the arrival of frames at the producer until it heard that they are visible in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Frames that were measured.
    pub frames: u64,
    /// Half of them took no longer, seconds.
    pub p50_secs: f64,
    /// 99 of 100 took no longer.
    pub p99_secs: f64,
    /// None took longer.
    pub max_secs: f64,
}

/// What a worker did, as the sink sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerShare {
    /// Its name.
    pub name: String,
    /// Frames of it that were kept.
    pub frames: u64,
    /// Seconds that it spent on reading them.
    pub load_secs: f64,
    /// Seconds that it spent on preparing them.
    pub prepare_secs: f64,
}

/// A worker in the report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// What it did.
    #[serde(flatten)]
    pub share: WorkerShare,
    /// Its tickets; `None` where the producer did not tell.
    pub tickets: Option<Tally>,
}

/// Frames of a scan, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// Scan points of the file: `written + lost`.
    pub expected: u64,
    /// In the file, with their pixels.
    pub written: u64,
    /// Of those: on disk from an earlier run.
    pub resumed: u64,
    /// Without pixels; see [`Lost`].
    pub lost: u64,
    /// That came to the sink, duplicates included.
    pub received: u64,
    /// That came a second time; the first copy was kept.
    pub duplicated: u64,
    /// Of those: with another checksum than the first.
    pub mismatched: u64,
    /// That came for another run or epoch, and were rejected.
    pub stale: u64,
    /// Prepared ones that came damaged and were rejected.
    pub damaged: u64,
    /// That were handed out once more, for whatever reason; `None` where the producer did not tell.
    pub redispatched: Option<u64>,
}

/// Scan points without pixels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lost {
    /// First index.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Why.
    pub reason: String,
    /// Where on the scan map: nominal (y, x) in metres, one an index; `None` if not known.
    pub positions: Option<Vec<[f64; 2]>>,
}

/// Programs and formats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// The sink's program.
    pub ptystream: String,
    /// The producer's; `None` where it did not tell.
    pub producer: Option<String>,
    /// Of the messages between roles.
    pub wire: u16,
    /// Of the group `/ptystream`.
    pub record: String,
    /// The HDF5 library.
    pub hdf5: String,
}

/// Where time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// From the producer's start to the end of the scan; the sink's own time where it did not tell.
    pub elapsed_secs: f64,
    /// From the first result that came to the sink to the end of the scan.
    pub sink_secs: f64,
    /// Frames prepared by this run over that time.
    pub frames_per_sec: f64,
    /// Reading, all workers added up.
    pub load_secs: f64,
    /// Preparing and compressing, all workers added up.
    pub prepare_secs: f64,
    /// The sink's writing of pixels.
    pub write_secs: f64,
    /// The sink's fsync, renaming, masters and folding.
    pub publish_secs: f64,
}

/// Where a value of the geometry came from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Its name.
    pub name: String,
    /// The value, as it is shown.
    pub value: String,
    /// Its origin.
    pub origin: String,
}

/// The report of one scan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScanReport {
    /// Version of this layout.
    pub format: u32,
    /// The file; `None` if nothing is written.
    pub file: Option<PathBuf>,
    /// `complete`, or `aborted` where the scan ended before its announced number of frames.
    pub state: String,
    /// Why it ended early, if it did.
    pub aborted: Option<Aborted>,
    /// Whether there was nothing to do, since the file was complete.
    #[serde(default)]
    pub already_complete: bool,
    /// When the producer began, UTC, RFC 3339; `None` where it did not tell.
    pub started: Option<String>,
    /// When this was written, UTC, RFC 3339.
    pub ended: String,
    /// Run, in hexadecimal digits as in the file.
    pub run_id: String,
    /// Starts of the sink over the run.
    pub epoch: u32,
    /// Hash of what determines the bytes of the file.
    pub scan_key: String,
    /// What became of the frames.
    pub frames: Frames,
    /// Scan points without pixels, and why.
    pub lost: Vec<Lost>,
    /// Whether frames and positions belong together; `None` where nobody looked.
    #[serde(default)]
    pub alignment: Option<Alignment>,
    /// From the arrival of a frame until it is visible in the file; `None` where nobody measured.
    #[serde(default)]
    pub latency: Option<Latency>,
    /// Invalid raw pixels of all frames that this run prepared.
    pub invalid_pixels: u64,
    /// Chunks of the file.
    pub chunks: u64,
    /// Bytes of pixels and weights that this run stored.
    pub bytes: u64,
    /// What each worker did.
    pub workers: Vec<Worker>,
    /// What became of the tickets; `None` where the producer did not tell.
    pub dispatch: Option<Counts>,
    /// Where time went.
    pub times: Times,
    /// Where energy, distance, psize and centre came from.
    pub origins: Vec<Origin>,
    /// Things that a user should know.
    pub warnings: Vec<String>,
    /// Programs and formats.
    pub versions: Versions,
}

/// Returns a time as text, UTC, RFC 3339, in whole seconds.
pub fn time_text(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Returns the name of the report beside a file: `<file>.report.json`.
pub fn report_name(file: &str) -> String {
    format!("{file}.report.json")
}

impl ScanReport {
    /// Counts the frames that are missing though nobody wanted that.
    pub fn gaps(&self) -> u64 {
        self.lost.iter().filter(|lost| !is_wanted(&lost.reason)).map(|lost| lost.count).sum()
    }

    /// Puts the report together; `ended`: now. Without the producer's part its fields are `None`.
    pub fn new(
        announce: &Announce,
        sink: &SinkReport,
        producer: Option<&ProducerPart>,
        ended: SystemTime,
    ) -> Self {
        let lost: Vec<Lost> = sink
            .gaps
            .iter()
            .map(|(range, reason)| Lost {
                first: range.first.0,
                count: u64::from(range.count),
                reason: reason.clone(),
                positions: positions(announce, range.first.0, range.end()),
            })
            .collect();
        let missing = lost.iter().map(|l| l.count).sum::<u64>();
        let elapsed_secs = producer.map_or(sink.elapsed_secs, |p| p.elapsed_secs);
        let fresh = sink.frames.saturating_sub(sink.resumed);
        let origins = producer.map_or(&announce.origins, |p| &p.origins);
        Self {
            format: FORMAT,
            file: sink.file.clone(),
            state: if sink.aborted.is_some() { "aborted" } else { "complete" }.to_owned(),
            aborted: sink.aborted.clone(),
            already_complete: sink.already_complete,
            started: producer.map(|p| p.started.clone()),
            ended: time_text(ended),
            run_id: format!("{:016x}", sink.run_id),
            epoch: sink.epoch,
            scan_key: announce.scan_key.clone(),
            frames: Frames {
                expected: sink.frames,
                written: sink.frames.saturating_sub(missing),
                resumed: sink.resumed,
                lost: missing,
                received: sink.received,
                duplicated: sink.duplicates,
                mismatched: sink.mismatched,
                stale: sink.stale,
                damaged: sink.damaged,
                redispatched: producer.map(|p| p.dispatch.frames_again),
            },
            lost,
            alignment: sink.alignment.clone(),
            latency: producer.and_then(|p| p.latency),
            invalid_pixels: sink.invalid_pixels,
            chunks: sink.chunks,
            bytes: sink.bytes,
            workers: workers(sink, producer),
            dispatch: producer.map(|p| p.dispatch),
            times: Times {
                elapsed_secs,
                sink_secs: sink.elapsed_secs,
                frames_per_sec: fresh as f64 / elapsed_secs.max(1e-9),
                load_secs: sink.workers.iter().map(|w| w.load_secs).sum(),
                prepare_secs: sink.workers.iter().map(|w| w.prepare_secs).sum(),
                write_secs: sink.write_secs,
                publish_secs: sink.publish_secs,
            },
            origins: origins
                .iter()
                .map(|(name, value, origin)| Origin {
                    name: name.clone(),
                    value: value.clone(),
                    origin: origin.clone(),
                })
                .collect(),
            warnings: producer.map_or(&announce.warnings, |p| &p.warnings).clone(),
            versions: Versions {
                ptystream: env!("CARGO_PKG_VERSION").to_owned(),
                producer: producer.map(|p| p.version.clone()),
                wire: wire::VERSION,
                record: record::VERSION.to_owned(),
                hdf5: h5::library_version(),
            },
        }
    }

    /// Returns the report as JSON, with a line end.
    ///
    /// # Errors
    /// A path that is no text.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

/// Everybody of whom something was kept, or who was handed a ticket.
fn workers(sink: &SinkReport, producer: Option<&ProducerPart>) -> Vec<Worker> {
    let mut all: BTreeMap<&str, Worker> = BTreeMap::new();
    for share in &sink.workers {
        all.insert(&share.name, Worker { share: share.clone(), tickets: None });
    }
    for (name, tally) in producer.iter().flat_map(|p| &p.workers) {
        let worker = all.entry(name).or_insert_with(|| Worker {
            share: WorkerShare { name: name.clone(), ..WorkerShare::default() },
            tickets: None,
        });
        worker.tickets = Some(*tally);
    }
    all.into_values().collect()
}

/// Nominal positions of the indices `first..end`, where the scan has one for each.
fn positions(announce: &Announce, first: u64, end: u64) -> Option<Vec<[f64; 2]>> {
    let scan = announce.positions_scan.as_ref()?;
    let rows = scan.items.chunks_exact(2).map(|yx| [yx[0], yx[1]]);
    let named: Vec<[f64; 2]> = rows.skip(first as usize).take((end - first) as usize).collect();
    (named.len() as u64 == end - first).then_some(named)
}
