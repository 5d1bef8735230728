//! Frames, positions and what belongs to them, by keys of HDF5 files (NeXus, CXI, any other).
//!
//! | what | shape |
//! |---|---|
//! | `intensities` | `[n, rows, cols]` or `[slow, fast, rows, cols]`, C order: the fast axis runs first |
//! | `positions` | as the leading axes of the frames; a list; two 1-D axes that are meshed |
//! | `mask` | as a frame, or as all frames; 1 is good (`invert`: 0 is good) |
//! | `darkfield`, `flatfield` | as a frame, also `[1, rows, cols]`; or as all frames: frame by frame |
//! | `normalization` | one value a frame |
//! | `recorded_energy`, `_distance`, `_psize` | one value |
//!
//! Position = (slow × slow_multiplier, fast × fast_multiplier) in metres. A file that is not named
//! is `intensities.file`.
//!
//! # Source
//! ptypy `experiment/hdf5_loader.py`, `Hdf5Loader`. As there: positions stay `float32` if both axes
//! are; weights have the mask's type (bool inverted: `int64`), and are `int64` ones without a mask;
//! distance and pixel size are multiplied in the type of their dataset, energy in double precision.
//! Otherwise than there: frames are handed on whole and cropped by the preparation; `invert` makes
//! every value above 1 bad (there it wraps around to a good one in unsigned types).

mod belongings;
mod each;
mod frames;
mod growth;
mod order;
mod padding;
mod params;
mod positions;
pub(super) mod stack;

