//! The model around the cores: workers, connections, a disk; every step checks the invariants.

mod damage;
mod judge;
mod workers;

use crate::sink::{Sink, ToSink};
use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::PeerId;
use ptystream_common::message::Stamp;
use ptystream_producer::dispatch::{Action, Cut, Dispatcher, Now, Policy};
use ptystream_producer::peers::Roster;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub const STRAGGLER: Duration = Duration::from_secs(5);
pub const GIVE_UP: Duration = Duration::from_secs(60);

/// A scan and the machines for it.
#[derive(Clone, Debug)]
pub struct Setup {
    pub frames: u64,
    pub per_chunk: u32,
    pub batch: u32,
    pub window: u32,
    pub slots: usize,
    pub workers: usize,
    pub max_outstanding: usize,
    /// Whether the sink learns the length only at the end.
    pub late_length: bool,
    /// Frames that kill, hang, or fail whoever reads them.
    pub poison: BTreeSet<u64>,
    pub hang: BTreeSet<u64>,
    pub bad: BTreeSet<u64>,
    /// Whether workers get their parts of each chunk, and not what comes next.
    pub shared: bool,
}

impl Setup {
    fn policy(&self) -> Policy {
        let patience = Duration::from_secs(60);
        match self.shared {
            false => Policy::Dynamic,
            true => Policy::Static { workers: self.workers, patience },
        }
    }
}

/// What a worker tells the producer.
#[derive(Clone, Debug)]
pub enum ToProducer {
    Hello(u32),
    Want(Stamp, u32),
    Failed(Stamp, u64),
    Damaged(Stamp, IndexRange),
    Bye,
    Gone,
}

/// What the producer tells a worker.
#[derive(Clone, Debug)]
pub enum ToWorker {
    /// And the attempt of the Hello that it answers.
    Plan(Stamp, u32),
    Ticket(Stamp, IndexRange),
}

/// What the sink tells the producer.
#[derive(Clone, Debug)]
pub enum Told {
    Hello,
    Opened(Stamp, u64, IndexSet),
    State(Stamp, u64, IndexSet),
    Damaged(Stamp, IndexRange),
    Paused,
    Gone,
}

/// What the producer tells the sink.
#[derive(Clone, Debug)]
pub enum Control {
    Announce,
    Gap(u64, String),
    End,
}

/// A worker process and what is on its connections.
#[derive(Debug, Default)]
pub struct Worker {
    pub at_producer: u64,
    pub at_sink: u64,
    pub alive: bool,
    pub hung: bool,
    attempt: u32,
    stamp: Option<Stamp>,
    tickets: VecDeque<(Stamp, IndexRange)>,
    finished: Option<(Stamp, IndexRange)>,
    grants: u32,
    done: u32,
    pub to_producer: VecDeque<(u64, ToProducer)>,
    from_producer: VecDeque<ToWorker>,
    pub to_sink: VecDeque<(u64, ToSink)>,
    pub from_sink: VecDeque<u32>,
}

/// What the model knows of a peer of the producer.
#[derive(Debug, Default)]
struct Held {
    asked: u32,
    /// What it was given and is neither safe nor a gap, and when.
    ranges: Vec<(IndexRange, Now)>,
    /// Whether it was given a suspect.
    solo: bool,
}

#[derive(Debug)]
pub struct World {
    pub setup: Setup,
    pub now: Now,
    fresh: u64,
    pub dispatcher: Dispatcher,
    roster: Roster,
    gaps: BTreeMap<u64, String>,
    running: bool,
    end_told: bool,
    available: u64,
    held: BTreeMap<u64, Held>,
    known: IndexSet,
    suspects: BTreeSet<u64>,
    solo_deaths: BTreeMap<u64, u32>,
    /// How often an index came damaged.
    damages: BTreeMap<u64, u32>,
    pub workers: Vec<Worker>,
    pub sink: Option<Sink>,
    pub told: VecDeque<Told>,
    control: VecDeque<Control>,
    states: Vec<Told>,
    epoch: u32,
    /// The file: whether each visible index is a frame.
    pub file: BTreeMap<u64, bool>,
    /// Chunks of it.
    chunks: u64,
}

