//! Where each raw frame of a live source is, and what has room: events in, answers out; no files,
//! clocks or threads.
//!
//! Invariants:
//! - an index below [`Book::next`] is exactly one of: durable, kept (in memory, in the spool, or in
//!   both), lost with its reason;
//! - a kept frame is let go only once it is durable;
//! - frames in memory never exceed `memory_bytes`, segments of the spool never `spool_bytes`;
//! - with [`Spool::Always`] every kept frame has its place in the spool;
//! - a segment is deleted as a whole, once each of its frames is durable.

use ptystream_common::params::Spool;
use std::collections::BTreeMap;

/// What there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// When the spool is used.
    pub spool: Spool,
    /// Bytes of frames in memory.
    pub memory_bytes: u64,
    /// Bytes of all segments.
    pub spool_bytes: u64,
    /// A segment that has so many bytes is followed by the next.
    pub segment_bytes: u64,
    /// Bytes at the start of each segment.
    pub header_bytes: u64,
}

/// A place in the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Number of the segment.
    pub segment: u64,
    /// First byte of the record.
    pub offset: u64,
    /// Bytes of the record.
    pub bytes: u64,
}

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it stays in memory.
    pub memory: bool,
    /// Where in the spool it is written.
    pub spool: Option<Address>,
}

/// Why a frame is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The source had let it go before it was asked for the first time.
    Down,
    /// It was not taken from the source for want of room.
    Waited,
    /// The source had let it go when it was asked.
    Passed,
    /// It was dropped for want of room.
    NoRoom,
    /// Its record in the spool cannot be read.
    Damaged(String),
    /// The source could not read it.
    Unreadable(String),
    /// The user wants it to be left out: why.
    Filtered(String),
}

impl Loss {
    /// Says why, in the words of the report.
    pub fn reason(&self) -> String {
        match self {
            Self::Down => "passed while the producer was down".into(),
            Self::Waited => "passed while memory and spool were full".into(),
            Self::Passed => {
                "passed before it was read: the source is faster than the producer".into()
            }
            Self::NoRoom => "no room: memory and spool are full".into(),
            Self::Damaged(text) | Self::Unreadable(text) | Self::Filtered(text) => text.clone(),
        }
    }
}

/// What is known of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// It has not been taken yet.
    Ahead,
    /// It is kept.
    Kept(Place),
    /// It will not come.
    Lost(&'a Loss),
    /// It was let go because it is durable.
    Durable,
}

/// What has become free.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Frames to drop from memory.
    pub memory: Vec<u64>,
    /// Segments to delete.
    pub segments: Vec<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    place: Place,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    bytes: u64,
    last: u64,
}

/// The bookkeeping of kept frames.
#[derive(Debug)]
pub struct Book {
    limits: Limits,
    kept: BTreeMap<u64, Kept>,
    lost: BTreeMap<u64, Loss>,
    segments: BTreeMap<u64, Segment>,
    /// The segment that is being written.
    current: Option<u64>,
    next_segment: u64,
    memory_used: u64,
    watermark: u64,
    next: u64,
}

