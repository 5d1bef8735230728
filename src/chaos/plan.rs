//! What is done for a seed: the scan, the roles, and which faults strike when.
//!
//! A pure function of the seed and of the kinds of fault that are allowed.

use super::dice::Dice;
use super::faults::Kind;
use serde::Serialize;
use std::fmt;

/// A process of the scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The producer.
    Producer,
    /// The sink.
    Sink,
    /// A worker by its number.
    Worker(usize),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Producer => f.write_str("producer"),
            Self::Sink => f.write_str("sink"),
            Self::Worker(n) => write!(f, "w{n}"),
        }
    }
}

/// A connection between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hop {
    /// From a worker to the producer.
    WorkerProducer(usize),
    /// From a worker to the sink.
    WorkerSink(usize),
    /// From the sink to the producer.
    SinkProducer,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerProducer(n) => write!(f, "w{n}-producer"),
            Self::WorkerSink(n) => write!(f, "w{n}-sink"),
            Self::SinkProducer => f.write_str("sink-producer"),
        }
    }
}

/// Where a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A process.
    Role(Role),
    /// A connection.
    Hop(Hop),
    /// The file system of the file.
    Disk,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// When: so many thousandths of the scan's results are on their way to the sink.
    pub at: u64,
    /// What.
    pub kind: Kind,
    /// Where.
    pub target: Target,
    /// How long it lasts, or how long a killed process is away, milliseconds.
    pub millis: u64,
    /// How many messages it is about.
    pub messages: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        match self.target {
            Target::Role(role) => write!(f, " {role}")?,
            Target::Hop(hop) => write!(f, " {hop}")?,
            Target::Disk => {}
        }
        write!(f, " @{}.{}%", self.at / 10, self.at % 10)
    }
}

/// The scan of a seed and how its roles are run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// Frames of the scan.
    pub frames: u64,
    /// Extent of a raw frame, rows and columns.
    pub raw: u64,
    /// Region of interest, rows and columns.
    pub shape: u64,
    /// `data.rebin`.
    pub rebin: u64,
    /// `data.orientation`.
    pub orientation: u64,
    /// Whether the centre is measured.
    pub auto_center: bool,
    /// Whether weights differ from frame to frame.
    pub own_weights: bool,
    /// `data.save`.
    pub save: &'static str,
    /// `pipeline.live`.
    pub live: bool,
    /// `data.load_parallel`.
    pub parallel: &'static str,
    /// `pipeline.frames_per_chunk`.
    pub per_chunk: u64,
    /// `pipeline.batch`.
    pub batch: u64,
    /// `pipeline.compression`.
    pub compression: &'static str,
    /// Milliseconds between two masters.
    pub publish_millis: u64,
    /// Milliseconds after which a chunk closes before it is full, if ever.
    pub flush_millis: Option<u64>,
    /// Tickets that a worker holds.
    pub window: u64,
    /// Number of worker processes.
    pub workers: usize,
    /// `tcp` or `ipc`.
    pub link: &'static str,
    /// Milliseconds in which the results of an undisturbed scan pass.
    pub pace_millis: u64,
}

impl Setup {
    /// Returns the number of results of an undisturbed scan.
    pub fn results(&self) -> u64 {
        let batches = |frames: u64| frames.div_ceil(self.batch);
        batches(self.per_chunk) * (self.frames / self.per_chunk)
            + batches(self.frames % self.per_chunk)
    }

    /// Tells whether a reader can follow the file while it grows.
    pub fn can_be_followed(&self) -> bool {
        self.save == "link" || self.live
    }

