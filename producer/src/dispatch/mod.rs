//! Who gets which frames, and when: events in, actions out; no sockets, clocks or threads.
//!
//! A ticket names a *piece*: a run of indices of one batch that are neither safe nor gaps.
//!
//! Invariants:
//! - an index is handed out only below watermark + horizon, below what the source has, and below
//!   the scan's length;
//! - a worker never holds more tickets than it asked for;
//! - every index is in exactly one of: not yet handed out, waiting to be handed out (again), held
//!   by workers, accepted by the sink, declared a gap (and then acknowledged like a frame);
//! - no ticket names a gap or an index that is safe: a row filled with nothing could take the
//!   place of a frame that came by another way;
//! - a piece is held by three workers at most, and a suspect by none that holds anything else;
//! - what nobody else holds goes out lowest index first, so the horizon moves;
//! - under the policy `static` a new piece goes to its worker as long as that one is there.
//!
//! | what happens | what becomes of the tickets |
//! |---|---|
//! | a worker dies | they are suspects: each goes out alone; after a solo death frame by frame; three solo deaths make a gap |
//! | a worker says Hello anew | they go to others |
//! | a worker says goodbye | they go to others if they are not accepted soon |
//! | one takes far longer than usual | it goes to a second worker too, then to a third; the first result counts |
//! | three workers, or all there are, stand still over it | it is a gap, and they get nothing until they say something |
//! | pixels come damaged | they go again; after the eighth time they are a gap |
//! | the sink comes back with another epoch | what is not durable goes again |

mod board;
mod crew;
mod fate;
mod pick;
mod share;

use board::{Board, Hold, Piece};
use crew::Crew;
use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::PeerId;
use ptystream_common::message::batch_of;
pub use ptystream_common::report::{Counts, Tally};
pub use share::Policy;
use share::Shares;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Time since the scan began; always an argument, never read here.
pub type Now = Duration;

/// So many of the last tickets tell what is usual.
const RECENT: usize = 31;

