//! Whether frames and positions belong together: a verdict from what the frames show.
//!
//! What a frame shows (its intensity and its centre of mass) depends on the place where it was taken. So two
//! frames of neighbouring places are alike, and are not if each of them belongs to another place of the
//! scan. Every hypothesis — frame i + k belongs to position i, for small k, or does so from some frame on — gets
//! the mean dissimilarity of neighbours as its cost. The verdict is the hypothesis of the lowest cost, if all others
//! are worse by far more than chance explains; else there is none.
//!
//! A pair of neighbours says something of a shift only if the shift would move the two apart: on snake lines
//! neighbours of adjacent lines, on a raster those at the ends of lines, on spirals and rings those of adjacent
//! turns. How far chance goes is estimated over blocks of the scan. A channel in which neighbours are hardly more
//! alike than any two frames counts little.

use crate::assemble::ClosedChunk;
use ptystream_common::message::{Alignment, SIGNALS, Verdict};
use std::collections::{BTreeMap, HashMap};

/// Shifts that are looked for, to either side.
const FURTHEST: i32 = 2;
/// Fewer frames do not make a verdict.
const LEAST: usize = 40;
/// Neighbours of a frame that are looked at.
const NEIGHBOURS: usize = 6;
/// Frames whose neighbours are looked at, at most.
const MOST: usize = 20_000;
/// Frames that are looked at, at most: so much of a longer scan tells.
const KEPT: usize = 1_000_000;
/// Blocks of the scan over which chance is estimated.
const BLOCKS: usize = 24;
/// Pairs without which a hypothesis cannot be told from another.
const LEAST_PAIRS: usize = 3 * BLOCKS;
/// Standard errors by which the cost of being aligned must be lower than that of each shift.
const SURE: f64 = 4.5;
/// The same of a slip behind its place, since there are many places to choose from.
const ALARM: f64 = 4.75;
/// By which part the cost of an alarm must be lower: chance alone is not all that may be odd.
const CLEARLY: f64 = 0.15;
/// And that of being aligned.
const SOMEWHAT: f64 = 0.05;
/// A single pair counts for no more.
const CAP: f64 = 6.0;

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Frame {
    at: [f64; 2],
    signals: [f64; 3],
}

/// Collects what frames show, and judges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Judge {
    frames: BTreeMap<u64, Frame>,
    looked_at: usize,
    said: Option<Verdict>,
}

impl Judge {
    /// A chunk has closed; `names`: of its scalars.
    pub(crate) fn add(&mut self, names: &[String], chunk: &ClosedChunk) {
        let column = names.iter().position(|name| name == SIGNALS[0]);
        let (Some(column), Some(positions)) = (column, &chunk.positions) else { return };
        if self.frames.len() >= KEPT {
            return;
        }
        for ((index, at), scalars) in chunk.range.iter().zip(positions).zip(&chunk.scalars) {
            if let Some(&[a, b, c]) = scalars.get(column..column + SIGNALS.len()) {
                self.frames.insert(index.0, Frame { at: *at, signals: [a, b, c] });
            }
        }
        // A quarter more each time, so that all looks together cost as much as a few.
        if self.frames.len() >= LEAST && self.frames.len() * 4 >= self.looked_at * 5 {
            self.say();
        }
    }

    /// Says the verdict while the scan runs, when it has changed.
    fn say(&mut self) {
        self.looked_at = self.frames.len();
        let Some(alignment) = self.verdict() else { return };
        if self.said.as_ref() == Some(&alignment.verdict) {
            return;
        }
        match &alignment.verdict {
            Verdict::Shifted(_) | Verdict::Slips(..) => {
                tracing::error!("frames and positions do not belong together: {alignment}");
            }
            Verdict::Aligned => tracing::info!("frames and positions: {alignment}"),
            Verdict::CannotTell(_) => tracing::debug!("frames and positions: {alignment}"),
        }
        self.said = Some(alignment.verdict);
    }

    /// Judges what has come; `None` where frames came without what is needed.
    pub(crate) fn verdict(&self) -> Option<Alignment> {
        (!self.frames.is_empty()).then(|| judge(&self.frames))
    }
}

/// The scan as judging needs it: by index from the first one on.
struct Scan {
    first: u64,
    at: Vec<Option<[f64; 2]>>,
    /// In units of their spread; a channel that does not change is 0.
    signals: Vec<Option<[f64; 3]>>,
    /// Median step from frame to frame.
    step: f64,
    /// How much neighbours tell of each other, of each channel: 0 is nothing.
    weights: [f64; 3],
}

