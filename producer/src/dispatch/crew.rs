//! The workers as the dispatcher sees them: what each may get, what it holds, whether it moves.

use super::Now;
use ptystream_common::link::PeerId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A worker that is connected.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: Arc<str>,
    pub(super) credit: u32,
    /// The number of each ticket that it holds, and its piece: workers do them in this order.
    pub(super) held: BTreeMap<u64, u64>,
    /// Whether it holds a suspect and is to get nothing else.
    pub(super) alone: bool,
    /// Whether it has been given up; until it says something it gets nothing.
    pub(super) stuck: bool,
    /// When it last said something or came to its present ticket.
    pub(super) moved: Now,
}

impl Worker {
    fn new(name: &str, now: Now) -> Self {
        let name = name.into();
        Self { name, credit: 0, held: BTreeMap::new(), alone: false, stuck: false, moved: now }
    }

    /// Tells whether it has stood still for longer than `limit` where it should not.
    pub(super) fn is_overdue(&self, now: Now, limit: Duration) -> bool {
        now.saturating_sub(self.moved) > limit && (self.credit == 0 || !self.held.is_empty())
    }

    /// Tells whether it may get a ticket of an ordinary piece.
    pub(super) fn may_get(&self) -> bool {
        self.credit > 0 && !self.alone && !self.stuck
    }

    /// Takes a ticket back.
    pub(super) fn relieve(&mut self, ticket: u64, now: Now) {
        let front = self.held.keys().next() == Some(&ticket);
        self.held.remove(&ticket);
        self.alone &= !self.held.is_empty();
        if front {
            self.moved = now;
        }
    }
}

/// All workers that are connected.
#[derive(Debug, Default)]
pub(super) struct Crew {
    pub(super) workers: BTreeMap<PeerId, Worker>,
    /// Workers with credit, in the order of their turn.
    pub(super) turn: VecDeque<PeerId>,
}

impl Crew {
    /// A worker joins, or begins anew: what it asked for before is void.
    pub(super) fn join(&mut self, peer: PeerId, name: &str, now: Now) {
        self.turn.retain(|w| *w != peer);
        self.workers.insert(peer, Worker::new(name, now));
    }

    pub(super) fn leave(&mut self, peer: PeerId) -> Option<Worker> {
        self.turn.retain(|w| *w != peer);
        self.workers.remove(&peer)
    }

    /// A worker asks for so many more tickets.
    pub(super) fn want(&mut self, peer: PeerId, tickets: u32) {
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        if worker.credit == 0 && tickets > 0 {
            self.turn.push_back(peer);
        }
        worker.credit = worker.credit.saturating_add(tickets);
    }

    /// What a worker asked for is void.
    pub(super) fn mute(&mut self, peer: PeerId) {
        self.turn.retain(|w| *w != peer);
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.credit = 0;
        }
    }

    /// What everybody asked for is void, and nobody holds anything.
    pub(super) fn begin_anew(&mut self, now: Now) {
        self.turn.clear();
        for worker in self.workers.values_mut() {
            worker.credit = 0;
            worker.held.clear();
            worker.alone = false;
            worker.moved = now;
        }
    }

    /// Gives a worker a ticket: whoever got one goes to the end of the turn.
    pub(super) fn give(&mut self, peer: PeerId, ticket: u64, first: u64, alone: bool, now: Now) {
        let Some(worker) = self.workers.get_mut(&peer) else { return };
        worker.credit = worker.credit.saturating_sub(1);
        if worker.held.is_empty() {
            worker.moved = now;
        }
        worker.held.insert(ticket, first);
        worker.alone = alone;
        self.turn.retain(|w| *w != peer);
        if worker.credit > 0 {
            self.turn.push_back(peer);
        }
    }

    /// Returns those in turn that hold nothing and may get something.
    pub(super) fn idle(&self) -> Vec<PeerId> {
        let idle = |peer: &PeerId| {
            self.workers.get(peer).is_some_and(|w| w.held.is_empty() && w.may_get())
        };
        self.turn.iter().copied().filter(idle).collect()
    }

    /// Chooses workers that get nothing until they hold nothing, so that `wanted` suspects can go
    /// out alone: those with the least to do, and never more than half of all at once.
    pub(super) fn reserve(&self, wanted: usize) -> Vec<PeerId> {
        let alone = self.workers.values().filter(|w| w.alone).count();
        let able = self.workers.values().filter(|w| !w.stuck).count();
        let most = (able / 2).max(1).saturating_sub(alone);
        let free = |(_, w): &(&PeerId, &Worker)| !w.alone && !w.stuck;
        let mut free: Vec<(usize, PeerId)> =
            self.workers.iter().filter(free).map(|(&peer, w)| (w.held.len(), peer)).collect();
        free.sort_unstable();
        free.into_iter().take(wanted.min(most)).map(|(_, peer)| peer).collect()
    }
}
