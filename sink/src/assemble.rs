//! How chunks are put together: events in, verdicts and closed chunks out; no sockets, files,
//! clocks or threads.
//!
//! Invariants:
//! - of two copies of an index the first is kept, the second counted;
//! - chunks close in order and once, when each of their indices has come or is a gap;
//! - a chunk covers `frames_per_chunk` indices from a multiple of it on, or a part of them where it was
//!   flushed: then the next one covers the rest, or a part of that;
//! - `received = kept + duplicates + out of range` at any time;
//! - durable is never taken back, and chunks become durable in order.

use ptystream_common::index::{IndexRange, IndexSet};
use ptystream_common::message::Prepared;
use std::collections::BTreeMap;

/// What becomes of prepared frames that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are to be written.
    Keep,
    /// They are there already.
    Duplicate,
    /// They are there already, and those are others: a worker is broken, or of another build.
    Mismatch,
    /// They do not belong to the scan.
    OutOfRange,
}

/// A chunk whose every index has come or is a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedChunk {
    /// Number of the chunk, from 0.
    pub chunk: u64,
    /// Its indices.
    pub range: IndexRange,
    /// Positions, one an index, where the scan has any.
    pub positions: Option<Vec<[f64; 2]>>,
    /// Indices whose weights are to be cleared: below the chunk's best bin.
    pub clear_weights: Vec<u64>,
    /// Indices without frame.
    pub gaps: Vec<u64>,
    /// Gaps whose position is a repetition of the last one, for want of their own.
    pub repeated_positions: Vec<u64>,
    /// Gaps and why.
    pub reasons: Vec<(IndexRange, String)>,
    /// Numbers of each index, none for a gap; empty where the scan has none.
    pub scalars: Vec<Vec<f64>>,
}

/// Counts of frames; see the invariants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that came.
    pub received: u64,
    /// Frames that were kept; no index is counted twice.
    pub kept: u64,
    /// Frames that were there already, or gaps.
    pub duplicates: u64,
    /// Frames that do not belong to the scan.
    pub out_of_range: u64,
    /// Of the duplicates: those that have another checksum than the first copy.
    pub mismatched: u64,
    /// Invalid raw pixels of the kept frames.
    pub invalid_pixels: u64,
}

/// What is known of the indices that are in no closed chunk.
#[derive(Debug, Default)]
struct Open {
    positions: BTreeMap<u64, [f64; 2]>,
    max_valid: BTreeMap<u64, u32>,
    scalars: BTreeMap<u64, Vec<f64>>,
    gaps: BTreeMap<u64, Option<[f64; 2]>>,
}

impl Open {
    /// Takes out what lies before `end`.
    fn take_until(&mut self, end: u64) -> Self {
        fn until<V>(all: &mut BTreeMap<u64, V>, end: u64) -> BTreeMap<u64, V> {
            let rest = all.split_off(&end);
            std::mem::replace(all, rest)
        }
        Self {
            positions: until(&mut self.positions, end),
            max_valid: until(&mut self.max_valid, end),
            scalars: until(&mut self.scalars, end),
            gaps: until(&mut self.gaps, end),
        }
    }
}

/// The assembly of one scan.
#[derive(Debug)]
pub struct Assembler {
    frames_per_chunk: u64,
    length: Option<u64>,
    with_positions: bool,
    open: Open,
    /// Number of the next chunk that closes, and its first index.
    next: (u64, u64),
    accepted: IndexSet,
    durable: IndexSet,
    gaps: BTreeMap<u64, String>,
    /// By its first index: length and checksums of each batch that was kept and is not durable yet.
    sums: BTreeMap<u64, (u32, Vec<u32>)>,
    last_position: [f64; 2],
    counts: Counts,
}

impl Assembler {
    /// Makes an assembler; `durable` is what an earlier run left on disk, from index 0 on, in so
    /// many `chunks`.
    pub fn new(
        frames_per_chunk: u32,
        length: Option<u64>,
        with_positions: bool,
        durable: &IndexSet,
        chunks: u64,
    ) -> Self {
        Self {
            frames_per_chunk: u64::from(frames_per_chunk),
            length,
            with_positions,
            open: Open::default(),
            next: (chunks, durable.first_missing(0)),
            accepted: durable.clone(),
            durable: durable.clone(),
            gaps: BTreeMap::new(),
            sums: BTreeMap::new(),
            last_position: [0.0; 2],
            counts: Counts::default(),
        }
    }

    /// The scan's length has become known; [`Self::close`] closes what that completes.
    pub fn set_length(&mut self, length: u64) {
        self.length = Some(length);
    }

