//! A `.ptyd` as raw data: frames that were prepared already, prepared once more.
//!
//! Shape, centre, energy, distance, pixel size and label of its `meta` count where nothing else is
//! given. Frames are numbered anew in the order of the chunks; `indices` and `info` are not needed, and
//! values need not have the attributes that ptypy gives them. Links to parts are followed.
//!
//! | chunk | read as |
//! |---|---|
//! | `data` (n, rows, cols) | frames, as they are stored where a worker can decode them |
//! | `weights` (n, rows, cols) | weights of each frame; without: `meta/weight2d`, or ones |
//! | `positions` (n, 2) | positions in metres (y, x); without, or None: `data.positions_theory` is needed |
//!
//! # Source
//! ptypy `core/data.py`, `PtydScan`; PTYPY's rule that a file without `source` is only read stands here
//! as: without `data.source` the input is `data.dfile`, and nothing is written.

use super::hdf5::stack::Stack;
use super::keys::{Keys, wrong};
use super::stamp::stamp;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::{Array, FrameForm, Loaded};
use ptystream_common::h5::read::{H5Dataset, H5File};
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::ptyd::record::State;
use ptystream_common::source::{
    Check, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use ptystream_common::value::Value;
use std::path::PathBuf;
use std::sync::Arc;

static PARAMS: &[ParamDecl] = &[ParamDecl::new(
    "source",
    &[ParamType::InputPath, ParamType::None],
    ParamDefault::None,
    "The .ptyd that is prepared once more.",
)
.doc("None, or \"file\": `data.dfile` is read, and nothing is written.")];

/// Returns the registry's entry of this source.
pub fn kind() -> SourceKind {
    SourceKind {
        name: "ptyd",
        aliases: &["PtydScan"],
        help: "reads a .ptyd, to be prepared once more",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(PtydSource::open(spec)?))),
    }
}

/// A `.ptyd` that is read.
pub struct PtydSource {
    path: PathBuf,
    frames: Stack,
    /// Weights of each frame.
    weights: Option<Stack>,
    positions: Option<Array>,
    meta: Vec<(String, Value)>,
    run: Option<String>,
    warnings: Vec<String>,
}

fn input(error: &PtydError) -> SourceError {
    SourceError::input(chain(error))
}

/// Returns the file that is read.
fn path_of(spec: &SourceSpec) -> Result<PathBuf, SourceError> {
    let keys = Keys(spec);
    let given = keys.text("source")?.filter(|text| !text.eq_ignore_ascii_case("file"));
    if given.is_some() {
        let path = keys.input_path("source")?;
        return path.ok_or_else(|| wrong("source", "is needed"));
    }
    let dfile = keys.text("dfile")?.ok_or_else(|| {
        wrong(
            "source",
            "is needed: the .ptyd that is prepared once more (or data.dfile, only to be read)",
        )
    })?;
    if spec.given.iter().any(|given| given == "save") && keys.has("save") {
        return Err(wrong(
            "source",
            format!(
                "is not given, so '{dfile}' (data.dfile) is the input and must not be written; give \
                 data.source, or data.save = \"None\""
            ),
        ));
    }
    std::path::absolute(dfile).map_err(|e| wrong("dfile", e.to_string()))
}

