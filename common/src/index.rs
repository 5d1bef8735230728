//! Scan point indices, half-open ranges and sets of them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Names one scan point; given once by the producer, never renumbered.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Index(pub u64);

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// `count` consecutive indices from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IndexRange {
    /// The lowest index.
    pub first: Index,
    /// How many indices follow it, itself included.
    pub count: u32,
}

impl IndexRange {
    /// Makes the range of `count` indices from `first` on.
    pub fn new(first: u64, count: u32) -> Self {
        Self { first: Index(first), count }
    }

    /// Returns the index after the last one.
    pub fn end(&self) -> u64 {
        self.first.0 + u64::from(self.count)
    }

    /// Walks through the indices in order.
    pub fn iter(&self) -> impl Iterator<Item = Index> + use<> {
        (self.first.0..self.end()).map(Index)
    }

    /// Tells whether `index` lies in the range.
    pub fn contains(&self, index: Index) -> bool {
        (self.first.0..self.end()).contains(&index.0)
    }
}

impl fmt::Display for IndexRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => write!(f, "{}", self.first),
            _ => write!(f, "{}..{}", self.first, self.end()),
        }
    }
}

/// A set of indices, kept as disjoint half-open ranges; adjacent ranges are joined.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct IndexSet {
    /// start → end (exclusive)
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl IndexSet {
    /// Makes an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `[start, end)`; returns how many indices were new.
    pub fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start >= end {
            return 0;
        }
        let (mut from, mut to) = (start, end);
        let mut had = 0;
        // Ranges that overlap or touch [start, end): their starts lie at or before `end`.
        let touching: Vec<u64> = self
            .ranges
            .range(..=end)
            .rev()
            .take_while(|&(_, &stop)| stop >= start)
            .map(|(&begin, _)| begin)
            .collect();
        for begin in touching {
            let stop = self.ranges.remove(&begin).unwrap_or(begin);
            had += stop - begin;
            from = from.min(begin);
            to = to.max(stop);
        }
        self.ranges.insert(from, to);
        let new = (to - from) - had;
        self.len += new;
        new
    }

    /// Removes `[start, end)`.
    pub fn remove(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let hit: Vec<(u64, u64)> = self
            .ranges
            .range(..end)
            .rev()
            .take_while(|&(_, &stop)| stop > start)
            .map(|(&b, &s)| (b, s))
            .collect();
        for (begin, stop) in hit {
            self.ranges.remove(&begin);
            self.len -= stop - begin;
            if begin < start {
                self.ranges.insert(begin, start);
                self.len += start - begin;
            }
            if stop > end {
                self.ranges.insert(end, stop);
                self.len += stop - end;
            }
        }
    }

    /// Adds every index of `range`; returns how many were new.
    pub fn insert_range(&mut self, range: IndexRange) -> u64 {
        self.insert(range.first.0, range.end())
    }

    /// Tells whether `index` is in the set.
    pub fn contains(&self, index: u64) -> bool {
        self.ranges.range(..=index).next_back().is_some_and(|(_, &end)| index < end)
    }

    /// Tells whether all of `[start, end)` is in the set.
    pub fn contains_all(&self, start: u64, end: u64) -> bool {
        start >= end
            || self.ranges.range(..=start).next_back().is_some_and(|(_, &stop)| end <= stop)
    }

    /// Returns the lowest index at or after `from` that is not in the set.
    pub fn first_missing(&self, from: u64) -> u64 {
        match self.ranges.range(..=from).next_back() {
            Some((_, &end)) if from < end => end,
            _ => from,
        }
    }

    /// Returns how many indices the set holds.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Tells whether the set holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Walks through the disjoint ranges `(start, end)` in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(&s, &e)| (s, e))
    }
}

impl From<Vec<(u64, u64)>> for IndexSet {
    fn from(ranges: Vec<(u64, u64)>) -> Self {
        let mut set = Self::new();
        for (start, end) in ranges {
            set.insert(start, end);
        }
        set
    }
}

impl From<IndexSet> for Vec<(u64, u64)> {
    fn from(set: IndexSet) -> Self {
        set.ranges().collect()
    }
}

impl fmt::Display for IndexSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (start, end)) in self.ranges().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            match end - start {
                1 => write!(f, "{comma}{start}")?,
                _ => write!(f, "{comma}{start}-{}", end - 1)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_plain_set(steps in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..12), 0..60)) {
            let mut set = IndexSet::new();
            let mut model = BTreeSet::new();
            for (add, start, len) in steps {
                if add {
                    let new = (start..start + len).filter(|&i| model.insert(i)).count() as u64;
                    prop_assert_eq!(set.insert(start, start + len), new);
                } else {
                    set.remove(start, start + len);
                    for i in start..start + len { model.remove(&i); }
                }
                prop_assert_eq!(set.len(), model.len() as u64);
                for i in 0..80 {
                    prop_assert_eq!(set.contains(i), model.contains(&i));
                    prop_assert_eq!(set.first_missing(i), (i..).find(|k| !model.contains(k)).expect("finite"));
                }
                let ends: Vec<_> = set.ranges().collect();
                prop_assert!(ends.windows(2).all(|w| w[0].1 < w[1].0), "joined and in order: {ends:?}");
                let back: IndexSet = Vec::from(set.clone()).into();
                prop_assert_eq!(&back, &set);
            }
        }
    }

    #[test]
    fn shows_ranges_as_people_write_them() {
        let set: IndexSet = vec![(0, 3), (7, 8)].into();
        assert_eq!(set.to_string(), "0-2, 7");
    }
}
