//! Series of images: one file a frame, or several frames a file, and positions beside them.
//!
//! | source | files |
//! |---|---|
//! | `npy` | numpy's `.npy`, (rows, cols) or (n, rows, cols) |
//! | `tiff` | TIFF, compressed or not; pages are frames |
//! | `edf` | ESRF data format; images are frames |
//! | `hdf5_files` | HDF5, the frames in the dataset `key`, (n, rows, cols) or (rows, cols) |
//! | `cbf` | Crystallographic binary files of Dectris; their distance, pixel size and wavelength count where none is given |
//!
//! Files are taken in the natural order of their names: `frame_9` comes before `frame_10`. With `live` they
//! appear while the scan runs, and the numbers in their names say which comes next.

mod names;

use super::appearing::{self, Appearing, Files, QUIET, Rest};
use super::hdf5::stack::Stack;
use super::image::{Named, cbf, edf, tif};
use super::keys::{Keys, wrong};
use super::npy::NpyReader;
use super::stamp::stamp;
use super::{normalization, position_file, waiting};
use crate::positions as streams;
use names::Names;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame, Region};
use ptystream_common::h5::read::H5File;
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};
use ptystream_common::source::{
    Check, Common, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const IMAGE: &[ParamType] = &[ParamType::Image, ParamType::None];

const FROM_FILES: [ParamDecl; 15] =
    joined::<10, 5, 15>(joined::<3, 7, 10>(OWN, position_file::PARAMS), normalization::PARAMS);
static PARAMS: &[ParamDecl] =
    &joined::<19, 22, 41>(joined::<15, 4, 19>(FROM_FILES, appearing::PARAMS), streams::PARAMS);
static HDF5: &[ParamDecl] = &joined::<20, 22, 42>(
    joined::<16, 4, 20>(joined::<15, 1, 16>(FROM_FILES, KEY), appearing::PARAMS),
    streams::PARAMS,
);

const KEY: [ParamDecl; 1] = [ParamDecl::new(
    "key",
    &[ParamType::Str, ParamType::None],
    ParamDefault::None,
    "Dataset of the frames in each file, (n, rows, cols) or (rows, cols).",
)];

const OWN: [ParamDecl; 3] = [
    ParamDecl::new("path", &[ParamType::InputPath, ParamType::List, ParamType::None], ParamDefault::None, "The files of the frames.")
        .doc("A folder, a pattern whose last name has `*` or `?`, one file, or a list of files. A folder: all its files with an ending of the format."),
    ParamDecl::new("dark", IMAGE, ParamDefault::None, "An image that is subtracted from each frame; of a stack, the mean.")
        .doc("A path, or { file, key, average = \"median\" }.")
        .level(1),
    ParamDecl::new("flat", IMAGE, ParamDefault::None, "An image by which each frame is divided; of a stack, the mean.")
        .doc("As `dark`.")
        .level(1),
];

/// A format of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Npy,
    Hdf5,
    Tiff,
    Edf,
    Cbf,
}

impl Format {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Npy => &["npy"],
            Self::Hdf5 => &["h5", "hdf5", "hdf", "nxs"],
            Self::Tiff => &["tif", "tiff"],
            Self::Edf => &["edf"],
            Self::Cbf => &["cbf"],
        }
    }
}

/// Returns the registry's entries of these sources.
pub fn kinds() -> [SourceKind; 5] {
    let kind = |name, help, format| SourceKind {
        name,
        aliases: &[],
        help,
        params: if format == Format::Hdf5 { HDF5 } else { PARAMS },
        open: Arc::new(move |spec| match Keys(spec).flag("live", false)? {
            true => streams::open(spec, || Ok(Box::new(Series::follow(spec, format)?))),
            false => Ok(Box::new(Series::open(spec, format)?)),
        }),
    };
    [
        kind("npy", "reads a series of .npy, one or several frames a file", Format::Npy),
        kind(
            "hdf5_files",
            "reads a series of HDF5 files, one or several frames a file",
            Format::Hdf5,
        ),
        kind("tiff", "reads a series of TIFF images, one or several a file", Format::Tiff),
        kind("edf", "reads a series of EDF images, one or several a file", Format::Edf),
        kind("cbf", "reads a series of CBF images as Dectris writes them", Format::Cbf),
    ]
}

/// A file that stays at hand, because its next frame is wanted next.
enum Open {
    Tiff(Box<tif::Pages>),
    Images(Vec<Array>),
    Stack(Box<Stack>),
}

impl Open {
    fn count(&mut self) -> Result<usize, String> {
        match self {
            Self::Tiff(pages) => pages.count(),
            Self::Images(images) => Ok(images.len()),
            Self::Stack(stack) => Ok(stack.len()),
        }
    }
}

