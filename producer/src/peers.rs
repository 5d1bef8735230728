//! Who is connected, which plan each worker has, whose messages count; and the goodbyes.

use ptystream_common::link::{Hub, HubEvent, PeerId};
use ptystream_common::message::{Body, Stamp};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long to wait for the goodbyes of all.
const GOODBYE: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Worker {
    name: String,
    /// The attempt of its last Hello.
    attempt: u32,
    /// The stamp of the last plan it got.
    planned: Option<Stamp>,
}

/// The workers that are connected, and the run and epoch that messages are to carry.
///
/// What carries another stamp was said before the sink (re)opened the file and does not count. A
/// stamp counts for a worker only once it has a plan under it: what it asked for before is void.
#[derive(Debug, Default)]
pub struct Roster {
    stamp: Stamp,
    workers: BTreeMap<PeerId, Worker>,
}

impl Roster {
    /// Returns run and epoch; all zero before the file is open.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The sink has opened the file; tells whether that is another epoch than before.
    pub fn opened(&mut self, stamp: Stamp) -> bool {
        std::mem::replace(&mut self.stamp, stamp) != stamp
    }

    /// Tells whether what the sink says counts.
    pub fn is_current(&self, stamp: Stamp) -> bool {
        stamp == self.stamp
    }

    /// Tells whether what a worker says counts.
    pub fn counts(&self, worker: PeerId, stamp: Stamp) -> bool {
        self.is_current(stamp)
            && self.workers.get(&worker).is_some_and(|w| w.planned == Some(stamp))
    }

    /// A worker says Hello, for the first time or anew: it has no plan.
    pub fn joined(&mut self, worker: PeerId, name: &str, attempt: u32) {
        self.workers.insert(worker, Worker { name: name.to_owned(), attempt, planned: None });
    }

    /// A worker is gone; returns its name if it was there.
    pub fn gone(&mut self, worker: PeerId) -> Option<String> {
        self.workers.remove(&worker).map(|w| w.name)
    }

    /// Returns the attempt of a worker's last Hello.
    pub fn attempt(&self, worker: PeerId) -> u32 {
        self.workers.get(&worker).map_or(0, |w| w.attempt)
    }

    /// A worker was sent the plan under the present stamp.
    pub fn planned(&mut self, worker: PeerId) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.planned = Some(self.stamp);
        }
    }

    /// All plans are void: what workers ask for counts once they have the next one.
    pub fn void_plans(&mut self) {
        for worker in self.workers.values_mut() {
            worker.planned = None;
        }
    }

    /// Lists the workers that lack the plan under the present stamp.
    pub fn unplanned(&self) -> Vec<PeerId> {
        let lacks = |(_, w): &(&PeerId, &Worker)| w.planned != Some(self.stamp);
        self.workers.iter().filter(lacks).map(|(&peer, _)| peer).collect()
    }

    /// Returns a worker's name.
    pub fn name(&self, worker: PeerId) -> Option<&str> {
        self.workers.get(&worker).map(|w| w.name.as_str())
    }

    /// Lists the workers.
    pub fn peers(&self) -> Vec<PeerId> {
        self.workers.keys().copied().collect()
    }

    /// Returns how many workers there are.
    pub fn len(&self) -> usize {
        self.workers.len()
    }

    /// Tells whether there is no worker.
    pub fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }
}

/// Says who holds how many tickets: "3 tickets: worker a (2), worker b (1)".
pub(crate) fn held(outstanding: usize, holders: &[(String, usize)]) -> String {
    let plural = if outstanding == 1 { "" } else { "s" };
    let names: Vec<String> =
        holders.iter().map(|(name, count)| format!("worker {name} ({count})")).collect();
    match names.is_empty() {
        true => format!("{outstanding} ticket{plural} of workers that have left"),
        false => format!("{outstanding} ticket{plural}: {}", names.join(", ")),
    }
}

/// Waits until all of `waiting` said goodbye or are gone, but not for ever; `late` answers a Hello.
pub(crate) fn wait_for_goodbyes(
    hub: &Hub,
    mut waiting: BTreeMap<PeerId, String>,
    late: impl Fn(PeerId),
) {
    let deadline = Instant::now() + GOODBYE;
    while !waiting.is_empty() {
        match hub.events.recv_deadline(deadline) {
            Ok(HubEvent::Gone(peer)) => {
                waiting.remove(&peer);
            }
            Ok(HubEvent::Message(peer, message)) => match message.header.body {
                Body::Bye => {
                    waiting.remove(&peer);
                }
                Body::Hello { .. } => late(peer),
                _ => {}
            },
            Ok(HubEvent::Unreadable(..)) => {}
            Err(_) => {
                let names: Vec<String> = waiting.into_values().collect();
                let secs = GOODBYE.as_secs();
                tracing::info!("no goodbye within {secs} s from {}", names.join(", "));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_counts_only_under_the_plan_that_its_sender_has() {
        let (w, old, new) = (PeerId(1), Stamp::default(), Stamp { run_id: 7, epoch: 2 });
        let mut roster = Roster::default();
        roster.joined(w, "a", 1);
        assert!(!roster.counts(w, old), "it has no plan");
        roster.planned(w);
        assert!(roster.counts(w, old));
        assert!(roster.opened(new) && !roster.opened(new));
        assert!(!roster.counts(w, old) && !roster.counts(w, new));
        assert_eq!(roster.unplanned(), [w]);
        roster.planned(w);
        assert!(roster.counts(w, new) && !roster.counts(w, old));
        roster.joined(w, "a", 2);
        assert_eq!(roster.attempt(w), 2);
        assert!(!roster.counts(w, new), "Hello anew");
    }

    #[test]
    fn a_wait_says_what_it_waits_for() {
        let holders = [("a".to_owned(), 2), ("b".to_owned(), 1)];
        assert_eq!(held(3, &holders), "3 tickets: worker a (2), worker b (1)");
        assert_eq!(held(1, &[]), "1 ticket of workers that have left");
    }
}
