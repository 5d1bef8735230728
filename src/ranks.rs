//! Scans over the ranks of an MPI job.
//!
//! | started as | what the ranks are |
//! |---|---|
//! | `mpirun -n 8 ptystream run scan.toml` | rank 0 is producer and sink, the others are workers |
//! | `mpirun -n 1 ptystream producer … : -n 6 ptystream worker : -n 1 ptystream sink` | what each is told to be |
//! | `mpirun -n 6 ptystream worker --producer tcp://… --sink tcp://…` | a pool that talks over ZeroMQ: no MPI |
//!
//! All ranks end together: whoever leads says when, and with which exit code.

use crate::config::Config;
use crate::local::{Joint, place, spawn};
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::Link;
use ptystream_common::link::mpi::{self, Duty, Mpi, World};
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::scan::Scan;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

/// The rank that leads where all do the same.
const MASTER: u32 = 0;

/// What the master tells the workers of a scan.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    producer: String,
    sink: String,
    threads: usize,
    window: u32,
    peer_timeout_secs: f64,
}

/// Tells whether other processes were started together with this one.
pub fn are_several() -> bool {
    mpi::launched().is_some_and(|ranks| ranks > 1)
}

/// Does `work` as one of several ranks, with the exit code that it gives or that of its failure.
///
/// # Errors
/// That of `work`, or why the world cannot be joined.
fn within(
    duty: fn(u32) -> Duty,
    ending: Shutdown,
    work: impl FnOnce(&World) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let world = World::join(duty, ending)?;
    let result = work(&world);
    world.leave(match &result {
        Ok(code) => *code,
        Err(failure) => failure.kind.exit_code(),
    });
    result
}

/// Does `work` as a role among ranks, or alone if the addresses of the other roles are given.
///
/// # Errors
/// As [`within`].
pub fn as_role(
    duty: fn(u32) -> Duty,
    addresses_given: bool,
    ending: &Shutdown,
    work: impl FnOnce(Option<&World>) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    match are_several() && !addresses_given {
        true => within(duty, ending.clone(), |world| work(Some(world))),
        false => work(None),
    }
}

/// Prepares scans over all ranks: rank 0 does `lead`, the others whatever it tells them.
///
/// # Errors
/// As [`within`].
pub fn run(
    registry: &Registry,
    lead: impl FnOnce(&Master<'_>) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let ending = Shutdown::new();
    let duty = |rank| if rank == MASTER { Duty::Master } else { Duty::Worker };
    within(duty, ending.clone(), |world| match world.rank() {
        MASTER => lead(&Master { world, scans: Cell::new(0) }),
        rank => {
            while let Ok(word) = world.words().recv() {
                let order: Order = serde_json::from_slice(&word).map_err(|e| {
                    Failure::new(Kind::Peer, format!("rank {MASTER} told what is no order: {e}"))
                })?;
                // The master has the same failure and returns it.
                if let Err(failure) = obey(rank, &order, registry, &ending) {
                    tracing::debug!("rank {rank}: {failure}");
                }
            }
            Ok(0)
        }
    })
}

/// Works on one scan.
fn obey(rank: u32, order: &Order, registry: &Registry, ending: &Shutdown) -> Result<(), Failure> {
    let mut workers = Joint::default();
    for number in 0..order.threads {
        let name = match order.threads {
            1 => format!("rank {rank}"),
            _ => format!("rank {rank}.{number}"),
        };
        let args = ptystream_worker::run::WorkerArgs {
            name: name.clone(),
            producer: Mpi.spoke(&order.producer)?,
            sink: Mpi.spoke(&order.sink)?,
            registry: registry.clone(),
            window: order.window,
            peer_timeout: Duration::try_from_secs_f64(order.peer_timeout_secs)
                .unwrap_or(Duration::MAX),
            shutdown: ending.clone(),
            activity: Arc::default(),
        };
        workers.add(spawn(name, move || ptystream_worker::run::run(args).map(|_| ()))?);
    }
    workers.join()
}

/// Rank 0: producer and sink of one scan after the other.
pub struct Master<'a> {
    world: &'a World,
    scans: Cell<u64>,
}

impl Master<'_> {
    /// Prepares a scan, with the workers of the other ranks.
    ///
    /// # Errors
    /// What ended the scan.
    pub fn run(
        &self,
        config: &Config,
        registry: &Registry,
        shutdown: &Shutdown,
        progress: &mut dyn FnMut(&Progress),
    ) -> Result<ScanReport, Failure> {
        // A rank is a core, unless it is told otherwise.
        let threads = config.pipeline.threads.unwrap_or(1).max(1);
        let mut pipeline = config.pipeline.clone();
        let there = (self.world.duties().len() - 1) * threads;
        // Nobody else will come.
        pipeline.workers = Some(pipeline.workers.map_or(there, |n| n.min(there)));
        place(config)?;
        let mut scan = Scan::open(&config.data, &pipeline, registry, shutdown)
            .map_err(|e| Failure::from(&e))?;
        scan.config = config.given();
        let number = self.scans.replace(self.scans.get() + 1);
        let producer_hub = Mpi.hub(&format!("mpi://{MASTER}/producer.{number}"))?;
        let sink_hub = Mpi.hub(&format!("mpi://{MASTER}/sink.{number}"))?;
        let order = Order {
            producer: producer_hub.address.clone(),
            sink: sink_hub.address.clone(),
            threads,
            window: config.pipeline.window,
            peer_timeout_secs: config.pipeline.peer_timeout_secs,
        };
        let sink = ptystream_sink::run::SinkArgs {
            name: "sink".into(),
            hub: sink_hub,
            producer: Mpi.spoke(&order.producer)?,
            into: None,
            peer_timeout: Duration::from_secs_f64(config.pipeline.peer_timeout_secs),
            // Signals reach the producer, which tells the others.
            shutdown: Shutdown::new(),
        };
        let mut roles = Joint::default();
        roles.add(spawn("sink".into(), move || ptystream_sink::run::run(sink).map(|_| ()))?);
        let word = serde_json::to_vec(&order)
            .map_err(|e| Failure::new(Kind::Aborted, format!("an order cannot be written: {e}")))?;
        self.world.tell(word.into());
        let result =
            ptystream_producer::run::run(scan, &pipeline, producer_hub, shutdown, progress);
        roles.join()?;
        result
    }
}
