//! What roles say to each other.
//!
//! A message is a [`Header`] and raw payload parts; [`crate::wire`] gives it its bytes.
//!
//! | who to whom | messages |
//! |---|---|
//! | worker → producer | `Hello`, `Want`, `Measured`, `Failed`, `Broken`, `Damaged`, `Refused`, `Bye` |
//! | producer → worker | `Plan`, `Ticket`, `EndOfScan`, `Stop`, `Refused` |
//! | worker → sink | `Hello`, `CommonWeights`, `Prepared`, `Bye` |
//! | sink → worker | `Grant`, `Damaged`, `EndOfScan`, `Stop`, `Refused` |
//! | sink → producer | `Hello`, `Opened`, `State`, `Damaged`, `Paused`, `Finished`, `Stop`, `Bye` |
//! | producer → sink | `Announce`, `Gap`, `EndOfScan`, `Report`, `Stop`, `Refused` |
//! | link → link, both ways | `Beat`, `Reset` |
//!
//! Life of a scan: the sink says `Hello` to the producer; the producer may first have the centre
//! measured (`Plan` without geometry, `Ticket`s of [`Task::Measure`]); it announces the scan; the
//! sink opens the file and answers `Opened`, from then on every message carries its run id and
//! epoch; the producer sends the final `Plan` and `Ticket`s to whoever said `Want`; workers send
//! `Prepared` within what the sink `Grant`ed; the sink reports `State`; once every index is
//! durable it says `Finished`; the producer sends its part of the `Report`, and `EndOfScan` to the
//! workers; all say `Bye`.

use crate::codec::{Encoding, Filter};
use crate::dtype::Dtype;
use crate::error::Failure;
use crate::frame::{FrameForm, Region};
use crate::geometry::Geometry;
use crate::index::{Index, IndexRange, IndexSet};
use crate::params::{Arithmetic, Compat, OutputDtype, PipelineParams, Save};
use crate::report::{ProducerPart, WorkerShare};
use crate::source::SourceSpec;
use crate::value::{NumArray, Value};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A header and its raw payload parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// What is said.
    pub header: Header,
    /// Pixels and other bulk; how many there are follows from the header.
    pub parts: Vec<Bytes>,
}

impl Message {
    /// Makes a message without payload.
    pub fn new(stamp: Stamp, body: Body) -> Self {
        Self { header: Header { stamp, body }, parts: Vec::new() }
    }

    /// Makes a message with payload.
    pub fn with_parts(stamp: Stamp, body: Body, parts: Vec<Bytes>) -> Self {
        Self { header: Header { stamp, body }, parts }
    }
}

/// Which run of which sink a message belongs to; all zero before the file is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Random, made by the sink when it creates the file.
    pub run_id: u64,
    /// Counts the starts of the sink over this run.
    pub epoch: u32,
}

/// The part of a message that travels as MessagePack.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Run and epoch.
    pub stamp: Stamp,
    /// What is said.
    pub body: Body,
}

/// Which role a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads and hands out.
    Producer,
    /// Prepares.
    Worker,
    /// Writes.
    Sink,
}

