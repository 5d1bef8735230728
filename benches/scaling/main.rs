//! What more workers bring, how fast small frames are, and what ranks cost that wait.
//!
//! This program is also the roles that it starts: its registry has a source that gives frames out of
//! memory, as late as it is told to.
//!
//! ```text
//! cargo bench --bench scaling [--features mpi] [-- PART...]   workers, small, idle; all by default
//! PTYSTREAM_BENCH_FOLDER=/dev/shm                             where files lie
//! PTYSTREAM_BENCH_CHART=docs/scaling.svg                      where the chart is written
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod chart;
#[cfg(feature = "mpi")]
#[path = "../../tests/support/mpirun.rs"]
mod mpirun;
mod source;

use chart::Point;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

/// Set in the environment of the processes that are roles.
const ROLE: &str = "PTYSTREAM_BENCH_ROLE";

/// How long a frame takes where workers are limited by latency.
const DELAY_MS: f64 = 20.0;
/// So long a run is meant to last.
const SECS: f64 = 8.0;
/// The least share of the ideal that the project has set itself.
const SHARE: f64 = 0.95;
/// The least rate of small frames that it has set itself, frames a second.
const SMALL: f64 = 20_000.0;

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return ptystream::app::main_with(source::registry());
    }
    let parts: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let wanted = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    let base = std::env::var("PTYSTREAM_BENCH_FOLDER").unwrap_or_else(|_| "/dev/shm".into());
    let folder = tempfile::Builder::new().prefix("ptystream-scaling-").tempdir_in(base).unwrap();
    println!(
        "{} cores, files in {}",
        std::thread::available_parallelism().map_or(1, usize::from),
        folder.path().display()
    );
    if wanted("workers") {
        workers(folder.path());
    }
    if wanted("small") {
        small(folder.path());
    }
    if wanted("idle") {
        idle(folder.path());
    }
    ExitCode::SUCCESS
}

/// One scan.
struct Trial {
    frames: u64,
    workers: usize,
    set: Vec<String>,
}

impl Trial {
    fn new(frames: u64, workers: usize, set: &[&str]) -> Self {
        let mut all: Vec<String> = [
            "data.name=memory",
            "data.auto_center=false",
            "data.energy=6.2",
            "data.distance=7",
            "data.psize=1e-4",
            "data.save=link",
            "data.dfile=out.ptyd",
            "pipeline.compression=none",
            "pipeline.dtype=uint16",
            "pipeline.force=true",
        ]
        .map(str::to_owned)
        .into();
        all.extend(set.iter().map(|s| (*s).to_owned()));
        all.push(format!("data.num_frames={frames}"));
        Self { frames, workers, set: all }
    }

    fn args(&self) -> Vec<String> {
        let set = self.set.iter().flat_map(|s| ["--set".to_owned(), s.clone()]);
        ["scan.toml".to_owned(), "--quiet".into(), "--report".into(), "report.json".into()]
            .into_iter()
            .chain(set)
            .collect()
    }

