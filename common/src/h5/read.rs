//! Reads of HDF5 files that others wrote.
//!
//! Opening a dataset already checks what would fail, or read as zeros, much later: that the key is
//! there, that items are of a pixel type, and that the sources of a virtual dataset exist.
//!
//! | module | what it holds |
//! |---|---|
//! | [`storage`] | where the bytes of a dataset lie, and raw chunks |
//! | `error` | why something cannot be read |
//! | `keys` | the keys of a file that come nearest to a wrong one |
//! | `virtuals` | the check of virtual datasets |

mod error;
mod keys;
pub mod storage;
mod virtuals;

pub use error::ReadError;

use crate::dtype::Dtype;
use crate::frame::Array;
use hdf5::datatype::ByteOrder;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Hyperslab, SliceOrIndex};
use std::fs::File as PlainFile;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file is asked for again whose lock somebody holds.
const LOCKED: Duration = Duration::from_secs(1);

/// An HDF5 file, open for reading.
#[derive(Clone, Debug)]
pub struct H5File {
    path: PathBuf,
    file: hdf5::File,
}

/// Opens a file, once more for a while if somebody holds its lock.
///
/// A lock outlives the closing of a file for the moment in which its process starts another one: the
/// child has it until it runs its program.
fn open_unlocked(path: &Path) -> hdf5::Result<hdf5::File> {
    let deadline = Instant::now() + LOCKED;
    loop {
        match hdf5::File::open(path) {
            Err(error) if is_locked(&error) && Instant::now() < deadline => {
                std::thread::sleep(LOCKED / 20);
            }
            result => return result,
        }
    }
}

/// Tells whether a file could not be opened because somebody holds its lock.
fn is_locked(error: &hdf5::Error) -> bool {
    format!("{error:?}").contains("unable to lock file")
}

