//! A plan checked against its arrays: what one frame goes through, ready to run.

use crate::error::PrepareError;
use crate::prepare::correct::Correction;
use crate::prepare::invalid::Invalid;
use ptystream_common::form::{Window, prepared_form, region, window};
use ptystream_common::frame::{Array, Region};
use ptystream_common::geometry::{Geometry, GeometryError};
use ptystream_common::message::{PreparePlan, PreparedForm, WeightsFrom};
use ptystream_common::params::{Arithmetic, Compat};
use std::collections::BTreeMap;

/// Where the pixels of an array go: crop or pad, flips, rebinning, transpose.
///
/// Flips are those of the raw image, done before the transpose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Layout {
    /// Extent of the array.
    pub extent: [usize; 2],
    /// Rows shared with the region of interest.
    pub rows: Window,
    /// Columns shared with it.
    pub cols: Window,
    /// Region of interest.
    pub roi: [usize; 2],
    /// Rows in reverse order.
    pub rev_rows: bool,
    /// Columns in reverse order.
    pub rev_cols: bool,
    /// Rows become columns at the end.
    pub transpose: bool,
    /// Rebinning factor.
    pub rebin: usize,
}

impl Layout {
    /// Works out the way of an array of `extent`; `own_center`: see [`window`].
    pub fn new(geometry: &Geometry, extent: [usize; 2], own_center: bool) -> Self {
        let o = geometry.orientation;
        let (rev_rows, rev_cols) =
            if o.transpose { (o.fliplr, o.flipud) } else { (o.flipud, o.fliplr) };
        Self {
            extent,
            rows: window(geometry, extent, 0, own_center),
            cols: window(geometry, extent, 1, own_center),
            roi: if geometry.has_work() { geometry.roi } else { extent },
            rev_rows,
            rev_cols,
            transpose: o.transpose,
            rebin: geometry.rebin,
        }
    }

    /// Makes the way of an array that stays whole and as it is.
    pub fn whole(extent: [usize; 2]) -> Self {
        let all = |len| Window { src: 0, dst: 0, len, padded: false };
        Self {
            extent,
            rows: all(extent[0]),
            cols: all(extent[1]),
            roi: extent,
            rev_rows: false,
            rev_cols: false,
            transpose: false,
            rebin: 1,
        }
    }

    /// Returns rows and columns after rebinning, before the transpose.
    pub fn reduced(&self) -> [usize; 2] {
        self.roi.map(|n| n / self.rebin)
    }

    /// Returns how many pixels come out.
    pub fn out_len(&self) -> usize {
        let [rows, cols] = self.reduced();
        rows * cols
    }

    /// Cuts the shared part out of an array of the layout's extent.
    pub fn cut<V: Copy>(&self, items: &[V]) -> Vec<V> {
        let rows = items.chunks_exact(self.extent[1].max(1));
        rows.skip(self.rows.src)
            .take(self.rows.len)
            .flat_map(|row| row[self.cols.src..][..self.cols.len].iter().copied())
            .collect()
    }
}

/// The checked plan.
#[derive(Debug)]
pub(crate) struct Recipe {
    /// Types and extents of what comes out.
    pub form: PreparedForm,
    /// The way of the frames.
    pub layout: Layout,
    /// The pixels of a frame that are needed: what it shares with the region of interest.
    pub needed: Region,
    /// What is done to each pixel on the way.
    pub correction: Correction,
    /// Which raw values are invalid.
    pub invalid: Invalid,
    /// Pixels whose flat is no use, over the part shared with the region of interest; 1 is bad.
    pub bad_flat: Option<Vec<u8>>,
    /// Whether sums are fused, in single precision.
    pub fast: bool,
    /// Whether ptypy's quirks are imitated.
    pub compat: bool,
}

