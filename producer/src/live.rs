//! The thread of a live source: takes each frame as soon as it is there, whether or not a worker has
//! asked for one, keeps it, and hands out what is kept.
//!
//! So slow workers cost room and not frames. Only the room's end makes the source wait, or frames
//! drop, as `pipeline.on_full` says.

use crate::latency::Watch;
use crate::read::{Done, Job, Packed, pack, seal};
use crate::retain::book::Loss;
use crate::retain::{Kept, Retention};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::{Loaded, Region};
use ptystream_common::index::Index;
use ptystream_common::link::{HubSend, PeerId};
use ptystream_common::message::{Stamp, Ticket};
use ptystream_common::params::OnFull;
use ptystream_common::source::{Check, Common, Source, SourceError};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Frames that are taken, and made safe together, before tickets have their turn.
const GROUP: usize = 32;
/// Jobs that are done before frames have their turn.
const JOBS: usize = 16;
const POLL: Duration = Duration::from_millis(2);

/// A live source and what is kept of it.
pub(crate) struct Live {
    source: Box<dyn Source>,
    common: Common,
    retention: Retention,
    num_frames: Option<u64>,
    /// Frames that have come, as far as the source was asked.
    there: u64,
    /// Frames that had come when the source was asked for the first time.
    before: Option<u64>,
    /// Taken from the source, and without room.
    hand: Option<Loaded>,
    /// Frames have waited in the source for want of room: what it lets go below this was lost so.
    waited_until: u64,
    /// The source's last word, once it has said it.
    end: Option<End>,
    told: Option<(u64, bool)>,
    /// Whether pixels carry checksums.
    checksums: bool,
    /// What is needed of frames, once it is known; they are kept whole.
    region: Option<Region>,
    /// Positions of frames that are lost.
    positions: BTreeMap<u64, [f64; 2]>,
    latency: Watch,
}

/// How a source ended.
#[derive(Clone, Debug)]
struct End(Option<String>);

impl Live {
    pub(crate) fn new(
        source: Box<dyn Source>,
        common: Common,
        retention: Retention,
        num_frames: Option<u64>,
        checksums: bool,
        latency: Watch,
    ) -> Self {
        Self {
            source,
            common,
            retention,
            num_frames,
            there: 0,
            before: None,
            hand: None,
            waited_until: 0,
            end: None,
            told: None,
            checksums,
            region: None,
            positions: BTreeMap::new(),
            latency,
        }
    }

