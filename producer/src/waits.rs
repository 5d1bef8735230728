//! What the producer waits for, since when, and when it stops waiting.

use crate::error;
use crate::peers::held;
use ptystream_common::error::{Failure, Kind};
use std::time::{Duration, Instant};

/// How long to wait for another worker after the last one there refused the scan.
const REFUSED_GRACE: Duration = Duration::from_secs(2);
/// How long tickets may take to come back once a signal has come.
const DRAIN: Duration = Duration::from_secs(5);
/// How often a wait says what it waits for.
const SAY: Duration = Duration::from_secs(2);

/// The waits of a producer.
#[derive(Debug)]
pub(crate) struct Waits {
    /// How long to wait for a role that is not there.
    limit: Duration,
    sink: Option<Instant>,
    worker: Option<Instant>,
    stopping: Option<Instant>,
    said: Instant,
}

impl Waits {
    /// Waits for everybody, from now on.
    pub(crate) fn new(peer_timeout_secs: f64) -> Self {
        let now = Instant::now();
        let limit = Duration::try_from_secs_f64(peer_timeout_secs).unwrap_or(Duration::MAX);
        Self { limit, sink: Some(now), worker: Some(now), stopping: None, said: now }
    }

    /// Tells whether there is a sink, and a worker that moves.
    pub(crate) fn see(&mut self, sink: bool, worker: bool) {
        for (since, there) in [(&mut self.sink, sink), (&mut self.worker, worker)] {
            *since = (!there).then_some(since.unwrap_or_else(Instant::now));
        }
    }

    /// Checks whether a role has been missing for too long.
    ///
    /// `stuck`: there are workers and all stand still. `refusal`: why one cannot prepare the scan.
    ///
    /// # Errors
    /// Which role is missing, and how to start one.
    pub(crate) fn check(
        &self,
        address: &str,
        stuck: bool,
        refusal: Option<&Failure>,
    ) -> Result<(), Failure> {
        let late = |since: Option<Instant>, limit| since.is_some_and(|at| at.elapsed() > limit);
        if let Some(refusal) = refusal.filter(|_| late(self.worker, REFUSED_GRACE)) {
            return Err(refusal.clone());
        }
        let (what, command) = match () {
            () if late(self.sink, self.limit) => ("sink", "ptystream sink --producer"),
            () if late(self.worker, self.limit) && stuck => return Err(error::stuck(self.limit)),
            () if late(self.worker, self.limit) => ("worker", "ptystream worker --producer"),
            () => return Ok(()),
        };
        Err(error::missing(what, command, address, self.limit))
    }

    /// Waits for tickets to come back after a signal, and says so every few seconds.
    ///
    /// # Errors
    /// That the scan was interrupted, once all are back or it has taken too long.
    pub(crate) fn drain(
        &mut self,
        outstanding: usize,
        holders: impl FnOnce() -> Vec<(String, usize)>,
    ) -> Result<(), Failure> {
        let begun = self.stopping.is_some();
        let since = *self.stopping.get_or_insert_with(Instant::now);
        if outstanding == 0 || since.elapsed() > DRAIN {
            return Err(Failure::new(
                Kind::Aborted,
                "the producer was interrupted by a signal; the same command goes on from what is \
                 on disk",
            ));
        }
        if !begun || self.said.elapsed() >= SAY {
            self.said = Instant::now();
            let secs = DRAIN.as_secs();
            tracing::info!("waiting up to {secs} s for {}", held(outstanding, &holders()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_that_is_missing_too_long_is_named() {
        let mut waits = Waits::new(0.0);
        let text = |waits: &Waits, stuck| {
            waits.check("tcp://a:1", stuck, None).expect_err("it is late").to_string()
        };
        assert!(text(&waits, false).contains("no sink at tcp://a:1"));
        waits.see(true, false);
        assert!(text(&waits, false).contains("no worker at tcp://a:1"));
        assert!(text(&waits, true).contains("stand still"));
        waits.see(true, true);
        assert!(waits.check("tcp://a:1", false, None).is_ok());
    }

    #[test]
    fn a_signal_ends_the_scan_once_all_tickets_are_back() {
        let mut waits = Waits::new(60.0);
        assert!(waits.drain(1, || vec![("a".into(), 1)]).is_ok());
        assert_eq!(waits.drain(0, Vec::new).expect_err("nothing is out").kind, Kind::Aborted);
    }
}
