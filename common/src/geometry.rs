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

/// Largest rebinning factor.
pub const REBIN_MAX: usize = 32;
/// Largest extent of a region of interest: nothing that a detector delivers is wider.
pub const EXTENT_MAX: usize = 1 << 16;

/// A geometry, or a weight, that does not fit the frames.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[must_use]
pub enum GeometryError {
    /// A frame without pixels.
    #[error("frames are {0}x{1}: there is nothing to prepare; check data.shape of the source")]
    EmptyFrame(usize, usize),
    /// An extent of the region of interest is zero or absurd.
    #[error(
        "data.shape is ({0}, {1}): give extents of 1 to {EXTENT_MAX}, or None for whole frames"
    )]
    Shape(usize, usize),
    /// The centre is not inside the frame.
    #[error(
        "data.center is ({}, {}), outside the frames of {}x{}: give a row above 0 and below {}, \
         and a column above 0 and below {}, in raw pixels",
        center[0], center[1], frame[0], frame[1], frame[0], frame[1]
    )]
    CenterOutside {
        /// Row and column.
        center: [f64; 2],
        /// Raw frame.
        frame: [usize; 2],
    },
    /// The automatic centre is needed and was not measured, or not to be measured.
    #[error(
        "no automatic centre could be measured: every frame of the first chunk sums to zero; \
         give data.center, or auto_center = false"
    )]
    NoAutoCenter,
    /// The factor is out of its limits.
    #[error("data.rebin is {0}: give a factor of 1 to {REBIN_MAX}")]
    Rebin(usize),
    /// The factor does not divide the region of interest.
    #[error(
        "data.rebin = {rebin} does not divide the region of interest of {}x{}: \
         choose a data.shape that is a multiple of {rebin}, such as {}",
        roi[0], roi[1], (roi[0] / rebin).max(1) * rebin
    )]
    RebinDivides {
        /// Factor.
        rebin: usize,
        /// Region of interest.
        roi: [usize; 2],
    },
    /// The scan's weight has another extent than the frames.
    #[error(
        "mask is {}x{}, frames are {}x{}: give a mask of the frames' extent \
         (compat = \"ptypy\" crops it around its own centre, as ptypy does)",
        weight[0], weight[1], frame[0], frame[1]
    )]
    WeightShape {
        /// Extent of the weight.
        weight: [usize; 2],
        /// Raw frame.
        frame: [usize; 2],
    },
    /// The plan has no geometry yet.
    #[error("the geometry is not known yet: the centre has still to be measured")]
    NotResolved,
}

/// Tells whether the scan's centre has to be measured before frames can be prepared.
pub fn needs_auto_center(center: Center, auto_center: Option<bool>) -> bool {
    center == Center::None && auto_center != Some(false)
}

fn is_extent(extent: &usize) -> bool {
    (1..=EXTENT_MAX).contains(extent)
}

impl Geometry {
    /// Checks what the user asked for against the frames.
    ///
    /// # Shapes and units
    /// All in raw pixels, (row, column); `auto` is the measured centre. A region of interest that
    /// is not square becomes the square of its shorter side; see [`Geometry::warnings`].
    /// # Errors
    /// [`GeometryError`], naming the parameter, the values and the cure.
    /// # Source
    /// ptypy `core/data.py`, `PtyScan.get_data_chunk`; shape 0 and rebin 0 are refused on purpose.
    pub fn resolve(
        frame: [usize; 2],
        shape: Option<[usize; 2]>,
        center: Center,
        auto_center: Option<bool>,
        auto: Option<[f64; 2]>,
        orientation: Orientation,
        rebin: usize,
    ) -> Result<Self, GeometryError> {
        if !frame.iter().all(is_extent) {
            return Err(GeometryError::EmptyFrame(frame[0], frame[1]));
        }
        let roi = Self::region(shape.unwrap_or(frame), rebin)?;
        let middle = frame.map(|n| (n / 2) as f64);
        let center = match center {
            Center::Fftshift => middle,
            Center::Geometric => frame.map(|n| n as f64 / 2.0 - 0.5),
            Center::Fft => [0.0; 2],
            Center::At(at) => at,
            Center::None if auto_center == Some(false) => middle,
            Center::None => auto.ok_or(GeometryError::NoAutoCenter)?,
        };
        let inside = |c: f64, n: usize| c > 0.0 && n as f64 - c > 0.0;
        if !(inside(center[0], frame[0]) && inside(center[1], frame[1])) {
            return Err(GeometryError::CenterOutside { center, frame });
        }
        Ok(Self { frame, roi, center, orientation, rebin })
    }

