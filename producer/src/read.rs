//! The thread that owns the source: looks how far it has come and, where the producer sends
//! pixels, reads them and sends them on their way: each thread that a frame passes wakes another.
//! A live source has its own manner: `live.rs`.

use crate::latency::Watch;
use crate::live::Live;
use crate::retain::Retention;
use bytes::{Bytes, BytesMut};
use crossbeam_channel::{Receiver, Sender, unbounded};
use ptystream_common::checksum;
use ptystream_common::codec::Encoding;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::Loaded;
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::link::{HubSend, PeerId};
use ptystream_common::message::{Body, Message, PixelsHead, Stamp, Ticket};
use ptystream_common::source::{Check, Common, Source, SourceError, Unloaded, load_each};
use std::sync::Arc;
use std::thread::JoinHandle;

/// How a ticket's frames lie in the parts, and the parts.
pub(crate) type Packed = (PixelsHead, Vec<Bytes>);

/// A frame that is lost: why, and its position where that is known.
pub(crate) type Lost = (Index, String, Option<[f64; 2]>);

/// What the thread is asked.
#[derive(Debug)]
pub(crate) enum Job {
    Check {
        start: u64,
        num_frames: Option<u64>,
    },
    Read {
        worker: PeerId,
        stamp: Stamp,
        ticket: Ticket,
    },
    /// Every index below is durable.
    Durable(u64),
    /// The scan is done: nothing has to be kept.
    Finish,
}

/// What the thread answers.
#[derive(Debug)]
pub enum Done {
    /// How far the source has come.
    Checked {
        /// From which index on it was asked.
        start: u64,
        /// The source's answer.
        check: Check,
    },
    /// A ticket that could not be sent: its worker is gone.
    Unsent(PeerId),
    /// Frames that cannot be read.
    Failed {
        /// Each with the reason.
        frames: Vec<(Index, Failure)>,
        /// The batch that they belong to.
        range: IndexRange,
        /// Who never got it, and the stamp of its plan.
        worker: (PeerId, Stamp),
    },
    /// Frames that a live source has let go, or that had no room.
    Lost {
        /// Each with the reason, and its position where that is known.
        frames: Vec<Lost>,
        /// Who never got their ticket, and the stamp of its plan.
        worker: (PeerId, Stamp),
    },
    /// The scan was ended from outside; no more frames will come.
    Interrupted {
        /// Indices below this have come.
        available: u64,
        /// Who or what ended it.
        reason: String,
    },
    /// The source as a whole cannot be read.
    Broken(Failure),
}

/// The reading thread.
pub struct Reader {
    jobs: Sender<Job>,
    /// Its answers.
    pub done: Receiver<Done>,
    thread: JoinHandle<()>,
    is_live: bool,
    /// Of a live source: how long frames take.
    pub(crate) latency: Watch,
}

impl Reader {
    /// Starts the thread; `retention` keeps the frames of a live source, `checksums` tells whether
    /// pixels carry them.
    ///
    /// # Errors
    /// If the operating system gives no thread.
    pub fn start(
        mut source: Box<dyn Source>,
        common: Common,
        tx: Arc<dyn HubSend>,
        retention: Option<Retention>,
        num_frames: Option<u64>,
        checksums: bool,
    ) -> Result<Self, Failure> {
        let latency = Watch::default();
        let watch = latency.clone();
        let (jobs, inbox) = unbounded::<Job>();
        let (out, done) = unbounded();
        let is_live = retention.is_some();
        let thread = std::thread::Builder::new().name("read".into()).spawn(move || {
            if let Some(retention) = retention {
                let live = Live::new(source, common, retention, num_frames, checksums, watch);
                live.run(&inbox, &out, tx.as_ref());
                return;
            }
            for job in inbox {
                let answer = match job {
                    Job::Check { start, num_frames } => {
                        let n = num_frames.map(|n| n as usize);
                        match source.check(usize::MAX, start as usize, n) {
                            Ok(check) => Done::Checked { start, check },
                            Err(SourceError::Interrupted { frames, reason }) => {
                                Done::Interrupted { available: frames, reason }
                            }
                            Err(error) => Done::Broken(Failure::from(&error)),
                        }
                    }
                    Job::Durable(_) | Job::Finish => continue,
                    Job::Read { worker, stamp, ticket } => {
                        match read(source.as_mut(), &common, &ticket) {
                            Ok(packed) => {
                                let message = seal(stamp, ticket, packed, checksums);
                                if tx.send(worker, message) {
                                    continue;
                                }
                                Done::Unsent(worker)
                            }
                            Err(Unloaded::Frames(frames)) => {
                                let worker = (worker, stamp);
                                Done::Failed { frames, range: ticket.range, worker }
                            }
                            Err(Unloaded::Scan(failure)) => Done::Broken(failure),
                        }
                    }
                };
                if out.send(answer).is_err() {
                    return;
                }
            }
        });
        let thread = thread
            .map_err(|e| Failure::new(Kind::Aborted, format!("cannot start a thread: {e}")))?;
        Ok(Self { jobs, done, thread, is_live, latency })
    }

