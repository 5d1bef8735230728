//! Every golden case and a real scan end to end: in one process, through producer, worker and sink
//! over ipc, and, with the feature `mpi`, those of several ranks over as many.
//!
//! This program is its own test harness, because it is also the roles that it starts: its sources
//! include one that serves the goldens' raw frames as ptypy's classes did in Python. It is a role
//! where the environment variable [`ROLE`] is set.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod case;
#[cfg(feature = "mpi")]
#[path = "../support/mpirun.rs"]
mod mpirun;
mod petra;
mod roles;
mod source;
mod trial;
mod verdict;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use trial::Way;

/// Set in the environment of the processes that are roles.
const ROLE: &str = "PTYSTREAM_GOLDENS_ROLE";

/// Most tests that run at a time: they wait for each other's processes more than they compute.
const AT_ONCE: usize = 4;

/// In the names of tests that run through three processes.
const PROCESSES: &str = "three_processes";

type Run = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A test, or the reason why it is left out.
struct Test {
    name: String,
    run: Result<Run, String>,
}

fn main() -> ExitCode {
    if std::env::var_os(ROLE).is_some() {
        return ptystream::app::main_with(source::registry());
    }
    let (flags, filters): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with('-'));
    let wanted = |t: &Test| filters.is_empty() || filters.iter().any(|f| t.name.contains(f));
    let tests: Vec<Test> = tests().into_iter().filter(wanted).collect();
    if flags.iter().any(|f| f == "--list") {
        tests.iter().for_each(|t| println!("{}: test", t.name));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", tests.len());
    let started = std::time::Instant::now();
    let failed = Mutex::new(Vec::new());
    let left_out = tests.iter().filter(|t| t.run.is_err()).count();
    // Processes inherit the files that HDF5 has open when they start, so nothing is written in
    // this process while others are started.
    let (starting, staying): (Vec<&Test>, Vec<&Test>) = tests.iter().partition(|t| {
        t.name.contains(PROCESSES) || t.name.contains("ranks::") || t.name.starts_with("petra")
    });
    for group in [staying, starting] {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(test) = group.get(next.fetch_add(1, Ordering::Relaxed)) {
                        run(test, &failed);
                    }
                });
            }
        });
    }
    let failed = failed.into_inner().unwrap();
    if !failed.is_empty() {
        println!("\nfailures:\n\n{}", failed.join("\n"));
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {left_out} ignored; 0 measured; 0 filtered out; \
         finished in {:.2}s\n",
        if failed.is_empty() { "ok" } else { "FAILED" },
        tests.len() - failed.len() - left_out,
        failed.len(),
        started.elapsed().as_secs_f64()
    );
    ExitCode::from(if failed.is_empty() { 0 } else { 101 })
}

fn run(test: &Test, failed: &Mutex<Vec<String>>) {
    let name = &test.name;
    let result = match &test.run {
        Err(reason) => {
            println!("test {name} ... ignored, {reason}");
            return;
        }
        Ok(run) => catch_unwind(AssertUnwindSafe(run))
            .unwrap_or_else(|_| Err("it panicked, as said above".into())),
    };
    println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
    if let Err(text) = result {
        failed.lock().unwrap().push(format!("---- {name} stdout ----\n{text}\n"));
    }
}

fn tests() -> Vec<Test> {
    goldens().into_iter().chain(real()).collect()
}

fn real() -> Vec<Test> {
    let reads = [
        ("run", petra::Reads::Run),
        ("three_processes::the_worker_reads", petra::Reads::Worker),
        ("three_processes::the_producer_reads", petra::Reads::Producer),
    ];
    let absent = petra::root().is_none();
    let test = |(name, reads): (&str, petra::Reads)| Test {
        name: format!("petra::{name}"),
        run: match absent {
            true => Err("../shared is absent".to_owned()),
            false => Ok(Box::new(move || petra::run(reads))),
        },
    };
    reads.into_iter().map(test).collect()
}

fn goldens() -> Vec<Test> {
    if case::root().is_none() {
        let reason = "../shared is absent".to_owned();
        return vec![Test { name: "goldens".into(), run: Err(reason) }];
    }
    let mut tests = vec![Test {
        name: "goldens::deviations_are_documented".into(),
        run: Ok(Box::new(documented)),
    }];
    for (way, prefix) in [(Way::InProcess, "in_process"), (Way::Processes, PROCESSES)] {
        for case in case::all() {
            let waiting = verdict::WAITING.iter().find(|w| w.0 == case.name);
            if let Some((_, reason)) = waiting {
                let name = format!("goldens::{prefix}::{}", case.name);
                tests.push(Test { name, run: Err((*reason).to_owned()) });
                continue;
            }
            for trial in verdict::trials(case) {
                let compat = if trial.compat { "::compat_ptypy" } else { "" };
                tests.push(Test {
                    name: format!("goldens::{prefix}::{}{compat}", case.name),
                    run: Ok(Box::new(move || trial::run(case, trial, way))),
                });
            }
        }
    }
    #[cfg(feature = "mpi")]
    tests.extend(over_ranks());
    tests
}

/// The cases that ptypy made under MPI, on as many ranks.
#[cfg(feature = "mpi")]
fn over_ranks() -> impl Iterator<Item = Test> {
    let ranks = |name: &str| -> Option<usize> {
        let (_, rest) = name.split_once("mpi")?;
        rest.split('_').next()?.parse().ok()
    };
    let cases = case::all().iter().filter_map(move |case| Some((case, ranks(&case.name)?)));
    cases.flat_map(|(case, ranks)| {
        verdict::trials(case).into_iter().map(move |trial| Test {
            name: format!(
                "goldens::ranks::{}{}",
                case.name,
                if trial.compat { "::compat_ptypy" } else { "" }
            ),
            run: Ok(Box::new(move || trial::run(case, trial, Way::Ranks(ranks)))),
        })
    })
}

/// Holds the lists of this test against the documentation: neither has a case that the other
/// lacks.
fn documented() -> Result<(), String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/deviations.md");
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let rows = text.lines().filter(|l| l.starts_with("| `"));
    let first = rows.filter_map(|l| l.split('|').nth(1));
    let known: BTreeSet<&str> = case::all().iter().map(|c| c.name.as_str()).collect();
    let told: BTreeSet<&str> = first
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| known.contains(name))
        .collect();
    let listed: BTreeSet<&str> = (verdict::DEVIATIONS.iter().map(|d| d.0))
        .chain(verdict::UNEVEN.iter().copied())
        .chain(verdict::OTHER_NAMES.iter().copied())
        .chain(verdict::WAITING.iter().map(|w| w.0))
        .chain(["no_eos_call"])
        .collect();
    let difference: Vec<_> = told.symmetric_difference(&listed).collect();
    match difference.is_empty() {
        true => Ok(()),
        false => Err(format!("docs/deviations.md and the test do not both list {difference:?}")),
    }
}
