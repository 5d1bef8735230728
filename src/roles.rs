//! `producer`, `worker`, `sink`: one role of a scan over ZeroMQ, or of an MPI job.

use crate::cli::{PRODUCER_ADDRESS, SINK_ADDRESS, SinkArgs, WorkerArgs};
use crate::config::Config;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::mpi::{Duty, World};
use ptystream_common::link::{SpokeSend, for_address_with};
use ptystream_common::message::SinkReport;
use ptystream_common::params::Sharing;
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::scan::Scan;
use ptystream_worker::activity::Activity;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);

/// Where the producer of a scan is: where it was said to be, or in the world, or where it is by default.
fn producer_address(given: Option<&str>, world: Option<&World>) -> String {
    let there = || world.and_then(|w| w.address(Duty::leads, "producer"));
    given.map(str::to_owned).or_else(there).unwrap_or_else(|| PRODUCER_ADDRESS.into())
}

/// As [`producer_address`], of the sink.
fn sink_address(given: Option<&str>, world: Option<&World>) -> String {
    let there = || world.and_then(|w| w.address(Duty::writes, "sink"));
    given.map(str::to_owned).or_else(there).unwrap_or_else(|| SINK_ADDRESS.into())
}

/// Hands out a scan at an address.
///
/// # Errors
/// What ended the scan.
pub fn producer(
    config: &Config,
    bind: Option<&str>,
    world: Option<&World>,
    dead_after: Duration,
    registry: &Registry,
    shutdown: &Shutdown,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ScanReport, Failure> {
    let mut pipeline = config.pipeline.clone();
    if let Some(world) = world {
        pipeline.workers.get_or_insert(world.count(|duty| duty == Duty::Worker).max(1));
    }
    if pipeline.policy == Sharing::Static && pipeline.workers.is_none() {
        let text = "pipeline.policy = \"static\" needs to know how many workers share the scan; give \
                    pipeline.workers";
        return Err(Failure::new(Kind::Config, text));
    }
    let mut scan = Scan::open(&config.data, &pipeline, registry).map_err(|e| Failure::from(&e))?;
    scan.config = config.given();
    let bind = producer_address(bind, world);
    let hub = for_address_with(&bind, dead_after)?.hub(&bind)?;
    tracing::info!(address = hub.address, "producer ready");
    ptystream_producer::run::run(scan, &pipeline, hub, shutdown, progress)
}

/// Prepares frames until the scan ends, in as many threads as asked for; returns the frames.
///
/// # Errors
/// What ended the scan; the first of several.
pub fn worker(
    args: &WorkerArgs,
    world: Option<&World>,
    registry: &Registry,
    shutdown: &Shutdown,
) -> Result<u64, Failure> {
    let rank = || world.map(|w| format!("rank {}", w.rank()));
    let base = args.name.clone().or_else(rank).unwrap_or_else(process_name);
    let producer_at = producer_address(args.producer.as_deref(), world);
    let sink_at = sink_address(args.sink.as_deref(), world);
    let peer_timeout = seconds("--peer-timeout", args.peer_timeout)?;
    let dead_after = args.link.dead_after;
    let mut threads = Vec::with_capacity(args.threads);
    let mut watched = Vec::with_capacity(args.threads);
    for number in 0..args.threads.max(1) {
        let name = match args.threads {
            0 | 1 => base.clone(),
            _ => format!("{base}.{number}"),
        };
        let producer = for_address_with(&producer_at, dead_after)?.spoke(&producer_at)?;
        let activity = Arc::<Activity>::default();
        watched.push(Watched {
            name: name.clone(),
            activity: Arc::clone(&activity),
            producer: Arc::clone(&producer.tx),
        });
        let work = ptystream_worker::run::WorkerArgs {
            name: name.clone(),
            producer,
            activity,
            sink: for_address_with(&sink_at, dead_after)?.spoke(&sink_at)?,
            registry: registry.clone(),
            window: args.window.max(1),
            peer_timeout,
            shutdown: shutdown.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || ptystream_worker::run::run(work))
            .map_err(|e| Failure::new(Kind::Aborted, format!("cannot start a thread: {e}")))?;
        threads.push(thread);
    }
    watch(&threads, &watched, &producer_at, peer_timeout)?;
    let mut frames = 0;
    let mut first = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(report)) => frames += report.frames,
            Ok(Err(failure)) => first = first.or(Some(failure)),
            Err(_) => {
                let panicked = Failure::new(Kind::Aborted, "a worker panicked; please report it");
                first = first.or(Some(panicked));
            }
        }
    }
    first.map_or(Ok(frames), Err)
}

/// A worker as seen from outside of its thread.
struct Watched {
    name: String,
    activity: Arc<Activity>,
    producer: Arc<dyn SpokeSend>,
}

/// Waits for the workers, but not for one that is stuck in a read while there is nobody any more
/// who could tell it to stop.
fn watch<T>(
    threads: &[JoinHandle<T>],
    watched: &[Watched],
    address: &str,
    patience: Duration,
) -> Result<(), Failure> {
    let mut alone_since = vec![None; watched.len()];
    while !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(TICK);
        for ((worker, thread), since) in watched.iter().zip(threads).zip(&mut alone_since) {
            if thread.is_finished() || worker.producer.is_connected() {
                *since = None;
                continue;
            }
            let alone = since.get_or_insert_with(Instant::now).elapsed();
            if let Some((range, busy)) = worker.activity.current()
                && alone > patience
                && busy > patience
            {
                return Err(Failure::new(
                    Kind::Peer,
                    format!(
                        "{} has been at frames {range} for {:.0} s, and the producer at {address} \
                         is gone; is their file or file system stuck?",
                        worker.name,
                        busy.as_secs_f64()
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// Writes the scan of a producer.
///
/// # Errors
/// What ended the scan.
pub fn sink(
    args: &SinkArgs,
    world: Option<&World>,
    shutdown: &Shutdown,
) -> Result<SinkReport, Failure> {
    let dead_after = args.link.dead_after;
    let bind = sink_address(args.bind.as_deref(), world);
    let producer_at = producer_address(args.producer.as_deref(), world);
    let hub = for_address_with(&bind, dead_after)?.hub(&bind)?;
    tracing::info!(address = hub.address, "sink ready");
    ptystream_sink::run::run(ptystream_sink::run::SinkArgs {
        name: process_name(),
        hub,
        producer: for_address_with(&producer_at, dead_after)?.spoke(&producer_at)?,
        into: args.into.clone(),
        peer_timeout: seconds("--peer-timeout", args.peer_timeout)?,
        shutdown: shutdown.clone(),
    })
}

fn seconds(flag: &str, value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        Failure::new(Kind::Config, format!("{flag} = {value} is no time; give seconds, such as 60"))
    })
}

/// Host and process number: the name of a role in other roles' logs.
fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    format!("{host}:{}", std::process::id())
}