impl H5File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`ReadError`] that says whether it is missing, unreadable, no HDF5 file, or damaged.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::open_by(path, open_unlocked)
    }

    /// Opens a file for reading, or fails at once if somebody else has locked it: while it is being written.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_now(path: &Path) -> Result<Self, ReadError> {
        Self::open_by(path, |path| hdf5::File::open(path))
    }

    fn open_by(
        path: &Path,
        open: impl FnOnce(&Path) -> hdf5::Result<hdf5::File>,
    ) -> Result<Self, ReadError> {
        let unreadable = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => ReadError::Missing { path: path.to_owned() },
            _ => ReadError::Unreadable { path: path.to_owned(), source },
        };
        let mut plain = PlainFile::open(path).map_err(unreadable)?;
        let file = match open(path) {
            Ok(file) => file,
            Err(source) => {
                let mut start = [0; 8];
                let whole = plain.read_exact(&mut start);
                return Err(match whole {
                    Err(e) if e.kind() != std::io::ErrorKind::UnexpectedEof => unreadable(e),
                    Ok(()) if start == *b"\x89HDF\r\n\x1a\n" => {
                        ReadError::Open { path: path.to_owned(), source }
                    }
                    _ => ReadError::NotHdf5 { path: path.to_owned() },
                });
            }
        };
        Ok(Self { path: path.to_owned(), file })
    }

    /// Opens a file that another process still writes to, in SWMR mode (single writer, many readers); one
    /// that nobody writes to any more is opened as it is.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_growing(path: &Path) -> Result<Self, ReadError> {
        match hdf5::File::open_as(path, hdf5::OpenMode::ReadSWMR) {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            // Of a format that knows no SWMR.
            Err(_) => Self::open(path),
        }
    }

    /// Returns the path under which it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens a dataset.
    ///
    /// # Errors
    /// [`ReadError::Key`] with the nearest keys, [`ReadError::Group`], [`ReadError::Type`],
    /// [`ReadError::Virtual`].
    pub fn dataset(&self, key: &str) -> Result<H5Dataset, ReadError> {
        self.dataset_at_depth(key, 0)
    }

    /// Returns the keys that `key` stands for: itself, or, where its last name has a `*`, those of the
    /// group whose names match, in the order of the numbers in them.
    ///
    /// # Errors
    /// [`ReadError::Key`] with the nearest keys if there is none.
    pub fn matching(&self, key: &str) -> Result<Vec<String>, ReadError> {
        let (place, name) = key.rsplit_once('/').unwrap_or(("", key));
        let Some((before, after)) = name.split_once('*') else { return Ok(vec![key.to_owned()]) };
        let group = self.file.group(if place.is_empty() { "/" } else { place });
        // A name whose target is missing counts too: opening it says so.
        let names = group.and_then(|group| group.member_names()).unwrap_or_default();
        let mut found: Vec<String> = names
            .into_iter()
            .filter(|n| n.len() >= before.len() + after.len())
            .filter(|n| n.starts_with(before) && n.ends_with(after))
            .collect();
        found.sort_by_cached_key(|name| {
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            (digits.parse::<u64>().ok(), name.clone())
        });
        if found.is_empty() {
            let near = keys::nearest(&self.file, key);
            return Err(ReadError::Key { path: self.path.clone(), key: key.to_owned(), near });
        }
        let slash = if place.is_empty() { "" } else { "/" };
        Ok(found.into_iter().map(|name| format!("{place}{slash}{name}")).collect())
    }

    fn dataset_at_depth(&self, key: &str, depth: usize) -> Result<H5Dataset, ReadError> {
        let (path, name) = (self.path.clone(), key.to_owned());
        let Ok(dataset) = self.file.dataset(key) else {
            let near = keys::nearest(&self.file, key);
            return Err(match (self.file.group(key), self.file.dataset(key)) {
                (Ok(_), _) => ReadError::Group { path, key: name, near },
                (_, Err(source)) if format!("{source:?}").contains("bad version number") => {
                    ReadError::Newer { path, key: name, source }
                }
                _ => ReadError::Key { path, key: name, near },
            });
        };
        let items = |source| ReadError::Items { path: path.clone(), key: name.clone(), source };
        let datatype = dataset.dtype().map_err(items)?;
        let dtype = pixel_type(&datatype).map_err(|what| ReadError::Type {
            path: path.clone(),
            key: name.clone(),
            what,
        })?;
        let swapped = dtype.size() > 1 && datatype.byte_order() != ByteOrder::LittleEndian;
        let space = dataset.space().map_err(items)?;
        if space.is_null() {
            let what = "nothing (a null dataspace)".to_owned();
            return Err(ReadError::Type { path, key: name, what });
        }
        if dataset.layout() == hdf5::dataset::Layout::Virtual {
            virtuals::check(self, &dataset, key, depth)?;
        }
        let shape = space.shape();
        Ok(H5Dataset { path, key: name, dataset, dtype, swapped, shape })
    }
}

/// A dataset of pixels, positions, or a scalar.
#[derive(Clone, Debug)]
pub struct H5Dataset {
    path: PathBuf,
    key: String,
    dataset: hdf5::Dataset,
    dtype: Dtype,
    /// Items are not little-endian in the file.
    swapped: bool,
    shape: Vec<usize>,
}

impl H5Dataset {
    /// Returns the path of the file in which it was looked up.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the key under which it was looked up.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Returns the type of its items.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns its extents; none for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Tells whether it may become larger.
    pub fn can_grow(&self) -> bool {
        self.dataset.is_resizable()
    }

    /// Returns it as it is by now, where another process adds to it.
    ///
    /// # Errors
    /// [`ReadError::Items`].
    pub fn refreshed(&self) -> Result<Self, ReadError> {
        let shape = super::raw::refresh(&self.dataset).and_then(|()| self.dataset.space());
        let shape = shape.map_err(|source| self.items(source))?.shape();
        Ok(Self { shape, ..self.clone() })
    }

