//! The parameters of HDF5 files: ptypy's `Hdf5Loader` and `SwmrLoader`, and what is ours.

use super::super::normalization;
use crate::positions as streams;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};

const FILE: &[ParamType] = &[ParamType::InputPath, ParamType::None];
const KEY: &[ParamType] = &[ParamType::Str, ParamType::None];
const COLUMN: &[ParamType] = &[ParamType::Int, ParamType::None];
const FACTOR: &[ParamType] = &[ParamType::Float];

const fn file(name: &'static str, help: &'static str) -> ParamDecl {
    ParamDecl::new(name, FILE, ParamDefault::None, help)
}

const fn key(name: &'static str, help: &'static str) -> ParamDecl {
    ParamDecl::new(name, KEY, ParamDefault::None, help)
}

const fn factor(name: &'static str, default: f64, help: &'static str) -> ParamDecl {
    ParamDecl::new(name, FACTOR, ParamDefault::Float(default), help)
}

const fn column(name: &'static str, help: &'static str) -> ParamDecl {
    ParamDecl::new(name, COLUMN, ParamDefault::None, help).limits(Some(0.0), None).level(1)
}

const BOUNDS: &[ParamType] = &[ParamType::Int, ParamType::List, ParamType::None];

const OWN: [ParamDecl; 41] = [
    ParamDecl::new(
        "shape",
        &[ParamType::IntPair, ParamType::Int, ParamType::None],
        ParamDefault::None,
        "Region of interest in raw pixels; None: the whole frame.",
    )
    .limits(Some(1.0), None)
    .level(1),
    file("intensities.file", "HDF5 file with the frames."),
    key("intensities.key", "Dataset of the frames, (n, rows, cols) or (slow, fast, rows, cols).")
        .doc("A `*` in its last name stands for several datasets (n, rows, cols) that follow each other in the order of their numbers, such as `entry/data/data_*` of a detector's master file."),
    file("positions.file", "HDF5 file with the positions; None: intensities.file."),
    key("positions.slow_key", "Dataset of the positions along the slow axis (y)."),
    key("positions.fast_key", "Dataset of the positions along the fast axis (x)."),
    column(
        "positions.slow_index",
        "Column of the slow dataset's last axis; None: the dataset as it is.",
    ),
    column(
        "positions.fast_index",
        "Column of the fast dataset's last axis; None: the dataset as it is.",
    ),
    factor("positions.slow_multiplier", 1.0, "Makes metres of the slow positions."),
    factor("positions.fast_multiplier", 1.0, "Makes metres of the fast positions."),
    ParamDecl::new("positions.skip", &[ParamType::Int], ParamDefault::Int(1), "Takes every so many scan points along each axis.")
        .limits(Some(1.0), None)
        .level(1),
    ParamDecl::new("positions.bounding_box.slow_axis_bounds", BOUNDS, ParamDefault::None, "Part of the slow axis, in scan points: a lower bound, or [low, high).")
        .level(1),
    ParamDecl::new("positions.bounding_box.fast_axis_bounds", BOUNDS, ParamDefault::None, "Part of the fast axis, in scan points: a lower bound, or [low, high).")
        .level(1),
    file("framefilter.file", "HDF5 file with the filter; None: intensities.file.").level(1),
    key("framefilter.key", "Dataset of one value a frame: those with a value above 0 are taken.").level(1),
    ParamDecl::new("frameorder.indices", &[ParamType::List, ParamType::None], ParamDefault::None, "Indices among the frames that are left: these are taken, in this order.")
        .level(2),
    ParamDecl::new("padding", &[ParamType::List, ParamType::Int, ParamType::None], ParamDefault::None, "Zeros around each raw frame: [top, bottom, left, right], or one number for all.")
        .unit("px")
        .level(1),
    ParamDecl::new("electron_data", &[ParamType::Bool], ParamDefault::Bool(false), "Whether the energy is that of electrons.")
        .doc("The file then holds the energy of photons of the same wavelength, by which ptypy reckons.")
        .level(2),
    file("mask.file", "HDF5 file with the mask; None: intensities.file."),
    key("mask.key", "Dataset of the mask, as one frame or as all frames; 1 is good."),
    ParamDecl::new(
        "mask.invert",
        &[ParamType::Bool],
        ParamDefault::Bool(false),
        "Whether 0 is good in the mask, as in CXI files.",
    ),
    ParamDecl::new("darkfield.average", &[ParamType::Str], ParamDefault::Str("mean"), "What is made of a stack of darks, (n, rows, cols).")
        .doc("A stack of as many darks as there are frames belongs frame by frame, unless this is given.")
        .choices(&["mean", "median"])
        .level(1),
    file("darkfield.file", "HDF5 file with the dark frame; None: intensities.file.").level(1),
    key("darkfield.key", "Dataset of the dark frame, subtracted from each frame.").level(1),
    file("flatfield.file", "HDF5 file with the flat frame; None: intensities.file.").level(1),
    key("flatfield.key", "Dataset of the flat frame, by which each frame is divided.").level(1),
    file("normalization.file", "HDF5 file with the normalisation; None: intensities.file.").level(1),
    key("normalization.key", "Dataset of one value a frame (I0): each frame is divided by its own and multiplied by the reference.").level(1),
    normalization::SIGMA_DECL,
    normalization::REFERENCE_DECL,
    ParamDecl::new("outer_index", &[ParamType::Int, ParamType::Str, ParamType::None], ParamDefault::None, "Which part of datasets that have an outer axis before all others, such as energies or angles.")
        .choices(&["all"])
        .limits(Some(0.0), None)
        .doc("Frames are then (outer, n, rows, cols) or (outer, slow, fast, rows, cols). Positions, normalisation and recorded energy may have the outer axis too. `all`: `ptystream run` prepares each of them into a file of its own, `scan_outer000.ptyd`, ...")
        .level(1),
    file("recorded_energy.file", "HDF5 file with the photon energy; None: intensities.file."),
    key("recorded_energy.key", "Dataset of the photon energy."),
    factor("recorded_energy.multiplier", 1.0, "Makes keV of the recorded energy.").unit("keV"),
    factor("recorded_energy.offset", 0.0, "Added to the recorded energy once it is in keV.")
        .unit("keV")
        .level(2),
    file(
        "recorded_distance.file",
        "HDF5 file with the distance to the detector; None: intensities.file.",
    ),
    key("recorded_distance.key", "Dataset of the distance to the detector."),
    factor("recorded_distance.multiplier", 1.0, "Makes metres of the recorded distance.").unit("m"),
    file(
        "recorded_psize.file",
        "HDF5 file with the detector's pixel size; None: intensities.file.",
    ),
    key("recorded_psize.key", "Dataset of the detector's pixel size."),
    factor("recorded_psize.multiplier", 1.0, "Makes metres of the recorded pixel size.").unit("m"),
];