fn cut(setup: &Setup) -> Cut {
    Cut {
        batch: setup.batch,
        frames_per_chunk: setup.per_chunk,
        max_outstanding: setup.max_outstanding,
        orphan_grace: Duration::from_secs(5),
        straggler: STRAGGLER,
        give_up: GIVE_UP,
        policy: setup.policy(),
    }
}

impl World {
    pub fn new(setup: Setup) -> Self {
        let workers = (0..setup.workers).map(|_| Worker::default()).collect();
        Self {
            dispatcher: Dispatcher::new(cut(&setup), Some(setup.frames)),
            setup,
            now: Now::ZERO,
            fresh: 1,
            roster: Roster::default(),
            gaps: BTreeMap::new(),
            running: false,
            end_told: false,
            available: 0,
            held: BTreeMap::new(),
            known: IndexSet::new(),
            suspects: BTreeSet::new(),
            solo_deaths: BTreeMap::new(),
            damages: BTreeMap::new(),
            workers,
            sink: None,
            told: VecDeque::new(),
            control: VecDeque::new(),
            states: Vec::new(),
            epoch: 0,
            file: BTreeMap::new(),
            chunks: 0,
        }
    }

    fn peer(&mut self) -> u64 {
        self.fresh += 1;
        self.fresh
    }

    pub fn durable(&self) -> u64 {
        self.file.len() as u64
    }

    // ---- the producer

    pub fn frames_come(&mut self, count: u64) {
        self.available = (self.available + count).min(self.setup.frames);
        let actions = self.dispatcher.source_has(self.available, Some(self.setup.frames));
        self.act(actions);
    }

    pub fn tick(&mut self, passed: Duration) {
        self.now += passed;
        let actions = self.dispatcher.tick(self.now);
        self.act(actions);
    }

    /// The producer dies and comes back: it knows nothing.
    pub fn producer_restarts(&mut self) {
        self.dispatcher = Dispatcher::new(cut(&self.setup), Some(self.setup.frames));
        self.roster = Roster::default();
        self.gaps.clear();
        self.running = false;
        self.end_told = false;
        self.available = 0;
        self.held.clear();
        self.known = IndexSet::new();
        self.suspects.clear();
        self.solo_deaths.clear();
        self.now = Now::ZERO;
        self.control.clear();
        self.told.clear();
        if self.sink.is_some() {
            self.told.push_back(Told::Hello);
        }
        for at in 0..self.workers.len() {
            let peer = self.peer();
            let worker = &mut self.workers[at];
            worker.to_producer.clear();
            worker.from_producer.clear();
            worker.tickets.clear();
            worker.stamp = None;
            if worker.alive {
                worker.at_producer = peer;
                worker.attempt += 1;
                worker.to_producer.push_back((peer, ToProducer::Hello(worker.attempt)));
            }
        }
    }

    /// The connection between producer and sink breaks; both live.
    pub fn control_breaks(&mut self) {
        self.control.clear();
        self.told.push_back(Told::Gone);
        if self.sink.is_some() {
            self.told.push_back(Told::Hello);
        }
    }

    fn plan(&mut self, peer: u64) {
        let stamp = self.roster.stamp();
        if self.running
            && let Some(worker) = self.workers.iter_mut().find(|w| w.alive && w.at_producer == peer)
        {
            let answers = self.roster.attempt(PeerId(peer));
            worker.from_producer.push_back(ToWorker::Plan(stamp, answers));
            self.roster.planned(PeerId(peer));
            self.held.entry(peer).or_default().asked = 0;
        }
    }