    /// Returns the files in which the items lie: behind links and virtual datasets too.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files = virtuals::files(&self.dataset);
        files.push(self.dataset.filename().into());
        files.sort();
        files.dedup();
        files
    }

    /// Reads all items.
    ///
    /// # Errors
    /// [`ReadError::Filter`], [`ReadError::Items`].
    pub fn read(&self) -> Result<Array, ReadError> {
        let zeros = vec![0; self.shape.len()];
        self.read_slab(&zeros, &self.shape)
    }

    /// Reads `count` items along each axis from `start` on.
    ///
    /// # Errors
    /// [`ReadError::Filter`], [`ReadError::Items`]; the latter also if the slab is not inside.
    pub fn read_slab(&self, start: &[usize], count: &[usize]) -> Result<Array, ReadError> {
        self.ensure_decodable()?;
        let data = self.slab(start, count).map_err(|source| self.items(source))?;
        Ok(Array { dtype: self.dtype, shape: count.to_vec(), data: data.into() })
    }

    fn items(&self, source: hdf5::Error) -> ReadError {
        ReadError::Items { path: self.path.clone(), key: self.key.clone(), source }
    }

    fn slab(&self, start: &[usize], count: &[usize]) -> Result<Vec<u8>, hdf5::Error> {
        let inside = start.len() == self.shape.len()
            && count.len() == self.shape.len()
            && (0..start.len())
                .all(|a| start[a].checked_add(count[a]).is_some_and(|end| end <= self.shape[a]));
        if !inside {
            return Err(
                format!("{count:?} items from {start:?} on are not in {:?}", self.shape).into()
            );
        }
        let mut data = vec![0u8; count.iter().product::<usize>() * self.dtype.size()];
        if data.is_empty() {
            return Ok(data);
        }
        let memory = memory_type(self.dtype)?;
        let spaces =
            if start.is_empty() {
                None
            } else {
                let slices = start.iter().zip(count).map(|(&start, &count)| {
                    SliceOrIndex::SliceCount { start, step: 1, count, block: 1 }
                });
                let slab = Hyperslab::from(slices.collect::<Vec<_>>());
                Some((hdf5::Dataspace::try_new(count)?, self.dataset.space()?.select(slab)?))
            };
        let (in_memory, in_file) = spaces
            .as_ref()
            .map_or((hdf5_sys::h5s::H5S_ALL, hdf5_sys::h5s::H5S_ALL), |(memory, file)| {
                (memory.id(), file.id())
            });
        hdf5::sync::sync(|| {
            // SAFETY: all identifiers are alive, `data` holds exactly the selected items of the
            // memory type, which has no pointers in it, and the library's lock is held.
            hdf5::h5check(unsafe {
                hdf5_sys::h5d::H5Dread(
                    self.dataset.id(),
                    memory.id(),
                    in_memory,
                    in_file,
                    hdf5_sys::h5p::H5P_DEFAULT,
                    data.as_mut_ptr().cast(),
                )
            })
        })?;
        Ok(data)
    }
}

/// Finds the pixel type of an HDF5 type, or names what it is instead.
fn pixel_type(datatype: &hdf5::Datatype) -> Result<Dtype, String> {
    let descriptor = datatype
        .to_descriptor()
        .map_err(|_| format!("unknown to this program, {} bytes each", datatype.size()))?;
    Ok(match descriptor {
        TypeDescriptor::Boolean => Dtype::Bool,
        TypeDescriptor::Unsigned(IntSize::U1) => Dtype::U8,
        TypeDescriptor::Unsigned(IntSize::U2) => Dtype::U16,
        TypeDescriptor::Unsigned(IntSize::U4) => Dtype::U32,
        TypeDescriptor::Integer(IntSize::U1) => Dtype::I8,
        TypeDescriptor::Integer(IntSize::U2) => Dtype::I16,
        TypeDescriptor::Integer(IntSize::U4) => Dtype::I32,
        TypeDescriptor::Integer(IntSize::U8) => Dtype::I64,
        TypeDescriptor::Float(FloatSize::U4) => Dtype::F32,
        TypeDescriptor::Float(FloatSize::U8) => Dtype::F64,
        other => return Err(other.to_string()),
    })
}

