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
    .doc("`None`: as many as make about 256 KiB, raw or prepared.")
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
        .choices(&["fill", "fail"])
        .doc("`fill`: zeros with weight 0 at the nominal position. `fail`: the scan ends.")
        .level(1),
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
    ParamDecl::new("publish_interval_secs", &[T::Float], D::Float(0.2), "Least time between two versions of the master file.")
        .limits(Some(0.0), None)
        .unit("s")
        .level(2)
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
    ParamDecl::new("fresh", &[T::Bool], D::Bool(false), "Whether an unfinished file of another scan may be replaced.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("force", &[T::Bool], D::Bool(false), "Whether a scan that is finished is prepared again.")
        .level(1)
        .bytes_unaffected(),
];