    pub fn hear_worker(&mut self, at: usize) {
        let Some((peer, message)) = self.workers[at].to_producer.pop_front() else { return };
        let id = PeerId(peer);
        match message {
            ToProducer::Hello(attempt) => {
                self.roster.joined(id, &format!("w{at}"), attempt);
                self.held.insert(peer, Held::default());
                let actions = self.dispatcher.worker_joined(id, &format!("w{at}"));
                self.act(actions);
                self.plan(peer);
            }
            ToProducer::Want(stamp, tickets) => {
                if self.roster.counts(id, stamp) {
                    self.held.entry(peer).or_default().asked += tickets;
                    let actions = self.dispatcher.want(id, tickets);
                    self.act(actions);
                }
            }
            ToProducer::Failed(stamp, index) => {
                if self.roster.counts(id, stamp) {
                    assert!(self.setup.bad.contains(&index));
                    self.dispatcher.heard(id);
                    let (actions, new) = self.dispatcher.declare_gap(IndexRange::new(index, 1));
                    for index in new {
                        self.gap(index.0, "failed");
                    }
                    self.act(actions);
                }
            }
            ToProducer::Damaged(stamp, range) => self.worker_says_damaged(peer, stamp, range),
            ToProducer::Bye => {
                self.roster.gone(id);
                self.dispatcher.worker_left(id);
                self.held.remove(&peer);
            }
            ToProducer::Gone => {
                if self.roster.gone(id).is_some() {
                    self.died(peer);
                    let actions = self.dispatcher.worker_gone(id);
                    self.act(actions);
                }
            }
        }
    }

    fn died(&mut self, peer: u64) {
        self.prune();
        let Some(held) = self.held.remove(&peer) else { return };
        let solo = held.solo && held.ranges.len() == 1;
        for (range, _) in held.ranges {
            if solo && range.count > 1 {
                // It goes frame by frame now: others that hold it are relieved.
                self.held.values_mut().for_each(|h| h.ranges.retain(|(r, _)| *r != range));
            }
            for index in range.iter() {
                if solo && self.suspects.contains(&index.0) {
                    *self.solo_deaths.entry(index.0).or_default() += 1;
                }
                self.suspects.insert(index.0);
            }
        }
    }

    fn gap(&mut self, index: u64, why: &str) {
        self.gaps.insert(index, why.to_owned());
        if self.running {
            self.control.push_back(Control::Gap(index, why.to_owned()));
        }
    }

    /// The producer hears the sink; with `lost`, a State is lost instead.
    pub fn hear_sink(&mut self, lost: bool) {
        let Some(told) = self.told.pop_front() else { return };
        if lost && matches!(told, Told::State(..)) {
            return;
        }
        if matches!(told, Told::State(..)) && self.states.len() < 64 {
            self.states.push(told.clone());
        }
        self.hear(told);
    }

    /// A State of any time comes once more.
    pub fn hear_old_state(&mut self, pick: usize) {
        if !self.states.is_empty() {
            let told = self.states[pick % self.states.len()].clone();
            self.hear(told);
        }
    }

    fn hear(&mut self, told: Told) {
        match told {
            Told::Hello => self.control.push_back(Control::Announce),
            Told::Opened(stamp, horizon, durable) => {
                let anew = self.roster.opened(stamp);
                self.running = true;
                for (index, why) in self.gaps.clone() {
                    self.control.push_back(Control::Gap(index, why));
                }
                for peer in self.roster.unplanned() {
                    self.plan(peer.0);
                }
                self.end_told = false;
                let actions = if anew {
                    self.held.values_mut().for_each(|h| *h = Held::default());
                    self.known = durable.clone();
                    self.dispatcher.opened(horizon, &durable)
                } else {
                    self.learn(0, &durable);
                    self.dispatcher.reopened(horizon, &durable)
                };
                self.act(actions);
            }
            Told::State(stamp, watermark, accepted) => {
                if self.roster.is_current(stamp) {
                    self.learn(watermark, &accepted);
                    let actions = self.dispatcher.state(watermark, &accepted);
                    self.act(actions);
                }
            }
            Told::Damaged(stamp, range) => self.sink_says_damaged(stamp, range),
            Told::Paused | Told::Gone => {
                self.dispatcher.sink_lost();
                self.running = false;
            }
        }
        assert!(self.dispatcher.watermark() <= self.durable(), "durable is what the disk has");
    }

