//! What the sink does while its disk refuses: it waits, tries, and goes on as if started again.
//!
//! ```text
//! trouble ──▶ threads end, unfinished parts are given up ──▶ Paused ──▶ probe, 0.2 s to 5 s apart
//!    ▲                                                                   │ room again
//!    └──────── goes on: same run, next epoch, Opened ◀── file opened anew ◀┘
//! ```
//!
//! What is durable stays so; what was only accepted is sent again, since the producer takes the new
//! `Opened` for that of a sink that was started again. The lock is kept all the while.

use crate::assemble::Counts;
use crate::error::SinkError;
use crate::report::Tally;
use crate::run::Sink;
use crate::writer::{Finished, Hold, Open};
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::index::IndexSet;
use ptystream_common::message::{Aborted, Announce, Body, Message, SinkReport, Stamp};
use std::time::Duration;

/// First and longest time between two looks at the disk.
const WAIT: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(5)];
/// Ranges of missing indices that a text names.
const NAMED: usize = 8;

/// How long the sink bears with its disk; time is an argument.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// Spent waiting since something last became durable.
    spent: Duration,
    wait: Duration,
    paused: Option<Duration>,
    next: Duration,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, spent: Duration::ZERO, wait: WAIT[0], paused: None, next: Duration::ZERO }
    }

    /// Tells whether it waits at all.
    pub(crate) fn waits(&self) -> bool {
        !self.limit.is_zero()
    }

    /// The disk refuses, still or again.
    pub(crate) fn refused(&mut self, now: Duration) {
        self.paused.get_or_insert(now);
        self.next = now + self.wait;
        self.wait = (self.wait * 2).min(WAIT[1]);
    }

    /// The file is open again; the next trouble without progress waits as long as this one did.
    pub(crate) fn resumed(&mut self, now: Duration) {
        self.spent += self.paused.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
    }

    /// Something became durable: patience is as fresh as at first.
    pub(crate) fn progressed(&mut self) {
        self.spent = Duration::ZERO;
        self.wait = WAIT[0];
    }

    /// Tells whether it is time for another look.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// Tells whether it has waited long enough.
    pub(crate) fn is_over(&self, now: Duration) -> bool {
        let paused = self.paused.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.spent + paused >= self.limit
    }
}

/// A scan whose file is closed until the disk takes writes again.
pub(crate) struct Halted {
    pub(crate) announce: Announce,
    pub(crate) stamp: Stamp,
    hold: Hold,
    patience: Patience,
    reason: String,
    needed: u64,
    durable: IndexSet,
    length: Option<u64>,
    aborted: Option<Aborted>,
    tally: Tally,
    counts: Counts,
}

impl Halted {
    /// Returns what is wrong, as the producer is told.
    pub(crate) fn paused(&self) -> Message {
        Message::new(self.stamp, Body::Paused { reason: self.reason.clone() })
    }

    fn give_up(&self) -> Failure {
        let secs = self.patience.limit.as_secs_f64();
        let missing = missing(&self.durable, self.length.or(self.announce.num_frames));
        Failure::new(
            Kind::Output,
            format!(
                "{}; waited {secs} s (pipeline.disk_wait_secs); not on disk: {missing}; the same \
                 command goes on from the chunks that are whole",
                self.reason
            ),
        )
    }
}

impl Sink {
    /// The disk's threads have ended after trouble: closes the file until there is room.
    pub(crate) fn halt(&mut self) -> Result<(), Failure> {
        let Some(mut scan) = self.scan.take() else { return Ok(()) };
        let (Some(error), Some(hold)) = (scan.failed.take(), scan.hold.take()) else {
            return Err(Failure::new(Kind::Output, "the threads of the disk have ended"));
        };
        self.credit.all_left();
        let counts = scan.counts();
        let mut halted = Halted {
            reason: chain(&error),
            // A whole chunk, or the disk is full again before anything is gained.
            needed: error.needed().max(scan.largest_chunk),
            stamp: scan.stamp,
            hold,
            patience: scan.patience,
            durable: scan.assembler.durable().clone(),
            length: scan.assembler.length(),
            aborted: scan.aborted,
            announce: scan.announce,
            tally: scan.tally,
            counts,
        };
        halted.tally.add(scan.disk.join());
        halted.patience.refused(self.start.elapsed());
        tracing::warn!("the scan pauses, since the disk refuses: {}", halted.reason);
        self.args.producer.tx.send(halted.paused());
        self.halted = Some(halted);
        Ok(())
    }

