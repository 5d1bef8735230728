//! `producer`, `worker`, `sink`: one role of a scan over ZeroMQ, or of an MPI job; with `--serve`, of one
//! scan after the other.

use crate::cli::{MeetArgs, PRODUCER_ADDRESS, ProducerArgs, SINK_ADDRESS, SinkArgs, WorkerArgs};
use crate::config::Config;
use crate::rendezvous::{Place, Told, Who};
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::mpi::{Duty, World};
use ptystream_common::link::{Hub, SpokeSend, for_address_with};
use ptystream_common::message::SinkReport;
use ptystream_common::names::host;
use ptystream_common::params::Sharing;
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::scan::Scan;
use ptystream_worker::activity::Activity;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(20);
/// Between two scans, where the one before went wrong.
const BREATH: Duration = Duration::from_secs(1);

/// Where to look for a role.
#[derive(Clone, Debug)]
enum At {
    /// It is known.
    Address(String),
    /// It tells.
    Place(Place),
}

impl At {
    fn find(&self, who: Who, patience: Duration, shutdown: &Shutdown) -> Result<String, Failure> {
        match self {
            Self::Address(address) => Ok(address.clone()),
            Self::Place(place) => place.find(who, patience, shutdown),
        }
    }
}

/// The address of a role in the world, or where it is by default.
fn default_address(who: Who, world: Option<&World>) -> String {
    let there = world.and_then(|w| match who {
        Who::Producer => w.address(Duty::leads, "producer"),
        Who::Sink => w.address(Duty::writes, "sink"),
    });
    let usual = match who {
        Who::Producer => PRODUCER_ADDRESS,
        Who::Sink => SINK_ADDRESS,
    };
    there.unwrap_or_else(|| usual.into())
}

/// Binds the hub of a role and tells others where it is.
fn bound(
    who: Who,
    given: Option<&str>,
    meet: &MeetArgs,
    world: Option<&World>,
    dead_after: Duration,
) -> Result<(Hub, Option<Told>), Failure> {
    let place = meet.rendezvous.first();
    let bind = match (given, place) {
        (Some(given), _) => given.to_owned(),
        (None, Some(place)) => place.bind(who),
        (None, None) => default_address(who, world),
    };
    let hub = for_address_with(&bind, dead_after)?.hub(&bind)?;
    let advertise = meet.advertise.as_deref();
    let told = place.map(|place| place.tell(who, &hub.address, advertise)).transpose()?;
    Ok((hub, told))
}

/// Hands out a scan.
///
/// # Errors
/// What ended the scan.
pub fn producer(
    args: &ProducerArgs,
    config: &Config,
    world: Option<&World>,
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
    // The others find somebody there while a scan that has not begun is waited for.
    let (bind, dead_after) = (args.bind.as_deref(), args.link.dead_after);
    let (hub, _told) = bound(Who::Producer, bind, &args.meet, world, dead_after)?;
    let scan = Scan::open(&config.data, &pipeline, registry, shutdown);
    let mut scan = scan.map_err(|e| Failure::from(&e))?;
    scan.config = config.given();
    tracing::info!(address = hub.address, "producer ready");
    ptystream_producer::run::run(scan, &pipeline, hub, shutdown, progress)
}

/// Pairs of a producer and a sink that workers serve.
fn pairs(args: &WorkerArgs, world: Option<&World>) -> Result<Vec<(At, At)>, Failure> {
    let given = |all: &[String]| all.iter().cloned().map(At::Address).collect::<Vec<_>>();
    let (producers, sinks) = (given(&args.producer), given(&args.sink));
    let places = args.meet.rendezvous.iter().cloned().map(At::Place);
    let mut pairs: Vec<(At, At)> = places.map(|at| (at.clone(), at)).collect();
    if producers.is_empty() && sinks.is_empty() && !pairs.is_empty() {
        return Ok(pairs);
    }
    let or_usual = |all: Vec<At>, who: Who| match all.is_empty() {
        true => vec![At::Address(default_address(who, world))],
        false => all,
    };
    let (producers, sinks) = (or_usual(producers, Who::Producer), or_usual(sinks, Who::Sink));
    if producers.len() != sinks.len() {
        let text = format!(
            "{} producers and {} sinks are given; each producer has a sink, in the same order",
            producers.len(),
            sinks.len()
        );
        return Err(Failure::new(Kind::Config, text));
    }
    pairs.extend(producers.into_iter().zip(sinks));
    Ok(pairs)
}

/// One worker: a thread with connections of its own.
struct Hand {
    name: String,
    producer: At,
    sink: At,
    activity: Arc<Activity>,
    /// Its present connection to the producer.
    connection: Arc<Mutex<Option<Arc<dyn SpokeSend>>>>,
}

