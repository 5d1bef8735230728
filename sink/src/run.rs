//! The life of a scan as the sink sees it.
//!
//! 1. Say Hello to the producer; it announces its scan.
//! 2. Open the file (lock, identity, what is on disk already) and say so.
//! 3. Grant workers results, put what comes in order, hand it to the disk; say what is held.
//! 4. Once the producer has said how many there are and all are durable: complete the file.
//! 5. Report to the producer, let the workers go, linger until all said goodbye.

use crate::assemble::{Assembler, Counts, Verdict};
use crate::credit::CreditBook;
use crate::pause::{Halted, Patience};
use crate::report::{Tally, WorkerTally};
use crate::scan::Scan;
use crate::threads::{Disk, DiskEvent, Pace};
use crate::writer::{Finish, Linger, Open, Publisher, Writer};
use bytes::Bytes;
use crossbeam_channel::{Receiver, never, select};
use ptystream_common::checksum;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::index::IndexSet;
use ptystream_common::link::{Hub, HubEvent, PeerId, Spoke, SpokeEvent};
use ptystream_common::loops;
use ptystream_common::message::{Announce, Body, Message, Prepared, Role, SinkReport, Stamp};
use ptystream_common::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
const GOODBYE: Duration = Duration::from_secs(2);
/// Chunks within the horizon where memory allows more than the two that it must hold: workers go on while
/// a master is made. Each chunk that has begun is an open file.
const HORIZON_CHUNKS: u64 = 64;

/// How a sink is run.
pub struct SinkArgs {
    /// Its name, for people.
    pub name: String,
    /// Bound already; workers connect to it.
    pub hub: Hub,
    /// To the producer.
    pub producer: Spoke,
    /// Folder to which a relative `data.dfile` refers.
    pub into: Option<PathBuf>,
    /// How long to wait for a producer that is not there.
    pub peer_timeout: Duration,
    /// Ends it.
    pub shutdown: Shutdown,
}

pub(crate) struct Sink {
    pub(crate) args: SinkArgs,
    pub(crate) credit: CreditBook,
    pub(crate) workers: BTreeMap<PeerId, WorkerTally>,
    pub(crate) gone: Vec<WorkerTally>,
    pub(crate) scan: Option<Scan>,
    /// In place of the scan, while the disk refuses.
    pub(crate) halted: Option<Halted>,
    pub(crate) start: Instant,
    producer_missing_since: Option<Instant>,
    state_sent: Instant,
    /// Parts that live readers may still be reading, and until when they stay.
    pub(crate) linger: Option<(Instant, Linger)>,
    /// What was written, for the report to be completed by the producer's part.
    pub(crate) written: Option<(Announce, SinkReport)>,
}

/// Writes a scan.
///
/// # Errors
/// What ended the scan; the other roles have been told.
pub fn run(args: SinkArgs) -> Result<SinkReport, Failure> {
    let _running = loops::running("sink");
    let now = Instant::now();
    let mut sink = Sink {
        args,
        credit: CreditBook::new(1, 1),
        workers: BTreeMap::new(),
        gone: Vec::new(),
        scan: None,
        halted: None,
        start: now,
        producer_missing_since: Some(now),
        state_sent: now,
        linger: None,
        written: None,
    };
    let result = sink.work();
    sink.end(result)
}

impl Sink {
    fn work(&mut self) -> Result<SinkReport, Failure> {
        let hub = self.args.hub.events.clone();
        let producer = self.args.producer.events.clone();
        loop {
            loops::turned("sink");
            let disk: Receiver<DiskEvent> =
                self.scan.as_ref().map_or_else(never, |s| s.disk.events.clone());
            select! {
                recv(hub) -> event => match event {
                    Ok(event) => self.on_worker(event),
                    Err(_) => return Err(Failure::new(Kind::Peer, "the sink's link has ended")),
                },
                recv(producer) -> event => match event {
                    Ok(event) => if let Some(report) = self.on_producer(event)? {
                        return Ok(report);
                    },
                    Err(_) => {
                        return Err(Failure::new(Kind::Peer, "the link to the producer has ended"));
                    }
                },
                recv(disk) -> event => match event {
                    Ok(event) => if let Some(report) = self.on_disk(event)? {
                        return Ok(report);
                    },
                    Err(_) => self.halt()?,
                },
                default(TICK) => {}
            }
            self.go_on();
            self.on_time()?;
            if let Some(report) = self.try_again()? {
                return Ok(report);
            }
        }
    }

