//! The frames' source and a stream of positions as one source.
//!
//! A frame that has come waits in its own source until its point is known, for `positions.late_secs` at
//! most; then it becomes a gap. A frame that is lost keeps its position: its gap has it.

use super::Ending;
use super::join::{Point, Ready};
use super::listener::Listener;
use super::settings::{Kind, Settings};
use ptystream_common::frame::{Array, FrameForm, Loaded};
use ptystream_common::index::Index;
use ptystream_common::message::WANTED;
use ptystream_common::source::{
    Check, Common, Exposure, Recorded, Source, SourceError, SourceSpec, WithFrames,
};
use ptystream_common::value::Value;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Opens frames and the stream of their positions, if the parameters name one, as one source.
///
/// The stream comes first, and is listened to while whoever opens the frames waits for their beginning.
///
/// # Errors
/// What is wrong with the parameters, and the frames' own.
pub(crate) fn open(
    spec: &SourceSpec,
    frames: impl FnOnce() -> Result<Box<dyn Source>, SourceError>,
) -> Result<Box<dyn Source>, SourceError> {
    let Some(settings) = Settings::read(spec)? else { return frames() };
    let mut listener = Listener::open(&settings)?;
    let inner = listener.during(frames)?;
    Ok(Box::new(Joined::new(inner, settings, listener)))
}

/// A point, or why there is none.
type Known = Result<Point, String>;

struct Joined {
    inner: Box<dyn Source>,
    settings: Settings,
    listener: Listener,
    began: Instant,
    /// When how many frames had come.
    came: VecDeque<(u64, Duration)>,
    /// When the last one had.
    latest: Duration,
    /// Frames below have their answer.
    known: u64,
    points: BTreeMap<u64, Known>,
    /// Positions of frames that were not handed out.
    lost: BTreeMap<u64, [f64; 2]>,
    reference: Option<f64>,
    without_position: u64,
    filtered: u64,
    said_end: bool,
}

impl Joined {
    fn new(inner: Box<dyn Source>, settings: Settings, listener: Listener) -> Self {
        Self {
            inner,
            listener,
            began: Instant::now(),
            came: VecDeque::new(),
            latest: Duration::ZERO,
            known: 0,
            points: BTreeMap::new(),
            lost: BTreeMap::new(),
            reference: settings.reference,
            without_position: 0,
            filtered: 0,
            said_end: false,
            settings,
        }
    }

    /// Takes what came with a frame, where positions do.
    fn with_frame(&mut self, index: u64) -> Result<(), SourceError> {
        let Some(meta) = self.inner.metadata(Index(index)) else { return Ok(()) };
        match self.settings.columns.of(&meta) {
            Ok(rows) => {
                self.listener.understood = true;
                for row in rows {
                    self.listener.join.put(vec![row], Some(index));
                }
                Ok(())
            }
            Err(text) if !self.listener.understood => Err(SourceError::input(format!(
                "data.positions: in what comes with frame {index}, {text}"
            ))),
            Err(_) => {
                self.listener.unknown += 1;
                Ok(())
            }
        }
    }

    /// Looks for the points of frames that have come.
    fn settle(&mut self, there: u64) -> Result<(), SourceError> {
        let now = self.began.elapsed();
        if self.came.back().map_or(self.known, |(upto, _)| *upto) < there {
            self.came.push_back((there, now));
            self.latest = now;
        }
        while self.known < there {
            let index = self.known;
            while self.came.front().is_some_and(|(upto, _)| *upto <= index) {
                self.came.pop_front();
            }
            let exposure = self.inner.exposure(Index(index));
            let with_frames = self.settings.kind == Kind::Frames;
            if with_frames {
                self.with_frame(index)?;
            }
            let known = match self.listener.join.point(index, exposure) {
                Ready::Point(point) => Ok(point),
                Ready::Never(why) => Err(why),
                Ready::NotYet if with_frames => {
                    self.listener.join.skip(index);
                    Err("its metadata hold no position".into())
                }
                Ready::NotYet => {
                    let since = self.came.front().map_or(now, |(_, at)| *at);
                    if now.saturating_sub(since) < self.settings.late {
                        break;
                    }
                    self.listener.join.skip(index);
                    let secs = self.settings.late.as_secs_f64();
                    let nobody = if self.listener.is_there() {
                        ""
                    } else {
                        "; nobody is there who sends them"
                    };
                    Err(format!("none came within {secs} s (data.positions.late_secs){nobody}"))
                }
            };
            self.points.insert(index, known);
            self.known += 1;
        }
        Ok(())
    }

