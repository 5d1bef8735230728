//! A simulated scan: a made-up probe over a made-up object, far field, photon noise.
//!
//! Frame i depends on the parameters and on i alone, so that whoever computes it in whatever order
//! gets the same bytes. With `repeat` only so many frames are simulated and served again and again,
//! each for the price of a reference; positions go on over the whole scan all the same. With `live`
//! they come and go at the pace of a detector (`clock.rs`).
//!
//! # Source
//! ptypy's `MoonFlowerScan`: names and meaning of the parameters; probe and object are our own.

mod clock;
mod detector;
mod optics;
mod scan;
mod truth;

use super::keys::{Keys, wrong};
use bytes::Bytes;
use clock::Clock;
use detector::Detector;
use optics::Optics;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{
    Check, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

const COUNT: &[ParamType] = &[ParamType::Int];
const FLOAT: &[ParamType] = &[ParamType::Float];
const TEXT: &[ParamType] = &[ParamType::Str];

static PARAMS: &[ParamDecl] = &[
    ParamDecl::new("num_frames", &[ParamType::Int, ParamType::None], ParamDefault::Int(100), "Number of scan points to simulate.")
        .limits(Some(1.0), None),
    ParamDecl::new("shape", &[ParamType::IntPair, ParamType::Int, ParamType::None], ParamDefault::Int(128), "Region of interest, and the simulated frame unless raw_shape is given.")
        .limits(Some(1.0), None),
    ParamDecl::new("add_poisson_noise", &[ParamType::Bool], ParamDefault::Bool(true), "Whether photons are counted with Poisson noise."),
    ParamDecl::new("raw_shape", &[ParamType::IntPair, ParamType::Int, ParamType::None], ParamDefault::None, "Simulated frame (rows, cols); None: as shape.")
        .limits(Some(8.0), Some(16384.0)).level(1),
    ParamDecl::new("density", FLOAT, ParamDefault::Float(0.2), "Distance of neighbouring scan points as a fraction of the probe's diameter.")
        .limits(Some(0.001), Some(10.0)),
    ParamDecl::new("model", TEXT, ParamDefault::Str("round"), "Pattern of the scan points.").choices(&["round", "raster"]),
    ParamDecl::new("photons", FLOAT, ParamDefault::Float(1e8), "Photons of the probe in each frame.").limits(Some(1e-3), Some(1e15)),
    ParamDecl::new("psf", FLOAT, ParamDefault::Float(0.0), "Standard deviation of the detector's point spread.")
        .limits(Some(0.0), Some(100.0)).unit("pixel").level(1),
    ParamDecl::new("seed", COUNT, ParamDefault::Int(0), "Seed of the object and of the noise.").limits(Some(0.0), None).level(1),
    ParamDecl::new("repeat", COUNT, ParamDefault::Int(0), "Simulate only so many frames and repeat them; 0: all.")
        .limits(Some(0.0), None).level(1)
        .doc("For tests of load: frame i has the pixels of frame i mod repeat, at a scan point of its own."),
    ParamDecl::new("dtype", TEXT, ParamDefault::Str("uint32"), "Type of the detector's pixels; counts beyond it saturate.")
        .choices(&["uint8", "uint16", "uint32", "int8", "int16", "int32", "int64", "float32", "float64"]).level(1),
    ParamDecl::new("truth", &[ParamType::OutputPath, ParamType::None], ParamDefault::None, "Write what was simulated to <truth>_probe.npy, _object.npy and _positions.npy.")
        .level(1).bytes_unaffected(),
    ParamDecl::new("live", &[ParamType::Bool], ParamDefault::Bool(false), "Whether frames come at their own time, as from a detector, and can be had for a while only.")
        .level(2).bytes_unaffected(),
    ParamDecl::new("rate", FLOAT, ParamDefault::Float(0.0), "Frames a second of a live scan; 0: as fast as they are asked for.")
        .limits(Some(0.0), Some(1e6)).unit("1/s").level(2).bytes_unaffected()
        .doc("Frame k comes k / rate after the first; the detector waits for nobody."),
    ParamDecl::new("ring", COUNT, ParamDefault::Int(100), "Newest frames that a live scan still has.")
        .limits(Some(1.0), None).level(2).bytes_unaffected(),
    ParamDecl::new("live_start", &[ParamType::Float, ParamType::None], ParamDefault::None, "When frame 0 of a live scan comes, in seconds since 1970; None: when the producer begins to read.")
        .limits(Some(0.0), None).unit("s").level(2).bytes_unaffected()
        .doc("With a time of its own the detector goes on while the producer is down."),
    ParamDecl::new("ends_at", &[ParamType::Int, ParamType::None], ParamDefault::None, "End after so many frames though num_frames are announced.")
        .limits(Some(0.0), None).level(2).bytes_unaffected(),
];

/// Returns the registry's entry of this source.
pub fn kind() -> SourceKind {
    SourceKind {
        name: "moonflower",
        aliases: &["MoonFlowerScan"],
        help: "simulates a scan, with the truth written beside it if asked for",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(Moonflower::open(spec)?))),
    }
}