/// How the scan is cut into tickets, and how long they may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Frames of a ticket.
    pub batch: u32,
    /// Frames of a chunk of the file.
    pub frames_per_chunk: u32,
    /// Pieces that may be out at once over all workers: the producer's memory bound where it
    /// sends pixels. Copies for second and third workers are not counted: a hung worker has the
    /// pixels already.
    pub max_outstanding: usize,
    /// How long tickets of a worker that said goodbye may take to be accepted.
    pub orphan_grace: Duration,
    /// After this, or ten times the usual time, a ticket is given to one more worker.
    pub straggler: Duration,
    /// After this, or ten times the usual time, a worker stands still.
    pub give_up: Duration,
    /// Who gets which frames.
    pub policy: Policy,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hand out these frames.
    Send {
        /// To whom.
        worker: PeerId,
        /// Which frames.
        range: IndexRange,
    },
    /// These frames have become gaps: tell the sink.
    Gap {
        /// Which frames.
        range: IndexRange,
        /// Why.
        reason: String,
    },
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
    /// First index that was never cut into pieces.
    cursor: u64,
    board: Board,
    crew: Crew,
    /// Who gets what, where it is settled beforehand.
    shares: Option<Shares>,
    accepted: IndexSet,
    gaps: IndexSet,
    /// Tickets whose worker has said goodbye: when, which, who.
    orphans: BTreeSet<(Now, u64, PeerId)>,
    /// How long the last tickets took from sending to acceptance.
    took: VecDeque<Duration>,
    /// What was not told yet.
    actions: Vec<Action>,
    counts: Counts,
    tallies: BTreeMap<String, Tally>,
    now: Now,
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
            board: Board::default(),
            crew: Crew::default(),
            shares: match cut.policy {
                Policy::Dynamic => None,
                Policy::Static { workers, patience } => Some(Shares::new(workers, patience)),
            },
            accepted: IndexSet::new(),
            gaps: IndexSet::new(),
            orphans: BTreeSet::new(),
            took: VecDeque::new(),
            actions: Vec::new(),
            counts: Counts::default(),
            tallies: BTreeMap::new(),
            now: Now::ZERO,
            open: false,
        }
    }

    /// The sink has opened the file in a new epoch: what is durable counts, everything else is to
    /// be sent (again), and workers ask anew.
    pub fn opened(&mut self, horizon: u64, durable: &IndexSet) -> Vec<Action> {
        self.open = true;
        self.horizon = horizon;
        self.accepted = durable.clone();
        self.watermark = durable.first_missing(0);
        self.crew.begin_anew(self.now);
        self.orphans.clear();
        let known: Vec<u64> = self.board.iter().map(|p| p.range.first.0).collect();
        for first in known {
            self.take_back_all(first);
            self.put_back(first);
        }
        // What was accepted and is not durable is lost.
        let mut at = durable.first_missing(0);
        while at < self.cursor {
            let range = self.batch(at);
            let unknown = |index| self.board.touching(index, index + 1).is_empty();
            for run in runs(range, |index| self.is_missing(index) && unknown(index)) {
                self.file(Piece { again: true, ..Piece::new(run) });
            }
            at = durable.first_missing(range.end());
        }
        self.dispatch()
    }

    /// The same sink is back with the same epoch, and has lost nothing.
    pub fn reopened(&mut self, horizon: u64, durable: &IndexSet) -> Vec<Action> {
        self.open = true;
        self.horizon = horizon;
        // Nothing could be accepted meanwhile.
        for worker in self.crew.workers.values_mut() {
            worker.moved = self.now;
        }
        self.state(durable.first_missing(0), durable)
    }

    /// The connection to the sink is lost: nothing is handed out until [`Self::opened`] or
    /// [`Self::reopened`].
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

    /// A worker says Hello: for the first time, or anew because it has dropped what it held.
    pub fn worker_joined(&mut self, worker: PeerId, name: &str) -> Vec<Action> {
        self.take_back(worker);
        self.crew.join(worker, name, self.now);
        self.dispatch()
    }

    /// A worker asks for so many more tickets.
    pub fn want(&mut self, worker: PeerId, tickets: u32) -> Vec<Action> {
        self.heard(worker);
        self.crew.want(worker, tickets);
        self.dispatch()
    }

    /// A worker has said something: it does not stand still.
    pub fn heard(&mut self, worker: PeerId) {
        if let Some(worker) = self.crew.workers.get_mut(&worker) {
            worker.moved = self.now;
            worker.stuck = false;
        }
    }

    /// Pixels of these frames came damaged: raw ones at `worker`, prepared ones at the sink (`None`).
    pub fn damaged(&mut self, range: IndexRange, worker: Option<PeerId>) -> Vec<Action> {
        if let Some(worker) = worker {
            self.heard(worker);
        }
        self.take_back_damaged(range, worker);
        self.dispatch()
    }

    /// A ticket could not be sent: the worker gets nothing until the link says what became of it.
    pub fn unsent(&mut self, worker: PeerId) {
        self.crew.mute(worker);
    }

    /// A worker's connection is gone without a goodbye: what it held is suspect.
    pub fn worker_gone(&mut self, worker: PeerId) -> Vec<Action> {
        self.died(worker);
        self.dispatch()
    }

    /// A worker has said goodbye after its last result: its tickets go to others only if they are
    /// not accepted soon.
    pub fn worker_left(&mut self, worker: PeerId) {
        let now = self.now;
        let Some(gone) = self.crew.leave(worker) else { return };
        for first in gone.held.into_values() {
            let blocked = self.is_blocked(first);
            self.board.change(first, blocked, |piece| {
                for hold in piece.holds.iter_mut().filter(|h| h.worker == worker) {
                    hold.left = Some(now);
                }
            });
            self.orphans.insert((now, first, worker));
        }
    }

    /// Time passes.
    pub fn tick(&mut self, now: Now) -> Vec<Action> {
        self.now = self.now.max(now);
        if self.open {
            while let Some(&(left, first, worker)) = self.orphans.first() {
                if self.now.saturating_sub(left) < self.cut.orphan_grace {
                    break;
                }
                self.orphans.pop_first();
                self.lose(first, worker);
                self.put_back(first);
            }
            self.give_up();
        }
        self.dispatch()
    }

    /// The sink's state: indices below `watermark` are durable, those of `accepted` are safe with it.
    pub fn state(&mut self, watermark: u64, accepted: &IndexSet) -> Vec<Action> {
        self.watermark = self.watermark.max(watermark);
        if let Some(shares) = &mut self.shares {
            shares.forget(self.watermark);
        }
        self.accept(0, watermark);
        for (start, end) in accepted.ranges() {
            self.accept(start, end);
        }
        self.dispatch()
    }

    /// No frame will come for these indices. The rest of their batch goes out again.
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
        for first in self.board.touching(range.first.0, range.end()) {
            self.fail(first);
        }
        (self.dispatch(), new)
    }

    /// Tells whether every index of the scan is durable.
    pub fn is_complete(&self) -> bool {
        self.length.is_some_and(|n| self.watermark >= n)
    }

    /// Tells whether every index has been cut into tickets or declared a gap at least once.
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

    /// Tells whether the sink holds any index that is no gap.
    pub fn has_frames(&self) -> bool {
        let told = |(start, end): (u64, u64)| {
            (start..end).filter(|&index| self.accepted.contains(index)).count() as u64
        };
        self.accepted.len() > self.gaps.ranges().map(told).sum::<u64>()
    }

    /// Returns the first index that is not durable.
    pub fn watermark(&self) -> u64 {
        self.watermark
    }

    /// Returns the counts.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns the counts of each worker, by its name.
    pub fn by_worker(&self) -> &BTreeMap<String, Tally> {
        &self.tallies
    }

    /// Returns the workers that share the scan by the policy `static`, once they are settled.
    pub fn seats(&self) -> &[Arc<str>] {
        self.shares.as_ref().map_or(&[], Shares::seats)
    }

    /// Returns how many pieces are held.
    pub fn outstanding(&self) -> usize {
        self.board.out()
    }

    /// Lists the workers that hold tickets, and how many.
    pub fn holders(&self) -> Vec<(String, usize)> {
        let holding = self.crew.workers.values().filter(|w| !w.held.is_empty());
        holding.map(|w| (w.name.to_string(), w.held.len())).collect()
    }

    /// Tells whether there are workers and all have been given up.
    pub fn all_stuck(&self) -> bool {
        !self.crew.workers.is_empty() && self.crew.workers.values().all(|w| w.stuck)
    }

    fn end(&self) -> u64 {
        self.length.unwrap_or(u64::MAX)
    }

    fn batch(&self, index: u64) -> IndexRange {
        batch_of(Index(index), self.cut.batch, self.cut.frames_per_chunk, self.end())
    }

    fn is_missing(&self, index: u64) -> bool {
        !self.accepted.contains(index) && !self.gaps.contains(index)
    }

    /// Returns the runs of a range that are neither safe nor gaps.
    fn missing(&self, range: IndexRange) -> Vec<IndexRange> {
        runs(range, |index| self.is_missing(index))
    }

    /// Whether the sink lacks a gap of this index's batch. All failures of a ticket have come by
    /// the time that it holds the first, so that the rest goes out once.
    fn is_blocked(&self, index: u64) -> bool {
        let untold = |i: Index| self.gaps.contains(i.0) && !self.accepted.contains(i.0);
        !self.gaps.is_empty() && self.batch(index).iter().any(untold)
    }

    fn file(&mut self, piece: Piece) {
        let blocked = self.is_blocked(piece.range.first.0);
        self.board.file(piece, blocked);
    }

    /// Takes in that `[start, end)` is safe; the cost is that of what is new.
    fn accept(&mut self, start: u64, end: u64) {
        if self.accepted.contains_all(start, end) {
            return;
        }
        self.accepted.insert(start, end);
        for first in self.board.touching(start, end) {
            let Some(piece) = self.board.get(first) else { continue };
            if self.missing(piece.range).is_empty() {
                self.settle(first);
            } else if piece.holds.is_empty() {
                self.put_back(first);
            }
        }
        // The last batch that the range touches may go on beyond it.
        let last = self.batch(end - 1).end();
        let from = self.batch(start).first.0;
        let free: Vec<u64> = self.board.blocked.range(from..last.max(from)).copied().collect();
        for first in free {
            self.put_back(first);
        }
    }

    fn tally(&mut self, name: &str, count: impl Fn(&mut Tally)) {
        count(&mut self.counts.tickets);
        match self.tallies.get_mut(name) {
            Some(tally) => count(tally),
            None => count(self.tallies.entry(name.to_owned()).or_default()),
        }
    }
}

/// Returns the runs of a range's indices that `are` so.
fn runs(range: IndexRange, are: impl Fn(u64) -> bool) -> Vec<IndexRange> {
    let mut runs: Vec<IndexRange> = Vec::new();
    for index in range.iter().filter(|i| are(i.0)) {
        match runs.last_mut() {
            Some(run) if run.end() == index.0 => run.count += 1,
            _ => runs.push(IndexRange { first: index, count: 1 }),
        }
    }
    runs
}

#[cfg(test)]
mod tests;
