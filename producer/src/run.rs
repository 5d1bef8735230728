//! The life of a scan as the producer sees it.
//!
//! 1. [`Scan::open`] has checked everything that can be checked without reading all frames.
//! 2. If the centre is to be measured: tickets of [`Task::Measure`] over the first chunk.
//! 3. The scan is announced to the sink; its answer says what is durable already.
//! 4. The dispatcher hands out tickets within the sink's horizon until every index is durable.
//! 5. The sink has finished; workers are told, all say goodbye.

mod ending;

use crate::dispatch::{Action, Cut, Dispatcher};
use crate::error::{self, ProducerError};
use crate::measure::Centers;
use crate::phase::Phase;
use crate::read::{Done, Reader};
pub use crate::report::{ProducerReport, Progress};
use crate::scan::Scan;
use crossbeam_channel::select;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::{Hub, HubEvent, PeerId};
use ptystream_common::message::{Aborted, Body, Message, Role, SinkReport, Stamp, Task, Ticket};
use ptystream_common::params::{OnGap, PipelineParams};
use ptystream_common::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// So many failed frames with none that was prepared end the scan.
const HOPELESS: u64 = 10;
const TICK: Duration = Duration::from_millis(20);
const POLL_SOURCE: Duration = Duration::from_millis(100);
const GOODBYE: Duration = Duration::from_secs(2);
/// How long to wait for another worker after the last one there refused the scan.
const REFUSED_GRACE: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Worker {
    name: String,
    /// The stamp of the last plan it got.
    planned: Option<Stamp>,
}

struct Producer<'a> {
    scan: Scan,
    pipeline: PipelineParams,
    hub: Hub,
    reader: Reader,
    dispatcher: Dispatcher,
    phase: Phase,
    stamp: Stamp,
    sink: Option<PeerId>,
    workers: BTreeMap<PeerId, Worker>,
    gaps: BTreeMap<u64, String>,
    /// Why the scan ends before its announced number of frames, if it does.
    aborted: Option<Aborted>,
    /// Where the file is to stay unfinished: how many frames came, and what is said in the end.
    kept: Option<(u64, Failure)>,
    announced_end: bool,
    start: Instant,
    sink_missing_since: Option<Instant>,
    worker_missing_since: Option<Instant>,
    /// Why a worker cannot prepare this scan; ends it where there is no other worker.
    refusal: Option<Failure>,
    checked: Instant,
    check_pending: bool,
    source_ended: bool,
    shutdown: Shutdown,
    stopping_since: Option<Instant>,
    progress: &'a mut dyn FnMut(&Progress),
    warnings: Vec<String>,
    origins: Vec<(String, String, String)>,
}

/// Hands out a scan until every index is durable.
///
/// `hub`: bound already. `progress` is called some fifty times a second at most.
///
/// # Errors
/// What ended the scan; the other roles have been told.
pub fn run(
    mut scan: Scan,
    pipeline: &PipelineParams,
    hub: Hub,
    shutdown: &Shutdown,
    progress: &mut dyn FnMut(&Progress),
) -> Result<ProducerReport, Failure> {
    let source = scan.source.take().ok_or_else(|| {
        Failure::new(Kind::Config, "the scan's source has been taken by another run")
    })?;
    let kept = scan.retention.take();
    let reader = Reader::start(source, scan.common(), hub.tx.clone(), kept, scan.num_frames)?;
    let measuring = scan.needs_center();
    if !scan.plan.workers_read {
        tracing::info!(
            budget_bytes = pipeline.producer_memory_bytes,
            tickets = scan.cut(pipeline).max_outstanding,
            "pixels under way at most"
        );
    }
    let now = Instant::now();
    let mut producer = Producer {
        dispatcher: Dispatcher::new(scan.cut(pipeline), scan.num_frames),
        phase: if measuring { Phase::Measuring(Centers::default()) } else { Phase::Opening },
        scan,
        pipeline: pipeline.clone(),
        hub,
        reader,
        stamp: Stamp::default(),
        sink: None,
        workers: BTreeMap::new(),
        gaps: BTreeMap::new(),
        aborted: None,
        kept: None,
        announced_end: false,
        start: now,
        sink_missing_since: Some(now),
        worker_missing_since: Some(now),
        refusal: None,
        checked: now,
        check_pending: false,
        source_ended: false,
        shutdown: shutdown.clone(),
        stopping_since: None,
        progress,
        warnings: Vec::new(),
        origins: Vec::new(),
    };
    let result = producer.work();
    producer.end(result)
}