    /// Writes the configuration; the file's name is relative to the working folder.
    pub fn config(&self, dfile: &str) -> String {
        let Self { frames, raw, shape, rebin, orientation, save, parallel, .. } = self;
        let bad = if self.own_weights { "bad_values = [65535]\n" } else { "" };
        let center = if self.auto_center { "auto_center = true\n" } else { "" };
        let flush = self.flush_millis.map(|ms| format!("flush_after_secs = {}\n", ms as f64 / 1e3));
        let flush = flush.unwrap_or_default();
        format!(
            "[data]\nname = 'moonflower'\nnum_frames = {frames}\nrepeat = 12\nseed = 3\n\
             raw_shape = {raw}\nshape = {shape}\nrebin = {rebin}\norientation = {orientation}\n\
             dtype = 'uint16'\nphotons = 1e8\nenergy = 6.2\ndistance = 7.0\npsize = 0.000172\n\
             load_parallel = '{parallel}'\nsave = '{save}'\ndfile = '{dfile}'\n{center}\
             [pipeline]\nframes_per_chunk = {}\nbatch = {}\ncompression = '{}'\nlive = {}\n\
             publish_interval_secs = {}\nparts_linger_secs = 1.0\nwindow = {}\n\
             peer_timeout_secs = {PEER_TIMEOUT_SECS}\nstraggler_secs = 1.0\n{bad}{flush}",
            self.per_chunk,
            self.batch,
            self.compression,
            self.live,
            self.publish_millis as f64 / 1e3,
            self.window,
        )
    }
}

/// How long roles wait for each other: longer than any fault lasts.
pub const PEER_TIMEOUT_SECS: u64 = 15;
/// After this silence a role takes another for dead, where it can.
pub const DEAD_AFTER_MILLIS: u64 = 1000;

impl fmt::Display for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { save, link, workers, frames, per_chunk, batch, .. } = self;
        let live = if self.live { " live" } else { "" };
        let load = if self.parallel == "None" { "" } else { " workers read" };
        let center = if self.auto_center { " auto_center" } else { "" };
        let flush = if self.flush_millis.is_some() { " flush" } else { "" };
        write!(
            f,
            "{save}{live} {link}{load}{center}{flush} x{workers}, {frames}/{per_chunk}/{batch}"
        )
    }
}

/// Everything that follows from a seed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Which one.
    pub seed: u64,
    /// The scan and its roles.
    pub setup: Setup,
    /// The faults, in the order in which they strike.
    pub steps: Vec<Step>,
    /// Whether a finished file with other parameters is there before.
    pub again: bool,
    /// Whether the file lies on a small file system of its own.
    pub small_disk: bool,
}

impl Plan {
    /// Makes the plan of a seed out of the kinds of fault that are allowed.
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        let mut dice = Dice::new(seed);
        let setup = setup(&mut dice);
        let again = kinds.contains(&Kind::Again) && dice.chance(20);
        let kinds: Vec<Kind> = kinds.iter().copied().filter(|k| *k != Kind::Again).collect();
        let count = if kinds.is_empty() { 0 } else { dice.from(1, 4) };
        let mut steps: Vec<Step> =
            (0..count).map(|_| step(&mut dice, &kinds, setup.workers)).collect();
        steps.sort_by_key(|s| s.at);
        let small_disk = steps.iter().any(|s| s.kind == Kind::Disk);
        Self { seed, setup, steps, again, small_disk }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} |", self.setup)?;
        if self.again {
            f.write_str(" again;")?;
        }
        let steps: Vec<String> = self.steps.iter().map(ToString::to_string).collect();
        write!(f, " {}", steps.join("; "))
    }
}

fn setup(dice: &mut Dice) -> Setup {
    let save = dice.one(&["link", "link", "append", "append", "merge"]);
    let frames = dice.from(64, 300);
    let per_chunk = match dice.from(0, 5) {
        0 => frames,
        1 => dice.one(&[16, 32]),
        _ => dice.from(7, 50),
    };
    let rebin = dice.one(&[1, 2, 4]);
    Setup {
        frames,
        raw: dice.one(&[40, 48, 64]),
        shape: dice.one(&[32, 48]),
        rebin,
        orientation: dice.from(0, 7),
        auto_center: dice.chance(30),
        own_weights: dice.chance(40),
        save,
        live: save == "append" && dice.chance(60),
        parallel: dice.one(&["None", "data"]),
        per_chunk,
        batch: dice.from(1, 6),
        compression: dice.one(&["gzip:1", "none", "gzip:4"]),
        publish_millis: dice.one(&[0, 50, 200]),
        window: dice.one(&[1, 2, 4, 8]),
        workers: dice.from(1, 4) as usize,
        link: dice.one(&["tcp", "ipc"]),
        pace_millis: dice.from(700, 1500),
        flush_millis: dice.chance(25).then(|| dice.one(&[0, 20, 100])),
    }
}

