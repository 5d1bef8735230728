//! The tutorial layout: a folder with one `.npy` a frame.
//!
//! | file | content |
//! |---|---|
//! | `geometry.txt` | lines `key value`: `distance` (m), `energy` (keV), `psize` (m, one number or y x), `shape` |
//! | `positions.txt` | lines `file y x` (m); line k is scan point k |
//! | the frames | one 2-D `.npy` each, all of one shape and type |
//!
//! A frame is opened by the name in its line, which goes from the folder. Empty lines and lines
//! that start with `#` do not count. With `live` lines and frames are still to come, the frames in the order of
//! the lines.
//!
//! # Source
//! ptypy's tutorial loader `NumpyScan`, which opens frames by number and overlooks the names.

use super::appearing::{self, Appearing, Files, Rest};
use super::image::Named;
use super::keys::{Keys, wrong};
use super::npy::{NpyError, NpyReader};
use super::stamp::stamp;
use super::{normalization, waiting};
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame, Region};
use ptystream_common::index::Index;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType, joined};
use ptystream_common::source::{
    Check, Common, Recorded, Source, SourceError, SourceKind, SourceSpec, WithFrames,
};
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FILE: &[ParamType] = &[ParamType::InputPath, ParamType::None];
const IMAGE: &[ParamType] = &[ParamType::Image, ParamType::None];

static PARAMS: &[ParamDecl] =
    &joined::<8, 4, 12>(joined::<3, 5, 8>(OWN, normalization::PARAMS), appearing::PARAMS);

const OWN: [ParamDecl; 3] = [
    ParamDecl::new("path", FILE, ParamDefault::None, "Folder with positions.txt and the frames.")
        .doc("positions.txt: a line `file y x` (metres) for each scan point. geometry.txt: lines `key value` with distance (m), energy (keV), psize (m)."),
    ParamDecl::new("dark", IMAGE, ParamDefault::None, "An image that is subtracted from each frame; of a stack, the mean.")
        .doc("A path, or { file, key, average = \"median\" }: .npy, TIFF, EDF, CBF, or a dataset of an HDF5 file.")
        .level(1),
    ParamDecl::new("flat", IMAGE, ParamDefault::None, "An image by which each frame is divided; of a stack, the mean.")
        .doc("As `dark`.")
        .level(1),
];

/// Returns the registry's entry of this source.
pub fn kind() -> SourceKind {
    SourceKind {
        name: "numpy",
        aliases: &["NumpyScan"],
        help: "reads one .npy a frame, as positions.txt of a folder names them",
        params: PARAMS,
        open: Arc::new(|spec| Ok(Box::new(NumpySource::open(spec)?))),
    }
}

/// One line of `positions.txt`.
struct Point {
    file: String,
    position: [f64; 2],
    line: usize,
}

/// A folder in the tutorial layout.
pub struct NumpySource {
    folder: PathBuf,
    spec: SourceSpec,
    num_frames: Option<usize>,
    points: Vec<Point>,
    reader: NpyReader,
    form: Option<FrameForm>,
    /// The rows that are needed, once that is known.
    rows: Option<Range<usize>>,
    warnings: Vec<String>,
    live: Option<Live>,
    /// Of a folder in which lines and frames appear; not there while it looks.
    appearing: Option<Appearing>,
}

/// What is known of a folder in which lines and frames appear.
#[derive(Default)]
struct Live {
    lines: Lines,
    /// Frames that were read to see whether they are whole.
    ready: BTreeMap<usize, Array>,
}

/// How far `positions.txt` was read.
#[derive(Default)]
struct Lines {
    bytes: u64,
    lines: usize,
}

