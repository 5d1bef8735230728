//! A counting detector: point spread, photon noise, pixel type.

use bytes::Bytes;
use ptystream_common::dtype::{Dtype, Pixel};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Poisson};

/// What becomes of an intensity.
pub(super) struct Detector {
    /// Standard deviation of the point spread in pixels; 0: none.
    pub psf: f64,
    /// Whether photons are counted with Poisson noise.
    pub noise: bool,
    /// Seed of the noise; every frame has a stream of random numbers of its own.
    pub seed: u64,
    /// Type of the pixels.
    pub dtype: Dtype,
}

impl Detector {
    /// Turns the intensity of frame `index` into pixels; returns also how many saturate.
    pub fn expose(&self, intensity: &mut [f64], shape: [usize; 2], index: u64) -> (Bytes, u64) {
        if self.psf > 0.0 {
            blur(intensity, shape, self.psf);
        }
        if self.noise {
            // The object's numbers come from stream 0.
            let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
            rng.set_stream(index + 1);
            for v in intensity.iter_mut() {
                *v = Poisson::new(*v).map_or(0.0, |p| p.sample(&mut rng));
            }
        }
        macro_rules! whole {
            ($($d:ident => $t:ty),*) => {
                match self.dtype {
                    $(Dtype::$d => put(intensity, |v| v.round() as $t, |v| v.round() > <$t>::MAX as f64),)*
                    Dtype::F32 => put(intensity, |v| v as f32, |_| false),
                    Dtype::F64 => put(intensity, |v| v, |_| false),
                    Dtype::Bool => put(intensity, |v| u8::from(v >= 0.5), |_| false),
                }
            };
        }
        whole!(U8 => u8, U16 => u16, U32 => u32, I8 => i8, I16 => i16, I32 => i32, I64 => i64)
    }
}

fn put<T: Pixel>(
    intensity: &[f64],
    convert: impl Fn(f64) -> T,
    beyond: impl Fn(f64) -> bool,
) -> (Bytes, u64) {
    // Exact: frames that are repeated are kept, with whatever they have reserved.
    let mut out = Vec::with_capacity(intensity.len() * size_of::<T>());
    let mut saturated = 0;
    for &v in intensity {
        saturated += u64::from(beyond(v));
        convert(v).put_le(&mut out);
    }
    (out.into(), saturated)
}

/// Convolves with a Gaussian along both axes; what would leave the frame stays in it.
fn blur(image: &mut [f64], [rows, cols]: [usize; 2], sigma: f64) {
    let reach = (4.0 * sigma).ceil() as isize;
    let kernel: Vec<f64> =
        (-reach..=reach).map(|d| (-0.5 * (d as f64 / sigma).powi(2)).exp()).collect();
    let mut line = |at: &dyn Fn(usize) -> usize, n: usize| {
        let old: Vec<f64> = (0..n).map(|i| image[at(i)]).collect();
        let mut new = vec![0.0; n];
        for (i, v) in old.iter().enumerate() {
            let inside = || {
                kernel.iter().enumerate().filter_map(|(k, w)| {
                    let j = i as isize + k as isize - reach;
                    usize::try_from(j).ok().filter(|&j| j < n).map(|j| (j, w))
                })
            };
            let sum: f64 = inside().map(|(_, w)| w).sum();
            inside().for_each(|(j, w)| new[j] += v * w / sum);
        }
        new.iter().enumerate().for_each(|(i, v)| image[at(i)] = *v);
    };
    for r in 0..rows {
        line(&|c| r * cols + c, cols);
    }
    for c in 0..cols {
        line(&|r| r * cols + c, rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_point_spread_keeps_the_photons_and_widens_a_point() {
        let mut image = vec![0.0; 15 * 11];
        image[7 * 11 + 1] = 100.0;
        blur(&mut image, [15, 11], 1.2);
        assert!((image.iter().sum::<f64>() - 100.0).abs() < 1e-9);
        assert!(image[7 * 11 + 1] < 40.0 && image[6 * 11 + 1] > 1.0 && image[7 * 11 + 2] > 1.0);
    }

    #[test]
    fn counts_beyond_the_type_saturate_and_are_counted() {
        let detector = Detector { psf: 0.0, noise: false, seed: 0, dtype: Dtype::U8 };
        let (bytes, saturated) = detector.expose(&mut [254.6, 255.4, 255.6, 1e9, 0.4], [1, 5], 0);
        assert_eq!(&bytes[..], [255, 255, 255, 255, 0]);
        assert_eq!(saturated, 2);
    }

    #[test]
    fn noise_has_the_mean_and_the_variance_of_a_poisson_distribution() {
        let detector = Detector { psf: 0.0, noise: true, seed: 1, dtype: Dtype::F64 };
        let (bytes, _) = detector.expose(&mut vec![20.0; 10_000], [100, 100], 7);
        let counts: Vec<f64> = bytes.chunks_exact(8).map(f64::from_le).collect();
        let mean = counts.iter().sum::<f64>() / 1e4;
        let variance = counts.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 1e4;
        assert!((mean - 20.0).abs() < 0.3, "{mean}");
        assert!((variance - 20.0).abs() < 1.5, "{variance}");
        let (other, _) = detector.expose(&mut vec![20.0; 10_000], [100, 100], 8);
        assert_ne!(bytes, other, "every frame has noise of its own");
    }
}
