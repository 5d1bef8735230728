//! Handing out: which piece goes next, and to whom.
//!
//! In this order, as long as a worker has asked:
//! 1. suspects, each to a worker that holds nothing; where none is idle, some get nothing else
//!    until they are: a suspect may well be the lowest missing index;
//! 2. what waits to go again, and copies of what is late, lowest index first: before anything new,
//!    because the lowest missing index holds up the horizon and live readers with it;
//! 3. new frames.

use super::board::{Hold, Piece};
use super::{Action, Dispatcher, Now, RECENT, share};
use ptystream_common::index::IndexRange;
use ptystream_common::link::PeerId;
use std::time::Duration;

impl Dispatcher {
    pub(super) fn dispatch(&mut self) -> Vec<Action> {
        if self.open && self.is_settled() {
            self.find_late();
            let reserved = self.hand_out_suspects();
            self.hand_out(&reserved);
        }
        std::mem::take(&mut self.actions)
    }

    /// Tells whether it is known who shares the scan.
    fn is_settled(&mut self) -> bool {
        let names = self.crew.workers.values().map(|w| &w.name);
        self.shares.as_mut().is_none_or(|shares| shares.settle(names, self.now))
    }

    /// Tells whether a piece may go to a worker: if it is its own, or nobody's who is there, or has
    /// been handed out before.
    fn is_for(&mut self, first: u64, worker: PeerId) -> bool {
        let (chunk, end) = (u64::from(self.cut.frames_per_chunk), self.end());
        let Some(shares) = &mut self.shares else { return true };
        let Some((_, owner)) = shares.owner(first, chunk, end) else { return true };
        let mut owners = self.crew.workers.iter().filter(|(_, w)| w.name == *owner && !w.stuck);
        let again = self.board.get(first).is_some_and(|p| p.again);
        again || owners.next().is_none_or(|(id, _)| *id == worker)
    }

    /// The lowest piece that waits and may go to a worker.
    fn waiting_for(&mut self, worker: PeerId) -> Option<u64> {
        if self.shares.is_none() {
            return self.board.queue.first().copied();
        }
        let waiting: Vec<u64> = self.board.queue.iter().copied().collect();
        waiting.into_iter().find(|&first| self.is_for(first, worker))
    }

    /// Ten times the usual time of a ticket, but not less than `least`.
    pub(super) fn patience(&self, least: Duration) -> Duration {
        let mut took: Vec<Duration> = self.took.iter().copied().collect();
        let middle = took.len() / 2;
        match took.is_empty() {
            true => least,
            false => least.max(*took.select_nth_unstable(middle).1 * 10),
        }
    }

    pub(super) fn remember(&mut self, sent: Now) {
        if self.took.len() == RECENT {
            self.took.pop_front();
        }
        self.took.push_back(self.now.saturating_sub(sent));
    }

    fn find_late(&mut self) {
        let least = self.cut.straggler;
        let Some(before) = self.now.checked_sub(least) else { return };
        if self.board.oldest().is_some_and(|sent| sent <= before)
            && let Some(before) = self.now.checked_sub(self.patience(least))
        {
            self.board.find_late(before);
        }
    }

    /// The index that nothing handed out may reach.
    fn limit(&self) -> u64 {
        self.watermark.saturating_add(self.horizon)
    }

    fn is_within(&self, first: u64) -> bool {
        self.board.get(first).is_some_and(|p| p.range.end() <= self.limit())
    }

    fn has_room(&self) -> bool {
        self.board.out() < self.cut.max_outstanding
    }

    fn is_suspect(&self, first: u64) -> bool {
        self.board.get(first).is_some_and(|p| p.suspect)
    }

    /// Returns the workers that get nothing else for the sake of suspects that are left.
    fn hand_out_suspects(&mut self) -> Vec<PeerId> {
        let late = self.board.late.iter().copied().filter(|&first| self.is_suspect(first));
        let mut waiting: Vec<u64> = self.board.suspects.iter().copied().chain(late).collect();
        if waiting.is_empty() {
            return Vec::new();
        }
        waiting.sort_unstable();
        waiting.retain(|&first| self.is_within(first));
        let mut idle = self.crew.idle().into_iter();
        let mut left = 0;
        for first in waiting {
            let room = self.board.late.contains(&first) || self.has_room();
            // Without room nobody is kept free: those who could make room by a copy of what hangs
            // would wait for it themselves.
            if !room {
                continue;
            }
            match idle.next() {
                Some(worker) => self.give(worker, first, true),
                None => left += 1,
            }
        }
        self.crew.reserve(left)
    }

    fn hand_out(&mut self, reserved: &[PeerId]) {
        let mut at = 0;
        while let Some(&worker) = self.crew.turn.get(at) {
            let may = self.crew.workers.get(&worker).is_some_and(|w| w.may_get());
            match (may && !reserved.contains(&worker)).then(|| self.next(worker)).flatten() {
                // It has moved to the end of the turn.
                Some(first) => self.give(worker, first, false),
                None => at += 1,
            }
        }
    }

    /// The piece that a worker is to get next.
    fn next(&mut self, worker: PeerId) -> Option<u64> {
        let room = self.has_room();
        let waiting = self.waiting_for(worker).filter(|_| room);
        let copy = |first: &u64| {
            self.board.get(*first).is_some_and(|p| !p.suspect && !p.is_held_by(worker))
        };
        let late = self.board.late.iter().copied().find(copy);
        let first = match (waiting, late) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        match first {
            Some(first) => Some(first).filter(|&first| self.is_within(first)),
            None if room => self.cut_next(worker),
            None => None,
        }
    }

    /// Cuts batches into pieces until there is one for a worker.
    fn cut_next(&mut self, worker: PeerId) -> Option<u64> {
        loop {
            let first = self.waiting_for(worker);
            if first.is_some() {
                return first;
            }
            let limit = self.available.min(self.end());
            if self.cursor >= limit {
                return None;
            }
            let range = self.batch(self.cursor);
            if range.end() > limit.min(self.limit()) {
                return None;
            }
            self.cursor = range.end();
            for run in self.missing(range) {
                for part in self.by_owner(run) {
                    self.file(Piece::new(part));
                }
            }
        }
    }

    /// Cuts a run of indices so that each part is one worker's.
    fn by_owner(&mut self, run: IndexRange) -> Vec<IndexRange> {
        let (chunk, end) = (u64::from(self.cut.frames_per_chunk), self.end());
        match &mut self.shares {
            None => vec![run],
            Some(shares) => share::cut(run, |at| {
                shares.owner(at, chunk, end).map_or(run.end(), |(until, _)| until)
            }),
        }
    }

    fn give(&mut self, worker: PeerId, first: u64, alone: bool) {
        let Some(name) = self.crew.workers.get(&worker).map(|w| w.name.clone()) else { return };
        let Some(mut piece) = self.board.remove(first) else { return };
        let ticket = self.counts.tickets.sent;
        let now = self.now;
        self.counts.again += u64::from(piece.again && piece.holds.is_empty());
        self.counts.doubled += u64::from(!piece.holds.is_empty());
        self.counts.frames_again += if piece.again { u64::from(piece.range.count) } else { 0 };
        piece.again = true;
        piece.holds.push(Hold { worker, name: name.clone(), ticket, sent: now, left: None });
        self.actions.push(Action::Send { worker, range: piece.range });
        self.board.file(piece, false);
        self.crew.give(worker, ticket, first, alone, now);
        self.tally(&name, |t| {
            t.sent += 1;
            t.held += 1;
        });
    }
}