    fn on_producer(&mut self, event: SpokeEvent) -> Result<Option<SinkReport>, Failure> {
        let message = match event {
            SpokeEvent::Connected => {
                self.producer_missing_since = None;
                let body =
                    Body::Hello { role: Role::Sink, name: self.args.name.clone(), attempt: 0 };
                self.args.producer.tx.send(Message::new(Stamp::default(), body));
                return Ok(None);
            }
            SpokeEvent::Gone => {
                tracing::warn!(address = self.args.producer.address, "the producer is gone");
                self.producer_missing_since = Some(Instant::now());
                return Ok(None);
            }
            SpokeEvent::Unreadable(error) => {
                let address = &self.args.producer.address;
                return Err(Failure::new(
                    Kind::Peer,
                    format!("the producer at {address}: {error}"),
                ));
            }
            SpokeEvent::Message(message) => message,
        };
        match message.header.body {
            Body::Announce(announce) => return self.on_announce(*announce),
            Body::Gap { range, reason, positions } => {
                if let Some(scan) = &mut self.scan {
                    scan.assembler.gap(range, &reason, positions.as_deref());
                    scan.state_changed = true;
                    scan.close();
                }
            }
            Body::EndOfScan { expected, aborted, .. } => {
                if let Some(scan) = &mut self.scan {
                    let expected = scan.fill_up(expected);
                    scan.aborted = aborted;
                    scan.set_length(expected);
                    scan.end_announced = true;
                }
            }
            Body::Stop(failure) | Body::Refused(failure) => return Err(failure),
            Body::Bye => {}
            other => tracing::warn!("a message out of place was dropped: {other:?}"),
        }
        Ok(None)
    }

    fn on_announce(&mut self, mut announce: Announce) -> Result<Option<SinkReport>, Failure> {
        if let (Some(into), Some(dfile)) = (&self.args.into, &announce.dfile) {
            announce.dfile = Some(into.join(dfile));
        }
        let known = self.scan.as_ref().map(|s| &s.announce);
        if let Some(known) = known.or(self.halted.as_ref().map(|h| &h.announce))
            && known.scan_key != announce.scan_key
        {
            return Err(Failure::new(
                Kind::Peer,
                "the producer came back with another scan; start the sink anew for it",
            ));
        }
        if let Some(halted) = &self.halted {
            self.args.producer.tx.send(halted.paused());
            return Ok(None);
        }
        if let Some(scan) = &mut self.scan {
            scan.end_announced = false;
            scan.state_changed = true;
            // Not what is accepted: the horizon counts from what is durable.
            let durable = scan.assembler.durable().clone();
            let body = Body::Opened { horizon: scan.horizon, durable };
            self.args.producer.tx.send(Message::new(scan.stamp, body));
            return Ok(None);
        }
        let file = match (&announce.dfile, announce.save) {
            (Some(_), Some(_)) => match Writer::open(&announce).map_err(|e| Failure::from(&e))? {
                Open::Ready(writer, publisher) => Some((writer, *publisher)),
                Open::AlreadyComplete(report) => return Ok(Some(*report)),
            },
            _ => None,
        };
        let frame_bytes = announce.form.frame_bytes().max(1);
        let budget = announce.pipeline.sink_memory_bytes;
        let message_bytes = frame_bytes * u64::from(announce.form.batch);
        let slots = (budget / message_bytes).max(1) as usize;
        tracing::info!(budget_bytes = budget, slots, message_bytes, "results in memory");
        self.credit = CreditBook::new(slots, announce.pipeline.window as usize);
        for peer in self.workers.keys() {
            self.credit.join(*peer);
        }
        let patience = Patience::new(Duration::from_secs_f64(announce.pipeline.disk_wait_secs));
        let resumed = file.as_ref().map_or(0, |(writer, _)| writer.durable().len());
        let tally = Tally { resumed, ..Tally::default() };
        self.begin(announce, file, patience, tally, Counts::default())?;
        Ok(None)
    }

