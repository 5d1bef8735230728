//! The parameters as the roles receive them: checked and typed.

use crate::codec::Compression;
use crate::geometry::{Center, Orientation};
use crate::value::{NumArray, Value};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How the file is written (`data.save`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Save {
    /// All chunks in one file.
    Append,
    /// A small master with links to one part a chunk; can be read while it grows.
    Link,
    /// All frames in one chunk of one file.
    Merge,
}

/// Who reads (`data.load_parallel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadParallel {
    /// None: the producer reads all and sends pixels.
    Producer,
    /// Frames by the workers.
    Data,
    /// Scan-wide data by everybody, frames by the producer.
    Common,
    /// Frames and scan-wide data by everybody.
    All,
}

impl LoadParallel {
    /// Tells whether workers read the frames themselves.
    pub fn workers_read(self) -> bool {
        matches!(self, Self::Data | Self::All)
    }
}

/// ptypy's `scan.data` block, typed; the source's own keys stay in `tree`.
#[derive(Clone, Debug, PartialEq)]
pub struct DataParams {
    /// The source's registered name.
    pub name: String,
    /// The file to be written.
    pub dfile: Option<PathBuf>,
    /// Suffix of part files with one `%d`; `None` when the user set none: `.part%03d`.
    pub chunk_format: Option<String>,
    /// How the file is written; `None`: nothing is written.
    pub save: Option<Save>,
    /// Whether the automatic centre is used; `None` as ptypy: only if `center` is None.
    pub auto_center: Option<bool>,
    /// Who reads.
    pub load_parallel: LoadParallel,
    /// Rebinning factor; `None` is 1.
    pub rebin: usize,
    /// Transpose and flips.
    pub orientation: Orientation,
    /// Least frames of a chunk of a live scan.
    pub min_frames: usize,
    /// Theoretical positions, `(n, 2)`, (y, x) in metres.
    pub positions_theory: Option<NumArray>,
    /// How many scan points to prepare.
    pub num_frames: Option<u64>,
    /// Free label of the scan.
    pub label: Option<String>,
    /// Name of the experiment.
    pub experiment_id: Option<String>,
    /// Version of the data block.
    pub version: f64,
    /// Region of interest; `None`: the whole frame.
    pub shape: Option<[usize; 2]>,
    /// The optical axis.
    pub center: Center,
    /// Pixel size (y, x), metres; `None`: recorded or unknown.
    pub psize: Option<[f64; 2]>,
    /// Sample to detector, metres.
    pub distance: Option<f64>,
    /// Photon energy, keV.
    pub energy: Option<f64>,
    /// `farfield` or `nearfield`.
    pub propagation: String,
    /// Stored; used by simulated sources.
    pub add_poisson_noise: bool,
    /// The whole effective block, the source's keys included, as it goes into `info`.
    pub tree: Value,
    /// Names of the parameters that the user gave; all others are defaults.
    pub given: Vec<String>,
    /// Folder to which relative input paths refer.
    pub base: PathBuf,
}

impl DataParams {
    /// Tells whether the user gave the parameter himself.
    pub fn is_given(&self, name: &str) -> bool {
        self.given.iter().any(|g| g == name)
    }
}

/// Type of the prepared data (`pipeline.dtype`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputDtype {
    /// numpy's promotion rules as ptypy meets them.
    Ptypy,
    /// Single precision.
    Float32,
    /// Double precision.
    Float64,
    /// Unsigned 16 bit, rounded half to even and clipped.
    Uint16,
    /// Unsigned 32 bit, rounded half to even and clipped.
    Uint32,
    /// Signed 32 bit, rounded half to even and clipped.
    Int32,
}

/// Order and precision of operations (`pipeline.arithmetic`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arithmetic {
    /// Bit-equal order of operations.
    Exact,
    /// Fused, single precision, within 1e-6.
    Fast,
}

/// Whose behaviour counts where ptypy's is in doubt (`pipeline.compat`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compat {
    /// Ours: the deviations of docs/deviations.md.
    None,
    /// ptypy's, quirks included.
    Ptypy,
}

/// What becomes of a frame that cannot be had (`pipeline.on_gap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// Zeros with weight 0 at the nominal position.
    Fill,
    /// The frame is left out.
    Skip,
    /// The scan ends.
    Fail,
}

