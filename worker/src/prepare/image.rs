//! Where pixels go: cropping, padding, flips and the transpose.

use crate::plan::Layout;
use crate::prepare::pixel::Raw;
use ptystream_common::frame::Region;

/// Edge of the square that is transposed at once, so that source and target stay in the cache.
const TILE: usize = 16;

/// Decoded pixels of an image, or of a region of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pixels<'a> {
    /// C-ordered little-endian items.
    pub bytes: &'a [u8],
    /// Which pixels those are.
    pub region: Region,
}

impl<'a> Pixels<'a> {
    /// Takes all pixels of an image of `extent`.
    pub fn whole(bytes: &'a [u8], extent: [usize; 2]) -> Self {
        Self { bytes, region: Region::whole(extent) }
    }
}

impl Layout {
    /// Returns the bytes of row `y` of the part shared with the region of interest.
    #[inline(always)]
    pub fn bytes_of<'a, T: Raw>(&self, pixels: Pixels<'a>, y: usize) -> &'a [u8] {
        let Region { first: [top, left], shape: [_, width] } = pixels.region;
        let first = (self.rows.src - top + y) * width + self.cols.src - left;
        &pixels.bytes[first * size_of::<T>()..][..self.cols.len * size_of::<T>()]
    }

    /// Makes row `i` of the flipped region of interest; `fill` writes a row of the shared part.
    #[inline(always)]
    pub fn row<W: Raw>(&self, i: usize, fill: &mut impl FnMut(usize, &mut [W]), row: &mut [W]) {
        let i = if self.rev_rows { self.roi[0] - 1 - i } else { i };
        match i.checked_sub(self.rows.dst).filter(|&y| y < self.rows.len) {
            None => row.fill(W::default()),
            Some(y) => {
                let (before, rest) = row.split_at_mut(self.cols.dst);
                let (shared, after) = rest.split_at_mut(self.cols.len);
                before.fill(W::default());
                fill(y, shared);
                after.fill(W::default());
                if self.rev_cols {
                    row.reverse();
                }
            }
        }
    }

    /// Makes the whole image, before the transpose and without rebinning.
    #[inline(always)]
    pub fn place<W: Raw>(&self, mut fill: impl FnMut(usize, &mut [W]), image: &mut [W]) {
        for (i, row) in image.chunks_exact_mut(self.roi[1]).enumerate() {
            self.row(i, &mut fill, row);
        }
    }
}

/// Writes `image`, of rows of `width`, with rows and columns swapped.
#[inline(always)]
pub(crate) fn transpose<W: Copy>(image: &[W], width: usize, out: &mut [W]) {
    let height = image.len() / width;
    for top in (0..height).step_by(TILE) {
        for left in (0..width).step_by(TILE) {
            for x in left..(left + TILE).min(width) {
                let to = &mut out[x * height..][top..(top + TILE).min(height)];
                for (k, to) in to.iter_mut().enumerate() {
                    *to = image[(top + k) * width + x];
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptystream_common::form::Window;

    #[test]
    fn transposes_across_tiles() {
        let (height, width) = (37, 21);
        let image: Vec<usize> = (0..height * width).collect();
        let mut out = vec![0; image.len()];
        transpose(&image, width, &mut out);
        for y in 0..height {
            for x in 0..width {
                assert_eq!(out[x * height + y], image[y * width + x]);
            }
        }
    }

    proptest! {
        #[test]
        fn places_as_a_naive_loop_does(
            size in 1usize..7, extent in 1usize..7, first in -6i64..7,
            rev_rows in any::<bool>(), rev_cols in any::<bool>(),
        ) {
            let from = first.clamp(0, extent as i64);
            let to = (first + size as i64).clamp(from, extent as i64);
            let w = Window {
                src: from as usize,
                dst: ((from - first) as usize).min(size),
                len: (to - from) as usize,
                padded: true,
            };
            prop_assume!(w.dst + w.len <= size);
            let mut layout = Layout::whole([extent; 2]);
            (layout.rows, layout.cols, layout.roi) = (w, w, [size; 2]);
            (layout.rev_rows, layout.rev_cols) = (rev_rows, rev_cols);
            let mut image = vec![9i32; size * size];
            let value = |y: i64, x: i64| (1 + y * extent as i64 + x) as i32;
            layout.place(
                |y, row: &mut [i32]| {
                    for (x, to) in row.iter_mut().enumerate() {
                        *to = value((w.src + y) as i64, (w.src + x) as i64);
                    }
                },
                &mut image,
            );
            for i in 0..size {
                for j in 0..size {
                    let y = first + if rev_rows { size - 1 - i } else { i } as i64;
                    let x = first + if rev_cols { size - 1 - j } else { j } as i64;
                    let inside = (0..extent as i64).contains(&y) && (0..extent as i64).contains(&x);
                    let expected = if inside { value(y, x) } else { 0 };
                    prop_assert_eq!(image[i * size + j], expected);
                }
            }
        }
    }
}
