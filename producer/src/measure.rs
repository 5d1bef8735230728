//! The automatic centre out of the centres of mass that workers measured.

use ptystream_common::index::{IndexRange, IndexSet};
use std::collections::BTreeMap;

/// Centres of mass by index; `None` for a frame whose sum is zero.
#[derive(Debug, Default)]
pub struct Centers {
    by_index: BTreeMap<u64, Option<[f64; 2]>>,
}

impl Centers {
    /// Takes the centres of a range, in index order; what is known already stays.
    pub fn add(&mut self, range: IndexRange, centers: Vec<Option<[f64; 2]>>) {
        for (index, center) in range.iter().zip(centers) {
            self.by_index.entry(index.0).or_insert(center);
        }
    }

    /// Tells whether nothing has been measured.
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    /// Returns the indices that are measured, and `others`.
    pub fn known_with(&self, others: &IndexSet) -> IndexSet {
        let mut known = others.clone();
        for &index in self.by_index.keys() {
            known.insert(index, index + 1);
        }
        known
    }

    /// Returns the unweighted mean of the frames' centres in index order, frames without counts
    /// left out; `None` if there are no others.
    ///
    /// # Shapes and units
    /// (row, column) in raw pixels.
    /// # Source
    /// ptypy `core/data.py`, `PtyScan` with `auto_center`; there a frame without counts spoils
    /// the mean.
    pub fn mean(&self) -> Option<[f64; 2]> {
        let centers: Vec<[f64; 2]> = self.by_index.values().flatten().copied().collect();
        let count = centers.len() as f64;
        let mean = [0, 1].map(|axis| centers.iter().map(|c| c[axis]).sum::<f64>() / count);
        (!centers.is_empty()).then_some(mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_without_counts_are_left_out_and_the_first_answer_counts() {
        let mut centers = Centers::default();
        assert_eq!(centers.mean(), None);
        centers.add(IndexRange::new(1, 2), vec![Some([2.0, 4.0]), None]);
        centers.add(IndexRange::new(0, 2), vec![Some([4.0, 0.0]), Some([9.0, 9.0])]);
        assert_eq!(centers.mean(), Some([3.0, 2.0]));
        assert!(centers.known_with(&IndexSet::new()).contains_all(0, 3));
    }
}
