//! Who gets which frames, and when: events in, actions out; no sockets, clocks or threads.
//!
//! Invariants:
//! - an index is handed out only below watermark + horizon, below what the source has, and below
//!   the scan's length;
//! - a worker never holds more tickets than it asked for;
//! - every index is in exactly one of: not yet handed out, waiting to be handed out again, held by
//!   a worker, accepted by the sink, declared a gap (and then acknowledged like a frame);
//! - a batch with gaps goes out only once the sink holds each of them: else the batch could come
//!   there before its gaps, and pass for whole;
//! - the lowest missing index that may go is always handed out first, so the horizon moves.

use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::PeerId;
use ptystream_common::message::batch_of;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Time since the scan began; always an argument, never read here.
pub type Now = Duration;

/// How the scan is cut into tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Frames of a ticket.
    pub batch: u32,
    /// Frames of a chunk of the file.
    pub frames_per_chunk: u32,
    /// Tickets that may be out at once over all workers: the producer's memory bound where it
    /// sends pixels.
    pub max_outstanding: usize,
    /// How long tickets of a worker that said goodbye may take to be accepted.
    pub orphan_grace: Duration,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand out these frames; rows of `gaps` are to be filled with nothing.
    Send {
        /// To whom.
        worker: PeerId,
        /// Which frames.
        range: IndexRange,
        /// Indices of the range for which no frame will come.
        gaps: Vec<Index>,
    },
}

/// Counts of what happened; `sent = accepted + outstanding + again + failed` at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tickets handed out, repeats included.
    pub sent: u64,
    /// Tickets handed out again after their worker was lost or the sink restarted.
    pub again: u64,
}

#[derive(Debug, Default)]
struct Worker {
    credit: u32,
    held: BTreeSet<u64>,
}

#[derive(Debug)]
struct Outstanding {
    range: IndexRange,
    holder: Option<PeerId>,
    /// Set when the holder has said goodbye.
    orphaned_at: Option<Now>,
}

/// The dispatcher of one scan.
#[derive(Debug)]
pub struct Dispatcher {
    cut: Cut,
    /// Number of scan points, once known.
    length: Option<u64>,
    /// Indices below this can be loaded.
    available: u64,
    horizon: u64,
    watermark: u64,
    /// First index that was never handed out.
    cursor: u64,
    again: BTreeMap<u64, IndexRange>,
    out: BTreeMap<u64, Outstanding>,
    accepted: IndexSet,
    gaps: IndexSet,
    workers: BTreeMap<PeerId, Worker>,
    /// Workers with credit, in the order in which they asked.
    waiting: VecDeque<PeerId>,
    counts: Counts,
    open: bool,
}

impl Dispatcher {
    /// Makes a dispatcher that hands out nothing until [`Self::opened`].
    pub fn new(cut: Cut, length: Option<u64>) -> Self {
        Self {
            cut,
            length,
            available: 0,
            horizon: 0,
            watermark: 0,
            cursor: 0,
            again: BTreeMap::new(),
            out: BTreeMap::new(),
            accepted: IndexSet::new(),
            gaps: IndexSet::new(),
            workers: BTreeMap::new(),
            waiting: VecDeque::new(),
            counts: Counts::default(),
            open: false,
        }
    }

    /// The sink's file is open: what is durable counts, everything else is to be sent (again).
    pub fn opened(&mut self, horizon: u64, durable: &IndexSet) -> Vec<Action> {
        self.open = true;
        self.horizon = horizon;
        self.accepted = durable.clone();
        self.watermark = durable.first_missing(0);
        for (first, ticket) in std::mem::take(&mut self.out) {
            if let Some(worker) = ticket.holder.and_then(|w| self.workers.get_mut(&w)) {
                worker.held.remove(&first);
            }
            self.again.insert(first, ticket.range);
        }
        // Everything below the cursor that is not durable goes again.
        let mut at = 0;
        while at < self.cursor {
            let range = self.batch(at);
            if !self.done(range) {
                self.again.insert(range.first.0, range);
            }
            at = range.end();
        }
        self.again.retain(|_, range| !durable.contains_all(range.first.0, range.end()));
        self.dispatch()
    }

