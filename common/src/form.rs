//! From a plan to types and extents of what is stored.
//!
//! | step | integers and bool | float32 | float64 |
//! |---|---|---|---|
//! | crop, orientation | stay | stays | stays |
//! | padding | float64 | stays | stays |
//! | dark, flat | float64 | float64 | stays |
//! | dark, flat with `compat = "ptypy"` | stay | stays | stays |
//! | rebinning, data | float64 | stays | stays |
//! | rebinning, weights | bool | bool | bool |

use crate::codec::Filter;
use crate::dtype::Dtype;
use crate::frame::Region;
use crate::geometry::{Geometry, GeometryError};
use crate::message::{PreparePlan, PreparedForm, WeightsFrom};
use crate::params::{Compat, OutputDtype};

/// Bytes of a message below which its overhead is more than its pixels.
const BATCH_BYTES: u64 = 256 << 10;
/// Bytes of a message up to which it still shows: a third of the rate, where nothing is compressed.
const LARGE_BATCH_BYTES: u64 = 4 << 20;
/// The same where frames come one by one, and a batch waits for its last one.
const LIVE_BATCH_BYTES: u64 = 1 << 20;
/// A chunk is shared by so many batches, unless they are small: workers shall have their part of it.
const BATCHES_A_CHUNK: u64 = 4;
/// Compression of weights that all frames share, whatever the data's: they are compressed once and
/// their bytes written for every frame, ones of `float64` at a thousandth of their size. ptypy
/// compresses all it stores at this level.
const COMMON_WEIGHTS: Filter = Filter::Deflate(4);
/// Most frames of a batch.
const BATCH_MAX: u64 = 1024;

/// Works out types and extents of what `plan` makes of a frame.
///
/// # Shapes and units
/// `common_weight`: type and extent of the scan's 2-D weight, if there is one.
/// # Errors
/// [`GeometryError::NotResolved`] without a geometry; [`GeometryError::WeightShape`] if the weight
/// has another extent than the frames, unless `compat` is `ptypy`.
/// # Source
/// numpy's promotion rules as ptypy's `crop_pad_symmetric_2d` and `rebin_2d` meet them.
pub fn prepared_form(
    plan: &PreparePlan,
    common_weight: Option<(Dtype, [usize; 2])>,
) -> Result<PreparedForm, GeometryError> {
    let geometry = plan.geometry.as_ref().ok_or(GeometryError::NotResolved)?;
    let frame = plan.frame.shape;
    let shape = geometry.out_shape();

    let own_frame = [0, 1].map(|axis| window(geometry, frame, axis, false));
    let padded = own_frame.iter().any(|w| w.padded);
    let data = match plan.dtype {
        OutputDtype::Ptypy => ptypy_data_dtype(plan, geometry, padded),
        OutputDtype::Float32 => Dtype::F32,
        OutputDtype::Float64 => Dtype::F64,
        OutputDtype::Uint16 => Dtype::U16,
        OutputDtype::Uint32 => Dtype::U32,
        OutputDtype::Int32 => Dtype::I32,
    };

    let mut weights_shape = shape;
    let raw_weights = match plan.weights {
        WeightsFrom::Ones => (Dtype::F64, padded),
        WeightsFrom::Frame(dtype) => (dtype, padded),
        WeightsFrom::Scan(dtype) => match common_weight {
            Some((dtype, extent)) if extent != frame => {
                if plan.compat != Compat::Ptypy {
                    return Err(GeometryError::WeightShape { weight: extent, frame });
                }
                if !geometry.has_work() {
                    weights_shape = extent;
                }
                (dtype, [0, 1].iter().any(|&axis| window(geometry, extent, axis, true).padded))
            }
            Some((dtype, _)) => (dtype, padded),
            None => (dtype, padded),
        },
    };
    let weights = match raw_weights {
        _ if geometry.rebin > 1 => Dtype::Bool,
        (dtype, true) => promoted(dtype),
        (dtype, false) => dtype,
    };
    let marks_invalid = plan.valid_range.is_some() || !plan.bad_values.is_empty();
    let common_weights = !marks_invalid && !matches!(plan.weights, WeightsFrom::Frame(_));
    Ok(PreparedForm {
        data,
        weights,
        shape,
        weights_shape,
        batch: plan.batch,
        data_filters: plan.compression.filters(data.size()),
        weights_filters: match common_weights {
            true => vec![COMMON_WEIGHTS],
            false => plan.compression.filters(weights.size()),
        },
        common_weights,
    })
}

