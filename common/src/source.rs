//! The trait behind which raw data stand, with the hooks of ptypy's `PtyScan` under their names.
//!
//! The producer calls all hooks; a worker opens the same source by name and calls only
//! [`Source::load`] and [`Source::correct`], when `load_parallel` says that workers read.

use crate::dtype::Dtype;
use crate::error::Failure;
use crate::frame::{Array, FrameForm, Loaded, Region};
use crate::index::Index;
use crate::params::ParamDecl;
use crate::shutdown::Shutdown;
use crate::value::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What a source is opened from; travels to the workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceSpec {
    /// Name under which the source is registered.
    pub name: String,
    /// The effective `[data]` tree, defaults filled in.
    pub data: Value,
    /// Folder to which relative input paths refer.
    pub base: PathBuf,
    /// Names of the parameters that the user gave; all others are defaults.
    #[serde(default)]
    pub given: Vec<String>,
    /// Ends the wait for a scan that has not begun; stays here.
    #[serde(skip)]
    pub shutdown: Shutdown,
}

/// Equal are those from which the same is opened.
impl PartialEq for SourceSpec {
    fn eq(&self, other: &Self) -> bool {
        let Self { name, data, base, given, shutdown: _ } = self;
        (name, data, base, given) == (&other.name, &other.data, &other.base, &other.given)
    }
}

impl SourceSpec {
    /// Asked in each turn by a source that waits in its `open` for a scan to begin.
    ///
    /// # Errors
    /// [`SourceError::Interrupted`] once the role is to end.
    pub fn still_wanted(&self) -> Result<(), SourceError> {
        match self.shutdown.is_begun() {
            false => Ok(()),
            true => Err(SourceError::Interrupted {
                frames: 0,
                reason: "a signal ended the wait for the scan to begin".into(),
            }),
        }
    }

    /// Makes an input path absolute.
    pub fn path(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        if path.is_absolute() { path.to_owned() } else { self.base.join(path) }
    }
}

/// A source's errors; the text names file, key or index, and the cure.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum SourceError {
    /// Only this scan point is damaged.
    #[error("frame {index}: {text}")]
    Frame {
        /// Which one.
        index: Index,
        /// What was wrong, and where.
        text: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The scan cannot be read.
    #[error("{text}")]
    Input {
        /// What was wrong, where, and the cure.
        text: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Reading one scan point has shown that the source is broken: the scan ends.
    #[error("frame {index}: {text}")]
    Fatal {
        /// Which one.
        index: Index,
        /// What was wrong, and where.
        text: String,
    },
    /// The scan point is left out, as the user wants it.
    #[error("frame {index}: {text}")]
    Filtered {
        /// Which one.
        index: Index,
        /// By which rule.
        text: String,
    },
    /// The scan point's frame was there, and is not any more.
    #[error("frame {index} has passed: the source keeps frames for a while only")]
    Passed {
        /// Which one.
        index: Index,
    },
    /// The scan was ended from outside, such as by disarming the detector.
    #[error("interrupted after {frames} frames: {reason}")]
    Interrupted {
        /// How many frames there are, from index 0 on; no more will come.
        frames: u64,
        /// Who or what ended it.
        reason: String,
    },
    /// A parameter of the source is wrong.
    #[error("data.{key}: {text}")]
    Param {
        /// The parameter below `data`.
        key: String,
        /// What was wrong, and the cure.
        text: String,
    },
}

impl SourceError {
    /// Makes an [`SourceError::Input`] without a cause.
    pub fn input(text: impl Into<String>) -> Self {
        Self::Input { text: text.into(), source: None }
    }

    /// Makes a [`SourceError::Frame`] without a cause.
    pub fn frame(index: Index, text: impl Into<String>) -> Self {
        Self::Frame { index, text: text.into(), source: None }
    }
}

impl From<&SourceError> for Failure {
    fn from(error: &SourceError) -> Self {
        let kind = match error {
            SourceError::Param { .. } => crate::error::Kind::Config,
            SourceError::Interrupted { .. } => crate::error::Kind::Aborted,
            _ => crate::error::Kind::Input,
        };
        Self::new(kind, crate::error::chain(error))
    }
}

/// Answer of [`Source::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// How many frames from `start` on can be loaded now.
    pub accessible: usize,
    /// `Some(true)`: no more will come. `None`: decided by `num_frames`.
    pub end_of_scan: Option<bool>,
}

impl Check {
    /// Answers for a source that has `there` frames and gets no more.
    pub fn of(there: usize, frames: usize, start: usize, num_frames: Option<usize>) -> Self {
        let total = num_frames.unwrap_or(usize::MAX).min(there);
        Self { accessible: frames.min(total.saturating_sub(start)), end_of_scan: None }
    }
}

/// When a frame was exposed.
///
/// # Shapes and units
/// Seconds since the start of the series, by the detector's clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exposure {
    /// When it began.
    pub start: f64,
    /// When it ended.
    pub stop: f64,
}