/// A simulated scan.
pub struct Moonflower {
    num_frames: usize,
    repeat: usize,
    optics: Optics,
    detector: Detector,
    positions: Vec<[f64; 2]>,
    energy: f64,
    distance: f64,
    psize: [f64; 2],
    truth: Option<PathBuf>,
    parameters: Vec<(String, String)>,
    kept: HashMap<usize, Bytes>,
    saturated: u64,
    /// Frames that there are in the end, though `num_frames` are announced.
    ends_at: usize,
    clock: Option<Clock>,
}

impl Moonflower {
    /// Takes the parameters; nothing is simulated before it is asked for.
    ///
    /// # Errors
    /// [`SourceError::Param`] naming the parameter.
    pub fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let keys = Keys(spec);
        let num_frames = keys.count("num_frames")?.unwrap_or(100);
        let shape = match keys.pair("raw_shape")? {
            Some(shape) => shape,
            None => keys.pair("shape")?.unwrap_or([128.0; 2]),
        };
        let [rows, cols] = shape.map(|e| e as usize);
        if rows < 8 || cols < 8 || rows > 16384 || cols > 16384 {
            return Err(wrong("raw_shape", format!("{rows}×{cols} pixels; give 8 to 16384 each")));
        }
        let positive = |key: &str, default: f64| match keys.number(key)? {
            Some(v) if v <= 0.0 => Err(wrong(key, format!("{v} is not above 0"))),
            given => Ok(given.unwrap_or(default)),
        };
        let energy = positive("energy", 7.2)?;
        let distance = positive("distance", 7.19)?;
        let density = positive("density", 0.2)?;
        let photons = positive("photons", 1e8)?;
        let psize = keys.pair("psize")?.unwrap_or([0.000172; 2]);
        if psize.iter().any(|p| !p.is_finite() || *p <= 0.0) {
            return Err(wrong("psize", "is not above 0"));
        }
        let psf = keys.number("psf")?.unwrap_or(0.0);
        if psf < 0.0 {
            return Err(wrong("psf", format!("{psf} is below 0")));
        }
        let seed = keys.count("seed")?.unwrap_or(0) as u64;
        let noise = keys.flag("add_poisson_noise", true)?;
        let dtype = keys.dtype("dtype", Dtype::U32)?;
        let repeat = keys.count("repeat")?.unwrap_or(0);
        let model = keys.text("model")?.unwrap_or("round");