/// Returns how many frames of `frame_bytes`, raw or prepared, make a batch: a power of two, at least 1.
///
/// About 256 KiB make one; up to 4 MiB (`live`: 1 MiB) where that leaves four to a chunk of `per_chunk`
/// frames.
pub fn default_batch(frame_bytes: u64, per_chunk: u64, live: bool) -> u32 {
    let fit = |bytes: u64| (bytes / frame_bytes.max(1)).clamp(1, BATCH_MAX);
    let large = fit(if live { LIVE_BATCH_BYTES } else { LARGE_BATCH_BYTES });
    let fit = fit(BATCH_BYTES).max(large.min(per_chunk / BATCHES_A_CHUNK));
    // `fit` is at least 1, so there is a highest bit.
    1 << fit.ilog2()
}

/// What one axis of an array shares with the region of interest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First pixel of the array that is kept.
    pub src: usize,
    /// Where it goes in the region of interest.
    pub dst: usize,
    /// How many pixels are kept.
    pub len: usize,
    /// Whether some of the region of interest lies outside the array.
    pub padded: bool,
}

/// Finds what `axis` of an array of `extent` shares with the region of interest.
///
/// `own_center`: the array is cropped around its own middle instead of the frames' centre, which
/// is what ptypy does to a weight of another extent than the frames.
pub fn window(geometry: &Geometry, extent: [usize; 2], axis: usize, own_center: bool) -> Window {
    let (size, extent) = (geometry.roi[axis], extent[axis]);
    if !geometry.has_work() {
        return Window { src: 0, dst: 0, len: extent, padded: false };
    }
    let center = match own_center {
        true => (extent / 2) as i64,
        false => geometry.rounded_center()[axis],
    };
    let first = center - (size / 2) as i64;
    let from = first.clamp(0, extent as i64);
    let to = (first + size as i64).clamp(from, extent as i64);
    Window {
        src: from as usize,
        dst: ((from - first) as usize).min(size),
        len: (to - from) as usize,
        padded: (to - from) as usize != size,
    }
}

/// Finds the pixels of a frame that are needed; `None` while the centre is not known.
pub fn region(plan: &PreparePlan) -> Option<Region> {
    let geometry = plan.geometry.as_ref()?;
    let [rows, cols] = [0, 1].map(|axis| window(geometry, plan.frame.shape, axis, false));
    Some(Region { first: [rows.src, cols.src], shape: [rows.len, cols.len] })
}

fn ptypy_data_dtype(plan: &PreparePlan, geometry: &Geometry, padded: bool) -> Dtype {
    let raw = match plan.corrected && plan.compat != Compat::Ptypy {
        true => Dtype::F64,
        false => plan.frame.dtype,
    };
    if padded || geometry.rebin > 1 { promoted(raw) } else { raw }
}

