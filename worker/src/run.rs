//! The life of a worker: asks for tickets, reads or receives frames, prepares, sends.
//!
//! A worker holds no state between tickets. One thread does one ticket after the other; the links
//! carry messages on threads of their own, so that the next ticket is there when one is done.
//!
//! ```text
//! producer ──Plan, Ticket──▶ ┌────────┐ ──CommonWeights, Prepared──▶ sink
//!          ◀──Want, Failed── │ worker │ ◀──────────Grant────────────
//!                            └────────┘
//! ```

mod work;

use crate::activity::Activity;
use bytes::Bytes;
use crossbeam_channel::{Receiver, never, select};
use ptystream_common::checksum;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::link::{Spoke, SpokeEvent};
use ptystream_common::loops;
use ptystream_common::message::{ArrayHead, Body, Message, PreparePlan, Role, Stamp, Task, Ticket};
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::{Registry, Unloaded};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use work::Work;

const TICK: Duration = Duration::from_millis(50);

/// How a worker is run.
pub struct WorkerArgs {
    /// The worker's name, for people.
    pub name: String,
    /// To the producer.
    pub producer: Spoke,
    /// To the sink.
    pub sink: Spoke,
    /// The sources that it can open.
    pub registry: Registry,
    /// Tickets that it holds at most.
    pub window: u32,
    /// How long to wait for a role that is not there.
    pub peer_timeout: Duration,
    /// Ends it.
    pub shutdown: Shutdown,
    /// What it does at the moment, for those who watch.
    pub activity: Arc<Activity>,
}

/// What a worker has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerReport {
    /// Frames prepared and sent.
    pub frames: u64,
    /// Frames that failed.
    pub failed: u64,
}

struct Worker {
    args: WorkerArgs,
    work: Option<Work>,
    tickets: VecDeque<(Ticket, Vec<Bytes>)>,
    /// Results that the sink allows.
    grants: u32,
    /// Tickets done for which no other has been asked yet.
    done: u32,
    /// How often it has said Hello to the producer.
    attempt: u32,
    finished: Option<Message>,
    producer_missing_since: Option<Instant>,
    sink_missing_since: Option<Instant>,
    no_more: bool,
    report: WorkerReport,
}

/// Works until the scan ends.
///
/// # Errors
/// What ended the scan, or which role was not to be found.
pub fn run(args: WorkerArgs) -> Result<WorkerReport, Failure> {
    let _running = loops::running(&args.name);
    let now = Instant::now();
    let mut worker = Worker {
        args,
        work: None,
        tickets: VecDeque::new(),
        grants: 0,
        done: 0,
        attempt: 0,
        finished: None,
        producer_missing_since: Some(now),
        sink_missing_since: Some(now),
        no_more: false,
        report: WorkerReport::default(),
    };
    let result = worker.work();
    for spoke in [&worker.args.producer, &worker.args.sink] {
        let stamp = worker.work.as_ref().map_or(Stamp::default(), |w| w.stamp);
        spoke.tx.send(Message::new(stamp, Body::Bye));
        spoke.tx.close();
    }
    result.map(|()| worker.report)
}

impl Worker {
    fn work(&mut self) -> Result<(), Failure> {
        let producer = self.args.producer.events.clone();
        let sink = self.args.sink.events.clone();
        let idle: Receiver<()> = never();
        loop {
            loops::turned(&self.args.name);
            // What is waiting is read before the next ticket is begun.
            let busy = match &self.finished {
                Some(_) => self.grants > 0,
                None => self.no_more || !self.tickets.is_empty(),
            };
            let timeout = if busy { Duration::ZERO } else { TICK };
            select! {
                recv(producer) -> event => match event {
                    Ok(event) => { self.on_producer(event)?; continue; }
                    Err(_) => return Err(Failure::new(Kind::Peer, "the link to the producer has ended")),
                },
                recv(sink) -> event => match event {
                    Ok(event) => { self.on_sink(event)?; continue; }
                    Err(_) => return Err(Failure::new(Kind::Peer, "the link to the sink has ended")),
                },
                recv(idle) -> _ => {}
                default(timeout) => {}
            }
            if let Some(message) = self.finished.take() {
                self.deliver(message);
            }
            let leaving = self.no_more || self.args.shutdown.is_begun();
            if self.args.shutdown.is_begun() {
                self.say_what_is_left();
            }
            if self.finished.is_none() {
                match self.tickets.pop_front() {
                    Some((ticket, parts)) => {
                        self.args.activity.begin(ticket.range);
                        let done = self.do_ticket(ticket, parts);
                        self.args.activity.end();
                        done?;
                    }
                    None if leaving => return Ok(()),
                    None => {}
                }
            }
            self.on_time()?;
        }
    }

