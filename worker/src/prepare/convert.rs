//! From the type of the work to the type that is stored.

use crate::prepare::pixel::Raw;

/// Converts each pixel; to integers half to even and clipped.
#[inline(always)]
pub(crate) fn convert<W: Raw, O: Raw>(image: &[W], out: &mut [O]) {
    for (to, v) in out.iter_mut().zip(image) {
        *to = O::rounded(v.f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_rounded_half_to_even_and_clipped() {
        let mut out = [0u16; 6];
        convert(&[0.5, 1.5, -3.0, 7e9, f64::NAN, 2.49], &mut out);
        assert_eq!(out, [0, 2, 0, 65535, 0, 2]);
        let mut single = [0f32];
        convert(&[0.1f64], &mut single);
        assert_eq!(single, [0.1f32]);
    }
}