impl PtydSource {
    /// Opens a file and looks at all its chunks.
    ///
    /// # Errors
    /// [`SourceError`] naming file and object: no chunks, none with frames, or chunks that do not fit
    /// together.
    pub fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let path = path_of(spec)?;
        let file = PtydFile::open(&path).map_err(|e| input(&e))?;
        let meta = file.values("meta").map_err(|e| input(&e))?;
        let chunks = file.chunks().map_err(|e| input(&e))?;
        let plain = H5File::open(&path).map_err(|e| SourceError::input(chain(&e)))?;
        let mut warnings = Vec::new();
        let (mut data, mut weights, mut positions) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in &chunks {
            let place = format!("chunks/{}", chunk.name);
            let dataset = |name: &str| -> Result<H5Dataset, SourceError> {
                let key = format!("{place}/{name}");
                plain.dataset(&key).map_err(|e| SourceError::input(chain(&e)))
            };
            let frames = dataset("data")?;
            let rows = frames.shape().first().copied().unwrap_or(0);
            if rows == 0 && frames.shape().len() == 3 {
                // All its frames were left out.
                continue;
            }
            data.push(frames);
            if is_array(&file, &format!("{place}/weights")) {
                weights.push(dataset("weights")?);
            }
            if is_array(&file, &format!("{place}/positions")) {
                let key = format!("{place}/positions");
                positions.push((rows, file.array(&key).map_err(|e| input(&e))?));
            }
        }
        if data.is_empty() {
            let text = format!("'{}' holds no chunk with frames", path.display());
            return Err(SourceError::input(text));
        }
        let count = data.len();
        for (name, found) in [("weights", weights.len()), ("positions", positions.len())] {
            if found != 0 && found != count {
                let text = format!("'{}': {found} of {count} chunks have {name}", path.display());
                return Err(SourceError::input(text));
            }
        }
        let frames = Stack::open(data, "data.source", None)?;
        let weights = match weights.is_empty() {
            true => None,
            false => Some(Stack::open(weights, "data.source", None)?),
        };
        if let Some(weights) = &weights
            && weights.shape() != frames.shape()
        {
            return Err(SourceError::input(format!(
                "'{}': weights of the shape {:?} do not fit data of {:?}",
                path.display(),
                weights.shape(),
                frames.shape()
            )));
        }
        let record = file.record();
        if record.as_ref().is_some_and(|r| r.state == State::Writing) {
            warnings.push(format!(
                "'{}' is not finished: only the frames that are in it now are read",
                path.display()
            ));
        }
        let gaps: u64 =
            record.iter().flat_map(|r| &r.gaps).map(|(range, _)| u64::from(range.count)).sum();
        if gaps > 0 {
            warnings.push(format!("'{}' has {gaps} gaps: frames of weight 0", path.display()));
        }
        let run = record.map(|r| format!("{:016x}", r.identity.run_id));
        let positions = joined(&path.display().to_string(), positions)?;
        Ok(Self { path, frames, weights, positions, meta, run, warnings })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.meta.iter().find(|(key, _)| key == name).map(|(_, v)| v).filter(|v| !v.is_none())
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.numbers(name)?.first().copied()
    }

    fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        match self.value(name)? {
            Value::Array(a) => Some(a.items.clone()),
            Value::List(items) => items.iter().map(Value::as_f64).collect(),
            single => single.as_f64().map(|v| vec![v]),
        }
        .filter(|all| !all.is_empty() && all.iter().all(|v| v.is_finite()))
    }

    fn pair(&self, name: &str) -> Option<[f64; 2]> {
        match self.numbers(name)?[..] {
            [both] => Some([both, both]),
            [y, x] => Some([y, x]),
            _ => None,
        }
    }

    fn origin(&self, name: &str) -> String {
        format!("'meta/{name}' in '{}'", self.path.display())
    }
}

/// Tells whether there is an array of numbers, and not a text or a group that says None.
fn is_array(file: &PtydFile, path: &str) -> bool {
    file.has(path) && file.array(path).is_ok_and(|a| a.shape.len() >= 2)
}

/// Puts the positions of all chunks together; their type is that of the first.
fn joined(path: &str, parts: Vec<(usize, Array)>) -> Result<Option<Array>, SourceError> {
    let Some(dtype) = parts.first().map(|(_, a)| a.dtype) else { return Ok(None) };
    let mut items = Vec::new();
    for (rows, array) in &parts {
        if array.shape != [*rows, 2] {
            let text =
                format!("'{path}': positions of the shape {:?} for {rows} frames", array.shape);
            return Err(SourceError::input(text));
        }
        items.extend(array.to_f64());
    }
    let shape = [items.len() / 2, 2];
    Ok(Some(match dtype {
        Dtype::F32 => {
            let single: Vec<f32> = items.iter().map(|&v| v as f32).collect();
            Array::from_items(&shape, &single)
        }
        _ => Array::from_items(&shape, &items),
    }))
}

impl Source for PtydSource {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        Ok(self.positions.clone())
    }

    /// Returns `meta/weight2d` of files whose chunks have no weights, as old ones do.
    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        if self.weights.is_some() {
            return Ok(None);
        }
        let file = PtydFile::open(&self.path).map_err(|e| input(&e))?;
        match is_array(&file, "meta/weight2d") {
            true => file.array("meta/weight2d").map(Some).map_err(|e| input(&e)),
            false => Ok(None),
        }
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        Ok(Check::of(self.frames.len(), frames, start, num_frames))
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        indices
            .iter()
            .map(|&index| {
                let frame = self.frames.load(index.0, index)?;
                let weights = match &mut self.weights {
                    Some(weights) => Some(weights.decoded(index.0, index)?),
                    None => None,
                };
                Ok(Loaded { weights, ..Loaded::plain(index, frame) })
            })
            .collect()
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(self.frames.form())
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(Some(self.frames.len()))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let one = |name: &str| self.number(name).map(|value| (value, self.origin(name)));
        let frame = self.frames.form().shape;
        let shape = self.pair("shape").map(|pair| pair.map(|v| v as usize)).unwrap_or(frame);
        Ok(Recorded {
            energy: one("energy"),
            distance: one("distance"),
            psize: self.pair("psize").map(|value| (value, self.origin("psize"))),
            shape: Some(shape),
            center: self.pair("center").map(|value| (value, self.origin("center"))),
            label: self.value("label").and_then(Value::as_str).map(str::to_owned),
            electrons: false,
        })
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let mut all = vec![("file".to_owned(), self.path.display().to_string())];
        match &self.run {
            Some(run) => all.push(("run".to_owned(), run.clone())),
            None => all.push(("stamp".to_owned(), stamp(&self.path))),
        }
        for path in self.frames.files() {
            all.push((path.display().to_string(), stamp(&path)));
        }
        Ok(all)
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        let weights = self.weights.as_ref().map(|w| w.form().dtype);
        Ok(Some(WithFrames { weights, ..WithFrames::default() }))
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
