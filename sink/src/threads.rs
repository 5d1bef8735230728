//! The threads that touch the disk: one writes pixels, one publishes.
//!
//! HDF5 and fsync block; the sink itself only ever talks to channels. What waits in the channel to
//! the writing thread is bounded by the credit that workers were granted.

use crate::assemble::ClosedChunk;
use crate::error::SinkError;
use crate::writer::{ChunkClose, ClosedPart, Finish, Finished, Publisher, Writer};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use ptystream_common::index::IndexRange;
use ptystream_common::link::PeerId;
use ptystream_common::message::SinkReport;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many results are written before the sink is woken, unless there are no more to write.
const TOLD_AT_ONCE: usize = 8;

enum Job {
    CommonWeights(Bytes),
    Put {
        from: PeerId,
        range: IndexRange,
        data: Bytes,
        weights: Option<Bytes>,
        sums: Option<Vec<u32>>,
    },
    Close(Box<ClosedChunk>),
    Hurry,
    Finish(Box<Finish>),
    Abandon,
}

/// What the writing thread hands to the publishing one.
enum Part {
    Closed(Box<ClosedPart>, IndexRange),
    Hurry,
    Finish(Box<Finish>),
    Abandon,
}

/// What has happened on disk.
#[derive(Debug)]
pub enum DiskEvent {
    /// Results of these workers have left memory.
    Written(Vec<PeerId>),
    /// A chunk is closed; so many bytes of pixels and weights as they are stored.
    Closed(u64),
    /// A chunk is durable and visible.
    Durable(IndexRange),
    /// The file is complete.
    Finished(Box<Finished>),
    /// The disk refused.
    Failed(SinkError),
}

/// Seconds spent on disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskTimes {
    /// Writing pixels.
    pub write: Duration,
    /// Making durable and visible.
    pub publish: Duration,
}

impl DiskTimes {
    /// Adds the times of another opening of the file.
    pub fn add(&mut self, other: Self) {
        self.write += other.write;
        self.publish += other.publish;
    }
}

/// When masters are replaced.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Least time between two, unless too many frames wait or no more will come.
    pub interval: Duration,
    /// So many frames do not wait any longer: the producer hands out no more than a horizon's beyond those
    /// that are durable.
    pub frames: u64,
}

/// The way to the disk.
pub struct Disk {
    jobs: Sender<Job>,
    /// What has happened.
    pub events: Receiver<DiskEvent>,
    writer: Option<JoinHandle<Duration>>,
    publisher: Option<JoinHandle<Duration>>,
}

impl Disk {
    /// Starts the threads over an open file; without one, everything is durable at once.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(file: Option<(Writer, Publisher)>, pace: Pace) -> std::io::Result<Self> {
        let (jobs, inbox) = unbounded();
        let (events, out) = unbounded();
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        match file {
            None => {
                let writer = named("discard").spawn(move || discard(&inbox, &events))?;
                Ok(Self { jobs, events: out, writer: Some(writer), publisher: None })
            }
            Some((writer, publisher)) => {
                let (closed, parts) = unbounded();
                let told = events.clone();
                let publisher =
                    named("publish").spawn(move || publish(publisher, pace, &parts, &told))?;
                let writer =
                    named("write").spawn(move || write(writer, &inbox, &closed, &events))?;
                Ok(Self { jobs, events: out, writer: Some(writer), publisher: Some(publisher) })
            }
        }
    }

    /// Hands over the scan's weight: one storage chunk.
    pub fn common_weights(&self, blob: Bytes) {
        self.send(Job::CommonWeights(blob));
    }

    /// Hands over prepared frames: one storage chunk of data, and of weights, and their checksums.
    pub fn put(
        &self,
        from: PeerId,
        range: IndexRange,
        data: Bytes,
        weights: Option<Bytes>,
        sums: Option<Vec<u32>>,
    ) {
        self.send(Job::Put { from, range, data, weights, sums });
    }

    /// Closes a chunk; it is published next.
    pub fn close(&self, chunk: ClosedChunk) {
        self.send(Job::Close(Box::new(chunk)));
    }

    /// No more chunks will come: those that are closed do not wait for others.
    pub fn hurry(&self) {
        self.send(Job::Hurry);
    }

    /// Completes the file.
    pub fn finish(&self, finish: Finish) {
        self.send(Job::Finish(Box::new(finish)));
    }

    /// Leaves the file as it is: whole chunks published, the rest dropped.
    pub fn abandon(&self) {
        self.send(Job::Abandon);
    }

    fn send(&self, job: Job) {
        if self.jobs.send(job).is_err() {
            // The thread has ended after a failure, which its event reports.
            tracing::debug!("a job for the disk came after its end");
        }
    }

    /// Waits for the threads; says how long they were busy.
    pub fn join(mut self) -> DiskTimes {
        drop(self.jobs);
        let mut times = DiskTimes::default();
        for (thread, time) in
            [(self.writer.take(), &mut times.write), (self.publisher.take(), &mut times.publish)]
        {
            match thread.map(JoinHandle::join) {
                Some(Ok(busy)) => *time = busy,
                Some(Err(_)) => tracing::error!("a thread of the disk panicked"),
                None => {}
            }
        }
        times
    }
}

