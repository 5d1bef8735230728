//! Series of images: one file a frame, or several frames a file, and positions beside them.
//!
//! | source | files |
//! |---|---|
//! | `npy` | numpy's `.npy`, (rows, cols) or (n, rows, cols) |
//! | `tiff` | TIFF, compressed or not; pages are frames |
//! | `edf` | ESRF data format; images are frames |
//! | `cbf` | Crystallographic binary files of Dectris; their distance, pixel size and wavelength count where none is given |
//!
//! Files are taken in the natural order of their names: `frame_9` comes before `frame_10`. With `live` they
//! appear while the scan runs, and the numbers in their names say which comes next.

use super::appearing::{self, Appearing, Files, Numbered, Rest};
use super::image::{Named, cbf, edf, tif};
use super::keys::{Keys, wrong};
use super::npy::NpyReader;
use super::stamp::stamp;
use super::{normalization, position_file};
use crate::positions as streams;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::names::{fits, natural};
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};
use ptystream_common::source::{
    Check, Common, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use ptystream_common::value::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IMAGE: &[ParamType] = &[ParamType::Image, ParamType::None];

const FROM_FILES: [ParamDecl; 15] =
    joined::<10, 5, 15>(joined::<3, 7, 10>(OWN, position_file::PARAMS), normalization::PARAMS);
static PARAMS: &[ParamDecl] =
    &joined::<19, 22, 41>(joined::<15, 4, 19>(FROM_FILES, appearing::PARAMS), streams::PARAMS);

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
    Tiff,
    Edf,
    Cbf,
}

impl Format {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Npy => &["npy"],
            Self::Tiff => &["tif", "tiff"],
            Self::Edf => &["edf"],
            Self::Cbf => &["cbf"],
        }
    }
}

/// Returns the registry's entries of these sources.
pub fn kinds() -> [SourceKind; 4] {
    let kind = |name, help, format| SourceKind {
        name,
        aliases: &[],
        help,
        params: PARAMS,
        open: Arc::new(move |spec| match Keys(spec).flag("live", false)? {
            true => streams::open(spec, || Ok(Box::new(Series::follow(spec, format)?))),
            false => Ok(Box::new(Series::open(spec, format)?)),
        }),
    };
    [
        kind("npy", "reads a series of .npy, one or several frames a file", Format::Npy),
        kind("tiff", "reads a series of TIFF images, one or several a file", Format::Tiff),
        kind("edf", "reads a series of EDF images, one or several a file", Format::Edf),
        kind("cbf", "reads a series of CBF images as Dectris writes them", Format::Cbf),
    ]
}

/// A file that stays at hand, because its next frame is wanted next.
enum Open {
    Tiff(Box<tif::Pages>),
    Images(Vec<Array>),
}

/// Which files there are.
enum Names {
    List(Vec<PathBuf>),
    Numbered(Numbered),
}

