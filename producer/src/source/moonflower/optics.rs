//! Probe, object and their far field.
//!
//! The object is a sum of plane waves in amplitude and phase: it has no grid, so scan points may lie
//! between pixels, and any part of it can be had without holding all of it.
//!
//! # Source
//! Discrete Fraunhofer propagation: pixel of the sample plane = wavelength × distance / (extent ×
//! detector pixel); the Fourier transform is unitary, its origin at `extent / 2`.

use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rustfft::num_complex::Complex64;
use rustfft::{Fft, FftPlanner};
use std::f64::consts::TAU;
use std::sync::Arc;

/// Wavelength × energy of a photon, m keV.
const METRE_KEV: f64 = 1.239_841_984_332_002_6e-9;
/// Diameter of the probe as a fraction of the field of view.
const PROBE_FRACTION: f64 = 0.35;
const WAVES: usize = 12;

struct Wave {
    /// Radians per metre, (y, x).
    k: [f64; 2],
    phase: f64,
}

/// A probe, an object, and the transform between them and the detector.
pub(super) struct Optics {
    shape: [usize; 2],
    pixel: [f64; 2],
    diameter: f64,
    probe: Vec<Complex64>,
    amplitude: Vec<Wave>,
    phase: Vec<Wave>,
    rows_fft: Arc<dyn Fft<f64>>,
    cols_fft: Arc<dyn Fft<f64>>,
}

impl Optics {
    /// Makes up a probe and an object.
    ///
    /// # Shapes and units
    /// `shape`: detector `[rows, cols]`; `energy` keV; `distance`, `psize` (y, x) m.
    pub fn new(
        shape: [usize; 2],
        energy: f64,
        distance: f64,
        psize: [f64; 2],
        photons: f64,
        seed: u64,
    ) -> Self {
        let wavelength = METRE_KEV / energy;
        let pixel = [0, 1].map(|a| wavelength * distance / (shape[a] as f64 * psize[a]));
        let field = (shape[0] as f64 * pixel[0]).min(shape[1] as f64 * pixel[1]);
        let diameter = PROBE_FRACTION * field;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut waves = || {
            (0..WAVES)
                .map(|_| {
                    // From half the probe up to some diameters.
                    let period = diameter * rng.random_range(0.5..3.0);
                    let angle = rng.random_range(0.0..TAU);
                    Wave {
                        k: [TAU / period * angle.sin(), TAU / period * angle.cos()],
                        phase: rng.random_range(0.0..TAU),
                    }
                })
                .collect()
        };
        let (amplitude, phase) = (waves(), waves());
        let mut planner = FftPlanner::new();
        Self {
            shape,
            pixel,
            diameter,
            probe: probe(shape, pixel, diameter, photons),
            amplitude,
            phase,
            rows_fft: planner.plan_fft_forward(shape[1]),
            cols_fft: planner.plan_fft_forward(shape[0]),
        }
    }

    /// Returns the detector's `[rows, cols]`.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Returns the pixel of the sample plane, (y, x) in metres.
    pub fn pixel(&self) -> [f64; 2] {
        self.pixel
    }

    /// Returns the probe's diameter in metres.
    pub fn probe_diameter(&self) -> f64 {
        self.diameter
    }

    /// Returns the probe on the frame's grid; its squared modulus sums up to the photons.
    pub fn probe(&self) -> &[Complex64] {
        &self.probe
    }

    /// Returns the object on a grid of `shape` whose pixel `shape / 2` lies at `at`.
    pub fn object(&self, at: [f64; 2], shape: [usize; 2]) -> Vec<Complex64> {
        let amplitude = self.sum(&self.amplitude, at, shape);
        let phase = self.sum(&self.phase, at, shape);
        let pixels = amplitude.iter().zip(&phase);
        pixels.map(|(a, p)| Complex64::from_polar(0.7 + 0.3 * a.tanh(), 0.6 * p)).collect()
    }

    fn sum(&self, waves: &[Wave], at: [f64; 2], shape: [usize; 2]) -> Vec<f64> {
        let mut out = vec![0.0; shape[0] * shape[1]];
        let place = |axis: usize, i: usize| {
            at[axis] + (i as f64 - (shape[axis] / 2) as f64) * self.pixel[axis]
        };
        let scale = (2.0 / waves.len() as f64).sqrt();
        for wave in waves {
            // cos(a + b) from one sine and cosine per row and per column.
            let along = |axis: usize, phase: f64| -> Vec<(f64, f64)> {
                (0..shape[axis])
                    .map(|i| (wave.k[axis] * place(axis, i) + phase).sin_cos())
                    .collect()
            };
            let (ys, xs) = (along(0, wave.phase), along(1, 0.0));
            for (row, (sy, cy)) in out.chunks_exact_mut(shape[1]).zip(ys) {
                for (v, (sx, cx)) in row.iter_mut().zip(&xs) {
                    *v += scale * (cy * cx - sy * sx);
                }
            }
        }
        out
    }