impl Lines {
    /// Reads the lines that have come since, as far as they are whole.
    fn more(&mut self, path: &Path) -> Result<Vec<Point>, SourceError> {
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.bytes))?;
            file.read_to_string(&mut text)
        });
        read.map_err(|source| SourceError::Input {
            text: format!("'{}' cannot be read", path.display()),
            source: Some(Box::new(source)),
        })?;
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        let text = &text[..whole];
        let points: Result<Vec<Point>, SourceError> =
            content(text).map(|(line, content)| point(path, self.lines + line, content)).collect();
        self.bytes += whole as u64;
        self.lines += text.lines().count();
        points
    }
}

impl NumpySource {
    /// Opens a folder and reads its `positions.txt`.
    ///
    /// # Errors
    /// [`SourceError::Param`] if `path` is not given, [`SourceError::Input`] naming file and line
    /// if `positions.txt` is missing or not understood.
    pub fn open(spec: &SourceSpec) -> Result<Self, SourceError> {
        let keys = Keys(spec);
        let folder = keys.input_path("path")?.ok_or_else(|| {
            wrong("path", "is needed: the folder with positions.txt and the frames")
        })?;
        let list = folder.join("positions.txt");
        let (points, live, appearing) = match keys.flag("live", false)? {
            false => (read_positions(&list)?, None, None),
            true => {
                let (mut rest, mut live, mut points) = (Rest::default(), Live::default(), vec![]);
                waiting::wait(keys, || {
                    if !list.is_file() {
                        return Ok(Err(format!("'{}' is missing", list.display())));
                    }
                    points.extend(live.lines.more(&list)?);
                    let path = |n: usize| points.get(n).map(|p: &Point| folder.join(&p.file));
                    Ok(match path(0) {
                        Some(first) if first.is_file() => rest.of(&first, path(1)),
                        Some(first) => Err(format!("'{}' is missing", first.display())),
                        None => Err(format!("'{}' has no line", list.display())),
                    })
                })?;
                (points, Some(live), Some(Appearing::new(keys)?))
            }
        };
        Ok(Self {
            folder,
            spec: spec.clone(),
            num_frames: keys.count("num_frames")?,
            points,
            reader: NpyReader::default(),
            form: None,
            rows: None,
            warnings: Vec::new(),
            live,
            appearing,
        })
    }

    fn list(&self) -> PathBuf {
        self.folder.join("positions.txt")
    }

    fn wanted(&self) -> &[Point] {
        let n = self.num_frames.unwrap_or(usize::MAX).min(self.points.len());
        &self.points[..n]
    }

    /// Reads a frame as a whole.
    fn read_frame(&mut self, at: usize) -> Result<Array, String> {
        if let Some(live) = &mut self.live {
            live.ready = live.ready.split_off(&at);
            if let Some(array) = live.ready.remove(&at) {
                return Ok(array);
            }
        }
        self.read(at, NpyReader::read)
    }

    /// Reads a frame's needed rows; `None` where it has to be read as a whole.
    fn read_rows(&mut self, at: usize) -> Result<Option<Array>, String> {
        let (Some(rows), Some(form)) = (self.rows.clone(), self.form) else { return Ok(None) };
        if rows.len() == form.shape[0] {
            return Ok(None);
        }
        self.read(at, |reader, path| reader.read_rows(path, form, &rows))
    }

    fn read<T>(
        &mut self,
        at: usize,
        read: impl FnOnce(&mut NpyReader, &Path) -> Result<T, NpyError>,
    ) -> Result<T, String> {
        let point = self.points.get(at).ok_or_else(|| {
            format!("'{}' has only {} scan points", self.list().display(), self.points.len())
        })?;
        let path = self.folder.join(&point.file);
        let line = point.line;
        read(&mut self.reader, &path).map_err(|error| match error {
            NpyError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                format!(
                    "'{}' is missing (line {line} of '{}')",
                    path.display(),
                    self.list().display()
                )
            }
            error => ptystream_common::error::chain(&error),
        })
    }

    fn extra(&mut self, key: &'static str) -> Result<Option<Array>, SourceError> {
        let frame = self.frame_form()?.shape;
        match &Named::all(&self.spec, key)?[..] {
            [] => Ok(None),
            [one] => one.image(frame).map(Some),
            _ => Err(wrong(key, "is one image and not several")),
        }
    }
}