    /// Returns the region of interest of a shape that is asked for: what can be checked before there are frames.
    ///
    /// # Errors
    /// [`GeometryError`] if it is none, or `rebin` does not divide it.
    pub fn region(asked: [usize; 2], rebin: usize) -> Result<[usize; 2], GeometryError> {
        if !asked.iter().all(is_extent) {
            return Err(GeometryError::Shape(asked[0], asked[1]));
        }
        let roi = [asked[0].min(asked[1]); 2];
        if !(1..=REBIN_MAX).contains(&rebin) {
            return Err(GeometryError::Rebin(rebin));
        }
        match roi[0].is_multiple_of(rebin) {
            true => Ok(roi),
            false => Err(GeometryError::RebinDivides { rebin, roi }),
        }
    }

    /// Returns what the user should know: where the result is not what he may have asked for.
    pub fn warnings(&self, shape: Option<[usize; 2]>) -> Vec<String> {
        let mut warnings = Vec::new();
        let asked = shape.unwrap_or(self.frame);
        let [height, width] = self.roi;
        if asked != self.roi {
            warnings.push(format!(
                "data.shape: the region of interest has to be square, {}x{} became {height}x{width}",
                asked[0], asked[1],
            ));
        }
        if !self.has_work() && self.rounded_center() != self.frame.map(|n| (n / 2) as i64) {
            warnings.push(format!(
                "data.center: frames are stored whole and are not shifted to the centre ({}, {}); \
                 give a data.shape to have them cropped around it",
                self.center[0], self.center[1]
            ));
        }
        warnings
    }

    /// Tells whether frames change at all; if not, they are stored as they are, whatever the centre.
    pub fn has_work(&self) -> bool {
        self.orientation.any() || self.roi != self.frame || self.rebin != 1
    }

    /// Returns the centre in whole raw pixels, rounded half to even: what is cropped around.
    pub fn rounded_center(&self) -> [i64; 2] {
        self.center.map(|c| c.round_ties_even() as i64)
    }

    /// Returns the extent of a prepared frame.
    pub fn out_shape(&self) -> [usize; 2] {
        let [rows, cols] = self.roi.map(|n| n / self.rebin);
        if self.orientation.transpose { [cols, rows] } else { [rows, cols] }
    }

    /// Returns the centre of a prepared frame, in its own pixels: `meta/center`.
    pub fn meta_center(&self) -> [f64; 2] {
        if !self.has_work() {
            return self.center;
        }
        let [mut rows, mut cols] = self.roi;
        let mut c = [rows / 2, cols / 2];
        if self.orientation.transpose {
            c.swap(0, 1);
            std::mem::swap(&mut rows, &mut cols);
        }
        if self.orientation.flipud {
            c[0] = rows - 1 - c[0];
        }
        if self.orientation.fliplr {
            c[1] = cols - 1 - c[1];
        }
        c.map(|c| c as f64 / self.rebin as f64)
    }

    /// Returns the extent that goes into `meta/shape`.
    pub fn meta_shape(&self) -> [usize; 2] {
        self.roi.map(|n| n / self.rebin)
    }

