//! How many results each worker may have on its way: the sink's bound in memory.
//!
//! Every worker always has at least one, so that whoever holds the lowest missing index can send
//! it; beyond that all together have `slots`. A worker is given more once half of its window is
//! used up, not one by one: each message wakes threads on both sides.
//!
//! What a worker left in memory counts until it is written, even if the worker is gone: else workers
//! that come and go in front of a slow disk would fill the memory.

use ptystream_common::link::PeerId;
use std::collections::BTreeMap;

/// Grants to send results.
#[derive(Debug)]
pub struct CreditBook {
    slots: usize,
    window: usize,
    granted: BTreeMap<PeerId, usize>,
    /// Results in memory, by whom they came from.
    kept: BTreeMap<PeerId, usize>,
}

impl CreditBook {
    /// Makes a book of `slots` results in memory, at most `window` of one worker.
    pub fn new(slots: usize, window: usize) -> Self {
        Self {
            slots: slots.max(1),
            window: window.max(1),
            granted: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// A worker joins with no grant.
    pub fn join(&mut self, worker: PeerId) {
        self.granted.entry(worker).or_insert(0);
    }

    /// A worker is gone; its grants are free again, but for what is in memory.
    pub fn leave(&mut self, worker: PeerId) {
        self.granted.remove(&worker);
    }

    /// A worker's result stays in memory until [`Self::written`].
    pub fn kept(&mut self, worker: PeerId) {
        *self.kept.entry(worker).or_insert(0) += 1;
    }

    /// A result that was kept has left memory.
    pub fn written(&mut self, worker: PeerId) {
        if let Some(kept) = self.kept.get_mut(&worker) {
            *kept -= 1;
            if *kept == 0 {
                self.kept.remove(&worker);
            }
        }
        self.returned(worker);
    }

    /// All results that were kept have left memory, written or not.
    pub fn all_left(&mut self) {
        for (worker, results) in std::mem::take(&mut self.kept) {
            (0..results).for_each(|_| self.returned(worker));
        }
    }

    /// A worker's result was not kept.
    pub fn returned(&mut self, worker: PeerId) {
        if let Some(granted) = self.granted.get_mut(&worker) {
            *granted = granted.saturating_sub(1);
        }
    }

    /// Hands out what is free: the worker with the fewest grants first.
    pub fn grants(&mut self) -> Vec<(PeerId, u32)> {
        if self.granted.values().all(|&granted| granted > self.window / 2) {
            return Vec::new();
        }
        let before = self.granted.clone();
        loop {
            let used = self.in_flight();
            let living = self.granted.len();
            let Some((_, granted)) = self.granted.iter_mut().min_by_key(|(_, g)| **g) else {
                break;
            };
            // Its first does not wait for a slot, but for what those who are gone have left.
            let free = match *granted {
                0 => used < self.slots + living,
                _ => used < self.slots && *granted < self.window,
            };
            if !free {
                break;
            }
            *granted += 1;
        }
        let more = |(peer, now): (&PeerId, &usize)| {
            let had = before.get(peer).copied().unwrap_or(0);
            (*now > had).then_some((*peer, (*now - had) as u32))
        };
        self.granted.iter().filter_map(more).collect()
    }

    /// Returns how many results may be in memory or on their way.
    pub fn in_flight(&self) -> usize {
        let gone = self.kept.iter().filter(|(peer, _)| !self.granted.contains_key(peer));
        self.granted.values().sum::<usize>() + gone.map(|(_, kept)| kept).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everybody_gets_one_even_when_slots_are_few() {
        let mut book = CreditBook::new(1, 4);
        for peer in 0..3 {
            book.join(PeerId(peer));
        }
        assert_eq!(book.grants(), [(PeerId(0), 1), (PeerId(1), 1), (PeerId(2), 1)]);
        assert!(book.grants().is_empty());
    }

    #[test]
    fn what_a_dead_worker_left_in_memory_counts_until_it_is_written() {
        let mut book = CreditBook::new(2, 2);
        for peer in 0..9 {
            book.join(PeerId(peer));
            for _ in 0..book.grants().iter().map(|(_, n)| *n).sum() {
                book.kept(PeerId(peer));
            }
            book.leave(PeerId(peer));
        }
        assert_eq!(book.in_flight(), 3, "two slots and one for a worker");
        book.join(PeerId(9));
        assert!(book.grants().is_empty());
        book.written(PeerId(0));
        assert_eq!(book.grants(), [(PeerId(9), 1)]);
    }

    proptest! {
        #[test]
        fn stays_within_slots_and_windows(
            slots in 1usize..20, window in 1usize..6,
            steps in proptest::collection::vec((0u8..3, 0u64..6), 0..100),
        ) {
            let mut book = CreditBook::new(slots, window);
            let mut model: BTreeMap<u64, usize> = BTreeMap::new();
            for (what, peer) in steps {
                match what {
                    0 => { book.join(PeerId(peer)); model.entry(peer).or_insert(0); }
                    1 => { book.leave(PeerId(peer)); model.remove(&peer); }
                    _ => if let Some(g) = model.get_mut(&peer) && *g > 0 {
                        *g -= 1;
                        book.returned(PeerId(peer));
                    },
                }
                for (peer, count) in book.grants() {
                    *model.entry(peer.0).or_insert(0) += count as usize;
                }
                let total: usize = model.values().sum();
                prop_assert_eq!(total, book.in_flight());
                prop_assert!(total <= slots + model.len());
                prop_assert!(model.values().all(|g| (1..=window).contains(g)));
            }
        }
    }
}