    /// Takes and answers until the producer lets go of the thread.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, out: &Sender<Done>, tx: &dyn HubSend) {
        let mut wait = Duration::ZERO;
        let mut broken = false;
        loop {
            let first = match jobs.recv_timeout(wait) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut answers = Vec::new();
            for job in first.into_iter().chain(jobs.try_iter().take(JOBS)) {
                match job {
                    Job::Check { .. } => self.told = None,
                    Job::Narrow(region) => self.region = Some(region),
                    Job::Durable(watermark) => {
                        self.retention.durable(watermark);
                        self.positions = self.positions.split_off(&watermark);
                        self.latency.durable(watermark, Instant::now());
                    }
                    Job::Finish => {
                        self.retention.finish();
                        return;
                    }
                    Job::Read { worker, stamp, ticket } => {
                        match self.serve(&ticket, (worker, stamp)) {
                            Ok(packed) => {
                                let message = seal(stamp, ticket, packed, self.checksums);
                                if !tx.send(worker, message) {
                                    answers.push(Done::Unsent(worker));
                                }
                            }
                            Err(done) => answers.push(done),
                        }
                    }
                }
            }
            if !broken {
                match self.take() {
                    Ok(more) => wait = if more { Duration::ZERO } else { POLL },
                    Err(failure) => {
                        (broken, wait) = (true, POLL);
                        answers.push(Done::Broken(failure));
                    }
                }
            }
            answers.extend(self.news());
            for answer in answers {
                if out.send(answer).is_err() {
                    return;
                }
            }
        }
    }

    /// Takes what has come, a group at most; tells whether there is more.
    fn take(&mut self) -> Result<bool, Failure> {
        for _ in 0..GROUP {
            let next = self.retention.next();
            if self.num_frames.is_some_and(|n| next >= n) || !self.has_come(next)? {
                self.retention.settle();
                return Ok(false);
            }
            // What is durable by now needs no room.
            let hand = self.hand.take().filter(|l| l.index.0 == next);
            let loaded = match hand {
                Some(loaded) => loaded,
                None => match self.load(next)? {
                    Ok(loaded) => loaded,
                    Err(loss) => {
                        if let Some(position) = self.source.nominal(Index(next)) {
                            self.positions.insert(next, position);
                        }
                        tracing::debug!(index = next, "{}", loss.reason());
                        self.retention.lose(loss);
                        continue;
                    }
                },
            };
            self.latency.came(next, self.source.came(Index(next)));
            if self.retention.keep(&loaded) == Kept::Full {
                let first = self.waited_until <= next;
                self.waited_until = self.waited_until.max(self.there).max(next + 1);
                match self.retention.on_full {
                    OnFull::Wait => {
                        if first {
                            tracing::warn!(
                                index = next,
                                kept = self.retention.kept(),
                                "memory and spool are full: frames wait in the source"
                            );
                        }
                        self.hand = Some(loaded);
                        self.look()?;
                        self.waited_until = self.waited_until.max(self.there);
                        self.retention.settle();
                        return Ok(false);
                    }
                    OnFull::Drop => {
                        if first {
                            tracing::error!(
                                index = next,
                                kept = self.retention.kept(),
                                "memory and spool are full: frames are dropped"
                            );
                        }
                        if let Some(position) = loaded.position {
                            self.positions.insert(next, position);
                        }
                        self.retention.lose(Loss::NoRoom);
                    }
                    OnFull::Fail => {
                        let text = format!(
                            "frame {next}: {}; the scan ends, as pipeline.on_full says: add \
                             workers, or raise pipeline.spool_bytes",
                            Loss::NoRoom.reason()
                        );
                        return Err(Failure::new(Kind::Aborted, text));
                    }
                }
            }
        }
        self.retention.settle();
        Ok(true)
    }

    fn has_come(&mut self, index: u64) -> Result<bool, Failure> {
        if self.before.is_none() || (index >= self.there && self.end.is_none()) {
            self.look()?;
        }
        Ok(index < self.there)
    }

    /// Asks the source how many frames have come.
    fn look(&mut self) -> Result<(), Failure> {
        let n = self.num_frames.map(|n| n as usize);
        match self.source.check(usize::MAX, 0, n) {
            Ok(Check { accessible, end_of_scan }) => {
                self.there = self.there.max(accessible as u64);
                if end_of_scan == Some(true) {
                    self.end = Some(End(None));
                }
            }
            Err(SourceError::Interrupted { frames, reason }) => {
                self.there = frames;
                self.end = Some(End(Some(reason)));
            }
            Err(error) => return Err(Failure::from(&error)),
        }
        self.before.get_or_insert(self.there);
        Ok(())
    }

    fn load(&mut self, index: u64) -> Result<Result<Loaded, Loss>, Failure> {
        match self.source.load(&[Index(index)]) {
            Ok(mut loaded) => Ok(loaded.pop().ok_or_else(|| {
                Loss::Unreadable(format!("frame {index}: the source gave nothing"))
            })),
            Err(SourceError::Passed { .. }) => Ok(Err(match index {
                _ if self.before.is_some_and(|n| index < n) && index >= self.waited_until => {
                    Loss::Down
                }
                _ if index < self.waited_until => Loss::Waited,
                _ => Loss::Passed,
            })),
            Err(SourceError::Filtered { text, .. }) => Ok(Err(Loss::Filtered(text))),
            Err(error @ SourceError::Frame { .. }) => {
                Ok(Err(Loss::Unreadable(Failure::from(&error).text)))
            }
            Err(SourceError::Interrupted { frames, reason }) => {
                (self.there, self.end) = (frames, Some(End(Some(reason))));
                Ok(Err(Loss::Passed))
            }
            Err(error) => Err(Failure::from(&error)),
        }
    }

    /// Puts a ticket's frames together.
    fn serve(&mut self, ticket: &Ticket, worker: (PeerId, Stamp)) -> Result<Packed, Done> {
        let mut loaded = Vec::with_capacity(ticket.range.count as usize);
        let mut lost = Vec::new();
        let mut failed = Vec::new();
        for index in ticket.range.iter().filter(|i| !ticket.gaps.contains(i)) {
            match self.retention.get(index.0) {
                Err(reason) => {
                    let position = self.positions.get(&index.0).copied();
                    lost.push((index, reason, position));
                }
                Ok(raw) => match self.source.correct(raw, &self.common) {
                    Ok(frame) => loaded.push(frame),
                    Err(error) => failed.push((index, Failure::from(&error))),
                },
            }
        }
        match (lost.is_empty(), failed.is_empty()) {
            (true, true) => Ok(pack(ticket, loaded, self.region)),
            (false, _) => Err(Done::Lost { frames: lost, worker }),
            (true, false) => Err(Done::Failed { frames: failed, range: ticket.range, worker }),
        }
    }

    /// Returns how far the source has come, if that has not been said.
    fn news(&mut self) -> Option<Done> {
        let ready = self.retention.ready();
        let ended = self.end.is_some() && ready >= self.there;
        if self.told == Some((ready, ended)) {
            return None;
        }
        self.told = Some((ready, ended));
        match &self.end {
            Some(End(Some(reason))) if ended => {
                Some(Done::Interrupted { available: self.there, reason: reason.clone() })
            }
            _ => {
                // What is durable already may be more than what this source ever had.
                let accessible = if ended { self.there } else { ready } as usize;
                let check = Check { accessible, end_of_scan: Some(ended) };
                Some(Done::Checked { start: 0, check })
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