impl Files for NumpySource {
    fn path(&self, n: usize) -> Option<PathBuf> {
        self.points.get(n).map(|point| self.folder.join(&point.file))
    }

    fn is_whole(&mut self, n: usize, _: Duration) -> bool {
        let Ok(array) = self.read_frame(n) else { return false };
        if let Some(live) = &mut self.live {
            live.ready.insert(n, array);
        }
        true
    }
}

impl Source for NumpySource {
    /// Returns the positions of all lines as `float64`.
    ///
    /// # Errors
    /// [`SourceError::Input`] if there are fewer lines than `num_frames` asks for, or if a file
    /// that a line names is missing.
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        if self.live.is_some() {
            return Ok(None);
        }
        let lines = self.points.len();
        if let Some(n) = self.num_frames.filter(|&n| n > lines) {
            return Err(SourceError::input(format!(
                "'{}' has {lines} scan points, but data.num_frames asks for {n}; add the missing lines, or set data.num_frames={lines}",
                self.list().display()
            )));
        }
        let missing: Vec<&Point> =
            self.wanted().iter().filter(|p| !self.folder.join(&p.file).is_file()).collect();
        if let Some(first) = missing.first() {
            return Err(SourceError::input(format!(
                "'{}:{}': the frame '{}' is missing ({} of {} are); names go from '{}'",
                self.list().display(),
                first.line,
                first.file,
                missing.len(),
                self.wanted().len(),
                self.folder.display()
            )));
        }
        if let Some(text) = unlisted(&self.folder, &self.points) {
            self.warnings.push(text);
        }
        let items: Vec<f64> = self.points.iter().flat_map(|p| p.position).collect();
        Ok(Some(Array::from_items(&[lines, 2], &items)))
    }

    fn load_common(&mut self) -> Result<Common, SourceError> {
        let mut common =
            Common { dark: self.extra("dark")?, flat: self.extra("flat")?, ..Common::default() };
        let n = match self.live {
            None => self.wanted().len(),
            Some(_) => self.num_frames.unwrap_or(usize::MAX),
        };
        if let Some(scale) = normalization::of_file(Keys(&self.spec), n)? {
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
        let list = self.list();
        if let Some(live) = &mut self.live {
            self.points.extend(live.lines.more(&list)?);
        }
        let Some(mut appearing) = self.appearing.take() else {
            return Ok(Check::of(self.wanted().len(), frames, start, num_frames));
        };
        appearing.look(self);
        let appearing = self.appearing.insert(appearing);
        appearing.check(appearing.there(), frames, start, num_frames)
    }

    fn narrow(&mut self, region: Region) {
        self.rows = Some(region.first[0]..region.first[0] + region.shape[0]);
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let form = self.frame_form()?;
        let mut all = Vec::with_capacity(indices.len());
        for &index in indices {
            let at = usize::try_from(index.0).unwrap_or(usize::MAX);
            let damaged = |text| SourceError::frame(index, text);
            let position = self.nominal(index);
            if let Some(array) = self.read_rows(at).map_err(damaged)? {
                let first = [self.rows.as_ref().map_or(0, |rows| rows.start), 0];
                let region = Region { first, shape: [array.shape[0], array.shape[1]] };
                let frame = RawFrame::part(form, region, array.data);
                all.push(Loaded { position, ..Loaded::plain(index, frame) });
                continue;
            }
            let array = self.read_frame(at).map_err(damaged)?;
            if array.shape != form.shape || array.dtype != form.dtype {
                return Err(SourceError::frame(
                    index,
                    format!(
                        "'{}' is {} {:?}, but the scan's first frame is {} {:?}; frames of one scan are alike",
                        self.folder.join(&self.points[at].file).display(),
                        array.dtype,
                        array.shape,
                        form.dtype,
                        form.shape
                    ),
                ));
            }
            let frame = RawFrame::new(form, Encoding::Raw, array.data);
            all.push(Loaded { position, ..Loaded::plain(index, frame) });
        }
        Ok(all)
    }

    /// Returns the form of the first frame.
    ///
    /// # Errors
    /// [`SourceError::Input`] if that file cannot be read or is no 2-D array of numbers.
    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        if let Some(form) = self.form {
            return Ok(form);
        }
        let first = self.read_frame(0).map_err(SourceError::input)?;
        let (dtype, shape) = (first.dtype, &first.shape);
        let form = match shape[..] {
            [rows, cols] if rows > 0 && cols > 0 && dtype != Dtype::Bool => {
                FrameForm { dtype, shape: [rows, cols] }
            }
            _ => {
                return Err(SourceError::input(format!(
                    "'{}' is {dtype} {shape:?}; a frame is a 2-D array of numbers, one a file",
                    self.folder.join(&self.points[0].file).display()
                )));
            }
        };
        self.form = Some(form);
        Ok(form)
    }

    fn num_frames(&mut self) -> Result<Option<usize>, SourceError> {
        Ok(self.live.is_none().then_some(self.points.len()))
    }

    fn is_live(&self) -> bool {
        self.live.is_some()
    }

    fn with_frames(&mut self) -> Result<Option<WithFrames>, SourceError> {
        Ok(self.live.as_ref().map(|_| WithFrames { position: true, ..WithFrames::default() }))
    }

    fn nominal(&mut self, index: Index) -> Option<[f64; 2]> {
        let at = usize::try_from(index.0).ok().filter(|_| self.live.is_some())?;
        self.points.get(at).map(|point| point.position)
    }

    fn recorded(&mut self) -> Result<Recorded, SourceError> {
        let path = self.folder.join("geometry.txt");
        let (recorded, shape) = read_geometry(&path, &mut self.warnings)?;
        let frame = self.frame_form()?.shape;
        if let Some(shape) = shape.filter(|s| *s != frame) {
            self.warnings.push(format!(
                "'{}' gives shape {shape:?}, the frames have {frame:?}; the frames count, data.shape sets the region of interest",
                path.display()
            ));
        }
        Ok(recorded)
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        let form = self.frame_form()?;
        let mut all = vec![("folder".to_owned(), self.folder.display().to_string())];
        let (count, lists, files): (_, &[&str], _) = match self.live {
            None => {
                let points = self.points.len();
                (points.to_string(), &["positions.txt", "geometry.txt"], self.wanted())
            }
            // Lines and frames are still to come.
            Some(_) => ("all".to_owned(), &["geometry.txt"], &self.points[..1]),
        };
        all.push(("frames".to_owned(), format!("{count} of {} {:?}", form.dtype, form.shape)));
        for &name in lists {
            all.push((name.to_owned(), stamp(&self.folder.join(name))));
        }
        for key in ["dark", "flat"] {
            for Named { path, .. } in Named::all(&self.spec, key)? {
                all.push((key.to_owned(), format!("{} {}", path.display(), stamp(&path))));
            }
        }
        if let Some(path) = Keys(&self.spec).input_path("normalization.file")? {
            all.push(("normalization".into(), format!("{} {}", path.display(), stamp(&path))));
        }
        all.extend(files.iter().map(|p| (p.file.clone(), stamp(&self.folder.join(&p.file)))));
        Ok(all)
    }

    fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }
}

