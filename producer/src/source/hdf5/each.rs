//! Darks and flats of each frame.
//!
//! Datasets of the frames' own shape belong frame by frame, as in ptypy. Frames are then corrected here,
//! in double precision, and leave as `float64`; a pixel whose flat is no use becomes 0, and so does its
//! weight.

use super::stack::Stack;
use ptystream_common::frame::Array;
use ptystream_common::index::Index;
use ptystream_common::source::SourceError;

/// A dark or flat, of all frames or of each.
pub(super) enum Correction {
    /// One for all, `(rows, cols)`.
    Common(Vec<f64>),
    /// One a frame.
    Each(Stack),
}

impl Correction {
    fn of(&mut self, nth: u64, index: Index) -> Result<Vec<f64>, SourceError> {
        match self {
            Self::Common(items) => Ok(items.clone()),
            Self::Each(stack) => Ok(stack.decoded(nth, index)?.to_f64()),
        }
    }
}

/// What each frame is corrected with.
pub(super) struct Corrections {
    /// Subtracted; below 0 becomes 0.
    pub dark: Option<Correction>,
    /// Divides.
    pub flat: Option<Correction>,
}

impl Corrections {
    /// Tells whether weights depend on the frame.
    pub fn marks(&self) -> bool {
        matches!(self.flat, Some(Correction::Each(_)))
    }

    /// Corrects the `nth` frame of the file, scan point `index`; returns also which pixels have no use.
    ///
    /// # Errors
    /// [`SourceError::Frame`] if its dark or flat cannot be read.
    pub fn apply(
        &mut self,
        raw: &Array,
        nth: u64,
        index: Index,
    ) -> Result<(Array, Vec<bool>), SourceError> {
        let mut items = raw.to_f64();
        let mut bad = vec![false; items.len()];
        if let Some(dark) = &mut self.dark {
            for (v, d) in items.iter_mut().zip(dark.of(nth, index)?) {
                *v = (*v - d).max(0.0);
            }
        }
        if let Some(flat) = &mut self.flat {
            for ((v, f), bad) in items.iter_mut().zip(flat.of(nth, index)?).zip(&mut bad) {
                *bad = f == 0.0 || !f.is_finite();
                *v = if *bad { 0.0 } else { *v / f };
            }
        }
        Ok((Array::from_items(&raw.shape, &items), bad))
    }
}

/// Clears the weights of pixels that are of no use.
pub(super) fn cleared(weight: &Array, bad: &[bool]) -> Array {
    let mut bytes = weight.data.to_vec();
    for (item, bad) in bytes.chunks_exact_mut(weight.dtype.size()).zip(bad) {
        if *bad {
            item.fill(0);
        }
    }
    Array { data: bytes.into(), ..weight.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn darks_are_subtracted_before_flats_divide() {
        let mut corrections = Corrections {
            dark: Some(Correction::Common(vec![1.0, 9.0, 1.0])),
            flat: Some(Correction::Common(vec![2.0, 1.0, 0.0])),
        };
        let raw = Array::from_items(&[1, 3], &[7u16, 3, 5]);
        let (array, bad) = corrections.apply(&raw, 0, Index(0)).expect("nothing is read");
        assert_eq!(array, Array::from_items(&[1, 3], &[3.0, 0.0, 0.0]));
        assert_eq!(bad, [false, false, true]);
        let weight = Array::from_items(&[1, 3], &[1i64, 1, 1]);
        assert_eq!(cleared(&weight, &bad), Array::from_items(&[1, 3], &[1i64, 1, 0]));
    }
}