/// Pages of a file that are kept decoded while it is found out whether it is whole.
const PAGES: usize = 8;

/// An HDF5 file that has rested for so long is no longer being opened by who writes it: the lock that this
/// takes would fail on ours.
const OPENED: Duration = Duration::from_millis(200);

/// A series of images.
struct Series {
    spec: SourceSpec,
    format: Format,
    names: Names,
    /// Files that are there.
    files: usize,
    /// Frames of each file.
    each: usize,
    /// Frames of the last file.
    last: usize,
    form: FrameForm,
    open: Option<(usize, Open)>,
    /// What is needed of frames, where not all is.
    needed: Option<Region>,
    recorded: Recorded,
    warnings: Vec<String>,
    /// Of files that appear one by one.
    appearing: Option<Appearing>,
    /// Files that were read to see whether they are whole.
    ready: BTreeMap<usize, Open>,
}

impl Series {
    fn open(spec: &SourceSpec, format: Format) -> Result<Self, SourceError> {
        if Keys(spec).text("positions.kind")?.is_some_and(|kind| kind != "file") {
            return Err(wrong(
                "positions.kind",
                "is a stream; give data.live = true, for files that appear too",
            ));
        }
        let files = names::files(spec, format.endings())?;
        let last = files.len() - 1;
        let mut series = Self::begin(spec, format, Names::List(files))?;
        series.files = last + 1;
        series.last = match last {
            0 => series.each,
            _ => series.count(last).map_err(SourceError::input)?,
        };
        Ok(series)
    }

    /// Opens a series whose files appear one by one, once the first one is whole.
    fn follow(spec: &SourceSpec, format: Format) -> Result<Self, SourceError> {
        let keys = Keys(spec);
        position_file::named(keys)?;
        let mut rest = Rest::default();
        let mut series = waiting::wait(keys, || {
            let names = match Names::appearing(spec, format.endings()) {
                Err(error @ SourceError::Param { .. }) => return Err(error),
                Err(error) => return Ok(Err(chain(&error))),
                Ok(names) => names,
            };
            let first = names.path(0).unwrap_or_default();
            if !first.is_file() {
                return Ok(Err(format!("'{}' is missing", first.display())));
            }
            let rests = rest.of(&first, names.path(1));
            Ok(rests.and_then(|()| Self::begin(spec, format, names).map_err(|e| chain(&e))))
        })?;
        series.appearing = Some(Appearing::new(keys)?);
        (series.files, series.last) = (0, series.each);
        Ok(series)
    }

    /// Reads the first file.
    fn begin(spec: &SourceSpec, format: Format, names: Names) -> Result<Self, SourceError> {
        let mut series = Self {
            spec: spec.clone(),
            format,
            names,
            files: 1,
            each: 1,
            last: 1,
            form: FrameForm { dtype: Dtype::U8, shape: [1, 1] },
            open: None,
            needed: None,
            recorded: Recorded::default(),
            warnings: Vec::new(),
            appearing: None,
            ready: BTreeMap::new(),
        };
        series.each = series.count(0).map_err(SourceError::input)?;
        series.last = series.each;
        let path = series.path(0);
        if format == Format::Cbf {
            series.recorded = cbf::read(&path).map_err(SourceError::input)?.recorded;
        }
        if series.each == 0 {
            return Err(SourceError::input(format!("'{}' has no image", path.display())));
        }
        series.form = series.read(0).map_err(SourceError::input)?.form;
        if series.form.dtype == Dtype::Bool {
            let text = format!("'{}' holds bool; frames are of numbers", path.display());
            return Err(SourceError::input(text));
        }
        Ok(series)
    }

    /// Returns the name of a file.
    fn path(&self, file: usize) -> PathBuf {
        self.names.path(file).unwrap_or_default()
    }

    /// Counts the frames of a file.
    fn count(&mut self, file: usize) -> Result<usize, String> {
        self.at_hand(file)?.count()
    }

    fn read_file(&self, file: usize) -> Result<Open, String> {
        let path = &self.path(file);
        Ok(match self.format {
            Format::Npy => {
                let array = NpyReader::default().read(path).map_err(|e| chain(&e))?;
                Open::Images(planes(array, path)?)
            }
            Format::Hdf5 => self.read_hdf5(path).map_err(|e| chain(&e))?,
            Format::Tiff => Open::Tiff(Box::new(tif::Pages::open(path)?)),
            Format::Edf => Open::Images(edf::read(path)?),
            Format::Cbf => Open::Images(vec![cbf::read(path)?.image]),
        })
    }

