//! One seed, from its plan to the verdict.

use super::actor::{Actor, Ended};
use super::check::{self, BEFORE, NAME, OUT, REFERENCE};
use super::faults::Kind;
use super::plan::{DEAD_AFTER_MILLIS, Hop, PEER_TIMEOUT_SECS, Plan, Role, Step, Target};
use super::proxy::{Pace, Proxy};
use super::reader::Follower;
use super::small_disk::SmallDisk;
use super::watch::{self, Watch};
use super::{Ground, ports};
use ptystream_common::error::chain;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(5);
/// A seed that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a role may take to hear that the scan is over.
const GOODBYE: Duration = Duration::from_secs(3);
const CONFIG: &str = "scan.toml";

/// How a seed went.
#[derive(Debug)]
pub struct Outcome {
    /// What was planned.
    pub plan: Plan,
    /// What was wrong, if anything was.
    pub failure: Option<String>,
    /// Whether the campaign was interrupted meanwhile.
    pub interrupted: bool,
    /// How long it took.
    pub time: Duration,
    /// Faults that could not strike since the scan was over before.
    pub missed: usize,
    /// Where everything is.
    pub folder: PathBuf,
}

/// Why a trial ended before its verdict.
enum Stop {
    Interrupted,
    Failed(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(format!("the harness itself: {error}"))
    }
}

/// Runs a seed in a folder of its own, which stays.
pub fn run(plan: Plan, ground: &Ground) -> Outcome {
    let folder = ground.folder.join(format!("seed-{}", plan.seed));
    let begun = Instant::now();
    let mut missed = 0;
    let result = stage(&plan, ground, &folder, &mut missed);
    let (failure, interrupted) = match result {
        Ok(()) => (None, false),
        Err(Stop::Failed(text)) => (Some(text), false),
        Err(Stop::Interrupted) => (None, true),
    };
    Outcome { plan, failure, interrupted, time: begun.elapsed(), missed, folder }
}

fn stage(plan: &Plan, ground: &Ground, folder: &Path, missed: &mut usize) -> Result<(), Stop> {
    let out = folder.join(OUT);
    // What an earlier campaign left under this number is of no use any more.
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(&out)?;
    let dfile = format!("{OUT}/{NAME}");
    std::fs::write(folder.join(CONFIG), plan.setup.config(&dfile))?;
    let schedule = serde_json::to_string_pretty(plan).map_err(std::io::Error::other)?;
    std::fs::write(folder.join("plan.json"), schedule + "\n")?;
    let disk = if plan.small_disk { Some(SmallDisk::mount(&out)?) } else { None };
    undisturbed(ground, folder, REFERENCE, &[])?;
    let (mut first, mut before) = (None, None);
    if plan.again {
        let rebin = if plan.setup.rebin == 1 { 2 } else { 1 };
        let other = [format!("data.rebin={rebin}"), "data.save=link".to_owned()];
        undisturbed(ground, folder, BEFORE, &other)?;
        undisturbed(ground, folder, &dfile, &other)?;
        let reader = Follower::attach(&out.join(NAME)).map_err(|e| chain(&e))?;
        before = Some(reader.run_id);
        first = Some(Watch::slowly(reader)?);
    }
    let second = match plan.setup.can_be_followed() {
        true => Some(Watch::start(&out.join(NAME), before)?),
        false => None,
    };
    let mut show = Show::open(plan, ground, folder, disk)?;
    let played = show.play();
    *missed = show.waiting.len();
    // Readers end by themselves once there is nothing new, whatever has happened to the roles.
    let first = first.map(Watch::end).transpose();
    let second = second.map(Watch::end).transpose();
    let judged = played.and_then(|()| {
        check::check(plan, folder)?;
        check::proofs(plan, folder)?;
        if let Some(reader) = first?.flatten() {
            watch::judge(&reader, &folder.join(BEFORE), false)?;
        }
        match second? {
            Some(Some(reader)) => watch::judge(&reader, &folder.join(REFERENCE), true)?,
            Some(None) => return Err(Stop::Failed("a reader never saw the file".into())),
            None => {}
        }
        Ok(())
    });
    if judged.is_err() && plan.small_disk {
        keep(&out, &folder.join("kept"))?;
    }
    judged
}