/// Writes what comes, until the channel ends or the disk refuses.
fn write(
    mut writer: Writer,
    inbox: &Receiver<Job>,
    closed: &Sender<Part>,
    events: &Sender<DiskEvent>,
) -> Duration {
    let mut busy = Duration::ZERO;
    let mut written = Vec::new();
    for job in inbox {
        let begun = Instant::now();
        let done = match job {
            Job::CommonWeights(blob) => {
                writer.common_weights(blob);
                Ok(())
            }
            Job::Put { from, range, data, weights, sums } => {
                writer.put(range, data, weights, sums.as_deref()).map(|()| written.push(from))
            }
            Job::Close(chunk) => {
                let range = chunk.range;
                let close = ChunkClose {
                    indices: range.iter().map(|i| i.0).collect(),
                    positions: chunk.positions,
                    clear_weights: chunk.clear_weights,
                    gaps: chunk.gaps,
                    reasons: chunk.reasons,
                    per_frame: writer.per_frame(&chunk.scalars),
                };
                writer.close_chunk(chunk.chunk, &close).map(|part| {
                    tell(events, DiskEvent::Closed(part.bytes()));
                    pass(closed, Part::Closed(Box::new(part), range));
                })
            }
            Job::Hurry => {
                pass(closed, Part::Hurry);
                Ok(())
            }
            Job::Finish(finish) => {
                pass(closed, Part::Finish(finish));
                Ok(())
            }
            Job::Abandon => {
                drop(writer);
                pass(closed, Part::Abandon);
                return busy;
            }
        };
        busy += begun.elapsed();
        if written.len() >= TOLD_AT_ONCE || (inbox.is_empty() && !written.is_empty()) {
            tell(events, DiskEvent::Written(std::mem::take(&mut written)));
        }
        if let Err(error) = done {
            // Unfinished parts go first: on a full disk what is whole needs their room.
            drop(writer);
            tell(events, DiskEvent::Failed(error));
            pass(closed, Part::Abandon);
            return busy;
        }
    }
    busy
}

/// Publishes parts in order; several at once where they come faster than masters are replaced.
fn publish(
    mut publisher: Publisher,
    pace: Pace,
    inbox: &Receiver<Part>,
    events: &Sender<DiskEvent>,
) -> Duration {
    let mut busy = Duration::ZERO;
    let mut last: Option<Instant> = None;
    let mut ranges = Vec::new();
    let mut parts = Vec::new();
    let mut waiting = 0;
    let mut end = None;
    while end.is_none() {
        // With parts at hand it waits no longer than until the next master may be shown.
        let next = match (parts.is_empty(), last) {
            (true, _) => inbox.recv().map_err(|_| ()),
            (false, Some(last)) => {
                inbox.recv_timeout(pace.interval.saturating_sub(last.elapsed())).map_err(|_| ())
            }
            (false, None) => Err(()),
        };
        match next {
            Ok(Part::Closed(part, range)) => {
                parts.push(*part);
                ranges.push(range);
                waiting += u64::from(range.count);
                if waiting < pace.frames && last.is_some_and(|l| l.elapsed() < pace.interval) {
                    continue;
                }
            }
            Ok(Part::Hurry) => {}
            Ok(other) => end = Some(other),
            Err(()) if parts.is_empty() => return busy,
            Err(()) => {}
        }
        if parts.is_empty() {
            continue;
        }
        let begun = Instant::now();
        waiting = 0;
        let published = publisher.publish(std::mem::take(&mut parts)).map(|durable| {
            ranges.retain(|range: &IndexRange| {
                let there = durable.contains_all(range.first.0, range.end());
                if there {
                    tell(events, DiskEvent::Durable(*range));
                }
                !there
            });
        });
        let took = begun.elapsed();
        tracing::debug!(
            chunks = publisher.chunks(),
            millis = took.as_secs_f64() * 1e3,
            "published"
        );
        busy += took;
        last = Some(Instant::now());
        if let Err(error) = published {
            tell(events, DiskEvent::Failed(error));
            return busy;
        }
    }
    if let Some(Part::Finish(finish)) = end {
        let begun = Instant::now();
        let event = match publisher.finish(&finish) {
            Ok(finished) => DiskEvent::Finished(Box::new(finished)),
            Err(error) => DiskEvent::Failed(error),
        };
        tell(events, event);
        busy += begun.elapsed();
    }
    busy
}

/// Stands in for the disk where nothing is to be written.
fn discard(inbox: &Receiver<Job>, events: &Sender<DiskEvent>) -> Duration {
    let mut chunks = 0;
    for job in inbox {
        match job {
            Job::CommonWeights(_) | Job::Hurry => {}
            Job::Put { from, .. } => tell(events, DiskEvent::Written(vec![from])),
            Job::Close(chunk) => {
                chunks += 1;
                tell(events, DiskEvent::Durable(chunk.range));
            }
            Job::Finish(finish) => {
                let report = SinkReport { chunks, ..finish.report };
                tell(events, DiskEvent::Finished(Box::new(Finished { report, linger: None })));
            }
            Job::Abandon => break,
        }
    }
    Duration::ZERO
}

/// Reports an event; a sink that no longer listens has ended, and with it the need.
fn tell(events: &Sender<DiskEvent>, event: DiskEvent) {
    if events.send(event).is_err() {
        tracing::debug!("an event of the disk came after the sink's end");
    }
}

fn pass(closed: &Sender<Part>, part: Part) {
    if closed.send(part).is_err() {
        tracing::debug!("a part was closed after the publisher's end");
    }
}