    /// Looks at prepared frames; tells whether to write them.
    pub fn prepared(&mut self, p: &Prepared) -> Verdict {
        let count = u64::from(p.range.count);
        self.counts.received += count;
        let chunk = p.range.first.0 / self.frames_per_chunk;
        let last_chunk = p.range.end().saturating_sub(1) / self.frames_per_chunk;
        let beyond = self.length.is_some_and(|n| p.range.end() > n);
        if count == 0 || chunk != last_chunk || beyond {
            self.counts.out_of_range += count;
            return Verdict::OutOfRange;
        }
        let missing =
            p.range.iter().any(|i| !self.accepted.contains(i.0) && !self.gaps.contains_key(&i.0));
        if !missing {
            self.counts.duplicates += count;
            return self.duplicate(p);
        }
        if let Some(sums) = &p.checksums {
            self.sums.insert(p.range.first.0, (p.range.count, sums.clone()));
        }
        let open = &mut self.open;
        for (row, index) in p.range.iter().enumerate() {
            // A batch may come after pieces of it, or after gaps in it.
            if self.accepted.contains(index.0) {
                self.counts.duplicates += 1;
                continue;
            }
            self.counts.kept += 1;
            if let Some(yx) = p.positions.as_ref().and_then(|all| all.get(row)) {
                open.positions.insert(index.0, *yx);
            }
            if let Some(max) = p.max_valid.as_ref().and_then(|all| all.get(row)) {
                open.max_valid.insert(index.0, *max);
            }
            if let Some(scalars) = p.scalars.as_ref().and_then(|all| all.get(row)) {
                open.scalars.insert(index.0, scalars.clone());
            }
            if let Some(invalid) = p.invalid.as_ref().and_then(|all| all.get(row)) {
                self.counts.invalid_pixels += u64::from(*invalid);
            }
            self.accepted.insert(index.0, index.0 + 1);
        }
        Verdict::Keep
    }

    /// Compares a second copy with the first, as far as that one is not durable yet.
    fn duplicate(&mut self, p: &Prepared) -> Verdict {
        let first = self.sums.get(&p.range.first.0).filter(|(count, _)| *count == p.range.count);
        match (first, &p.checksums) {
            (Some((_, first)), Some(second)) if first != second => {
                self.counts.mismatched += u64::from(p.range.count);
                Verdict::Mismatch
            }
            _ => Verdict::Duplicate,
        }
    }

    /// Declares indices as gaps.
    pub fn gap(&mut self, range: IndexRange, reason: &str, positions: Option<&[[f64; 2]]>) {
        for (row, index) in range.iter().enumerate() {
            if self.accepted.contains(index.0) || self.length.is_some_and(|n| index.0 >= n) {
                continue;
            }
            self.open.gaps.insert(index.0, positions.and_then(|all| all.get(row)).copied());
            self.gaps.insert(index.0, reason.to_owned());
            self.accepted.insert(index.0, index.0 + 1);
        }
    }

    /// Returns the first index behind the chunk that closes next.
    fn end(&self) -> u64 {
        let end = (self.next.1 / self.frames_per_chunk + 1) * self.frames_per_chunk;
        self.length.map_or(end, |n| end.min(n))
    }

    /// Closes the chunks whose turn has come, and of which each index has come or is a gap.
    pub fn close(&mut self) -> Vec<ClosedChunk> {
        let mut closed = Vec::new();
        while self.next.1 < self.end() && self.accepted.contains_all(self.next.1, self.end()) {
            closed.push(self.close_until(self.end()));
        }
        closed
    }

    /// Tells whether the last chunk is closed.
    pub fn has_closed_all(&self) -> bool {
        self.length.is_some_and(|n| self.next.1 >= n)
    }

    /// Tells whether the index that is next to be stored has come, and its chunk is not whole.
    pub fn is_waiting(&self) -> bool {
        self.accepted.contains(self.next.1)
    }

    /// Closes the chunk whose turn it is before it is whole, behind the last of the `batch`es of which
    /// all before have come; `None` where there is none.
    pub fn flush(&mut self, batch: u32) -> Option<ClosedChunk> {
        let start = self.next.1 / self.frames_per_chunk * self.frames_per_chunk;
        let there = self.accepted.first_missing(self.next.1).min(self.end());
        let batch = u64::from(batch.max(1));
        let cut = start + there.saturating_sub(start) / batch * batch;
        (cut > self.next.1).then(|| self.close_until(cut))
    }