    fn learn(&mut self, watermark: u64, accepted: &IndexSet) {
        self.known.insert(0, watermark);
        for (start, end) in accepted.ranges() {
            self.known.insert(start, end);
        }
        // Whoever was accepted is cleared.
        let known = &self.known;
        self.suspects.retain(|i| !known.contains(*i));
        self.solo_deaths.retain(|i, _| !known.contains(*i));
    }

    /// Forgets what is safe or failed.
    fn prune(&mut self) {
        let (known, gaps) = (&self.known, &self.gaps);
        for held in self.held.values_mut() {
            held.ranges.retain(|(range, _)| {
                range.iter().any(|i| !known.contains(i.0) && !gaps.contains_key(&i.0))
                    && !range.iter().any(|i| gaps.contains_key(&i.0))
            });
            held.solo &= !held.ranges.is_empty();
        }
    }

    fn act(&mut self, actions: Vec<Action>) {
        self.prune();
        for action in actions {
            match action {
                Action::Send { worker, range } => self.send(worker.0, range),
                Action::Gap { range, reason } => {
                    for index in range.iter() {
                        self.judge(index.0, &reason);
                        self.gap(index.0, &reason);
                    }
                    self.prune();
                }
            }
        }
        let tickets = self.dispatcher.counts().tickets;
        let ended = tickets.settled + tickets.failed + tickets.lost;
        assert_eq!(tickets.sent, ended + tickets.held, "every ticket ends in one way");
        assert!(self.dispatcher.outstanding() <= self.setup.max_outstanding);
        if self.running && !self.end_told && self.dispatcher.all_sent() {
            self.end_told = true;
            self.control.push_back(Control::End);
        }
    }

    fn send(&mut self, peer: u64, range: IndexRange) {
        let limit = self.durable() + self.sink_horizon();
        assert!(range.end() <= limit.min(self.available), "{range} is beyond the horizon");
        assert!(
            range.iter().all(|i| !self.known.contains(i.0) && !self.gaps.contains_key(&i.0)),
            "{range} holds what is safe or a gap"
        );
        let (per_chunk, batch) = (u64::from(self.setup.per_chunk), u64::from(self.setup.batch));
        let place = |i: u64| (i / per_chunk, i % per_chunk / batch);
        assert_eq!(place(range.first.0), place(range.end() - 1), "{range} is not of one batch");
        let holders = |h: &&Held| h.ranges.iter().any(|(r, _)| *r == range);
        assert!(self.held.values().filter(holders).count() < 3, "{range} has three holders");
        let suspect = |r: IndexRange| r.iter().any(|i| self.suspects.contains(&i.0));
        let held = self.held.get(&peer).expect("tickets go to workers that are there");
        assert!(held.asked > 0, "{peer} gets more than it asked for");
        assert!(!suspect(range) || held.ranges.is_empty(), "the suspect {range} is not alone");
        assert!(!held.solo, "{peer} holds a suspect and gets {range}");
        let solo = suspect(range);
        let (now, stamp) = (self.now, self.roster.stamp());
        let held = self.held.entry(peer).or_default();
        held.asked -= 1;
        held.ranges.push((range, now));
        held.solo = solo;
        if let Some(worker) = self.workers.iter_mut().find(|w| w.alive && w.at_producer == peer) {
            worker.from_producer.push_back(ToWorker::Ticket(stamp, range));
        } else {
            self.dispatcher.unsent(PeerId(peer));
        }
    }

    // ---- the sink

