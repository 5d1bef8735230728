//! `run`: all roles in one process, joined by in-process channels.

use crate::config::Config;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::Inproc;
use ptystream_common::link::Link;
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::scan::Scan;
use ptystream_sink::writer::check_place;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long workers may take to end after the producer.
const STRAGGLING: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(2);

/// The sink's thread; it may linger for as long as it was told to.
const SINK: &str = "sink";

/// A name that nobody else in this process has.
const ANY: &str = "inproc://*";

/// Checks that what this process is to write can be written, before a scan is waited for.
///
/// # Errors
/// Naming `data.dfile`, or its folder.
pub(crate) fn place(config: &Config) -> Result<(), Failure> {
    match (&config.data.dfile, config.data.save) {
        (Some(file), Some(_)) => check_place(file).map_err(|e| Failure::from(&e)),
        _ => Ok(()),
    }
}

/// Prepares a scan in this process.
///
/// # Errors
/// What ended the scan.
pub fn run(
    config: &Config,
    registry: &Registry,
    shutdown: &Shutdown,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ScanReport, Failure> {
    let threads = config
        .pipeline
        .threads
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
        .max(1);
    let mut pipeline = config.pipeline.clone();
    // Nobody else will come.
    pipeline.workers = Some(pipeline.workers.map_or(threads, |n| n.min(threads)));
    place(config)?;
    let mut scan =
        Scan::open(&config.data, &pipeline, registry, shutdown).map_err(|e| Failure::from(&e))?;
    scan.config = config.given();
    let link = Inproc;
    let producer_hub = link.hub(ANY)?;
    let sink_hub = link.hub(ANY)?;
    let (producer_address, sink_address) = (producer_hub.address.clone(), sink_hub.address.clone());
    let peer_timeout = Duration::from_secs_f64(config.pipeline.peer_timeout_secs);
    let sink = ptystream_sink::run::SinkArgs {
        name: SINK.into(),
        hub: sink_hub,
        producer: link.spoke(&producer_address)?,
        into: None,
        peer_timeout,
        // Signals reach the producer, which tells the others.
        shutdown: Shutdown::new(),
    };
    let sink = spawn(SINK.into(), move || ptystream_sink::run::run(sink).map(|_| ()))?;
    let mut roles = Joint::default();
    let over = Shutdown::new();
    for number in 0..threads {
        let name = format!("worker {number}");
        let args = ptystream_worker::run::WorkerArgs {
            name: name.clone(),
            producer: link.spoke(&producer_address)?,
            sink: link.spoke(&sink_address)?,
            registry: registry.clone(),
            window: config.pipeline.window,
            peer_timeout,
            shutdown: over.clone(),
            activity: Arc::default(),
        };
        roles.add(spawn(name, move || ptystream_worker::run::run(args).map(|_| ()))?);
    }
    roles.add(sink);
    let result = ptystream_producer::run::run(scan, &pipeline, producer_hub, shutdown, progress);
    // One that connected too late to hear of the end would wait for its peers.
    over.begin();
    roles.join()?;
    result
}

/// Roles that run as threads of this process.
#[derive(Default)]
pub(crate) struct Joint {
    threads: Vec<JoinHandle<Result<(), Failure>>>,
}

impl Joint {
    pub(crate) fn add(&mut self, thread: JoinHandle<Result<(), Failure>>) {
        self.threads.push(thread);
    }

    /// Waits until all have ended, but not for long for a worker that is stuck.
    ///
    /// # Errors
    /// If one has panicked.
    pub(crate) fn join(self) -> Result<(), Failure> {
        let mut deadline = None;
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or("a role").to_owned();
            if name != SINK {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + STRAGGLING);
                while !thread.is_finished() && Instant::now() < deadline {
                    std::thread::sleep(TICK);
                }
                if !thread.is_finished() {
                    // The scan has ended without it: a read that never returns ends with the process.
                    tracing::warn!("{name} did not end and is left behind");
                    continue;
                }
            }
            match thread.join() {
                Ok(Ok(())) => {}
                // The producer has the same failure and returns it.
                Ok(Err(failure)) => tracing::debug!("{name}: {failure}"),
                Err(_) => {
                    return Err(Failure::new(
                        Kind::Aborted,
                        format!("{name} panicked; please report it"),
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Starts a role as a thread.
pub(crate) fn spawn(
    name: String,
    work: impl FnOnce() -> Result<(), Failure> + Send + 'static,
) -> Result<JoinHandle<Result<(), Failure>>, Failure> {
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|e| Failure::new(Kind::Aborted, format!("cannot start a thread: {e}")))
}
