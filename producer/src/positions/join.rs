//! Which position belongs to which frame: samples in, points out; no sockets, clocks or threads.
//!
//! | by | sample and frame belong together |
//! |---|---|
//! | index | if the sample has the frame's index |
//! | count | n-th and n-th, or so many samples a frame |
//! | time | if the sample's time lies in the exposure |
//!
//! Samples come in their order, so a later one shows that an earlier one will not come. What a frame's
//! samples say of other columns (I0, shutter) is their mean.

use super::axes::Axes;
use ptystream_common::source::Exposure;
use std::collections::{BTreeMap, VecDeque};

/// By what samples and frames belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The index that a sample carries.
    Index,
    /// The time of both.
    Time,
    /// The order of both.
    Count,
}

/// At which moment of its exposure the position of a frame is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Where it begins.
    Start,
    /// In its middle.
    Mid,
    /// Where it ends.
    End,
    /// The mean over it.
    Mean,
}

/// What the join goes by; columns by their place in a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What belongs together.
    pub by: By,
    /// The moment of the position.
    pub at: At,
    /// Samples of a frame; `None`: as many as carry its index.
    pub samples: Option<usize>,
    /// (slow, fast).
    pub position: [usize; 2],
    /// Column of the index; else the instrument's own numbers count.
    pub index: Option<usize>,
    /// The index of frame 0.
    pub first: f64,
    /// Column of the time.
    pub time: Option<usize>,
    /// Positions' time minus frames' time, seconds.
    pub time_offset: f64,
    /// Samples further apart, in seconds, have nothing to say of what is between them.
    pub widest: f64,
    /// Units and signs.
    pub axes: Axes,
    /// Column and range within which the beam is there.
    pub gate: Option<(usize, [f64; 2])>,
    /// Most samples that wait.
    pub most: usize,
}

/// What is known of a frame's scan point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// (y, x) in metres.
    pub position: [f64; 2],
    /// Mean of each column.
    pub values: Vec<f64>,
    /// Whether the beam was there all the time.
    pub open: bool,
}

/// Whether a frame's point is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// Not yet.
    NotYet,
    /// It is.
    Point(Point),
    /// It never will be: why.
    Never(String),
}

/// What became of samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Samples that came.
    pub samples: u64,
    /// Samples of indices that have no frame.
    pub without_frame: u64,
    /// Samples beyond those that a frame has, or that came after their frame.
    pub surplus: u64,
    /// Samples whose time does not come after the one before.
    pub out_of_order: u64,
    /// Samples without a number that tells their frame, or without any position.
    pub useless: u64,
    /// Samples for which there was no room.
    pub no_room: u64,
    /// Samples that the instrument says it has lost.
    pub lost: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Join {
    rules: Rules,
    groups: BTreeMap<u64, Vec<Vec<f64>>>,
    series: VecDeque<(f64, Vec<f64>)>,
    waiting: usize,
    /// Sequence number of the next sample.
    sequence: u64,
    highest: Option<u64>,
    ended: bool,
    /// The next frame that is asked for.
    next: u64,
    /// (slow, fast) of the frames before: the last one first.
    before: [Option<[f64; 2]>; 2],
    /// What became of samples.
    pub counts: Counts,
}