    /// Runs it through producer, workers and sink over ipc; returns frames a second from the first
    /// result to the complete file.
    fn run(&self, folder: &Path) -> f64 {
        std::fs::write(folder.join("scan.toml"), "[data]\n").unwrap();
        let at = |name: &str| format!("ipc://{}", folder.join(name).display());
        let (tickets, results) = (at("p"), at("s"));
        let start = |args: &[String]| -> Child {
            Command::new(std::env::current_exe().unwrap())
                .env(ROLE, "1")
                .env("PTYSTREAM_LOG", "warn")
                .args(args)
                .current_dir(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let words = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let worker = words(&["worker", "--producer", &tickets, "--sink", &results]);
        let mut roles = vec![start(&words(&["sink", "--producer", &tickets, "--bind", &results]))];
        roles.extend((0..self.workers).map(|_| start(&worker)));
        // All workers are there when the scan begins.
        std::thread::sleep(Duration::from_millis(300 + 40 * self.workers as u64));
        let mut producer = words(&["producer", "--bind", &tickets]);
        producer.extend(self.args());
        roles.push(start(&producer));
        for mut role in roles {
            let status = role.wait().unwrap();
            assert!(status.success(), "a role ended with {status}");
        }
        self.rate(folder)
    }

    fn rate(&self, folder: &Path) -> f64 {
        let text = std::fs::read_to_string(folder.join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["frames"]["received"], self.frames, "{text}");
        self.frames as f64 / report["times"]["sink_secs"].as_f64().unwrap()
    }
}

/// Workers that wait most of their time: how near to the ideal so many come.
fn workers(folder: &Path) {
    println!("\n{DELAY_MS} ms a frame: frames/s of workers, each a process, over ipc");
    println!("{:>8}{:>12}{:>12}{:>8}", "workers", "frames/s", "ideal", "share");
    let mut points = Vec::new();
    for workers in [1, 2, 4, 8, 16, 32] {
        let ideal = workers as f64 * 1e3 / DELAY_MS;
        let delay = format!("data.delay_ms={DELAY_MS}");
        let frames = (ideal * SECS) as u64;
        let trial = Trial::new(frames, workers, &[&delay, "data.shape=64", "pipeline.batch=1"]);
        let rate = trial.run(folder);
        let mark = if rate < SHARE * ideal {
            format!("  below the aim of {SHARE}")
        } else {
            String::new()
        };
        println!("{workers:>8}{rate:>12.0}{ideal:>12.0}{:>8.3}{mark}", rate / ideal);
        points.push(Point { workers, rate, ideal });
    }
    let path: PathBuf = std::env::var_os("PTYSTREAM_BENCH_CHART").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.svg"),
        PathBuf::from,
    );
    let title = format!("{DELAY_MS} ms a frame, over ipc");
    std::fs::write(&path, chart::draw(&title, &points)).unwrap();
    println!("chart: {}", path.display());
}

/// Small frames, whose cost is that of messages and not of pixels.
fn small(folder: &Path) {
    println!("\n64² u16 frames, not compressed: frames/s of two workers over ipc (aim {SMALL})");
    println!("{:<20}{:>8}{:>10}", "", "a chunk", "frames/s");
    for (reads, load_parallel) in [("workers read", "data"), ("the producer reads", "None")] {
        // A chunk is a file: 40 by default, so that readers of a live scan need not wait.
        for chunk in [40, 1024] {
            let parallel = format!("data.load_parallel={load_parallel}");
            let chunks = format!("pipeline.frames_per_chunk={chunk}");
            let set = ["data.shape=64", &parallel, &chunks];
            let mut rates: Vec<f64> =
                (0..3).map(|_| Trial::new(200_000, 2, &set).run(folder)).collect();
            rates.sort_by(f64::total_cmp);
            let mark = if rates[1] < SMALL { "  below the aim" } else { "" };
            println!(
                "{reads:<20}{chunk:>8}{:>10.0}   ({:.0} to {:.0}){mark}",
                rates[1], rates[0], rates[2]
            );
        }
    }
}

/// Ranks that wait: what share of a core each takes.
#[cfg(feature = "mpi")]
fn idle(folder: &Path) {
    const RATE: u64 = 2;
    const RANKS: u32 = 4;
    println!("\nMPI ranks at {RATE} frames/s: % of a core");
    let frames = RATE * 20;
    let config = format!(
        "[data]\nname = 'moonflower'\nnum_frames = {frames}\nshape = 64\nlive = true\nrate = {RATE}\n\
         dfile = 'idle.ptyd'\nsave = 'append'\n"
    );
    std::fs::write(folder.join("idle.toml"), config).unwrap();
    let job = Command::new("mpirun")
        .env(ROLE, "1")
        .envs(mpirun::ENVIRONMENT)
        .args(["-n", &RANKS.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["run", "idle.toml", "--quiet"])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    let Ok(mut job) = job else {
        println!("skipped: there is no mpirun");
        return;
    };
    std::thread::sleep(Duration::from_secs(4));
    let path = format!("/proc/{0}/task/{0}/children", job.id());
    let ranks: Vec<u32> = std::fs::read_to_string(path)
        .unwrap()
        .split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect();
    let ticks = || -> Vec<f64> { ranks.iter().map(|id| ticks(*id)).collect() };
    let (before, seconds) = (ticks(), 10.0);
    std::thread::sleep(Duration::from_secs_f64(seconds));
    // SAFETY: it takes a number and returns one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    for (rank, (after, before)) in ticks().iter().zip(&before).enumerate() {
        let share = (after - before) / per_second / seconds * 100.0;
        let mark = if share >= 10.0 { "  above the aim of 10" } else { "" };
        println!("rank {rank}{share:>8.1}{mark}");
    }
    assert!(job.wait().unwrap().success());
}

#[cfg(not(feature = "mpi"))]
fn idle(_: &Path) {
    println!("\nskipped: idle MPI ranks, because this is built without the feature mpi");
}

/// Returns the time of a process in ticks, user and system.
#[cfg(feature = "mpi")]
fn ticks(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let after = stat.rsplit_once(')').unwrap().1;
    after.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().unwrap()).sum()
}