    /// The connection to the sink is lost: nothing is handed out until [`Self::opened`].
    pub fn sink_lost(&mut self) {
        self.open = false;
    }

    /// Indices below `available` can be loaded; `length` is the scan's, once it is known.
    pub fn source_has(&mut self, available: u64, length: Option<u64>) -> Vec<Action> {
        self.available = self.available.max(available);
        if length.is_some() {
            self.length = length;
        }
        self.dispatch()
    }

    /// A worker asks for so many more tickets.
    pub fn want(&mut self, worker: PeerId, tickets: u32) -> Vec<Action> {
        let entry = self.workers.entry(worker).or_default();
        if entry.credit == 0 && tickets > 0 {
            self.waiting.push_back(worker);
        }
        entry.credit = entry.credit.saturating_add(tickets);
        self.dispatch()
    }

    /// A worker's connection is gone: its tickets go to others at once.
    pub fn worker_gone(&mut self, worker: PeerId) -> Vec<Action> {
        self.waiting.retain(|w| *w != worker);
        if let Some(gone) = self.workers.remove(&worker) {
            for first in gone.held {
                if let Some(ticket) = self.out.remove(&first) {
                    self.send_again(ticket.range);
                }
            }
        }
        self.dispatch()
    }

    /// A worker has said goodbye after its last result: its tickets go to others only if they are
    /// not accepted soon.
    pub fn worker_left(&mut self, worker: PeerId, now: Now) {
        self.waiting.retain(|w| *w != worker);
        if let Some(gone) = self.workers.remove(&worker) {
            for first in gone.held {
                if let Some(ticket) = self.out.get_mut(&first) {
                    ticket.holder = None;
                    ticket.orphaned_at = Some(now);
                }
            }
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        let grace = self.cut.orphan_grace;
        let late: Vec<u64> = self
            .out
            .iter()
            .filter(|(_, t)| t.orphaned_at.is_some_and(|at| now.saturating_sub(at) >= grace))
            .map(|(&first, _)| first)
            .collect();
        for first in late {
            if let Some(ticket) = self.out.remove(&first) {
                self.send_again(ticket.range);
            }
        }
        self.dispatch()
    }

    /// The sink's state: indices below `watermark` are durable, those of `accepted` are safe with it.
    pub fn state(&mut self, watermark: u64, accepted: &IndexSet) -> Vec<Action> {
        self.watermark = self.watermark.max(watermark);
        self.accepted.insert(0, watermark);
        for (start, end) in accepted.ranges() {
            self.accepted.insert(start, end);
        }
        let safe: Vec<u64> = self
            .out
            .iter()
            .filter(|(_, t)| self.accepted.contains_all(t.range.first.0, t.range.end()))
            .map(|(&first, _)| first)
            .collect();
        for first in safe {
            self.take_back(first);
        }
        let accepted = &self.accepted;
        self.again.retain(|_, range| !accepted.contains_all(range.first.0, range.end()));
        self.dispatch()
    }

    /// No frame will come for these indices. Their batch goes out again without them.
    ///
    /// Returns what to do and which of the indices were no gaps before: the caller tells the sink.
    pub fn declare_gap(&mut self, range: IndexRange) -> (Vec<Action>, Vec<Index>) {
        let new: Vec<Index> = range
            .iter()
            .filter(|i| !self.gaps.contains(i.0) && !self.accepted.contains(i.0))
            .collect();
        for index in &new {
            self.gaps.insert(index.0, index.0 + 1);
        }
        for index in range.iter() {
            let batch = self.batch(index.0);
            if let Some(ticket) = self.take_back(batch.first.0)
                && !self.done(ticket.range)
            {
                self.send_again(ticket.range);
            }
        }
        (self.dispatch(), new)
    }

    /// Tells whether every index of the scan is durable.
    pub fn is_complete(&self) -> bool {
        self.length.is_some_and(|n| self.watermark >= n)
    }

    /// Tells whether every index has been handed out or declared a gap at least once.
    pub fn all_sent(&self) -> bool {
        self.length.is_some_and(|n| self.cursor >= n)
    }

    /// Returns the gaps so far.
    pub fn gaps(&self) -> &IndexSet {
        &self.gaps
    }

    /// Returns how many indices the sink holds.
    pub fn accepted(&self) -> u64 {
        self.accepted.len()
    }

    /// Returns the first index that is not durable.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Returns the counts.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns how many tickets are out.
    pub fn outstanding(&self) -> usize {
        self.out.len()
    }

    /// Returns how many workers have asked for tickets and not left.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    fn end(&self) -> u64 {
        self.length.unwrap_or(u64::MAX)
    }

