//! Centres of mass for the automatic centre.

use crate::plan::{Layout, ScanArrays};
use crate::prepare::correct::{self, Correction};
use crate::prepare::image::Pixels;
use crate::prepare::invalid::Invalid;
use crate::prepare::pixel::{Raw, with_type};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::message::PreparePlan;
use ptystream_common::params::Compat;

/// What measuring a frame needs.
#[derive(Debug)]
pub(crate) struct Measure {
    dtype: Dtype,
    layout: Layout,
    correction: Correction,
    invalid: Invalid,
    row: Vec<f64>,
    bad: Vec<u8>,
}

impl Measure {
    /// Takes the arrays over whole frames.
    pub fn new(plan: &PreparePlan, arrays: &ScanArrays) -> Self {
        let layout = Layout::whole(plan.frame.shape);
        let compat = plan.compat == Compat::Ptypy;
        let correction = Correction::new(plan.frame.dtype, arrays, &layout, false, compat);
        Self {
            dtype: plan.frame.dtype,
            correction,
            invalid: Invalid::new(plan.valid_range, &plan.bad_values),
            row: vec![0.0; layout.roi[1]],
            bad: vec![0; layout.roi[1]],
            layout,
        }
    }

    /// Measures a decoded frame, all of it, over the pixels whose weight is above 0.
    ///
    /// # Source
    /// ptypy `utils/array_utils.py`, `mass_center`: no threshold, no background; sums in double
    /// precision.
    pub fn center(&mut self, raw: Pixels<'_>, weight: &Array) -> Option<[f64; 2]> {
        with_type!(self.dtype, T => self.center_of::<T>(raw, weight))
    }

    fn center_of<T: Raw>(&mut self, raw: Pixels<'_>, weight: &Array) -> Option<[f64; 2]> {
        let width = self.layout.roi[1];
        let mut raw_row = vec![T::default(); width];
        let (mut sum, mut moment) = (0.0, [0.0; 2]);
        for y in 0..self.layout.roi[0] {
            let bytes = self.layout.bytes_of::<T>(raw, y);
            let plane = |p| row_of(p, y, width);
            match &self.correction {
                Correction::Exact { dark, flat } => {
                    let (dark, flat) = (plane(dark), plane(flat));
                    correct::exact::<T>(bytes, dark, flat, &mut self.row);
                }
                Correction::InRaw { dark, flat, single } => {
                    let (dark, flat) = (plane(dark), plane(flat));
                    correct::in_raw(bytes, dark, flat, *single, &mut raw_row);
                    self.row.iter_mut().zip(&raw_row).for_each(|(to, v)| *to = v.f64());
                }
                Correction::None | Correction::Fast { .. } | Correction::FastCounts { .. } => {
                    correct::converted::<T, f64>(bytes, &mut self.row);
                }
            }
            self.bad.fill(0);
            if self.invalid.any() {
                self.invalid.mark::<T>(bytes, &mut self.bad);
            }
            with_type!(weight.dtype, W => {
                let weights = &weight.data[y * width * size_of::<W>()..];
                for (bad, w) in self.bad.iter_mut().zip(weights.chunks_exact(size_of::<W>())) {
                    let w = W::read(w).f64();
                    *bad |= u8::from(w <= 0.0 || w.is_nan());
                }
            });
            let good =
                self.row.iter().zip(&self.bad).enumerate().filter(|(_, (_, bad))| **bad == 0);
            let (mut row_sum, mut row_moment) = (0.0, 0.0);
            for (x, (&v, _)) in good {
                row_sum += v;
                row_moment += v * x as f64;
            }
            sum += row_sum;
            moment[0] += row_sum * y as f64;
            moment[1] += row_moment;
        }
        let center = moment.map(|m| m / sum);
        center.iter().all(|c| c.is_finite()).then_some(center)
    }
}

fn row_of(plane: &Option<Vec<f64>>, y: usize, width: usize) -> Option<&[f64]> {
    plane.as_ref().map(|p| &p[y * width..][..width])
}