impl Join {
    /// Makes a join.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            groups: BTreeMap::new(),
            series: VecDeque::new(),
            waiting: 0,
            sequence: 0,
            highest: None,
            ended: false,
            next: 0,
            before: [None; 2],
            counts: Counts::default(),
        }
    }

    /// Rows have come; `first`: the instrument's number of the first.
    pub fn put(&mut self, rows: Vec<Vec<f64>>, first: Option<u64>) {
        for (nth, row) in rows.into_iter().enumerate() {
            let number = first.map(|n| n + nth as u64);
            self.counts.samples += 1;
            let sequence = self.sequence;
            self.sequence += 1;
            if self.rules.position.iter().any(|&at| !row.get(at).is_some_and(|v| v.is_finite())) {
                self.counts.useless += 1;
                continue;
            }
            if self.waiting >= self.rules.most {
                self.counts.no_room += 1;
                continue;
            }
            match self.rules.by {
                By::Time => self.put_time(row),
                By::Index => {
                    let said = match self.rules.index {
                        Some(at) => row.get(at).copied(),
                        None => number.map(|n| n as f64),
                    };
                    let index = said.map(|v| (v - self.rules.first).round());
                    match index.filter(|v| *v >= 0.0 && *v < 1e15) {
                        Some(index) => self.put_index(index as u64, row),
                        None => self.counts.useless += 1,
                    }
                }
                By::Count => {
                    let of = self.rules.samples.unwrap_or(1).max(1) as u64;
                    self.put_index(sequence / of, row);
                }
            }
        }
    }

    fn put_index(&mut self, index: u64, row: Vec<f64>) {
        self.highest = self.highest.max(Some(index));
        if index < self.next {
            self.counts.surplus += 1;
            return;
        }
        let group = self.groups.entry(index).or_default();
        if self.rules.samples.is_some_and(|n| group.len() >= n.max(1)) {
            self.counts.surplus += 1;
            return;
        }
        group.push(row);
        self.waiting += 1;
    }

    fn put_time(&mut self, row: Vec<f64>) {
        let time = self.rules.time.and_then(|at| row.get(at)).copied();
        let Some(time) = time.filter(|t| t.is_finite()) else {
            self.counts.useless += 1;
            return;
        };
        if self.series.back().is_some_and(|(last, _)| *last >= time) {
            self.counts.out_of_order += 1;
            return;
        }
        self.series.push_back((time, row));
        self.waiting += 1;
    }

    /// The instrument has lost samples; before the first one, those are the first.
    pub fn lost(&mut self, samples: u64) {
        self.counts.lost += samples;
        if self.counts.samples == 0 {
            self.sequence += samples;
        }
    }

    /// No more samples will come.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Tells whether the order alone told which sample is whose, and some were lost in between.
    pub fn has_slipped(&self) -> bool {
        let lost = self.counts.no_room + self.counts.lost;
        self.rules.by == By::Count && self.counts.samples > 0 && lost > 0
    }

    /// Looks for the point of a frame; frames are asked for in their order, each until it is known or
    /// [`Self::skip`]ped.
    pub fn point(&mut self, index: u64, exposure: Option<Exposure>) -> Ready {
        let ready = match self.rules.by {
            By::Time => self.at_time(exposure),
            By::Index | By::Count => self.at_index(index),
        };
        if !matches!(ready, Ready::NotYet) {
            self.skip(index);
        }
        ready
    }

    /// Gives up a frame's point.
    pub fn skip(&mut self, index: u64) {
        self.next = self.next.max(index + 1);
        let rest = self.groups.split_off(&self.next);
        for (of, group) in std::mem::replace(&mut self.groups, rest) {
            self.waiting -= group.len();
            if of != index {
                self.counts.without_frame += group.len() as u64;
            }
        }
    }

    /// Counts the samples that wait for frames that will not come.
    pub fn left(&self) -> u64 {
        self.groups.values().map(|g| g.len() as u64).sum()
    }

    fn raw(&self, row: &[f64]) -> [f64; 2] {
        self.rules.position.map(|at| row[at])
    }

    fn at_index(&mut self, index: u64) -> Ready {
        let passed = self.highest.is_some_and(|highest| highest > index);
        let beyond = self.ended || passed;
        let Some(group) = self.groups.get(&index) else {
            return match (passed, self.ended) {
                (true, _) => Ready::Never("no position has its index".into()),
                (false, true) => Ready::Never("the positions have ended without its own".into()),
                (false, false) => Ready::NotYet,
            };
        };
        let whole = self.rules.samples.is_some_and(|n| group.len() >= n) || beyond;
        let one = group.len() == 1;
        // Where it is moved along its line, the next two show where that goes.
        let sees = self.ended || self.highest.is_some_and(|highest| highest > index + 1);
        if !whole || (one && self.rules.at != At::Start && !sees) {
            return Ready::NotYet;
        }
        let yx: Vec<[f64; 2]> = group.iter().map(|row| self.raw(row)).collect();
        let position = match self.rules.at {
            At::Start => yx[0],
            At::Mid | At::Mean if one => self.moved(index, yx[0], 0.5),
            At::End if one => self.moved(index, yx[0], 1.0),
            At::Mid => middle(&yx),
            At::End => yx[yx.len() - 1],
            At::Mean => mean_of(&yx),
        };
        let point = self.made(position, group);
        self.before = [Some(yx[0]), self.before[0]];
        Ready::Point(point)
    }

    /// Moves a position that was latched at the start of the exposure by a part of the way to the next one,
    /// along the line that the scan is on: at its turns the last step goes on.
    fn moved(&self, index: u64, at: [f64; 2], part: f64) -> [f64; 2] {
        let step = |from: [f64; 2], to: [f64; 2]| [to[0] - from[0], to[1] - from[1]];
        let later = |by: u64| {
            self.groups.get(&(index + by)).and_then(|g| g.first()).map(|row| self.raw(row))
        };
        let ahead = later(1).map(|next| step(at, next));
        let beyond = later(1).zip(later(2)).map(|(next, second)| step(next, second));
        let behind = self.before[0].map(|last| step(last, at));
        let further = self.before[0].zip(self.before[1]).map(|(last, second)| step(second, last));
        let line =
            |a: Option<[f64; 2]>, b: Option<[f64; 2]>| a.zip(b).is_some_and(|(a, b)| alike(a, b));
        let step = match () {
            () if line(ahead, beyond) => ahead,
            // The line went on until here, and turns now.
            () if line(behind, further) => behind,
            () => ahead.or(behind),
        };
        let step = step.unwrap_or_default();
        [at[0] + part * step[0], at[1] + part * step[1]]
    }

    fn at_time(&mut self, exposure: Option<Exposure>) -> Ready {
        let Some(Exposure { start, stop }) = exposure else {
            let text = "the detector does not say when it was exposed; join by index or count";
            return Ready::Never(text.into());
        };
        let offset = self.rules.time_offset;
        let (start, stop) = (start + offset, stop + offset);
        // The one before the start is needed still.
        while self.series.get(1).is_some_and(|(time, _)| *time <= start) {
            self.series.pop_front();
            self.waiting -= 1;
        }
        let last = self.series.back().map(|(time, _)| *time);
        if !self.ended && last.is_none_or(|last| last < stop) {
            return Ready::NotYet;
        }
        let within: Vec<Vec<f64>> = self
            .series
            .iter()
            .filter(|(time, _)| (start..=stop).contains(time))
            .map(|(_, row)| row.clone())
            .collect();
        let moment = match self.rules.at {
            At::Mean if !within.is_empty() => {
                let yx: Vec<[f64; 2]> = within.iter().map(|row| self.raw(row)).collect();
                return Ready::Point(self.made(mean_of(&yx), &within));
            }
            At::Start => start,
            At::End => stop,
            At::Mid | At::Mean => start.midpoint(stop),
        };
        let Some(row) = self.between(moment) else {
            return Ready::Never(match self.ended {
                true => "the positions have ended before its exposure".into(),
                false => "no position is near enough to its exposure in time".into(),
            });
        };
        let position = self.raw(&row);
        let rows = if within.is_empty() { vec![row] } else { within };
        Ready::Point(self.made(position, &rows))
    }

    /// Interpolates all columns at a moment.
    fn between(&self, moment: f64) -> Option<Vec<f64>> {
        let after = self.series.partition_point(|(time, _)| *time < moment);
        let right = self.series.get(after);
        let left = after.checked_sub(1).and_then(|at| self.series.get(at));
        match (left, right) {
            (_, Some((time, row))) if *time == moment => Some(row.clone()),
            (Some((t0, a)), Some((t1, b))) if t1 - t0 <= self.rules.widest => {
                let part = (moment - t0) / (t1 - t0);
                Some(a.iter().zip(b).map(|(a, b)| a + part * (b - a)).collect())
            }
            // At the ends of the series, the one that is there, if it is near.
            (None, Some((time, row))) if time - moment <= self.rules.widest => Some(row.clone()),
            (Some((time, row)), None) if moment - time <= self.rules.widest => Some(row.clone()),
            _ => None,
        }
    }

    fn made(&self, position: [f64; 2], rows: &[Vec<f64>]) -> Point {
        let count = rows.len() as f64;
        let columns = rows.first().map_or(0, Vec::len);
        let mean = |at: usize| rows.iter().map(|row| row[at]).sum::<f64>() / count;
        let values = (0..columns).map(mean).collect();
        let open = self.rules.gate.is_none_or(|(at, [low, high])| {
            rows.iter().all(|row| row.get(at).is_some_and(|v| (low..=high).contains(v)))
        });
        Point { position: self.rules.axes.place(position), values, open }
    }
}

