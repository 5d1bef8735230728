//! What alignment is judged by: of each raw frame the sum of its good pixels and their centre of mass.
//!
//! It is meant to differ from frame to frame as the sample does, and to cost little: raw pixels of the region
//! of interest, without dark and flat, of large frames every n-th row.

use crate::plan::{Recipe, ScanArrays};
use crate::prepare::image::Pixels;
use crate::prepare::pixel::{Raw, with_type};
use ptystream_common::dtype::Dtype;
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::PreparePlan;

/// Rows that are looked at, at most.
const ROWS: usize = 512;

/// The good pixels, once they are known.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    /// Over the region of interest; empty where all are good.
    good: Option<Vec<u8>>,
    bad: Vec<u8>,
}

impl Signals {
    /// Returns sum, row and column of the centre of mass in raw pixels; a centre is NaN where the sum is 0.
    pub fn of(
        &mut self,
        plan: &PreparePlan,
        recipe: &Recipe,
        arrays: &ScanArrays,
        raw: Pixels<'_>,
    ) -> [f64; 3] {
        let good = self.good.get_or_insert_with(|| {
            let weight = arrays.weight.as_ref().filter(|w| w.shape == plan.frame.shape);
            let good =
                weight.map(|w| w.to_f64().iter().map(|v| u8::from(*v > 0.0)).collect::<Vec<_>>());
            good.map_or_else(Vec::new, |good| recipe.layout.cut(&good))
        });
        with_type!(plan.frame.dtype, T => sums::<T>(recipe, good, raw, &mut self.bad))
    }
}

/// What came with a frame beside its pixels and weights.
#[derive(Debug)]
pub(crate) struct Beside {
    pub index: Index,
    pub position: Option<[f64; 2]>,
    pub scalars: Vec<f64>,
}

/// Puts together what is stored of each frame: its own scalars, then the signals.
pub(crate) fn scalars(
    range: IndexRange,
    beside: &[Beside],
    signals: Option<&[[f64; 3]]>,
) -> Option<Vec<Vec<f64>>> {
    let any = signals.is_some() || beside.iter().any(|frame| !frame.scalars.is_empty());
    let of = |(row, index): (usize, Index)| {
        let Some(frame) = beside.iter().find(|f| f.index == index) else { return Vec::new() };
        let signal = signals.and_then(|all| all.get(row));
        frame.scalars.iter().copied().chain(signal.into_iter().flatten().copied()).collect()
    };
    any.then(|| range.iter().enumerate().map(of).collect())
}

fn sums<T: Raw>(recipe: &Recipe, good: &[u8], raw: Pixels<'_>, bad: &mut Vec<u8>) -> [f64; 3] {
    let layout = &recipe.layout;
    let (rows, cols) = (layout.rows, layout.cols);
    let every = rows.len.div_ceil(ROWS).max(1);
    let (mut sum, mut moment) = (0.0, [0.0; 2]);
    bad.resize(cols.len, 0);
    for y in (0..rows.len).step_by(every) {
        bad.fill(0);
        if recipe.invalid.any() {
            recipe.invalid.mark::<T>(layout.bytes_of::<T>(raw, y), bad);
        }
        if let Some(good) = good.get(y * cols.len..(y + 1) * cols.len) {
            bad.iter_mut().zip(good).for_each(|(bad, good)| *bad |= 1 - good);
        }
        let pixels = layout.bytes_of::<T>(raw, y).chunks_exact(size_of::<T>());
        let (mut row, mut row_moment) = (0.0f64, 0.0f64);
        for ((x, pixel), bad) in pixels.enumerate().zip(bad.iter()) {
            let value = T::from_le(pixel).f64() * f64::from(1 - bad);
            row += value;
            row_moment += value * x as f64;
        }
        sum += row;
        moment[0] += row * (rows.src + y) as f64;
        moment[1] += row_moment + row * cols.src as f64;
    }
    [sum, moment[0] / sum, moment[1] / sum]
}
