//! One frame's pixels: read, correct, crop, orient, rebin, in one pass over the rows.

use crate::plan::{Layout, Recipe};
use crate::prepare::convert::convert;
use crate::prepare::correct::{self, Correction};
use crate::prepare::image::{Pixels, transpose};
use crate::prepare::pixel::{Float, Raw, with_type};
use crate::prepare::rebin::rebin;
use crate::prepare::weights::clear;
use ptystream_common::buffer::Buffer;
use ptystream_common::dtype::Dtype;

/// Memory that is reused from frame to frame.
#[derive(Debug, Default)]
pub(crate) struct DataScratch {
    row: Buffer,
    strip: Buffer,
    image: Buffer,
    oriented: Buffer,
}

/// Prepares the decoded pixels `raw` of a frame of type `dtype`, at least those that are needed, into slot
/// `slot` of `out`.
///
/// `bad`: pixels to be cleared, over the part shared with the region of interest; 1 is bad. `scale`:
/// what the frame is multiplied by.
pub(crate) fn prepare(
    recipe: &Recipe,
    dtype: Dtype,
    raw: Pixels<'_>,
    bad: Option<&[u8]>,
    scale: f64,
    scratch: &mut DataScratch,
    out: &mut Buffer,
    slot: usize,
) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        with_type!(dtype, T => {
            // SAFETY: the processor has AVX2, as was asked above.
            unsafe { prepare_avx2::<T>(recipe, raw, bad, scale, scratch, out, slot) }
        });
        return;
    }
    with_type!(dtype, T => prepare_typed::<T>(recipe, raw, bad, scale, scratch, out, slot));
}

/// As [`prepare_typed`], compiled for AVX2.
///
/// # Safety
/// The processor has to have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn prepare_avx2<T: Raw>(
    recipe: &Recipe,
    raw: Pixels<'_>,
    bad: Option<&[u8]>,
    scale: f64,
    scratch: &mut DataScratch,
    out: &mut Buffer,
    slot: usize,
) {
    prepare_typed::<T>(recipe, raw, bad, scale, scratch, out, slot);
}

#[inline(always)]
fn prepare_typed<T: Raw>(
    recipe: &Recipe,
    raw: Pixels<'_>,
    bad: Option<&[u8]>,
    scale: f64,
    scratch: &mut DataScratch,
    out: &mut Buffer,
    slot: usize,
) {
    let layout = &recipe.layout;
    let stored = recipe.form.data;
    let (n, w) = (layout.out_len(), layout.cols.len);
    let row_of = |y: usize| layout.bytes_of::<T>(raw, y);
    let plane = |y: usize| y * w..(y + 1) * w;
    let stage = Stage { layout, stored, fused: recipe.fast, slot };
    let same_type = stored == T::DTYPE || (stored == Dtype::Bool && T::DTYPE == Dtype::U8);
    match &recipe.correction {
        Correction::None if layout.rebin == 1 && same_type && !layout.transpose => {
            let image = out.slots::<T>(n, slot);
            layout.place(
                |y, row: &mut [T]| {
                    correct::plain(row_of(y), row);
                    clear(row, bad, y);
                },
                image,
            );
        }
        Correction::None if layout.rebin == 1 => {
            stage.moved(scratch, out, |y, row: &mut [T]| {
                correct::plain(row_of(y), row);
                clear(row, bad, y);
            });
        }
        // Single precision is what numpy keeps for float32, and what `fast` asks for.
        Correction::None if recipe.fast || T::DTYPE == Dtype::F32 => {
            stage.rebinned(scratch, out, |y, row: &mut [f32]| {
                correct::converted::<T, f32>(row_of(y), row);
                clear(row, bad, y);
            });
        }
        Correction::None => stage.rebinned(scratch, out, |y, row: &mut [f64]| {
            correct::converted::<T, f64>(row_of(y), row);
            clear(row, bad, y);
        }),
        Correction::Exact { dark, flat } => {
            let (dark, flat) = (dark.as_deref(), flat.as_deref());
            stage.made(scratch, out, |y, row: &mut [f64]| {
                let dark = dark.map(|d| &d[plane(y)]);
                correct::exact::<T>(row_of(y), dark, flat.map(|f| &f[plane(y)]), row);
                correct::scaled(row, scale);
                clear(row, bad, y);
            });
        }
        Correction::Fast { dark, gain, floor } => {
            stage.made(scratch, out, |y, row: &mut [f32]| {
                correct::fast::<T>(row_of(y), &dark[plane(y)], &gain[plane(y)], *floor, row);
                correct::scaled(row, scale);
                clear(row, bad, y);
            });
        }
        Correction::FastCounts { dark, gain } => {
            stage.made(scratch, out, |y, row: &mut [f32]| {
                correct::fast_counts(row_of(y), &dark[plane(y)], &gain[plane(y)], row);
                correct::scaled(row, scale);
                clear(row, bad, y);
            });
        }
        Correction::InRaw { dark, flat, single } => {
            let (dark, flat) = (dark.as_deref(), flat.as_deref());
            let in_raw = |y: usize, row: &mut [T]| {
                let dark = dark.map(|d| &d[plane(y)]);
                correct::in_raw(row_of(y), dark, flat.map(|f| &f[plane(y)]), *single, row);
                correct::scaled_in_raw(row, scale);
                clear(row, bad, y);
            };
            if layout.rebin == 1 {
                return stage.moved(scratch, out, in_raw);
            }
            let mut raw_row = std::mem::take(&mut scratch.row);
            if T::DTYPE == Dtype::F32 {
                stage.rebinned(scratch, out, |y, row: &mut [f32]| {
                    widen(&mut raw_row, row, |raw| in_raw(y, raw));
                });
            } else {
                stage.rebinned(scratch, out, |y, row: &mut [f64]| {
                    widen(&mut raw_row, row, |raw| in_raw(y, raw));
                });
            }
            scratch.row = raw_row;
        }
    }
}

