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
use crate::peers::Roster;
use crate::phase::Phase;
use crate::read::{Done, Reader};
pub use crate::report::Progress;
use crate::scan::Scan;
use crate::waits::Waits;
use crossbeam_channel::select;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::form::region;
use ptystream_common::index::{Index, IndexRange, IndexSet};
use ptystream_common::link::{Hub, HubEvent, PeerId};
use ptystream_common::loops;
use ptystream_common::message::{Aborted, Body, Message, Role, SinkReport, Stamp, Task, Ticket};
use ptystream_common::params::{OnGap, PipelineParams};
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

/// So many failed frames with none that was prepared end the scan.
const HOPELESS: u64 = 10;
const TICK: Duration = Duration::from_millis(20);
const POLL_SOURCE: Duration = Duration::from_millis(100);

struct Producer<'a> {
    scan: Scan,
    pipeline: PipelineParams,
    hub: Hub,
    reader: Reader,
    dispatcher: Dispatcher,
    phase: Phase,
    sink: Option<PeerId>,
    /// What the sink called itself.
    sink_name: String,
    workers: Roster,
    /// Why the sink writes nothing at the moment.
    paused: Option<String>,
    /// Why, and where, if that is known.
    gaps: BTreeMap<u64, (String, Option<[f64; 2]>)>,
    /// Why the scan ends before its announced number of frames, if it does.
    aborted: Option<Aborted>,
    /// Where the file is to stay unfinished: how many frames came, and what is said in the end.
    kept: Option<(u64, Failure)>,
    announced_end: bool,
    start: Instant,
    started: SystemTime,
    waits: Waits,
    /// Why a worker cannot prepare this scan; ends it where there is no other worker.
    refusal: Option<Failure>,
    checked: Instant,
    check_pending: bool,
    source_ended: bool,
    /// It has been said who shares the scan.
    shared: bool,
    shutdown: Shutdown,
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
) -> Result<ScanReport, Failure> {
    let source = scan.source.take().ok_or_else(|| {
        Failure::new(Kind::Config, "the scan's source has been taken by another run")
    })?;
    let kept = scan.retention.take();
    let (tx, sums) = (hub.tx.clone(), pipeline.checksums && !hub.is_local());
    let reader = Reader::start(source, scan.common(), tx, kept, scan.num_frames, sums)?;
    let measuring = scan.needs_center();
    if !scan.plan.workers_read {
        tracing::info!(
            budget_bytes = pipeline.producer_memory_bytes,
            tickets = scan.cut(pipeline).max_outstanding,
            "pixels under way at most"
        );
    }
    let _running = loops::running("producer");
    let now = Instant::now();
    let mut producer = Producer {
        dispatcher: Dispatcher::new(scan.cut(pipeline), scan.num_frames),
        phase: if measuring { Phase::Measuring(Centers::default()) } else { Phase::Opening },
        scan,
        pipeline: pipeline.clone(),
        hub,
        reader,
        sink: None,
        sink_name: String::new(),
        workers: Roster::default(),
        paused: None,
        gaps: BTreeMap::new(),
        aborted: None,
        kept: None,
        announced_end: false,
        start: now,
        started: SystemTime::now(),
        waits: Waits::new(pipeline.peer_timeout_secs),
        refusal: None,
        checked: now,
        check_pending: false,
        source_ended: false,
        shared: false,
        shutdown: shutdown.clone(),
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
            loops::turned("producer");
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
            Body::Hello { role: Role::Worker, name, attempt } => {
                tracing::info!(worker = name, "worker joined");
                self.workers.joined(peer, &name, attempt);
                // A Hello on a standing connection: the worker has dropped what it held.
                let actions = self.dispatcher.worker_joined(peer, &name);
                self.act(actions)?;
                self.plan(peer);
            }
            Body::Hello { role: Role::Sink, name, .. } => self.on_sink(peer, &name)?,
            Body::Hello { role: Role::Producer, name, .. } => {
                let text = format!("{name} is a producer, and so is the one that it talks to");
                self.send(peer, Body::Refused(Failure::new(Kind::Peer, text)));
            }
            Body::Want { tickets } if self.workers.counts(peer, stamp) => {
                let actions = self.dispatcher.want(peer, tickets);
                self.act(actions)?;
            }
            Body::Measured { range, centers } if self.workers.counts(peer, stamp) => {
                self.dispatcher.heard(peer);
                self.on_measured(range, centers)?;
            }
            Body::Failed { range, failure } if self.workers.counts(peer, stamp) => {
                self.dispatcher.heard(peer);
                self.on_failed(range.iter().map(|i| (i, failure.clone())).collect())?;
            }
            Body::Broken(failure) if self.workers.counts(peer, stamp) => return Err(failure),
            Body::Damaged { range: Some(range) } if self.workers.counts(peer, stamp) => {
                self.on_damaged(range, Some(peer))?;
            }
            Body::Damaged { range: Some(range) }
                if self.sink == Some(peer) && self.workers.is_current(stamp) =>
            {
                self.on_damaged(range, None)?;
            }
            Body::Want { .. }
            | Body::Measured { .. }
            | Body::Failed { .. }
            | Body::Broken(_)
            | Body::Damaged { .. } => {}
            Body::Opened { horizon, durable } if self.sink == Some(peer) => {
                self.on_opened(stamp, horizon, &durable)?;
            }
            Body::State { watermark, accepted } if self.workers.is_current(stamp) => {
                self.reader.durable(watermark);
                let actions = self.dispatcher.state(watermark, &accepted);
                self.act(actions)?;
            }
            Body::Paused { reason } if self.sink == Some(peer) => self.on_paused(reason),
            Body::Finished(report) => return Ok(Some(*report)),
            Body::Stop(failure) | Body::Refused(failure) if self.sink == Some(peer) => {
                self.sink = None;
                return Err(failure);
            }
            Body::Refused(failure) if self.workers.name(peer).is_some() => {
                let name = self.workers.name(peer).unwrap_or_default();
                let text = format!("{name} cannot prepare this scan: {failure}");
                tracing::error!("{text}");
                self.refusal = Some(Failure::new(failure.kind, text));
            }
            Body::Bye => {
                if let Some(worker) = self.workers.gone(peer) {
                    tracing::info!(worker, "worker left");
                    self.dispatcher.worker_left(peer);
                }
            }
            other => tracing::warn!(%peer, "a message out of place was dropped: {other:?}"),
        }
        Ok(None)
    }

    fn on_sink(&mut self, peer: PeerId, name: &str) -> Result<(), Failure> {
        if self.sink == Some(peer) {
            return Ok(());
        }
        if let Some(old) = self.sink.filter(|_| self.sink_name == name) {
            // It has connected anew before the news that its old connection is gone came here.
            self.lost(old)?;
        }
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
        name.clone_into(&mut self.sink_name);
        if !matches!(self.phase, Phase::Measuring(_)) {
            self.announce()?;
        }
        Ok(())
    }

    fn on_opened(&mut self, stamp: Stamp, horizon: u64, durable: &IndexSet) -> Result<(), Failure> {
        let anew = self.workers.opened(stamp);
        self.phase = Phase::Running;
        if self.paused.take().is_some() {
            tracing::info!("the sink writes again");
        }
        for (index, (reason, position)) in self.gaps.clone() {
            self.tell_gap(Index(index), &reason, position);
        }
        for worker in self.workers.unplanned() {
            self.plan(worker);
        }
        self.announced_end = false;
        let actions = match anew {
            true => self.dispatcher.opened(horizon, durable),
            false => self.dispatcher.reopened(horizon, durable),
        };
        self.act(actions)
    }

    /// The disk refuses: nothing is handed out until the sink has opened the file again.
    fn on_paused(&mut self, reason: String) {
        self.dispatcher.sink_lost();
        if matches!(self.phase, Phase::Running) {
            self.phase = Phase::Opening;
        }
        if self.paused.as_ref() != Some(&reason) {
            tracing::warn!("the sink has paused: {reason}");
            self.paused = Some(reason);
        }
    }

    fn announce(&mut self) -> Result<(), Failure> {
        let Some(sink) = self.sink else { return Ok(()) };
        let announce = self.scan.announce().map_err(|e| Failure::from(&e))?;
        self.warnings.clone_from(&announce.warnings);
        self.origins.clone_from(&announce.origins);
        if let Some(region) = region(&self.scan.plan) {
            self.reader.narrow(region);
        }
        self.phase = Phase::Opening;
        self.send(sink, Body::Announce(Box::new(announce)));
        Ok(())
    }

    /// Sends a worker what it needs, as soon as there is something to do with it.
    fn plan(&mut self, peer: PeerId) {
        if matches!(self.phase, Phase::Opening) {
            return;
        }
        let message = self.scan.plan_message(self.workers.stamp(), self.workers.attempt(peer));
        if self.hub.tx.send(peer, message) {
            self.workers.planned(peer);
        }
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
        for peer in self.workers.peers() {
            let name = self.workers.name(peer).unwrap_or_default();
            // Nothing is handed out before the file is open.
            self.dispatcher.worker_joined(peer, name);
        }
        let gaps: Vec<u64> = self.gaps.keys().copied().collect();
        for index in gaps {
            self.dispatcher.declare_gap(IndexRange::new(index, 1));
        }
        // Wants of the measuring phase are void: the next plan makes workers ask anew.
        self.workers.void_plans();
        self.phase = Phase::Opening;
        self.check_pending = false;
        self.source_ended = false;
        self.ask_source();
        self.announce()
    }

    /// Declares frames as gaps.
    fn on_failed(&mut self, frames: Vec<(Index, Failure)>) -> Result<(), Failure> {
        for (index, failure) in frames {
            let (actions, new) = self.dispatcher.declare_gap(IndexRange { first: index, count: 1 });
            if !new.is_empty() {
                self.on_gap(index, &failure)?;
            }
            self.act(actions)?;
        }
        self.measured()
    }

    /// Tells of a new gap, or ends the scan where none is wanted or nothing else is left.
    fn on_gap(&mut self, index: Index, failure: &Failure) -> Result<(), Failure> {
        if self.pipeline.on_gap == OnGap::Fail {
            return Err(failure.clone());
        }
        tracing::warn!(%index, "frame becomes a gap: {failure}");
        self.gaps.insert(index.0, (failure.text.clone(), None));
        self.tell_gap(index, &failure.text, None);
        let count = self.gaps.len() as u64;
        let all = self.scan.num_frames.is_some_and(|n| count >= n);
        let tried = matches!(self.phase, Phase::Measuring(ref m) if !m.is_empty());
        if all || (count >= HOPELESS && !self.dispatcher.has_frames() && !tried) {
            return Err(Failure::new(
                failure.kind,
                format!("the first {count} frames all failed; the last one: {failure}"),
            ));
        }
        Ok(())
    }

    fn tell_gap(&mut self, index: Index, reason: &str, position: Option<[f64; 2]>) {
        if let (Phase::Running, Some(sink)) = (&self.phase, self.sink) {
            let nominal = self.scan.positions_of(index.0..index.0 + 1);
            let positions = position.map(|yx| vec![yx]).or(nominal);
            let range = IndexRange { first: index, count: 1 };
            self.send(sink, Body::Gap { range, reason: reason.to_owned(), positions });
        }
    }

    fn act(&mut self, actions: Vec<Action>) -> Result<(), Failure> {
        let mut new_gaps = false;
        for action in actions {
            match action {
                Action::Send { worker, range } => self.hand_out(worker, range)?,
                Action::Gap { range, reason } => {
                    new_gaps = true;
                    for index in range.iter() {
                        let failure = Failure::new(Kind::Input, format!("frame {index}: {reason}"));
                        self.on_gap(index, &failure)?;
                    }
                }
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
        if new_gaps { self.measured() } else { Ok(()) }
    }

    fn hand_out(&mut self, worker: PeerId, range: IndexRange) -> Result<(), Failure> {
        let task = match self.phase {
            Phase::Measuring(_) => Task::Measure,
            _ => Task::Prepare,
        };
        let positions = self.scan.positions_of(range.first.0..range.end());
        let ticket = Ticket { range, task, positions, gaps: Vec::new(), pixels: None };
        let stamp = self.workers.stamp();
        tracing::trace!(%worker, %range, "ticket");
        if !self.scan.plan.workers_read {
            let asked = self.reader.read(worker, stamp, ticket);
            return asked.then_some(()).ok_or(Failure::from(&ProducerError::Panic("reading")));
        }
        if !self.hub.tx.send(worker, Message::new(stamp, Body::Ticket(ticket))) {
            self.dispatcher.unsent(worker);
        }
        Ok(())
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
            Done::Unsent(worker) => {
                self.dispatcher.unsent(worker);
                Ok(())
            }
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
            self.dispatcher.sink_lost();
            self.paused = None;
            if matches!(self.phase, Phase::Running) {
                self.phase = Phase::Opening;
            }
        } else if let Some(worker) = self.workers.gone(peer) {
            tracing::warn!(worker, "the worker's connection is lost");
            let actions = self.dispatcher.worker_gone(peer);
            self.act(actions)?;
        }
        Ok(())
    }

    fn on_time(&mut self) -> Result<(), Failure> {
        self.end_unfinished()?;
        if self.checked.elapsed() >= POLL_SOURCE {
            self.ask_source();
        }
        let actions = self.dispatcher.tick(self.start.elapsed());
        self.act(actions)?;
        self.say_who_shares();
        if self.shutdown.is_begun() {
            self.dispatcher.sink_lost();
            let out = self.dispatcher.outstanding();
            return self.waits.drain(out, || self.dispatcher.holders());
        }
        // Once all is on disk only the sink has something to do.
        let written = self.dispatcher.is_complete();
        let stuck = self.dispatcher.all_stuck() && !written;
        self.waits.see(self.sink.is_some(), written || !(stuck || self.workers.is_empty()));
        match self.paused {
            // It waits for the disk, which has a limit of its own.
            Some(_) => Ok(()),
            None => {
                let refusal = self.refusal.as_ref().filter(|_| !written);
                self.waits
                    .check(&self.hub.address, stuck, refusal)
                    .map_err(|failure| if written { error::unfinished(failure) } else { failure })
            }
        }
    }

    /// Says once that the scan has begun with fewer workers than were to share it.
    fn say_who_shares(&mut self) {
        let there = self.dispatcher.seats().len();
        if there > 0 && !std::mem::replace(&mut self.shared, true) {
            let wanted = self.pipeline.workers.unwrap_or(there);
            if there < wanted {
                tracing::warn!(
                    "{there} of {wanted} workers share the scan (pipeline.workers); the others did not \
                     come in time"
                );
            }
        }
    }

    fn show(&mut self) {
        let word = self.phase.word(
            self.sink.is_some(),
            !self.workers.is_empty(),
            self.dispatcher.is_complete(),
        );
        let progress = Progress {
            phase: match &self.paused {
                Some(reason) => format!("paused: {reason}").into(),
                None => word.into(),
            },
            accepted: self.dispatcher.accepted(),
            durable: self.dispatcher.watermark(),
            total: self.scan.num_frames,
            frames_per_chunk: u64::from(self.scan.plan.frames_per_chunk),
            workers: self.workers.len(),
        };
        (self.progress)(&progress);
    }

    fn send(&self, peer: PeerId, body: Body) {
        if !self.hub.tx.send(peer, Message::new(self.workers.stamp(), body)) {
            tracing::debug!(%peer, "not sent: the connection is gone");
        }
    }
}
