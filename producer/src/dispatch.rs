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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn cut(batch: u32, fpc: u32) -> Cut {
        Cut {
            batch,
            frames_per_chunk: fpc,
            max_outstanding: usize::MAX,
            orphan_grace: Duration::from_secs(5),
        }
    }

    fn sends(actions: &[Action]) -> Vec<(u64, IndexRange)> {
        actions.iter().map(|Action::Send { worker, range, .. }| (worker.0, *range)).collect()
    }

    #[test]
    fn hands_out_nothing_before_the_file_is_open_nor_beyond_the_horizon() {
        let mut d = Dispatcher::new(cut(1, 4), Some(20));
        assert!(d.source_has(20, None).is_empty());
        assert!(d.want(PeerId(1), 100).is_empty());
        assert_eq!(d.opened(8, &IndexSet::new()).len(), 8);
        assert_eq!(d.state(4, &IndexSet::new()).len(), 4);
    }

    #[test]
    fn a_lost_workers_tickets_go_to_another_lowest_first() {
        let mut d = Dispatcher::new(cut(2, 4), Some(8));
        d.source_has(8, None);
        d.opened(8, &IndexSet::new());
        assert_eq!(sends(&d.want(PeerId(1), 2)).len(), 2);
        assert!(d.worker_gone(PeerId(1)).is_empty());
        let again = sends(&d.want(PeerId(2), 3));
        let firsts: Vec<u64> = again.iter().map(|(_, r)| r.first.0).collect();
        assert_eq!(firsts, [0, 2, 4]);
        assert_eq!(d.counts(), Counts { sent: 5, again: 2 });
    }

    #[test]
    fn a_gap_inside_a_batch_sends_the_rest_again() {
        let mut d = Dispatcher::new(cut(4, 4), Some(4));
        d.source_has(4, None);
        d.opened(8, &IndexSet::new());
        d.want(PeerId(1), 2);
        let (actions, new) = d.declare_gap(IndexRange::new(2, 1));
        assert_eq!(new, [Index(2)]);
        assert!(actions.is_empty(), "the sink does not know of the gap yet");
        let mut told = IndexSet::new();
        told.insert(2, 3);
        assert_eq!(
            d.state(0, &told),
            [Action::Send {
                worker: PeerId(1),
                range: IndexRange::new(0, 4),
                gaps: vec![Index(2)]
            }]
        );
        assert!(d.declare_gap(IndexRange::new(2, 1)).1.is_empty(), "declared once");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Want(u8, u8),
        Deliver(u8),
        Publish,
        Die(u8),
        Leave(u8),
        Fail(u8),
        SinkRestart,
        Tick,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u8..4, 1u8..4).prop_map(|(w, n)| Step::Want(w, n)),
            6 => any::<u8>().prop_map(Step::Deliver),
            2 => Just(Step::Publish),
            1 => (0u8..4).prop_map(Step::Die),
            1 => (0u8..4).prop_map(Step::Leave),
            1 => any::<u8>().prop_map(Step::Fail),
            1 => Just(Step::SinkRestart),
            1 => Just(Step::Tick),
        ]
    }

    /// A sink that keeps sets, workers that hold lists: the simple model.
    struct Model {
        n: u64,
        fpc: u64,
        horizon: u64,
        accepted: BTreeSet<u64>,
        watermark: u64,
        gaps: BTreeSet<u64>,
        credit: HashMap<u64, i64>,
        held: Vec<(u64, IndexRange)>,
    }

    impl Model {
        fn take(&mut self, actions: Vec<Action>) {
            for Action::Send { worker, range, gaps } in actions {
                let credit = self.credit.get_mut(&worker.0).unwrap();
                *credit -= 1;
                assert!(*credit >= 0, "more tickets than asked for");
                assert!(range.end() <= self.watermark + self.horizon, "beyond the horizon");
                assert!(range.end() <= self.n);
                assert_eq!(range.first.0 / self.fpc, (range.end() - 1) / self.fpc, "one chunk");
                assert!(
                    range.iter().any(|i| !self.accepted.contains(&i.0)),
                    "sent though safe: {range}"
                );
                let told: BTreeSet<u64> = gaps.iter().map(|i| i.0).collect();
                let real: BTreeSet<u64> =
                    range.iter().map(|i| i.0).filter(|i| self.gaps.contains(i)).collect();
                assert_eq!(told, real);
                assert!(told.is_subset(&self.accepted), "sent before the sink held its gaps");
                assert!(
                    !self.held.iter().any(|(w, r)| *r == range && self.credit.contains_key(w)),
                    "held twice by living workers: {range}"
                );
                self.held.push((worker.0, range));
            }
        }

        fn accepted_set(&self) -> IndexSet {
            let mut set = IndexSet::new();
            for &i in &self.accepted {
                set.insert(i, i + 1);
            }
            set
        }

        /// Whole chunks from the front become durable.
        fn publish(&mut self) {
            loop {
                let end = (self.watermark + self.fpc).min(self.n);
                let whole = (self.watermark..end).all(|i| self.accepted.contains(&i));
                if self.watermark >= self.n || !whole {
                    return;
                }
                self.watermark = end;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]
        #[test]
        fn every_index_arrives_whatever_happens(
            n in 1u64..40, fpc in 1u32..9, batch in 1u32..5, chunks in 2u64..4,
            steps in proptest::collection::vec(step(), 0..150),
        ) {
            let batch = batch.min(fpc);
            let horizon = chunks * u64::from(fpc);
            let mut d = Dispatcher::new(cut(batch, fpc), Some(n));
            let mut m = Model { n, fpc: u64::from(fpc), horizon, accepted: BTreeSet::new(),
                watermark: 0, gaps: BTreeSet::new(), credit: HashMap::new(), held: Vec::new() };
            let mut peers: Vec<u64> = (0..4).collect();
            let mut fresh = 4;
            let mut now = Duration::ZERO;
            m.take(d.source_has(n, None));
            m.take(d.opened(horizon, &IndexSet::new()));
            let finish = (0..).map(|i| match i % 7 {
                0..=2 => Step::Want((i % 4) as u8, 2), 3 | 4 => Step::Deliver(i as u8),
                5 => Step::Publish, _ => Step::Tick });
            for (turn, step) in steps.into_iter().chain(finish).enumerate() {
                now += Duration::from_secs(1);
                match step {
                    Step::Want(w, k) => {
                        let peer = peers[w as usize];
                        *m.credit.entry(peer).or_default() += i64::from(k);
                        m.take(d.want(PeerId(peer), u32::from(k)));
                    }
                    Step::Deliver(pick) => if !m.held.is_empty() {
                        let (_, range) = m.held.remove(pick as usize % m.held.len());
                        for i in range.iter() { m.accepted.insert(i.0); }
                        let set = m.accepted_set();
                        m.take(d.state(m.watermark, &set));
                    },
                    Step::Publish => {
                        m.publish();
                        let set = m.accepted_set();
                        m.take(d.state(m.watermark, &set));
                    }
                    Step::Die(w) => {
                        let peer = std::mem::replace(&mut peers[w as usize], fresh);
                        fresh += 1;
                        m.held.retain(|(p, _)| *p != peer);
                        m.credit.remove(&peer);
                        m.take(d.worker_gone(PeerId(peer)));
                    }
                    Step::Leave(w) => {
                        // Says goodbye; its results are on their way and may still arrive.
                        let peer = std::mem::replace(&mut peers[w as usize], fresh);
                        fresh += 1;
                        m.credit.remove(&peer);
                        d.worker_left(PeerId(peer), now);
                    }
                    Step::Fail(pick) => if !m.held.is_empty() && m.gaps.len() < 5 {
                        let (_, range) = m.held.remove(pick as usize % m.held.len());
                        let bad = IndexRange::new(range.first.0, 1);
                        if !m.accepted.contains(&bad.first.0) { m.gaps.insert(bad.first.0); }
                        let (actions, new) = d.declare_gap(bad);
                        m.take(actions);
                        for i in new { m.accepted.insert(i.0); }
                        let set = m.accepted_set();
                        m.take(d.state(m.watermark, &set));
                    },
                    Step::SinkRestart => {
                        // Only what is durable survives; the producer declares its gaps again.
                        d.sink_lost();
                        let mut durable = IndexSet::new();
                        durable.insert(0, m.watermark);
                        m.accepted.retain(|i| *i < m.watermark || m.gaps.contains(i));
                        m.held.clear();
                        m.take(d.opened(horizon, &durable));
                        let set = m.accepted_set();
                        m.take(d.state(m.watermark, &set));
                    }
                    Step::Tick => { m.take(d.tick(now)); }
                }
                if d.is_complete() { break; }
                prop_assert!(turn < 6000, "the scan always ends");
            }
            prop_assert!((0..n).all(|i| m.accepted.contains(&i)));
        }
    }
}