/// Pages of a file that are kept decoded while it is found out whether it is whole.
const PAGES: usize = 8;

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
        let files = files(spec, format)?;
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
        let mut rest = Rest::default();
        let mut series = appearing::wait(keys, || {
            let names = match Names::appearing(spec, format) {
                Err(error @ SourceError::Param { .. }) => return Err(error),
                Err(error) => return Ok(Err(chain(&error))),
                Ok(names) => names,
            };
            let first = names.path(0).unwrap_or_default();
            if !first.is_file() {
                return Ok(Err(format!("'{}' is missing", first.display())));
            }
            let rests = rest.of(first, names.path(1));
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
        let first = match series.each {
            0 => None,
            _ => Some(series.read(0).map_err(SourceError::input)?),
        };
        series.form = match first.as_ref().map(|first| (first.dtype, &first.shape[..])) {
            Some((dtype, &[rows, cols])) if rows > 0 && cols > 0 && dtype != Dtype::Bool => {
                FrameForm { dtype, shape: [rows, cols] }
            }
            _ => {
                let text = format!("'{}' has no image", path.display());
                return Err(SourceError::input(text));
            }
        };
        Ok(series)
    }

    /// Returns the name of a file.
    fn path(&self, file: usize) -> PathBuf {
        self.names.path(file).unwrap_or_default()
    }

    /// Counts the frames of a file.
    fn count(&mut self, file: usize) -> Result<usize, String> {
        match self.at_hand(file)? {
            Open::Tiff(pages) => pages.count(),
            Open::Images(images) => Ok(images.len()),
        }
    }

    fn read_file(&self, file: usize) -> Result<Open, String> {
        let path = &self.path(file);
        Ok(match self.format {
            Format::Npy => {
                let array = NpyReader::default().read(path).map_err(|e| chain(&e))?;
                Open::Images(planes(array, path)?)
            }
            Format::Tiff => Open::Tiff(Box::new(tif::Pages::open(path)?)),
            Format::Edf => Open::Images(edf::read(path)?),
            Format::Cbf => Open::Images(vec![cbf::read(path)?.image]),
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

    fn read(&mut self, nth: usize) -> Result<Array, String> {
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
        match self.at_hand(file)? {
            Open::Tiff(pages) => pages.read(page),
            Open::Images(images) if images.len() != each => Err(format!(
                "'{}' holds {} images, the first file {each}; files of one series are alike",
                path.display(),
                images.len()
            )),
            Open::Images(images) => Ok(images[page].clone()),
        }
    }

    /// So many files are there; the last one may have fewer frames than the others.
    fn have(&mut self, files: usize) {
        if files <= self.files {
            return;
        }
        (self.files, self.last) = (files, self.each);
        let count = match self.ready.get_mut(&(files - 1)) {
            Some(Open::Images(images)) => images.len(),
            Some(Open::Tiff(pages)) => pages.count().unwrap_or(0),
            None => self.each,
        };
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

impl Names {
    /// Finds out what the files of a series are called of which few are there yet.
    fn appearing(spec: &SourceSpec, format: Format) -> Result<Self, SourceError> {
        if let Some(Value::List(_)) = spec.data.at("path") {
            return listed(spec).map(Self::List);
        }
        let found = files(spec, format)?;
        found.iter().find_map(|path| Numbered::of(path)).map(Self::Numbered).ok_or_else(|| {
            let text = format!("'{}' has no number in its name", found[0].display());
            SourceError::input(text)
        })
    }

    fn path(&self, file: usize) -> Option<PathBuf> {
        match self {
            Self::List(list) => list.get(file).cloned(),
            Self::Numbered(numbered) => Some(numbered.path(file)),
        }
    }
}

impl Files for Series {
    fn path(&self, n: usize) -> Option<PathBuf> {
        self.names.path(n)
    }

    fn is_whole(&mut self, n: usize) -> bool {
        let mut open = match self.read_file(n) {
            Ok(open) => open,
            Err(_) => return false,
        };
        if let Open::Tiff(pages) = &mut open
            && let Ok(count) = pages.count()
            && count == self.each
        {
            // Pages may be announced before they are there.
            let from = if count <= PAGES { 0 } else { count - 1 };
            match (from..count).map(|page| pages.read(page)).collect::<Result<Vec<_>, _>>() {
                Ok(images) if from == 0 => open = Open::Images(images),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        let count = match &mut open {
            Open::Tiff(pages) => pages.count().unwrap_or(0),
            Open::Images(images) => images.len(),
        };
        self.ready.insert(n, open);
        count == self.each
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

fn listed(spec: &SourceSpec) -> Result<Vec<PathBuf>, SourceError> {
    let Some(Value::List(items)) = spec.data.at("path") else {
        return Err(wrong("path", "is no list"));
    };
    let all: Option<Vec<PathBuf>> =
        items.iter().map(|v| v.as_str().map(|text| spec.path(text))).collect();
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| wrong("path", "is a list, but not one of files"))
}

/// Lists the files of a series.
fn files(spec: &SourceSpec, format: Format) -> Result<Vec<PathBuf>, SourceError> {
    let list = match spec.data.at("path").filter(|v| !v.is_none()) {
        Some(Value::List(_)) => listed(spec)?,
        Some(Value::Str(text)) => found(&spec.path(text), format)?,
        _ => {
            return Err(wrong("path", "is needed: a folder, a pattern with *, or a list of files"));
        }
    };
    match list.iter().find(|path| !path.is_file()) {
        Some(missing) => Err(SourceError::input(format!(
            "data.path: '{}' is missing ({} files are named)",
            missing.display(),
            list.len()
        ))),
        None => Ok(list),
    }
}

fn found(path: &Path, format: Format) -> Result<Vec<PathBuf>, SourceError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let wanted: Box<dyn Fn(&str) -> bool> = if path.is_dir() {
        let ends = move |file: &str| {
            let ending = Path::new(file).extension().map(|e| e.to_string_lossy().to_lowercase());
            ending.is_some_and(|e| format.endings().contains(&e.as_str()))
        };
        Box::new(ends)
    } else if name.contains(['*', '?']) {
        let pattern = name.clone();
        Box::new(move |file| fits(&pattern, file))
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let entries = std::fs::read_dir(folder).map_err(|e| SourceError::Input {
        text: format!("data.path: the folder '{}' cannot be read", folder.display()),
        source: Some(Box::new(e)),
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .collect();
    names.sort_by_cached_key(|name| natural(name));
    if names.is_empty() {
        let what = match path.is_dir() {
            true => format!("a file ending in .{}", format.endings().join(" or .")),
            false => format!("a file like '{name}'"),
        };
        let text = format!("data.path: '{}' holds not {what}", folder.display());
        return Err(SourceError::input(text));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
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
        let Some(mut appearing) = self.appearing.take() else {
            return Ok(Check::of(self.len(), frames, start, num_frames));
        };
        appearing.look(self);
        self.have(appearing.there());
        let before = match &self.names {
            Names::Numbered(numbered) => numbered.before_first().filter(|path| path.is_file()),
            Names::List(_) => None,
        };
        let expected = self.num_frames()?;
        let answer = match before {
            Some(before) => Err(SourceError::input(format!(
                "'{}' has appeared, though the scan has begun with '{}': no frame has the position of its \
                 own; prepare it anew",
                before.display(),
                self.path(0).display()
            ))),
            None => appearing.check(self.len(), frames, start, num_frames.or(expected)),
        };
        self.appearing = Some(appearing);
        answer
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut loaded = Vec::with_capacity(indices.len());
        for &index in indices {
            let nth = usize::try_from(index.0).unwrap_or(usize::MAX);
            let array = self.read(nth).map_err(|text| SourceError::frame(index, text))?;
            let form = self.form;
            if array.dtype != form.dtype || array.shape != form.shape {
                let text = format!(
                    "'{}' is {} {:?}, but the series' first frame is {} {:?}",
                    self.path((nth / self.each).min(self.files - 1)).display(),
                    array.dtype,
                    array.shape,
                    form.dtype,
                    form.shape
                );
                return Err(SourceError::frame(index, text));
            }
            let frame = RawFrame { form, encoding: Encoding::Raw, payload: array.data };
            loaded.push(Loaded::plain(index, frame));
        }
        Ok(loaded)
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(self.form)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(match (&self.appearing, &self.names) {
            (None, _) => Some(self.len()),
            (_, Names::List(list)) => Some(self.each * list.len()),
            (_, Names::Numbered(_)) => None,
        })
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
