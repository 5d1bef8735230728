//! Weights: the same way as the data, and ptypy's rule for rebinned masks.

use crate::plan::Layout;
use crate::prepare::convert::convert;
use crate::prepare::correct::plain;
use crate::prepare::image::{Pixels, transpose};
use crate::prepare::pixel::{Raw, with_type};
use ptystream_common::buffer::Buffer;
use ptystream_common::dtype::Dtype;

/// Memory that is reused from frame to frame.
#[derive(Debug, Default)]
pub(crate) struct WeightScratch {
    image: Buffer,
    oriented: Buffer,
    row: Vec<u8>,
    counts: Vec<u16>,
}

/// Weights on their way.
#[derive(Debug)]
pub(crate) struct Weights<'a> {
    /// C-ordered little-endian items of the layout's extent.
    pub bytes: &'a [u8],
    /// Their type.
    pub dtype: Dtype,
    /// Pixels to be cleared, over the part shared with the region of interest; 1 is bad.
    pub bad: Option<&'a [u8]>,
}

/// Prepares weights without rebinning into slot `slot` of `out`.
pub(crate) fn place(
    layout: &Layout,
    weights: &Weights<'_>,
    stored: Dtype,
    scratch: &mut WeightScratch,
    out: &mut Buffer,
    slot: usize,
) {
    let n = layout.out_len();
    let pixels = Pixels::whole(weights.bytes, layout.extent);
    with_type!(weights.dtype, T => {
        let image = scratch.image.typed::<T>(n);
        layout.place(|y, row: &mut [T]| {
            plain(layout.bytes_of::<T>(pixels, y), row);
            clear(row, weights.bad, y);
        }, image);
        let oriented = if layout.transpose {
            let oriented = scratch.oriented.typed::<T>(n);
            transpose(image, layout.roi[1], oriented);
            oriented
        } else {
            image
        };
        // Padding turned them into float64, or they are stored as they are.
        if stored == weights.dtype {
            out.slots::<T>(n, slot).copy_from_slice(oriented);
        } else {
            convert(oriented, out.slots::<f64>(n, slot));
        }
    });
}

/// Prepares and rebins weights into slot `slot` of `out`, as bool; returns the good pixels of the
/// best bin.
///
/// A bin is valid if as many of its pixels are good as in the best bin of the frame. Where no
/// pixel is good none is valid, or all are if `all_masked_is_valid`.
/// # Source
/// ptypy `core/data.py`, `PtyScan.get_data_chunk`, which takes the best bin of a whole chunk: the
/// sink clears frames that fall short of their chunk's.
pub(crate) fn rebin(
    layout: &Layout,
    weights: &Weights<'_>,
    all_masked_is_valid: bool,
    scratch: &mut WeightScratch,
    out: &mut Buffer,
    slot: usize,
) -> u32 {
    let (r, width, n) = (layout.rebin, layout.roi[1], layout.out_len());
    let WeightScratch { row, counts, .. } = scratch;
    row.resize(width, 0);
    counts.clear();
    counts.resize(n, 0);
    let pixels = Pixels::whole(weights.bytes, layout.extent);
    with_type!(weights.dtype, T => {
        let mut fill = |y: usize, row: &mut [u8]| {
            let bytes = layout.bytes_of::<T>(pixels, y);
            for (to, from) in row.iter_mut().zip(bytes.chunks_exact(size_of::<T>())) {
                *to = u8::from(T::read(from).f64() > 0.0);
            }
            clear(row, weights.bad, y);
        };
        for (i, counts) in counts.chunks_exact_mut(width / r).enumerate() {
            for k in 0..r {
                layout.row(i * r + k, &mut fill, row);
                for (count, block) in counts.iter_mut().zip(row.chunks_exact(r)) {
                    *count += block.iter().map(|&v| u16::from(v)).sum::<u16>();
                }
            }
        }
    });
    let best = counts.iter().copied().max().unwrap_or(0);
    let mask = scratch.image.typed::<u8>(n);
    for (to, &count) in mask.iter_mut().zip(counts.iter()) {
        *to = u8::from(count == best && (best > 0 || all_masked_is_valid));
    }
    let out = out.slots::<u8>(n, slot);
    if layout.transpose {
        transpose(mask, width / r, out)
    } else {
        out.copy_from_slice(mask)
    }
    u32::from(best)
}

/// Sets the bad pixels of row `y` to 0; `bad` has rows of the length of `row`.
#[inline(always)]
pub(crate) fn clear<W: Raw>(row: &mut [W], bad: Option<&[u8]>, y: usize) {
    if let Some(bad) = bad {
        let bad = &bad[y * row.len()..][..row.len()];
        for (to, &bad) in row.iter_mut().zip(bad) {
            *to = if bad == 0 { *to } else { W::default() };
        }
    }
}
