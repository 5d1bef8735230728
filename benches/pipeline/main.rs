//! Frames a second of the whole program against the floor of the same work.
//!
//! `run` and three kinds of processes over ipc and tcp, with two workers each, prepare frames of
//! 512 x 512 u16 from the page cache into a file in memory. The floor does the same work with the
//! same kernel and nothing around it: threads, plain sockets, write(2). Floor and program take
//! turns, and the ratio is that of their medians.
//!
//! The floor reads and sends whole frames. Where frames are cropped the program does not, so that there a
//! second floor, `floor*`, reads and sends no more than is kept either.
//!
//! ```text
//! cargo bench --bench pipeline [-- WORD...]    only rows in whose name every WORD stands
//! PTYSTREAM_BENCH_SECS=3                       how long the floor works in each round
//! PTYSTREAM_BENCH_ROUNDS=3                     how often
//! PTYSTREAM_BENCH_FOLDER=/dev/shm              where frames and files lie
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod floor;
mod program;
mod sample;
mod scan;
mod usage;

use floor::Extent;
use sample::{Sample, median};
use scan::{CASES, Case, Folder};

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One process: workers read the frames themselves.
    Run,
    /// Processes that send pixels through Unix sockets.
    Ipc,
    /// Processes that send pixels through TCP.
    Tcp,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Ipc => "ipc",
            Self::Tcp => "tcp",
        }
    }

    /// The least ratio that the project has set itself.
    fn aim(self) -> Option<f64> {
        match self {
            Self::Run => Some(0.7),
            Self::Ipc => Some(0.6),
            Self::Tcp => None,
        }
    }
}

fn number(name: &str, default: f64) -> f64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}

fn main() {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let first = args.next();
    if first.as_deref() == Some(floor::ROLE) {
        return floor::role(&args.collect::<Vec<_>>());
    }
    let words: Vec<String> = first.into_iter().chain(args).collect();
    let secs = number("PTYSTREAM_BENCH_SECS", 3.0);
    let rounds = number("PTYSTREAM_BENCH_ROUNDS", 3.0).max(1.0) as usize;
    let folder = Folder::make();
    println!(
        "{} cores, 2 workers, {rounds} rounds of about {secs} s, frames and files in {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        folder.root().display()
    );
    println!("frames/s: from the first result to the complete file; ratio: program / floor");
    println!("CPU: user and system, whole process, ms a frame; memory: highest resident, MiB");
    for case in CASES {
        let wanted = |way: &Way| {
            let name = format!("{} {}", case.name(), way.name());
            words.iter().all(|word| name.contains(word.as_str()))
        };
        let ways: Vec<Way> = [Way::Run, Way::Ipc, Way::Tcp].into_iter().filter(wanted).collect();
        if !ways.is_empty() {
            compare(&folder, case, &ways, secs, rounds);
        }
    }
}

fn compare(folder: &Folder, case: &Case, ways: &[Way], secs: f64, rounds: usize) {
    let trial = floor::measure(folder, case, Way::Run, 400, Extent::Whole);
    let frames = folder.at_most(case, (trial.rate() * secs) as u64);
    folder.set_points(frames);
    println!("\nu16 512² -> 256², {}: {frames} frames", case.name());
    println!(
        "{:<5}{:>10}{:>10}{:>7}{:>10}{:>7}   {:<38}   {:<30}",
        "",
        "frames/s",
        "floor",
        "ratio",
        "floor*",
        "ratio*",
        "CPU of the program | of the floor",
        "memory of the program"
    );
    for &way in ways {
        let (mut floors, mut keepers, mut programs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            floors.push(floor::measure(folder, case, way, frames, Extent::Whole));
            programs.push(program::measure(folder, case, way, frames));
            if !case.corrected {
                keepers.push(floor::measure(folder, case, way, frames, Extent::Kept));
            }
        }
        let (floor, program) = (median(floors), median(programs));
        let ratio = program.rate() / floor.rate();
        let [keeper, other] = match keepers.is_empty() {
            true => [String::new(), String::new()],
            false => {
                let rate = median(keepers).rate();
                [format!("{rate:.0}"), format!("{:.2}", program.rate() / rate)]
            }
        };
        let mark = match way.aim() {
            Some(aim) if ratio < aim => format!("  below the aim of {aim}"),
            _ => String::new(),
        };
        println!(
            "{:<5}{:>10.0}{:>10.0}{:>7.2}{keeper:>10}{other:>7}   {:<38}   {:<30}{mark}",
            way.name(),
            program.rate(),
            floor.rate(),
            ratio,
            format!("{} | {}", program.cpu(), floor.cpu()),
            program.memory(),
        );
    }
}

/// Unites what one run of `frames` frames took.
fn sample(frames: u64, secs: f64, roles: Vec<(&'static str, usage::Usage)>) -> Sample {
    Sample { frames, secs, roles }
}
