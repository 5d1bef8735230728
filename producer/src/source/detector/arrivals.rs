//! Frames that a detector has sent and nobody has taken yet: a state machine without sockets or clocks.
//!
//! Frames come in any order, twice, of other series, damaged or not at all. They are taken lowest index
//! first; an index that does not come is lost once the series has ended, once frames far beyond it have
//! come, or once there is no room for more.

use ptystream_common::frame::{FrameForm, RawFrame};
use ptystream_common::source::Exposure;
use ptystream_common::value::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long after the end of a series frames may still come, over another socket.
const SETTLE: Duration = Duration::from_secs(2);
/// How far frames may overtake each other.
const REORDER: u64 = 1000;
/// Least that frames under way take in the books, so that many empty ones are bounded too.
const LEAST: usize = 1024;

/// What became of what came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames of the series, each counted once.
    pub frames: u64,
    /// Frames that had come before.
    pub twice: u64,
    /// Frames that came after they had been given up.
    pub late: u64,
    /// Frames beyond the scan's length.
    pub beyond: u64,
    /// Frames that cannot be read.
    pub damaged: u64,
    /// Messages of other series.
    pub other_series: u64,
    /// Messages that are no messages of the protocol.
    pub unknown: u64,
}

/// A frame and what came with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shot {
    /// The pixels.
    pub frame: RawFrame,
    /// When it was exposed.
    pub exposure: Option<Exposure>,
    /// What the user had the detector send with it.
    pub metadata: Option<Value>,
    /// When it came.
    pub came: Option<Instant>,
}

impl Shot {
    /// Makes a frame with nothing beside it.
    pub fn plain(frame: RawFrame) -> Self {
        Self { frame, exposure: None, metadata: None, came: None }
    }
}

/// What is there of an index.
#[derive(Clone, Debug, PartialEq)]
pub enum Arrival {
    /// The frame.
    Frame(Shot),
    /// It came, and cannot be read: why.
    Damaged(String),
    /// It will not come.
    Lost,
}

/// See the module.
#[derive(Debug)]
pub struct Arrivals {
    waiting: BTreeMap<u64, Arrival>,
    bytes: usize,
    most: usize,
    /// The index that is taken next.
    next: u64,
    highest: Option<u64>,
    given_up: BTreeSet<u64>,
    length: Option<u64>,
    ended: Option<Duration>,
    /// What became of what came.
    pub counts: Counts,
}