fn mean_of(yx: &[[f64; 2]]) -> [f64; 2] {
    let n = yx.len() as f64;
    [0, 1].map(|axis| yx.iter().map(|p| p[axis]).sum::<f64>() / n)
}

fn middle(yx: &[[f64; 2]]) -> [f64; 2] {
    let n = yx.len();
    mean_of(&yx[(n - 1) / 2..=n / 2])
}

/// Tells whether two steps go the same way: at most 45 degrees and a factor of 2 apart.
fn alike(a: [f64; 2], b: [f64; 2]) -> bool {
    let dot = a[0] * b[0] + a[1] * b[1];
    let (la, lb) = (a[0].hypot(a[1]), b[0].hypot(b[1]));
    la > 0.0 && lb > 0.0 && dot >= 0.7 * la * lb && la <= 2.0 * lb && lb <= 2.0 * la
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(by: By, at: At) -> Rules {
        Rules {
            by,
            at,
            samples: Some(1),
            position: [0, 1],
            index: None,
            first: 0.0,
            time: Some(2),
            time_offset: 0.0,
            widest: 1.0,
            axes: Axes::default(),
            gate: None,
            most: 1000,
        }
    }

    fn place(ready: Ready) -> [f64; 2] {
        match ready {
            Ready::Point(point) => point.position,
            other => panic!("{other:?}"),
        }
    }

    fn all(join: &mut Join, n: u64) -> Vec<[f64; 2]> {
        (0..n).map(|i| place(join.point(i, None))).collect()
    }

    #[test]
    fn by_index_a_later_sample_shows_that_one_is_missing() {
        let mut join =
            Join::new(Rules { index: Some(2), first: 1.0, ..rules(By::Index, At::Start) });
        assert_eq!(join.point(0, None), Ready::NotYet);
        join.put(vec![vec![0.0, 5.0, 1.0], vec![0.0, 7.0, 3.0]], None);
        assert_eq!(place(join.point(0, None)), [0.0, 5.0]);
        assert_eq!(join.point(1, None), Ready::Never("no position has its index".into()));
        assert_eq!(place(join.point(2, None)), [0.0, 7.0]);
        join.put(vec![vec![0.0, 0.0, 2.0], vec![f64::NAN, 0.0, 5.0], vec![0.0, 0.0, -3.0]], None);
        join.end();
        assert!(matches!(join.point(3, None), Ready::Never(text) if text.contains("ended")));
        let counts = Counts { samples: 5, surplus: 1, useless: 2, ..Counts::default() };
        assert_eq!(join.counts, counts);
    }

    #[test]
    fn several_samples_are_of_one_frame() {
        let rows: Vec<Vec<f64>> = [0.0, 1.0, 5.0, 6.0].map(|x| vec![2.0, x, 10.0 * x]).to_vec();
        for (at, expected) in [(At::Start, 0.0), (At::Mid, 3.0), (At::End, 6.0), (At::Mean, 3.0)] {
            let mut join = Join::new(Rules { samples: Some(4), ..rules(By::Count, at) });
            join.put(rows[..3].to_vec(), None);
            assert_eq!(join.point(0, None), Ready::NotYet);
            join.put(rows[3..].to_vec(), None);
            let Ready::Point(point) = join.point(0, None) else { panic!("{at:?}") };
            assert_eq!((point.position, point.values[2]), ([2.0, expected], 30.0));
        }
        // As many as carry the index.
        let mut join = Join::new(Rules { samples: None, ..rules(By::Index, At::Start) });
        join.put(rows[..2].to_vec(), Some(0));
        assert_eq!(place(join.point(0, None)), [2.0, 0.0]);
        assert_eq!(join.point(1, None), Ready::NotYet, "more may come");
        join.end();
        assert_eq!(place(join.point(1, None)), [2.0, 1.0]);
    }

    /// On a snake line the way goes on at its end, and not to the next line.
    #[test]
    fn a_position_latched_at_the_start_is_moved_along_its_line() {
        let line = |y: f64, xs: [f64; 4]| xs.map(|x| vec![y, x, 0.0]).to_vec();
        let snake = [line(0.0, [0.0, 1.0, 2.0, 3.0]), line(1.0, [4.0, 3.0, 2.0, 1.0])].concat();
        let mut join = Join::new(rules(By::Count, At::Mid));
        join.put(snake, None);
        join.end();
        let got = all(&mut join, 8);
        let expected = [0.5, 1.5, 2.5, 3.5, 3.5, 2.5, 1.5, 0.5];
        assert_eq!(got.iter().map(|p| p[1]).collect::<Vec<_>>(), expected);
        assert_eq!(got.iter().map(|p| p[0]).collect::<Vec<_>>(), [0., 0., 0., 0., 1., 1., 1., 1.]);
    }

    #[test]
    fn by_time_positions_are_interpolated_or_averaged() {
        let exposure = |start, stop| Some(Exposure { start, stop });
        let rows = || (0..=10).map(|t| vec![0.0, f64::from(t * t), f64::from(t) + 100.0]).collect();
        let cases = [(At::Start, 6.5), (At::Mid, 9.0), (At::End, 12.5), (At::Mean, 9.0)];
        for (at, expected) in cases {
            let mut join = Join::new(Rules { time_offset: 100.0, ..rules(By::Time, at) });
            join.put(rows(), None);
            assert_eq!(place(join.point(0, exposure(2.5, 3.5))), [0.0, expected], "{at:?}");
            assert_eq!(join.point(1, exposure(9.5, 10.5)), Ready::NotYet);
            assert!(matches!(join.point(2, None), Ready::Never(_)));
        }
        let mut join = Join::new(Rules { widest: 0.5, ..rules(By::Time, At::Mid) });
        join.put(vec![vec![0.0, 1.0, 0.0], vec![0.0, 2.0, 1.0], vec![0.0, 3.0, 0.5]], None);
        assert!(matches!(join.point(0, exposure(0.4, 0.6)), Ready::Never(t) if t.contains("near")));
        assert_eq!(join.counts.out_of_order, 1);
        assert_eq!(place(join.point(1, exposure(1.0, 1.0))), [0.0, 2.0]);
    }

    #[test]
    fn a_closed_gate_and_losses_are_told() {
        let gate = Some((2, [0.5, 9.0]));
        let mut join = Join::new(Rules { gate, samples: Some(2), ..rules(By::Count, At::Mean) });
        join.lost(4);
        join.put((0..4).map(|n| vec![0.0, 0.0, f64::from(n)]).collect(), None);
        assert!(matches!(join.point(0, None), Ready::Never(_)), "the first four are lost");
        assert!(matches!(join.point(1, None), Ready::Never(_)));
        let open = |ready| matches!(ready, Ready::Point(Point { open: true, .. }));
        assert!(!open(join.point(2, None)) && open(join.point(3, None)));
        assert!(join.has_slipped());
    }

    #[test]
    fn room_is_bounded() {
        let mut join = Join::new(Rules { most: 3, ..rules(By::Count, At::Start) });
        join.put(vec![vec![0.0, 0.0]; 5], None);
        assert_eq!((join.counts.no_room, join.left()), (2, 3));
        join.skip(1);
        assert_eq!((join.left(), join.waiting, join.counts.without_frame), (1, 1, 1));
    }

    proptest! {
        /// Whatever is lost, each frame gets the position of its own index, or none.
        #[test]
        fn no_frame_gets_the_position_of_another(
            lost in prop::collection::vec(any::<bool>(), 1..60),
            pieces in prop::collection::vec(1usize..5, 1..20),
        ) {
            let mut join = Join::new(Rules { index: Some(2), ..rules(By::Index, At::Start) });
            let n = lost.len() as u64;
            let there: Vec<u64> = (0..n).filter(|i| !lost[*i as usize]).collect();
            let mut rest = there.clone();
            let mut next = 0;
            let mut pieces = pieces.iter().cycle();
            loop {
                let piece = rest.drain(..rest.len().min(*pieces.next().unwrap_or(&1))).collect::<Vec<_>>();
                if piece.is_empty() {
                    join.end();
                }
                join.put(piece.iter().map(|i| vec![0.0, *i as f64, *i as f64]).collect(), None);
                while next < n {
                    match join.point(next, None) {
                        Ready::NotYet => break,
                        Ready::Point(point) => prop_assert_eq!(point.position[1], next as f64),
                        Ready::Never(_) => prop_assert!(lost[next as usize]),
                    }
                    next += 1;
                }
                if next == n {
                    break;
                }
            }
            prop_assert_eq!(join.waiting, 0);
        }
    }
}
