//! Dark, flat and the frame's scale, row by row.
//!
//! | arithmetic | pixel |
//! |---|---|
//! | exact | `max(raw - dark, 0) / flat * scale`, each operation in `float64` |
//! | fast | `max(raw - dark, 0) * gain * scale`, in `float32`, `gain = 1 / flat` |
//! | `compat = "ptypy"` | each result truncated to the raw type, as ptypy's `Hdf5Loader` does |

use crate::plan::{Layout, ScanArrays};
use crate::prepare::pixel::{Float, Raw};
use ptystream_common::dtype::Dtype;

/// What is done to each raw pixel; planes cover the part shared with the region of interest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Correction {
    /// Nothing.
    None,
    /// In double precision.
    Exact {
        /// Subtracted.
        dark: Option<Vec<f64>>,
        /// Divides.
        flat: Option<Vec<f64>>,
    },
    /// In the raw type.
    InRaw {
        /// Subtracted.
        dark: Option<Vec<f64>>,
        /// Divides.
        flat: Option<Vec<f64>>,
        /// Whether numpy divides these types in single precision.
        single: bool,
    },
    /// In single precision.
    Fast {
        /// Subtracted; 0 where there is no dark.
        dark: Vec<f32>,
        /// Multiplies; 1 where there is no flat.
        gain: Vec<f32>,
        /// 0, or minus infinity where there is no dark.
        floor: f32,
    },
    /// In single precision, `uint16` pixels with a dark of whole counts: half the memory to read.
    FastCounts {
        /// Subtracted.
        dark: Vec<u16>,
        /// Multiplies.
        gain: Vec<f32>,
    },
}

impl Correction {
    /// Cuts the planes that `layout` needs out of the scan's arrays.
    pub fn new(raw: Dtype, arrays: &ScanArrays, layout: &Layout, fast: bool, compat: bool) -> Self {
        let plane = |a: &ptystream_common::frame::Array| layout.cut(&a.to_f64());
        let dark = arrays.dark.as_ref().map(plane);
        let flat = arrays.flat.as_ref().map(plane);
        if dark.is_none() && flat.is_none() && arrays.scale.is_none() && !arrays.scaled {
            return Self::None;
        }
        if compat {
            let single = arrays.flat.as_ref().is_some_and(|f| divides_in_single(raw, f.dtype));
            return Self::InRaw { dark, flat, single };
        }
        if !fast {
            return Self::Exact { dark, flat };
        }
        let n = layout.rows.len * layout.cols.len;
        let floor = if dark.is_some() { 0.0 } else { f32::NEG_INFINITY };
        let dark = dark.unwrap_or_else(|| vec![0.0; n]);
        let gain = match flat {
            Some(flat) => flat.iter().map(|&v| (1.0 / v) as f32).collect(),
            None => vec![1.0; n],
        };
        if raw == Dtype::U16 && dark.iter().all(|&v| v == f64::from(v as u16)) {
            return Self::FastCounts { dark: dark.iter().map(|&v| v as u16).collect(), gain };
        }
        Self::Fast { dark: dark.iter().map(|&v| v as f32).collect(), gain, floor }
    }
}

/// Tells whether numpy's true division of these types gives `float32`.
fn divides_in_single(raw: Dtype, flat: Dtype) -> bool {
    let narrow = |d: Dtype| d.size() <= 2 || d == Dtype::F32;
    (raw == Dtype::F32 || flat == Dtype::F32) && narrow(raw) && narrow(flat)
}

/// Multiplies a row that has been corrected.
#[inline(always)]
pub(crate) fn scaled<W: Float>(row: &mut [W], scale: f64) {
    if scale != 1.0 {
        let scale = W::of(scale);
        row.iter_mut().for_each(|v| *v = *v * scale);
    }
}

/// Multiplies a row in the raw type.
#[inline(always)]
pub(crate) fn scaled_in_raw<T: Raw>(row: &mut [T], scale: f64) {
    if scale != 1.0 {
        row.iter_mut().for_each(|v| *v = T::truncated(v.f64() * scale));
    }
}

/// Reads a row as it is.
#[inline(always)]
pub(crate) fn plain<T: Raw>(row: &[u8], out: &mut [T]) {
    for (to, from) in out.iter_mut().zip(row.chunks_exact(size_of::<T>())) {
        *to = T::from_le(from);
    }
}

/// Reads a row, converted.
#[inline(always)]
pub(crate) fn converted<T: Raw, W: Float>(row: &[u8], out: &mut [W]) {
    for (to, from) in out.iter_mut().zip(row.chunks_exact(size_of::<T>())) {
        *to = W::of(T::from_le(from));
    }
}

