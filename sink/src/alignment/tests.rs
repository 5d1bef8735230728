//! Simulated scans: a sample that changes over some steps, a pattern, noise; with and without shifts and slips.

use super::*;
use std::f64::consts::TAU;

/// A small generator, the same everywhere (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.next()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.next()).ln()).sqrt() * (TAU * self.next()).cos()
    }
}

/// A sample: waves of random direction, none shorter than `finest` steps.
struct Sample(Vec<[f64; 4]>);

impl Sample {
    fn new(dice: &mut Dice, finest: f64) -> Self {
        let wave = |_| {
            let (angle, length) = (dice.between(0.0, TAU), dice.between(finest, 5.0 * finest));
            let k = TAU / length;
            [k * angle.sin(), k * angle.cos(), dice.between(0.0, TAU), dice.between(0.3, 1.0)]
        };
        Self((0..24).map(wave).collect())
    }

    /// What a frame shows there: intensity and a gradient, as a centre of mass does.
    fn shows(&self, [y, x]: [f64; 2]) -> [f64; 3] {
        let mut out = [0.0; 3];
        for [ky, kx, phase, height] in &self.0 {
            let angle = ky * y + kx * x + phase;
            out[0] += height * angle.cos();
            out[1] -= height * ky * angle.sin();
            out[2] -= height * kx * angle.sin();
        }
        out
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pattern {
    Raster,
    Snake,
    Round,
    Spiral,
    Random,
}

const ALL: [Pattern; 5] =
    [Pattern::Raster, Pattern::Snake, Pattern::Round, Pattern::Spiral, Pattern::Random];

fn positions(pattern: Pattern, n: usize, dice: &mut Dice) -> Vec<[f64; 2]> {
    let side = (n as f64).sqrt().ceil() as usize;
    let jitter = dice.between(0.0, 0.1);
    let mut at: Vec<[f64; 2]> = (0..n)
        .map(|i| {
            let (row, column) = (i / side, i % side);
            match pattern {
                Pattern::Raster => [row as f64, column as f64],
                Pattern::Snake if row % 2 == 1 => [row as f64, (side - 1 - column) as f64],
                Pattern::Snake => [row as f64, column as f64],
                Pattern::Spiral => {
                    // Fermat's, walked along: turns a step apart.
                    let angle = (2.0 * TAU * i as f64).sqrt();
                    let radius = angle / TAU;
                    [radius * angle.sin(), radius * angle.cos()]
                }
                Pattern::Round => {
                    let (mut ring, mut left) = (0usize, i);
                    while left >= (6 * ring).max(1) {
                        left -= (6 * ring).max(1);
                        ring += 1;
                    }
                    let angle = TAU * left as f64 / (6 * ring).max(1) as f64;
                    [ring as f64 * angle.sin(), ring as f64 * angle.cos()]
                }
                Pattern::Random => [dice.between(0.0, side as f64), dice.between(0.0, side as f64)],
            }
        })
        .collect();
    for p in &mut at {
        *p = p.map(|v| 1e-6 * (v + jitter * dice.normal()));
    }
    at
}

/// A scan whose frame i was taken at position i + `shift(i)`.
fn scan(
    seed: u64,
    pattern: Pattern,
    n: usize,
    noise: f64,
    finest: f64,
    shift: impl Fn(usize) -> i32,
) -> BTreeMap<u64, Frame> {
    let mut dice = Dice(seed);
    let sample = Sample::new(&mut dice, finest);
    let at = positions(pattern, n + 8, &mut dice);
    let drift = dice.between(-0.5, 0.5);
    let taken = |i: usize| at[(i + 4).saturating_add_signed(shift(i) as isize)];
    (0..n)
        .map(|i| {
            let mut signals = sample.shows(taken(i).map(|v| v * 1e6));
            signals[0] += drift * i as f64 / n as f64;
            signals.iter_mut().for_each(|s| *s = 1000.0 + 100.0 * (*s + noise * dice.normal()));
            (i as u64 + 5, Frame { at: at[i + 4], signals })
        })
        .collect()
}

/// Scans of all patterns, sizes, noise and samples, by their seed.
fn drawn(seed: u64) -> (Pattern, usize, f64, f64) {
    let mut dice = Dice(seed ^ 0xa11);
    let pattern = ALL[seed as usize % ALL.len()];
    let n = dice.between(120.0, 1500.0) as usize;
    (pattern, n, dice.between(0.0, 1.2), dice.between(2.0, 8.0))
}

/// Scans and seeds of a longer campaign, where one is asked for.
fn rounds() -> u64 {
    std::env::var("PTYSTREAM_ALIGNMENT_SCANS").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
}

#[test]
fn clean_scans_raise_no_alarm_and_shifts_are_found_where_the_signal_allows() {
    let (mut told, mut found, mut wrong) = (0, 0, Vec::new());
    let mut by_pattern: BTreeMap<String, [u32; 3]> = BTreeMap::new();
    for seed in 0..rounds() {
        let (pattern, n, noise, finest) = drawn(seed);
        let clean = judge(&scan(seed, pattern, n, noise, finest, |_| 0));
        let tally = by_pattern.entry(format!("{pattern:?}")).or_default();
        tally[0] += 1;
        match clean.verdict {
            Verdict::Aligned => {}
            Verdict::CannotTell(_) => continue,
            other => {
                wrong.push(format!("clean {seed} {pattern:?} {n}: {other:?}"));
                continue;
            }
        }
        // The signal allows: the very same scan is told to be aligned.
        tally[1] += 1;
        told += 1;
        let by = [-1, 1, 2, -2][(seed / 5) as usize % 4];
        let shifted = judge(&scan(seed, pattern, n, noise, finest, |_| by));
        match shifted.verdict {
            Verdict::Shifted(k) if k == by => {
                found += 1;
                tally[2] += 1;
            }
            Verdict::CannotTell(_) => {}
            other => wrong.push(format!("{seed} {pattern:?} {n} {by}: {other:?}")),
        }
    }
    eprintln!("{told} of {} told, {found} shifts found; {by_pattern:?}", rounds());
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(told * 3 >= rounds(), "{told} scans are told at all");
    assert!(found * 100 >= told * 95, "{found} of {told} shifts are found");
}

#[test]
fn slips_are_found_where_they_are() {
    let (mut told, mut found, mut misplaced, mut wrong) = (0, 0, 0, Vec::new());
    for seed in 0..rounds() {
        let (pattern, n, noise, finest) = drawn(seed);
        let at = (n as f64 * Dice(seed ^ 0x511b).between(0.3, 0.7)) as usize;
        // The signal allows: both parts alone are told to be aligned.
        let mut before = scan(seed, pattern, n, noise, finest, |_| 0);
        let behind = before.split_off(&(at as u64 + 5));
        if [before, behind].iter().any(|part| judge(part).verdict != Verdict::Aligned) {
            continue;
        }
        told += 1;
        let by = if seed % 2 == 0 { 1 } else { -1 };
        let slipped =
            judge(&scan(seed, pattern, n, noise, finest, |i| if i < at { 0 } else { by }));
        match slipped.verdict {
            Verdict::Slips(index, k) if k == by => {
                let off = (index as i64 - 5 - at as i64).abs();
                found += 1;
                misplaced += usize::from(off as usize > 4 + n / 20);
            }
            Verdict::CannotTell(_) | Verdict::Aligned => {}
            other => wrong.push(format!("{seed} {pattern:?} {n} at {at}: {other:?}")),
        }
    }
    eprintln!("{told} told, {found} slips found, {misplaced} misplaced");
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(found * 100 >= told * 95, "{found} of {told} slips are found");
    assert!(misplaced * 100 <= found, "{misplaced} of {found} are misplaced");
}

#[test]
fn what_says_nothing_is_not_judged() {
    let verdict = |frames: &BTreeMap<u64, Frame>| judge(frames).verdict;
    let few = scan(1, Pattern::Snake, 30, 0.0, 4.0, |_| 0);
    assert!(matches!(verdict(&few), Verdict::CannotTell(why) if why.contains("few")));
    let mut still = scan(1, Pattern::Snake, 300, 0.0, 4.0, |_| 0);
    still.values_mut().for_each(|f| f.at = [1.0, 1.0]);
    assert!(matches!(verdict(&still), Verdict::CannotTell(why) if why.contains("differ")));
    let noise = scan(1, Pattern::Snake, 300, 100.0, 4.0, |_| 0);
    assert!(matches!(verdict(&noise), Verdict::CannotTell(_)));
    let mut dark = scan(1, Pattern::Snake, 300, 0.0, 4.0, |_| 0);
    dark.values_mut().for_each(|f| f.signals = [0.0, f64::NAN, f64::NAN]);
    assert!(matches!(verdict(&dark), Verdict::CannotTell(_)));
}