    /// Returns the intensity on the detector for the probe at `at`, (y, x) in metres.
    pub fn intensity(&self, at: [f64; 2]) -> Vec<f64> {
        let [rows, cols] = self.shape;
        let mut wave = self.object(at, self.shape);
        for (w, p) in wave.iter_mut().zip(&self.probe) {
            *w *= p;
        }
        self.rows_fft.process(&mut wave);
        let mut columns = transposed(&wave, rows, cols);
        self.cols_fft.process(&mut columns);
        let unitary = 1.0 / (rows * cols) as f64;
        let mut out = vec![0.0; rows * cols];
        for (c, column) in columns.chunks_exact(rows).enumerate() {
            let c = (c + cols / 2) % cols;
            for (r, v) in column.iter().enumerate() {
                out[(r + rows / 2) % rows * cols + c] = v.norm_sqr() * unitary;
            }
        }
        out
    }
}

fn transposed(items: &[Complex64], rows: usize, cols: usize) -> Vec<Complex64> {
    let mut out = vec![Complex64::ZERO; items.len()];
    for (r, row) in items.chunks_exact(cols).enumerate() {
        for (c, v) in row.iter().enumerate() {
            out[c * rows + r] = *v;
        }
    }
    out
}

/// Makes a round aperture with a soft edge and a defocus.
fn probe(shape: [usize; 2], pixel: [f64; 2], diameter: f64, photons: f64) -> Vec<Complex64> {
    let radius = diameter / 2.0;
    let edge = 1.5 * pixel[0].max(pixel[1]);
    let place = |axis: usize, i: usize| (i as f64 - (shape[axis] / 2) as f64) * pixel[axis];
    let mut wave = Vec::with_capacity(shape[0] * shape[1]);
    for r in 0..shape[0] {
        for c in 0..shape[1] {
            let from_axis = place(0, r).hypot(place(1, c));
            let amplitude = 1.0 / (1.0 + ((from_axis - radius) / edge).exp());
            // Six waves of curvature at the rim spread the beam over the detector.
            let curvature = 6.0 * TAU / 2.0 * (from_axis / radius).powi(2);
            wave.push(Complex64::from_polar(amplitude, curvature));
        }
    }
    let norm = (photons / wave.iter().map(Complex64::norm_sqr).sum::<f64>()).sqrt();
    wave.iter_mut().for_each(|v| *v *= norm);
    wave
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn photons_are_conserved_and_lie_around_the_middle() {
        let photons = 1e6;
        let optics = Optics::new([64, 48], 7.2, 7.19, [0.000172; 2], photons, 3);
        let probe: f64 = optics.probe().iter().map(Complex64::norm_sqr).sum();
        assert!((probe / photons - 1.0).abs() < 1e-9, "{probe}");
        let at = [1e-7, -2e-7];
        let object = optics.object(at, optics.shape());
        let through: f64 = object.iter().zip(optics.probe()).map(|(o, p)| (o * p).norm_sqr()).sum();
        let frame = optics.intensity(at);
        let counted: f64 = frame.iter().sum();
        assert!((counted / through - 1.0).abs() < 1e-9, "{counted} of {through}");
        assert!((0.1..1.0).contains(&(counted / photons)), "the object absorbs, it does not emit");
        let moment = |f: &dyn Fn(usize) -> f64| {
            frame.iter().enumerate().map(|(i, v)| v * f(i)).sum::<f64>() / counted
        };
        assert!((moment(&|i| (i / 48) as f64) - 32.0).abs() < 8.0);
        assert!((moment(&|i| (i % 48) as f64) - 24.0).abs() < 8.0);
    }

    #[test]
    fn the_object_is_the_same_from_every_window() {
        let optics = Optics::new([32, 32], 7.2, 7.19, [0.000172; 2], 1.0, 9);
        let [dy, dx] = optics.pixel();
        let (a, b) =
            (optics.object([0.0, 0.0], [32, 32]), optics.object([3.0 * dy, 5.0 * dx], [32, 32]));
        for r in 0..20 {
            for c in 0..20 {
                assert!((a[(r + 3) * 32 + c + 5] - b[r * 32 + c]).norm() < 1e-9);
            }
        }
    }
}