fn memory_type(dtype: Dtype) -> Result<hdf5::Datatype, hdf5::Error> {
    use hdf5::Datatype as T;
    match dtype {
        Dtype::Bool => T::from_type::<bool>(),
        Dtype::U8 => T::from_type::<u8>(),
        Dtype::U16 => T::from_type::<u16>(),
        Dtype::U32 => T::from_type::<u32>(),
        Dtype::I8 => T::from_type::<i8>(),
        Dtype::I16 => T::from_type::<i16>(),
        Dtype::I32 => T::from_type::<i32>(),
        Dtype::I64 => T::from_type::<i64>(),
        Dtype::F32 => T::from_type::<f32>(),
        Dtype::F64 => T::from_type::<f64>(),
    }
}

// Memory types above are native ones.
#[cfg(not(target_endian = "little"))]
compile_error!("arrays are little-endian in memory");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// Makes a file with the help of `fill` and opens it.
    fn file(fill: impl FnOnce(&hdf5::File)) -> (TempDir, H5File) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.h5");
        let made = hdf5::File::create(&path).unwrap();
        fill(&made);
        made.close().unwrap();
        let opened = H5File::open(&path).unwrap();
        (dir, opened)
    }

    #[test]
    fn a_lock_that_goes_away_is_waited_for() {
        let (dir, opened) = file(|_| {});
        drop(opened);
        let path = dir.path().join("in.h5");
        let held = PlainFile::options().read(true).write(true).open(&path).unwrap();
        held.lock().unwrap();
        let error = H5File::open(&path).unwrap_err();
        assert!(matches!(error, ReadError::Open { .. }), "{error}");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(LOCKED / 5);
                held.unlock().unwrap();
            });
            assert!(H5File::open(&path).is_ok());
        });
    }

    #[test]
    fn files_that_are_none_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.h5");
        let text = || H5File::open(&path).unwrap_err().to_string();
        assert!(text().ends_with("in.h5' is missing"), "{}", text());
        std::fs::write(&path, "a text, not a tree of arrays").unwrap();
        assert!(text().ends_with("in.h5' is not an HDF5 file"), "{}", text());
        std::fs::write(&path, "").unwrap();
        assert!(text().ends_with("is not an HDF5 file"), "{}", text());
        let made = hdf5::File::create(&path).unwrap();
        made.new_dataset_builder().with_data(&[1u16; 5000]).create("data").unwrap();
        made.close().unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(text().contains("cut off, damaged"), "{}", text());
        let folder = H5File::open(dir.path()).unwrap_err().to_string();
        assert!(folder.ends_with("cannot be read"), "{folder}");
    }

    #[test]
    fn wrong_keys_name_the_nearest_ones() {
        let (_dir, file) = file(|f| {
            let group = f.create_group("entry_1/data_1").unwrap();
            group.new_dataset::<u16>().shape(4).create("data").unwrap();
            f.new_dataset::<u16>().shape(4).create("entry_1/energy").unwrap();
            f.link_soft("/nowhere", "dangling").unwrap();
        });
        let error = file.dataset("entry_1/data_1/dat").unwrap_err();
        let ReadError::Key { near, .. } = &error else { panic!("{error}") };
        assert_eq!(near, &["entry_1/data_1/data", "entry_1/energy"]);
        assert!(error.to_string().contains("no dataset 'entry_1/data_1/dat' in '"), "{error}");
        assert!(error.to_string().contains("; there is 'entry_1/data_1/data'"), "{error}");
        let error = file.dataset("entry_1").unwrap_err();
        assert!(matches!(error, ReadError::Group { .. }), "{error}");
        assert!(matches!(file.dataset("dangling").unwrap_err(), ReadError::Key { .. }));
    }

    #[test]
    fn every_pixel_type_reads_and_others_are_refused_by_name() {
        let (_dir, file) = file(|f| {
            let b = || f.new_dataset_builder();
            b().with_data(&[true, false]).create("bool").unwrap();
            b().with_data(&[1u8, 255]).create("uint8").unwrap();
            b().with_data(&[1u16, 65535]).create("uint16").unwrap();
            b().with_data(&[1u32, u32::MAX]).create("uint32").unwrap();
            b().with_data(&[1i8, -1]).create("int8").unwrap();
            b().with_data(&[1i16, -1]).create("int16").unwrap();
            b().with_data(&[1i32, -1]).create("int32").unwrap();
            b().with_data(&[1i64, -1]).create("int64").unwrap();
            b().with_data(&[1f32, -1.5]).create("float32").unwrap();
            b().with_data(&[1f64, -1.5]).create("float64").unwrap();
            b().with_data(&[1u64, 2]).create("uint64").unwrap();
            f.new_dataset::<hdf5::types::VarLenUnicode>().create("text").unwrap();
        });
        for dtype in Dtype::ALL {
            let dataset = file.dataset(dtype.name()).unwrap();
            assert_eq!(dataset.dtype(), dtype);
            let read = dataset.read().unwrap();
            assert_eq!((read.dtype, &read.shape[..], read.to_f64()[0]), (dtype, &[2][..], 1.0));
        }
        assert_eq!(file.dataset("int64").unwrap().read().unwrap().to_f64(), [1.0, -1.0]);
        for (key, what) in [("uint64", "type uint64"), ("text", "type unicode")] {
            let error = file.dataset(key).unwrap_err().to_string();
            assert!(error.contains(&format!("'{key}' in '")) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn big_endian_items_are_converted() {
        let (_dir, file) = file(|f| {
            let swapped = hdf5::sync::sync(|| {
                // SAFETY: the copy of a predefined type is a new identifier, owned from here on.
                unsafe {
                    hdf5::from_id::<hdf5::Datatype>(hdf5_sys::h5t::H5Tcopy(
                        *hdf5::globals::H5T_STD_U16BE,
                    ))
                }
            });
            let dataset = f
                .new_dataset_builder()
                .empty_as(swapped.unwrap())
                .shape((2, 3))
                .create("be")
                .unwrap();
            dataset.write_raw(&[1u16, 2, 3, 4, 5, 600]).unwrap();
        });
        let dataset = file.dataset("be").unwrap();
        assert_eq!(dataset.read().unwrap(), Array::from_items(&[2, 3], &[1u16, 2, 3, 4, 5, 600]));
        assert_eq!(dataset.storage().unwrap(), storage::Storage::Library { chunk: None });
    }

    #[test]
    fn slabs_and_scalars_read_and_slabs_outside_are_refused() {
        let (_dir, file) = file(|f| {
            let items: Vec<i32> = (0..24).collect();
            let dataset = f.new_dataset::<i32>().shape((2, 3, 4)).create("a").unwrap();
            dataset.write_raw(&items).unwrap();
            f.new_dataset::<f32>().create("one").unwrap().write_scalar(&7.5f32).unwrap();
        });
        let dataset = file.dataset("a").unwrap();
        let slab = dataset.read_slab(&[1, 0, 2], &[1, 2, 2]).unwrap();
        assert_eq!(slab, Array::from_items(&[1, 2, 2], &[14, 15, 18, 19]));
        for (start, count) in [([1, 0, 0], [2, 1, 1]), ([0, 0, usize::MAX], [1, 1, 1])] {
            let text = crate::error::chain(&dataset.read_slab(&start, &count).unwrap_err());
            assert!(text.contains("are not in [2, 3, 4]"), "{text}");
        }
        assert_eq!(file.dataset("one").unwrap().read().unwrap().to_f64(), [7.5]);
    }
}