    fn say_what_is_left(&self) {
        let mut text = format!("{}: {} tickets", self.args.name, self.tickets.len());
        if self.finished.is_some() {
            text.push_str(", and the sink's leave to send a result");
        }
        self.args.shutdown.set_waits_for(text);
    }

    fn on_producer(&mut self, event: SpokeEvent) -> Result<(), Failure> {
        let message = match event {
            SpokeEvent::Connected => {
                self.producer_missing_since = None;
                self.begin_anew();
                return Ok(());
            }
            SpokeEvent::Gone => {
                tracing::warn!(address = self.args.producer.address, "the producer is gone");
                self.producer_missing_since = Some(Instant::now());
                self.tickets.clear();
                return Ok(());
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
        let stamp = message.header.stamp;
        match message.header.body {
            Body::Plan { answers, .. } if answers != self.attempt => {}
            Body::Plan { arrays, .. } if !arrays_are_whole(&arrays, &message.parts) => {
                tracing::warn!("dark, flat or mask came damaged; asked for again");
                self.begin_anew();
            }
            Body::Plan { plan, arrays, .. } => {
                if let Err(failure) = self.on_plan(*plan, stamp, arrays, message.parts) {
                    // Said aloud: else the producer would see a worker leave and wait for another.
                    let body = Body::Refused(failure.clone());
                    self.args.producer.tx.send(Message::new(stamp, body));
                    return Err(failure);
                }
            }
            Body::Ticket(ticket) => match &self.work {
                Some(work) if work.stamp == stamp => {
                    self.tickets.push_back((ticket, message.parts));
                }
                _ => tracing::debug!(range = %ticket.range, "a ticket of another run was dropped"),
            },
            Body::EndOfScan { .. } | Body::Bye => {
                self.no_more = true;
                // Everything is durable: what is still here was sent again for a sink that has it,
                // and that may be gone and never grant it.
                self.tickets.clear();
                self.finished = None;
            }
            Body::Stop(failure) | Body::Refused(failure) => return Err(failure),
            other => tracing::warn!("a message out of place was dropped: {other:?}"),
        }
        Ok(())
    }

    fn on_sink(&mut self, event: SpokeEvent) -> Result<(), Failure> {
        match event {
            SpokeEvent::Connected => {
                self.sink_missing_since = None;
                self.grants = 0;
                self.hello(&self.args.sink);
                self.send_common_weights();
            }
            SpokeEvent::Gone => {
                self.grants = 0;
                if !self.no_more {
                    tracing::warn!(address = self.args.sink.address, "the sink is gone");
                    self.sink_missing_since = Some(Instant::now());
                    // What was on its way may be lost: the producer is to send all tickets of this
                    // worker again.
                    self.finished = None;
                    self.begin_anew();
                }
            }
            SpokeEvent::Unreadable(error) => {
                let address = &self.args.sink.address;
                return Err(Failure::new(Kind::Peer, format!("the sink at {address}: {error}")));
            }
            SpokeEvent::Message(message) => match message.header.body {
                Body::Grant { messages } => self.grants += messages,
                Body::Damaged { range: None } => self.send_common_weights(),
                Body::EndOfScan { .. } | Body::Bye => {}
                Body::Stop(failure) | Body::Refused(failure) => return Err(failure),
                other => tracing::warn!("a message out of place was dropped: {other:?}"),
            },
        }
        Ok(())
    }

    /// Says Hello to the producer, for the first time or anew. There is no plan until that has been
    /// heard: a ticket taken or asked for in between would come on top of the window.
    fn begin_anew(&mut self) {
        self.work = None;
        self.tickets.clear();
        self.attempt += 1;
        self.hello(&self.args.producer);
    }

    fn hello(&self, spoke: &Spoke) {
        let (name, attempt) = (self.args.name.clone(), self.attempt);
        let body = Body::Hello { role: Role::Worker, name, attempt };
        spoke.tx.send(Message::new(Stamp::default(), body));
    }

    fn on_plan(
        &mut self,
        plan: PreparePlan,
        stamp: Stamp,
        heads: Vec<ArrayHead>,
        parts: Vec<Bytes>,
    ) -> Result<(), Failure> {
        self.tickets.clear();
        self.finished = None;
        let work = Work::new(plan, stamp, heads, parts, &self.args.registry)?;
        self.work = Some(work);
        self.send_common_weights();
        self.done = self.args.window;
        self.want();
        Ok(())
    }

    fn send_common_weights(&self) {
        if let Some(work) = &self.work
            && let Some(blob) = &work.common_weights
        {
            let sum = work.plan.checksums.then(|| checksum::sum(blob));
            let body = Body::CommonWeights { checksum: sum };
            let message = Message::with_parts(work.stamp, body, vec![blob.clone()]);
            self.args.sink.tx.send(message);
        }
    }

    /// A ticket is done: asks for others once half the window is, since each message wakes threads
    /// on both sides.
    fn ticket_done(&mut self) {
        self.done += 1;
        if self.done >= self.args.window.div_ceil(2) {
            self.want();
        }
    }

    fn want(&mut self) {
        if let Some(work) = &self.work
            && !self.args.shutdown.is_begun()
        {
            let body = Body::Want { tickets: std::mem::take(&mut self.done) };
            self.args.producer.tx.send(Message::new(work.stamp, body));
        }
    }

    /// Sends a result if the sink allows one, else keeps it.
    fn deliver(&mut self, message: Message) {
        if self.grants == 0 {
            self.finished = Some(message);
            return;
        }
        let frames = match &message.header.body {
            Body::Prepared(p) => u64::from(p.range.count),
            _ => 0,
        };
        self.grants -= 1;
        if self.args.sink.tx.send(message) {
            self.report.frames += frames;
        }
        // A result that could not be sent is lost with its sink; the producer sends its ticket
        // again once the sink is back.
        self.ticket_done();
    }

    fn do_ticket(&mut self, ticket: Ticket, parts: Vec<Bytes>) -> Result<(), Failure> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let stamp = work.stamp;
        let range = ticket.range;
        let said = ticket.pixels.as_ref().and_then(|p| p.checksums.as_deref());
        if !checksum::are_whole(&parts, said) {
            tracing::warn!(%range, "raw pixels came damaged");
            let body = Body::Damaged { range: Some(range) };
            self.args.producer.tx.send(Message::new(stamp, body));
            self.ticket_done();
            return Ok(());
        }
        let done = match ticket.task {
            Task::Measure => work.measure(&ticket, &parts).map(|centers| {
                let message = Message::new(stamp, Body::Measured { range, centers });
                self.args.producer.tx.send(message);
                None
            }),
            Task::Prepare => work.prepare(&ticket, &parts).map(Some),
        };
        match done {
            Ok(None) => self.ticket_done(),
            Ok(Some((head, parts))) => {
                self.deliver(Message::with_parts(stamp, Body::Prepared(head), parts));
            }
            Err(Unloaded::Frames(frames)) => {
                self.fail(stamp, frames);
                self.ticket_done();
            }
            Err(Unloaded::Scan(failure)) => {
                // No other worker could read it: the scan ends.
                let body = Body::Broken(failure.clone());
                self.args.producer.tx.send(Message::new(stamp, body));
                return Err(failure);
            }
        }
        Ok(())
    }

    fn fail(&mut self, stamp: Stamp, frames: Vec<(Index, Failure)>) {
        for (index, failure) in frames {
            tracing::warn!(%index, "{failure}");
            self.report.failed += 1;
            let body = Body::Failed { range: IndexRange { first: index, count: 1 }, failure };
            self.args.producer.tx.send(Message::new(stamp, body));
        }
    }

    fn on_time(&self) -> Result<(), Failure> {
        let late =
            |since: Option<Instant>| since.is_some_and(|s| s.elapsed() > self.args.peer_timeout);
        let (what, address) = match () {
            () if late(self.producer_missing_since) => ("producer", &self.args.producer.address),
            () if late(self.sink_missing_since) => ("sink", &self.args.sink.address),
            () => return Ok(()),
        };
        Err(Failure::new(
            Kind::Peer,
            format!(
                "no {what} at {address} for {} s; is it running, and is the address right?",
                self.args.peer_timeout.as_secs_f64()
            ),
        ))
    }
}

fn arrays_are_whole(heads: &[ArrayHead], parts: &[Bytes]) -> bool {
    let whole = |(head, part): (&ArrayHead, &Bytes)| {
        head.checksum.is_none_or(|said| said == checksum::sum(part))
    };
    heads.iter().zip(parts).all(whole)
}