/// Everything that can be said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// First message of a connection.
    Hello {
        /// The sender's role.
        role: Role,
        /// The sender's name, for people: host and process.
        name: String,
        /// Counts the Hellos of a worker to the producer: each voids what was said before.
        #[serde(default)]
        attempt: u32,
    },
    /// The sender will not work with the receiver.
    Refused(Failure),
    /// The scan has ended by a failure; whoever hears it ends too.
    Stop(Failure),
    /// The sender is about to close the connection.
    Bye,
    /// The sender lives; links say and hear it themselves, roles never see it.
    Beat {
        /// Milliseconds until the next one at the latest.
        every_ms: u32,
    },
    /// This connection ends: the receiver was taken for dead, or the sender closes. What is said on it
    /// from now on is not read. Links say and hear it themselves.
    Reset,

    /// How to prepare; parts: one per entry of `arrays`.
    Plan {
        /// What to do with a frame.
        plan: Box<PreparePlan>,
        /// Name and form of each part: `dark`, `flat`, `weight`, `common.<name>`.
        arrays: Vec<ArrayHead>,
        /// The attempt of the Hello that it answers; a worker ignores it after a later one.
        answers: u32,
    },
    /// Frames to prepare or to measure; parts: see [`Ticket::pixels`].
    Ticket(Ticket),
    /// No more tickets will come.
    EndOfScan {
        /// Number of scan points.
        expected: u64,
        /// Indices declared as gaps.
        gaps: IndexSet,
        /// Why the scan ended before its announced number of frames, if it did.
        aborted: Option<Aborted>,
    },

    /// Asks for so many more tickets.
    Want {
        /// How many.
        tickets: u32,
    },
    /// Centres of mass of frames, in index order; `None` for a frame whose sum is zero.
    Measured {
        /// Which frames.
        range: IndexRange,
        /// (row, column) in raw pixels.
        centers: Vec<Option<[f64; 2]>>,
    },
    /// Frames could not be read or prepared.
    Failed {
        /// Which frames.
        range: IndexRange,
        /// Why.
        failure: Failure,
    },

    /// The source cannot be read at all, which a worker has found out: the scan ends.
    Broken(Failure),
    /// What came is not what its checksum says: send it again.
    Damaged {
        /// Which frames, raw (from a worker) or prepared (from the sink); `None`: the common weights
        /// (from the sink to a worker).
        range: Option<IndexRange>,
    },

    /// The scan's weight, prepared and compressed once; one part: one HDF5 chunk of `batch` frames.
    CommonWeights {
        /// CRC-32 of the part.
        checksum: Option<u32>,
    },
    /// Prepared frames; parts: data, then weights unless they are common.
    Prepared(Prepared),
    /// Allows so many more `Prepared` messages.
    Grant {
        /// How many.
        messages: u32,
    },

    /// The producer's scan, for the sink to open a file for.
    Announce(Box<Announce>),
    /// The file is open.
    Opened {
        /// The producer dispatches only indices below durable watermark + horizon.
        horizon: u64,
        /// What an earlier run with the same scan key left on disk.
        durable: IndexSet,
    },
    /// What the sink holds; repeated, so that losing one costs nothing.
    State {
        /// Every index below is durable.
        watermark: u64,
        /// Indices in the sink's memory or on disk.
        accepted: IndexSet,
    },
    /// The disk refuses: nothing is written until it goes on, which an `Opened` tells.
    Paused {
        /// What is wrong, where, and the cure.
        reason: String,
    },
    /// Indices for which no frame will come.
    Gap {
        /// Which.
        range: IndexRange,
        /// Why; see [`is_wanted`].
        reason: String,
        /// Nominal positions (y, x) in metres, one an index, where there are any.
        positions: Option<Vec<[f64; 2]>>,
    },
    /// The file is complete.
    Finished(Box<SinkReport>),
    /// What the producer knows of the scan, for the report beside the file.
    Report(Box<ProducerPart>),
}

/// Begins the reason of a gap that the user wants: nothing is wrong then.
pub const WANTED: &str = "left out by ";

/// Tells whether a gap is one that the user wants.
pub fn is_wanted(reason: &str) -> bool {
    reason.starts_with(WANTED)
}

/// An end of scan before the announced number of frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aborted {
    /// What ended it.
    pub reason: String,
    /// Number of scan points that were announced, where it was known.
    pub announced: Option<u64>,
}

/// Name, type and extent of an array that travels as a part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArrayHead {
    /// What it is.
    pub name: String,
    /// Type of one item.
    pub dtype: Dtype,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// CRC-32 of the part.
    #[serde(default)]
    pub checksum: Option<u32>,
}

/// Where a frame's weights come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightsFrom {
    /// Nowhere: ones (`float64`) of the frame's extent.
    Ones,
    /// The scan's 2-D weight, of this type.
    Scan(Dtype),
    /// They come with each frame, in this type.
    Frame(Dtype),
}