    fn close_until(&mut self, end: u64) -> ClosedChunk {
        let (chunk, start) = self.next;
        self.next = (chunk + 1, end);
        let mut open = self.open.take_until(end);
        let scalars = match open.scalars.is_empty() {
            true => Vec::new(),
            false => (start..end).map(|i| open.scalars.remove(&i).unwrap_or_default()).collect(),
        };
        let best = open.max_valid.values().max().copied().unwrap_or(0);
        let clear_weights = open
            .max_valid
            .iter()
            .filter(|&(_, &max)| max < best)
            .map(|(&index, _)| index)
            .collect();
        let mut repeated_positions = Vec::new();
        let mut last = self.last_position;
        let positions: Vec<[f64; 2]> = (start..end)
            .map(|index| {
                let nominal = || open.gaps.get(&index).copied().flatten();
                last = open.positions.get(&index).copied().or_else(nominal).unwrap_or_else(|| {
                    repeated_positions.push(index);
                    last
                });
                last
            })
            .collect();
        self.last_position = last;
        let range = IndexRange::new(start, (end - start) as u32);
        let mut reasons = joined(self.gaps.range(start..end));
        for (gap, why) in &mut reasons {
            if gap.iter().any(|i| repeated_positions.contains(&i.0)) && self.with_positions {
                why.push_str(" (no position of its own: the last one is repeated)");
            }
        }
        ClosedChunk {
            chunk,
            range,
            positions: self.with_positions.then_some(positions),
            clear_weights,
            gaps: open.gaps.into_keys().collect(),
            repeated_positions: if self.with_positions { repeated_positions } else { Vec::new() },
            reasons,
            scalars,
        }
    }

    /// These indices are on disk and visible.
    pub fn published(&mut self, range: IndexRange) {
        self.durable.insert_range(range);
        // Chunks become durable in order, and no batch lies across two of them.
        self.sums = self.sums.split_off(&self.durable.first_missing(0));
    }

    /// Tells whether every index is durable.
    pub fn is_complete(&self) -> bool {
        self.length.is_some_and(|n| self.durable.first_missing(0) >= n)
    }

    /// Every index below is durable.
    pub fn watermark(&self) -> u64 {
        self.durable.first_missing(0)
    }

    /// Indices on disk and visible, gaps included.
    pub fn durable(&self) -> &IndexSet {
        &self.durable
    }

    /// Indices in memory or on disk, gaps included.
    pub fn accepted(&self) -> &IndexSet {
        &self.accepted
    }

    /// Number of scan points, once known.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Gaps and why, neighbours of one reason joined.
    pub fn gaps(&self) -> Vec<(IndexRange, String)> {
        joined(self.gaps.iter())
    }

    /// Returns the counts.
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

fn joined<'a>(gaps: impl Iterator<Item = (&'a u64, &'a String)>) -> Vec<(IndexRange, String)> {
    let mut joined: Vec<(IndexRange, String)> = Vec::new();
    for (&index, reason) in gaps {
        match joined.last_mut() {
            Some((range, why)) if range.end() == index && why == reason => range.count += 1,
            _ => joined.push((IndexRange::new(index, 1), reason.clone())),
        }
    }
    joined
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn prepared(first: u64, count: u32) -> Prepared {
        let yx = (first..first + u64::from(count)).map(|i| [i as f64, -(i as f64)]).collect();
        Prepared {
            range: IndexRange::new(first, count),
            positions: Some(yx),
            max_valid: None,
            invalid: None,
            scalars: None,
            checksums: None,
            load_us: 0,
            prepare_us: 0,
        }
    }

    #[test]
    fn a_gap_keeps_its_nominal_position_or_repeats_the_last() {
        let mut a = Assembler::new(4, Some(4), true, &IndexSet::new(), 0);
        assert_eq!(a.prepared(&prepared(0, 1)), Verdict::Keep);
        a.gap(IndexRange::new(1, 1), "lost", Some(&[[7.0, 8.0]]));
        a.gap(IndexRange::new(2, 1), "lost", None);
        assert!(a.close().is_empty());
        a.prepared(&prepared(3, 1));
        let chunk = a.close().remove(0);
        assert_eq!(chunk.positions.unwrap(), [[0.0, 0.0], [7.0, 8.0], [7.0, 8.0], [3.0, -3.0]]);
        assert_eq!((chunk.gaps, chunk.repeated_positions), (vec![1, 2], vec![2]));
        assert_eq!(a.gaps(), [(IndexRange::new(1, 2), "lost".to_owned())]);
    }

    #[test]
    fn frames_below_the_chunks_best_bin_lose_their_weights() {
        let mut a = Assembler::new(3, Some(3), true, &IndexSet::new(), 0);
        a.prepared(&Prepared { max_valid: Some(vec![4, 3, 4]), ..prepared(0, 3) });
        assert_eq!(a.close()[0].clear_weights, [1]);
    }

