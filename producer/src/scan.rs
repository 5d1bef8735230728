//! A scan opened and checked before its first frame is handed out.
//!
//! Everything that can be wrong is found here: files, shapes, positions, geometry, memory. What
//! workers and sink need to know of the scan is put together here too.

mod cut;
mod masks;
mod points;
mod scale;

use crate::error::ProducerError;
use crate::retain::{Frames, Retention};
use bytes::Bytes;
use points::{Positions, choose_positions, count_frames, first_frame};
use ptystream_common::checksum;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::Failure;
use ptystream_common::form::{default_batch, prepared_form};
use ptystream_common::frame::{Array, FrameForm};
use ptystream_common::geometry::{Center, Geometry, needs_auto_center};
use ptystream_common::message::{
    Announce, ArrayHead, Body, Message, PreparePlan, PreparedForm, SIGNALS, Stamp, WeightsFrom,
};
use ptystream_common::params::{Compat, DataParams, Follow, LoadParallel, OnGap, PipelineParams};
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::{Common, Recorded, Registry, Source, WithFrames};
use ptystream_common::value::{NumArray, Value};
use std::collections::BTreeMap;

/// Raised when the same input and parameters give other bytes than before.
const KERNEL_VERSION: u32 = 1;

/// Twice the rest energy of an electron, keV.
const PAIR_KEV: f64 = 2.0 * 510.998_95;

/// Returns the energy of photons that have the wavelength of electrons of `kev`.
fn photon_energy(kev: f64) -> f64 {
    (kev * (kev + PAIR_KEV)).sqrt()
}

/// Frames of a chunk where the user says nothing and memory allows.
const FRAMES_PER_CHUNK: u64 = 40;

/// A scan that can be handed out.
pub struct Scan {
    /// Where frames come from, until the reading thread takes it.
    pub source: Option<Box<dyn Source>>,
    /// Room for the frames of a live source, until the reading thread takes it.
    pub retention: Option<Retention>,
    /// How to prepare them; without geometry as long as the centre is to be measured.
    pub plan: PreparePlan,
    /// Dark, flat, weight.
    pub arrays: Vec<(ArrayHead, Bytes)>,
    /// Number of scan points, once known.
    pub num_frames: Option<u64>,
    /// Things that a user should know though they are no errors.
    pub warnings: Vec<String>,
    /// The configuration as TOML, to be kept in the file.
    pub config: String,
    data: DataParams,
    pipeline: PipelineParams,
    positions: Option<Positions>,
    positions_with_frames: bool,
    live: bool,
    recorded: Recorded,
    identity: Vec<(String, String)>,
    weight: Option<(Dtype, [usize; 2])>,
    /// Parameters on which the prepared bytes do not depend.
    without_effect: Vec<&'static str>,
    /// Names of the numbers that come with frames.
    scalars: Vec<String>,
}