impl Producer<'_> {
    fn work(&mut self) -> Result<SinkReport, Failure> {
        if matches!(self.phase, Phase::Measuring(_)) {
            // Only the first chunk is measured, and nothing of it goes to the sink.
            let n = u64::from(self.scan.plan.frames_per_chunk);
            let n = self.scan.num_frames.map_or(n, |all| n.min(all));
            let cut = Cut { batch: 1, ..self.scan.cut(&self.pipeline) };
            self.dispatcher = Dispatcher::new(cut, Some(n));
            let actions = self.dispatcher.opened(n, &IndexSet::new());
            self.act(actions)?;
        }
        self.ask_source();
        let hub = self.hub.events.clone();
        let done = self.reader.done.clone();
        let mut shown = Instant::now();
        loop {
            select! {
                recv(hub) -> event => match event {
                    Ok(event) => if let Some(report) = self.on_hub(event)? { return Ok(report) },
                    Err(_) => return Err(Failure::new(Kind::Peer, "the producer's link has ended")),
                },
                recv(done) -> answer => match answer {
                    Ok(answer) => self.on_reader(answer)?,
                    Err(_) => return Err(Failure::from(&ProducerError::Panic("reading"))),
                },
                default(TICK) => {}
            }
            self.on_time()?;
            if shown.elapsed() >= TICK {
                shown = Instant::now();
                self.show();
            }
        }
    }

    fn on_hub(&mut self, event: HubEvent) -> Result<Option<SinkReport>, Failure> {
        let (peer, message) = match event {
            HubEvent::Message(peer, message) => (peer, message),
            HubEvent::Unreadable(peer, error) => {
                tracing::error!(%peer, "a message that cannot be read was dropped: {error}");
                return Ok(None);
            }
            HubEvent::Gone(peer) => {
                self.lost(peer)?;
                return Ok(None);
            }
        };
        let stamp = message.header.stamp;
        match message.header.body {
            Body::Hello { role: Role::Worker, name } => {
                tracing::info!(worker = name, "worker joined");
                self.workers.insert(peer, Worker { name, planned: None });
                self.worker_missing_since = None;
                // A Hello on a standing connection: the worker has dropped what it held.
                let actions = self.dispatcher.worker_gone(peer);
                self.act(actions)?;
                self.plan(peer);
            }
            Body::Hello { role: Role::Sink, name } => self.on_sink(peer, &name)?,
            Body::Hello { role: Role::Producer, name } => {
                let text = format!("{name} is a producer, and so is the one that it talks to");
                self.send(peer, Body::Refused(Failure::new(Kind::Peer, text)));
            }
            Body::Want { tickets } if self.is_planned(peer, stamp) => {
                let actions = self.dispatcher.want(peer, tickets);
                self.act(actions)?;
            }
            Body::Measured { range, centers } if self.is_planned(peer, stamp) => {
                self.on_measured(range, centers)?;
            }
            Body::Failed { range, failure } if self.is_planned(peer, stamp) => {
                self.on_failed(range.iter().map(|i| (i, failure.clone())).collect())?;
            }
            Body::Want { .. } | Body::Measured { .. } | Body::Failed { .. } => {}
            Body::Opened { horizon, durable } if self.sink == Some(peer) => {
                self.stamp = stamp;
                self.phase = Phase::Running;
                let gaps: Vec<(u64, String)> =
                    self.gaps.iter().map(|(i, why)| (*i, why.clone())).collect();
                for (index, reason) in gaps {
                    self.tell_gap(Index(index), &reason);
                }
                let mut peers: Vec<PeerId> = self.workers.keys().copied().collect();
                peers.retain(|p| !self.is_planned(*p, stamp));
                for worker in peers {
                    self.plan(worker);
                }
                self.announced_end = false;
                let actions = self.dispatcher.opened(horizon, &durable);
                self.act(actions)?;
            }
            Body::State { watermark, accepted } if stamp == self.stamp => {
                self.reader.durable(watermark);
                let actions = self.dispatcher.state(watermark, &accepted);
                self.act(actions)?;
            }
            Body::Finished(report) => return Ok(Some(*report)),
            Body::Stop(failure) | Body::Refused(failure) if self.sink == Some(peer) => {
                self.sink = None;
                return Err(failure);
            }
            Body::Refused(failure) if self.workers.contains_key(&peer) => {
                let name = self.workers.get(&peer).map_or("", |w| &w.name);
                let text = format!("{name} cannot prepare this scan: {failure}");
                tracing::error!("{text}");
                self.refusal = Some(Failure::new(failure.kind, text));
            }
            Body::Bye => {
                if let Some(worker) = self.workers.remove(&peer) {
                    tracing::info!(worker = worker.name, "worker left");
                    self.dispatcher.worker_left(peer, self.start.elapsed());
                    self.missing_workers();
                }
            }
            other => tracing::warn!(%peer, "a message out of place was dropped: {other:?}"),
        }
        Ok(None)
    }

    fn on_sink(&mut self, peer: PeerId, name: &str) -> Result<(), Failure> {
        if self.sink.is_some() {
            let text = format!(
                "the scan at {} has a sink already; end that one, or give this one ({name}) \
                 another producer",
                self.hub.address
            );
            self.send(peer, Body::Refused(Failure::new(Kind::Peer, text)));
            return Ok(());
        }
        tracing::info!(sink = name, "sink connected");
        self.sink = Some(peer);
        self.sink_missing_since = None;
        if !matches!(self.phase, Phase::Measuring(_)) {
            self.announce()?;
        }
        Ok(())
    }

    fn announce(&mut self) -> Result<(), Failure> {
        let Some(sink) = self.sink else { return Ok(()) };
        let announce = self.scan.announce().map_err(|e| Failure::from(&e))?;
        self.warnings.clone_from(&announce.warnings);
        self.origins.clone_from(&announce.origins);
        self.phase = Phase::Opening;
        self.send(sink, Body::Announce(Box::new(announce)));
        Ok(())
    }

    /// Sends a worker what it needs, as soon as there is something to do with it.
    fn plan(&mut self, peer: PeerId) {
        if matches!(self.phase, Phase::Opening) {
            return;
        }
        let message = self.scan.plan_message(self.stamp);
        if let Some(worker) = self.workers.get_mut(&peer)
            && self.hub.tx.send(peer, message)
        {
            worker.planned = Some(self.stamp);
        }
    }

    fn is_planned(&self, peer: PeerId, stamp: Stamp) -> bool {
        self.workers.get(&peer).is_some_and(|w| w.planned == Some(stamp)) && stamp == self.stamp
    }

    fn on_measured(
        &mut self,
        range: IndexRange,
        centers: Vec<Option<[f64; 2]>>,
    ) -> Result<(), Failure> {
        let Phase::Measuring(measured) = &mut self.phase else { return Ok(()) };
        measured.add(range, centers);
        self.measured()
    }

    /// Goes on once every frame of the first chunk is measured or a gap.
    fn measured(&mut self) -> Result<(), Failure> {
        let Phase::Measuring(measured) = &self.phase else { return Ok(()) };
        let known = measured.known_with(self.dispatcher.gaps());
        let watermark = known.first_missing(0);
        let actions = self.dispatcher.state(watermark, &known);
        if !self.dispatcher.is_complete() {
            return self.act(actions);
        }
        let mean = measured.mean().ok_or_else(|| {
            Failure::new(
                Kind::Input,
                "the automatic centre cannot be found: no frame of the first chunk has any \
                 counts; give data.center = [row, column]",
            )
        })?;
        tracing::info!(row = mean[0], column = mean[1], "centre measured");
        self.scan.set_center(Some(mean)).map_err(|e| Failure::from(&e))?;
        self.dispatcher = Dispatcher::new(self.scan.cut(&self.pipeline), self.scan.num_frames);
        let gaps: Vec<u64> = self.gaps.keys().copied().collect();
        for index in gaps {
            self.dispatcher.declare_gap(IndexRange::new(index, 1));
        }
        // Wants of the measuring phase are void: the next plan makes workers ask anew.
        for worker in self.workers.values_mut() {
            worker.planned = None;
        }
        self.phase = Phase::Opening;
        self.check_pending = false;
        self.source_ended = false;
        self.ask_source();
        self.announce()
    }

    /// Declares frames as gaps, or ends the scan where that is wanted or nothing else is left.
    fn on_failed(&mut self, frames: Vec<(Index, Failure)>) -> Result<(), Failure> {
        for (index, failure) in frames {
            if self.pipeline.on_gap == OnGap::Fail {
                return Err(failure);
            }
            let (actions, new) = self.dispatcher.declare_gap(IndexRange { first: index, count: 1 });
            if !new.is_empty() {
                tracing::warn!(%index, "frame becomes a gap: {failure}");
                self.gaps.insert(index.0, failure.text.clone());
                self.tell_gap(index, &failure.text);
            }
            let count = self.gaps.len() as u64;
            let all = self.scan.num_frames.is_some_and(|n| count >= n);
            let tried = matches!(self.phase, Phase::Measuring(ref m) if !m.is_empty());
            if all || (count >= HOPELESS && self.dispatcher.accepted() == 0 && !tried) {
                return Err(Failure::new(
                    failure.kind,
                    format!("the first {count} frames all failed; the last one: {failure}"),
                ));
            }
            self.act(actions)?;
        }
        self.measured()
    }

    fn tell_gap(&mut self, index: Index, reason: &str) {
        if let (Phase::Running, Some(sink)) = (&self.phase, self.sink) {
            let positions = self.scan.positions_of(index.0..index.0 + 1);
            let range = IndexRange { first: index, count: 1 };
            self.send(sink, Body::Gap { range, reason: reason.to_owned(), positions });
        }
    }

    fn act(&mut self, actions: Vec<Action>) -> Result<(), Failure> {
        for Action::Send { worker, range, gaps } in actions {
            let task = match self.phase {
                Phase::Measuring(_) => Task::Measure,
                _ => Task::Prepare,
            };
            let positions = self.scan.positions_of(range.first.0..range.end());
            let ticket = Ticket { range, task, positions, gaps, pixels: None };
            tracing::trace!(%worker, %range, "ticket");
            if self.scan.plan.workers_read {
                if !self.hub.tx.send(worker, Message::new(self.stamp, Body::Ticket(ticket))) {
                    self.unsent(worker)?;
                }
            } else if !self.reader.read(worker, self.stamp, ticket) {
                return Err(Failure::from(&ProducerError::Panic("reading")));
            }
        }
        if !self.announced_end
            && matches!(self.phase, Phase::Running)
            && self.dispatcher.all_sent()
            && let (Some(sink), Some(expected)) = (self.sink, self.scan.num_frames)
        {
            let gaps = self.dispatcher.gaps().clone();
            self.send(sink, Body::EndOfScan { expected, gaps, aborted: self.aborted.clone() });
            self.announced_end = true;
        }
        Ok(())
    }

    /// The link reports the loss too; taking tickets back twice does no harm.
    fn unsent(&mut self, worker: PeerId) -> Result<(), Failure> {
        let actions = self.dispatcher.worker_gone(worker);
        self.act(actions)
    }

    fn on_reader(&mut self, answer: Done) -> Result<(), Failure> {
        match answer {
            Done::Checked { start, check } => {
                self.check_pending = false;
                if check.end_of_scan.is_none() && self.scan.num_frames.is_none() {
                    return Err(Failure::new(
                        Kind::Input,
                        "the source tells neither its length nor its end; set data.num_frames",
                    ));
                }
                let available = start.saturating_add(check.accessible as u64);
                self.source_ended |= check.end_of_scan == Some(true);
                self.came(available, None)
            }
            Done::Interrupted { available, reason } => {
                self.check_pending = false;
                self.source_ended = true;
                self.came(available, Some(&reason))
            }
            Done::Lost { frames, worker } => {
                self.on_lost(frames)?;
                self.give_back(worker)
            }
            Done::Unsent(worker) => self.unsent(worker),
            Done::Failed { frames, worker, .. } => {
                self.on_failed(frames)?;
                self.give_back(worker)
            }
            Done::Broken(failure) => Err(failure),
        }
    }

    fn ask_source(&mut self) {
        if !self.check_pending && !self.source_ended {
            self.check_pending = self.reader.check(0, self.scan.num_frames);
            self.checked = Instant::now();
        }
    }

    fn lost(&mut self, peer: PeerId) -> Result<(), Failure> {
        if self.sink == Some(peer) {
            tracing::warn!("the sink's connection is lost; waiting for it to come back");
            self.sink = None;
            self.sink_missing_since = Some(Instant::now());
            self.dispatcher.sink_lost();
            if matches!(self.phase, Phase::Running) {
                self.phase = Phase::Opening;
            }
        } else if let Some(worker) = self.workers.remove(&peer) {
            tracing::warn!(worker = worker.name, "the worker's connection is lost");
            self.missing_workers();
            let actions = self.dispatcher.worker_gone(peer);
            self.act(actions)?;
        }
        Ok(())
    }

    fn missing_workers(&mut self) {
        if self.workers.is_empty() {
            self.worker_missing_since = Some(Instant::now());
        }
    }

    fn on_time(&mut self) -> Result<(), Failure> {
        self.end_unfinished()?;
        if self.checked.elapsed() >= POLL_SOURCE {
            self.ask_source();
        }
        let actions = self.dispatcher.tick(self.start.elapsed());
        self.act(actions)?;
        if self.shutdown.is_begun() {
            let since = *self.stopping_since.get_or_insert_with(Instant::now);
            self.dispatcher.sink_lost();
            if self.dispatcher.outstanding() == 0 || since.elapsed() > DRAIN {
                return Err(Failure::new(
                    Kind::Aborted,
                    "the producer was interrupted by a signal; the same command goes on from what \
                     is on disk",
                ));
            }
            return Ok(());
        }
        if let (Some(refusal), Some(since)) = (&self.refusal, self.worker_missing_since)
            && since.elapsed() > REFUSED_GRACE
        {
            return Err(refusal.clone());
        }
        let limit = Duration::from_secs_f64(self.pipeline.peer_timeout_secs);
        let late = |since: Option<Instant>| since.is_some_and(|at| at.elapsed() > limit);
        let (what, command) = match () {
            () if late(self.sink_missing_since) => ("sink", "ptystream sink --producer"),
            () if late(self.worker_missing_since) => ("worker", "ptystream worker --producer"),
            () => return Ok(()),
        };
        Err(error::missing(what, command, &self.hub.address, limit))
    }

    fn show(&mut self) {
        let progress = Progress {
            phase: self.phase.word(
                self.sink.is_some(),
                !self.workers.is_empty(),
                self.dispatcher.is_complete(),
            ),
            accepted: self.dispatcher.accepted(),
            durable: self.dispatcher.watermark(),
            total: self.scan.num_frames,
            frames_per_chunk: u64::from(self.scan.plan.frames_per_chunk),
            workers: self.workers.len(),
        };
        (self.progress)(&progress);
    }

    fn send(&self, peer: PeerId, body: Body) {
        if !self.hub.tx.send(peer, Message::new(self.stamp, body)) {
            tracing::debug!(%peer, "not sent: the connection is gone");
        }
    }

    /// Tells everybody, waits for their goodbyes, and closes.
    fn end(self, result: Result<SinkReport, Failure>) -> Result<ProducerReport, Failure> {
        let expected = self.scan.num_frames.unwrap_or(0);
        let mut waiting: Vec<PeerId> = self.workers.keys().copied().collect();
        waiting.extend(self.sink);
        for &peer in &waiting {
            let body = match &result {
                Ok(_) if Some(peer) == self.sink => Body::Bye,
                Ok(_) => Body::EndOfScan {
                    expected,
                    gaps: self.dispatcher.gaps().clone(),
                    aborted: self.aborted.clone(),
                },
                Err(failure) => Body::Stop(failure.clone()),
            };
            self.send(peer, body);
        }
        wait_for_goodbyes(&self.hub, waiting, |peer| {
            // Too late for this scan: told so, or it would wait for ever.
            self.send(
                peer,
                match &result {
                    Ok(_) => Body::EndOfScan { expected, gaps: IndexSet::new(), aborted: None },
                    Err(failure) => Body::Stop(failure.clone()),
                },
            );
        });
        self.hub.tx.close();
        let counts = self.dispatcher.counts();
        if !self.reader.join(result.is_ok()) {
            tracing::error!("the producer's reading thread panicked");
        }
        Ok(ProducerReport {
            sink: result?,
            counts,
            aborted: self.aborted,
            warnings: self.warnings,
            origins: self.origins,
            elapsed_secs: self.start.elapsed().as_secs_f64(),
        })
    }
}

/// Waits until all of `waiting` said goodbye or are gone, but not for ever; `late` answers a Hello.
fn wait_for_goodbyes(hub: &Hub, mut waiting: Vec<PeerId>, late: impl Fn(PeerId)) {
    let deadline = Instant::now() + GOODBYE;
    while !waiting.is_empty() {
        match hub.events.recv_deadline(deadline) {
            Ok(HubEvent::Gone(peer)) => waiting.retain(|p| *p != peer),
            Ok(HubEvent::Message(peer, message)) => match message.header.body {
                Body::Bye => waiting.retain(|p| *p != peer),
                Body::Hello { .. } => late(peer),
                _ => {}
            },
            Ok(HubEvent::Unreadable(..)) => {}
            Err(_) => {
                tracing::debug!(peers = waiting.len(), "no goodbye in time");
                return;
            }
        }
    }
}