    #[test]
    fn a_second_copy_is_compared_with_the_first() {
        let mut a = Assembler::new(4, Some(8), true, &IndexSet::new(), 0);
        let with = |first, sum| Prepared { checksums: Some(vec![sum, 1]), ..prepared(first, 2) };
        assert_eq!(a.prepared(&with(0, 7)), Verdict::Keep);
        assert_eq!(a.prepared(&with(0, 7)), Verdict::Duplicate);
        assert_eq!(a.prepared(&with(0, 8)), Verdict::Mismatch);
        assert_eq!(a.prepared(&prepared(0, 2)), Verdict::Duplicate, "it has no checksum");
        // A piece of a batch is stored otherwise than the batch.
        assert_eq!(
            a.prepared(&Prepared { checksums: Some(vec![9, 9]), ..prepared(0, 1) }),
            Verdict::Duplicate
        );
        let counts = a.counts();
        assert_eq!((counts.mismatched, counts.duplicates, counts.kept), (2, 7, 2));
        a.prepared(&with(2, 5));
        assert_eq!(a.close().len(), 1);
        a.published(IndexRange::new(0, 4));
        assert!(a.sums.is_empty(), "what is durable needs no room");
    }

    #[test]
    fn a_length_that_comes_late_closes_the_last_chunk() {
        let mut a = Assembler::new(4, None, true, &IndexSet::new(), 0);
        a.prepared(&prepared(0, 2));
        assert!(a.close().is_empty());
        a.set_length(2);
        assert_eq!(a.close()[0].range, IndexRange::new(0, 2));
    }

    #[test]
    fn a_chunk_that_is_flushed_ends_with_a_whole_batch_and_the_next_has_the_rest() {
        let mut a = Assembler::new(10, Some(20), true, &IndexSet::new(), 0);
        assert!(!a.is_waiting());
        a.prepared(&prepared(4, 4));
        assert!(!a.is_waiting() && a.flush(4).is_none(), "it is not their turn");
        a.prepared(&prepared(0, 2));
        assert!(a.is_waiting() && a.flush(4).is_none(), "its batch is not whole");
        a.prepared(&prepared(2, 2));
        a.prepared(&prepared(10, 4));
        let piece = a.flush(4).unwrap();
        assert_eq!((piece.chunk, piece.range), (0, IndexRange::new(0, 8)));
        assert!(!a.is_waiting() && a.flush(4).is_none() && a.close().is_empty());
        a.prepared(&prepared(8, 2));
        let rest = a.close();
        assert_eq!((rest.len(), rest[0].chunk, rest[0].range), (1, 1, IndexRange::new(8, 2)));
        // An earlier run may have ended behind such a piece.
        let mut durable = IndexSet::new();
        durable.insert(0, 8);
        let mut a = Assembler::new(10, Some(20), true, &durable, 3);
        a.prepared(&prepared(8, 2));
        assert_eq!((a.close()[0].chunk, a.is_waiting()), (3, false));
    }

    proptest! {
        #[test]
        fn every_index_is_kept_once_and_every_chunk_closes_once(
            n in 1u64..50, fpc in 1u32..9, batch in 1u32..4,
            order in proptest::collection::vec((any::<u16>(), any::<bool>()), 0..200),
            impatient: bool,
        ) {
            use ptystream_common::index::Index;
            use ptystream_common::message::batch_of;
            let mut a = Assembler::new(fpc, Some(n), true, &IndexSet::new(), 0);
            let (mut kept, mut gaps, mut closed) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
            let rest = (0..n).map(|i| (i, false));
            let picks = order.into_iter().map(|(p, gap)| (u64::from(p) % n, gap && p % 5 == 0));
            for (index, gap) in picks.chain(rest) {
                let range = batch_of(Index(index), batch.min(fpc), fpc, n);
                if gap {
                    if !kept.contains(&index) { gaps.insert(index); }
                    a.gap(IndexRange::new(index, 1), "why", None);
                } else {
                    let new = range.iter().any(|i| !kept.contains(&i.0) && !gaps.contains(&i.0));
                    let verdict = a.prepared(&prepared(range.first.0, range.count));
                    prop_assert_eq!(verdict, if new { Verdict::Keep } else { Verdict::Duplicate });
                    for i in range.iter() { if !gaps.contains(&i.0) { kept.insert(i.0); } }
                }
                let mut closing = a.close();
                if impatient && index % 3 == 0 {
                    closing.extend(a.flush(batch.min(fpc)));
                }
                for chunk in closing {
                    prop_assert_eq!(chunk.chunk, closed.len() as u64);
                    let end = closed.last().map_or(0, IndexRange::end);
                    prop_assert_eq!(chunk.range.first.0, end);
                    closed.push(chunk.range);
                    for i in chunk.range.iter() {
                        prop_assert_eq!(chunk.gaps.contains(&i.0), gaps.contains(&i.0));
                        prop_assert!(kept.contains(&i.0) || gaps.contains(&i.0));
                    }
                    a.published(chunk.range);
                }
                let c = a.counts();
                prop_assert_eq!(c.received, c.kept + c.duplicates + c.out_of_range);
            }
            prop_assert!(a.is_complete());
            prop_assert!(impatient || closed.len() as u64 == n.div_ceil(u64::from(fpc)));
        }
    }
}