/// What becomes of a scan that ends before its announced number of frames (`pipeline.on_abort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnAbort {
    /// The file ends with the last frame that came.
    Truncate,
    /// The rest are gaps.
    Fill,
    /// The file stays unfinished.
    Keep,
}

/// Which worker gets which frames (`pipeline.policy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Whoever asks gets what is next.
    Dynamic,
    /// Each worker gets its block of each chunk.
    Static,
}

/// Which readers follow the file while it grows (`pipeline.follow`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// Readers that look at the file's state.
    Any,
    /// ptypy's `PtydScan`, which counts frames.
    Ptypy,
}

/// Whether raw frames of a source that cannot be read again are kept on disk (`pipeline.spool`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spool {
    /// In memory only.
    Off,
    /// What memory has no room for.
    Overflow,
    /// All, before they are handed out.
    Always,
}

/// What to do with a new frame where memory and spool are full (`pipeline.on_full`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// It is not taken from the source until there is room.
    Wait,
    /// It becomes a gap.
    Drop,
    /// The scan ends.
    Fail,
}

/// The `[pipeline]` block, typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PipelineParams {
    /// Frames of one chunk of the file; `None`: 40, less where frames are large.
    pub frames_per_chunk: Option<u32>,
    /// Frames of one ticket, message and HDF5 storage chunk; `None`: about 256 KiB.
    pub batch: Option<u32>,
    /// Compression of data and weights.
    pub compression: Compression,
    /// Type of the prepared data.
    pub dtype: OutputDtype,
    /// Order and precision of operations.
    pub arithmetic: Arithmetic,
    /// Whose behaviour counts.
    pub compat: Compat,
    /// Raw values below the first or above the second are invalid.
    pub valid_range: Option<[f64; 2]>,
    /// Raw values that are invalid.
    pub bad_values: Vec<f64>,
    /// What becomes of a frame that cannot be had.
    pub on_gap: OnGap,
    /// What becomes of a scan that ends early.
    pub on_abort: OnAbort,
    /// Which readers follow the file.
    pub follow: Follow,
    /// Whether raw frames are kept on disk.
    pub spool: Spool,
    /// Folder of the spool; `None`: that of `data.dfile`.
    pub spool_folder: Option<PathBuf>,
    /// Bytes of raw frames that the spool may hold.
    pub spool_bytes: u64,
    /// What to do with a new frame where memory and spool are full.
    pub on_full: OnFull,
    /// Whether `append` can be followed while it runs, as a link master; never with `merge`.
    pub live: bool,
    /// Seconds for which parts stay after a live fold.
    pub parts_linger_secs: f64,
    /// Least seconds between two replacements of the master.
    pub publish_interval_secs: f64,
    /// Seconds after which a chunk closes with what has come; `None`: when it is full.
    pub flush_after_secs: Option<f64>,
    /// Bytes of prepared frames that the sink may hold.
    pub sink_memory_bytes: u64,
    /// Bytes of raw frames that the producer may hold.
    pub producer_memory_bytes: u64,
    /// Tickets that a worker holds at most.
    pub window: u32,
    /// Which worker gets which frames.
    pub policy: Sharing,
    /// Workers that share the scan; `None`: as many as start together.
    pub workers: Option<usize>,
    /// Worker threads; `None`: as many as cores.
    pub threads: Option<usize>,
    /// Seconds to wait for a peer that never comes.
    pub peer_timeout_secs: f64,
    /// Seconds to wait for a disk that is full or refuses to write.
    pub disk_wait_secs: f64,
    /// Seconds after which a batch is given to a second worker too.
    pub straggler_secs: f64,
    /// Seconds after which a batch that three workers hold becomes a gap.
    pub give_up_secs: f64,
    /// Whether frames carry checksums.
    pub checksums: bool,
    /// Whether it is judged if frames and positions of a live scan belong together.
    pub alignment: bool,
    /// Command to be run once the first chunk can be read.
    pub on_first_chunk: Option<String>,
    /// Command to be run when the scan has ended.
    pub on_done: Option<String>,
    /// Whether to replace an unfinished file of another scan.
    pub fresh: bool,
    /// Whether to prepare again what is finished.
    pub force: bool,
}
