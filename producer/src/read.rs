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
use ptystream_common::frame::{Loaded, RawFrame, Region};
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
    /// No pixels outside of it are needed from now on.
    Narrow(Region),
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
            let mut region = None;
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
                    Job::Narrow(needed) => {
                        source.narrow(needed);
                        region = Some(needed);
                        continue;
                    }
                    Job::Durable(_) | Job::Finish => continue,
                    Job::Read { worker, stamp, ticket } => {
                        match read(source.as_mut(), &common, &ticket, region) {
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

    /// No pixels outside of `region` are needed from now on: tickets that are read later have those only.
    pub fn narrow(&self, region: Region) {
        if self.jobs.send(Job::Narrow(region)).is_err() {
            tracing::debug!("the reading thread has ended");
        }
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
fn read(
    source: &mut dyn Source,
    common: &Common,
    ticket: &Ticket,
    region: Option<Region>,
) -> Result<Packed, Unloaded> {
    let wanted: Vec<Index> = ticket.range.iter().filter(|i| !ticket.gaps.contains(i)).collect();
    Ok(pack(ticket, load_each(source, common, &wanted)?, region))
}

/// Makes the message of a ticket and its parts.
pub(crate) fn seal(stamp: Stamp, mut ticket: Ticket, packed: Packed, checksums: bool) -> Message {
    let (mut head, parts) = packed;
    head.checksums = checksums.then(|| checksum::sums(&parts));
    ticket.pixels = Some(Box::new(head));
    Message::with_parts(stamp, Body::Ticket(ticket), parts)
}

/// Lays a ticket's frames into parts, of frames that are not encoded what `region` needs: how they lie
/// there, and the parts.
pub(crate) fn pack(ticket: &Ticket, loaded: Vec<Loaded>, region: Option<Region>) -> Packed {
    let Ticket { range, gaps, .. } = ticket;
    let wanted = range.iter().filter(|i| !gaps.contains(i)).count();
    let mut frames = Vec::with_capacity(range.count as usize);
    let raw: Vec<&RawFrame> = loaded.iter().map(|l| &l.frame).collect();
    let (pixels, lengths, region) = joined(&raw, region);
    let mut lengths = lengths.into_iter();
    let mut weights = BytesMut::new();
    let mut form = None;
    let mut positions = Vec::new();
    let (mut scale, mut scalars) = (Vec::new(), Vec::new());
    let mut next = loaded.into_iter().peekable();
    for index in range.iter() {
        match next.next_if(|l| l.index == index) {
            Some(l) => {
                frames.push((l.frame.encoding, lengths.next().unwrap_or(0)));
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
    let mut parts = vec![pixels];
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
    let weights = form;
    let head = PixelsHead { frames, region, positions, weights, scale, scalars, checksums: None };
    (head, parts)
}

/// Puts pixels of frames one after the other, of those that are not encoded what `needed` says: the
/// pixels, the bytes of each frame, and which region came of frames that are not encoded, where that is
/// not all of them.
fn joined(frames: &[&RawFrame], needed: Option<Region>) -> (Bytes, Vec<u32>, Option<Region>) {
    let raw = || frames.iter().filter(|frame| frame.encoding == Encoding::Raw);
    // One that is damaged travels as it is: the worker tells what is wrong with it.
    let cut = needed.filter(|needed| raw().all(|frame| frame.rows_of(*needed).is_some()));
    let partial = |region: &Region| raw().any(|f| *region != Region::whole(f.form.shape));
    let region = cut.or_else(|| raw().next().map(|f| f.region)).filter(partial);
    let part_of = |frame: &RawFrame| match (&frame.encoding, cut) {
        (Encoding::Raw, Some(cut)) if cut != frame.region => Some(cut),
        _ => None,
    };
    if let [frame] = *frames
        && part_of(frame).is_none()
    {
        return (frame.payload.clone(), vec![frame.payload.len() as u32], region);
    }
    let bytes = |frame: &RawFrame| match part_of(frame) {
        Some(cut) => cut.pixels().unwrap_or(0) * frame.form.dtype.size(),
        None => frame.payload.len(),
    };
    let mut all = Vec::with_capacity(frames.iter().map(|f| bytes(f)).sum());
    for frame in frames {
        match part_of(frame).and_then(|cut| frame.rows_of(cut)) {
            Some(rows) => rows.for_each(|row| all.extend_from_slice(row)),
            None => all.extend_from_slice(&frame.payload),
        }
    }
    (all.into(), frames.iter().map(|frame| bytes(frame) as u32).collect(), region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptystream_common::codec::Filter;
    use ptystream_common::dtype::Dtype;
    use ptystream_common::frame::FrameForm;

    const FORM: FrameForm = FrameForm { dtype: Dtype::U8, shape: [3, 4] };
    const NEEDED: Region = Region { first: [1, 1], shape: [2, 2] };

    fn whole(first: u8) -> RawFrame {
        RawFrame::new(FORM, Encoding::Raw, (first..first + 12).collect::<Vec<u8>>().into())
    }

    fn encoded() -> RawFrame {
        RawFrame::new(FORM, Encoding::Filters(vec![Filter::Lz4]), Bytes::from_static(b"packed"))
    }

    #[test]
    fn only_needed_pixels_travel() {
        let rows = Region { first: [1, 0], shape: [2, 4] };
        let narrowed = RawFrame::part(FORM, rows, whole(20).payload.slice(4..));
        let cut = vec![5, 6, 9, 10, 25, 26, 29, 30];
        let got = joined(&[&whole(0), &narrowed], Some(NEEDED));
        assert_eq!(got, (cut.into(), vec![4, 4], Some(NEEDED)));
        let alone = joined(&[&whole(0)], Some(NEEDED));
        assert_eq!(alone, (vec![5, 6, 9, 10].into(), vec![4], Some(NEEDED)));
    }

    #[test]
    fn what_is_encoded_travels_whole() {
        let (pixels, lengths, region) = joined(&[&encoded(), &whole(0)], Some(NEEDED));
        assert_eq!(
            (&pixels[..], lengths, region),
            (&b"packed\x05\x06\x09\x0a"[..], vec![6, 4], Some(NEEDED))
        );
        assert_eq!(joined(&[&encoded()], Some(NEEDED)).2, None);
    }

    #[test]
    fn frames_stay_as_they_are_where_all_is_needed_or_one_is_damaged() {
        let one = whole(0);
        let (pixels, lengths, region) = joined(&[&one], None);
        assert_eq!((pixels.as_ptr(), lengths, region), (one.payload.as_ptr(), vec![12], None));
        let all = Region::whole(FORM.shape);
        assert_eq!(joined(&[&one], Some(all)), (one.payload.clone(), vec![12], None));
        let short = RawFrame::new(FORM, Encoding::Raw, one.payload.slice(1..));
        let (pixels, lengths, region) = joined(&[&one, &short], Some(NEEDED));
        assert_eq!((pixels.len(), lengths, region), (23, vec![12, 11], None));
        assert_eq!(joined(&[], Some(NEEDED)), (Bytes::new(), vec![], None));
    }
}