    fn read_hdf5(&self, path: &Path) -> Result<Open, SourceError> {
        let key = Keys(&self.spec).text("key")?;
        let key = key.ok_or_else(|| wrong("key", "is needed: the dataset of the frames"))?;
        let file = match Keys(&self.spec).flag("live", false)? {
            true => H5File::open_now(path),
            false => H5File::open(path),
        };
        let dataset = file.and_then(|file| file.dataset(key));
        let dataset = dataset.map_err(|e| SourceError::input(chain(&e)))?;
        Ok(match dataset.shape().len() {
            2 => {
                let image = dataset.read().map_err(|e| SourceError::input(chain(&e)))?;
                Open::Images(vec![image])
            }
            _ => {
                let mut stack = Stack::open(vec![dataset], "data.key", None)?;
                self.needed.iter().for_each(|region| stack.narrow(*region));
                Open::Stack(Box::new(stack))
            }
        })
    }

    fn at_hand(&mut self, file: usize) -> Result<&mut Open, String> {
        if self.open.as_ref().is_none_or(|(at, _)| *at != file) {
            self.ready = self.ready.split_off(&file);
            let open = match self.ready.remove(&file) {
                Some(open) => open,
                None => self.read_file(file)?,
            };
            self.open = Some((file, open));
        }
        match &mut self.open {
            Some((_, open)) => Ok(open),
            None => Err("no file is open".into()),
        }
    }

    fn len(&self) -> usize {
        match self.files {
            0 => 0,
            files => self.each * (files - 1) + self.last,
        }
    }

    /// Reads a frame, as it is stored where a worker can decode it.
    fn read(&mut self, nth: usize) -> Result<RawFrame, String> {
        let n = self.len();
        if nth >= n {
            return Err(format!("the series holds only {n} frames; set data.num_frames={n}"));
        }
        let last = self.files - 1;
        let (file, page) = match nth / self.each {
            file if file < last => (file, nth % self.each),
            _ => (last, nth - last * self.each),
        };
        let path = self.path(file);
        let each = if file == last { self.last } else { self.each };
        let open = self.at_hand(file)?;
        let count = match &mut *open {
            // A page that is not there is missed when it is read.
            Open::Tiff(_) => each,
            other => other.count()?,
        };
        if count != each {
            return Err(format!(
                "'{}' holds {count} images, the first file {each}; files of one series are alike",
                path.display()
            ));
        }
        let array = match open {
            Open::Tiff(pages) => pages.read(page)?,
            Open::Images(images) => images[page].clone(),
            Open::Stack(stack) => {
                return stack.load(page as u64, Index(nth as u64)).map_err(|e| chain(&e));
            }
        };
        match array.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => {
                let form = FrameForm { dtype: array.dtype, shape: [rows, cols] };
                Ok(RawFrame::new(form, Encoding::Raw, array.data))
            }
            _ => Err(format!("'{}' holds no image, but {:?}", path.display(), array.shape)),
        }
    }

    /// Looks which files have appeared.
    fn look(&mut self) {
        if let Some(mut appearing) = self.appearing.take() {
            appearing.look(self);
            self.have(appearing.there());
            self.appearing = Some(appearing);
        }
    }

    /// Returns how many frames there will be, if that is known.
    fn expected(&self) -> Option<usize> {
        match (&self.appearing, &self.names) {
            (None, _) => Some(self.len()),
            (_, Names::List(list)) => Some(self.each * list.len()),
            (_, Names::Numbered(_)) => None,
        }
    }

    fn has(&self, file: usize) -> bool {
        self.names.path(file).is_some_and(|path| path.is_file())
    }

    /// So many files are there; the last one may have fewer frames than the others.
    fn have(&mut self, files: usize) {
        if files <= self.files {
            return;
        }
        (self.files, self.last) = (files, self.each);
        if self.each == 1 {
            return;
        }
        let count = match self.ready.get_mut(&(files - 1)) {
            Some(open) => open.count(),
            None => self.read_file(files - 1).and_then(|mut open| open.count()),
        };
        let count = count.unwrap_or(self.each);
        if (1..self.each).contains(&count) {
            self.last = count;
        }
    }

    fn image(&self, key: &str) -> Result<Option<Array>, SourceError> {
        match &Named::all(&self.spec, key)?[..] {
            [] => Ok(None),
            [one] => one.image(self.form.shape).map(Some),
            _ => Err(wrong(key, "is one image and not several")),
        }
    }
}

impl Files for Series {
    fn path(&self, n: usize) -> Option<PathBuf> {
        self.names.path(n)
    }