/// Makes a row in the raw type and converts it.
#[inline(always)]
fn widen<T: Raw, W: Float>(raw_row: &mut Buffer, row: &mut [W], make: impl FnOnce(&mut [T])) {
    let raw = raw_row.typed::<T>(row.len());
    make(raw);
    row.iter_mut().zip(raw.iter()).for_each(|(to, &v)| *to = W::of(v));
}

/// What follows the rows: rebinning, the transpose, the stored type.
struct Stage<'a> {
    layout: &'a Layout,
    stored: Dtype,
    fused: bool,
    slot: usize,
}

impl Stage<'_> {
    #[inline(always)]
    fn made<W: Float>(
        &self,
        scratch: &mut DataScratch,
        out: &mut Buffer,
        fill: impl FnMut(usize, &mut [W]),
    ) {
        match self.layout.rebin {
            1 => self.moved(scratch, out, fill),
            _ => self.rebinned(scratch, out, fill),
        }
    }

    #[inline(always)]
    fn moved<W: Raw>(
        &self,
        scratch: &mut DataScratch,
        out: &mut Buffer,
        fill: impl FnMut(usize, &mut [W]),
    ) {
        self.finished(scratch, out, |layout, _, image| layout.place(fill, image));
    }

    #[inline(always)]
    fn rebinned<W: Float>(
        &self,
        scratch: &mut DataScratch,
        out: &mut Buffer,
        fill: impl FnMut(usize, &mut [W]),
    ) {
        self.finished(scratch, out, |layout, strip, image| {
            let strip = strip.typed::<W>(layout.rebin * layout.roi[1]);
            rebin(layout, fill, strip, self.fused, image);
        });
    }

    /// Lets `make` write the image where it saves a copy, then transposes and converts.
    #[inline(always)]
    fn finished<W: Raw>(
        &self,
        scratch: &mut DataScratch,
        out: &mut Buffer,
        make: impl FnOnce(&Layout, &mut Buffer, &mut [W]),
    ) {
        let DataScratch { strip, image, oriented, .. } = scratch;
        let (n, width) = (self.layout.out_len(), self.layout.reduced()[1]);
        let same = self.stored == W::DTYPE;
        match (self.layout.transpose, same) {
            (false, true) => make(self.layout, strip, out.slots::<W>(n, self.slot)),
            (true, true) => {
                let image = image.typed::<W>(n);
                make(self.layout, strip, image);
                transpose(image, width, out.slots::<W>(n, self.slot));
            }
            (false, false) => {
                let image = image.typed::<W>(n);
                make(self.layout, strip, image);
                self.store(image, out);
            }
            (true, false) => {
                let image = image.typed::<W>(n);
                make(self.layout, strip, image);
                let oriented = oriented.typed::<W>(n);
                transpose(image, width, oriented);
                self.store(oriented, out);
            }
        }
    }

    #[inline(always)]
    fn store<W: Raw>(&self, image: &[W], out: &mut Buffer) {
        with_type!(self.stored, O => convert(image, out.slots::<O>(image.len(), self.slot)));
    }
}