/// What a worker needs in order to prepare frames of a scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreparePlan {
    /// Raw frames.
    pub frame: FrameForm,
    /// `None`: only measuring is possible yet.
    pub geometry: Option<Geometry>,
    /// Whether there is a dark or a flat: correcting changes the type of the data.
    pub corrected: bool,
    /// Where weights come from.
    pub weights: WeightsFrom,
    /// Type of the output.
    pub dtype: OutputDtype,
    /// Order and precision of operations.
    pub arithmetic: Arithmetic,
    /// Whose behaviour counts.
    pub compat: Compat,
    /// Valid raw values.
    pub valid_range: Option<[f64; 2]>,
    /// Invalid raw values.
    pub bad_values: Vec<f64>,
    /// Compression of the output.
    pub compression: crate::codec::Compression,
    /// Frames of one storage chunk.
    pub batch: u32,
    /// Frames of one chunk of the file: batches end where chunks end.
    pub frames_per_chunk: u32,
    /// Whether results carry checksums.
    pub checksums: bool,
    /// Where workers read anything themselves: what to open.
    pub source: Option<SourceSpec>,
    /// Whether workers load dark, flat and the like themselves.
    pub load_common: bool,
    /// Whether workers read the frames themselves.
    pub workers_read: bool,
    /// Whether frames are multiplied by a number of their own, which comes with them.
    pub scaled: bool,
    /// Whether workers say what alignment is judged by ([`SIGNALS`]).
    pub signals: bool,
}

impl PreparePlan {
    /// Makes a plan that measures frames and leaves them as they are: the least there is, for tests and tools.
    pub fn plain(frame: FrameForm) -> Self {
        Self {
            frame,
            geometry: None,
            corrected: false,
            weights: WeightsFrom::Ones,
            dtype: OutputDtype::Ptypy,
            arithmetic: Arithmetic::Exact,
            compat: Compat::None,
            valid_range: None,
            bad_values: Vec::new(),
            compression: crate::codec::Compression::None,
            batch: 1,
            frames_per_chunk: 1,
            checksums: false,
            source: None,
            load_common: false,
            workers_read: false,
            scaled: false,
            signals: false,
        }
    }
}

/// What a worker says of each raw frame where a plan wants signals: the sum of its good pixels and their
/// centre of mass, raw pixels. Their names follow those of the scan's own scalars.
pub const SIGNALS: [&str; 3] = ["intensity", "center_row", "center_column"];

/// What to do with a ticket's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Report their centres of mass to the producer.
    Measure,
    /// Prepare them and send them to the sink.
    Prepare,
}

/// A batch of consecutive frames to work on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which frames.
    pub range: IndexRange,
    /// What to do.
    pub task: Task,
    /// Positions (y, x) in metres, one a frame, where the producer has them.
    pub positions: Option<Vec<[f64; 2]>>,
    /// Rows for which no frame will come: they are filled with zeros.
    pub gaps: Vec<Index>,
    /// `None`: the worker reads. Else part 0 holds the frames' payloads one after the other, and
    /// part 1, if `weights` is set, their weights.
    pub pixels: Option<Box<PixelsHead>>,
}

/// How the frames of a ticket lie in its parts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelsHead {
    /// Encoding and bytes of each frame; a gap has none.
    pub frames: Vec<(Encoding, u32)>,
    /// Which pixels of a frame have come, where it is not encoded; `None`: all.
    #[serde(default)]
    pub region: Option<Region>,
    /// Positions that came with the frames; they win.
    pub positions: Option<Vec<[f64; 2]>>,
    /// Type and extent of each frame's weights, if they came with the frames.
    pub weights: Option<(Dtype, [usize; 2])>,
    /// What each frame is multiplied by, where the plan says so; 1 for a gap.
    #[serde(default)]
    pub scale: Option<Vec<f64>>,
    /// Numbers to be stored for each frame, in the order of [`Announce::per_frame`]; none for a gap.
    #[serde(default)]
    pub scalars: Option<Vec<Vec<f64>>>,
    /// CRC-32 of each part.
    pub checksums: Option<Vec<u32>>,
}

