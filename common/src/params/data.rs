//! The declarations of ptypy's `scan.data` block; sources add their own.
//!
//! # Source
//! ptypy `core/data.py`, `PtyScan`: names, types, defaults and user levels.

use super::ParamDefault as D;
use super::ParamType as T;
use super::{ParamDecl, ParamType};

const INT_OR_NONE: &[ParamType] = &[T::Int, T::None];
const STR_OR_NONE: &[ParamType] = &[T::Str, T::None];

/// Declares every parameter that all sources share, in ptypy's order.
pub const DATA: &[ParamDecl] = &[
    ParamDecl::new("name", &[T::Str], D::None, "Where the frames come from.")
        .doc(
            "The name of a source; ptypy's class names are taken as well. When a folder stands in \
             the place of the configuration file, the source is `numpy`.",
        ),
    ParamDecl::new("dfile", &[T::OutputPath, T::None], D::None, "The .ptyd file to be written.")
        .doc("A relative path starts at the working folder. With `dfile` and without `save` the file is written with `save = \"append\"`, by live roles with `\"link\"`.")
        .bytes_unaffected(),
    ParamDecl::new(
        "chunk_format",
        &[T::Str],
        D::Str(".chunk%02d"),
        "Ending of the part files when save is 'link'.",
    )
    .doc("One %d, %02d, ... stands for the chunk's number. Unless it is given, parts end in .part%03d, as ptypy's code does whatever this parameter says.")
    .cure("give an ending with one %d, such as '.chunk%02d'")
    .level(2),
    ParamDecl::new("save", STR_OR_NONE, D::None, "How the file is written.")
        .choices(&["append", "link", "merge"])
        .doc(
            "`append`: all chunks in one file. `link`: a small master file with a link to one part \
             file a chunk, which can be read while it grows. `merge`: all frames in one chunk of \
             one file. `None`: nothing is written.",
        )
        .level(1),
    ParamDecl::new(
        "auto_center",
        &[T::Bool, T::None],
        D::None,
        "Whether the centre is found from the frames.",
    )
    .doc("`None`: only if `center` is `None`. `True`: it is also computed and reported beside a given centre, which stays in force. `False`: never; a centre of `None` is then the frame's middle."),
    ParamDecl::new("load_parallel", STR_OR_NONE, D::Str("data"), "Who reads the raw data.")
        .choices(&["data", "common", "all"])
        .doc(
            "`data`: workers read the frames. `common`: everybody reads masks and corrections, the \
             producer the frames. `all`: both. `None`: the producer reads everything and sends \
             pixels.",
        )
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("rebin", INT_OR_NONE, D::None, "How many pixels are averaged along each axis.")
        .limits(Some(1.0), Some(32.0))
        .doc("The mean of rebin x rebin pixels becomes one. The region of interest must be divisible by it. `None` and 1: no rebinning.")
        .cure("for no rebinning give 1 or None")
        .level(1),
    ParamDecl::new(
        "orientation",
        &[T::Int, T::BoolTriple, T::None],
        D::None,
        "How frames are transposed and flipped.",
    )
    .limits(Some(0.0), Some(7.0))
    .doc(
        "A number: 0 nothing, 1 columns reversed, 2 rows reversed, 3 both, 4 transposed, 5 to 7 \
         transposed first and then as 1 to 3. Or three truth values (transpose, rows reversed, \
         columns reversed). `None`: nothing.",
    )
    .cure("give 0 to 7 or three booleans (transpose, flipud, fliplr)")
    .level(1),
    ParamDecl::new("min_frames", &[T::Int], D::Int(1), "Least frames of a chunk of a live scan.")
        .limits(Some(1.0), None)
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new(
        "positions_theory",
        &[T::List, T::Pattern, T::None],
        D::None,
        "Theoretical positions, a list of (y, x), or a formula.",
    )
    .unit("m")
    .doc("There are then as many frames as positions here, whatever `num_frames` says. A formula is { pattern, points, step, center }: `raster` and `snake` of [rows, columns] points, `round` and `spiral` of so many. They take the place of the source's list of positions, but not of positions that come with the frames themselves.")
    .cure("give a list of pairs (y, x) in metres, or { pattern = \"snake\", points = [20, 30], step = 1e-6 }")
    .level(2),
    ParamDecl::new("mask", &[T::Images, T::None], D::None, "Masks that are combined: a pixel is good where all say so.")
        .doc("A path, { file, key, invert }, or a list of these: .npy, TIFF, EDF, CBF, or a dataset (`key`) of an HDF5 file. 0 is bad; with `invert`, 0 is good. They count in addition to a mask that the source itself has.")
        .cure("give mask = [\"bad.npy\", { file = \"det.h5\", key = \"mask\", invert = true }]")
        .level(1),
    ParamDecl::new("num_frames", INT_OR_NONE, D::None, "How many frames are prepared at most.")
        .limits(Some(1.0), None)
        .doc("`None`: all that the source holds.")
        .level(1),
    ParamDecl::new("label", STR_OR_NONE, D::None, "Name of the scan, stored in the file.")
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new("experimentID", STR_OR_NONE, D::None, "Name of the experiment, stored in the file.")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new("version", &[T::Float], D::Float(0.1), "Version of the data block, stored in the file.")
        .level(2)
        .bytes_unaffected(),
    ParamDecl::new(
        "shape",
        &[T::Int, T::IntPair, T::None],
        D::Int(256),
        "Region of interest that is cut from the raw frames.",
    )
    .limits(Some(1.0), None)
    .unit("raw pixels")
    .doc("(rows, columns), or one number for both, before orientation and rebinning. What lies outside the frame is filled with zeros. `None`: the whole frame, or the largest square of it.")
    .cure("give one number, (rows, columns), or None for the whole frame")
    .level(1),
    ParamDecl::new(
        "center",
        &[T::Str, T::FloatPair, T::None],
        D::Str("fftshift"),
        "The optical axis in the raw frame.",
    )
    .choices(&["fftshift", "geometric", "fft"])
    .unit("raw pixels")
    .doc(
        "(row, column), fractions allowed. `fftshift`: extent // 2. `geometric`: extent / 2 - 0.5. \
         `fft`: (0, 0). `None`: as `auto_center` says.",
    )
    .cure("give (row, column), such as [64, 64]")
    .level(1),
    ParamDecl::new(
        "psize",
        &[T::Float, T::FloatPair, T::None],
        D::Float(0.000172),
        "Size of a detector pixel.",
    )
    .above(0.0)
    .unit("m")
    .doc("One number, or (height, width). Unless it is given, a size recorded beside the frames is used."),
    ParamDecl::new("distance", &[T::Float, T::None], D::Float(7.19), "From the sample to the detector.")
        .above(0.0)
        .unit("m")
        .doc("Unless it is given, a distance recorded beside the frames is used."),
    ParamDecl::new("energy", &[T::Float, T::None], D::Float(7.2), "Photon energy.")
        .above(0.0)
        .unit("keV")
        .doc("Unless it is given, an energy recorded beside the frames is used."),
    ParamDecl::new("propagation", &[T::Str], D::Str("farfield"), "Regime of propagation, stored in the file.")
        .choices(&["farfield", "nearfield"])
        .level(1)
        .bytes_unaffected(),
    ParamDecl::new(
        "add_poisson_noise",
        &[T::Bool],
        D::Bool(false),
        "Whether simulated frames get Poisson noise.",
    )
    .doc("Raw data that were measured are left alone.")
    .level(1),
];