    /// Starts the disk over a file that is open, and says so to the producer.
    pub(crate) fn begin(
        &mut self,
        announce: Announce,
        file: Option<(Writer, Publisher)>,
        patience: Patience,
        tally: Tally,
        before: Counts,
    ) -> Result<(), Failure> {
        let chunks = file.as_ref().map_or(0, |(_, publisher)| publisher.chunks());
        let (stamp, durable, hold) = match &file {
            Some((writer, _)) => (writer.stamp(), writer.durable().clone(), Some(writer.hold())),
            None => {
                let run_id = uuid::Uuid::new_v4().as_u64_pair().0;
                (Stamp { run_id, epoch: 1 }, IndexSet::new(), None)
            }
        };
        let per_chunk = u64::from(announce.frames_per_chunk);
        let ahead = announce.pipeline.sink_memory_bytes / announce.form.frame_bytes().max(1);
        let horizon = ahead.clamp(2 * per_chunk, HORIZON_CHUNKS.max(2) * per_chunk);
        tracing::info!(horizon, "frames ahead of what is durable");
        let interval = Duration::from_secs_f64(announce.pipeline.publish_interval_secs);
        // With half of the horizon left to work on, nobody waits for a master.
        let disk = Disk::start(file, Pace { interval, frames: horizon / 2 })
            .map_err(|e| Failure::new(Kind::Output, format!("cannot start a thread: {e}")))?;
        let assembler = Assembler::new(
            announce.frames_per_chunk,
            announce.num_frames,
            announce.positions.is_some(),
            &durable,
            chunks,
        );
        let body = Body::Opened { horizon, durable };
        self.args.producer.tx.send(Message::new(stamp, body));
        self.scan = Some(Scan {
            announce,
            stamp,
            horizon,
            assembler,
            disk,
            hold,
            patience,
            failed: None,
            largest_chunk: 0,
            has_common_weights: false,
            lacks_weights: false,
            end_announced: false,
            aborted: None,
            finishing: false,
            state_changed: true,
            waiting_since: None,
            tally,
            before,
        });
        Ok(())
    }

    fn on_worker(&mut self, event: HubEvent) {
        match event {
            HubEvent::Message(peer, message) => self.on_worker_message(peer, message),
            HubEvent::Unreadable(peer, error) => {
                tracing::error!(%peer, "a message that cannot be read was dropped: {error}");
            }
            HubEvent::Gone(peer) => self.worker_left(peer),
        }
    }

    fn on_worker_message(&mut self, peer: PeerId, mut message: Message) {
        let stamp = message.header.stamp;
        match message.header.body {
            Body::Hello { role: Role::Worker, name, .. } => {
                self.workers.insert(peer, WorkerTally { name, ..WorkerTally::default() });
                self.credit.join(peer);
            }
            Body::Hello { role, name, .. } => {
                let text = format!("{name} is a {role:?}; only workers connect to a sink");
                let body = Body::Refused(Failure::new(Kind::Peer, text));
                self.args.hub.tx.send(peer, Message::new(stamp, body));
            }
            Body::CommonWeights { checksum } => {
                if let (Some(scan), Some(blob)) = (&mut self.scan, message.parts.pop())
                    && scan.stamp == stamp
                    && !scan.has_common_weights
                {
                    if checksum.is_some_and(|said| said != checksum::sum(&blob)) {
                        tracing::warn!(%peer, "the common weights came damaged; asked for again");
                        scan.lacks_weights = true;
                        let body = Body::Damaged { range: None };
                        self.args.hub.tx.send(peer, Message::new(stamp, body));
                        return;
                    }
                    scan.has_common_weights = true;
                    scan.disk.common_weights(blob);
                    scan.close_waiting();
                }
            }
            Body::Prepared(head) => self.on_prepared(peer, stamp, &head, message.parts),
            Body::Bye => self.worker_left(peer),
            other => tracing::warn!(%peer, "a message out of place was dropped: {other:?}"),
        }
    }