const GROWING: [ParamDecl; 8] = [
    ParamDecl::new("swmr", &[ParamType::Bool], ParamDefault::Bool(false), "Whether the files are still being written (SWMR) and are to be followed.")
        .doc("The writer has opened them with libver \"latest\" in SWMR mode and flushes. `SwmrLoader` sets it."),
    key("intensities.live_key", "Dataset that is zero for a frame that is not complete.").level(1),
    key("positions.live_slow_key", "Dataset that is zero for a slow position that is not there.").level(1),
    key("positions.live_fast_key", "Dataset that is zero for a fast position that is not there.").level(1),
    key("positions.slow_key_with_expected_shape", "Dataset of the shape that the slow positions will have in the end.").level(1),
    key("positions.fast_key_with_expected_shape", "Dataset of the shape that the fast positions will have in the end.").level(1),
    ParamDecl::new("wait_secs", FACTOR, ParamDefault::Float(3600.0), "How long to wait for the files and their first frame.")
        .above(0.0).unit("s").level(1).bytes_unaffected(),
    ParamDecl::new("idle_secs", FACTOR, ParamDefault::Float(60.0), "After so long without a new frame none is to be expected.")
        .above(0.0).unit("s").level(1).bytes_unaffected(),
];

pub(super) static PARAMS: &[ParamDecl] =
    &joined::<49, 22, 71>(joined::<41, 8, 49>(OWN, GROWING), streams::PARAMS);
