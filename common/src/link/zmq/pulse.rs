//! Whether the other end of a connection lives: a state machine without clock and socket.
//!
//! | | |
//! |---|---|
//! | sign of life | whatever is received |
//! | who is watched | a peer that has sent a beat; silence of others means nothing |
//! | limit of a peer's silence | the larger of the own `dead_after` and four times what it announced |
//! | a beat is due | nothing was sent since the last tick; ticks come twice in `every` |
//!
//! Silence is counted in ticks of this process, not by the clock: a process that was stopped, or
//! got no processor, finds signs of life waiting in its sockets when it goes on. So that it reads
//! them first, a tick that comes late counts as two at most. That its peers have given it up
//! meanwhile, it learns from them: they have closed the connection.

use std::time::Duration;

/// Most time between two beats.
const MAX_EVERY: Duration = Duration::from_secs(1);
/// Beats within `dead_after`.
const BEATS: u32 = 5;
/// Beats of a slower peer that may fail to come.
const MISSED: u32 = 4;

/// How often to say that one lives, and when a silent peer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    /// Shortest silence that means death.
    pub(super) dead_after: Duration,
    /// Longest silence of one's own.
    pub(super) every: Duration,
}

impl Rhythm {
    /// Derives the beats from the silence that means death.
    pub(super) fn new(dead_after: Duration) -> Self {
        let dead_after = dead_after.max(Duration::from_millis(10));
        Self { dead_after, every: (dead_after / BEATS).min(MAX_EVERY) }
    }

    /// Returns the time between two ticks.
    pub(super) fn tick(&self) -> Duration {
        self.every / 2
    }

    /// Returns `every` as a beat tells it: never less than it is.
    pub(super) fn every_ms(&self) -> u32 {
        u32::try_from(self.every.as_nanos().div_ceil(1_000_000)).unwrap_or(u32::MAX)
    }
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// A beat.
    Beat,
    /// The peer is dead.
    Burial,
}

/// One connection's signs of life.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// Longest silence, once the peer has sent a beat.
    limit: Option<Duration>,
    silence: Duration,
    heard: bool,
    said: bool,
}

impl Pulse {
    /// Notes that something was sent.
    pub(super) fn said(&mut self) {
        self.said = true;
    }

    /// Notes that something was received.
    pub(super) fn heard(&mut self) {
        self.heard = true;
    }

    /// Notes a beat; `true` if it is the peer's first, which wants an answer.
    pub(super) fn beaten(&mut self, every_ms: u32, rhythm: &Rhythm) -> bool {
        let theirs = Duration::from_millis(u64::from(every_ms)) * MISSED;
        self.limit.replace(rhythm.dead_after.max(theirs)).is_none()
    }

    /// Tells whether the peer has sent a beat: it knows what a `Reset` is, too.
    pub(super) fn watched(&self) -> bool {
        self.limit.is_some()
    }

    /// Counts the time since the last tick.
    pub(super) fn tick(&mut self, elapsed: Duration, rhythm: &Rhythm) -> Due {
        if std::mem::take(&mut self.heard) {
            self.silence = Duration::ZERO;
        } else {
            self.silence = self.silence.saturating_add(elapsed.min(rhythm.tick() * 2));
        }
        let said = std::mem::take(&mut self.said);
        match self.limit {
            Some(limit) if self.silence >= limit => Due::Burial,
            _ if said => Due::Nothing,
            _ => Due::Beat,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Ticks until the peer is dead, at most 1000 times.
    fn ticks(pulse: &mut Pulse, rhythm: &Rhythm) -> Option<u32> {
        (1..=1000).find(|_| pulse.tick(rhythm.tick(), rhythm) == Due::Burial)
    }

    #[test]
    fn beats_are_frequent_enough_for_the_limit_and_come_once_a_second_at_least() {
        let default = Rhythm::new(ms(10_000));
        assert_eq!((default.every, default.every_ms()), (ms(1000), 1000));
        let short = Rhythm::new(ms(300));
        assert_eq!((short.every, short.tick()), (ms(60), ms(30)));
        for micros in [1, 20_001, 77_777, 5_000_000] {
            let rhythm = Rhythm::new(Duration::from_micros(micros));
            let told = ms(u64::from(rhythm.every_ms()));
            assert!(told >= rhythm.every && rhythm.tick() > Duration::ZERO, "{rhythm:?}");
        }
    }

    #[test]
    fn a_peer_that_has_never_beaten_may_be_silent_for_ever() {
        let rhythm = Rhythm::new(ms(300));
        let mut pulse = Pulse::default();
        pulse.heard();
        assert_eq!(ticks(&mut pulse, &rhythm), None);
    }

    #[test]
    fn a_watched_peer_is_dead_after_the_limit_and_not_before() {
        let rhythm = Rhythm::new(ms(300));
        let mut pulse = Pulse::default();
        assert!(pulse.beaten(60, &rhythm), "the first beat");
        assert!(!pulse.beaten(60, &rhythm), "wants the only answer");
        pulse.heard();
        assert_eq!(ticks(&mut pulse, &rhythm), Some(11), "one tick hears, ten are silent");
        pulse.heard();
        assert_eq!(ticks(&mut pulse, &rhythm), Some(11), "any sign begins the count anew");
    }

    #[test]
    fn a_slower_peer_gets_four_of_its_own_beats() {
        let rhythm = Rhythm::new(ms(300));
        let mut pulse = Pulse::default();
        pulse.beaten(1000, &rhythm);
        assert_eq!(ticks(&mut pulse, &rhythm), Some(4000 / 30 + 1));
        let mut huge = Pulse::default();
        huge.beaten(u32::MAX, &rhythm);
        assert_eq!(ticks(&mut huge, &rhythm), None);
    }

    #[test]
    fn a_process_that_was_stopped_reads_before_it_buries() {
        let rhythm = Rhythm::new(ms(300));
        let mut pulse = Pulse::default();
        pulse.beaten(60, &rhythm);
        pulse.heard();
        assert_eq!(pulse.tick(ms(30), &rhythm), Due::Beat);
        assert_eq!(pulse.tick(ms(3_600_000), &rhythm), Due::Beat, "an hour counts as two ticks");
        pulse.heard();
        assert_eq!(ticks(&mut pulse, &rhythm), Some(11));
    }

    #[test]
    fn a_beat_is_due_only_where_nothing_else_was_sent() {
        let rhythm = Rhythm::new(ms(300));
        let mut pulse = Pulse::default();
        pulse.said();
        assert_eq!(pulse.tick(ms(30), &rhythm), Due::Nothing);
        assert_eq!(pulse.tick(ms(30), &rhythm), Due::Beat);
    }
}
