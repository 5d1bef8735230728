//! How long frames of a live source take from their arrival until they are visible in the file, as the producer
//! hears of it.

use hdrhistogram::Histogram;
use ptystream_common::report::Latency;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Microseconds beyond which it does not matter any more: an hour.
const LONGEST: u64 = 3_600_000_000;

/// Times of arrival, and how long it took; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Mutex<Times>>);

#[derive(Debug)]
struct Times {
    waiting: VecDeque<(u64, Instant)>,
    took: Histogram<u64>,
}

impl Default for Watch {
    fn default() -> Self {
        let took = Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are in order");
        Self(Arc::new(Mutex::new(Times { waiting: VecDeque::new(), took })))
    }
}

impl Watch {
    fn times(&self) -> MutexGuard<'_, Times> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame was taken from the source, into which it came at that time; `None`: now.
    pub fn came(&self, index: u64, at: Option<Instant>) {
        let mut times = self.times();
        // A frame for which there was no room is taken again.
        if times.waiting.back().is_none_or(|(last, _)| *last < index) {
            times.waiting.push_back((index, at.unwrap_or_else(Instant::now)));
        }
    }

    /// Every index below is visible.
    pub fn durable(&self, watermark: u64, now: Instant) {
        let mut times = self.times();
        while let Some(&(_, came)) = times.waiting.front().filter(|(index, _)| *index < watermark) {
            times.waiting.pop_front();
            let micros = now.saturating_duration_since(came).as_micros();
            let micros = u64::try_from(micros).unwrap_or(LONGEST).max(1);
            times.took.saturating_record(micros);
        }
    }

    /// Sums up; `None` where nothing was measured.
    pub fn report(&self) -> Option<Latency> {
        let took = &self.times().took;
        let secs = |micros: u64| micros as f64 * 1e-6;
        (!took.is_empty()).then(|| Latency {
            frames: took.len(),
            p50_secs: secs(took.value_at_quantile(0.5)),
            p99_secs: secs(took.value_at_quantile(0.99)),
            max_secs: secs(took.max()),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn half_and_nearly_all_are_told() {
        let (watch, begun) = (Watch::default(), Instant::now());
        assert_eq!(watch.report(), None);
        for index in 0..100 {
            watch.came(index, Some(begun + Duration::from_millis(index)));
        }
        watch.came(99, Some(begun));
        watch.durable(100, begun + Duration::from_millis(200));
        let latency = watch.clone().report().unwrap();
        let near = |secs: f64, expected: f64| (secs - expected).abs() < 0.02 * expected;
        assert!(latency.frames == 100 && near(latency.p50_secs, 0.15), "{latency:?}");
        assert!(near(latency.p99_secs, 0.199) && near(latency.max_secs, 0.2), "{latency:?}");
    }
}
