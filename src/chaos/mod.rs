//! `ptystream chaos`: real scans under faults that follow from a seed.
//!
//! | module | what it holds |
//! |---|---|
//! | [`plan`] | what is done for a seed, a pure function of it |
//! | [`faults`] | the kinds of fault and their names |
//! | [`trial`] | one seed from its plan to the verdict: read first |
//! | [`actor`], [`proxy`], [`small_disk`] | processes, connections and a disk to which things happen |
//! | [`reader`], [`watch`] | a reader that follows the file meanwhile, as ptypy does |
//! | [`check`] | what the file is compared with |
//! | [`zmtp`], [`stream`], [`ports`], [`dice`] | what these stand on |

pub mod actor;
pub mod check;
pub mod dice;
pub mod faults;
pub mod plan;
pub mod ports;
pub mod proxy;
pub mod reader;
pub mod small_disk;
pub mod stream;
pub mod trial;
pub mod watch;
pub mod zmtp;

use crate::cli::ChaosArgs;
use faults::{Kind, Needs, TABLE};
use plan::Plan;
use ptystream_common::error::{Failure, Kind as FailureKind};
use ptystream_common::shutdown::Shutdown;
use small_disk::SmallDisk;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use trial::Outcome;

/// What all seeds of a campaign share.
#[derive(Debug)]
pub struct Ground {
    /// The program whose roles are run.
    pub program: PathBuf,
    /// Where the folders of the seeds stand.
    pub folder: PathBuf,
    /// Where sockets stand: their paths have to be short.
    pub sockets: PathBuf,
    /// Whether roles can be told after which silence another is dead.
    pub knows_dead_after: bool,
    /// Ends the campaign.
    pub shutdown: Shutdown,
}

/// Runs a campaign; `say` gets a line a seed. Returns whether all went well.
///
/// # Errors
/// If the campaign cannot be run at all, or was interrupted.
pub fn run(
    args: &ChaosArgs,
    shutdown: &Shutdown,
    say: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let harness =
        |what: &str, e: std::io::Error| Failure::new(FailureKind::Output, format!("{what}: {e}"));
    let program =
        std::env::current_exe().map_err(|e| harness("the program cannot find itself", e))?;
    let own = std::env::temp_dir().join(format!("ptystream-chaos-{}", std::process::id()));
    let folder = args.folder.clone().unwrap_or_else(|| own.clone());
    let sockets = own.join("s");
    for path in [&folder, &sockets] {
        std::fs::create_dir_all(path)
            .map_err(|e| harness(&format!("cannot make {}", path.display()), e))?;
    }
    // Roles run in other folders.
    let folder = folder
        .canonicalize()
        .map_err(|e| harness(&format!("cannot find {}", folder.display()), e))?;
    let knows_dead_after =
        ["producer", "worker", "sink"].iter().all(|role| knows(&program, role, "--dead-after"));
    let ground = Ground { program, folder, sockets, knows_dead_after, shutdown: shutdown.clone() };
    let kinds = kinds(&args.faults, &ground, say)?;
    let failed = campaign(args, &kinds, &ground, say);
    // What is not there, or still has the folder of a seed in it, need not or must not go.
    let _ = std::fs::remove_dir_all(&ground.sockets);
    let _ = std::fs::remove_dir(&own);
    let failed = failed?;
    if shutdown.is_begun() {
        return Err(Failure::new(FailureKind::Aborted, "the campaign was interrupted by a signal"));
    }
    Ok(failed == 0)
}

/// Tells whether a role of `program` has a flag.
fn knows(program: &Path, role: &str, flag: &str) -> bool {
    let help = Command::new(program).args([role, "--help"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains(flag))
}

/// Leaves out the faults for which something is missing here, and says so.
fn kinds(
    wanted: &[Kind],
    ground: &Ground,
    say: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<Vec<Kind>, Failure> {
    let mut kinds = Vec::new();
    for row in TABLE.iter().filter(|r| wanted.is_empty() || wanted.contains(&r.kind)) {
        let missing = match row.needs {
            Needs::Nothing => None,
            Needs::Mount => {
                let try_at = ground.sockets.join("mount");
                let mounted = std::fs::create_dir_all(&try_at);
                mounted.and_then(|()| SmallDisk::mount(&try_at)).err().map(|e| e.to_string())
            }
        };
        match missing {
            None => kinds.push(row.kind),
            Some(why) => say(&format!("left out: {}: {why}", row.name))?,
        }
    }
    Ok(kinds)
}

fn campaign(
    args: &ChaosArgs,
    kinds: &[Kind],
    ground: &Ground,
    say: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let next = AtomicU64::new(0);
    let (tell, outcomes) = mpsc::channel();
    let mut failed = 0;
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, 64) {
            let (tell, next) = (tell.clone(), &next);
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= args.seeds || ground.shutdown.is_begun() {
                        return;
                    }
                    let plan = Plan::new(args.first_seed.wrapping_add(n), kinds);
                    // Whoever listens has gone only if the campaign is over.
                    if tell.send(trial::run(plan, ground)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(tell);
        let mut done = 0;
        for outcome in outcomes {
            if outcome.interrupted {
                let _ = std::fs::remove_dir_all(&outcome.folder);
                continue;
            }
            done += 1;
            failed += u64::from(outcome.failure.is_some());
            if outcome.failure.is_none() && !args.keep {
                // What is left of it would only take room.
                let _ = std::fs::remove_dir_all(&outcome.folder);
            }
            say(&line(&outcome, kinds))?;
        }
        say(&format!("{done} seeds: {} well, {failed} failed", done - failed))
    })?;
    Ok(failed)
}

fn line(outcome: &Outcome, kinds: &[Kind]) -> String {
    let Outcome { plan, failure, time, missed, folder, .. } = outcome;
    let missed = match missed {
        0 => String::new(),
        n => format!(", {n} of the faults came too late"),
    };
    let head = format!("seed {}: {plan} |", plan.seed);
    let time = time.as_secs_f64();
    match failure {
        None => format!("{head} ok, {time:.1} s{missed}"),
        Some(text) => {
            // The plan follows from these too, and elsewhere others may be left out.
            let names: Vec<String> = kinds.iter().map(ToString::to_string).collect();
            let faults = match kinds.len() {
                n if n == TABLE.len() => String::new(),
                _ => format!(" --faults {}", names.join(",")),
            };
            format!(
                "{head} FAILED, {time:.1} s{missed}: {text}\n  kept in {}\n  again: ptystream chaos \
                 --first-seed {} --seeds 1 --keep{faults}",
                folder.display(),
                plan.seed,
            )
        }
    }
}