fn median(values: &mut [f64]) -> f64 {
    let middle = values.len() / 2;
    match values.is_empty() {
        true => f64::NAN,
        false => *values.select_nth_unstable_by(middle, f64::total_cmp).1,
    }
}

fn distance(a: [f64; 2], b: [f64; 2]) -> f64 {
    // Metres are far from where squares overflow, and hypot is ten times slower.
    ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)).sqrt()
}

/// Two frames that are neighbours by place, `i < j`.
#[derive(Clone, Copy, Debug)]
struct Pair {
    i: usize,
    j: usize,
    /// Bit k: a shift by k + 1, to either side, would move them apart.
    told: u8,
}

impl Pair {
    /// Tells whether moving both by `shift` would move them apart.
    fn tells(&self, shift: i32) -> bool {
        shift != 0 && self.told >> (shift.unsigned_abs() - 1) & 1 == 1
    }
}

impl Scan {
    fn new(frames: &BTreeMap<u64, Frame>) -> Option<Self> {
        let (first, last) = (*frames.first_key_value()?.0, *frames.last_key_value()?.0);
        let usable = |f: &&Frame| f.at.iter().chain(&f.signals).all(|v| v.is_finite());
        let mut scale = [[0.0; 2]; 3];
        for (channel, scale) in scale.iter_mut().enumerate() {
            let mut all: Vec<f64> =
                frames.values().filter(usable).map(|f| f.signals[channel]).collect();
            let center = median(&mut all);
            all.iter_mut().for_each(|v| *v = (*v - center).abs());
            *scale = [center, 1.4826 * median(&mut all)];
        }
        let mut scan = Self {
            first,
            at: vec![None; (last - first + 1) as usize],
            signals: vec![None; (last - first + 1) as usize],
            step: 0.0,
            weights: [1.0; 3],
        };
        for (index, frame) in frames.iter().filter(|(_, f)| usable(f)) {
            let place = (index - first) as usize;
            scan.at[place] = Some(frame.at);
            let mut signals = [0.0; 3];
            for (channel, [center, spread]) in scale.iter().enumerate() {
                if *spread > 0.0 {
                    signals[channel] = (frame.signals[channel] - center) / spread;
                }
            }
            scan.signals[place] = Some(signals);
        }
        let step = |pair: &[Option<[f64; 2]>]| Some(distance(pair[0]?, pair[1]?));
        let mut steps: Vec<f64> =
            scan.at.windows(2).filter_map(step).filter(|d| *d > 0.0).collect();
        scan.step = median(&mut steps);
        scan.step.is_finite().then_some(scan)
    }

    fn place(&self, i: usize, shift: i32) -> Option<usize> {
        i.checked_add_signed(shift as isize).filter(|p| *p < self.at.len())
    }

