//! The policy `static`: who gets which frames is settled chunk by chunk, as ptypy settles it.

use ptystream_common::index::IndexRange;
use ptystream_common::names::natural;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Who gets which frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Whoever asks gets what is next.
    Dynamic,
    /// Each of a number of workers gets its part of each chunk.
    Static {
        /// How many workers share the scan.
        workers: usize,
        /// After this the scan begins with those that are there.
        patience: Duration,
    },
}

/// Shares `frames` frames among ranks, and adds to the loads that they have from before.
///
/// Loads come as near to each other as they can: ranks above the mean get nothing; what cannot be
/// divided goes to the highest ranks.
///
/// Returns how many frames each rank gets; they are given out in blocks, the lowest rank first.
///
/// # Source
/// ptypy 0.9, `ptypy.utils.parallel.LoadManager.assign`.
fn assign(loads: &mut [u64], frames: u64) -> Vec<u64> {
    let mut parts = vec![0; loads.len()];
    let mut kept: Vec<usize> = (0..loads.len()).collect();
    if kept.is_empty() || frames == 0 {
        return parts;
    }
    let goal = |kept: &[usize]| kept.iter().map(|&r| loads[r]).sum::<u64>() + frames;
    // Without those above the mean it is lower, and others may be above it then.
    loop {
        let (total, ranks) = (goal(&kept), kept.len() as u64);
        let below: Vec<usize> =
            kept.iter().copied().filter(|&r| total > loads[r] * ranks).collect();
        if below.len() == kept.len() {
            break;
        }
        kept = below;
    }
    let (total, ranks) = (goal(&kept), kept.len() as u64);
    let mut rest = 0;
    for &rank in &kept {
        let missing = total - loads[rank] * ranks;
        parts[rank] = missing / ranks;
        rest += missing % ranks;
    }
    for &rank in kept.iter().rev().take((rest / ranks) as usize) {
        parts[rank] += 1;
    }
    for (load, part) in loads.iter_mut().zip(&parts) {
        *load += part;
    }
    parts
}

/// The parts of the workers.
#[derive(Debug)]
pub(super) struct Shares {
    workers: usize,
    patience: Duration,
    /// Names of the workers that share the scan, once they are settled, in their natural order.
    seats: Vec<Arc<str>>,
    loads: Vec<u64>,
    /// Where each run ends that goes to one worker, and to whom, by where it begins.
    runs: BTreeMap<u64, (u64, usize)>,
    /// First index that is not shared out yet.
    next: u64,
}

impl Shares {
    pub(super) fn new(workers: usize, patience: Duration) -> Self {
        Self {
            workers,
            patience,
            seats: Vec::new(),
            loads: Vec::new(),
            runs: BTreeMap::new(),
            next: 0,
        }
    }

    /// Settles who shares the scan, once all are there or have been waited for; tells whether it is.
    pub(super) fn settle<'a>(
        &mut self,
        names: impl Iterator<Item = &'a Arc<str>>,
        now: Duration,
    ) -> bool {
        if self.seats.is_empty() {
            let mut names: Vec<Arc<str>> = names.cloned().collect();
            if names.len() >= self.workers || (now >= self.patience && !names.is_empty()) {
                names.sort_by_cached_key(|name| natural(name));
                names.truncate(self.workers);
                self.loads = vec![0; names.len()];
                self.seats = names;
            }
        }
        !self.seats.is_empty()
    }

    pub(super) fn seats(&self) -> &[Arc<str>] {
        &self.seats
    }

    /// Returns whose an index is, and where the run ends in which it stands.
    ///
    /// `chunk`: frames of a chunk; `end`: of the scan.
    pub(super) fn owner(&mut self, index: u64, chunk: u64, end: u64) -> Option<(u64, &Arc<str>)> {
        while self.next <= index && self.next < end {
            let mut at = self.next;
            self.next = self.next.saturating_add(chunk.max(1)).min(end);
            for (seat, part) in assign(&mut self.loads, self.next - at).into_iter().enumerate() {
                if part > 0 {
                    self.runs.insert(at, (at + part, seat));
                }
                at += part;
            }
        }
        let (_, &(end, seat)) = self.runs.range(..=index).next_back()?;
        self.seats.get(seat).map(|name| (end, name))
    }

    /// Forgets what is below an index.
    pub(super) fn forget(&mut self, below: u64) {
        while let Some(run) = self.runs.first_entry().filter(|run| run.get().0 <= below) {
            run.remove();
        }
    }
}

