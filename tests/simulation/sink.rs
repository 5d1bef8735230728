//! The sink of the simulation: the real assembler and credit book around a modelled disk.

use crate::world::Setup;
use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::PeerId;
use ptystream_common::message::{Prepared, Stamp};
use ptystream_sink::assemble::{Assembler, ClosedChunk, Verdict};
use ptystream_sink::credit::CreditBook;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a worker tells the sink.
#[derive(Clone, Debug)]
pub enum ToSink {
    Hello,
    Prepared(Stamp, IndexRange),
    Gone,
}

#[derive(Debug)]
enum Job {
    Put(PeerId, IndexRange),
    Close(ClosedChunk),
}

#[derive(Debug)]
pub struct Sink {
    stamp: Option<Stamp>,
    assembler: Assembler,
    book: CreditBook,
    slots: usize,
    peers: BTreeSet<u64>,
    /// Most peers at once since memory was last empty.
    most_peers: usize,
    jobs: VecDeque<Job>,
    written: BTreeSet<u64>,
    closed: BTreeMap<u64, ClosedChunk>,
    heard: u64,
    /// Indices that came for the first time.
    kept: u64,
    stale: u64,
}

impl Sink {
    pub fn new(setup: &Setup) -> Self {
        Self {
            stamp: None,
            assembler: Assembler::new(setup.per_chunk, None, false, &IndexSet::new(), 0),
            book: CreditBook::new(1, 1),
            slots: setup.slots,
            peers: BTreeSet::new(),
            most_peers: 0,
            jobs: VecDeque::new(),
            written: BTreeSet::new(),
            closed: BTreeMap::new(),
            heard: 0,
            kept: 0,
            stale: 0,
        }
    }

    pub fn is_open(&self) -> bool {
        self.stamp.is_some()
    }

    pub fn open(&mut self, setup: &Setup, stamp: Stamp, durable: &IndexSet, chunks: u64) {
        let length = (!setup.late_length).then_some(setup.frames);
        self.assembler = Assembler::new(setup.per_chunk, length, false, durable, chunks);
        if self.stamp.is_none() {
            self.book = CreditBook::new(setup.slots, setup.window as usize);
            for &peer in &self.peers {
                self.book.join(PeerId(peer));
            }
        }
        // What is in memory is dropped.
        for job in std::mem::take(&mut self.jobs) {
            if let Job::Put(peer, _) = job {
                self.book.written(peer);
            }
        }
        self.written.clear();
        self.closed.clear();
        self.heard = 0;
        self.kept = 0;
        self.stale = 0;
        self.stamp = Some(stamp);
    }

    pub fn announced_again(&mut self) -> (Stamp, IndexSet) {
        (self.stamp.expect("it is open"), self.assembler.durable().clone())
    }

    pub fn state(&self) -> Option<(Stamp, u64, IndexSet)> {
        let stamp = self.stamp?;
        Some((stamp, self.assembler.watermark(), self.assembler.accepted().clone()))
    }

    pub fn gap(&mut self, index: u64, why: &str) {
        if self.is_open() {
            self.assembler.gap(IndexRange::new(index, 1), why, None);
            self.close();
        }
    }

    pub fn end(&mut self, length: u64) {
        if self.is_open() {
            self.assembler.set_length(length);
            self.close();
        }
    }

    fn close(&mut self) {
        self.jobs.extend(self.assembler.close().into_iter().map(Job::Close));
    }

    /// Frames have waited for too long.
    pub fn flush(&mut self, batch: u32) {
        if self.is_open() {
            self.jobs.extend(self.assembler.flush(batch).map(Job::Close));
        }
    }

    /// A result comes once more than it was sent; it had no credit of its own.
    pub fn hear_twice(&mut self, message: &ToSink) {
        if let ToSink::Prepared(stamp, range) = message
            && self.stamp == Some(*stamp)
        {
            self.heard += u64::from(range.count);
            let verdict = self.assembler.prepared(&prepared(*range));
            assert_ne!(verdict, Verdict::Keep, "it has just come");
        }
    }

    pub fn hear(&mut self, peer: u64, message: &ToSink) {
        let id = PeerId(peer);
        match message {
            ToSink::Hello => {
                self.peers.insert(peer);
                self.most_peers = self.most_peers.max(self.peers.len());
                if self.is_open() {
                    self.book.join(id);
                }
            }
            ToSink::Gone => {
                self.peers.remove(&peer);
                self.book.leave(id);
            }
            ToSink::Prepared(stamp, range) => {
                let count = u64::from(range.count);
                self.heard += count;
                if self.stamp != Some(*stamp) {
                    self.stale += count;
                    self.book.returned(id);
                    return;
                }
                let held = self.assembler.accepted();
                self.kept += range.iter().filter(|i| !held.contains(i.0)).count() as u64;
                match self.assembler.prepared(&prepared(*range)) {
                    Verdict::Keep => {
                        self.book.kept(id);
                        self.jobs.push_back(Job::Put(id, *range));
                        self.close();
                    }
                    _ => self.book.returned(id),
                }
                self.check();
            }
        }
    }

    /// A result came damaged: its credit returns; tells whether the producer is to be told.
    pub fn hear_damaged(&mut self, peer: u64, stamp: Stamp) -> bool {
        self.book.returned(PeerId(peer));
        self.stamp == Some(stamp)
    }

    fn check(&self) {
        let c = self.assembler.counts();
        assert_eq!(c.received, c.kept + c.duplicates + c.out_of_range);
        assert_eq!(self.heard, c.received + self.stale, "every frame that came is counted");
        assert_eq!(c.kept, self.kept, "no index is kept twice");
        let memory = self.jobs.iter().filter(|j| matches!(j, Job::Put(..))).count();
        let most = self.slots + self.most_peers;
        assert!(memory <= most, "{memory} results in memory, {most} at most");
    }

    pub fn grants(&mut self) -> Vec<(u64, u32)> {
        if !self.is_open() {
            return Vec::new();
        }
        self.book.grants().into_iter().map(|(peer, count)| (peer.0, count)).collect()
    }

    /// The disk's thread does one job.
    pub fn write(&mut self) {
        match self.jobs.pop_front() {
            Some(Job::Put(peer, range)) => {
                let start = range.first.0;
                let durable = self.assembler.watermark();
                assert!(start >= durable, "{range} is written though durable");
                self.written.extend(range.iter().map(|i| i.0));
                self.book.written(peer);
            }
            Some(Job::Close(chunk)) => {
                let old = self.closed.insert(chunk.chunk, chunk);
                assert!(old.is_none(), "a chunk closes once");
            }
            None => {}
        }
        if self.jobs.is_empty() {
            self.most_peers = self.peers.len();
        }
    }

    /// Publishes a chunk, if it is closed: its indices, and whether each is a frame.
    pub fn publish(&mut self, chunk: u64) -> Option<Vec<(u64, bool)>> {
        let chunk = self.closed.remove(&chunk)?;
        let row = |i: Index| {
            let gap = chunk.gaps.contains(&i.0);
            assert!(gap || self.written.contains(&i.0), "{i} is neither written nor a gap");
            (i.0, !gap)
        };
        let rows = chunk.range.iter().map(row).collect();
        self.assembler.published(chunk.range);
        Some(rows)
    }
}

fn prepared(range: IndexRange) -> Prepared {
    Prepared {
        range,
        positions: None,
        max_valid: None,
        invalid: None,
        scalars: None,
        checksums: None,
        load_us: 0,
        prepare_us: 0,
    }
}
