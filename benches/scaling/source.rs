//! Frames out of memory, each as late as it is told to be.

use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{Common, Registry, Source, SourceError, SourceKind, SourceSpec};
use std::sync::Arc;
use std::time::Duration;

/// So many frames are different.
const DIFFERENT: usize = 16;

static PARAMS: &[ParamDecl] = &[
    ParamDecl::new("size", &[ParamType::Int], ParamDefault::Int(64), "Pixels of a side."),
    ParamDecl::new(
        "delay_ms",
        &[ParamType::Float],
        ParamDefault::Float(0.0),
        "How long a frame takes.",
    ),
];

/// Returns the built-in sources and `memory`.
pub fn registry() -> Registry {
    let mut registry = ptystream_producer::source::builtin();
    registry.add(SourceKind {
        name: "memory",
        aliases: &[],
        help: "gives frames out of memory",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(Memory::open(spec)))),
    });
    registry
}

struct Memory {
    frames: Vec<bytes::Bytes>,
    form: FrameForm,
    points: usize,
    delay: Duration,
}

impl Memory {
    fn open(spec: &SourceSpec) -> Self {
        let number = |key| spec.data.at(key).and_then(|v| v.as_f64()).unwrap_or_default();
        let size = number("size") as usize;
        let frame = |k: usize| -> bytes::Bytes {
            let count = |i: usize| ((i * 2_654_435_761 + k * 40_503) >> 20) as u16 % 1000;
            (0..size * size).flat_map(|i| count(i).to_ne_bytes()).collect()
        };
        Self {
            frames: (0..DIFFERENT).map(frame).collect(),
            form: FrameForm { dtype: Dtype::U16, shape: [size, size] },
            points: number("num_frames") as usize,
            delay: Duration::from_secs_f64(number("delay_ms") / 1e3),
        }
    }
}

impl Source for Memory {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        let yx = |i: usize| [(i / 200) as f64 * 1e-7, (i % 200) as f64 * 1e-7];
        let items: Vec<f64> = (0..self.points).flat_map(yx).collect();
        Ok(Some(Array::from_items(&[self.points, 2], &items)))
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let loaded = |&index: &Index| {
            Loaded::plain(
                index,
                RawFrame::new(
                    self.form,
                    Encoding::Raw,
                    self.frames[index.0 as usize % DIFFERENT].clone(),
                ),
            )
        };
        Ok(indices.iter().map(loaded).collect())
    }

    fn correct(&mut self, loaded: Loaded, _common: &Common) -> Result<Loaded, SourceError> {
        std::thread::sleep(self.delay);
        Ok(loaded)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(self.form)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(Some(self.points))
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(vec![("memory".into(), self.points.to_string())])
    }
}
