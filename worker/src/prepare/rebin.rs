//! Rebinning: the mean of each block.
//!
//! The exact order of operations is numpy's mean over the columns of a block, then over its rows,
//! of the oriented image. The transpose comes last here, on the smaller image, so the roles of
//! rows and columns swap where there is one.
//!
//! # Source
//! ptypy `utils/array_utils.py`, `rebin_2d`; numpy adds fewer than 8 items one after the other,
//! and more in 8 lanes.

use crate::plan::Layout;
use crate::prepare::pixel::Float;

/// Makes the rebinned image, before the transpose; `strip` holds `rebin` rows of the region.
#[inline(always)]
pub(crate) fn rebin<W: Float>(
    layout: &Layout,
    mut fill: impl FnMut(usize, &mut [W]),
    strip: &mut [W],
    fused: bool,
    image: &mut [W],
) {
    let (r, width) = (layout.rebin, layout.roi[1]);
    // Where the order within a block is of no account, the shorter row is reversed.
    let any_order = fused || r == 2;
    let straight = Layout { rev_cols: layout.rev_cols && !any_order, ..layout.clone() };
    for (i, out) in image.chunks_exact_mut(width / r).enumerate() {
        for (k, row) in strip.chunks_exact_mut(width).enumerate() {
            straight.row(i * r + k, &mut fill, row);
        }
        match (fused, layout.transpose, r) {
            (true, _, 2) => sum_2(strip, width, out),
            (true, _, _) => sum_any(strip, width, r, out),
            (_, false, 2) => means_2(strip, width, out),
            (_, true, 2) => means_2_rows_first(strip, width, out),
            (_, false, _) => columns_first(strip, width, r, out),
            (_, true, _) => rows_first(strip, width, r, out),
        }
        if any_order && layout.rev_cols {
            out.reverse();
        }
    }
}

/// Sums blocks of 2 x 2 in any order, then scales.
#[inline(always)]
fn sum_2<W: Float>(strip: &mut [W], width: usize, out: &mut [W]) {
    let quarter = W::truncated(0.25);
    let (top, bottom) = strip.split_at(width);
    for ((to, a), b) in out.iter_mut().zip(top.as_chunks::<2>().0).zip(bottom.as_chunks::<2>().0) {
        *to = ((a[0] + b[0]) + (a[1] + b[1])) * quarter;
    }
}

/// Sums blocks in any order, then scales.
#[inline(always)]
fn sum_any<W: Float>(strip: &mut [W], width: usize, r: usize, out: &mut [W]) {
    let scale = W::truncated(1.0 / (r * r) as f64);
    let (sums, rows) = strip.split_at_mut(width);
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(s, &v)| *s = *s + v);
    }
    for (to, block) in out.iter_mut().zip(sums.chunks_exact(r)) {
        *to = ordered_sum(block) * scale;
    }
}

/// Means of blocks of 2 x 2, over columns, then over rows; halving is exact.
#[inline(always)]
fn means_2<W: Float>(strip: &mut [W], width: usize, out: &mut [W]) {
    let half = W::truncated(0.5);
    let (top, bottom) = strip.split_at(width);
    for ((to, a), b) in out.iter_mut().zip(top.as_chunks::<2>().0).zip(bottom.as_chunks::<2>().0) {
        *to = ((a[0] + a[1]) * half + (b[0] + b[1]) * half) * half;
    }
}

/// Means of blocks of 2 x 2, over rows, then over columns.
#[inline(always)]
fn means_2_rows_first<W: Float>(strip: &mut [W], width: usize, out: &mut [W]) {
    let half = W::truncated(0.5);
    let (top, bottom) = strip.split_at(width);
    for ((to, a), b) in out.iter_mut().zip(top.as_chunks::<2>().0).zip(bottom.as_chunks::<2>().0) {
        *to = ((a[0] + b[0]) * half + (a[1] + b[1]) * half) * half;
    }
}

/// Means over the columns of a block, then over its rows.
#[inline(always)]
fn columns_first<W: Float>(strip: &mut [W], width: usize, r: usize, out: &mut [W]) {
    let n = W::truncated(r as f64);
    for (k, row) in strip.chunks_exact(width).enumerate() {
        for (to, block) in out.iter_mut().zip(row.chunks_exact(r)) {
            let mean = ordered_sum(block) / n;
            *to = if k == 0 { mean } else { *to + mean };
        }
    }
    out.iter_mut().for_each(|to| *to = *to / n);
}