impl Arrivals {
    /// Makes room for so many bytes of frames.
    pub fn new(most: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            bytes: 0,
            most,
            next: 0,
            highest: None,
            given_up: BTreeSet::new(),
            length: None,
            ended: None,
            counts: Counts::default(),
        }
    }

    /// Says how many frames are wanted.
    pub fn set_length(&mut self, length: u64) {
        self.length = Some(length);
    }

    /// Tells whether nothing more should be taken from the instrument for now.
    pub fn is_full(&self) -> bool {
        self.bytes >= self.most
    }

    /// A frame has come, or what should have been one.
    pub fn put(&mut self, index: u64, arrival: Arrival) {
        if self.length.is_some_and(|n| index >= n) {
            self.counts.beyond += 1;
            return;
        }
        if self.given_up.remove(&index) {
            self.counts.late += 1;
            return;
        }
        if index < self.next || self.waiting.contains_key(&index) {
            self.counts.twice += 1;
            return;
        }
        match &arrival {
            Arrival::Frame(Shot { frame, .. }) => {
                self.counts.frames += 1;
                self.bytes += frame.payload.len().max(LEAST);
            }
            Arrival::Damaged(_) => {
                self.counts.damaged += 1;
                self.bytes += LEAST;
            }
            Arrival::Lost => {}
        }
        self.highest = self.highest.max(Some(index));
        self.waiting.insert(index, arrival);
    }

    /// The instrument has said that the series has ended.
    pub fn end(&mut self, now: Duration) {
        self.ended.get_or_insert(now);
    }

    /// Tells whether the series has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Tells whether no more frames are waited for, since the series ended long enough ago.
    pub fn is_over(&self, now: Duration) -> bool {
        self.ended.is_some_and(|ended| now >= ended + SETTLE)
    }

    /// Returns the form of the first frame that waits.
    pub fn first_form(&self) -> Option<FrameForm> {
        self.waiting.values().find_map(|arrival| match arrival {
            Arrival::Frame(shot) => Some(shot.frame.form),
            _ => None,
        })
    }

    /// Returns the index after the last frame that came.
    pub fn reached(&self) -> u64 {
        self.highest.map_or(0, |highest| highest + 1).max(self.next)
    }

    /// Returns the index up to which everything can be taken, gives up what will not come.
    pub fn accessible(&mut self, now: Duration) -> u64 {
        let mut at = self.next;
        while self.length.is_none_or(|n| at < n) {
            if !self.waiting.contains_key(&at) {
                let beyond = self.highest.is_some_and(|highest| highest > at);
                let far = self.highest.is_some_and(|highest| highest >= at + REORDER);
                if !(beyond && (far || self.is_full() || self.is_over(now))) {
                    break;
                }
                self.waiting.insert(at, Arrival::Lost);
            }
            at += 1;
        }
        at
    }

    /// Returns a frame that waits.
    pub fn peek(&self, index: u64) -> Option<&Shot> {
        match self.waiting.get(&index)? {
            Arrival::Frame(shot) => Some(shot),
            _ => None,
        }
    }

    /// Takes an index; `None` if it is not there, or has been taken.
    pub fn take(&mut self, index: u64) -> Option<Arrival> {
        let arrival = self.waiting.remove(&index)?;
        match &arrival {
            Arrival::Frame(Shot { frame, .. }) => self.bytes -= frame.payload.len().max(LEAST),
            Arrival::Damaged(_) => self.bytes -= LEAST,
            Arrival::Lost => {
                self.given_up.insert(index);
            }
        }
        self.next = self.next.max(index + 1);
        Some(arrival)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use ptystream_common::codec::Encoding;
    use ptystream_common::dtype::Dtype;

    fn frame(bytes: usize) -> Arrival {
        let form = FrameForm { dtype: Dtype::U8, shape: [1, bytes] };
        let payload = vec![7; bytes].into();
        Arrival::Frame(Shot::plain(RawFrame::new(form, Encoding::Raw, payload)))
    }

    const T: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn frames_may_overtake_each_other_and_come_twice() {
        let mut arrivals = Arrivals::new(1 << 20);
        arrivals.set_length(3);
        arrivals.put(1, frame(2000));
        assert_eq!(arrivals.accessible(T(0)), 0);
        arrivals.put(0, frame(2000));
        arrivals.put(1, frame(2000));
        arrivals.put(7, frame(2000));
        assert_eq!(arrivals.accessible(T(0)), 2);
        assert!(matches!(arrivals.take(0), Some(Arrival::Frame(..))));
        assert_eq!(arrivals.take(0), None);
        arrivals.put(0, frame(2000));
        let counts = Counts { frames: 2, twice: 2, beyond: 1, ..Counts::default() };
        assert_eq!((arrivals.counts, arrivals.bytes), (counts, 2000));
    }

    #[test]
    fn what_does_not_come_is_lost_once_the_series_has_ended() {
        let mut arrivals = Arrivals::new(1 << 20);
        arrivals.put(0, frame(10));
        arrivals.put(2, frame(10));
        arrivals.end(T(5));
        assert_eq!(arrivals.accessible(T(6)), 1, "over another socket it may still come");
        assert_eq!(arrivals.accessible(T(7)), 3);
        assert!(arrivals.is_over(T(7)) && arrivals.reached() == 3);
        assert!(matches!(arrivals.take(0), Some(Arrival::Frame(..))));
        assert_eq!(arrivals.take(1), Some(Arrival::Lost));
        arrivals.put(1, frame(10));
        assert_eq!(arrivals.counts.late, 1);
    }

    #[test]
    fn room_is_bounded_though_the_lowest_never_comes() {
        let mut arrivals = Arrivals::new(10_000);
        for index in 1..=5 {
            arrivals.put(index, frame(2500));
        }
        assert!(arrivals.is_full());
        assert_eq!(arrivals.accessible(T(0)), 6, "frame 0 is given up");
        for index in 0..6 {
            assert!(arrivals.take(index).is_some());
        }
        assert!(!arrivals.is_full() && arrivals.bytes == 0);
    }

    proptest! {
        #[test]
        fn every_index_is_taken_once_in_order(
            sent in prop::collection::vec((0u64..40, any::<bool>()), 0..120),
            length in 1u64..40,
        ) {
            let mut arrivals = Arrivals::new(6 * LEAST);
            arrivals.set_length(length);
            let mut taken = Vec::new();
            let mut drain = |arrivals: &mut Arrivals, now| {
                for index in arrivals.next..arrivals.accessible(now) {
                    prop_assert!(arrivals.take(index).is_some());
                    taken.push(index);
                }
                Ok(())
            };
            for (index, good) in sent {
                if arrivals.is_full() {
                    drain(&mut arrivals, T(0))?;
                }
                let what = if good { frame(10) } else { Arrival::Damaged("x".into()) };
                arrivals.put(index, what);
                prop_assert!(arrivals.bytes <= 6 * LEAST);
            }
            let reached = arrivals.reached();
            arrivals.end(T(1));
            drain(&mut arrivals, T(9))?;
            prop_assert_eq!(taken, (0..reached).collect::<Vec<_>>());
            prop_assert_eq!(arrivals.bytes, 0);
        }
    }
}