fn promoted(dtype: Dtype) -> Dtype {
    if dtype.is_float() { dtype } else { Dtype::F64 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::frame::FrameForm;
    use crate::geometry::{Center, Orientation};

    fn plan(dtype: Dtype, shape: usize, rebin: usize, weights: WeightsFrom) -> PreparePlan {
        let frame = FrameForm { dtype, shape: [40, 36] };
        let o = Orientation::default();
        let shape = Some([shape; 2]);
        let geometry =
            Geometry::resolve(frame.shape, shape, Center::Fftshift, None, None, o, rebin).unwrap();
        PreparePlan {
            geometry: Some(geometry),
            weights,
            frames_per_chunk: 4,
            ..PreparePlan::plain(frame)
        }
    }

    #[test]
    fn types_follow_the_table() {
        let types = |p: &PreparePlan| {
            let f = prepared_form(p, None).unwrap();
            (f.data, f.weights)
        };
        let ones = WeightsFrom::Ones;
        let mask = WeightsFrom::Scan(Dtype::U8);
        assert_eq!(types(&plan(Dtype::U16, 20, 1, mask)), (Dtype::U16, Dtype::U8));
        assert_eq!(types(&plan(Dtype::U16, 40, 1, mask)), (Dtype::F64, Dtype::F64));
        assert_eq!(types(&plan(Dtype::F32, 40, 1, ones)), (Dtype::F32, Dtype::F64));
        assert_eq!(types(&plan(Dtype::Bool, 20, 2, ones)), (Dtype::F64, Dtype::Bool));
        assert_eq!(types(&plan(Dtype::F32, 20, 2, ones)), (Dtype::F32, Dtype::Bool));
        let mut p = plan(Dtype::U16, 20, 1, ones);
        p.corrected = true;
        assert_eq!(types(&p).0, Dtype::F64);
        p.compat = Compat::Ptypy;
        assert_eq!(types(&p).0, Dtype::U16);
        p.dtype = OutputDtype::Float32;
        assert_eq!(types(&p).0, Dtype::F32);
    }

    #[test]
    fn a_mask_of_another_extent_is_refused_unless_ptypy_is_imitated() {
        let mut p = plan(Dtype::U16, 20, 1, WeightsFrom::Scan(Dtype::U8));
        let mask = Some((Dtype::U8, [30, 30]));
        let text = prepared_form(&p, mask).unwrap_err().to_string();
        assert!(text.contains("mask is 30x30, frames are 40x36"), "{text}");
        p.compat = Compat::Ptypy;
        let form = prepared_form(&p, mask).unwrap();
        assert_eq!((form.weights_shape, form.weights), ([20, 20], Dtype::U8));
    }

    #[test]
    fn invalid_values_make_weights_the_frames_own() {
        let mut p = plan(Dtype::U16, 20, 1, WeightsFrom::Ones);
        assert!(prepared_form(&p, None).unwrap().common_weights);
        p.bad_values = vec![65535.0];
        assert!(!prepared_form(&p, None).unwrap().common_weights);
    }

    #[test]
    fn windows_keep_what_overlaps() {
        let mut g = plan(Dtype::U16, 16, 1, WeightsFrom::Ones).geometry.unwrap();
        g.center = [3.0, 36.4];
        assert_eq!(
            window(&g, [40, 36], 0, false),
            Window { src: 0, dst: 5, len: 11, padded: true }
        );
        assert_eq!(
            window(&g, [40, 36], 1, false),
            Window { src: 28, dst: 0, len: 8, padded: true }
        );
        assert_eq!(window(&g, [30, 30], 0, true).src, 7);
        let mut p = plan(Dtype::U16, 16, 1, WeightsFrom::Ones);
        p.geometry = Some(g);
        assert_eq!(region(&p), Some(Region { first: [0, 28], shape: [11, 8] }));
        p.geometry = None;
        assert_eq!(region(&p), None);
    }

    #[test]
    fn batches_grow_while_their_overhead_shows_and_a_chunk_is_shared() {
        assert_eq!(default_batch(64 << 20, 40, false), 1);
        assert_eq!(default_batch(512 * 512 * 2, 40, false), 8);
        assert_eq!(default_batch(512 * 512 * 2, 40, true), 2);
        assert_eq!(default_batch(512 * 512 * 2, 20, false), 4);
        assert_eq!(default_batch(512 * 512 * 2, 3, false), 1);
        assert_eq!(default_batch(64 * 64 * 2, 40, false), 32);
        assert_eq!(default_batch(64 * 64 * 2, 1000, false), 128, "250 would fit");
        assert_eq!(default_batch(0, 40, false), 1024);
    }
}