/// What comes with each frame beside its pixels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WithFrames {
    /// Whether each has its position.
    pub position: bool,
    /// Type of the weights, where each has its own.
    pub weights: Option<Dtype>,
    /// Names of other numbers, which are stored for each frame.
    pub scalars: Vec<String>,
    /// Whether each is multiplied by a number of its own.
    pub scale: bool,
}

/// Arrays and scalars that belong to the whole scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Common {
    /// Subtracted per raw pixel, clipped at 0.
    pub dark: Option<Array>,
    /// Divides per raw pixel, after the dark.
    pub flat: Option<Array>,
    /// Multiplies each frame, after dark and flat, `(n,)`, one a scan point.
    pub scale: Option<Array>,
    /// Whether `scale` holds a value of each scan point instead, by which the frame is divided, NaN: not;
    /// frames are then multiplied by the mean of those of the first chunk.
    pub scale_by_first_chunk: bool,
    /// Whatever else [`Source::correct`] needs, by name.
    pub other: BTreeMap<String, Array>,
}

/// Geometry that the source found recorded beside the frames.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// keV, and where it was found.
    pub energy: Option<(f64, String)>,
    /// Metres, and where it was found.
    pub distance: Option<(f64, String)>,
    /// Metres (y, x), and where it was found.
    pub psize: Option<([f64; 2], String)>,
    /// Region of interest that counts where none is given, `[rows, cols]`.
    pub shape: Option<[usize; 2]>,
    /// Optical axis (row, column) in raw pixels that counts where none is given, and where it was found.
    pub center: Option<([f64; 2], String)>,
    /// Label of the scan that counts where none is given.
    pub label: Option<String>,
    /// Whether the energy, given or recorded, is that of electrons.
    pub electrons: bool,
}

/// Raw frames and positions of one scan.
///
/// # Source
/// ptypy `core/data.py`, `PtyScan`: hooks of the same names and meaning.
pub trait Source: Send {
    /// Returns positions of all scan points, `(n, 2)`, (y, x) in metres; `None` if they come
    /// with the frames or not at all.
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError>;

    /// Returns the 2-D weight (mask) of all frames, `[rows, cols]`, 0 is bad; `None` if there is none.
    fn load_weight(&mut self) -> Result<Option<Array>, SourceError> {
        Ok(None)
    }

    /// Returns what belongs to the whole scan: dark, flat, and more.
    fn load_common(&mut self) -> Result<Common, SourceError> {
        Ok(Common::default())
    }

    /// Tells how many frames there are to read from `start` on, at most `frames`.
    ///
    /// `num_frames`: the scan's length as far as it is known. A live source counts all frames that
    /// have come, also those that it has no more.
    ///
    /// # Errors
    /// [`SourceError::Interrupted`], at each call from then on, once the scan was ended from outside.
    fn check(
        &mut self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let left = num_frames.map_or(frames, |n| n.saturating_sub(start));
        Ok(Check { accessible: frames.min(left), end_of_scan: None })
    }

    /// Hears that no other pixels of frames are needed from now on than those of `region`, in which case
    /// [`Self::load`] may return those, or more of each frame, and [`Self::correct`] is given the same.
    ///
    /// For sources that then read less; the default goes on with whole frames. A live source is not told:
    /// its frames are kept whole.
    fn narrow(&mut self, _region: Region) {}

    /// Reads the frames of `indices`, in that order.
    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError>;

    /// Changes a loaded frame before preparation; the default leaves it as it is.
    ///
    /// Dark and flat of [`Common`] are applied afterwards, by the preparation itself.
    fn correct(&mut self, loaded: Loaded, _common: &Common) -> Result<Loaded, SourceError> {
        Ok(loaded)
    }

    /// Returns type and extent of the frames, from metadata or the first frame.
    fn frame_form(&mut self) -> Result<FrameForm, SourceError>;

    /// Returns how many frames the source holds, if it is known.
    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(None)
    }

    /// Returns the geometry recorded beside the frames.
    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        Ok(Recorded::default())
    }

    /// Returns what identifies the data (names, sizes, modification times, shapes); two equal
    /// lists mean the same scan.
    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError>;

    /// Tells whether frames come at their own time and can be had for a while only.
    ///
    /// The producer then reads all frames itself, in their order and as soon as they are there, and
    /// keeps each until it is durable; one that is asked for too late is [`SourceError::Passed`].
    fn is_live(&self) -> bool {
        false
    }

    /// Returns what comes with each frame beside its pixels; `None`: it is to be seen on the first.
    ///
    /// A live source has to say it: nobody can wait for its first frame before the scan begins.
    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(None)
    }

    /// Returns when a frame that has come was exposed; `None` if the source does not know, or no more.
    fn exposure(&mut self, _index: Index) -> Option<Exposure> {
        None
    }

    /// Returns when a frame that was loaded last had come, by the clock of this process; `None`: just now.
    fn came(&mut self, _index: Index) -> Option<Instant> {
        None
    }

    /// Returns what the instrument sent with a frame that has come and was not loaded.
    fn metadata(&mut self, _index: Index) -> Option<Value> {
        None
    }

    /// Returns the position, (y, x) in metres, of a frame that could not be loaded.
    fn nominal(&mut self, _index: Index) -> Option<[f64; 2]> {
        None
    }

    /// Returns things that a user should know though they are no errors.
    fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}