    /// Lists pairs of neighbours by place, each once.
    fn neighbours(&self) -> Vec<Pair> {
        let there: Vec<(usize, [f64; 2])> =
            self.at.iter().enumerate().filter_map(|(i, at)| at.map(|at| (i, at))).collect();
        let bounds = |axis: usize| {
            let values = there.iter().map(|(_, at)| at[axis]);
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)))
        };
        let ([y0, y1], [x0, x1]) = (<[f64; 2]>::from(bounds(0)), <[f64; 2]>::from(bounds(1)));
        let area = (y1 - y0).max(self.step) * (x1 - x0).max(self.step);
        let spacing = (area / there.len().max(1) as f64).sqrt().max(self.step * 0.5);
        let cell = |at: [f64; 2]| {
            [((at[0] - y0) / spacing).floor() as i64, ((at[1] - x0) / spacing).floor() as i64]
        };
        let mut cells: HashMap<[i64; 2], Vec<(usize, [f64; 2])>> = HashMap::new();
        for &(i, at) in &there {
            cells.entry(cell(at)).or_default().push((i, at));
        }
        let mut pairs = Vec::new();
        let every = there.len().div_ceil(MOST).max(1);
        for &(i, at) in there.iter().step_by(every) {
            let [cy, cx] = cell(at);
            let mut near: Vec<(f64, usize)> = (-2..=2)
                .flat_map(|dy| (-2..=2).map(move |dx| [cy + dy, cx + dx]))
                .filter_map(|key| cells.get(&key))
                .flatten()
                .filter(|(j, _)| *j != i)
                .map(|(j, other)| (distance(at, *other), *j))
                .filter(|(d, _)| *d <= 1.8 * spacing)
                .collect();
            near.sort_by(|a, b| a.0.total_cmp(&b.0));
            pairs.extend(near.iter().take(NEIGHBOURS).map(|&(_, j)| (i.min(j), i.max(j))));
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs.into_iter().map(|(i, j)| Pair { i, j, told: self.told(i, j) }).collect()
    }

    /// Looks which shifts would move a pair apart; shifts that differ do so by twice as much at most.
    fn told(&self, i: usize, j: usize) -> u8 {
        let apart = |i: Option<usize>, j: Option<usize>| Some(distance(self.at[i?]?, self.at[j?]?));
        let Some(now) = apart(Some(i), Some(j)) else { return 0 };
        let moves = |by: i32| {
            apart(self.place(i, by), self.place(j, by)).is_some_and(|d| d >= now + 0.5 * self.step)
        };
        (1..=2 * FURTHEST)
            .filter(|&by| moves(by) || moves(-by))
            .fold(0, |told, by| told | 1 << (by - 1))
    }

    /// How unlike the frames of a pair are, if they are those of `shifts` later.
    fn cost(&self, pair: Pair, shifts: [i32; 2]) -> Option<f64> {
        let (i, j) = (self.place(pair.i, shifts[0])?, self.place(pair.j, shifts[1])?);
        let (a, b) = (self.signals[i]?, self.signals[j]?);
        Some((0..3).map(|c| self.weights[c] * (a[c] - b[c]).powi(2).min(CAP)).sum())
    }

    /// Weighs channels by how much more alike neighbours are than any two frames, under the hypothesis
    /// that suits each channel best: so none is preferred.
    fn weigh(&mut self, pairs: &[Pair]) {
        let n = self.at.len();
        let mean = |pairs: &mut dyn Iterator<Item = (usize, usize)>, channel: usize| {
            let costs = pairs.filter_map(|(i, j)| {
                let (a, b) = (self.signals[i]?, self.signals[j]?);
                Some((a[channel] - b[channel]).powi(2).min(CAP))
            });
            let (sum, count) = costs.fold((0.0, 0u32), |(sum, n), cost| (sum + cost, n + 1));
            sum / f64::from(count.max(1))
        };
        let mut weights = [0.0; 3];
        for (channel, weight) in weights.iter_mut().enumerate() {
            let any = mean(&mut (0..n).map(|i| (i, (i * 7 + n / 2) % n)), channel);
            let best = (-FURTHEST..=FURTHEST)
                .map(|by| {
                    let moved =
                        |pair: &Pair| Some((self.place(pair.i, by)?, self.place(pair.j, by)?));
                    mean(&mut pairs.iter().filter_map(moved), channel)
                })
                .fold(f64::INFINITY, f64::min);
            if any > 0.0 {
                *weight = (1.0 - best / any).max(0.0).powi(2);
            }
        }
        self.weights = weights;
    }
}

/// Returns the mean and by how many of its standard errors it is above 0, over blocks in the order of the scan.
fn above_zero(values: &[f64]) -> [f64; 2] {
    let blocks = BLOCKS.min(values.len());
    if blocks < 2 {
        return [0.0; 2];
    }
    let block = |k: usize| &values[k * values.len() / blocks..(k + 1) * values.len() / blocks];
    let means: Vec<f64> =
        (0..blocks).map(|k| block(k).iter().sum::<f64>() / block(k).len() as f64).collect();
    let mean = means.iter().sum::<f64>() / blocks as f64;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (blocks - 1) as f64;
    let error = (variance / blocks as f64).sqrt();
    [mean, if error > 0.0 { mean / error } else { 0.0 }]
}

/// How much better a hypothesis is than another.
#[derive(Clone, Copy, Debug, Default)]
struct Lead {
    pairs: usize,
    /// Standard errors.
    sure: f64,
    /// Part of the other's cost.
    part: f64,
}

impl Lead {
    fn of(better: &[f64], worse: &[f64]) -> Self {
        let gain: Vec<f64> = worse.iter().zip(better).map(|(w, b)| w - b).collect();
        let [_, sure] = above_zero(&gain);
        let total: f64 = worse.iter().sum();
        let part = if total > 0.0 { gain.iter().sum::<f64>() / total } else { 0.0 };
        Self { pairs: gain.len(), sure, part }
    }

    fn is(&self, sure: f64, part: f64) -> bool {
        self.pairs >= LEAST_PAIRS && self.sure >= sure && self.part >= part
    }
}

/// How much better shift `a` is than shift `b`.
fn lead(scan: &Scan, pairs: &[Pair], a: i32, b: i32) -> Lead {
    let (mut better, mut worse) = (Vec::new(), Vec::new());
    for &pair in pairs.iter().filter(|pair| pair.tells(b - a)) {
        if let Some((x, y)) = scan.cost(pair, [a; 2]).zip(scan.cost(pair, [b; 2])) {
            better.push(x);
            worse.push(y);
        }
    }
    Lead::of(&better, &worse)
}

