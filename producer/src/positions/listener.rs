//! What has come on a stream of positions: which series it is of, and what is wrong with it.
//!
//! Whoever opens the frames may wait long for the detector, and other scans may pass on the stream meanwhile. It is
//! listened to all the time, and of all series that begin before a frame has got a position the last one counts.

use super::join::{By, Join, Rules};
use super::settings::Settings;
use super::stream::Stream;
use super::{Ending, Event};
use ptystream_common::source::SourceError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(2);

/// See the module.
pub(super) struct Listener {
    stream: Stream,
    rules: Rules,
    origin: String,
    /// What has come, for the frames.
    pub join: Join,
    /// How the series has ended, if it has.
    pub ended: Option<Ending>,
    /// Whether anything could be used.
    pub understood: bool,
    /// Messages that could not.
    pub unknown: u64,
    /// Messages and beginnings of other series.
    pub other_series: u64,
    begun: bool,
    /// The beginning of the series was missed.
    late: bool,
    /// What the first message lacks.
    lacking: Option<String>,
}

impl Listener {
    /// Connects, or begins to look.
    ///
    /// # Errors
    /// An address that is none.
    pub fn open(settings: &Settings) -> Result<Self, SourceError> {
        let stream = Stream::open(settings)?;
        let origin = settings.origin();
        tracing::info!(positions = origin, "positions come as a stream");
        Ok(Self::new(stream, settings.rules.clone(), origin))
    }

    fn new(stream: Stream, rules: Rules, origin: String) -> Self {
        Self {
            stream,
            join: Join::new(rules.clone()),
            rules,
            origin,
            ended: None,
            understood: false,
            unknown: 0,
            other_series: 0,
            begun: false,
            late: false,
            lacking: None,
        }
    }

    /// Does something that takes its time, and listens meanwhile.
    ///
    /// # Errors
    /// Its own, and the stream's.
    pub fn during<T>(
        &mut self,
        work: impl FnOnce() -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let over = AtomicBool::new(false);
        let (done, heard) = std::thread::scope(|scope| {
            let ear = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    self.listen(false)?;
                    std::thread::sleep(TICK);
                }
                Ok(())
            });
            let done = work();
            over.store(true, Ordering::Release);
            (done, ear.join())
        });
        let panicked =
            |_| Err(SourceError::input("the thread that listened to positions panicked"));
        heard.unwrap_or_else(panicked)?;
        done
    }

    /// Tells whether the instrument is there.
    pub fn is_there(&self) -> bool {
        self.stream.is_there()
    }

    /// Takes what has come; `taken`: frames have got positions of the series.
    ///
    /// # Errors
    /// If a text cannot be read, or was replaced.
    pub fn listen(&mut self, taken: bool) -> Result<(), SourceError> {
        for event in self.stream.poll()? {
            self.on_event(event, taken);
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event, taken: bool) {
        match event {
            Event::Begin => {
                let another = self.begun || self.late || self.ended.is_some();
                self.other_series += u64::from(another);
                if another && taken {
                    return;
                }
                self.join = Join::new(self.rules.clone());
                (self.ended, self.lacking) = (None, None);
                (self.begun, self.late, self.understood) = (true, false, false);
            }
            // Another series follows: none of it is ours.
            _ if self.ended.is_some() => self.other_series += 1,
            Event::Samples { rows, first, begun } => {
                self.late |= !begun;
                self.understood = true;
                self.join.put(rows, first);
            }
            Event::End(ending) => {
                let samples = self.join.counts.samples;
                tracing::info!(?ending, samples, "the positions have ended");
                self.join.end();
                self.ended = Some(ending);
            }
            Event::Lost(samples) => {
                tracing::error!(samples, "the instrument has lost positions");
                self.join.lost(samples);
            }
            Event::Lacking(text) if !self.understood => {
                self.lacking.get_or_insert(text);
            }
            Event::Lacking(text) | Event::Unknown(text) => {
                self.unknown += 1;
                if self.unknown == 1 {
                    tracing::warn!("positions are not understood, and left out: {text}");
                }
            }
        }
    }

    /// Says why the series cannot be used, once it is that of the frames.
    ///
    /// # Errors
    /// If its beginning was missed and its order is all there is, or if it lacks what is wanted.
    pub fn ensure_usable(&self) -> Result<(), SourceError> {
        let origin = &self.origin;
        if self.late && self.rules.by == By::Count {
            return Err(SourceError::input(format!(
                "positions from {origin} had begun before anybody listened: counted, frames would get the \
                 positions of others. Start the producer before the scan, or join by index or time \
                 (data.positions.join)"
            )));
        }
        match &self.lacking {
            Some(text) if !self.understood => {
                let text = format!("data.positions: in what comes from {origin}, {text}");
                Err(SourceError::input(text))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::axes::Axes;
    use super::super::join::{At, Ready};
    use super::*;

    fn listener(by: By) -> Listener {
        let rules = Rules {
            by,
            at: At::Start,
            samples: Some(1),
            position: [0, 0],
            index: Some(1),
            first: 0.0,
            time: None,
            time_offset: 0.0,
            widest: 1.0,
            axes: Axes::default(),
            gate: None,
            most: 100,
        };
        Listener::new(Stream::None, rules, "here".into())
    }

    fn row(index: u64, value: f64, begun: bool) -> Event {
        Event::Samples { rows: vec![vec![value, index as f64]], first: None, begun }
    }

    fn place(listener: &mut Listener, index: u64) -> f64 {
        match listener.join.point(index, None) {
            Ready::Point(point) => point.position[0],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_series_that_pass_before_the_first_frame_the_last_one_counts() {
        let mut one = listener(By::Count);
        // The tail of one, a whole one that lacks what is wanted, and ours.
        for event in [
            row(7, 1.0, false),
            Event::Begin,
            Event::Lacking("no sx".into()),
            Event::End(Ending::Finished),
            Event::Begin,
            row(0, 2.0, true),
        ] {
            one.on_event(event, false);
        }
        one.ensure_usable().unwrap();
        assert_eq!((place(&mut one, 0), one.other_series), (2.0, 2));
        // Once a frame has its position, another series is none of ours.
        for event in [Event::End(Ending::Finished), Event::Begin, row(1, 3.0, true)] {
            one.on_event(event, true);
        }
        assert!(matches!(one.join.point(1, None), Ready::Never(_)));
        assert_eq!(one.other_series, 4);
    }

    #[test]
    fn a_missed_beginning_matters_only_where_positions_are_counted() {
        for (by, usable) in [(By::Index, true), (By::Count, false)] {
            let mut one = listener(by);
            one.on_event(row(5, 1.5, false), false);
            assert_eq!(one.ensure_usable().is_ok(), usable, "{by:?}");
        }
        let mut one = listener(By::Index);
        one.on_event(row(5, 1.5, false), false);
        assert_eq!(place(&mut one, 5), 1.5);
    }

    #[test]
    fn it_listens_while_something_else_is_done() {
        let mut one = listener(By::Index);
        assert_eq!(one.during(|| Ok(3)).unwrap(), 3);
        let error = one.during(|| Err::<(), _>(SourceError::input("no detector"))).unwrap_err();
        assert_eq!(error.to_string(), "no detector");
    }
}
