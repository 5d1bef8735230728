//! When frames of a live scan come, and when they are gone.
//!
//! The detector waits for nobody: frame k comes k / `rate` seconds after frame 0, and `ring` frames
//! later its place is taken. Without a rate frames come when they are asked for.

use ptystream_common::index::Index;
use ptystream_common::source::SourceError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The detector's clock and its ring of frames.
#[derive(Debug)]
pub(super) struct Clock {
    rate: f64,
    ring: u64,
    frames: u64,
    /// Seconds since 1970 at which frame 0 comes.
    start: Option<f64>,
    /// When the producer began to read, if that is the start.
    begun: Option<Instant>,
    /// Frames that have been asked for.
    asked: u64,
}

impl Clock {
    pub(super) fn new(rate: f64, ring: u64, frames: u64, start: Option<f64>) -> Self {
        Self { rate, ring: ring.max(1), frames, start, begun: None, asked: 0 }
    }

    /// Returns how many frames have come by now.
    pub(super) fn come(&mut self) -> u64 {
        let elapsed = match self.start {
            Some(start) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                now.as_secs_f64() - start
            }
            None => self.begun.get_or_insert_with(Instant::now).elapsed().as_secs_f64(),
        };
        come_after(elapsed, self.rate, self.frames)
    }

    /// Takes a frame.
    pub(super) fn take(&mut self, index: Index) -> Result<(), SourceError> {
        let come = self.come();
        if index.0 >= come {
            return Err(SourceError::frame(index, "has not come yet"));
        }
        self.asked = self.asked.max(index.0 + 1);
        let newest = if self.rate > 0.0 { come } else { self.asked };
        match index.0 + self.ring < newest {
            true => Err(SourceError::Passed { index }),
            false => Ok(()),
        }
    }
}

fn come_after(elapsed: f64, rate: f64, frames: u64) -> u64 {
    match elapsed {
        _ if elapsed < 0.0 => 0,
        _ if rate <= 0.0 => frames,
        _ => ((elapsed * rate) as u64).saturating_add(1).min(frames),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_at_the_rate_and_end() {
        let come = |elapsed, rate| come_after(elapsed, rate, 10);
        assert_eq!(
            [come(-0.1, 2.0), come(0.0, 2.0), come(0.49, 2.0), come(0.5, 2.0)],
            [0, 1, 1, 2]
        );
        assert_eq!([come(4.5, 2.0), come(1e9, 2.0), come(0.0, 0.0)], [10, 10, 10]);
    }

    #[test]
    fn only_the_newest_frames_are_there() {
        // All 10 came long ago.
        let mut clock = Clock::new(1.0, 3, 10, Some(0.0));
        assert_eq!(clock.come(), 10);
        for k in 0..10 {
            assert_eq!(clock.take(Index(k)).is_ok(), k >= 7, "frame {k}");
        }
        let mut patient = Clock::new(0.0, 3, 10, None);
        assert!((0..10).all(|k| patient.take(Index(k)).is_ok()), "each when it is asked for");
        assert!(matches!(patient.take(Index(6)), Err(SourceError::Passed { .. })));
    }
}