use super::image;
use super::keys::{Keys, wrong};
use super::stamp::stamp;
use crate::positions as streams;
use each::{Correction, Corrections};
use growth::{Growth, PARAMETER};
use order::Order;
use padding::Padding;
use params::PARAMS;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::{Array, FrameForm, Loaded, Region};
use ptystream_common::h5::read::{H5Dataset, H5File, ReadError};
use ptystream_common::index::Index;
use ptystream_common::source::{
    Check, Common, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use stack::Stack;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

/// Returns the registry's entries of these sources: files that are whole, and files that still grow.
pub fn kinds() -> [SourceKind; 2] {
    let kind = |name, aliases, help, growing| SourceKind {
        name,
        aliases,
        help,
        params: PARAMS,
        open: Arc::new(move |spec| {
            let growing = growing || Keys(spec).flag("swmr", false)?;
            streams::open(spec, || Ok(Box::new(Hdf5Source::open(spec, growing)?)))
        }),
    };
    let whole = "reads frames, positions and what belongs to them by keys of HDF5 files";
    let grows = "reads the same from HDF5 files that are still being written (SWMR)";
    [kind("hdf5", &["Hdf5Loader"], whole, false), kind("swmr", &["SwmrLoader"], grows, true)]
}

/// The files of one scan, each opened once.
struct Files {
    spec: SourceSpec,
    open: HashMap<PathBuf, H5File>,
    /// They are still being written.
    growing: bool,
}

impl Files {
    fn opened(&self, path: &std::path::Path) -> Result<H5File, ReadError> {
        if self.growing { H5File::open_growing(path) } else { H5File::open(path) }
    }

    /// Opens the dataset that `<group>.file` and `<group>.<name>` give; `None` if no key is given.
    fn dataset(&mut self, group: &str, name: &str) -> Result<Option<H5Dataset>, SourceError> {
        Ok(self.datasets(group, name)?.into_iter().next())
    }

    /// Opens the datasets that `<group>.file` and `<group>.<name>` give: several where the key has a
    /// `*` in its last name, none if no key is given.
    fn datasets(&mut self, group: &str, name: &str) -> Result<Vec<H5Dataset>, SourceError> {
        let (file_name, key_name) = (format!("{group}.file"), format!("{group}.{name}"));
        let keys = Keys(&self.spec);
        let Some(key) = keys.text(&key_name)? else {
            return match keys.text(&file_name)? {
                Some(_) => Err(wrong(&key_name, format!("is needed with data.{file_name}"))),
                None => Ok(Vec::new()),
            };
        };
        let path = match keys.input_path(&file_name)? {
            Some(path) => path,
            None => keys
                .input_path("intensities.file")?
                .ok_or_else(|| wrong(&file_name, "is needed: an HDF5 file"))?,
        };
        let fail = |e| SourceError::input(format!("data.{key_name}: {}", chain(&e)));
        let file = match self.open.get(&path) {
            Some(file) => file.clone(),
            None => {
                let opened = self
                    .opened(&path)
                    .map_err(|e| SourceError::input(format!("data.{file_name}: {}", chain(&e))))?;
                self.open.insert(path, opened.clone());
                opened
            }
        };
        let keys = file.matching(key).map_err(fail)?;
        keys.iter().map(|key| file.dataset(key).map_err(fail)).collect()
    }
}

/// Returns the outer index that is given.
fn outer_index(spec: &SourceSpec) -> Result<Option<usize>, SourceError> {
    match spec.data.at("outer_index").and_then(|v| v.as_str()) {
        Some(_) => Err(wrong(
            "outer_index",
            "is \"all\": `ptystream run` prepares them one after the other; here give one",
        )),
        None => Keys(spec).count("outer_index"),
    }
}

/// Counts the outer indices of a scan.
///
/// # Errors
/// As opening the source, for the frames.
pub fn outer_extent(spec: &SourceSpec) -> Result<usize, SourceError> {
    let mut files = Files { spec: spec.clone(), open: HashMap::new(), growing: false };
    let dataset = files.dataset("intensities", "key")?;
    let dataset =
        dataset.ok_or_else(|| wrong("intensities.key", "is needed: the dataset of the frames"))?;
    match dataset.shape() {
        [outer, _, _, _] | [outer, _, _, _, _] => Ok(*outer),
        shape => Err(wrong(
            "outer_index",
            format!(
                "'{}' in '{}' has shape {shape:?}; an outer axis stands before (n, rows, cols) or (slow, \
                 fast, rows, cols)",
                dataset.key(),
                dataset.path().display()
            ),
        )),
    }
}

/// Frames and positions in HDF5 files.
pub struct Hdf5Source {
    files: Files,
    frames: Stack,
    /// A mask of the shape of all frames.
    masks: Option<Stack>,
    invert: bool,
    /// Darks and flats, where any is of each frame.
    each: Option<Corrections>,
    /// The mask of all frames, where weights are made frame by frame.
    base: Option<Array>,
    outer: Option<usize>,
    order: Order,
    padding: Padding,
    growth: Option<Growth>,
    warnings: Vec<String>,
}

impl Hdf5Source {
    /// Opens the frames and the mask; the rest when it is asked for.
    ///
    /// # Errors
    /// [`SourceError::Param`] for a key that is not given, [`SourceError::Input`] naming file and
    /// key for what is not there or of the wrong shape.
    pub fn open(spec: &SourceSpec, growing: bool) -> Result<Self, SourceError> {
        let mut files = Files { spec: spec.clone(), open: HashMap::new(), growing };
        let (growth, grown) = match growing {
            true => {
                Growth::wait(&mut files).map(|(growth, frames)| (Some(growth), Some(frames)))?
            }
            false => (None, None),
        };
        let datasets = match growing {
            true => Vec::new(),
            false => files.datasets("intensities", "key")?,
        };
        if datasets.is_empty() && !growing {
            return Err(wrong("intensities.key", "is needed: the dataset of the frames"));
        }
        let outer = outer_index(spec)?;
        if growing && outer.is_some() {
            return Err(wrong("swmr", "is for frames without outer_index"));
        }
        let frames = match grown {
            Some(frames) => frames,
            None => Stack::open(datasets, PARAMETER, outer)?,
        };
        let masks = match files.dataset("mask", "key")? {
            Some(mask) if mask.shape() == frames.shape() => {
                Some(Stack::open(vec![mask], "data.mask.key", None)?)
            }
            Some(mask) => {
                belongings::ensure_frame_shaped(&mask, "data.mask.key", &frames)?;
                None
            }
            None => None,
        };
        let invert = Keys(spec).flag("mask.invert", false)?;
        let filter = files.dataset("framefilter", "key")?;
        let slow = files.dataset("positions", "slow_key");
        let fast = files.dataset("positions", "fast_key");
        // Positions that cannot be opened are reported where they are read.
        let grid = match (&slow, &fast) {
            (Ok(Some(slow)), Ok(Some(fast))) if !growing => {
                positions::grid(Keys(spec), slow, fast, &frames)
            }
            _ => frames.lead(),
        };
        let order = Order::new(Keys(spec), &grid, filter.as_ref(), &frames)?;
        if growing && order != Order::All {
            let text = "takes all frames: bounding_box, skip, framefilter and frameorder are for whole files";
            return Err(wrong("swmr", text));
        }
        let padding = Padding::new(Keys(spec))?;
        let mut source = Self {
            files,
            frames,
            masks,
            invert,
            each: None,
            base: None,
            outer,
            order,
            padding,
            growth,
            warnings: Vec::new(),
        };
        if growing && (source.masks.is_some() || source.of_each("darkfield", "")?.is_some()) {
            let text = "needs mask and dark of one frame's shape";
            return Err(wrong("swmr", text));
        }
        source.each = source.corrections()?;
        Ok(source)
    }

    /// Opens dark and flat, if any is of each frame.
    fn corrections(&mut self) -> Result<Option<Corrections>, SourceError> {
        let averaged = self.files.spec.given.iter().any(|g| g == "darkfield.average");
        let dark = if averaged { None } else { self.of_each("darkfield", "data.darkfield.key")? };
        let flat = self.of_each("flatfield", "data.flatfield.key")?;
        if dark.is_none() && flat.is_none() {
            return Ok(None);
        }
        let mut other = |own: Option<Stack>, group: &str| -> Result<_, SourceError> {
            Ok(match own {
                Some(stack) => Some(Correction::Each(stack)),
                None => self.frame_shaped(group)?.map(|a| Correction::Common(a.to_f64())),
            })
        };
        Ok(Some(Corrections { dark: other(dark, "darkfield")?, flat: other(flat, "flatfield")? }))
    }

    /// Opens a dataset of the shape of all frames.
    fn of_each(
        &mut self,
        group: &str,
        parameter: &'static str,
    ) -> Result<Option<Stack>, SourceError> {
        match self.files.dataset(group, "key")? {
            Some(dataset) if self.frames.len() > 1 && dataset.shape() == self.frames.shape() => {
                Stack::open(vec![dataset], parameter, None).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Reads the mask of all frames, or `int64` ones.
    fn mask(&mut self) -> Result<Array, SourceError> {
        let shape = self.frames.form().shape;
        let Some(mask) = self.frame_shaped("mask")? else {
            return Ok(Array::from_items(&shape, &vec![1i64; shape[0] * shape[1]]));
        };
        let (weight, notes) = belongings::weight(mask, self.invert);
        self.warnings.extend(notes);
        Ok(weight)
    }

    /// Tells whether weights are made frame by frame.
    fn weighs_each(&self) -> bool {
        self.masks.is_some() || self.each.as_ref().is_some_and(Corrections::marks)
    }

    /// Returns the weights of the `nth` frame, scan point `index`; `useful`: 0 where a pixel has no use.
    fn weights(
        &mut self,
        nth: u64,
        index: Index,
        useful: Option<&Array>,
    ) -> Result<Option<Array>, SourceError> {
        if !self.weighs_each() {
            return Ok(None);
        }
        let own = match &mut self.masks {
            Some(masks) => belongings::weight(masks.decoded(nth, index)?, self.invert).0,
            None => match &self.base {
                Some(base) => base.clone(),
                None => {
                    let base = self.mask()?;
                    self.base.insert(base).clone()
                }
            },
        };
        let weights = match useful {
            Some(mask) => own.masked(mask),
            None => own,
        };
        Ok(Some(self.padded(weights, false)))
    }

    /// Pads an image that belongs to the frames.
    fn padded(&self, image: Array, ones: bool) -> Array {
        if self.padding.any() { self.padding.image(&image, ones) } else { image }
    }

    fn frame_shaped(&mut self, group: &str) -> Result<Option<Array>, SourceError> {
        let Some(dataset) = self.files.dataset(group, "key")? else { return Ok(None) };
        let name = format!("data.{group}.key");
        let read =
            || dataset.read().map_err(|e| SourceError::input(format!("{name}: {}", chain(&e))));
        let frame = self.frames.form().shape;
        if group == "darkfield"
            && let [n, rows, cols] = *dataset.shape()
            && n > 1
            && [rows, cols] == frame
        {
            let median = Keys(&self.files.spec).text("darkfield.average")? == Some("median");
            return Ok(Some(image::average(&read()?, median)));
        }
        belongings::ensure_frame_shaped(&dataset, &name, &self.frames)?;
        let mut array = read()?;
        array.shape = frame.to_vec();
        Ok(Some(array))
    }
}

impl Source for Hdf5Source {
    /// Returns the positions of all frames, `float32` or `float64`; `None` if no keys are given but
    /// theoretical positions are.
    ///
    /// # Errors
    /// [`SourceError::Input`] if positions and frames do not fit together, or one is NaN.
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        if self.growth.is_some() {
            return Ok(None);
        }
        let slow = self.files.dataset("positions", "slow_key");
        let fast = self.files.dataset("positions", "fast_key");
        let keys = Keys(&self.files.spec);
        match (slow, fast) {
            (Ok(Some(slow)), Ok(Some(fast))) => {
                positions::load(keys, &slow, &fast, &self.frames, &self.order, self.outer).map(Some)
            }
            (Ok(None), Ok(None)) if keys.has("positions_theory") => Ok(None),
            (Err(e), _) | (_, Err(e)) => Err(e),
            (Ok(None), _) => Err(wrong("positions.slow_key", "is needed: the dataset of y")),
            (_, Ok(None)) => Err(wrong("positions.fast_key", "is needed: the dataset of x")),
        }
    }

    /// Returns the mask, or `int64` ones; `None` if every frame has a mask of its own.
    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        if self.weighs_each() {
            return Ok(None);
        }
        let weight = self.mask()?;
        Ok(Some(self.padded(weight, false)))
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let mut common = Common::default();
        if self.each.is_none() {
            common.dark = self.frame_shaped("darkfield")?.map(|dark| self.padded(dark, false));
            common.flat = self.frame_shaped("flatfield")?.map(|flat| self.padded(flat, true));
        }
        if let Some(dataset) = self.files.dataset("normalization", "key")? {
            let keys = Keys(&self.files.spec);
            let (order, n) = (&self.order, self.frames.len());
            let scale = belongings::normalization(keys, &dataset, order, n, self.outer)?;
            common.scale = Some(scale.values);
            common.scale_by_first_chunk = scale.by_first_chunk;
            self.warnings.extend(scale.note);
        }
        Ok(common)
    }

    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let Some(growth) = &mut self.growth else {
            let there = self.order.len(self.frames.len());
            return Ok(Check::of(there, frames, start, num_frames));
        };
        if growth.is_due() {
            // The library looks at the file again only where nobody has the dataset open.
            drop(std::mem::replace(&mut self.frames, Stack::none()));
            let frames = growth.look(&mut self.files)?;
            self.frames = Stack::open(vec![frames], PARAMETER, None)?;
        }
        growth.check(frames, start, num_frames)
    }

    fn narrow(&mut self, region: Region) {
        // What is padded, or corrected by numbers of its own, is made of whole frames.
        self.frames.narrow(region);
    }

    /// Reads frames as they are stored where a worker can decode them, decoded otherwise.
    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut loaded = Vec::with_capacity(indices.len());
        for &index in indices {
            let nth = self.order.frame(index.0);
            let (frame, useful) = match &mut self.each {
                Some(each) => {
                    let raw = self.frames.decoded(nth, index)?;
                    let (array, useful) = each.apply(&raw, nth, index)?;
                    (self.padding.frame(&array), useful)
                }
                None if self.padding.any() => {
                    (self.padding.frame(&self.frames.decoded(nth, index)?), None)
                }
                None => (self.frames.load(nth, index)?, None),
            };
            let weights = self.weights(nth, index, useful.as_ref())?;
            let position = self.growth.as_ref().and_then(|growth| growth.position(index.0));
            loaded.push(Loaded { weights, position, ..Loaded::plain(index, frame) });
        }
        Ok(loaded)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        let form = self.padding.form(self.frames.form());
        let dtype = if self.each.is_some() { Dtype::F64 } else { form.dtype };
        Ok(FrameForm { dtype, ..form })
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        if let Some(growth) = &self.growth {
            return Ok(growth.expected());
        }
        Ok(Some(self.order.len(self.frames.len())))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let electrons = Keys(&self.files.spec).flag("electron_data", false)?;
        let mut recorded = Recorded { electrons, ..Recorded::default() };
        if let Some(dataset) = self.files.dataset("recorded_energy", "key")? {
            let (value, note) = belongings::energy(Keys(&self.files.spec), &dataset, self.outer)?;
            recorded.energy = Some(value);
            self.warnings.extend(note);
        }
        if let Some(dataset) = self.files.dataset("recorded_distance", "key")? {
            let (values, origin) =
                belongings::lengths(Keys(&self.files.spec), "recorded_distance", &dataset, 1)?;
            recorded.distance = Some((values[0], origin));
        }
        if let Some(dataset) = self.files.dataset("recorded_psize", "key")? {
            let (values, origin) =
                belongings::lengths(Keys(&self.files.spec), "recorded_psize", &dataset, 2)?;
            let psize = [values[0], *values.last().unwrap_or(&values[0])];
            recorded.psize = Some((psize, origin));
        }
        Ok(recorded)
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let form = self.frames.form();
        let shape = self.frames.shape();
        let mut all = vec![("frames".to_owned(), format!("{} {shape:?}", form.dtype))];
        all.extend(self.outer.map(|outer| ("outer_index".to_owned(), outer.to_string())));
        let mut paths: BTreeSet<PathBuf> = self.frames.files().into_iter().collect();
        let groups = [
            ("positions", "slow_key"),
            ("positions", "fast_key"),
            ("framefilter", "key"),
            ("normalization", "key"),
            ("mask", "key"),
            ("darkfield", "key"),
            ("flatfield", "key"),
            ("recorded_energy", "key"),
            ("recorded_distance", "key"),
            ("recorded_psize", "key"),
        ];
        for (group, name) in groups {
            if let Some(dataset) = self.files.dataset(group, name)? {
                all.push((
                    format!("{group}.{name}"),
                    format!("{} {:?}", dataset.dtype(), dataset.shape()),
                ));
                paths.extend(dataset.files());
            }
        }
        all.extend(paths.iter().map(|p| (p.display().to_string(), stamp(p))));
        Ok(all)
    }

    fn is_live(&self) -> bool {
        self.growth.is_some()
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        let Some(position) = self.growth.as_ref().map(Growth::has_positions) else {
            return Ok(None);
        };
        let weights = match self.weighs_each() {
            true => self.weights(0, Index(0), None)?.map(|w| w.dtype),
            false => None,
        };
        Ok(Some(WithFrames { position, weights, ..WithFrames::default() }))
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