    fn batch(&self, index: u64) -> IndexRange {
        batch_of(Index(index), self.cut.batch, self.cut.frames_per_chunk, self.end())
    }

    /// Whether nothing of the range is to be sent: each index is safe or a gap.
    fn done(&self, range: IndexRange) -> bool {
        range.iter().all(|i| self.accepted.contains(i.0) || self.gaps.contains(i.0))
    }

    /// Whether the sink holds every gap of the range.
    fn gaps_are_told(&self, range: IndexRange) -> bool {
        range.iter().all(|i| !self.gaps.contains(i.0) || self.accepted.contains(i.0))
    }

    fn take_back(&mut self, first: u64) -> Option<Outstanding> {
        let ticket = self.out.remove(&first)?;
        if let Some(worker) = ticket.holder.and_then(|w| self.workers.get_mut(&w)) {
            worker.held.remove(&first);
        }
        Some(ticket)
    }

    fn send_again(&mut self, range: IndexRange) {
        if !self.done(range) {
            self.again.insert(range.first.0, range);
        }
    }

    /// The next range to hand out, lowest index first.
    fn next(&mut self) -> Option<(IndexRange, bool)> {
        let end = self.watermark.saturating_add(self.horizon);
        loop {
            let mut within = self.again.range(..end);
            let Some((&first, &range)) = within.find(|(_, r)| self.gaps_are_told(**r)) else {
                break;
            };
            self.again.remove(&first);
            if !self.done(range) {
                return Some((range, true));
            }
        }
        if self.again.range(end..).next().is_some() {
            return None;
        }
        loop {
            let limit = self.available.min(self.end());
            if self.cursor >= limit {
                return None;
            }
            let range = self.batch(self.cursor);
            let fits =
                range.end() <= limit && range.end() <= self.watermark.saturating_add(self.horizon);
            if !fits {
                return None;
            }
            self.cursor = range.end();
            if !self.gaps_are_told(range) {
                self.again.insert(range.first.0, range);
            } else if !self.done(range) {
                return Some((range, false));
            }
        }
    }

    fn dispatch(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        if !self.open {
            return actions;
        }
        while self.out.len() < self.cut.max_outstanding {
            let Some(&id) = self.waiting.front() else { break };
            let Some((range, again)) = self.next() else { break };
            let Some(worker) = self.workers.get_mut(&id) else {
                self.waiting.pop_front();
                self.again.insert(range.first.0, range);
                continue;
            };
            worker.credit -= 1;
            worker.held.insert(range.first.0);
            // Round robin: whoever got one goes to the end of the queue.
            self.waiting.pop_front();
            if worker.credit > 0 {
                self.waiting.push_back(id);
            }
            self.counts.sent += 1;
            self.counts.again += u64::from(again);
            self.out
                .insert(range.first.0, Outstanding { range, holder: Some(id), orphaned_at: None });
            let gaps = range.iter().filter(|i| self.gaps.contains(i.0)).collect();
            actions.push(Action::Send { worker: id, range, gaps });
        }
        actions
    }
}

#[cfg(test)]
mod tests;