/// Copies what stands on a disk that is about to go away.
fn keep(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)?.flatten().filter(|e| e.file_name() != "ballast") {
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Prepares the scan in one process, by nobody disturbed.
fn undisturbed(ground: &Ground, folder: &Path, dfile: &str, set: &[String]) -> Result<(), Stop> {
    let log = std::fs::File::create(folder.join("run.log"))?;
    let mut command = Command::new(&ground.program);
    command.args(["run", CONFIG, "--quiet", "--threads", "2"]);
    command.args(["--set", &format!("data.dfile={dfile}"), "--set", "pipeline.live=false"]);
    for value in set {
        command.args(["--set", value]);
    }
    let status = command
        .current_dir(folder)
        .env_remove("PTYSTREAM_LOG")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    match status.success() {
        true => Ok(()),
        false if ground.shutdown.is_begun() => Err(Stop::Interrupted),
        false => Err(Stop::Failed(format!("the undisturbed run failed: {status}"))),
    }
}

/// The roles of a scan, the ways between them, and what is still to be done to them.
struct Show<'a> {
    ground: &'a Ground,
    actors: Vec<Actor>,
    hops: Vec<(Hop, Proxy)>,
    pace: Arc<Pace>,
    results: u64,
    waiting: Vec<Step>,
    disk: Option<SmallDisk>,
    /// Whether producer or sink have been told to end.
    told: bool,
    /// Whether the sink that runs was started on a full disk, and whether one ever was: others hear of it.
    begun_full: (bool, bool),
    /// When the effect of all faults so far is over.
    last_fault: Option<Instant>,
    begun: Instant,
}

impl<'a> Show<'a> {
    fn open(
        plan: &Plan,
        ground: &'a Ground,
        folder: &Path,
        disk: Option<SmallDisk>,
    ) -> Result<Self, Stop> {
        let setup = &plan.setup;
        let results = setup.results();
        let pace = Duration::from_millis(setup.pace_millis).div_f64(results as f64);
        let pace = Arc::new(Pace::new(pace));
        let address = |name: &str| match setup.link {
            "tcp" => ports::free().map(|port| format!("tcp://127.0.0.1:{port}")),
            _ => {
                let name = format!("{}-{name}", plan.seed);
                let path = ground.sockets.join(name);
                // Left over from an earlier run of the same seed.
                let _ = std::fs::remove_file(&path);
                Ok(format!("ipc://{}", path.display()))
            }
        };
        let (p, s) = (address("p")?, address("s")?);
        let mut hops = Vec::new();
        let mut way = |hop: Hop, target: &str, pace| -> Result<String, Stop> {
            let here = address(&hop.to_string())?;
            hops.push((hop, Proxy::start(&here, target, pace)?));
            Ok(here)
        };
        let timeout = PEER_TIMEOUT_SECS.to_string();
        let actor = |role: Role, words: &[&str]| {
            let mut words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            if ground.knows_dead_after {
                let secs = DEAD_AFTER_MILLIS as f64 / 1e3;
                words.extend(["--dead-after".to_owned(), secs.to_string()]);
            }
            Actor::new(role, &ground.program, words, folder)
        };
        let mut actors = vec![actor(
            Role::Producer,
            &["producer", CONFIG, "--quiet", "--bind", &p, "--report", "report.json"],
        )];
        let via = way(Hop::SinkProducer, &p, None)?;
        let words = ["sink", "--producer", &via, "--bind", &s, "--peer-timeout", &timeout];
        actors.push(actor(Role::Sink, &words));
        for n in 0..setup.workers {
            let to_p = way(Hop::WorkerProducer(n), &p, None)?;
            let to_s = way(Hop::WorkerSink(n), &s, Some(pace.clone()))?;
            let (name, window) = (format!("w{n}"), setup.window.to_string());
            let ends = ["worker", "--producer", &to_p, "--sink", &to_s, "--name", &name];
            let rest = ["--window", &window, "--peer-timeout", &timeout];
            actors.push(actor(Role::Worker(n), &[&ends[..], &rest[..]].concat()));
        }
        Ok(Self {
            ground,
            actors,
            hops,
            pace,
            results,
            waiting: plan.steps.clone(),
            disk,
            told: false,
            begun_full: (false, false),
            last_fault: None,
            begun: Instant::now(),
        })
    }

    /// Runs the scan until producer and sink have done their work and all have ended.
    fn play(&mut self) -> Result<(), Stop> {
        while !(self.actors[0].is_done() && self.actors[1].is_done()) {
            self.tick()?;
            self.strike()?;
            self.revive()?;
        }
        let done = Instant::now();
        if let Some(disk) = &mut self.disk {
            disk.empty()?;
        }
        for actor in &mut self.actors {
            actor.due = None;
        }
        while self.actors.iter().any(Actor::is_running) {
            self.tick()?;
            if done.elapsed() < GOODBYE {
                continue;
            }
            for at in 0..self.actors.len() {
                if !self.actors[at].is_running() || self.actors[at].struck.is_some() {
                    continue;
                }
                // Who was away when it ended cannot know; everybody else was told.
                let lately = |at: Instant| at + GOODBYE > done;
                if !self.last_fault.is_some_and(lately) && !lately(self.actors[at].started) {
                    let role = self.actors[at].role;
                    return Err(Stop::Failed(format!(
                        "{role} does not notice that the scan is over"
                    )));
                }
                self.actors[at].strike(libc::SIGTERM, Duration::ZERO);
            }
        }
        Ok(())
    }