/// Reads and corrects a row in double precision.
#[inline(always)]
pub(crate) fn exact<T: Raw>(
    row: &[u8],
    dark: Option<&[f64]>,
    flat: Option<&[f64]>,
    out: &mut [f64],
) {
    let pixels = row.chunks_exact(size_of::<T>()).map(|b| T::from_le(b).f64());
    match (dark, flat) {
        (Some(dark), Some(flat)) => {
            for (((to, v), d), f) in out.iter_mut().zip(pixels).zip(dark).zip(flat) {
                *to = clipped(v - d) / f;
            }
        }
        (Some(dark), None) => {
            for ((to, v), d) in out.iter_mut().zip(pixels).zip(dark) {
                *to = clipped(v - d);
            }
        }
        (None, Some(flat)) => {
            for ((to, v), f) in out.iter_mut().zip(pixels).zip(flat) {
                *to = v / f;
            }
        }
        (None, None) => out.iter_mut().zip(pixels).for_each(|(to, v)| *to = v),
    }
}

/// Reads and corrects a row in the raw type.
#[inline(always)]
pub(crate) fn in_raw<T: Raw>(
    row: &[u8],
    dark: Option<&[f64]>,
    flat: Option<&[f64]>,
    single: bool,
    out: &mut [T],
) {
    plain(row, out);
    if let Some(dark) = dark {
        for (to, d) in out.iter_mut().zip(dark) {
            *to = T::truncated(clipped(to.f64() - d));
        }
    }
    match flat {
        Some(flat) if single => {
            for (to, &f) in out.iter_mut().zip(flat) {
                *to = T::truncated(f64::from(to.f32() / f as f32));
            }
        }
        Some(flat) => {
            for (to, f) in out.iter_mut().zip(flat) {
                *to = T::truncated(to.f64() / f);
            }
        }
        None => {}
    }
}

/// Reads and corrects a row in single precision.
#[inline(always)]
pub(crate) fn fast<T: Raw>(row: &[u8], dark: &[f32], gain: &[f32], floor: f32, out: &mut [f32]) {
    let pixels = row.chunks_exact(size_of::<T>()).map(T::from_le);
    for (((to, v), d), g) in out.iter_mut().zip(pixels).zip(dark).zip(gain) {
        // Wide integers lose digits in single precision, so the difference is formed before.
        let v = if size_of::<T>() > 2 { (v.f64() - f64::from(*d)) as f32 } else { v.f32() - d };
        *to = if v < floor { floor } else { v } * g;
    }
}

/// As [`fast`], for `uint16` and a dark of whole counts.
#[inline(always)]
pub(crate) fn fast_counts(row: &[u8], dark: &[u16], gain: &[f32], out: &mut [f32]) {
    for (((to, v), d), g) in out.iter_mut().zip(row.as_chunks::<2>().0).zip(dark).zip(gain) {
        *to = f32::from(u16::from_le_bytes(*v).saturating_sub(*d)) * g;
    }
}

/// Clips at 0; NaN stays.
#[inline(always)]
fn clipped(v: f64) -> f64 {
    if v < 0.0 { 0.0 } else { v }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes<T: Raw>(items: &[T]) -> Vec<u8> {
        let mut out = Vec::new();
        items.iter().for_each(|v| v.put_le(&mut out));
        out
    }

    #[test]
    fn dark_is_clipped_per_raw_pixel() {
        let row = bytes(&[3u16, 10, 65535]);
        let dark = [5.0, 2.5, 0.0];
        let mut out = [0.0; 3];
        exact::<u16>(&row, Some(&dark), Some(&[2.0, 2.0, 2.0]), &mut out);
        assert_eq!(out, [0.0, 3.75, 32767.5]);
        exact::<u16>(&row, None, Some(&[2.0, 4.0, 1.0]), &mut out);
        assert_eq!(out, [1.5, 2.5, 65535.0]);
        let mut raw = [0u16; 3];
        in_raw(&row, Some(&dark), Some(&[2.0, 2.0, 2.0]), true, &mut raw);
        assert_eq!(raw, [0, 3, 32767]);
    }

    #[test]
    fn negative_pixels_stay_where_there_is_no_dark() {
        let row = bytes(&[-4i32, 4]);
        let mut out = [0.0f32; 2];
        fast::<i32>(&row, &[0.0, 0.0], &[0.5, 0.5], f32::NEG_INFINITY, &mut out);
        assert_eq!(out, [-2.0, 2.0]);
        fast::<i32>(&row, &[1.0, 1.0], &[0.5, 0.5], 0.0, &mut out);
        assert_eq!(out, [0.0, 1.5]);
    }

    #[test]
    fn whole_counts_are_clipped_too() {
        let mut out = [0.0f32; 2];
        fast_counts(&bytes(&[3u16, 65535]), &[5, 1], &[1.0, 0.5], &mut out);
        assert_eq!(out, [0.0, 32767.0]);
    }

    #[test]
    fn nan_stays_nan() {
        let row = bytes(&[f32::NAN]);
        let mut out = [0.0];
        exact::<f32>(&row, Some(&[1.0]), None, &mut out);
        assert!(out[0].is_nan());
    }

    #[test]
    fn numpy_divides_narrow_types_by_float32_in_single() {
        assert!(divides_in_single(Dtype::U16, Dtype::F32));
        assert!(divides_in_single(Dtype::F32, Dtype::U8));
        assert!(!divides_in_single(Dtype::U32, Dtype::F32));
        assert!(!divides_in_single(Dtype::U8, Dtype::U8));
        assert!(!divides_in_single(Dtype::F32, Dtype::F64));
    }
}
