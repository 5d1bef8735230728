//! Sources written in Python: `data.name = "module:Class"`.
//!
//! | file | what it holds |
//! |---|---|
//! | `host` | the interpreter, and what is said to it |
//! | `declared` | parameters of docstrings as declarations |
//!
//! Each opened source has an interpreter of its own, so that the readers of a pool do not wait for each
//! other. An exception in a hook ends the scan, with its traceback and the scan point; only
//! `ptystream.FrameError` makes a gap of the frame.

mod declared;
mod host;

pub use host::set_interpreter;

use host::{Host, HostError};
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::source::{
    Check, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use ptystream_common::value::Value;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Classes that have been looked at.
static KNOWN: Mutex<Option<HashMap<(String, PathBuf), &'static SourceKind>>> = Mutex::new(None);

/// Finds a class by `module:Class`; the module stands in the folder of the configuration, the working
/// folder, or wherever the interpreter looks.
pub(super) fn resolve(name: &str, base: &Path) -> Option<Result<&'static SourceKind, SourceError>> {
    let (module, class) = name.split_once(':')?;
    if module.is_empty() || class.is_empty() {
        return None;
    }
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    let key = (name.to_owned(), base.to_owned());
    if let Some(kind) = known.get(&key) {
        return Some(Ok(kind));
    }
    let kind = describe(name, base).map_err(|e| SourceError::Param {
        key: "name".into(),
        text: format!("'{name}' cannot be used: {e}"),
    });
    Some(kind.inspect(|kind| {
        known.insert(key, kind);
    }))
}

/// Asks a class for its parameters. What comes out stays for the life of the program, as the built-in
/// declarations do.
fn describe(name: &str, base: &Path) -> Result<&'static SourceKind, HostError> {
    let (answer, _) = Host::start(base)?.ask("describe", json!({ "target": name }))?;
    let params = declared::params(&answer["params"]);
    let target = name.to_owned();
    Ok(Box::leak(Box::new(SourceKind {
        name: Box::leak(name.to_owned().into_boxed_str()),
        aliases: &[],
        help: "a class of a Python module",
        params: Box::leak(params.into_boxed_slice()),
        open: Arc::new(move |spec| Ok(Box::new(PythonSource::open(&target, spec)?))),
    })))
}

/// A scan whose hooks are Python's.
pub struct PythonSource {
    target: String,
    host: Host,
    num_frames: Option<usize>,
    recorded: Recorded,
    form: Option<FrameForm>,
    live: bool,
}

/// Makes JSON of a value; what JSON has no word for becomes a text.
fn to_json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(v) => json!(v),
        Value::Int(v) => json!(v),
        Value::Float(v) => json!(v),
        Value::Str(v) => json!(v),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, v)| (key.clone(), to_json(v)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(a) => {
            let columns = a.shape.get(1).copied().unwrap_or(1).max(1);
            match a.shape.len() {
                0 | 1 => json!(a.items),
                _ => a.items.chunks(columns).map(|row| json!(row)).collect(),
            }
        }
    }
}

/// Reads type and extent of a live scan's frames; `None`: it is not live.
fn live_form(live: &Json) -> Option<FrameForm> {
    let dtype = Dtype::from_name(live["dtype"].as_str()?)?;
    let extent = |axis: usize| Some(live["shape"].get(axis)?.as_u64()? as usize);
    Some(FrameForm { dtype, shape: [extent(0)?, extent(1)?] })
}

impl PythonSource {
    fn open(target: &str, spec: &SourceSpec) -> Result<Self, SourceError> {
        let fail = |e: HostError| SourceError::input(format!("{target}: {e}"));
        let mut host = Host::start(&spec.base).map_err(fail)?;
        let request = json!({
            "target": target,
            "data": to_json(&spec.data),
            "given": spec.given,
            "base": spec.base,
        });
        let opened = host.ask_until("open", request, &spec.shutdown);
        // An interpreter that was ended does not answer.
        let (answer, _) = opened.or_else(|e| spec.still_wanted().and(Err(fail(e))))?;
        let numbers = |key: &str| -> Option<Vec<f64>> {
            answer["recorded"][key].as_array()?.iter().map(Json::as_f64).collect()
        };
        let one = |key: &str| Some((*numbers(key)?.first()?, target.to_owned()));
        let psize = numbers("psize").and_then(|all| match all[..] {
            [both] => Some([both, both]),
            [y, x] => Some([y, x]),
            _ => None,
        });
        let recorded = Recorded {
            energy: one("energy"),
            distance: one("distance"),
            psize: psize.map(|pair| (pair, target.to_owned())),
            ..Recorded::default()
        };
        let num_frames = answer["num_frames"].as_u64().map(|n| n as usize);
        let form = live_form(&answer["live"]);
        let live = form.is_some();
        Ok(Self { target: target.to_owned(), host, num_frames, recorded, form, live })
    }

