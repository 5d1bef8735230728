//! ptypy's tutorial loader, rebuilt: a folder with `positions.txt`, `geometry.txt` and `ccd/*.npy`.

use ptystream::common::params::{ParamDecl, ParamDefault, ParamType};

/// What `[data]` takes beside ptypy's own parameters.
static PARAMS: &[ParamDecl] = &[
    ParamDecl::new(
        "base_path",
        &[ParamType::InputPath],
        ParamDefault::Str("./"),
        "Folder of the scan.",
    ),
    // A parameter that ptypy has already gets another default here.
    ParamDecl::new(
        "auto_center",
        &[ParamType::Bool, ParamType::None],
        ParamDefault::Bool(false),
        "Whether the centre is found from the frames.",
    ),
];

use ptystream::common::source::SourceKind;
use std::sync::Arc;

/// The entry of the registry: `name = "my_numpy"` in a configuration.
pub fn kind() -> SourceKind {
    SourceKind {
        name: "my_numpy",
        aliases: &["MyNumpyScan"],
        help: "reads one .npy a scan point, numbered from 0 on",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(MyNumpyScan::open(spec)?))),
    }
}

use ptystream::common::source::{SourceError, SourceSpec};
use ptystream::common::value::Value;
use std::path::PathBuf;

/// A folder in the tutorial's layout.
pub struct MyNumpyScan {
    folder: PathBuf,
    frames: Vec<PathBuf>,
    positions: Vec<[f64; 2]>,
}

impl MyNumpyScan {
    fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let folder = match spec.data.get("base_path") {
            Some(Value::Str(path)) => spec.path(path),
            _ => spec.path("./"),
        };
        let list = folder.join("positions.txt");
        let text = std::fs::read_to_string(&list)
            .map_err(|e| SourceError::input(format!("'{}': {e}", list.display())))?;
        let (mut frames, mut positions) = (Vec::new(), Vec::new());
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| words.get(at).and_then(|w| w.parse::<f64>().ok());
            let (Some(name), Some(y), Some(x)) = (words.first(), number(1), number(2)) else {
                let text = format!("'{}': the line '{line}' is not `file y x`", list.display());
                return Err(SourceError::input(text));
            };
            frames.push(folder.join(name));
            positions.push([y, x]);
        }
        Ok(Self { folder, frames, positions })
    }
}

use ptystream::common::codec::Encoding;
use ptystream::common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream::common::index::Index;
use ptystream::common::source::{Recorded, Source};
use ptystream::producer::source::npy::NpyReader;

impl Source for MyNumpyScan {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        let flat: Vec<f64> = self.positions.iter().flatten().copied().collect();
        Ok(Some(Array::from_items(&[self.positions.len(), 2], &flat)))
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        let first = self.read(Index(0))?;
        Ok(FrameForm { dtype: first.dtype, shape: [first.shape[0], first.shape[1]] })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        indices
            .iter()
            .map(|&index| {
                let Array { dtype, shape, data } = self.read(index)?;
                let form = FrameForm { dtype, shape: [shape[0], shape[1]] };
                let frame = RawFrame::new(form, Encoding::Raw, data);
                Ok(Loaded::plain(index, frame))
            })
            .collect()
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let path = self.folder.join("geometry.txt");
        let text = std::fs::read_to_string(&path)
            .map_err(|e| SourceError::input(format!("'{}': {e}", path.display())))?;
        let mut recorded = Recorded::default();
        for line in text.lines() {
            let Some((key, value)) = line.split_once(' ') else { continue };
            let Ok(value) = value.trim().parse::<f64>() else { continue };
            let from = path.display().to_string();
            match key {
                "energy" => recorded.energy = Some((value, from)),
                "distance" => recorded.distance = Some((value, from)),
                "psize" => recorded.psize = Some(([value, value], from)),
                _ => {}
            }
        }
        Ok(recorded)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(Some(self.frames.len()))
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let stamp = |path: &PathBuf| {
            let when = std::fs::metadata(path).and_then(|m| Ok((m.len(), m.modified()?)));
            (path.display().to_string(), format!("{:?}", when.ok()))
        };
        let list = self.folder.join("positions.txt");
        Ok(self.frames.iter().chain([&list]).map(stamp).collect())
    }
}

impl MyNumpyScan {
    /// Reads a 2-D array.
    fn read(&self, index: Index) -> Result<Array, SourceError> {
        let path = &self.frames[index.0 as usize];
        match NpyReader::default().read(path) {
            Ok(array) if array.shape.len() == 2 => Ok(array),
            Ok(array) => {
                let text =
                    format!("'{}' has the shape {:?}, not two axes", path.display(), array.shape);
                Err(SourceError::frame(index, text))
            }
            Err(error) => Err(SourceError::frame(index, error.to_string())),
        }
    }
}