    fn sink_horizon(&self) -> u64 {
        2 * u64::from(self.setup.per_chunk)
    }

    pub fn sink_starts(&mut self) {
        if self.sink.is_some() {
            return;
        }
        self.sink = Some(Sink::new(&self.setup));
        self.told.push_back(Told::Hello);
        for at in 0..self.workers.len() {
            self.workers[at].to_sink.clear();
            self.sink_link_breaks(at, 0);
            self.workers[at].to_sink.retain(|(_, m)| !matches!(m, ToSink::Gone));
        }
    }

    /// The sink dies: what is not durable is lost.
    pub fn sink_dies(&mut self) {
        if self.sink.take().is_none() {
            return;
        }
        self.told.push_back(Told::Gone);
        self.control.clear();
        for at in 0..self.workers.len() {
            self.sink_link_breaks(at, usize::MAX);
            self.workers[at].to_sink.clear();
        }
    }

    fn open(&mut self) {
        let mut durable = IndexSet::new();
        durable.insert(0, self.durable());
        self.epoch += 1;
        let stamp = Stamp { run_id: 7, epoch: self.epoch };
        let horizon = self.sink_horizon();
        if let Some(sink) = &mut self.sink {
            sink.open(&self.setup, stamp, &durable, self.chunks);
            self.told.push_back(Told::Opened(stamp, horizon, durable));
        }
    }

    /// The disk refuses, then goes on: as a restart, but all connections stand.
    pub fn sink_pauses(&mut self) {
        if self.sink.as_ref().is_some_and(Sink::is_open) {
            self.told.push_back(Told::Paused);
            self.open();
        }
    }

    pub fn hear_control(&mut self) {
        let Some(message) = self.control.pop_front() else { return };
        let Some(sink) = &mut self.sink else { return };
        match message {
            Control::Announce if !sink.is_open() => self.open(),
            Control::Announce => {
                let (stamp, durable) = sink.announced_again();
                let horizon = self.sink_horizon();
                self.told.push_back(Told::Opened(stamp, horizon, durable));
                self.say_state();
            }
            Control::Gap(index, why) => sink.gap(index, &why),
            Control::End => sink.end(self.setup.frames),
        }
    }

    pub fn say_state(&mut self) {
        if let Some((stamp, watermark, accepted)) = self.sink.as_ref().and_then(Sink::state) {
            self.told.push_back(Told::State(stamp, watermark, accepted));
        }
    }

    /// The sink hears a worker; with `twice`, what comes is heard again.
    pub fn sink_hears(&mut self, at: usize, twice: bool) {
        let Some((peer, message)) = self.workers[at].to_sink.pop_front() else { return };
        let Some(sink) = &mut self.sink else { return };
        sink.hear(peer, &message);
        if twice {
            sink.hear_twice(&message);
        }
        self.grant();
    }

    pub fn grant(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        for (peer, count) in sink.grants() {
            if let Some(worker) = self.workers.iter_mut().find(|w| w.alive && w.at_sink == peer) {
                worker.from_sink.push_back(count);
            }
        }
    }

    pub fn write(&mut self) {
        if let Some(sink) = &mut self.sink {
            sink.write();
            self.grant();
        }
    }

    /// The sink closes a chunk before it is whole.
    pub fn flush(&mut self) {
        if let Some(sink) = &mut self.sink {
            sink.flush(self.setup.batch);
        }
    }

    /// The next chunk becomes visible, if it is whole.
    pub fn publish(&mut self) {
        let Some(rows) = self.sink.as_mut().and_then(|s| s.publish(self.chunks)) else { return };
        self.chunks += 1;
        for (index, frame) in rows {
            assert_eq!(index, self.durable(), "a prefix, in order");
            assert!(!frame || !self.setup.poison.contains(&index), "poison in the file");
            assert!(self.file.insert(index, frame).is_none(), "{index} is in the file twice");
        }
    }
}