    /// Says once what was left over.
    fn say_end(&mut self) {
        if std::mem::replace(&mut self.said_end, true) {
            return;
        }
        let counts = self.listener.join.counts;
        let left = counts.without_frame + self.listener.join.left();
        tracing::info!(
            ?counts,
            frames_without_position = self.without_position,
            frames_without_beam = self.filtered,
            not_understood = self.listener.unknown,
            other_series = self.listener.other_series,
            "frames and positions are joined"
        );
        if left > 0 {
            tracing::warn!(positions = left, "positions without a frame");
        }
        if self.listener.join.has_slipped() {
            tracing::error!(
                "positions were lost, and frames are joined by count: those behind the loss have the \
                 positions of others; prepare them again by index or time"
            );
        }
    }

    fn scale(&mut self, values: &[f64]) -> Result<Option<f64>, String> {
        let Some(column) = self.settings.normalize else { return Ok(None) };
        let value = values[column];
        if !(value.is_finite() && value > 0.0) {
            return Err(format!("its value to normalise by is {value}; it must be above 0"));
        }
        Ok(Some(*self.reference.get_or_insert(value) / value))
    }
}

impl Source for Joined {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        Ok(None)
    }

    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        self.inner.load_weight()
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        self.inner.load_common()
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        self.listener.listen(self.known > 0)?;
        self.listener.ensure_usable()?;
        let (there, ended) = match self.inner.check(usize::MAX, 0, num_frames) {
            Ok(check) => {
                (check.accessible as u64, (check.end_of_scan == Some(true)).then_some(None))
            }
            Err(SourceError::Interrupted { frames, reason }) => (frames, Some(Some(reason))),
            Err(error) => return Err(error),
        };
        self.settle(there)?;
        let known = self.known as usize;
        let accessible = frames.min(known.saturating_sub(start));
        let whole = num_frames.is_some_and(|n| known >= n);
        if whole || (ended.is_some() && self.known >= there) {
            self.say_end();
        }
        if self.known < there {
            return Ok(Check { accessible, end_of_scan: None });
        }
        match ended {
            Some(None) => Ok(Check { accessible, end_of_scan: Some(true) }),
            Some(Some(reason)) => Err(SourceError::Interrupted { frames: there, reason }),
            None => match self.listener.ended.clone() {
                // No frames have come since, and none is to be expected.
                Some(Ending::Interrupted(reason))
                    if !whole
                        && self.began.elapsed().saturating_sub(self.latest)
                            > self.settings.late =>
                {
                    self.say_end();
                    Err(SourceError::Interrupted { frames: there, reason })
                }
                _ => Ok(Check { accessible, end_of_scan: None }),
            },
        }
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut all = Vec::with_capacity(indices.len());
        for &index in indices {
            let known = self.points.remove(&index.0);
            // Its gap has the position, should it become one.
            if let Some(Ok(point)) = &known {
                self.lost.insert(index.0, point.position);
            }
            let loaded = self.inner.load(&[index])?;
            let point = match known {
                Some(Ok(point)) => point,
                Some(Err(why)) => {
                    self.without_position += 1;
                    return Err(SourceError::frame(index, format!("without a position: {why}")));
                }
                None => return Err(SourceError::Passed { index }),
            };
            if !point.open {
                self.filtered += 1;
                let gate = self.settings.rules.gate.map_or(f64::NAN, |(at, _)| point.values[at]);
                let text = format!("{WANTED}data.positions.gate, which was {gate} (mean)");
                return Err(SourceError::Filtered { index, text });
            }
            let scale = self.scale(&point.values);
            let scale = scale.map_err(|text| SourceError::frame(index, text))?;
            let scalars = self.settings.scalars.iter().map(|(_, column)| point.values[*column]);
            let scalars: Vec<f64> = scalars.collect();
            let position = Some(point.position);
            all.extend(loaded.into_iter().map(|frame| Loaded {
                position,
                scale,
                scalars: scalars.clone(),
                ..frame
            }));
            self.lost.remove(&index.0);
        }
        Ok(all)
    }

    fn correct(&mut self, loaded: Loaded, common: &Common) -> Result<Loaded, SourceError> {
        self.inner.correct(loaded, common)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        self.inner.frame_form()
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        self.inner.num_frames()
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        self.inner.recorded()
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        self.inner.identity()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(Some(WithFrames {
            position: true,
            scalars: self.settings.scalars.iter().map(|(name, _)| name.clone()).collect(),
            scale: self.settings.normalize.is_some(),
            ..self.inner.with_frames()?.unwrap_or_default()
        }))
    }

    fn exposure(&mut self, index: Index) -> Option<Exposure> {
        self.inner.exposure(index)
    }

    fn came(&mut self, index: Index) -> Option<Instant> {
        self.inner.came(index)
    }

    fn metadata(&mut self, index: Index) -> Option<Value> {
        self.inner.metadata(index)
    }

    fn nominal(&mut self, index: Index) -> Option<[f64; 2]> {
        self.lost.remove(&index.0).or_else(|| self.inner.nominal(index))
    }

    fn warnings(&mut self) -> Vec<String> {
        self.inner.warnings()
    }
}
