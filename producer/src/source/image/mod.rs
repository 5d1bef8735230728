//! Images out of files of any kind: masks, darks, flats, and the frames of image series.
//!
//! What a file is, is seen from its first bytes and not from its name.
//!
//! | module | format |
//! |---|---|
//! | [`super::npy`] | numpy's `.npy` |
//! | [`tif`] | TIFF, compressed or not, several pages |
//! | [`edf`] | ESRF data format, several images |
//! | [`cbf`] | Crystallographic binary file, as Dectris writes it |
//! | `ptystream_common::h5` | a dataset of an HDF5 file |

pub mod cbf;
pub mod edf;
pub mod tif;

use super::npy::NpyReader;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::Array;
use ptystream_common::h5::read::H5File;
use ptystream_common::source::{SourceError, SourceSpec};
use ptystream_common::value::Value;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What kind of file holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Npy,
    Tiff,
    Edf,
    Cbf,
    Hdf5,
}

impl Format {
    fn of(start: &[u8]) -> Option<Self> {
        const MAGIC: [(&[u8], Format); 7] = [
            (b"\x93NUMPY", Format::Npy),
            (b"II*\0", Format::Tiff),
            (b"MM\0*", Format::Tiff),
            (b"II+\0", Format::Tiff),
            (b"MM\0+", Format::Tiff),
            (b"\x89HDF\r\n\x1a\n", Format::Hdf5),
            (b"###CBF", Format::Cbf),
        ];
        let known = MAGIC.iter().find(|(magic, _)| start.starts_with(magic)).map(|m| m.1);
        let text = start.trim_ascii_start();
        known.or_else(|| text.starts_with(b"{").then_some(Self::Edf))
    }
}

/// A file of which a parameter says that it holds an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// The parameter, such as `data.mask[1]`.
    pub parameter: String,
    /// Which file.
    pub path: PathBuf,
    /// The dataset, in an HDF5 file.
    pub key: Option<String>,
    /// Whether 0 is good, in a mask.
    pub invert: bool,
    /// Whether a stack is reduced to its median and not to its mean.
    pub median: bool,
}

impl Named {
    /// Returns the files that a parameter names: a path, a table with `file`, `key`, `invert` and
    /// `average`, or a list of these.
    ///
    /// # Errors
    /// [`SourceError::Param`] for a value that is none of them.
    pub fn all(spec: &SourceSpec, key: &str) -> Result<Vec<Self>, SourceError> {
        match spec.data.at(key).filter(|v| !v.is_none()) {
            None => Ok(Vec::new()),
            Some(Value::List(items)) => items
                .iter()
                .enumerate()
                .map(|(i, item)| Self::one(spec, key, format!("data.{key}[{i}]"), item))
                .collect(),
            Some(one) => Ok(vec![Self::one(spec, key, format!("data.{key}"), one)?]),
        }
    }

    fn one(
        spec: &SourceSpec,
        key: &str,
        parameter: String,
        value: &Value,
    ) -> Result<Self, SourceError> {
        let wrong = || SourceError::Param {
            key: key.into(),
            text: format!("{value} is neither a path nor a table with `file` and `key`"),
        };
        let text = |name: &str| value.at(name).and_then(Value::as_str).map(str::to_owned);
        let (path, key, invert, median) = match value {
            Value::Str(path) => (path.clone(), None, false, false),
            Value::Map(_) => {
                let invert = value.at("invert").and_then(Value::as_bool).unwrap_or(false);
                let median = text("average").as_deref() == Some("median");
                (text("file").ok_or_else(wrong)?, text("key"), invert, median)
            }
            _ => return Err(wrong()),
        };
        Ok(Self { parameter, path: spec.path(&path), key, invert, median })
    }

    /// Reads the file: one image, or a stack of them.
    ///
    /// # Shapes
    /// `(rows, cols)` or `(n, rows, cols)`, as the file has it.
    /// # Errors
    /// [`SourceError::Input`] naming parameter and file.
    pub fn read(&self) -> Result<Array, SourceError> {
        let parameter = &self.parameter;
        read(&self.path, self.key.as_deref())
            .map_err(|text| SourceError::input(format!("{parameter}: {text}")))
    }

    /// Reads one image of the shape of a frame; a stack is reduced to its mean or median.
    ///
    /// # Errors
    /// As [`Self::read`], and naming both shapes if they are not equal.
    pub fn image(&self, frame: [usize; 2]) -> Result<Array, SourceError> {
        let mut array = self.read()?;
        if let [1, rows, cols] = array.shape[..] {
            array.shape = vec![rows, cols];
        }
        if array.shape.len() == 3 && array.shape[1..] == frame {
            array = average(&array, self.median);
        }
        if array.shape != frame {
            return Err(SourceError::input(format!(
                "{}: {} has shape {:?}, the frames have {frame:?}",
                self.parameter,
                self.origin(),
                array.shape
            )));
        }
        Ok(array)
    }

