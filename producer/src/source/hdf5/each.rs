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

    /// Corrects the `nth` frame of the file, scan point `index`; returns also a mask, 0 where a pixel has no
    /// use, if there are such.
    ///
    /// # Errors
    /// [`SourceError::Frame`] if its dark or flat cannot be read.
    pub fn apply(
        &mut self,
        raw: &Array,
        nth: u64,
        index: Index,
    ) -> Result<(Array, Option<Array>), SourceError> {
        let mut items = raw.to_f64();
        let mut good = vec![1u8; items.len()];
        if let Some(dark) = &mut self.dark {
            for (v, d) in items.iter_mut().zip(dark.of(nth, index)?) {
                *v = (*v - d).max(0.0);
            }
        }
        if let Some(flat) = &mut self.flat {
            for ((v, f), good) in items.iter_mut().zip(flat.of(nth, index)?).zip(&mut good) {
                *good = u8::from(f != 0.0 && f.is_finite());
                *v = if *good == 0 { 0.0 } else { *v / f };
            }
        }
        let mask = good.contains(&0).then(|| Array::from_items(&raw.shape, &good));
        Ok((Array::from_items(&raw.shape, &items), mask))
    }
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
        let (array, mask) = corrections.apply(&raw, 0, Index(0)).expect("nothing is read");
        assert_eq!(array, Array::from_items(&[1, 3], &[3.0, 0.0, 0.0]));
        assert_eq!(mask, Some(Array::from_items(&[1, 3], &[1u8, 1, 0])));
    }
}