impl Hand {
    /// Works on one scan; returns how many frames it prepared.
    fn work(
        &self,
        args: &WorkerArgs,
        registry: &Registry,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<u64, Failure> {
        let producer = self.producer.find(Who::Producer, patience, shutdown)?;
        let sink = self.sink.find(Who::Sink, patience, shutdown)?;
        let dead_after = args.link.dead_after;
        let producer = for_address_with(&producer, dead_after)?.spoke(&producer)?;
        let connection = Some(producer.tx.clone());
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        let report = ptystream_worker::run::run(ptystream_worker::run::WorkerArgs {
            name: self.name.clone(),
            producer,
            activity: self.activity.clone(),
            sink: for_address_with(&sink, dead_after)?.spoke(&sink)?,
            registry: registry.clone(),
            window: args.window.max(1),
            peer_timeout: patience,
            shutdown: shutdown.clone(),
        });
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
        report.map(|report| report.frames)
    }

    /// Works on one scan after the other, until it is told to end.
    fn serve(
        &self,
        args: &WorkerArgs,
        registry: &Registry,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> u64 {
        let mut frames = 0;
        while !shutdown.is_begun() {
            match self.work(args, registry, patience, shutdown) {
                Ok(0) => {}
                Ok(n) => {
                    tracing::info!(worker = self.name, frames = n, "one scan done");
                    frames += n;
                }
                // Nobody there yet, or no more.
                Err(failure) if failure.kind == Kind::Peer => {
                    tracing::debug!("{}: {failure}", self.name);
                }
                Err(failure) => tracing::error!("{}: {failure}", self.name),
            }
            rest(shutdown);
        }
        frames
    }
}

/// Waits a moment, unless it is time to end.
fn rest(shutdown: &Shutdown) {
    let until = Instant::now() + BREATH / 5;
    while !shutdown.is_begun() && Instant::now() < until {
        std::thread::sleep(TICK);
    }
}

/// Prepares what a producer hands out; returns how many frames.
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
    let patience = seconds("--peer-timeout", args.peer_timeout)?;
    let pairs = pairs(args, world)?;
    let several = pairs.len() > 1;
    let mut hands = Vec::new();
    for (at, (producer, sink)) in pairs.into_iter().enumerate() {
        for number in 0..args.threads.max(1) {
            let mut name = base.clone();
            if several {
                name.push_str(&format!("/{at}"));
            }
            if args.threads > 1 {
                name.push_str(&format!(".{number}"));
            }
            hands.push(Arc::new(Hand {
                name,
                producer: producer.clone(),
                sink: sink.clone(),
                activity: Arc::default(),
                connection: Arc::default(),
            }));
        }
    }
    let mut threads = Vec::with_capacity(hands.len());
    for hand in &hands {
        let (hand, args, registry) = (hand.clone(), args.clone(), registry.clone());
        let shutdown = shutdown.clone();
        let name = hand.name.clone();
        let work = move || match args.serve {
            true => Ok(hand.serve(&args, &registry, patience, &shutdown)),
            false => hand.work(&args, &registry, patience, &shutdown),
        };
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(work)
            .map_err(|e| Failure::new(Kind::Aborted, format!("cannot start a thread: {e}")))?;
        threads.push(thread);
    }
    watch(&threads, &hands, patience)?;
    let mut frames = 0;
    let mut first = None;
    for thread in threads {
        match thread.join() {
            Ok(Ok(done)) => frames += done,
            Ok(Err(failure)) => first = first.or(Some(failure)),
            Err(_) => {
                let panicked = Failure::new(Kind::Aborted, "a worker panicked; please report it");
                first = first.or(Some(panicked));
            }
        }
    }
    first.map_or(Ok(frames), Err)
}

/// Waits for the workers, but not for one that is stuck in a read while there is nobody any more
/// who could tell it to stop.
fn watch<T>(
    threads: &[JoinHandle<T>],
    hands: &[Arc<Hand>],
    patience: Duration,
) -> Result<(), Failure> {
    let mut alone_since = vec![None; hands.len()];
    while !threads.iter().all(JoinHandle::is_finished) {
        std::thread::sleep(TICK);
        for ((hand, thread), since) in hands.iter().zip(threads).zip(&mut alone_since) {
            let connection = hand.connection.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if thread.is_finished() || connection.is_none_or(|c| c.is_connected()) {
                *since = None;
                continue;
            }
            let alone = since.get_or_insert_with(Instant::now).elapsed();
            if let Some((range, busy)) = hand.activity.current()
                && alone > patience
                && busy > patience
            {
                return Err(Failure::new(
                    Kind::Peer,
                    format!(
                        "{} has been at frames {range} for {:.0} s, and the producer is gone; is \
                         their file or file system stuck?",
                        hand.name,
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
    let patience = seconds("--peer-timeout", args.peer_timeout)?;
    let (hub, _told) = bound(Who::Sink, args.bind.as_deref(), &args.meet, world, dead_after)?;
    tracing::info!(address = hub.address, "sink ready");
    let producer = match (&args.producer, args.meet.rendezvous.first()) {
        (Some(given), _) => given.clone(),
        (None, Some(place)) => place.find(Who::Producer, patience, shutdown)?,
        (None, None) => default_address(Who::Producer, world),
    };
    ptystream_sink::run::run(ptystream_sink::run::SinkArgs {
        name: process_name(),
        hub,
        producer: for_address_with(&producer, dead_after)?.spoke(&producer)?,
        into: args.into.clone(),
        peer_timeout: patience,
        shutdown: shutdown.clone(),
    })
}

/// Writes the scans of a producer, one after the other, until it is told to end; `done` is called after
/// each.
pub fn serve_sink(
    args: &SinkArgs,
    shutdown: &Shutdown,
    mut done: impl FnMut(Result<SinkReport, Failure>),
) {
    while !shutdown.is_begun() {
        match sink(args, None, shutdown) {
            Err(failure) if failure.kind == Kind::Peer => tracing::debug!("sink: {failure}"),
            result => done(result),
        }
        rest(shutdown);
    }
}

fn seconds(flag: &str, value: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value).map_err(|_| {
        Failure::new(Kind::Config, format!("{flag} = {value} is no time; give seconds, such as 60"))
    })
}

/// Host and process number: the name of a role in other roles' logs.
fn process_name() -> String {
    let host = host();
    format!("{}:{}", if host.is_empty() { "host" } else { &host }, std::process::id())
}
