//! Region of interest, centre, orientation and rebinning: what happens to every frame of a scan.
//!
//! Order of steps: crop/pad, orient, rebin. `shape` and `center` count raw pixels, before flips
//! and before rebinning. Pairs are (row, column).

use serde::{Deserialize, Serialize};

/// Transpose and flips, applied in this order: transpose, rows reversed, columns reversed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orientation {
    /// Rows become columns.
    pub transpose: bool,
    /// Rows in reverse order (numpy `flipud`).
    pub flipud: bool,
    /// Columns in reverse order (numpy `fliplr`).
    pub fliplr: bool,
}

impl Orientation {
    /// Makes the orientation of ptypy's number 0..=7 (bits: transpose, flipud, fliplr).
    pub fn from_number(n: u8) -> Option<Self> {
        (n < 8).then_some(Self { transpose: n & 4 != 0, flipud: n & 2 != 0, fliplr: n & 1 != 0 })
    }

    /// Tells whether anything is to be done.
    pub fn any(self) -> bool {
        self.transpose || self.flipud || self.fliplr
    }
}

/// The centre as a user gives it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Center {
    /// `extent // 2`.
    Fftshift,
    /// `extent / 2 - 0.5`.
    Geometric,
    /// `0`: outside by ptypy's rule, so refused with a clear text.
    Fft,
    /// None: the automatic centre, or `extent // 2` when `auto_center` is false.
    None,
    /// Row and column in raw pixels.
    At([f64; 2]),
}

/// The checked geometry of a scan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Geometry {
    /// Raw frame, `[rows, cols]`.
    pub frame: [usize; 2],
    /// Region of interest in raw pixels, before orientation and rebinning.
    pub roi: [usize; 2],
    /// Optical axis in raw pixels, unrounded; what `info/center` holds.
    pub center: [f64; 2],
    /// Transpose and flips.
    pub orientation: Orientation,
    /// Rebinning factor, at least 1.
    pub rebin: usize,
}