    /// Names the file, and the dataset in it.
    pub fn origin(&self) -> String {
        match &self.key {
            Some(key) => format!("'{key}' in '{}'", self.path.display()),
            None => format!("'{}'", self.path.display()),
        }
    }
}

/// Reads a file of any format; `key`: the dataset of an HDF5 file.
///
/// # Errors
/// A text that names the file and the cure.
pub fn read(path: &Path, key: Option<&str>) -> Result<Array, String> {
    let shown = path.display();
    let mut start = [0; 512];
    let read = std::fs::File::open(path).and_then(|mut file| {
        let mut n = 0;
        while n < start.len() {
            match file.read(&mut start[n..])? {
                0 => break,
                more => n += more,
            }
        }
        Ok(n)
    });
    let n = match read {
        Ok(n) => n,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(format!("'{shown}' is missing"));
        }
        Err(e) => return Err(format!("'{shown}' cannot be read: {e}")),
    };
    let format = Format::of(&start[..n]).ok_or_else(|| {
        format!("'{shown}' is none of .npy, TIFF, EDF, CBF and HDF5, as its first bytes say")
    })?;
    match (format, key) {
        (Format::Hdf5, Some(key)) => {
            let dataset = H5File::open(path).and_then(|file| file.dataset(key));
            dataset.and_then(|d| d.read()).map_err(|e| chain(&e))
        }
        (Format::Hdf5, None) => {
            Err(format!("'{shown}' is an HDF5 file; give {{ file = …, key = \"…\" }}"))
        }
        (Format::Npy, _) => NpyReader::default().read(path).map_err(|e| chain(&e)),
        (Format::Tiff, _) => tif::Pages::open(path)?.all(),
        (Format::Edf, _) => stacked(&edf::read(path)?, path),
        (Format::Cbf, _) => Ok(cbf::read(path)?.image),
    }
}

/// Makes a stack of images that are alike; of one, the image.
fn stacked(images: &[Array], path: &Path) -> Result<Array, String> {
    let [first, rest @ ..] = images else {
        return Err(format!("'{}' holds no image", path.display()));
    };
    if rest.is_empty() {
        return Ok(first.clone());
    }
    if let Some(at) = rest.iter().position(|i| (i.dtype, &i.shape) != (first.dtype, &first.shape)) {
        let (a, b) = (first, &rest[at]);
        return Err(format!(
            "'{}': image {} is {} {:?}, the first one {} {:?}",
            path.display(),
            at + 1,
            b.dtype,
            b.shape,
            a.dtype,
            a.shape
        ));
    }
    let shape = [&[images.len()], &first.shape[..]].concat();
    let data: Vec<u8> = images.iter().flat_map(|i| i.data.iter().copied()).collect();
    Array::from_bytes(first.dtype, &shape, data.into())
        .ok_or_else(|| format!("'{}' is damaged", path.display()))
}

/// Averages a stack of images, `(n, rows, cols)`, to one of `float64`.
pub fn average(stack: &Array, median: bool) -> Array {
    let [n, rows, cols] = [stack.shape[0], stack.shape[1], stack.shape[2]];
    let (items, pixels) = (stack.to_f64(), rows * cols);
    let mut column = vec![0.0; n];
    let mut out = Vec::with_capacity(pixels);
    for pixel in 0..pixels {
        for (k, value) in column.iter_mut().enumerate() {
            *value = items[k * pixels + pixel];
        }
        out.push(match median {
            false => column.iter().sum::<f64>() / n as f64,
            true => {
                column.sort_by(f64::total_cmp);
                (column[(n - 1) / 2] + column[n / 2]) / 2.0
            }
        });
    }
    Array::from_items(&[rows, cols], &out)
}

/// Takes little- or big-endian items as an array; `None` if they are too few.
fn items(dtype: Dtype, shape: &[usize], mut bytes: Vec<u8>, big_endian: bool) -> Option<Array> {
    let needed = shape.iter().try_fold(dtype.size(), |n, &e| n.checked_mul(e))?;
    if bytes.len() < needed {
        return None;
    }
    bytes.truncate(needed);
    if big_endian && dtype.size() > 1 {
        bytes.chunks_exact_mut(dtype.size()).for_each(<[u8]>::reverse);
    }
    Array::from_bytes(dtype, shape, bytes.into())
}