        let optics = Optics::new([rows, cols], energy, distance, psize, photons, seed);
        let step = density * optics.probe_diameter();
        let positions = match model {
            "round" => scan::round(num_frames, step),
            "raster" => scan::raster(num_frames, step),
            other => {
                return Err(wrong("model", format!("'{other}' is neither 'round' nor 'raster'")));
            }
        };
        let parameters = [
            ("frames", format!("{num_frames} of {dtype} [{rows}, {cols}]")),
            ("scan", format!("{model}, density {density:?}")),
            (
                "beam",
                format!(
                    "energy {energy:?} keV, distance {distance:?} m, psize {psize:?} m, {photons:?} photons"
                ),
            ),
            ("detector", format!("psf {psf:?}, noise {noise}, seed {seed}, repeat {repeat}")),
        ];
        let ends_at = keys.count("ends_at")?.unwrap_or(num_frames).min(num_frames);
        let clock = match keys.flag("live", false)? {
            false => None,
            true => {
                let ring = keys.count("ring")?.unwrap_or(100) as u64;
                let rate = keys.number("rate")?.unwrap_or(0.0);
                Some(Clock::new(rate, ring, ends_at as u64, keys.number("live_start")?))
            }
        };
        Ok(Self {
            ends_at,
            clock,
            num_frames,
            repeat,
            optics,
            detector: Detector { psf, noise, seed, dtype },
            positions,
            energy,
            distance,
            psize,
            truth: keys.text("truth")?.map(PathBuf::from),
            parameters: parameters.map(|(k, v)| (k.to_owned(), v)).to_vec(),
            kept: HashMap::new(),
            saturated: 0,
        })
    }

    fn form(&self) -> FrameForm {
        FrameForm { dtype: self.detector.dtype, shape: self.optics.shape() }
    }

    fn pixels(&mut self, at: usize) -> Bytes {
        let drawn = if self.repeat > 0 { at % self.repeat } else { at };
        if let Some(kept) = self.kept.get(&drawn) {
            return kept.clone();
        }
        let mut intensity = self.optics.intensity(self.positions[drawn]);
        let (bytes, saturated) =
            self.detector.expose(&mut intensity, self.optics.shape(), drawn as u64);
        self.saturated += saturated;
        if self.repeat > 0 {
            self.kept.insert(drawn, bytes.clone());
        }
        bytes
    }
}

impl Source for Moonflower {
    /// Returns the scan points; writes the truth if asked for.
    ///
    /// # Errors
    /// [`SourceError::Input`] naming the file of the truth that cannot be written.
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        if let Some(stem) = &self.truth {
            truth::write(stem, &self.optics, &self.positions)?;
        }
        let items: Vec<f64> = self.positions.iter().flatten().copied().collect();
        Ok(Some(Array::from_items(&[self.num_frames, 2], &items)))
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let wanted = num_frames.unwrap_or(usize::MAX);
        let there = self.clock.as_mut().map_or(self.ends_at, |c| c.come() as usize);
        let ended = there == self.ends_at && self.ends_at < self.num_frames;
        Ok(Check {
            accessible: frames.min(there.min(wanted).saturating_sub(start)),
            end_of_scan: (ended && self.ends_at < wanted).then_some(true),
        })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let form = self.form();
        indices
            .iter()
            .map(|&index| {
                let at = usize::try_from(index.0).ok().filter(|&at| at < self.ends_at);
                let at = at.ok_or_else(|| {
                    let text = format!(
                        "the simulated scan has {} frames; set data.num_frames",
                        self.ends_at
                    );
                    SourceError::frame(index, text)
                })?;
                if let Some(clock) = &mut self.clock {
                    clock.take(index)?;
                }
                let frame = RawFrame::new(form, Encoding::Raw, self.pixels(at));
                Ok(Loaded::plain(index, frame))
            })
            .collect()
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(self.form())
    }

    fn is_live(&self) -> bool {
        self.clock.is_some()
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        // Of a live scan no frame may be taken before it is read.
        Ok(self.clock.is_some().then(WithFrames::default))
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(Some(self.num_frames))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let origin = || "the simulation".to_owned();
        Ok(Recorded {
            energy: Some((self.energy, origin())),
            distance: Some((self.distance, origin())),
            psize: Some((self.psize, origin())),
            ..Recorded::default()
        })
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(self.parameters.clone())
    }

    fn warnings(&mut self) -> Vec<String> {
        match std::mem::take(&mut self.saturated) {
            0 => Vec::new(),
            n => vec![format!(
                "{n} simulated pixels are beyond {} and saturate; lower data.photons or take a wider data.dtype",
                self.detector.dtype
            )],
        }
    }
}