fn read_text(path: &Path) -> Result<String, SourceError> {
    std::fs::read_to_string(path).map_err(|source| SourceError::Input {
        text: format!("'{}' cannot be read", path.display()),
        source: Some(Box::new(source)),
    })
}

fn content(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn number(path: &Path, line: usize, what: &str, word: &str) -> Result<f64, SourceError> {
    let wrong = |text: &str| {
        SourceError::input(format!("'{}:{line}': {what} '{word}' {text}", path.display()))
    };
    let value: f64 = word.parse().map_err(|_| wrong("is not a number; correct that line"))?;
    if value.is_finite() { Ok(value) } else { Err(wrong("is not finite; correct that line")) }
}

/// Reads a line `file y x`.
fn point(path: &Path, line: usize, content: &str) -> Result<Point, SourceError> {
    let words: Vec<&str> = content.split_whitespace().collect();
    let [file, y, x] = words[..] else {
        return Err(SourceError::input(format!(
            "'{}:{line}': {} columns where `file y x` are needed",
            path.display(),
            words.len()
        )));
    };
    let position = [number(path, line, "y", y)?, number(path, line, "x", x)?];
    Ok(Point { file: file.to_owned(), position, line })
}

fn read_positions(path: &Path) -> Result<Vec<Point>, SourceError> {
    let text = match std::fs::read_to_string(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(SourceError::input(format!(
                "'{}' is missing; data.path is a folder with a positions.txt whose lines are `file y x`",
                path.display()
            )));
        }
        _ => read_text(path)?,
    };
    let points: Vec<Point> = content(&text)
        .map(|(line, content)| point(path, line, content))
        .collect::<Result<_, _>>()?;
    if points.is_empty() {
        return Err(SourceError::input(format!(
            "'{}' has no line `file y x`; there is nothing to prepare",
            path.display()
        )));
    }
    Ok(points)
}