/// Looks for the frame from which on all are shifted; how sure that is.
fn slip(scan: &Scan, pairs: &[Pair], by: i32) -> Option<(usize, f64)> {
    let costs: Vec<(Pair, [f64; 3])> = pairs
        .iter()
        .filter(|pair| pair.tells(by))
        .filter_map(|&pair| {
            let [none, both] = [[0; 2], [by; 2]].map(|s| scan.cost(pair, s));
            Some((pair, [none?, scan.cost(pair, [0, by])?, both?]))
        })
        .collect();
    if costs.len() < 2 * LEAST_PAIRS {
        return None;
    }
    // Cost of a slip at m: pairs before it cost `none`, those across `one`, those after it `both`.
    let n = scan.at.len();
    let mut change = vec![0.0; n + 2];
    for (pair, [none, one, both]) in &costs {
        change[0] += both;
        change[pair.i + 1] += one - both;
        change[pair.j + 1] += none - one;
    }
    let mut total = 0.0;
    let costs_at = change[..=n].iter().map(|c| {
        total += c;
        total
    });
    let (at, _) = costs_at.enumerate().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let cost_of = |pair: &Pair, c: &[f64; 3]| match (pair.i >= at, pair.j >= at) {
        (true, _) => c[2],
        (false, true) => c[1],
        (false, false) => c[0],
    };
    let (before, behind): (Vec<_>, Vec<_>) = costs.iter().partition(|(pair, _)| pair.j < at);
    // Behind it a slip must be better than none, before it none better than a shift.
    let slipped: Vec<f64> = behind.iter().map(|(pair, c)| cost_of(pair, c)).collect();
    let none = |of: &[(Pair, [f64; 3])]| of.iter().map(|(_, c)| c[0]).collect::<Vec<_>>();
    let both: Vec<f64> = before.iter().map(|(_, c)| c[2]).collect();
    let after = Lead::of(&slipped, &none(&behind));
    let until = Lead::of(&none(&before), &both);
    // And no other shift may be as good behind it.
    let rest: Vec<Pair> = pairs.iter().filter(|pair| pair.i >= at).copied().collect();
    let only = (-FURTHEST..=FURTHEST)
        .filter(|other| *other != by && *other != 0)
        .all(|other| lead(scan, &rest, by, other).is(0.5 * SURE, 0.0));
    (after.is(ALARM, CLEARLY) && until.is(SURE, SOMEWHAT) && only)
        .then_some((at, after.sure.min(until.sure)))
}

fn judge(frames: &BTreeMap<u64, Frame>) -> Alignment {
    let count = frames.len() as u64;
    let cannot = |why: &str| Alignment {
        verdict: Verdict::CannotTell(why.into()),
        confidence: 0.0,
        frames: count,
    };
    if frames.len() < LEAST {
        return cannot("there are too few frames");
    }
    let Some(mut scan) = Scan::new(frames) else { return cannot("the positions do not differ") };
    let pairs = scan.neighbours();
    scan.weigh(&pairs);
    let found = |verdict, confidence| Alignment { verdict, confidence, frames: count };
    let shifts = || (-FURTHEST..=FURTHEST).filter(|by| *by != 0);
    let slips = shifts().filter_map(|by| slip(&scan, &pairs, by).map(|(at, sure)| (by, at, sure)));
    if let Some((by, at, sure)) = slips.max_by(|a, b| a.2.total_cmp(&b.2)) {
        return found(Verdict::Slips(scan.first + at as u64, -by), sure);
    }
    for by in shifts() {
        let leads: Vec<Lead> = (-FURTHEST..=FURTHEST)
            .filter(|other| *other != by)
            .map(|other| lead(&scan, &pairs, by, other))
            .collect();
        let against_none = lead(&scan, &pairs, by, 0);
        if against_none.is(SURE, CLEARLY) && leads.iter().all(|l| l.is(0.8 * SURE, 0.0)) {
            return found(Verdict::Shifted(-by), against_none.sure);
        }
    }
    let leads: Vec<Lead> = shifts().map(|by| lead(&scan, &pairs, 0, by)).collect();
    if leads.iter().any(|l| l.pairs < LEAST_PAIRS) {
        return cannot("the pattern of the scan hardly changes with a shift");
    }
    let sure = leads.iter().map(|l| l.sure).fold(f64::INFINITY, f64::min);
    match leads.iter().all(|l| l.is(SURE, SOMEWHAT)) {
        true => found(Verdict::Aligned, sure),
        false => cannot("neighbouring frames are not alike enough"),
    }
}

#[cfg(test)]
mod tests;