    fn on_prepared(&mut self, peer: PeerId, stamp: Stamp, head: &Prepared, parts: Vec<Bytes>) {
        let count = u64::from(head.range.count);
        let here = |s: &&mut Scan| s.stamp == stamp && s.failed.is_none();
        let Some(scan) = self.scan.as_mut().filter(here) else {
            self.credit.returned(peer);
            if let Some(scan) = &mut self.scan {
                scan.tally.stale += count;
            }
            return;
        };
        scan.tally.begun.get_or_insert_with(Instant::now);
        let copied = !self.args.hub.is_local();
        if copied && !checksum::are_whole(&parts, head.checksums.as_deref()) {
            tracing::warn!(%peer, range = %head.range, "prepared pixels came damaged");
            scan.tally.damaged += count;
            self.credit.returned(peer);
            let body = Body::Damaged { range: Some(head.range) };
            self.args.producer.tx.send(Message::new(stamp, body));
            return;
        }
        let mut parts = parts.into_iter();
        let (Some(data), weights) = (parts.next(), parts.next()) else {
            self.credit.returned(peer);
            return;
        };
        if weights.is_some() == scan.announce.form.common_weights {
            tracing::error!(%peer, range = %head.range, "dropped: weights missing, or too many");
            self.credit.returned(peer);
            return;
        }
        match scan.assembler.prepared(head) {
            Verdict::Keep => {
                scan.state_changed = true;
                self.credit.kept(peer);
                scan.disk.put(peer, head.range, data, weights, head.checksums.clone());
                if let Some(tally) = self.workers.get_mut(&peer) {
                    tally.frames += count;
                    tally.load += Duration::from_micros(head.load_us.into());
                    tally.prepare += Duration::from_micros(head.prepare_us.into());
                }
                scan.close();
            }
            Verdict::Mismatch => {
                tracing::error!(
                    %peer,
                    range = %head.range,
                    "a second copy differs from the first, which is kept: does another build of \
                     ptystream run on a worker, or is its memory broken?"
                );
                self.credit.returned(peer);
            }
            verdict => {
                tracing::debug!(%peer, range = %head.range, ?verdict, "not kept");
                self.credit.returned(peer);
            }
        }
    }

    fn worker_left(&mut self, peer: PeerId) {
        self.credit.leave(peer);
        if let Some(tally) = self.workers.remove(&peer) {
            self.gone.push(tally);
        }
    }

    fn on_disk(&mut self, event: DiskEvent) -> Result<Option<SinkReport>, Failure> {
        match event {
            DiskEvent::Written(peers) => {
                peers.into_iter().for_each(|peer| self.credit.written(peer));
            }
            DiskEvent::Closed(bytes) => {
                if let Some(scan) = &mut self.scan {
                    scan.tally.bytes += bytes;
                    scan.largest_chunk = scan.largest_chunk.max(bytes);
                }
            }
            DiskEvent::Durable(range) => {
                if let Some(scan) = &mut self.scan {
                    tracing::debug!(%range, "durable");
                    scan.assembler.published(range);
                    scan.patience.progressed();
                    scan.state_changed = true;
                }
            }
            DiskEvent::Failed(error) => match &mut self.scan {
                Some(scan)
                    if error.is_trouble() && scan.patience.waits() && scan.hold.is_some() =>
                {
                    scan.disk.abandon();
                    scan.failed.get_or_insert(error);
                }
                _ => return Err(error.in_mid_scan()),
            },
            DiskEvent::Finished(finished) => return Ok(self.report(*finished)),
        }
        Ok(None)
    }

    /// Grants what is free, says what is held, completes the file when all is there.
    fn go_on(&mut self) {
        let Some(scan) = self.scan.as_mut().filter(|s| s.failed.is_none()) else { return };
        scan.flush();
        for (peer, messages) in self.credit.grants() {
            self.args.hub.tx.send(peer, Message::new(scan.stamp, Body::Grant { messages }));
        }
        if scan.state_changed && self.state_sent.elapsed() >= TICK / 2 {
            scan.state_changed = false;
            self.state_sent = Instant::now();
            let body = Body::State {
                watermark: scan.assembler.watermark(),
                accepted: scan.assembler.accepted().clone(),
            };
            self.args.producer.tx.send(Message::new(scan.stamp, body));
        }
        if scan.end_announced && scan.assembler.is_complete() && !scan.finishing {
            self.finish();
        }
    }