    fn is_whole(&mut self, n: usize, rested: Duration) -> bool {
        if self.format == Format::Hdf5 && rested < OPENED {
            return false;
        }
        let Ok(mut open) = self.read_file(n) else { return false };
        let Ok(count) = open.count() else { return false };
        let whole = count == self.each;
        // Frames may be announced before they are there.
        match &mut open {
            Open::Tiff(pages) if whole => {
                let from = if count <= PAGES { 0 } else { count - 1 };
                match (from..count).map(|page| pages.read(page)).collect::<Result<Vec<_>, _>>() {
                    Ok(images) if from == 0 => open = Open::Images(images),
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
            // The library would go on with what it knows of a file that stays open.
            Open::Stack(stack) => {
                let stored =
                    stack.is_stored().unwrap_or_else(|| rested >= QUIET && self.has(n + 1));
                if !whole || !stored {
                    return false;
                }
            }
            Open::Images(_) if self.format == Format::Hdf5 && rested < QUIET => return false,
            _ => {}
        }
        self.ready.insert(n, open);
        whole
    }
}

/// Takes an array of one frame or a stack of them apart.
fn planes(array: Array, path: &Path) -> Result<Vec<Array>, String> {
    let [n, rows, cols] = match array.shape[..] {
        [_, _] => return Ok(vec![array]),
        [n, rows, cols] => [n, rows, cols],
        ref other => {
            let text = "frames are (rows, cols) or (n, rows, cols)";
            return Err(format!("'{}' has the shape {other:?}; {text}", path.display()));
        }
    };
    let bytes = rows * cols * array.dtype.size();
    let plane = |k: usize| {
        let data = array.data.slice(k * bytes..(k + 1) * bytes);
        Array { dtype: array.dtype, shape: vec![rows, cols], data }
    };
    Ok((0..n).map(plane).collect())
}

impl Source for Series {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        position_file::load_placed(&self.spec)
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let keys = Keys(&self.spec);
        let there = if self.appearing.is_some() { usize::MAX } else { self.len() };
        let n = keys.count("num_frames")?.unwrap_or(usize::MAX).min(there);
        let scale = normalization::of_file(keys, n)?;
        let mut common =
            Common { dark: self.image("dark")?, flat: self.image("flat")?, ..Common::default() };
        if let Some(scale) = scale {
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
        self.look();
        let Some(appearing) = &self.appearing else {
            return Ok(Check::of(self.len(), frames, start, num_frames));
        };
        if let Names::Numbered(numbered) = &self.names
            && let Some(before) = numbered.before_first().filter(|path| path.is_file())
        {
            return Err(SourceError::input(format!(
                "'{}' has appeared, though the scan has begun with '{}': no frame has the position of its \
                 own; prepare it anew",
                before.display(),
                self.path(0).display()
            )));
        }
        appearing.check(self.len(), frames, start, num_frames.or(self.expected()))
    }

    fn narrow(&mut self, region: Region) {
        self.needed = Some(region);
        // The next one is opened with that in mind.
        self.open = None;
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut loaded = Vec::with_capacity(indices.len());
        for &index in indices {
            let nth = usize::try_from(index.0).unwrap_or(usize::MAX);
            let frame = self.read(nth).map_err(|text| SourceError::frame(index, text))?;
            let (got, form) = (frame.form, self.form);
            if got != form {
                let text = format!(
                    "'{}' is {} {:?}, but the series' first frame is {} {:?}",
                    self.path((nth / self.each).min(self.files - 1)).display(),
                    got.dtype,
                    got.shape,
                    form.dtype,
                    form.shape
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
        Ok(self.expected())
    }

    fn is_live(&self) -> bool {
        self.appearing.is_some()
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(self.appearing.as_ref().map(|_| WithFrames::default()))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        Ok(self.recorded.clone())
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let form = self.form;
        let (count, files) = match self.appearing {
            None => (self.len().to_string(), self.files),
            // Others are still to appear.
            Some(_) => ("all".to_owned(), 1),
        };
        let mut all =
            vec![("frames".to_owned(), format!("{count} of {} {:?}", form.dtype, form.shape))];
        let keys = Keys(&self.spec);
        let mut paths: Vec<PathBuf> = (0..files).map(|n| self.path(n)).collect();
        if keys.text("positions.kind")?.is_none_or(|kind| kind == "file") {
            paths.extend(keys.input_path("positions.file")?);
        }
        paths.extend(keys.input_path("normalization.file")?);
        for key in ["dark", "flat"] {
            paths.extend(Named::all(&self.spec, key)?.into_iter().map(|named| named.path));
        }
        all.extend(paths.iter().map(|p| (p.display().to_string(), stamp(p))));
        Ok(all)
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}
