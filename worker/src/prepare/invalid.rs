//! Raw values that are no counts: saturation, markers of dead pixels, NaN.

use crate::prepare::pixel::Raw;

/// Which raw values are invalid.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Invalid {
    range: Option<[f64; 2]>,
    values: Vec<f64>,
}

impl Invalid {
    /// Takes the limits, themselves valid, and single invalid values.
    pub fn new(range: Option<[f64; 2]>, values: &[f64]) -> Self {
        Self { range, values: values.to_vec() }
    }

    /// Tells whether any value is invalid; if so, NaN is too.
    pub fn any(&self) -> bool {
        self.range.is_some() || !self.values.is_empty()
    }

    /// Marks the invalid pixels of a row with 1, the others with 0.
    #[inline(always)]
    pub fn mark<T: Raw>(&self, row: &[u8], bad: &mut [u8]) {
        let [low, high] = self.range.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]);
        let pixels = || row.chunks_exact(size_of::<T>()).map(|b| T::from_le(b).f64());
        for (to, v) in bad.iter_mut().zip(pixels()) {
            *to = u8::from(!(v >= low && v <= high));
        }
        for &value in &self.values {
            for (to, v) in bad.iter_mut().zip(pixels()) {
                *to |= u8::from(v == value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_valid_and_nan_never_is() {
        let mut bad = [9; 5];
        let row: Vec<u8> =
            [-2.0f32, 0.0, 100.0, 100.5, f32::NAN].iter().flat_map(|v| v.to_le_bytes()).collect();
        Invalid::new(Some([0.0, 100.0]), &[]).mark::<f32>(&row, &mut bad);
        assert_eq!(bad, [1, 0, 0, 1, 1]);
        Invalid::new(None, &[-2.0, 0.0]).mark::<f32>(&row, &mut bad);
        assert_eq!(bad, [1, 1, 0, 0, 1]);
        let row: Vec<u8> = i64::MAX.to_le_bytes().to_vec();
        Invalid::new(None, &[i64::MAX as f64]).mark::<i64>(&row, &mut bad[..1]);
        assert_eq!(bad[0], 1);
    }
}