    /// Has the file completed.
    fn finish(&mut self) {
        let Some(mut scan) = self.scan.take() else { return };
        scan.finishing = true;
        let num_frames = scan.assembler.length().unwrap_or(0);
        // What is counted until now goes into the file; times of the disk are known afterwards.
        let counts = scan.counts();
        let said = SinkReport::default();
        let mut report =
            self.sum_up(&scan.announce, scan.stamp, num_frames, &scan.tally, counts, said);
        report.alignment = scan.tally.judge.verdict();
        scan.disk.finish(Finish {
            num_frames,
            aborted: scan.aborted.clone(),
            gaps: scan.assembler.gaps(),
            report,
        });
        self.scan = Some(scan);
    }

    fn on_time(&self) -> Result<(), Failure> {
        if self.args.shutdown.is_begun() {
            return Err(Failure::new(
                Kind::Aborted,
                "the sink was interrupted by a signal; the same command goes on from what is on \
                 disk",
            ));
        }
        let limit = self.args.peer_timeout;
        if self.producer_missing_since.is_some_and(|since| since.elapsed() > limit) {
            return Err(Failure::new(
                Kind::Peer,
                format!(
                    "no producer at {} for {} s; is it running, and is the address right?",
                    self.args.producer.address,
                    limit.as_secs_f64()
                ),
            ));
        }
        Ok(())
    }

    /// Tells everybody, waits for the goodbyes, closes.
    fn end(mut self, result: Result<SinkReport, Failure>) -> Result<SinkReport, Failure> {
        let halted = self.halted.as_ref().map(|h| h.stamp);
        let stamp = self.scan.as_ref().map(|s| s.stamp).or(halted).unwrap_or_default();
        let to_workers = match &result {
            Ok(report) => {
                Body::EndOfScan { expected: report.frames, gaps: IndexSet::new(), aborted: None }
            }
            Err(failure) => Body::Stop(failure.clone()),
        };
        let to_producer = match &result {
            Ok(report) => Body::Finished(Box::new(report.clone())),
            Err(failure) => Body::Stop(failure.clone()),
        };
        self.args.producer.tx.send(Message::new(stamp, to_producer));
        for peer in self.workers.keys() {
            self.args.hub.tx.send(*peer, Message::new(stamp, to_workers.clone()));
        }
        if let Some(scan) = self.scan.take() {
            scan.disk.abandon();
            for event in &scan.disk.events {
                if let DiskEvent::Failed(error) = event {
                    tracing::error!("while closing the file: {error}");
                }
            }
            scan.disk.join();
        }
        let deadline = Instant::now() + GOODBYE;
        let mut producer = self.producer_missing_since.is_none();
        while producer || !self.workers.is_empty() {
            select! {
                recv(self.args.hub.events) -> event => match event {
                    Ok(HubEvent::Gone(peer)) => { self.workers.remove(&peer); }
                    Ok(HubEvent::Message(peer, message)) => match message.header.body {
                        Body::Bye => { self.workers.remove(&peer); }
                        Body::Hello { .. } => {
                            self.args.hub.tx.send(peer, Message::new(stamp, to_workers.clone()));
                        }
                        _ => {}
                    },
                    Ok(HubEvent::Unreadable(..)) => {}
                    Err(_) => break,
                },
                recv(self.args.producer.events) -> event => match event {
                    Ok(SpokeEvent::Gone) => producer = false,
                    Ok(SpokeEvent::Message(m)) => match m.header.body {
                        Body::Report(part) => self.complete_report(&part),
                        Body::Bye | Body::Stop(_) => producer = false,
                        _ => {}
                    },
                    Ok(_) => {}
                    Err(_) => producer = false,
                },
                default(deadline.saturating_duration_since(Instant::now())) => break,
            }
        }
        self.args.producer.tx.send(Message::new(stamp, Body::Bye));
        self.args.hub.tx.close();
        self.args.producer.tx.close();
        if let Some((until, parts)) = self.linger.take() {
            while Instant::now() < until && !self.args.shutdown.is_begun() {
                std::thread::sleep(TICK);
            }
            if let Err(error) = parts.clear() {
                tracing::warn!("{}", ptystream_common::error::chain(&error));
            }
        }
        result
    }
}