/// Cuts a range where one worker's part ends and another's begins.
pub(super) fn cut(range: IndexRange, mut end_of: impl FnMut(u64) -> u64) -> Vec<IndexRange> {
    let (mut at, end) = (range.first.0, range.end());
    let mut cuts = Vec::new();
    while at < end {
        let next = end_of(at).clamp(at + 1, end);
        cuts.push(IndexRange::new(at, (next - at) as u32));
        at = next;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn over(ranks: usize, chunks: &[u64]) -> Vec<Vec<u64>> {
        let mut loads = vec![0; ranks];
        chunks.iter().map(|&n| assign(&mut loads, n)).collect()
    }

    #[test]
    fn ranks_get_what_ptypy_gave_them() {
        let chunks = [10, 10, 5, 1, 1, 7, 3];
        let two = [[5, 5], [5, 5], [2, 3], [1, 0], [0, 1], [4, 3], [1, 2]];
        let three = [[3, 3, 4], [3, 4, 3], [2, 1, 2], [0, 1, 0], [1, 0, 0], [2, 2, 3], [1, 1, 1]];
        let four = [
            [2, 2, 3, 3],
            [3, 3, 2, 2],
            [1, 1, 1, 2],
            [0, 0, 1, 0],
            [0, 1, 0, 0],
            [2, 1, 2, 2],
            [1, 1, 0, 1],
        ];
        assert_eq!(over(2, &chunks), two.map(Vec::from));
        assert_eq!(over(3, &chunks), three.map(Vec::from));
        assert_eq!(over(4, &chunks), four.map(Vec::from));
        assert_eq!(assign(&mut [0, 9, 0], 6), [3, 0, 3]);
        assert_eq!(assign(&mut [5, 0, 0, 1], 3), [0, 1, 1, 1]);
    }

    proptest! {
        #[test]
        fn all_frames_are_given_and_loads_come_nearer(
            mut loads in prop::collection::vec(0_u64..50, 1..9),
            frames in 0_u64..200,
        ) {
            let before = loads.clone();
            let parts = assign(&mut loads, frames);
            prop_assert_eq!(parts.iter().sum::<u64>(), frames);
            for (rank, part) in parts.iter().enumerate() {
                prop_assert_eq!(loads[rank], before[rank] + part);
            }
            // Who gets something ends no more than one above the others.
            let least = loads.iter().min().copied().unwrap_or_default();
            for (load, _) in loads.iter().zip(&parts).filter(|(_, part)| **part > 0) {
                prop_assert!(*load <= least + 1, "{:?} + {:?} = {:?}", before, parts, loads);
            }
        }

        #[test]
        fn every_index_has_one_owner(ranks in 1_usize..6, chunk in 1_u64..9, frames in 1_u64..60) {
            let names: Vec<Arc<str>> = (0..ranks).map(|r| format!("rank {r}").into()).collect();
            let mut shares = Shares::new(ranks, Duration::MAX);
            prop_assert!(!shares.settle(names[1..].iter(), Duration::ZERO));
            prop_assert!(shares.settle(names.iter().rev(), Duration::ZERO));
            let mut loads = vec![0; ranks];
            for start in (0..frames).step_by(chunk as usize) {
                let n = chunk.min(frames - start);
                let mut at = start;
                for (rank, part) in assign(&mut loads, n).into_iter().enumerate() {
                    for _ in 0..part {
                        let (end, name) = shares.owner(at, chunk, frames).expect("an owner");
                        prop_assert!(end > at && end <= start + n);
                        prop_assert_eq!(name, &names[rank]);
                        at += 1;
                    }
                }
                shares.forget(at);
            }
            prop_assert_eq!(shares.runs.len(), 0);
        }
    }

    #[test]
    fn those_who_are_there_begin_after_a_while() {
        let mut shares = Shares::new(3, Duration::from_secs(60));
        let name: Arc<str> = "w".into();
        assert!(!shares.settle([&name].into_iter(), Duration::from_secs(59)));
        assert!(!shares.settle([].into_iter(), Duration::from_secs(61)));
        assert!(shares.settle([&name].into_iter(), Duration::from_secs(61)));
        assert_eq!(shares.seats(), [name]);
    }
}