    /// Returns the pixel size after rebinning; a transpose does not swap its axes, as in ptypy.
    pub fn meta_psize(&self, psize: Option<[f64; 2]>) -> Option<[f64; 2]> {
        psize.map(|p| p.map(|p| p * self.rebin as f64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(
        center: Center,
        shape: Option<[usize; 2]>,
        o: u8,
        rebin: usize,
    ) -> Result<Geometry, GeometryError> {
        let orientation = Orientation::from_number(o).unwrap();
        Geometry::resolve([40, 36], shape, center, Some(false), None, orientation, rebin)
    }

    #[test]
    fn whole_frames_become_square_with_a_warning() {
        let g = at(Center::Fftshift, None, 0, 1).unwrap();
        assert_eq!((g.roi, g.center, g.has_work()), ([36, 36], [20.0, 18.0], true));
        assert!(g.warnings(None)[0].contains("40x36 became 36x36"));
        let g = at(Center::Geometric, Some([20, 20]), 0, 1).unwrap();
        assert_eq!(g.center, [19.5, 17.5]);
        assert_eq!(g.rounded_center(), [20, 18]);
        assert_eq!(g.warnings(Some([20, 20])), Vec::<String>::new());
    }

    #[test]
    fn the_centre_follows_crop_orientation_and_rebinning() {
        let g = at(Center::At([22.0, 26.0]), Some([32, 32]), 5, 2).unwrap();
        assert_eq!(g.meta_center(), [8.0, 7.5]);
        assert_eq!((g.meta_shape(), g.out_shape()), ([16, 16], [16, 16]));
        assert_eq!(g.meta_psize(Some([1.0, 2.0])), Some([2.0, 4.0]));
        let odd = at(Center::Fftshift, Some([17, 17]), 3, 1).unwrap();
        assert_eq!(odd.meta_center(), [8.0, 8.0]);
    }

    #[test]
    fn without_work_the_raw_centre_stays() {
        let o = Orientation::default();
        let g =
            Geometry::resolve([48, 48], None, Center::At([22.25, 26.0]), None, None, o, 1).unwrap();
        assert!(!g.has_work());
        assert_eq!(g.meta_center(), [22.25, 26.0]);
        assert!(g.warnings(None)[0].contains("not shifted"));
    }

    #[test]
    fn the_automatic_centre_is_used_only_where_none_is_given() {
        assert!(needs_auto_center(Center::None, None));
        assert!(needs_auto_center(Center::None, Some(true)));
        assert!(!needs_auto_center(Center::None, Some(false)));
        assert!(!needs_auto_center(Center::Fftshift, Some(true)));
        let o = Orientation::default();
        let auto = |measured| {
            Geometry::resolve([40, 36], Some([8, 8]), Center::None, None, measured, o, 1)
        };
        assert_eq!(auto(Some([3.25, 4.5])).unwrap().center, [3.25, 4.5]);
        assert_eq!(auto(None), Err(GeometryError::NoAutoCenter));
        assert_eq!(at(Center::None, None, 0, 1).unwrap().center, [20.0, 18.0]);
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let text = |r: Result<Geometry, GeometryError>| r.unwrap_err().to_string();
        assert!(text(at(Center::Fft, None, 0, 1)).contains("data.center is (0, 0)"));
        assert!(at(Center::At([0.0, 5.0]), None, 0, 1).is_err());
        assert!(at(Center::At([f64::NAN, 5.0]), None, 0, 1).is_err());
        assert!(at(Center::At([40.0, 5.0]), None, 0, 1).is_err());
        assert!(at(Center::At([39.9, 35.9]), None, 0, 1).is_ok());
        assert!(text(at(Center::Fftshift, Some([0, 8]), 0, 1)).contains("data.shape is (0, 8)"));
        assert!(text(at(Center::Fftshift, None, 0, 0)).contains("data.rebin is 0"));
        assert!(text(at(Center::Fftshift, None, 0, 33)).contains("1 to 32"));
        assert!(text(at(Center::Fftshift, None, 0, 5)).contains("such as 35"));
        assert!(at(Center::Fftshift, Some([3, 3]), 0, 4).is_err());
    }
}