/// A batch of prepared frames; the parts are HDF5 chunks of `batch` frames, the last one of a
/// file chunk padded with zeros.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prepared {
    /// Which frames.
    pub range: IndexRange,
    /// Positions (y, x) in metres, one a frame.
    pub positions: Option<Vec<[f64; 2]>>,
    /// Good pixels in each frame's best bin, where weights are the frames' own and rebinned: the
    /// sink clears the weights of frames below their chunk's maximum.
    pub max_valid: Option<Vec<u32>>,
    /// Invalid raw pixels of each frame (`valid_range`, `bad_values`), where there are any.
    pub invalid: Option<Vec<u32>>,
    /// Numbers to be stored for each frame, in the order of [`Announce::per_frame`]; none for a gap.
    #[serde(default)]
    pub scalars: Option<Vec<Vec<f64>>>,
    /// CRC-32 of each part, as it is stored.
    pub checksums: Option<Vec<u32>>,
    /// Microseconds that the worker spent on reading.
    pub load_us: u32,
    /// Microseconds that the worker spent on preparing and compressing.
    pub prepare_us: u32,
}

/// Types and extents of what is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedForm {
    /// Type of the data.
    pub data: Dtype,
    /// Type of the weights.
    pub weights: Dtype,
    /// Prepared frame, `[rows, cols]`.
    pub shape: [usize; 2],
    /// Prepared weights, `[rows, cols]`; equal to `shape` but for ptypy's wrong-shape quirk.
    pub weights_shape: [usize; 2],
    /// Frames of one storage chunk.
    pub batch: u32,
    /// Filters of the data.
    pub data_filters: Vec<Filter>,
    /// Filters of the weights.
    pub weights_filters: Vec<Filter>,
    /// Whether all frames share one weight, sent as `CommonWeights`.
    pub common_weights: bool,
}

impl PreparedForm {
    /// Returns the bytes of one prepared frame with its weights, uncompressed.
    pub fn frame_bytes(&self) -> u64 {
        let [h, w] = self.shape;
        let weights = if self.common_weights { 0 } else { self.weights.size() };
        (h * w * (self.data.size() + weights)) as u64
    }
}

/// A scan as the producer announces it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announce {
    /// Hash of `key_parts`.
    pub scan_key: String,
    /// What the key is made of, so that a difference can be named.
    pub key_parts: BTreeMap<String, String>,
    /// Number of scan points; `None`: not known yet.
    pub num_frames: Option<u64>,
    /// Frames of one chunk.
    pub frames_per_chunk: u32,
    /// What is stored.
    pub form: PreparedForm,
    /// Type of the stored positions; `None`: there are none.
    pub positions: Option<Dtype>,
    /// `meta` of the file, in order; `num_frames` is the sink's to fill in.
    pub meta: Vec<(String, Value)>,
    /// `info` of the file, in order.
    pub info: Vec<(String, Value)>,
    /// The positions of the scan for `info/positions_scan`, `(n, 2)`.
    pub positions_scan: Option<NumArray>,
    /// The file to write.
    pub dfile: Option<PathBuf>,
    /// Suffix of part files; `None`: `.part%03d`.
    pub chunk_format: Option<String>,
    /// How to write it; `None`: nothing is written.
    pub save: Option<Save>,
    /// The pipeline's parameters.
    pub pipeline: PipelineParams,
    /// Things to say in the report.
    pub warnings: Vec<String>,
    /// Where energy, distance and psize came from: name, value, origin.
    pub origins: Vec<(String, String, String)>,
    /// The configuration as TOML, to be kept in the file; empty where there is none.
    #[serde(default)]
    pub config: String,
    /// Names of the numbers that are stored for each frame.
    #[serde(default)]
    pub per_frame: Vec<String>,
}