impl Book {
    /// Makes an empty book.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            kept: BTreeMap::new(),
            lost: BTreeMap::new(),
            segments: BTreeMap::new(),
            current: None,
            next_segment: 0,
            memory_used: 0,
            watermark: 0,
            next: 0,
        }
    }

    /// A segment of an earlier run stands in the spool: it counts, and nothing is added to it.
    pub fn stands(&mut self, segment: u64, bytes: u64) {
        self.segments.insert(segment, Segment { bytes, last: 0 });
        self.next_segment = self.next_segment.max(segment + 1);
    }

    /// A frame of an earlier run stands in a segment that [`Self::stands`].
    pub fn recovered(&mut self, index: u64, address: Address) {
        if let Some(segment) = self.segments.get_mut(&address.segment) {
            segment.last = segment.last.max(index);
            let place = Place { memory: false, spool: Some(address) };
            self.kept.insert(index, Kept { place, bytes: 0 });
            self.go_on();
        }
    }

    /// Returns where a frame of `bytes` goes, whose record would have `record` bytes; `None`: full.
    ///
    /// `disk`: whether the spool can be written at the moment.
    pub fn place(&self, bytes: u64, record: u64, disk: bool) -> Option<Place> {
        let memory = self.memory_used + bytes <= self.limits.memory_bytes;
        let spool = || if disk { self.room(record) } else { None };
        match self.limits.spool {
            Spool::Off => memory.then_some(Place { memory, spool: None }),
            Spool::Overflow if memory => Some(Place { memory, spool: None }),
            Spool::Overflow => spool().map(|a| Place { memory, spool: Some(a) }),
            Spool::Always => spool().map(|a| Place { memory, spool: Some(a) }),
        }
    }

    fn room(&self, record: u64) -> Option<Address> {
        let used: u64 = self.segments.values().map(|s| s.bytes).sum();
        let open = self.current.and_then(|n| Some((n, self.segments.get(&n)?)));
        let (segment, offset, more) = match open {
            Some((n, s)) if s.bytes < self.limits.segment_bytes => (n, s.bytes, record),
            _ => (self.next_segment, self.limits.header_bytes, self.limits.header_bytes + record),
        };
        let fits = used + more <= self.limits.spool_bytes;
        fits.then_some(Address { segment, offset, bytes: record })
    }

    /// The next frame has been put where [`Self::place`] said.
    pub fn keep(&mut self, bytes: u64, place: Place) {
        if let Some(address) = place.spool {
            let segment =
                self.segments.entry(address.segment).or_insert(Segment { bytes: 0, last: 0 });
            segment.bytes = address.offset + address.bytes;
            segment.last = segment.last.max(self.next);
            self.current = Some(address.segment);
            self.next_segment = self.next_segment.max(address.segment + 1);
        }
        self.memory_used += if place.memory { bytes } else { 0 };
        self.kept.insert(self.next, Kept { place, bytes });
        self.go_on();
    }

    /// The next frame will not come.
    pub fn lose(&mut self, loss: Loss) {
        self.lost.insert(self.next, loss);
        self.go_on();
    }

    /// A kept frame cannot be read back.
    pub fn spoilt(&mut self, index: u64, loss: Loss) {
        if let Some(kept) = self.kept.remove(&index) {
            self.memory_used -= if kept.place.memory { kept.bytes } else { 0 };
            self.lost.insert(index, loss);
        }
    }

    /// Every index below `watermark` is durable.
    pub fn durable(&mut self, watermark: u64) -> Freed {
        if watermark <= self.watermark {
            return Freed::default();
        }
        self.watermark = watermark;
        let rest = self.kept.split_off(&watermark);
        let gone = std::mem::replace(&mut self.kept, rest);
        let mut freed = Freed::default();
        for (index, kept) in gone {
            if kept.place.memory {
                self.memory_used -= kept.bytes;
                freed.memory.push(index);
            }
        }
        self.lost = self.lost.split_off(&watermark);
        self.segments.retain(|&number, segment| {
            let needed = segment.last >= watermark;
            if !needed {
                freed.segments.push(number);
            }
            needed
        });
        self.current = self.current.filter(|n| self.segments.contains_key(n));
        self.go_on();
        freed
    }

    /// Returns what is known of an index.
    pub fn find(&self, index: u64) -> Found<'_> {
        if index < self.watermark {
            return Found::Durable;
        }
        match (self.kept.get(&index), self.lost.get(&index)) {
            (Some(kept), _) => Found::Kept(kept.place),
            (None, Some(loss)) => Found::Lost(loss),
            (None, None) => Found::Ahead,
        }
    }

    /// Returns the lowest index of which nothing is known: the one to take from the source.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns how many frames are kept.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    fn go_on(&mut self) {
        self.next = self.next.max(self.watermark);
        while self.kept.contains_key(&self.next) || self.lost.contains_key(&self.next) {
            self.next += 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: u64 = 10;
    const EXTRA: u64 = 5;

    fn limits(spool: Spool, memory_bytes: u64, spool_bytes: u64) -> Limits {
        Limits { spool, memory_bytes, spool_bytes, segment_bytes: 60, header_bytes: HEADER }
    }

    #[test]
    fn memory_comes_first_and_the_spool_takes_what_is_over() {
        let mut book = Book::new(limits(Spool::Overflow, 25, 100));
        let put = |book: &mut Book| {
            let place = book.place(10, 15, true)?;
            book.keep(10, place);
            Some(place)
        };
        assert_eq!(put(&mut book), Some(Place { memory: true, spool: None }));
        put(&mut book).unwrap();
        let third = put(&mut book).unwrap();
        let address = Address { segment: 0, offset: HEADER, bytes: 15 };
        assert_eq!(third, Place { memory: false, spool: Some(address) });
        assert_eq!(book.place(10, 15, false), None, "a disk that refuses is full");
        assert_eq!(book.durable(1), Freed { memory: vec![0], segments: vec![] });
        assert!(put(&mut book).unwrap().memory, "room is used again");
        assert_eq!(book.durable(3), Freed { memory: vec![1], segments: vec![0] });
    }

    /// What the book is to be: a list of everything, searched through each time.
    #[derive(Default)]
    struct Model {
        kept: Vec<(u64, u64, Place)>,
        lost: Vec<(u64, Loss)>,
        watermark: u64,
        ends: BTreeMap<u64, u64>,
    }

    impl Model {
        fn next(&self) -> u64 {
            let known = |i: u64| {
                i < self.watermark
                    || self.kept.iter().any(|k| k.0 == i)
                    || self.lost.iter().any(|l| l.0 == i)
            };
            (0..).find(|&i| !known(i)).unwrap()
        }

        fn in_memory(&self) -> u64 {
            self.kept.iter().filter(|k| k.2.memory).map(|k| k.1).sum()
        }
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_list(
            mode in 0usize..3, memory in 0u64..80, disk in 0u64..200,
            steps in proptest::collection::vec((0u8..5, 1u64..30), 0..120),
        ) {
            let spool = [Spool::Off, Spool::Overflow, Spool::Always][mode];
            let limits = limits(spool, memory, disk);
            let mut book = Book::new(limits);
            let mut model = Model::default();
            for (step, n) in steps {
                match step {
                    0..=2 => {
                        let working = step != 2;
                        let roomy = model.in_memory() + n <= memory;
                        let place = book.place(n, n + EXTRA, working);
                        match place {
                            Some(place) => {
                                prop_assert_eq!(place.memory, roomy);
                                let wanted = match spool {
                                    Spool::Off => false,
                                    Spool::Overflow => !roomy,
                                    Spool::Always => true,
                                };
                                prop_assert_eq!(place.spool.is_some(), wanted);
                                if let Some(a) = place.spool {
                                    prop_assert!(working);
                                    let end = model.ends.entry(a.segment).or_insert(HEADER);
                                    prop_assert_eq!(a.offset, *end, "records follow each other");
                                    *end = a.offset + a.bytes;
                                }
                                model.kept.push((model.next(), n, place));
                                book.keep(n, place);
                            }
                            None => {
                                prop_assert!(spool != Spool::Overflow || !roomy);
                                prop_assert!(spool != Spool::Off || !roomy);
                                let used: u64 = model.ends.values().sum();
                                let hopeless = spool == Spool::Off
                                    || !working
                                    || used + n + EXTRA + HEADER > disk
                                    || used + n + EXTRA > disk;
                                prop_assert!(hopeless, "refused with room: {used} of {disk}");
                                if n % 2 == 0 {
                                    model.lost.push((model.next(), Loss::NoRoom));
                                    book.lose(Loss::NoRoom);
                                }
                            }
                        }
                    }
                    3 => {
                        let watermark = model.watermark + n / 3;
                        let freed = book.durable(watermark);
                        for index in &freed.memory {
                            prop_assert!(*index < watermark);
                        }
                        for number in &freed.segments {
                            let needed = model.kept.iter().any(|k| {
                                k.0 >= watermark && k.2.spool.is_some_and(|a| a.segment == *number)
                            });
                            prop_assert!(!needed, "segment {} is needed", number);
                            prop_assert!(model.ends.remove(number).is_some(), "deleted once");
                        }
                        model.watermark = model.watermark.max(watermark);
                        model.kept.retain(|k| k.0 >= watermark);
                        model.lost.retain(|l| l.0 >= watermark);
                        let idle = model.ends.keys().any(|n| {
                            !model.kept.iter().any(|k| k.2.spool.is_some_and(|a| a.segment == *n))
                        });
                        prop_assert!(!idle, "a segment without frames is deleted");
                    }
                    _ => {
                        let index = model.watermark + n % 4;
                        if let Some(at) = model.kept.iter().position(|k| k.0 == index) {
                            // Its bytes stay in the segment until that is deleted.
                            if model.kept[at].2.spool.is_none() {
                                model.kept.remove(at);
                                let loss = Loss::Damaged("torn".into());
                                model.lost.push((index, loss.clone()));
                                book.spoilt(index, loss);
                            }
                        }
                    }
                }
                prop_assert_eq!(book.next(), model.next());
                prop_assert_eq!(book.kept(), model.kept.len());
                prop_assert!(model.in_memory() <= memory);
                prop_assert!(model.ends.values().sum::<u64>() <= disk);
                for index in 0..model.next() + 2 {
                    let found = book.find(index);
                    let kept = model.kept.iter().find(|k| k.0 == index);
                    let lost = model.lost.iter().find(|l| l.0 == index);
                    let wanted = match (kept, lost) {
                        _ if index < model.watermark => Found::Durable,
                        (Some(k), _) => Found::Kept(k.2),
                        (None, Some(l)) => Found::Lost(&l.1),
                        (None, None) => Found::Ahead,
                    };
                    prop_assert_eq!(found, wanted, "index {}", index);
                }
            }
        }
    }
}