    /// Calls a hook that is about the scan.
    fn ask(&mut self, hook: &str, request: Json) -> Result<(Json, Vec<Array>), SourceError> {
        let done = self.host.ask(hook, request);
        done.map_err(|e| SourceError::input(format!("{}.{hook}: {e}", self.target)))
    }

    fn one(&mut self, hook: &str) -> Result<Option<Array>, SourceError> {
        Ok(self.ask(hook, json!({}))?.1.into_iter().next())
    }

    fn frames(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let first = indices.first().copied().unwrap_or_default();
        let numbers: Vec<u64> = indices.iter().map(|i| i.0).collect();
        let done = self.host.ask("load", json!({ "indices": numbers }));
        let (answer, arrays) = done.map_err(|e| match e {
            HostError::Raised { text, frame: true, .. } => SourceError::frame(first, text),
            other => {
                let text = format!("{}.load, scan point {first}: {other}", self.target);
                SourceError::Fatal { index: first, text }
            }
        })?;
        let (frames, weights) = arrays.split_at(indices.len().min(arrays.len()));
        let places = answer["positions"].as_array();
        let mut all = Vec::with_capacity(indices.len());
        for (row, (&index, frame)) in indices.iter().zip(frames).enumerate() {
            let [rows, cols] = frame.shape[..] else {
                let text = format!(
                    "{}.load gave an array of the shape {:?}; a frame has two axes",
                    self.target, frame.shape
                );
                return Err(SourceError::Fatal { index, text });
            };
            let form = FrameForm { dtype: frame.dtype, shape: [rows, cols] };
            let payload = frame.data.clone();
            let place = places.and_then(|all| all.get(row)).and_then(Json::as_array);
            let position = place.and_then(|yx| Some([yx.first()?.as_f64()?, yx.get(1)?.as_f64()?]));
            let frame = RawFrame::new(form, Encoding::Raw, payload);
            let weights = weights.get(row).cloned();
            all.push(Loaded { position, weights, ..Loaded::plain(index, frame) });
        }
        Ok(all)
    }
}

impl Source for PythonSource {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        let positions = self.one("load_positions")?;
        if let (None, Some(all)) = (self.num_frames, &positions) {
            self.num_frames = all.shape.first().copied();
        }
        Ok(positions)
    }

    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        self.one("load_weight")
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let total = num_frames.or(self.num_frames).unwrap_or(usize::MAX);
        let most = frames.min(total.saturating_sub(start)).min(u32::MAX as usize);
        let request = json!({ "frames": most, "start": start });
        let (answer, _) = match self.host.ask("check", request) {
            Err(HostError::Raised { text, interrupted: Some(frames), .. }) => {
                return Err(SourceError::Interrupted { frames, reason: text });
            }
            done => done.map_err(|e| SourceError::input(format!("{}.check: {e}", self.target)))?,
        };
        let accessible = answer["accessible"].as_u64().unwrap_or(0) as usize;
        Ok(Check { accessible: accessible.min(most), end_of_scan: answer["end"].as_bool() })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        self.frames(indices)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        if let Some(form) = self.form {
            return Ok(form);
        }
        let form = match self.frames(&[Index(0)])?.first() {
            Some(first) => first.frame.form,
            None => return Err(SourceError::input(format!("{}: no first frame", self.target))),
        };
        self.form = Some(form);
        Ok(form)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(self.num_frames)
    }

    fn is_live(&self) -> bool {
        self.live
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(self.live.then_some(WithFrames { position: true, ..WithFrames::default() }))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        Ok(self.recorded.clone())
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let (answer, _) = self.ask("identity", json!({}))?;
        let text = |v: Option<&Json>| v.and_then(Json::as_str).unwrap_or_default().to_owned();
        let pairs = answer["pairs"].as_array().into_iter().flatten();
        Ok(pairs.map(|pair| (text(pair.get(0)), text(pair.get(1)))).collect())
    }
}