fn step(dice: &mut Dice, kinds: &[Kind], workers: usize) -> Step {
    let kind = dice.one(kinds);
    let worker = dice.from(0, workers as u64 - 1) as usize;
    let role = dice.one(&[Role::Producer, Role::Sink, Role::Worker(worker)]);
    let hop = dice.one(&[Hop::WorkerProducer(worker), Hop::WorkerSink(worker), Hop::SinkProducer]);
    // Only what goes to the sink, or from it to the producer, may come twice or change places.
    let upward = dice.one(&[Hop::WorkerSink(worker), Hop::SinkProducer]);
    let pixels = dice.one(&[Hop::WorkerProducer(worker), Hop::WorkerSink(worker)]);
    let (short, long) =
        (dice.from(100, DEAD_AFTER_MILLIS / 2), DEAD_AFTER_MILLIS + dice.from(500, 1500));
    let (target, millis) = match kind {
        Kind::Kill | Kind::Term => (Target::Role(role), dice.from(0, 500)),
        Kind::Stop => (Target::Role(role), short),
        Kind::Freeze => (Target::Role(role), long),
        Kind::Reset | Kind::Tear | Kind::Half => (Target::Hop(hop), 0),
        Kind::Stall => (Target::Hop(hop), short),
        Kind::Blackout => (Target::Hop(hop), long),
        Kind::Delay => (Target::Hop(hop), dice.from(300, 1000)),
        Kind::Repeat | Kind::Swap => (Target::Hop(upward), 0),
        Kind::Flip => (Target::Hop(pixels), 0),
        Kind::Disk | Kind::Again => (Target::Disk, dice.from(500, 1500)),
    };
    // What comes damaged eight times is a gap, as it should be.
    let most = if kind == Kind::Flip { 3 } else { 10 };
    Step { at: dice.from(20, 950), kind, target, millis, messages: dice.from(1, most) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::faults::TABLE;
    use std::collections::BTreeSet;

    fn all() -> Vec<Kind> {
        TABLE.iter().map(|r| r.kind).collect()
    }

    #[test]
    fn a_seed_always_gives_the_same_plan() {
        for seed in 0..50 {
            assert_eq!(Plan::new(seed, &all()), Plan::new(seed, &all()));
            assert_ne!(Plan::new(seed, &all()), Plan::new(seed + 1, &all()));
        }
    }

    #[test]
    fn seeds_reach_every_kind_of_fault_and_of_scan() {
        let plans: Vec<Plan> = (0..300).map(|seed| Plan::new(seed, &all())).collect();
        let kinds: BTreeSet<String> =
            plans.iter().flat_map(|p| &p.steps).map(|s| s.kind.to_string()).collect();
        assert_eq!(kinds.len(), TABLE.len() - 1, "{kinds:?}");
        assert!(plans.iter().any(|p| p.again) && plans.iter().any(|p| !p.again));
        let scans: BTreeSet<String> = plans
            .iter()
            .map(|p| format!("{} {} {}", p.setup.save, p.setup.live, p.setup.parallel))
            .collect();
        assert_eq!(scans.len(), 8, "{scans:?}");
    }

    #[test]
    fn faults_that_are_left_out_do_not_strike() {
        for seed in 0..100 {
            let plan = Plan::new(seed, &[Kind::Kill]);
            assert!(plan.steps.iter().all(|s| s.kind == Kind::Kill) && !plan.again);
            assert!(Plan::new(seed, &[Kind::Again]).steps.is_empty());
        }
    }

    #[test]
    fn results_are_counted_by_chunk() {
        let mut setup = Plan::new(0, &[]).setup;
        (setup.frames, setup.per_chunk, setup.batch) = (100, 30, 7);
        assert_eq!(setup.results(), 3 * 5 + 2);
        (setup.frames, setup.per_chunk, setup.batch) = (60, 30, 30);
        assert_eq!(setup.results(), 2);
    }
}