    /// Looks at the disk when it is time; opens the file anew if it takes writes again.
    pub(crate) fn try_again(&mut self) -> Result<Option<SinkReport>, Failure> {
        let now = self.start.elapsed();
        let Some(halted) = &mut self.halted else { return Ok(None) };
        if halted.patience.is_over(now) {
            return Err(halted.give_up());
        }
        if !halted.patience.is_due(now) {
            return Ok(None);
        }
        let opened = halted.hold.probe(halted.needed);
        let opened = match opened.and_then(|()| halted.hold.reopen(&halted.announce)) {
            Ok(opened) => opened,
            Err(error) if error.is_trouble() => {
                halted.patience.refused(now);
                tracing::debug!("the disk still refuses: {}", chain(&error));
                if !matches!(error, SinkError::DiskFull { .. }) {
                    halted.reason = chain(&error);
                }
                // Repeated, so that a producer that missed it knows.
                self.args.producer.tx.send(halted.paused());
                return Ok(None);
            }
            Err(error) => return Err(Failure::from(&error)),
        };
        let Some(mut halted) = self.halted.take() else { return Ok(None) };
        halted.patience.resumed(now);
        // As loud as the pause, for who reads the log afterwards.
        tracing::warn!("the disk takes writes again; the scan goes on");
        match opened {
            Open::Ready(writer, publisher) => {
                let (tally, counts) = (halted.tally, halted.counts);
                self.begin(
                    halted.announce,
                    Some((writer, *publisher)),
                    halted.patience,
                    tally,
                    counts,
                )?;
                Ok(None)
            }
            // Only what follows the last rename had failed.
            Open::AlreadyComplete(report) => {
                let finished = Finished {
                    report: SinkReport { aborted: halted.aborted, ..*report },
                    linger: None,
                };
                let frames = halted.length.unwrap_or(0);
                Ok(Some(self.sum_up(
                    &halted.announce,
                    halted.stamp,
                    frames,
                    &halted.tally,
                    halted.counts,
                    finished.report,
                )))
            }
        }
    }
}

/// Names the indices that are not there, the first few ranges of them.
fn missing(durable: &IndexSet, length: Option<u64>) -> String {
    let mut ranges = Vec::new();
    let mut at = 0;
    for (start, end) in durable.ranges() {
        if start > at {
            ranges.push((at, start));
        }
        at = end;
    }
    let mut named: Vec<String> = ranges.iter().map(|(a, b)| span(*a, *b)).collect();
    match length {
        Some(length) if length > at => named.push(span(at, length)),
        Some(_) => {}
        None => named.push(format!("all from {at} on")),
    }
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    match (named.is_empty(), more) {
        (true, _) => "nothing but the end of the file".to_owned(),
        (false, 0) => format!("frames {}", named.join(", ")),
        (false, more) => format!("frames {} and {more} more ranges", named.join(", ")),
    }
}

fn span(first: u64, end: u64) -> String {
    if end == first + 1 { first.to_string() } else { format!("{first}-{}", end - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEC: Duration = Duration::from_secs(1);

    #[test]
    fn looks_become_rarer_and_end() {
        let mut patience = Patience::new(20 * SEC);
        patience.refused(Duration::ZERO);
        assert!(!patience.is_due(SEC / 10) && patience.is_due(SEC / 5));
        let (mut now, mut looks) = (Duration::ZERO, 0);
        while !patience.is_over(now) {
            if patience.is_due(now) {
                patience.refused(now);
                looks += 1;
            }
            now += SEC / 10;
        }
        assert_eq!(now, 20 * SEC);
        assert!((5..12).contains(&looks), "{looks}");
    }

    #[test]
    fn only_progress_makes_patience_fresh() {
        let mut patience = Patience::new(4 * SEC);
        patience.refused(Duration::ZERO);
        patience.resumed(3 * SEC);
        assert!(!patience.is_over(100 * SEC), "time without trouble does not count");
        patience.refused(100 * SEC);
        assert!(patience.is_over(101 * SEC));
        patience.resumed(101 * SEC);
        patience.progressed();
        patience.refused(200 * SEC);
        assert!(!patience.is_over(203 * SEC) && patience.is_due(200 * SEC + SEC / 5));
        assert!(!Patience::new(Duration::ZERO).waits());
    }

    #[test]
    fn missing_frames_are_named_in_short() {
        let mut durable = IndexSet::new();
        durable.insert(0, 4);
        durable.insert(5, 8);
        assert_eq!(missing(&durable, Some(10)), "frames 4, 8-9");
        assert_eq!(missing(&durable, None), "frames 4, all from 8 on");
        durable.insert(4, 10);
        assert_eq!(missing(&durable, Some(10)), "nothing but the end of the file");
        let mut odd = IndexSet::new();
        (0..40).for_each(|i| {
            odd.insert(2 * i + 1, 2 * i + 2);
        });
        assert!(missing(&odd, Some(80)).ends_with("14 and 32 more ranges"));
    }
}
