//! Detectors that send their frames as they take them.
//!
//! | source | protocol |
//! |---|---|
//! | `simplon` | Dectris SIMPLON stream, version 1 ([`simplon`]) |
//! | `stream2` | Dectris stream2 ([`stream2`]) |
//!
//! The detector binds, and this connects, before the series is armed. Opening waits for the series to
//! begin, because its header says what frames will be. Pixels travel as the detector sent them, and workers
//! decode them. What is odd is survived, counted and said at the end.
//!
//! | module | what it holds |
//! |---|---|
//! | [`header`] | the beginning of a series, whatever the protocol |
//! | [`sends`] | what a detector sends, for rehearsals |
//! | [`arrivals`] | frames that have come and were not taken: order, room, what is lost |

pub mod arrivals;
pub mod header;
pub mod sends;
pub mod simplon;
pub mod stream2;

use super::keys::{Keys, wrong};
use super::position_file;
use crate::positions;
use arrivals::{Arrival, Arrivals};
use header::{Event, Header};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded};
use ptystream_common::index::Index;
use ptystream_common::link::instrument::{Incoming, Pattern};
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};
use ptystream_common::source::{
    Check, Common, Exposure, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use ptystream_common::value::Value;
use simplon::Simplon;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream2::Stream2;

const TICK: Duration = Duration::from_millis(2);
/// Of so many frames that were taken last it is known when they came.
const TAKEN: usize = 64;
/// Messages that are read at one call.
const BURST: usize = 256;

const ADDRESS: ParamDecl = ParamDecl::new(
    "address",
    &[ParamType::Str, ParamType::List, ParamType::None],
    ParamDefault::None,
    "Where the detector sends: tcp://HOST:PORT, or a list of several.",
);
const WAIT: ParamDecl = ParamDecl::new(
    "wait_secs",
    &[ParamType::Float],
    ParamDefault::Float(3600.0),
    "How long to wait for the series to begin.",
)
.above(0.0)
.unit("s")
.level(1)
.bytes_unaffected();
const IDLE: ParamDecl = ParamDecl::new(
    "idle_secs",
    &[ParamType::Float],
    ParamDefault::Float(600.0),
    "After so long without a message a series that has begun counts as ended.",
)
.above(0.0)
.unit("s")
.level(1)
.bytes_unaffected();
const MASK: ParamDecl = ParamDecl::new(
    "from_stream.mask",
    &[ParamType::Bool],
    ParamDefault::Bool(true),
    "Whether the detector's own mask counts, where the stream has it.",
)
.level(1);
const FLATFIELD: ParamDecl = ParamDecl::new(
    "from_stream.flatfield",
    &[ParamType::Bool],
    ParamDefault::Bool(false),
    "Whether frames are multiplied by the stream's flatfield, unless the detector has done so.",
)
.level(1);
const CHANNEL: ParamDecl = ParamDecl::new(
    "channel",
    &[ParamType::Str, ParamType::None],
    ParamDefault::None,
    "Which channel, such as threshold_1; None: the first.",
)
.level(1);
const MEMORY: ParamDecl = ParamDecl::new(
    "buffer_bytes",
    &[ParamType::Int],
    ParamDefault::Int(1 << 30),
    "Frames that wait for one that has not come. Beyond it that one is given up.",
)
.limits(Some(1_048_576.0), None)
.unit("bytes")
.level(2)
.bytes_unaffected();

const SHARED: [ParamDecl; 35] = joined::<13, 22, 35>(
    joined::<6, 7, 13>([ADDRESS, WAIT, IDLE, MASK, FLATFIELD, MEMORY], position_file::PARAMS),
    positions::PARAMS,
);
static SIMPLON: &[ParamDecl] = &SHARED;
static STREAM2: &[ParamDecl] = &joined::<1, 35, 36>([CHANNEL], SHARED);

/// Returns the registry's entries of these sources.
pub fn kinds() -> [SourceKind; 2] {
    let kind = |name, help, params, two| SourceKind {
        name,
        aliases: &[],
        help,
        params,
        open: Arc::new(move |spec| {
            positions::open(spec, || Ok(Box::new(Detector::open(spec, two)?)))
        }),
    };
    let simplon = "reads the stream of a Dectris detector (SIMPLON, version 1) as it is taken";
    let stream2 = "reads the stream2 of a Dectris detector as it is taken";
    [kind("simplon", simplon, SIMPLON, false), kind("stream2", stream2, STREAM2, true)]
}

enum Protocol {
    Simplon(Box<Simplon>),
    Stream2(Stream2),
}

impl Protocol {
    fn new(spec: &SourceSpec, two: bool) -> Result<Self, SourceError> {
        Ok(match two {
            false => Self::Simplon(Box::default()),
            true => Self::Stream2(Stream2::new(Keys(spec).text("channel")?.map(str::to_owned))),
        })
    }

    fn feed(&mut self, parts: Vec<bytes::Bytes>) -> Vec<Event> {
        match self {
            Self::Simplon(reader) => reader.feed(parts),
            Self::Stream2(reader) => reader.feed(parts),
        }
    }
}

/// A socket and what reads it: each has its own copy of the header.
struct Stream {
    incoming: Incoming,
    protocol: Protocol,
}

/// A detector's series.
struct Detector {
    spec: SourceSpec,
    streams: Vec<Stream>,
    arrivals: Arrivals,
    header: Option<Header>,
    form: FrameForm,
    began: Instant,
    /// When the last message came.
    heard: Duration,
    idle: Duration,
    /// When the frames that were taken last were exposed, and came.
    taken: VecDeque<(Index, Option<Exposure>, Option<Instant>)>,
    said_full: bool,
    said_end: bool,
    unknown: Option<String>,
}

fn addresses(spec: &SourceSpec) -> Result<Vec<String>, SourceError> {
    let all = match spec.data.at("address") {
        Some(Value::Str(one)) => vec![one.clone()],
        Some(Value::List(items)) => {
            items.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect()
        }
        _ => Vec::new(),
    };
    match all.is_empty() {
        true => Err(wrong("address", "is needed: tcp://HOST:PORT of the detector's stream")),
        false => Ok(all),
    }
}

impl Detector {
    fn open(spec: &SourceSpec, two: bool) -> Result<Self, SourceError> {
        let keys = Keys(spec);
        let addresses = addresses(spec)?;
        position_file::named(keys)?;
        let most = keys.count("buffer_bytes")?.unwrap_or(1 << 30);
        let patience = keys.number("wait_secs")?.unwrap_or(3600.0);
        let mut streams = Vec::new();
        for address in &addresses {
            let incoming = Incoming::connect(address, Pattern::Pull)
                .map_err(|failure| wrong("address", failure.text))?;
            streams.push(Stream { incoming, protocol: Protocol::new(spec, two)? });
        }
        let mut detector = Self {
            spec: spec.clone(),
            streams,
            arrivals: Arrivals::new(most),
            header: None,
            form: FrameForm { dtype: Dtype::U8, shape: [1, 1] },
            began: Instant::now(),
            heard: Duration::ZERO,
            idle: Duration::try_from_secs_f64(keys.number("idle_secs")?.unwrap_or(600.0))
                .unwrap_or(Duration::MAX),
            taken: VecDeque::with_capacity(TAKEN),
            said_full: false,
            said_end: false,
            unknown: None,
        };
        if let Some(n) = keys.count("num_frames")? {
            detector.arrivals.set_length(n as u64);
        }
        tracing::info!(?addresses, "waiting for the series to begin");
        let deadline = Duration::try_from_secs_f64(patience).unwrap_or(Duration::MAX);
        loop {
            spec.still_wanted()?;
            detector.read();
            if let Some(form) = detector.known_form() {
                detector.form = form;
                return Ok(detector);
            }
            if detector.began.elapsed() > deadline {
                return Err(SourceError::input(format!(
                    "no series has begun at {} within {patience} s (data.wait_secs){}; connect before the \
                     detector is armed, and look whether its stream is enabled",
                    addresses.join(", "),
                    match (
                        &detector.unknown,
                        detector.streams.iter().any(|s| s.incoming.is_connected())
                    ) {
                        (Some(why), _) => format!("; what came is not understood: {why}"),
                        (None, true) => ", though the connection stands".into(),
                        (None, false) => ", and nobody is there".into(),
                    }
                )));
            }
            std::thread::sleep(TICK);
        }
    }

    /// The form of frames: of the header, or of the first that came.
    fn known_form(&self) -> Option<FrameForm> {
        let header = self.header.as_ref()?;
        self.arrivals.first_form().or_else(|| header.form())
    }

    /// Takes what has come, unless there is no room.
    fn read(&mut self) {
        let now = self.began.elapsed();
        for at in 0..self.streams.len() {
            for _ in 0..BURST {
                if self.arrivals.is_full() {
                    if !std::mem::replace(&mut self.said_full, true) {
                        tracing::warn!(
                            "{} bytes of frames wait for one that has not come (data.buffer_bytes)",
                            self.spec
                                .data
                                .at("buffer_bytes")
                                .map_or_else(String::new, |v| v.to_string())
                        );
                    }
                    return;
                }
                let stream = &mut self.streams[at];
                let Ok(parts) = stream.incoming.messages.try_recv() else { break };
                self.heard = now;
                for event in stream.protocol.feed(parts) {
                    self.on_event(event, now);
                }
            }
        }
    }

    fn on_event(&mut self, event: Event, now: Duration) {
        let counts = &mut self.arrivals.counts;
        match event {
            Event::Start(header) => match &self.header {
                None => {
                    tracing::info!(
                        series = header.series,
                        images = header.images,
                        "the series begins"
                    );
                    self.header = Some(*header);
                }
                // The same one by another socket.
                Some(own) if own.series == header.series => {}
                Some(_) => counts.other_series += 1,
            },
            Event::Image(index, mut arrival) => {
                if let Arrival::Frame(shot) = &mut arrival {
                    shot.came = Some(Instant::now());
                }
                self.arrivals.put(index, arrival);
            }
            Event::End => self.arrivals.end(now),
            Event::OtherSeries => counts.other_series += 1,
            Event::Unknown(why) => {
                counts.unknown += 1;
                if self.unknown.replace(why.clone()).is_none() {
                    tracing::warn!("a message is not understood, and left out: {why}");
                }
            }
        }
    }

    /// Says once what came and what did not.
    fn say_end(&mut self) {
        if !std::mem::replace(&mut self.said_end, true) {
            let counts = self.arrivals.counts;
            tracing::info!(?counts, "the detector's series has ended");
        }
    }
}

impl Source for Detector {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        position_file::load_placed(&self.spec)
    }

    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        if !Keys(&self.spec).flag("from_stream.mask", true)? {
            return Ok(None);
        }
        let mask = self.header.as_ref().and_then(|h| h.mask.as_ref());
        let Some(mask) = mask.filter(|m| m.shape == self.form.shape) else { return Ok(None) };
        // In the detector 0 is good.
        let good: Vec<u8> = mask.to_f64().into_iter().map(|v| u8::from(v == 0.0)).collect();
        Ok(Array::from_bytes(Dtype::Bool, &mask.shape, good.into()))
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let mut common = Common::default();
        if Keys(&self.spec).flag("from_stream.flatfield", false)? {
            match self.header.as_ref().map(|h| (h.flatfield_applied, &h.flatfield)) {
                Some((false, Some(flatfield))) if flatfield.shape == self.form.shape => {
                    // It multiplies; a flat divides.
                    let items: Vec<f64> = flatfield.to_f64().iter().map(|v| 1.0 / v).collect();
                    common.flat = Some(Array::from_items(&flatfield.shape, &items));
                }
                Some((true, _)) => {
                    tracing::info!("the detector has applied its flatfield already");
                }
                _ => {
                    return Err(wrong(
                        "from_stream.flatfield",
                        "is true, but the stream has no flatfield of the frames' shape; set the \
                         detector's header_detail to \"all\"",
                    ));
                }
            }
        }
        Ok(common)
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        if let Some(n) = num_frames {
            self.arrivals.set_length(n as u64);
        }
        self.read();
        let now = self.began.elapsed();
        if now.saturating_sub(self.heard) > self.idle && !self.arrivals.has_ended() {
            tracing::warn!(
                "no message for {} s: the series counts as ended (data.idle_secs)",
                self.idle.as_secs_f64()
            );
            self.arrivals.end(now);
        }
        let there = self.arrivals.accessible(now);
        let accessible = frames.min((there as usize).saturating_sub(start));
        let over = self.arrivals.is_over(now)
            && self.streams.iter().all(|s| s.incoming.messages.is_empty());
        let end = self.arrivals.reached();
        if num_frames.is_some_and(|n| there >= n as u64) || over {
            self.say_end();
        }
        if over && there >= end {
            return match num_frames {
                Some(n) if end < n as u64 => Err(SourceError::Interrupted {
                    frames: end,
                    reason: format!("the detector ended its series after {end} of {n} frames"),
                }),
                _ => Ok(Check { accessible, end_of_scan: Some(true) }),
            };
        }
        Ok(Check { accessible, end_of_scan: None })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut loaded = Vec::with_capacity(indices.len());
        for &index in indices {
            let frame = match self.arrivals.take(index.0) {
                Some(Arrival::Frame(shot)) => {
                    if self.taken.len() == TAKEN {
                        self.taken.pop_front();
                    }
                    self.taken.push_back((index, shot.exposure, shot.came));
                    shot.frame
                }
                Some(Arrival::Damaged(text)) => return Err(SourceError::frame(index, text)),
                Some(Arrival::Lost) => {
                    let text = "the detector's frame did not come";
                    return Err(SourceError::frame(index, text));
                }
                None => return Err(SourceError::Passed { index }),
            };
            if frame.form != self.form {
                let (got, own) = (frame.form, self.form);
                let text = format!(
                    "it is {} {:?}, the first frame {} {:?}",
                    got.dtype, got.shape, own.dtype, own.shape
                );
                return Err(SourceError::frame(index, text));
            }
            loaded.push(Loaded::plain(index, frame));
        }
        Ok(loaded)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(self.form)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        let images = self.header.as_ref().and_then(|h| h.images);
        Ok(images.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let origin = || "the detector's stream".to_owned();
        let Some(header) = &self.header else { return Ok(Recorded::default()) };
        Ok(Recorded {
            energy: header.energy.map(|v| (v, origin())),
            distance: header.distance.map(|v| (v, origin())),
            psize: header.psize.map(|v| (v, origin())),
            ..Recorded::default()
        })
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let series = self.header.as_ref().map_or(0, |h| h.series);
        let form = self.form;
        Ok(vec![
            ("series".into(), series.to_string()),
            ("frames".into(), format!("{} {:?}", form.dtype, form.shape)),
        ])
    }

    fn is_live(&self) -> bool {
        true
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(Some(WithFrames::default()))
    }

    fn exposure(&mut self, index: Index) -> Option<Exposure> {
        match self.arrivals.peek(index.0) {
            Some(shot) => shot.exposure,
            None => self.taken.iter().rev().find(|(of, ..)| *of == index)?.1,
        }
    }

    fn came(&mut self, index: Index) -> Option<Instant> {
        self.taken.iter().rev().find(|(of, ..)| *of == index)?.2
    }

    fn metadata(&mut self, index: Index) -> Option<Value> {
        self.arrivals.peek(index.0)?.metadata.clone()
    }
}
