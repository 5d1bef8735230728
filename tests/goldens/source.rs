//! A source that does what the golden cases' own `PtyScan` classes did in Python.

use crate::case::{self, Case};
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{
    Check, Common, Registry, Source, SourceError, SourceKind, SourceSpec,
};
use std::sync::Arc;

static PARAMS: &[ParamDecl] =
    &[ParamDecl::new("case", &[ParamType::Str], ParamDefault::Str(""), "Which golden case.")];

/// Returns the built-in sources and `golden`.
pub fn registry() -> Registry {
    let mut registry = ptystream_producer::source::builtin();
    registry.add(SourceKind {
        name: "golden",
        aliases: &[],
        help: "serves the raw frames of a golden case",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(Golden::open(spec)?))),
    });
    registry
}

struct Golden {
    case: &'static Case,
    frames: Vec<Array>,
    weights: Option<Vec<Array>>,
    positions: Option<Array>,
    /// How often `check` was called: its script goes on by calls.
    checks: usize,
}

impl Golden {
    fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let name = spec.data.at("case").and_then(|v| v.as_str()).unwrap_or_default();
        let case = case::all().iter().find(|c| c.name == name).ok_or_else(|| {
            SourceError::Param { key: "case".into(), text: format!("no golden case '{name}'") }
        })?;
        let mut frames = case::slices(&case.raw("data").expect("each case has data"));
        if let Some(k) = case.json["raw"]["zero_frame"].as_u64() {
            frames[k as usize].data = vec![0; frames[k as usize].data.len()].into();
        }
        let weights = case.raw("weights").map(|w| case::slices(&w));
        Ok(Self { case, frames, weights, positions: case.raw("positions"), checks: 0 })
    }
}

impl Source for Golden {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        if self.case.flag("positions_in_load") {
            return Ok(None);
        }
        if self.case.flag("base_positions") {
            // ptypy's own `load_positions`: row i is (i, i + 1).
            let n = self.case.json["pars"]["num_frames"].as_i64().expect("it is given");
            let items: Vec<i64> = (0..n).flat_map(|i| [i, i + 1]).collect();
            return Ok(Some(Array::from_items(&[n as usize, 2], &items)));
        }
        Ok(self.positions.clone())
    }

    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        let raw = &self.case.json["raw"];
        if self.case.flag("base_weight") {
            // ptypy's own `load_weight`: ones of the region of interest.
            let n = self.case.json["pars"]["shape"].as_u64().expect("it is given") as usize;
            return Ok(Array::from_bytes(Dtype::Bool, &[n, n], vec![1; n * n].into()));
        }
        let mut weight = self.case.raw("weight2d");
        if let (Some(w), Some(cut)) = (&weight, raw["weight2d_slice"].as_array()) {
            let at: Vec<usize> =
                cut.iter().filter_map(|v| v.as_u64()).map(|v| v as usize).collect();
            let row = |y: usize| w.data[y * w.shape[1]..][at[2]..at[3]].to_vec();
            let rows: Vec<u8> = (at[0]..at[1]).flat_map(row).collect();
            weight = Array::from_bytes(w.dtype, &[at[1] - at[0], at[3] - at[2]], rows.into());
        }
        if let Some(w) = weight.as_mut().filter(|_| self.case.flag("zero_weight")) {
            w.data = vec![0; w.data.len()].into();
        }
        Ok(weight)
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let [dark, flat] = ["dark", "flat"].map(|key| self.case.raw(key));
        Ok(Common { dark, flat, ..Common::default() })
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let Some(script) = self.case.json["raw"]["check"].as_array() else {
            let left = num_frames.unwrap_or(self.frames.len()).saturating_sub(start);
            return Ok(Check { accessible: frames.min(left), end_of_scan: None });
        };
        let now = &script[self.checks.min(script.len() - 1)];
        self.checks += 1;
        let total = now[0].as_u64().expect("the script has numbers") as usize;
        let end_of_scan = now[1].as_u64().map(|eos| eos == 1);
        Ok(Check { accessible: frames.min(total.saturating_sub(start)), end_of_scan })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let positions = match (self.case.flag("positions_in_load"), &self.positions) {
            (true, Some(p)) => p.to_f64(),
            _ => Vec::new(),
        };
        let load = |&index: &Index| {
            let k = index.0 as usize;
            let a = self
                .frames
                .get(k)
                .ok_or_else(|| SourceError::frame(index, "the golden case has no such frame"))?;
            let form = FrameForm { dtype: a.dtype, shape: [a.shape[0], a.shape[1]] };
            let frame = RawFrame::new(form, Encoding::Raw, a.data.clone());
            Ok(Loaded {
                position: positions.chunks_exact(2).nth(k).map(|p| [p[0], p[1]]),
                weights: self.weights.as_ref().map(|w| w[k].clone()),
                ..Loaded::plain(index, frame)
            })
        };
        indices.iter().map(load).collect()
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        let a = &self.frames[0];
        Ok(FrameForm { dtype: a.dtype, shape: [a.shape[0], a.shape[1]] })
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        // A scripted source does not know how many there will be.
        Ok(self.case.json["raw"]["check"].is_null().then_some(self.frames.len()))
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(vec![("golden".into(), self.case.name.clone())])
    }
}