/// Means over the rows of a block, then over its columns.
#[inline(always)]
fn rows_first<W: Float>(strip: &mut [W], width: usize, r: usize, out: &mut [W]) {
    let n = W::truncated(r as f64);
    let (sums, rows) = strip.split_at_mut(width);
    for row in rows.chunks_exact(width) {
        sums.iter_mut().zip(row).for_each(|(s, &v)| *s = *s + v);
    }
    sums.iter_mut().for_each(|s| *s = *s / n);
    for (to, block) in out.iter_mut().zip(sums.chunks_exact(r)) {
        let sum = block[1..].iter().fold(block[0], |sum, &v| sum + v);
        *to = sum / n;
    }
}

/// Adds in numpy's order.
#[inline(always)]
fn ordered_sum<W: Float>(items: &[W]) -> W {
    let in_order = |first: W, rest: &[W]| rest.iter().fold(first, |sum, &v| sum + v);
    if items.len() < 8 {
        return in_order(items[0], &items[1..]);
    }
    let (lanes, rest) = items.as_chunks::<8>();
    let mut l = lanes[0];
    for lane in &lanes[1..] {
        l.iter_mut().zip(lane).for_each(|(l, &v)| *l = *l + v);
    }
    let sum = ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
    in_order(sum, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, on an image that is oriented already.
    fn naive(image: &[f32], width: usize, r: usize) -> Vec<f32> {
        let height = image.len() / width;
        let mut out = Vec::new();
        for i in 0..height / r {
            for j in 0..width / r {
                let row = |k: usize| {
                    let at = (i * r + k) * width + j * r;
                    image[at + 1..at + r].iter().fold(image[at], |s, v| s + v) / r as f32
                };
                out.push((1..r).map(row).fold(row(0), |s, v| s + v) / r as f32);
            }
        }
        out
    }

    proptest! {
        #[test]
        fn follows_the_oriented_definition_bit_by_bit(
            r in 2usize..8, h in 1usize..4, w in 1usize..4, seed in any::<u32>(),
            rev_rows in any::<bool>(), rev_cols in any::<bool>(), swap in any::<bool>(),
        ) {
            let (height, width) = (h * r, w * r);
            let image: Vec<f32> = (0..height * width)
                .map(|i| (i as u32).wrapping_mul(2654435761).wrapping_add(seed) as f32 / 3e7)
                .collect();
            let mut layout = Layout::whole([height, width]);
            (layout.rev_rows, layout.rev_cols, layout.transpose) = (rev_rows, rev_cols, swap);
            layout.rebin = r;
            let fill = |y: usize, row: &mut [f32]| row.copy_from_slice(&image[y * width..][..width]);

            let mut oriented = vec![0.0; image.len()];
            layout.place(fill, &mut oriented);
            if swap {
                let flipped = oriented.clone();
                crate::prepare::image::transpose(&flipped, width, &mut oriented);
            }
            let expected = naive(&oriented, if swap { height } else { width }, r);

            let mut strip = vec![0.0; r * width];
            let mut got = vec![0.0; h * w];
            rebin(&layout, fill, &mut strip, false, &mut got);
            let mut fused = got.clone();
            rebin(&layout, fill, &mut strip, true, &mut fused);
            if swap {
                for out in [&mut got, &mut fused] {
                    let reduced = out.clone();
                    crate::prepare::image::transpose(&reduced, w, out);
                }
            }
            prop_assert_eq!(&got, &expected);
            for (a, b) in fused.iter().zip(&expected) {
                prop_assert!((a - b).abs() <= 1e-6 * b.abs());
            }
        }
    }

    #[test]
    fn eight_and_more_are_added_in_lanes() {
        let items: Vec<f32> = (0..19).map(|i| 1.0 / (i as f32 + 1.3)).collect();
        let l: Vec<f32> = (0..8).map(|k| items[k] + items[k + 8]).collect();
        let sum = ((l[0] + l[1]) + (l[2] + l[3])) + ((l[4] + l[5]) + (l[6] + l[7]));
        assert_eq!(ordered_sum(&items), ((sum + items[16]) + items[17]) + items[18]);
    }
}
