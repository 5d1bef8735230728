//! The declarations of the `[pipeline]` block: how frames travel and what the file is made of.

use super::ParamDefault as D;
use super::ParamType as T;
use super::{ParamDecl, ParamType};

const GIB: i64 = 1 << 30;
const MIB: f64 = 1_048_576.0;
const U32_MAX: f64 = u32::MAX as f64;
const INT_OR_NONE: &[ParamType] = &[T::Int, T::None];

/// Lists the words for [`crate::codec::Compression`].
const COMPRESSION: &[&str] = &[
    "none",
    "gzip",
    "gzip:1",
    "gzip:2",
    "gzip:3",
    "gzip:4",
    "gzip:5",
    "gzip:6",
    "gzip:7",
    "gzip:8",
    "gzip:9",
    "shuffle-gzip",
    "shuffle-gzip:1",
    "shuffle-gzip:2",
    "shuffle-gzip:3",
    "shuffle-gzip:4",
    "shuffle-gzip:5",
    "shuffle-gzip:6",
    "shuffle-gzip:7",
    "shuffle-gzip:8",
    "shuffle-gzip:9",
    "bslz4",
];

/// Declares every parameter of the `[pipeline]` block.
pub const PIPELINE: &[ParamDecl] = &[
    ParamDecl::new("frames_per_chunk", INT_OR_NONE, D::None, "Frames of one chunk of the file.")
        .limits(Some(1.0), Some(U32_MAX))
        .doc("A live reader gets frames a chunk at a time. `None`: 40, less where frames are large."),
    ParamDecl::new(
        "batch",
        INT_OR_NONE,
        D::None,
        "Frames that travel together and are compressed together.",
    )
    .limits(Some(1.0), Some(U32_MAX))
    .doc("`None`: as many as make up to 4 MiB, raw or prepared, and a quarter of a chunk; 1 MiB from live sources. Small frames: 256 KiB in any case. 1 with `flush_after_secs`.")
    .level(2),
    ParamDecl::new("compression", &[T::Str], D::Str("gzip:1"), "Compression of frames and weights.")
        .choices(COMPRESSION)
        .doc(
            "`gzip` opens everywhere; a level 1 to 9 follows a colon, and is 4 without one. \
             `shuffle-gzip` sorts the bytes first: smaller for integers. `bslz4` (bitshuffle and \
             LZ4) is fast; readers need its HDF5 plugin.",
        ),
    ParamDecl::new("dtype", &[T::Str], D::Str("ptypy"), "Type of the prepared frames.")
        .choices(&["ptypy", "float32", "float64", "uint16", "uint32", "int32"])
        .doc("`ptypy`: the type that ptypy arrives at, often float64. Integers are rounded half to even and clipped.")
        .level(1),
    ParamDecl::new("arithmetic", &[T::Str], D::Str("exact"), "Order and precision of operations.")
        .choices(&["exact", "fast"])
        .doc("`exact`: to the bit as ptypy. `fast`: in one pass and single precision, within 1e-6.")
        .level(1),
    ParamDecl::new("compat", &[T::Str], D::Str("none"), "Whose behaviour counts where ptypy's is in doubt.")
        .choices(&["none", "ptypy"])
        .doc("`ptypy`: its quirks included; see docs/deviations.md.")
        .level(2),
    ParamDecl::new("valid_range", &[T::FloatPair, T::None], D::None, "Lowest and highest valid raw value.")
        .doc("Pixels outside get weight 0 before any correction, and are counted for each frame.")
        .cure("give (lowest, highest)")
        .level(1),
    ParamDecl::new("bad_values", &[T::List], D::EmptyList, "Raw values that are invalid.")
        .doc("For detectors that mark pixels, such as [65535] or [-1, -2]. NaN is invalid as soon as `bad_values` or `valid_range` is set.")
        .cure("give a list of numbers, such as [65535]")
        .level(1),
    ParamDecl::new("on_gap", &[T::Str], D::Str("fill"), "What becomes of a frame that cannot be had.")
        .choices(&["fill", "skip", "fail"])
        .doc("`fill`: zeros with weight 0 at the nominal position. `skip`: the frame is left out. `fail`: the scan ends.")
        .level(1),
    ParamDecl::new("on_abort", &[T::Str], D::Str("truncate"), "What becomes of a scan that ends before its announced number of frames.")
        .choices(&["truncate", "fill", "keep"])
        .doc("`truncate`: the file ends with the last frame that came. `fill`: the rest are gaps, as `on_gap` says. `keep`: the file stays unfinished, and the same command goes on with it. The exit code is 7 in any case.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("follow", &[T::Str], D::Str("any"), "Which readers follow the file while it grows.")
        .choices(&["any", "ptypy"])
        .doc("`ptypy`: its `PtydScan` counts frames up to `meta/num_frames` and waits for ever for one that is missing. A scan that ends early is then filled up with frames of weight 0 that take no space, and `on_gap = \"skip\"` is refused.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("spool", &[T::Str], D::Str("off"), "Whether raw frames of a source that cannot be read again are kept on disk.")
        .choices(&["off", "overflow", "always"])
        .doc("`off`: in memory only. `overflow`: on disk what memory has no room for. `always`: on disk before they are handed out, so that they survive the end of the producer.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("spool_folder", &[T::Str, T::None], D::None, "Folder of the spool.")
        .doc("`None`: the folder of `data.dfile`.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("spool_bytes", &[T::Int], D::Int(64 * GIB), "Raw frames that the spool may hold.")
        .limits(Some(MIB), None)
        .unit("bytes")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("on_full", &[T::Str], D::Str("wait"), "What to do with a new frame where memory and spool are full.")
        .choices(&["wait", "drop", "fail"])
        .doc("`wait`: it is not taken from the source until there is room. `drop`: it becomes a gap. `fail`: the scan ends.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("live", &[T::Bool], D::Bool(false), "Whether the file can be followed while it is written.")
        .doc("`append` then shows a link master until it is done. `link` can always be followed, `merge` never: a reader would look for chunks that have become one.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("parts_linger_secs", &[T::Float], D::Float(10.0), "How long parts stay after they were folded into one file.")
        .limits(Some(0.0), None)
        .unit("s")
        .doc("So that a reader in the middle of its work can finish. Only with `live`.")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("publish_interval_secs", &[T::Float], D::Float(0.2), "Least time between two versions of the master file, unless workers would have to wait for the next one, or the scan is complete.")
        .limits(Some(0.0), None)
        .unit("s")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("flush_after_secs", &[T::Float, T::None], D::None, "How long a frame may wait for its chunk to fill.")
        .limits(Some(0.0), None)
        .unit("s")
        .doc("The chunk then ends before it is whole, at the last frame before which none is missing, and the next one goes on from there: for slow scans that are followed. Frames are then stored one by one unless `batch` says otherwise. `None`: chunks end where they are full.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("sink_memory_bytes", &[T::Int], D::Int(GIB), "Prepared frames that the sink may hold.")
        .limits(Some(MIB), None)
        .unit("bytes")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("producer_memory_bytes", &[T::Int], D::Int(GIB), "Raw frames that the producer may hold.")
        .limits(Some(MIB), None)
        .unit("bytes")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("window", &[T::Int], D::Int(8), "Tickets that a worker holds at most.")
        .limits(Some(1.0), Some(1024.0))
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("policy", &[T::Str], D::Str("dynamic"), "Which worker gets which frames.")
        .choices(&["dynamic", "static"])
        .doc(
            "`dynamic`: whoever asks gets what is next. `static`: each worker gets its block of each \
             chunk, as ptypy's ranks do; a slow one then holds up the others, and only what it \
             leaves goes elsewhere.",
        )
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("workers", INT_OR_NONE, D::None, "Workers that share the scan where `policy` is static.")
        .limits(Some(1.0), Some(65536.0))
        .doc(
            "`None`: in one process and over MPI ranks, all there are. The scan begins when they \
             have come, or after `peer_timeout_secs` with those that have.",
        )
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("threads", INT_OR_NONE, D::None, "Worker threads of one process.")
        .limits(Some(1.0), Some(1024.0))
        .doc("`None`: as many as there are cores.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("peer_timeout_secs", &[T::Float], D::Float(60.0), "How long to wait for a role that never comes.")
        .above(0.0)
        .unit("s")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("disk_wait_secs", &[T::Float], D::Float(600.0), "How long to wait for a disk that is full or refuses to write.")
        .limits(Some(0.0), None)
        .unit("s")
        .doc("The scan stands still meanwhile and goes on when there is room. After that it ends with exit code 6, and the same command goes on from there.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("straggler_secs", &[T::Float], D::Float(5.0), "After this a batch that does not come back is given to a second worker too.")
        .above(0.0)
        .unit("s")
        .doc("Or after ten times the usual time of a batch, if that is longer.")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("give_up_secs", &[T::Float], D::Float(300.0), "After this a batch that three workers hold and none finishes becomes a gap.")
        .above(0.0)
        .unit("s")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("checksums", &[T::Bool], D::Bool(true), "Whether frames carry checksums from the producer through the workers into the file.")
        .doc("`ptystream inspect --checksums` verifies them in the finished file.")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("alignment", &[T::Bool], D::Bool(true), "Whether it is judged if frames and positions of a live scan belong together.")
        .doc("By intensity and centre of mass of each frame, which workers find out in passing and the file keeps (/ptystream/per_frame). The report says `aligned`, `shifted by`, `slips at` or `cannot tell`.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("on_first_chunk", &[T::Str, T::None], D::None, "Command to be run once the first chunk can be read.")
        .doc(
            "By `sh -c`, where the producer or `run` is, with PTYSTREAM_FILE, PTYSTREAM_STATUS and \
             PTYSTREAM_GAPS in its environment. It keeps nothing waiting.",
        )
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("on_done", &[T::Str, T::None], D::None, "Command to be run when the scan has ended.")
        .doc("As `on_first_chunk`; PTYSTREAM_STATUS is `complete`, `aborted` or `failed`.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("fresh", &[T::Bool], D::Bool(false), "Whether an unfinished file of another scan may be replaced.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("force", &[T::Bool], D::Bool(false), "Whether a scan that is finished is prepared again.")
        .level(1)
        .bytes_unaffected(),
];