    /// Asks how far the source has come from `start` on.
    pub fn check(&self, start: u64, num_frames: Option<u64>) -> bool {
        self.jobs.send(Job::Check { start, num_frames }).is_ok()
    }

    /// Has a ticket's frames read and sent to a worker.
    pub fn read(&self, worker: PeerId, stamp: Stamp, ticket: Ticket) -> bool {
        self.jobs.send(Job::Read { worker, stamp, ticket }).is_ok()
    }

    /// Every index below `watermark` is durable and need not be kept.
    pub fn durable(&self, watermark: u64) {
        if self.is_live && self.jobs.send(Job::Durable(watermark)).is_err() {
            tracing::debug!("the reading thread has ended");
        }
    }

    /// Ends the thread and waits for it; `false` if it panicked.
    ///
    /// `finished`: whether the scan is done, so that the spool can go.
    pub fn join(self, finished: bool) -> bool {
        if finished && self.is_live && self.jobs.send(Job::Finish).is_err() {
            tracing::debug!("the reading thread has ended");
        }
        drop(self.jobs);
        drop(self.done);
        self.thread.join().is_ok()
    }
}

/// Reads a ticket's frames: how they lie in the parts, and the parts.
fn read(source: &mut dyn Source, common: &Common, ticket: &Ticket) -> Result<Packed, Unloaded> {
    let wanted: Vec<Index> = ticket.range.iter().filter(|i| !ticket.gaps.contains(i)).collect();
    Ok(pack(ticket, load_each(source, common, &wanted)?))
}

/// Makes the message of a ticket and its parts.
pub(crate) fn seal(stamp: Stamp, mut ticket: Ticket, packed: Packed, checksums: bool) -> Message {
    let (mut head, parts) = packed;
    head.checksums = checksums.then(|| checksum::sums(&parts));
    ticket.pixels = Some(Box::new(head));
    Message::with_parts(stamp, Body::Ticket(ticket), parts)
}

/// Lays a ticket's frames into parts: how they lie there, and the parts.
pub(crate) fn pack(ticket: &Ticket, loaded: Vec<Loaded>) -> Packed {
    let Ticket { range, gaps, .. } = ticket;
    let wanted = range.iter().filter(|i| !gaps.contains(i)).count();
    let mut frames = Vec::with_capacity(range.count as usize);
    let mut pixels = Vec::new();
    let mut weights = BytesMut::new();
    let mut form = None;
    let mut positions = Vec::new();
    let (mut scale, mut scalars) = (Vec::new(), Vec::new());
    let mut next = loaded.into_iter().peekable();
    for index in range.iter() {
        match next.next_if(|l| l.index == index) {
            Some(l) => {
                frames.push((l.frame.encoding.clone(), l.frame.payload.len() as u32));
                pixels.push(l.frame.payload);
                if let Some(w) = l.weights {
                    form = Some((w.dtype, [w.shape[0], w.shape[1]]));
                    weights.extend_from_slice(&w.data);
                }
                positions.extend(l.position);
                scale.push(l.scale);
                scalars.push(l.scalars);
            }
            None => {
                frames.push((Encoding::Raw, 0));
                scale.push(None);
                scalars.push(Vec::new());
            }
        }
    }
    let mut parts = vec![match pixels.len() {
        1 => pixels.swap_remove(0),
        _ => pixels.concat().into(),
    }];
    if form.is_some() {
        parts.push(weights.freeze());
    }
    let complete = !positions.is_empty() && positions.len() == wanted;
    let positions = complete.then(|| {
        let mut given = positions.into_iter();
        range
            .iter()
            .map(|i| match gaps.contains(&i) {
                true => [f64::NAN; 2],
                false => given.next().unwrap_or([f64::NAN; 2]),
            })
            .collect()
    });
    let scale = scale.iter().any(Option::is_some).then(|| {
        // A gap has none.
        scale.iter().map(|factor| factor.unwrap_or(1.0)).collect()
    });
    let scalars = scalars.iter().any(|of| !of.is_empty()).then_some(scalars);
    (PixelsHead { frames, positions, weights: form, scale, scalars, checksums: None }, parts)
}
