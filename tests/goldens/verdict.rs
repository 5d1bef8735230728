//! What is to come of each golden case, as it is and with `pipeline.compat = "ptypy"`.
//!
//! Whatever is not named here is to equal ptypy's file. What is named stands in
//! `docs/deviations.md`; a test holds the two lists against each other.

use crate::case::Case;

/// What a run of a case is to end with.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// ptypy's file.
    Equal,
    /// The file that ptypy made of another case.
    EqualTo(&'static str),
    /// ptypy's file but for what lies below these places, which differ.
    But(&'static [&'static str]),
    /// A whole file of so many frames, where ptypy made none.
    Made(usize),
    /// No file; the exit code, and what is said.
    Refused(u8, &'static [&'static str]),
    /// No file, and no complaint.
    NoFile,
}

/// One run of a case.
#[derive(Clone, Copy)]
pub struct Trial {
    /// Whether `pipeline.compat = "ptypy"` is set.
    pub compat: bool,
    /// What is to come of it.
    pub verdict: Verdict,
}

/// Cases that wait for a source, with the reason.
pub const WAITING: &[(&str, &str)] = &[];

/// Cases in which ptypy's chunks have other lengths than one number can say: frames are compared
/// in their order. The lengths come from the calls of `auto`, from a source that grows, or differ
/// on purpose from call to call.
pub const UNEVEN: &[&str] = &[
    "chunk_uneven",
    "check_stream",
    "check_stream_unknown",
    "mpi2_append",
    "mpi2_link",
    "mpi2_serial_same",
    "mpi3_load_none",
];

const MASK_30: &[&str] = &["mask is 30x30", "frames are 40x36"];

/// Cases that differ, and how: as it is, and with `compat = "ptypy"`.
pub const DEVIATIONS: &[(&str, Verdict, Verdict)] = {
    use Verdict::{But, Equal, EqualTo, Made, NoFile, Refused};
    const FLAT: Verdict = But(&["/chunks"]);
    const RANKS: Verdict = EqualTo("rebin_2_permask_chunk8");
    const BOGUS: Verdict = Refused(2, &["data.save", "bogus", "append", "link", "merge"]);
    const SCALAR: Verdict = Refused(2, &["data.center", "give (row, column)"]);
    const MERGED: Verdict = EqualTo("shape_20");
    &[
        ("corr_hdf5_dark_flat", EqualTo("corr_float_dark_flat"), Equal),
        ("hdf5loader_dark_flat_mask", FLAT, Equal),
        ("hdf5loader_rebin_orient", FLAT, Equal),
        ("corr_float_dark_flat", Equal, EqualTo("corr_hdf5_dark_flat")),
        ("corr_float_dark_flat_rebin", Equal, FLAT),
        ("rebin_2_allmasked", But(&["/chunks/0/weights", "/chunks/1/weights"]), Equal),
        ("rebin_2_permask_chunk8_mpi2", RANKS, RANKS),
        ("weight2d_small", Refused(2, MASK_30), Equal),
        ("weight2d_small_orient", Refused(2, MASK_30), Equal),
        ("weight2d_small_noop", Refused(2, &["mask is 40x36", "frames are 32x32"]), Equal),
        (
            "center_auto_base_weight_misshape",
            Refused(2, &["mask is 16x16", "frames are 40x36"]),
            Made(10),
        ),
        ("center_auto_zeroframe", Made(10), Made(10)),
        ("center_scalar", SCALAR, SCALAR),
        ("center_fft", Refused(2, &["data.center"]), Refused(2, &["data.center"])),
        ("center_zero", Refused(2, &["data.center"]), Refused(2, &["data.center"])),
        ("orient_bad_8", Refused(2, &["data.orientation", "0 to 7"]), Refused(2, &["0 to 7"])),
        ("orient_bad_m1", Refused(2, &["data.orientation", "0 to 7"]), Refused(2, &["0 to 7"])),
        ("shape_zero", Refused(2, &["data.shape"]), Refused(2, &["data.shape"])),
        ("rebin_2_odd_shape", Refused(2, &["data.rebin"]), Refused(2, &["data.rebin"])),
        ("rebin_5_incompatible", Refused(2, &["data.rebin"]), Refused(2, &["data.rebin"])),
        ("positions_none", Refused(2, &["data.positions_theory", "compat"]), Equal),
        ("check_stream_unknown", But(&["/meta/num_frames"]), But(&["/meta/num_frames"])),
        ("check_stream_early_eos", But(&["/meta/num_frames"]), But(&["/meta/num_frames"])),
        ("save_merge", MERGED, MERGED),
        ("save_bogus", BOGUS, BOGUS),
        ("save_none", NoFile, NoFile),
    ]
};

/// Cases whose files are equal, but are named or joined in another way: parts named by
/// `chunk_format`; links relative to the master.
pub const OTHER_NAMES: &[&str] = &["save_link_chunk_format", "save_link_subdir"];

/// Cases that end before their announced number of frames: a whole file of those that came, and
/// exit code 7.
pub const ABORTED: &[&str] = &["check_stream_early_eos"];

/// What the report of a case warns of, in words.
pub const WARNINGS: &[(&str, &str)] = &[
    ("check_stream_early_eos", "the source ended after 6 of 10 frames"),
    ("num_more", "data.num_frames = 70, but there are 10 positions"),
    ("noop_offcenter", "center"),
];

/// Returns the runs of a case.
pub fn trials(case: &Case) -> Vec<Trial> {
    let found = DEVIATIONS.iter().find(|d| d.0 == case.name);
    match found {
        None => vec![Trial { compat: false, verdict: Verdict::Equal }],
        Some((_, plain, compat)) => {
            vec![Trial { compat: false, verdict: *plain }, Trial { compat: true, verdict: *compat }]
        }
    }
}