/// Tells of `.npy` files beside the listed ones that no line names.
fn unlisted(folder: &Path, points: &[Point]) -> Option<String> {
    let place = Path::new(&points.first()?.file).parent()?.to_owned();
    let listed: std::collections::HashSet<PathBuf> =
        points.iter().map(|p| folder.join(&p.file)).collect();
    let there = std::fs::read_dir(folder.join(&place)).ok()?;
    let extra = there
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "npy") && !listed.contains(p))
        .count();
    (extra > 0 && !place.as_os_str().is_empty()).then(|| {
        format!(
            "'{}' holds {extra} .npy files that positions.txt does not name ({} lines); they are left out",
            folder.join(place).display(),
            points.len()
        )
    })
}

/// Reads `geometry.txt`; returns also its `shape`.
fn read_geometry(
    path: &Path,
    warnings: &mut Vec<String>,
) -> Result<(Recorded, Option<[usize; 2]>), SourceError> {
    let mut recorded = Recorded::default();
    let mut shape = None;
    if !path.exists() {
        return Ok((recorded, shape));
    }
    let text = read_text(path)?;
    for (line, content) in content(&text) {
        let words: Vec<&str> = content.split_whitespace().collect();
        let origin = format!("{}:{line}", path.display());
        let numbers = words[1..]
            .iter()
            .map(|word| number(path, line, words[0], word))
            .collect::<Result<Vec<_>, _>>();
        let positive = |values: &[f64]| values.iter().all(|&v| v > 0.0);
        match words[0] {
            "energy" | "distance" | "psize" | "shape" => {}
            other => {
                warnings.push(format!("'{origin}': '{other}' is not understood and left out"));
                continue;
            }
        }
        let numbers = numbers?;
        match (words[0], &numbers[..]) {
            ("energy", &[v]) if v > 0.0 => recorded.energy = Some((v, origin)),
            ("distance", &[v]) if v > 0.0 => recorded.distance = Some((v, origin)),
            ("psize", &[v]) if v > 0.0 => recorded.psize = Some(([v, v], origin)),
            ("psize", &[y, x]) if positive(&numbers) => recorded.psize = Some(([y, x], origin)),
            ("shape", &[v]) if v > 0.0 => shape = Some([v as usize, v as usize]),
            ("shape", &[r, c]) if positive(&numbers) => shape = Some([r as usize, c as usize]),
            _ => {
                return Err(SourceError::input(format!(
                    "'{origin}': `{content}` is no line `key value` with a value above 0"
                )));
            }
        }
    }
    Ok((recorded, shape))
}
