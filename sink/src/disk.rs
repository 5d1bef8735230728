//! The threads that touch the disk: one writes pixels, one publishes.
//!
//! HDF5 and fsync block; the sink itself only ever talks to channels. What waits in the channel to
//! the writing thread is bounded by the credit that workers were granted.

use crate::assemble::ClosedChunk;
use crate::error::SinkError;
use crate::writer::{ChunkClose, Finish, Finished, Publisher, Writer};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, unbounded};
use ptystream_common::index::IndexRange;
use ptystream_common::link::PeerId;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

enum Job {
    CommonWeights(Bytes),
    Put { from: PeerId, range: IndexRange, data: Bytes, weights: Option<Bytes> },
    Close(Box<ClosedChunk>),
    Finish(Box<Finish>),
    Abandon,
}

/// What has happened on disk.
#[derive(Debug)]
pub enum DiskEvent {
    /// A result of this worker has left memory.
    Written(PeerId),
    /// A chunk is durable and visible.
    Durable(IndexRange),
    /// The file is complete.
    Finished(Box<Finished>),
    /// Whole chunks are published, the rest is dropped.
    Abandoned,
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
    pub fn start(file: Option<(Writer, Publisher)>) -> std::io::Result<Self> {
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
                    named("publish").spawn(move || publish(publisher, &parts, &told))?;
                let writer = named("write").spawn(move || write(writer, &inbox, &closed, &events))?;
                Ok(Self { jobs, events: out, writer: Some(writer), publisher: Some(publisher) })
            }
        }
    }

    /// Hands over the scan's weight: one storage chunk.
    pub fn common_weights(&self, blob: Bytes) {
        self.send(Job::CommonWeights(blob));
    }

    /// Hands over prepared frames: one storage chunk of data, and of weights.
    pub fn put(&self, from: PeerId, range: IndexRange, data: Bytes, weights: Option<Bytes>) {
        self.send(Job::Put { from, range, data, weights });
    }

    /// Closes a chunk; it is published next.
    pub fn close(&self, chunk: ClosedChunk) {
        self.send(Job::Close(Box::new(chunk)));
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
