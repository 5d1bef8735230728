//! Series of images: one file a frame, or several frames a file, and positions beside them.
//!
//! | source | files |
//! |---|---|
//! | `tiff` | TIFF, compressed or not; pages are frames |
//! | `edf` | ESRF data format; images are frames |
//! | `cbf` | Crystallographic binary files of Dectris; their distance, pixel size and wavelength count where none is given |
//!
//! Files are taken in the natural order of their names: `frame_9` comes before `frame_10`.

use super::image::{Named, cbf, edf, tif};
use super::keys::{Keys, wrong};
use super::stamp::stamp;
use super::{normalization, position_file};
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::names::{fits, natural};
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};
use ptystream_common::source::{
    Check, Common, Recorded, Source, SourceError, SourceKind, SourceSpec,
};
use ptystream_common::value::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IMAGE: &[ParamType] = &[ParamType::Image, ParamType::None];

static PARAMS: &[ParamDecl] =
    &joined::<10, 5, 15>(joined::<3, 7, 10>(OWN, position_file::PARAMS), normalization::PARAMS);

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
    Tiff,
    Edf,
    Cbf,
}

impl Format {
    fn endings(self) -> &'static [&'static str] {
        match self {
            Self::Tiff => &["tif", "tiff"],
            Self::Edf => &["edf"],
            Self::Cbf => &["cbf"],
        }
    }
}

/// Returns the registry's entries of these sources.
pub fn kinds() -> [SourceKind; 3] {
    let kind = |name, help, format| SourceKind {
        name,
        aliases: &[],
        help,
        params: PARAMS,
        open: Arc::new(move |spec| Ok(Box::new(Series::open(spec, format)?))),
    };
    [
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

/// A series of images.
struct Series {
    spec: SourceSpec,
    format: Format,
    files: Vec<PathBuf>,
    /// Frames of each file.
    each: usize,
    /// Frames of the last file.
    last: usize,
    form: FrameForm,
    open: Option<(usize, Open)>,
    recorded: Recorded,
    warnings: Vec<String>,
}

impl Series {
    fn open(spec: &SourceSpec, format: Format) -> Result<Self, SourceError> {
        let files = files(spec, format)?;
        let mut series = Self {
            spec: spec.clone(),
            format,
            each: 1,
            last: 1,
            form: FrameForm { dtype: Dtype::U8, shape: [1, 1] },
            open: None,
            recorded: Recorded::default(),
            warnings: Vec::new(),
            files,
        };
        series.each = series.count(0).map_err(SourceError::input)?;
        let last = series.files.len() - 1;
        series.last = match last {
            0 => series.each,
            _ => series.count(last).map_err(SourceError::input)?,
        };
        if format == Format::Cbf {
            series.recorded = cbf::read(&series.files[0]).map_err(SourceError::input)?.recorded;
        }
        let first = series.read(0).map_err(SourceError::input)?;
        series.form = match first.shape[..] {
            [rows, cols] if rows > 0 && cols > 0 => {
                FrameForm { dtype: first.dtype, shape: [rows, cols] }
            }
            _ => {
                let text = format!("'{}' has no image", series.files[0].display());
                return Err(SourceError::input(text));
            }
        };
        Ok(series)
    }

    /// Counts the frames of a file.
    fn count(&mut self, file: usize) -> Result<usize, String> {
        match self.at_hand(file)? {
            Open::Tiff(pages) => pages.count(),
            Open::Images(images) => Ok(images.len()),
        }
    }

    fn at_hand(&mut self, file: usize) -> Result<&mut Open, String> {
        if self.open.as_ref().is_none_or(|(at, _)| *at != file) {
            let path = &self.files[file];
            let open = match self.format {
                Format::Tiff => Open::Tiff(Box::new(tif::Pages::open(path)?)),
                Format::Edf => Open::Images(edf::read(path)?),
                Format::Cbf => Open::Images(vec![cbf::read(path)?.image]),
            };
            self.open = Some((file, open));
        }
        match &mut self.open {
            Some((_, open)) => Ok(open),
            None => Err("no file is open".into()),
        }
    }

    fn len(&self) -> usize {
        self.each * (self.files.len() - 1) + self.last
    }

    fn read(&mut self, nth: usize) -> Result<Array, String> {
        let n = self.len();
        if nth >= n {
            return Err(format!("the series holds only {n} frames; set data.num_frames={n}"));
        }
        let last = self.files.len() - 1;
        let (file, page) = match nth / self.each {
            file if file < last => (file, nth % self.each),
            _ => (last, nth - last * self.each),
        };
        let path = self.files[file].clone();
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

    fn image(&self, key: &str) -> Result<Option<Array>, SourceError> {
        match &Named::all(&self.spec, key)?[..] {
            [] => Ok(None),
            [one] => one.image(self.form.shape).map(Some),
            _ => Err(wrong(key, "is one image and not several")),
        }
    }
}

/// Lists the files of a series.
fn files(spec: &SourceSpec, format: Format) -> Result<Vec<PathBuf>, SourceError> {
    let list = match spec.data.at("path").filter(|v| !v.is_none()) {
        Some(Value::List(items)) => {
            let path = |v: &Value| v.as_str().map(|text| spec.path(text));
            let all: Option<Vec<PathBuf>> = items.iter().map(path).collect();
            all.filter(|all| !all.is_empty())
                .ok_or_else(|| wrong("path", "is a list, but not one of files"))?
        }
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
        position_file::load(&self.spec)
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let keys = Keys(&self.spec);
        let n = keys.count("num_frames")?.unwrap_or(usize::MAX).min(self.len());
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
        Ok(Check::of(self.len(), frames, start, num_frames))
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
                    self.files[(nth / self.each).min(self.files.len() - 1)].display(),
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
        Ok(Some(self.len()))
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        Ok(self.recorded.clone())
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let form = self.form;
        let mut all = vec![(
            "frames".to_owned(),
            format!("{} of {} {:?}", self.len(), form.dtype, form.shape),
        )];
        let keys = Keys(&self.spec);
        let mut paths = self.files.clone();
        for key in ["positions.file", "normalization.file"] {
            paths.extend(keys.input_path(key)?);
        }
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