impl Scan {
    /// Opens the source and checks the scan; no file is written and no role needed yet.
    ///
    /// `shutdown`: ends the wait for a scan that has not begun.
    ///
    /// # Errors
    /// Everything that is wrong with source, positions, geometry or memory, by name.
    ///
    /// # Source
    /// ptypy `core/data.py`, `PtyScan.initialize`: the same order of hooks.
    pub fn open(
        data: &DataParams,
        pipeline: &PipelineParams,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, ProducerError> {
        let mut spec = data.source_spec();
        spec.shutdown = shutdown.clone();
        if pipeline.on_gap == OnGap::Skip && pipeline.follow == Follow::Ptypy {
            return Err(ProducerError::Config(
                "pipeline.on_gap = \"skip\" leaves frames out, for which a reader of \
                 pipeline.follow = \"ptypy\" would wait for ever; use \"fill\""
                    .into(),
            ));
        }
        // What is wrong all the same is said before a scan that has not begun is waited for.
        if let Some(shape) = data.shape {
            Geometry::region(shape, data.rebin)?;
        }
        let own = registry.resolve(&data.name, &data.base)?.map_or(&[][..], |kind| kind.params);
        let masks = masks::named(&spec, own)?;
        masks::are_there(&masks)?;
        let mut source = registry.open(&spec)?;
        let scan_positions = source.load_positions()?;
        let weight = source.load_weight()?;
        let mut common = source.load_common()?;
        let frame = source.frame_form()?;
        let mask = masks::combined(&masks, frame.shape)?;
        let mut warnings = Vec::new();

        let positions = choose_positions(data, scan_positions, pipeline.compat)?;
        let held = source.num_frames()?.map(|n| n as u64);
        let num_frames = count_frames(data, positions.as_ref(), held, &mut warnings)?;
        if num_frames == Some(0) {
            return Err(ProducerError::Config(
                "the scan has no frames: look at data.num_frames and the positions".into(),
            ));
        }
        let live = source.is_live();
        let with_frames = match (source.with_frames()?, live) {
            (Some(told), _) => told,
            (None, false) => {
                let first = first_frame(source.as_mut(), num_frames)?;
                let weights = first.weights.map(|w| w.dtype);
                WithFrames { position: first.position.is_some(), weights, ..WithFrames::default() }
            }
            (None, true) => {
                return Err(ProducerError::Config(format!(
                    "the live source '{}' does not tell what comes with its frames",
                    data.name
                )));
            }
        };
        let positions_with_frames = with_frames.position;
        if positions.is_none() && !positions_with_frames && pipeline.compat == Compat::None {
            return Err(ProducerError::Config(format!(
                "the source '{}' has no positions, and without them ptypy cannot read the file; \
                 give data.positions_theory (or pipeline.compat = \"ptypy\" to write it all the \
                 same)",
                data.name
            )));
        }
        warnings.extend(mask.as_ref().and_then(masks::note));
        let (weight, mask) = masks::joined(weight, mask, with_frames.weights.is_some())?;
        let weight_of = |a: &Array| match a.shape[..] {
            [rows, cols] => Ok((a.dtype, [rows, cols])),
            _ => Err(ProducerError::Config(format!(
                "the mask has the shape {:?}; it must be one image of {:?}",
                a.shape, frame.shape
            ))),
        };
        let weight_form = weight.as_ref().map(weight_of).transpose()?;
        let weights = match (with_frames.weights, weight_form) {
            (Some(dtype), _) => WeightsFrom::Frame(dtype),
            (None, Some((dtype, _))) => WeightsFrom::Scan(dtype),
            (None, None) => WeightsFrom::Ones,
        };
        let mut arrays = Vec::new();
        let mut add = |name: String, a: Array| {
            let checksum = pipeline.checksums.then(|| checksum::sum(&a.data));
            arrays.push((ArrayHead { name, dtype: a.dtype, shape: a.shape, checksum }, a.data));
        };
        let corrected = common.dark.is_some()
            || common.flat.is_some()
            || common.scale.is_some()
            || with_frames.scale;
        // Nobody but the producer sees the frames of a live source.
        let load_parallel = if live { LoadParallel::Producer } else { data.load_parallel };
        if live && data.load_parallel != LoadParallel::Producer && data.is_given("load_parallel") {
            warnings.push(
                "data.load_parallel counts as None: the source is live, so that only the producer \
                 can read its frames"
                    .to_owned(),
            );
        }
        let load_common = matches!(load_parallel, LoadParallel::Common | LoadParallel::All);
        for (name, array) in [
            ("dark", common.dark),
            ("flat", common.flat),
            ("scale", common.scale),
            ("weight", weight),
            ("mask", mask),
        ] {
            if let Some(array) = array {
                add(name.to_owned(), array);
            }
        }
        for (name, array) in common.other {
            add(format!("common.{name}"), array);
        }
        let by_first_chunk = std::mem::take(&mut common.scale_by_first_chunk);
        let workers_read = load_parallel.workers_read();
        let plan = PreparePlan {
            frame,
            geometry: None,
            weights,
            corrected,
            dtype: pipeline.dtype,
            arithmetic: pipeline.arithmetic,
            compat: pipeline.compat,
            valid_range: pipeline.valid_range,
            bad_values: pipeline.bad_values.clone(),
            compression: pipeline.compression,
            batch: 1,
            frames_per_chunk: 1,
            checksums: pipeline.checksums,
            source: (workers_read || load_common).then_some(spec),
            load_common,
            workers_read,
            scaled: with_frames.scale,
            signals: live && pipeline.alignment,
        };
        let without_effect = own
            .iter()
            .chain(ptystream_common::params::DATA)
            .filter(|d| !d.affects_bytes)
            .map(|d| d.name)
            .collect();
        let recorded = source.recorded()?;
        let mut data = data.clone();
        if let Some(shape) = recorded.shape.filter(|_| !data.is_given("shape")) {
            data.shape = Some(shape);
        }
        if let Some((center, _)) = recorded.center.as_ref().filter(|_| !data.is_given("center")) {
            data.center = Center::At(*center);
        }
        if !data.is_given("label") {
            data.label = recorded.label.clone().or(data.label);
        }
        let mut scan = Self {
            identity: source.identity()?.into_iter().chain(masks::identity(&masks)).collect(),
            recorded,
            source: None,
            retention: None,
            plan,
            arrays,
            num_frames,
            warnings,
            config: String::new(),
            data,
            pipeline: pipeline.clone(),
            positions,
            positions_with_frames,
            live,
            weight: weight_form,
            without_effect,
            scalars: with_frames.scalars,
        };
        scan.warnings.extend(source.warnings());
        scan.source = Some(source);
        scan.size_up(frame)?;
        if by_first_chunk {
            scan.refer_to_first_chunk();
        }
        scan.retention = scan.make_room()?;
        if !scan.needs_center() {
            scan.set_center(None)?;
        }
        Ok(scan)
    }

    /// Returns how many frames make a package worth while (`data.min_frames`).
    pub fn min_frames(&self) -> usize {
        self.data.min_frames
    }

    /// Tells whether the centre is to be measured first.
    pub fn needs_center(&self) -> bool {
        self.plan.geometry.is_none() && needs_auto_center(self.data.center, self.data.auto_center)
    }

    /// Fixes the geometry; `measured` is the automatic centre in raw pixels.
    ///
    /// # Errors
    /// If the centre lies outside the frame.
    pub fn set_center(&mut self, measured: Option<[f64; 2]>) -> Result<(), ProducerError> {
        let geometry = self.geometry(measured)?;
        self.warnings.extend(geometry.warnings(self.data.shape));
        self.plan.geometry = Some(geometry);
        Ok(())
    }

    /// Returns the positions of a range, one an index, where the producer has them.
    pub fn positions_of(&self, range: std::ops::Range<u64>) -> Option<Vec<[f64; 2]>> {
        let positions = self.positions.as_ref()?;
        positions.yx.get(range.start as usize..range.end as usize).map(<[_]>::to_vec)
    }

    /// Returns what the source's `correct` needs.
    pub fn common(&self) -> Common {
        let mut common = Common::default();
        for (head, data) in &self.arrays {
            if let Some(name) = head.name.strip_prefix("common.") {
                let (dtype, shape) = (head.dtype, head.shape.clone());
                let array = Array { dtype, shape, data: data.clone() };
                common.other.insert(name.to_owned(), array);
            }
        }
        common
    }

    /// Makes room for the frames of a live source; `None` for one that can be read again.
    ///
    /// # Errors
    /// If there is too little, or the spool cannot be used.
    fn make_room(&self) -> Result<Option<Retention>, Failure> {
        let FrameForm { shape: [rows, cols], .. } = self.plan.frame;
        let weights = match self.plan.weights {
            WeightsFrom::Frame(dtype) => rows * cols * dtype.size(),
            WeightsFrom::Ones | WeightsFrom::Scan(_) => 0,
        };
        let frames = Frames {
            scan_key: hash(&self.key_parts()),
            dfile: self.data.dfile.clone(),
            bytes: (self.plan.frame.bytes() + weights) as u64,
            least: u64::from(self.plan.frames_per_chunk).min(self.num_frames.unwrap_or(u64::MAX)),
        };
        self.live.then(|| Retention::open(&frames, &self.pipeline)).transpose()
    }

    /// Adds a warning; the sink hears it too, should the scan not have been announced yet.
    pub fn warn(&mut self, text: String) {
        tracing::warn!("{text}");
        self.warnings.push(text);
    }

    /// Makes the message from which workers learn how to prepare; `answers` a Hello's attempt.
    pub fn plan_message(&self, stamp: Stamp, answers: u32) -> Message {
        let (heads, parts) = self.arrays.iter().cloned().unzip();
        let body = Body::Plan { plan: Box::new(self.plan.clone()), arrays: heads, answers };
        Message::with_parts(stamp, body, parts)
    }

    /// Puts together what the sink needs to know.
    ///
    /// # Errors
    /// If the geometry is not fixed or does not fit.
    pub fn announce(&self) -> Result<Announce, ProducerError> {
        let Some(geometry) = &self.plan.geometry else {
            return Err(ProducerError::Config("the centre has not been measured yet".into()));
        };
        let form = self.form()?;
        let given = |name: &str| self.data.is_given(name);
        let mut origins = Vec::new();
        let mut origin = |name: &str, value: String, source: String| {
            origins.push((name.to_owned(), value, source));
        };
        let mut warnings = self.warnings.clone();
        let mut scalar = |name: &str, own: Option<f64>, recorded: Option<&(f64, String)>| {
            let (value, from) = match recorded {
                Some((value, from)) if !given(name) => (Some(*value), from.clone()),
                _ if given(name) => (own, "configuration".to_owned()),
                _ => {
                    warnings.push(format!(
                        "{name} is ptypy's default {}: nobody gave or recorded it",
                        own.map_or("None".into(), |v| v.to_string())
                    ));
                    (own, "ptypy's default".to_owned())
                }
            };
            origin(name, value.map_or("None".into(), |v| v.to_string()), from);
            value
        };
        let energy = scalar("energy", self.data.energy, self.recorded.energy.as_ref());
        // ptypy reckons with the energy of photons of the same wavelength.
        let energy = energy.map(|e| if self.recorded.electrons { photon_energy(e) } else { e });
        let distance = scalar("distance", self.data.distance, self.recorded.distance.as_ref());
        let (psize, from) = match &self.recorded.psize {
            Some((value, from)) if !given("psize") => (Some(*value), from.clone()),
            _ if given("psize") => (self.data.psize, "configuration".to_owned()),
            _ => {
                warnings.push("psize is ptypy's default: nobody gave or recorded it".to_owned());
                (self.data.psize, "ptypy's default".to_owned())
            }
        };
        let psize_text = psize.map_or("None".into(), |[y, x]| format!("({y}, {x})"));
        origins.push(("psize".into(), psize_text, from));
        let center_from = if self.data.is_given("center") { "configuration" } else { "default" };
        let center_from = match &self.recorded.center {
            Some((_, from)) if !self.data.is_given("center") => from,
            _ => center_from,
        };
        let center_from = match needs_auto_center(self.data.center, self.data.auto_center) {
            true => "measured over the first chunk",
            false => center_from,
        };
        let [y, x] = geometry.center;
        origins.push(("center".into(), format!("({y}, {x})"), center_from.into()));

        let float = |v: Option<f64>| v.map_or(Value::None, Value::Float);
        let pair = |v: [f64; 2]| Value::Array(NumArray::f64s(&v));
        let shape = geometry.out_shape().map(|v| v as i64);
        let meta = vec![
            ("version".to_owned(), Value::Float(self.data.version)),
            ("label".to_owned(), self.data.label.clone().map_or(Value::None, Value::Str)),
            ("shape".to_owned(), Value::Array(NumArray::i64s(&shape))),
            ("psize".to_owned(), geometry.meta_psize(psize).map_or(Value::None, pair)),
            ("energy".to_owned(), float(energy)),
            ("center".to_owned(), pair(geometry.meta_center())),
            ("distance".to_owned(), float(distance)),
        ];
        let key_parts = self.key_parts();
        Ok(Announce {
            scan_key: hash(&key_parts),
            key_parts,
            num_frames: self.num_frames,
            frames_per_chunk: self.plan.frames_per_chunk,
            form,
            positions: match &self.positions {
                _ if self.positions_with_frames => Some(Dtype::F64),
                positions => positions.as_ref().map(|p| p.dtype),
            },
            meta,
            info: self.info(geometry, energy, distance, psize),
            positions_scan: self.positions_scan(),
            dfile: self.data.dfile.clone(),
            chunk_format: self.data.chunk_format.clone(),
            save: self.data.save,
            pipeline: self.pipeline.clone(),
            warnings,
            origins,
            config: self.config.clone(),
            per_frame: self.per_frame(),
        })
    }

    /// Names the numbers that are stored of each frame.
    fn per_frame(&self) -> Vec<String> {
        let signals = SIGNALS.iter().filter(|_| self.plan.signals).map(|name| (*name).to_owned());
        self.scalars.iter().cloned().chain(signals).collect()
    }

    /// Returns types and extents of what will be stored.
    ///
    /// # Errors
    /// If the geometry does not fit.
    pub fn form(&self) -> Result<PreparedForm, ProducerError> {
        Ok(prepared_form(&self.plan, self.weight)?)
    }

    fn geometry(&self, measured: Option<[f64; 2]>) -> Result<Geometry, ProducerError> {
        Ok(Geometry::resolve(
            self.plan.frame.shape,
            self.data.shape,
            self.data.center,
            self.data.auto_center,
            measured,
            self.data.orientation,
            self.data.rebin,
        )?)
    }

    /// Chooses frames per chunk and per batch, and refuses what does not fit into memory.
    fn size_up(&mut self, frame: FrameForm) -> Result<(), ProducerError> {
        // A centre in the middle stands for one that is still to be measured: sizes do not
        // depend on it.
        let middle = frame.shape.map(|extent| extent as f64 / 2.0);
        self.plan.geometry = Some(self.geometry(Some(middle))?);
        let bytes = self.form()?.frame_bytes().max(1);
        self.plan.geometry = None;
        let budget = self.pipeline.sink_memory_bytes;
        let fits = budget / (2 * bytes);
        let per_chunk = match self.pipeline.frames_per_chunk.map(u64::from) {
            Some(wanted) if wanted <= fits.max(1) => wanted,
            Some(wanted) => {
                return Err(ProducerError::Config(format!(
                    "pipeline.frames_per_chunk = {wanted} needs 2 x {wanted} x {bytes} bytes; \
                     pipeline.sink_memory_bytes = {budget} has room for at most {}",
                    fits.max(1)
                )));
            }
            None => FRAMES_PER_CHUNK.min(fits).max(1),
        };
        let batch = match self.pipeline.batch {
            Some(batch) => u64::from(batch),
            // No frame shall wait for others to share its storage chunk.
            None if self.pipeline.flush_after_secs.is_some() => 1,
            // By the larger of raw and prepared: either may travel.
            None => {
                let bytes = bytes.max(frame.bytes() as u64);
                u64::from(default_batch(bytes, per_chunk, self.live))
            }
        };
        let batch = batch.min(per_chunk).max(1);
        let held = frame.bytes() as u64 * batch;
        if held > self.pipeline.producer_memory_bytes {
            return Err(ProducerError::Config(format!(
                "one ticket of {batch} frames has {held} bytes; raise \
                 pipeline.producer_memory_bytes = {} or lower pipeline.batch",
                self.pipeline.producer_memory_bytes
            )));
        }
        self.plan.frames_per_chunk = per_chunk as u32;
        self.plan.batch = batch as u32;
        Ok(())
    }

    fn positions_scan(&self) -> Option<NumArray> {
        let positions = self.positions.as_ref().filter(|p| !p.theory)?;
        Some(NumArray {
            dtype: positions.dtype,
            shape: vec![positions.yx.len(), 2],
            items: positions.yx.iter().flatten().copied().collect(),
        })
    }

    /// ptypy's `info`: all parameters, the shape and the centre as they came out.
    fn info(
        &self,
        geometry: &Geometry,
        energy: Option<f64>,
        distance: Option<f64>,
        psize: Option<[f64; 2]>,
    ) -> Vec<(String, Value)> {
        let mut info = match &self.data.tree {
            // ptypy's own block knows no mask.
            Value::Map(entries) => {
                let is_own = |(name, value): &&(String, Value)| name == "mask" && value.is_none();
                entries.iter().filter(|entry| !is_own(entry)).cloned().collect()
            }
            _ => Vec::new(),
        };
        let mut set = |name: &str, value: Value| match info.iter_mut().find(|(k, _)| k == name) {
            Some((_, old)) => *old = value,
            None => info.push((name.to_owned(), value)),
        };
        let roi = geometry.roi.map(|v| v as i64);
        set("shape", Value::Array(NumArray::i64s(&roi)));
        set("center", Value::Array(NumArray::f64s(&geometry.center)));
        if let Some(theory) = &self.data.positions_theory {
            set("positions_theory", Value::Array(theory.clone()));
        }
        if self.weight.is_some() || matches!(self.plan.weights, WeightsFrom::Scan(_)) {
            set("weight2d", Value::Bool(true));
        }
        if self.recorded.energy.is_some() && !self.data.is_given("energy") {
            set("energy", energy.map_or(Value::None, Value::Float));
        }
        if self.recorded.distance.is_some() && !self.data.is_given("distance") {
            set("distance", distance.map_or(Value::None, Value::Float));
        }
        if self.recorded.psize.is_some() && !self.data.is_given("psize") {
            set("psize", psize.map_or(Value::None, |p| Value::Array(NumArray::f64s(&p))));
        }
        info
    }

    /// What the identity of the scan is made of: everything that changes the prepared bytes.
    fn key_parts(&self) -> BTreeMap<String, String> {
        let mut parts = BTreeMap::new();
        for (name, value) in &self.identity {
            parts.insert(format!("source.{name}"), value.clone());
        }
        if let Value::Map(entries) = &self.data.tree {
            for (name, value) in entries {
                if !self.without_effect.iter().any(|n| n == name) {
                    parts.insert(format!("data.{name}"), value.to_string());
                }
            }
        }
        let p = &self.pipeline;
        for (name, value) in [
            ("frames_per_chunk", self.plan.frames_per_chunk.to_string()),
            ("batch", self.plan.batch.to_string()),
            ("compression", format!("{:?}", p.compression)),
            ("dtype", format!("{:?}", p.dtype)),
            ("arithmetic", format!("{:?}", p.arithmetic)),
            ("compat", format!("{:?}", p.compat)),
            ("valid_range", format!("{:?}", p.valid_range)),
            ("bad_values", format!("{:?}", p.bad_values)),
            ("on_gap", format!("{:?}", p.on_gap)),
        ] {
            parts.insert(format!("pipeline.{name}"), value);
        }
        parts.insert("data.save".into(), format!("{:?}", self.data.save));
        parts.insert("kernel".into(), KERNEL_VERSION.to_string());
        parts
    }
}

fn hash(parts: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, value) in parts {
        text.push_str(name);
        text.push('\0');
        text.push_str(value);
        text.push('\0');
    }
    format!("{:032x}", ptystream_common::checksum::digest(text.as_bytes()))
}