    /// Lets time pass, and judges who has ended.
    fn tick(&mut self) -> Result<(), Stop> {
        std::thread::sleep(TICK);
        if self.ground.shutdown.is_begun() {
            return Err(Stop::Interrupted);
        }
        if self.begun.elapsed() > LIMIT {
            let running: Vec<String> =
                self.actors.iter().filter(|a| a.is_running()).map(|a| a.role.to_string()).collect();
            let (passed, results) = (self.pace.passed(), self.results);
            return Err(Stop::Failed(format!(
                "hung: {passed} results of {results} passed, {} still run",
                running.join(", ")
            )));
        }
        for actor in &mut self.actors {
            actor.wake_in_time();
            if let Some(ended) = actor.reap()? {
                let (this, ever) = self.begun_full;
                actor.judge(
                    ended,
                    self.told,
                    if actor.role == Role::Sink { this } else { ever },
                )?;
                if ended != Ended::Code(0) || actor.struck.is_some() {
                    actor.due = Some(Instant::now() + actor.away);
                }
            }
        }
        if let Some(disk) = &mut self.disk {
            disk.empty_in_time()?;
        }
        Ok(())
    }

    fn strike(&mut self) -> Result<(), Stop> {
        let reached = self.pace.passed() * 1000 / self.results.max(1);
        while self.waiting.first().is_some_and(|s| s.at <= reached) {
            let step = self.waiting.remove(0);
            tracing::debug!("{step}");
            let time = Duration::from_millis(step.millis);
            // One that began before may last longer.
            self.last_fault = self.last_fault.max(Some(Instant::now() + time));
            match step.target {
                Target::Role(role) => {
                    self.told |= step.kind == Kind::Term && !matches!(role, Role::Worker(_));
                    let actor = self.actors.iter_mut().find(|a| a.role == role);
                    let Some(actor) = actor else { continue };
                    match step.kind {
                        Kind::Kill => actor.strike(libc::SIGKILL, time),
                        Kind::Term => actor.strike(libc::SIGTERM, time),
                        _ => actor.stop(time),
                    }
                }
                Target::Hop(hop) => {
                    let proxy = self.hops.iter().find(|(h, _)| *h == hop).map(|(_, p)| p);
                    let Some(proxy) = proxy else { continue };
                    match step.kind {
                        Kind::Reset => proxy.reset(),
                        Kind::Tear => proxy.tear(),
                        Kind::Half => proxy.half_close(),
                        Kind::Delay => proxy.delay(time),
                        Kind::Repeat => proxy.repeat(step.messages),
                        Kind::Swap => proxy.swap(step.messages),
                        Kind::Flip => proxy.flip(step.messages),
                        _ => proxy.stall(time),
                    }
                }
                Target::Disk => {
                    if let Some(disk) = &mut self.disk {
                        disk.fill(time)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts whoever is due, or is needed again by the others.
    fn revive(&mut self) -> Result<(), Stop> {
        let state = |a: &Actor| (a.is_running(), a.started, a.ended);
        let (producer, sink) = (state(&self.actors[0]), state(&self.actors[1]));
        let now = Instant::now();
        for actor in &mut self.actors {
            let Some((Ended::Code(0), ended)) = actor.ended.filter(|_| !actor.is_running()) else {
                continue;
            };
            // It has done its work, but somebody who has not done theirs was started after that.
            let after = |other: (bool, Instant, _), grace: Duration| {
                other.0 && (other.1 > ended || now > ended + grace)
            };
            let needed = match actor.role {
                Role::Producer => after(sink, LIMIT),
                Role::Sink => after(producer, GOODBYE / 2),
                Role::Worker(_) => after(producer, GOODBYE / 4),
            };
            if needed && actor.due.is_none() {
                actor.due = Some(now);
            }
        }
        let full = self.disk.as_ref().is_some_and(SmallDisk::is_full);
        for actor in &mut self.actors {
            if !actor.is_running() && actor.due.is_some_and(|at| at <= now) {
                if actor.role == Role::Sink {
                    self.begun_full = (full, full || self.begun_full.1);
                }
                actor.start()?;
            }
        }
        Ok(())
    }
}