/// How frames and positions lie to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// They belong together.
    Aligned,
    /// Frame i belongs to position i + this.
    Shifted(i32),
    /// From this index on, frame i belongs to position i + this.
    Slips(u64, i32),
    /// The signal does not tell: why.
    CannotTell(String),
}

/// A verdict and how sure it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alignment {
    /// What it is.
    pub verdict: Verdict,
    /// By how many standard errors the frames agree better with it than with what comes next.
    pub confidence: f64,
    /// Frames that were looked at.
    pub frames: u64,
}

impl std::fmt::Display for Alignment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.verdict {
            Verdict::Aligned => f.write_str("aligned"),
            Verdict::Shifted(by) => write!(f, "shifted by {by:+}"),
            Verdict::Slips(at, by) => write!(f, "slips at {at} by {by:+}"),
            Verdict::CannotTell(why) => return write!(f, "cannot tell: {why}"),
        }?;
        write!(f, " ({:.0} standard errors, {} frames)", self.confidence, self.frames)
    }
}

/// What the sink says of a finished scan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkReport {
    /// The file, as far as there is one.
    pub file: Option<PathBuf>,
    /// Whether nothing had to be done because the file was complete.
    pub already_complete: bool,
    /// Frames of the scan.
    pub frames: u64,
    /// Frames that were on disk from an earlier run.
    pub resumed: u64,
    /// Chunks of the file.
    pub chunks: u64,
    /// Frames that came.
    pub received: u64,
    /// Frames that came twice; the first copy was kept.
    pub duplicates: u64,
    /// Frames that came for another run or epoch and were rejected.
    pub stale: u64,
    /// Frames whose second copy had another checksum than the first.
    pub mismatched: u64,
    /// Prepared frames that came damaged and were sent again.
    pub damaged: u64,
    /// Why the scan ended before its announced number of frames, if it did.
    pub aborted: Option<Aborted>,
    /// Gaps and why.
    pub gaps: Vec<(IndexRange, String)>,
    /// Whether frames and positions belong together, as far as can be told.
    #[serde(default)]
    pub alignment: Option<Alignment>,
    /// Invalid raw pixels of all frames.
    pub invalid_pixels: u64,
    /// Bytes written.
    pub bytes: u64,
    /// What each worker did, by its name.
    pub workers: Vec<WorkerShare>,
    /// Seconds that the sink spent on writing.
    pub write_secs: f64,
    /// Seconds that the sink spent on publishing (fsync, rename, master) and folding.
    pub publish_secs: f64,
    /// Seconds from the first ticket's result to the end.
    pub elapsed_secs: f64,
    /// Run id.
    pub run_id: u64,
    /// Epoch.
    pub epoch: u32,
}

/// Returns the batch of `index`: batches have `batch` frames, start where chunks of the file start
/// and end where they end.
pub fn batch_of(index: Index, batch: u32, frames_per_chunk: u32, num_frames: u64) -> IndexRange {
    let per_chunk = u64::from(frames_per_chunk);
    let chunk_start = index.0 / per_chunk * per_chunk;
    let first = chunk_start + (index.0 - chunk_start) / u64::from(batch) * u64::from(batch);
    let end = (first + u64::from(batch)).min(chunk_start + per_chunk).min(num_frames);
    IndexRange::new(first, (end - first) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_where_chunks_end() {
        // 10 frames, chunks of 7, batches of 3: 0-2 3-5 6 | 7-9
        let all: Vec<_> = (0..10).map(|i| batch_of(Index(i), 3, 7, 10)).collect();
        assert_eq!(all[2], IndexRange::new(0, 3));
        assert_eq!(all[6], IndexRange::new(6, 1));
        assert_eq!(all[9], IndexRange::new(7, 3));
        assert_eq!(batch_of(Index(8), 3, 7, 9), IndexRange::new(7, 2));
    }
}