/// Frames that cannot be had.
#[derive(Clone, Debug, PartialEq)]
pub enum Unloaded {
    /// Some are damaged, each with its reason: they become gaps.
    Frames(Vec<(Index, Failure)>),
    /// The scan as a whole cannot be read.
    Scan(Failure),
}

/// Loads and corrects frames; on an error, finds out which frames it is about.
///
/// # Errors
/// The frames that cannot be had, or the scan.
pub fn load_each(
    source: &mut dyn Source,
    common: &Common,
    indices: &[Index],
) -> Result<Vec<Loaded>, Unloaded> {
    let mut all = |indices: &[Index]| -> Result<Vec<Loaded>, SourceError> {
        source.load(indices)?.into_iter().map(|l| source.correct(l, common)).collect()
    };
    if let Ok(loaded) = all(indices) {
        return Ok(loaded);
    }
    let mut loaded = Vec::new();
    let mut bad = Vec::new();
    for index in indices {
        match all(&[*index]) {
            Ok(mut one) => loaded.append(&mut one),
            Err(error @ SourceError::Fatal { .. }) => {
                return Err(Unloaded::Scan(Failure::from(&error)));
            }
            Err(error) => bad.push((*index, Failure::from(&error))),
        }
    }
    if bad.is_empty() { Ok(loaded) } else { Err(Unloaded::Frames(bad)) }
}

/// Opens a source from its parameters.
pub type OpenSource =
    Arc<dyn Fn(&SourceSpec) -> Result<Box<dyn Source>, SourceError> + Send + Sync>;

/// One entry of the [`Registry`].
#[derive(Clone)]
pub struct SourceKind {
    /// The name in `data.name`.
    pub name: &'static str,
    /// Other names for it: ptypy's class names.
    pub aliases: &'static [&'static str],
    /// One sentence on what it reads.
    pub help: &'static str,
    /// Its own parameters below `data`.
    pub params: &'static [ParamDecl],
    /// Opens it.
    pub open: OpenSource,
}

impl fmt::Debug for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceKind").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Finds sources whose names are not known beforehand, such as classes of Python modules; `base`: the
/// folder of the configuration. `None`: the name is none of its kind.
pub type Resolve =
    Arc<dyn Fn(&str, &Path) -> Option<Result<&'static SourceKind, SourceError>> + Send + Sync>;

/// The sources that a program knows, by name.
#[derive(Clone, Default)]
pub struct Registry {
    kinds: Vec<SourceKind>,
    resolvers: Vec<Resolve>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("kinds", &self.kinds).finish_non_exhaustive()
    }
}

impl Registry {
    /// Makes an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a source; a later one of the same name takes the place of the earlier.
    pub fn add(&mut self, kind: SourceKind) {
        self.kinds.retain(|k| k.name != kind.name);
        self.kinds.push(kind);
    }

    /// Adds a way to find sources whose names are not known beforehand.
    pub fn add_resolver(&mut self, resolve: Resolve) {
        self.resolvers.push(resolve);
    }

    /// Finds a source by its name, known beforehand or not; `base`: the folder of the configuration.
    ///
    /// # Errors
    /// If the name is of a kind that a resolver knows, and nothing is found under it.
    pub fn resolve(&self, name: &str, base: &Path) -> Result<Option<&SourceKind>, SourceError> {
        if let Some(kind) = self.find(name) {
            return Ok(Some(kind));
        }
        self.resolvers.iter().find_map(|resolve| resolve(name, base)).transpose()
    }

    /// Finds a source by its name or alias, upper and lower case being equal.
    pub fn find(&self, name: &str) -> Option<&SourceKind> {
        self.kinds.iter().find(|k| {
            k.name.eq_ignore_ascii_case(name)
                || k.aliases.iter().any(|a| a.eq_ignore_ascii_case(name))
        })
    }

    /// Walks through all sources.
    pub fn iter(&self) -> impl Iterator<Item = &SourceKind> {
        self.kinds.iter()
    }

    /// Opens the source that `spec` names.
    ///
    /// # Errors
    /// [`SourceError::Param`] if no such source is registered, and the source's own errors.
    pub fn open(&self, spec: &SourceSpec) -> Result<Box<dyn Source>, SourceError> {
        let kind = self.resolve(&spec.name, &spec.base)?.ok_or_else(|| SourceError::Param {
            key: "name".into(),
            text: format!(
                "no source '{}' is known; there are {}",
                spec.name,
                self.kinds.iter().map(|k| k.name).collect::<Vec<_>>().join(", ")
            ),
        })?;
        (kind.open)(spec)
    }
}