impl Recipe {
    /// Checks `plan` against `arrays`.
    pub fn new(
        plan: &PreparePlan,
        geometry: &Geometry,
        arrays: &ScanArrays,
    ) -> Result<Self, PrepareError> {
        let weight = arrays.weight.as_ref().map(|w| (w.dtype, extent(w)));
        let form = prepared_form(plan, weight)?;
        let layout = Layout::new(geometry, plan.frame.shape, false);
        let needed = region(plan).ok_or(GeometryError::NotResolved)?;
        let compat = plan.compat == Compat::Ptypy;
        let fast = plan.arithmetic == Arithmetic::Fast && !compat;
        let correction = Correction::new(plan.frame.dtype, arrays, &layout, fast, compat);
        let bad_flat = match &arrays.flat {
            Some(flat) if !compat => {
                let bad: Vec<u8> = layout
                    .cut(&flat.to_f64())
                    .into_iter()
                    .map(|v| u8::from(v == 0.0 || !v.is_finite()))
                    .collect();
                bad.contains(&1).then_some(bad)
            }
            _ => None,
        };
        let invalid = Invalid::new(plan.valid_range, &plan.bad_values);
        Ok(Self { form, layout, needed, correction, invalid, bad_flat, fast, compat })
    }
}

/// Dark, flat and weight of a scan, checked against the frames.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScanArrays {
    /// Subtracted.
    pub dark: Option<Array>,
    /// Divides.
    pub flat: Option<Array>,
    /// Multiplies each frame, one a scan point.
    pub scale: Option<Vec<f64>>,
    /// Whether frames bring a factor of their own.
    pub scaled: bool,
    /// The scan's 2-D weight.
    pub weight: Option<Array>,
    /// What joins weights that come with the frames.
    pub mask: Option<Array>,
}

impl ScanArrays {
    /// Takes what preparation needs out of `arrays`.
    pub fn new(plan: &PreparePlan, arrays: &BTreeMap<String, Array>) -> Result<Self, PrepareError> {
        let frame = plan.frame.shape;
        let of_frame = |name: &'static str| match arrays.get(name) {
            Some(a) if squeezed(a) == frame => Ok(Some(a.clone())),
            Some(a) => Err(PrepareError::ArrayShape { name, got: a.shape.clone(), frame }),
            None => Ok(None),
        };
        let (dark, flat) = (of_frame("dark")?, of_frame("flat")?);
        let scale = arrays.get("scale").map(Array::to_f64);
        let corrects = dark.is_some() || flat.is_some() || scale.is_some() || plan.scaled;
        match (plan.corrected, corrects) {
            (true, false) => return Err(PrepareError::ArrayMissing("dark or flat")),
            (false, true) => return Err(PrepareError::ArrayUnexpected),
            _ => {}
        }
        let weight = match plan.weights {
            WeightsFrom::Scan(dtype) => {
                let array = arrays.get("weight").ok_or(PrepareError::ArrayMissing("weight"))?;
                if array.dtype != dtype {
                    return Err(PrepareError::WeightType { expected: dtype, got: array.dtype });
                }
                if squeezed(array).len() != 2 {
                    let got = array.shape.clone();
                    return Err(PrepareError::ArrayShape { name: "weight", got, frame });
                }
                Some(array.clone())
            }
            _ => None,
        };
        let mask = of_frame("mask")?;
        Ok(Self { dark, flat, scale, scaled: plan.scaled, weight, mask })
    }
}

/// Returns the extent without leading axes of length 1.
pub(crate) fn squeezed(array: &Array) -> &[usize] {
    let mut shape = &array.shape[..];
    while let [1, rest @ ..] = shape
        && rest.len() >= 2
    {
        shape = rest;
    }
    shape
}

/// Returns rows and columns of an array that has passed [`ScanArrays::new`].
pub(crate) fn extent(array: &Array) -> [usize; 2] {
    match squeezed(array) {
        [rows, cols] => [*rows, *cols],
        _ => [0, 0],
    }
}
