//! The C calls that the safe crate does not offer, as safe functions: datasets of a given layout,
//! raw chunks, rows, targets of external links.
//!
//! Every call holds the library's one lock; every size that C receives is checked here.

use crate::codec::Filter;
use crate::dtype::Dtype;
use hdf5::types::{FloatSize, IntSize, TypeDescriptor};
use hdf5::{Dataset, Datatype, File, Group, Result, h5check};
use hdf5_sys::LOCK;
use hdf5_sys::h5d::{
    H5Dcreate2, H5Dget_chunk_info_by_coord, H5Dget_create_plist, H5Dread, H5Dread_chunk,
    H5Drefresh, H5Dwrite, H5Dwrite_chunk,
};
use hdf5_sys::h5f::H5Fget_file_image;
use hdf5_sys::h5i::hid_t;
use hdf5_sys::h5l::H5Lget_val;
use hdf5_sys::h5p::{
    H5P_CLS_DATASET_CREATE, H5Pclose, H5Pcreate, H5Pget_chunk, H5Pget_layout, H5Pset_chunk,
    H5Pset_deflate, H5Pset_filter, H5Pset_fletcher32, H5Pset_obj_track_times, H5Pset_shuffle,
};
use hdf5_sys::h5s::{
    H5S_ALL, H5S_SELECT_SET, H5S_class_t, H5Sclose, H5Screate, H5Screate_simple,
    H5Sselect_hyperslab,
};
use hdf5_sys::h5z::H5Z_FLAG_OPTIONAL;
use std::ffi::{CString, c_uint};
use std::ptr::{null, null_mut};

const DEFAULT: hid_t = 0;
/// Registered id of bitshuffle.
const BITSHUFFLE: i32 = 32008;
/// Registered id of LZ4.
const LZ4: i32 = 32004;

/// Closes an identifier of the library when it goes out of scope.
struct Owned(hid_t, unsafe extern "C" fn(hid_t) -> hdf5_sys::h5::herr_t);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the identifier is open and owned by this value alone.
        unsafe { (self.1)(self.0) };
    }
}

/// How a dataset lies in its file.
#[derive(Clone, Copy, Debug)]
pub enum Layout<'a> {
    /// In one piece.
    Plain,
    /// In chunks of `chunk` items an axis, filtered; the first axis may be shorter than its chunk.
    Chunked {
        /// Extent of a chunk.
        chunk: &'a [usize],
        /// Filters in the order in which they are applied.
        filters: &'a [Filter],
    },
}

/// Returns the file type of a pixel type; `bool` is h5py's enumeration.
pub fn datatype(dtype: Dtype) -> Result<Datatype> {
    Datatype::from_descriptor(&match dtype {
        Dtype::Bool => TypeDescriptor::Boolean,
        Dtype::U8 => TypeDescriptor::Unsigned(IntSize::U1),
        Dtype::U16 => TypeDescriptor::Unsigned(IntSize::U2),
        Dtype::U32 => TypeDescriptor::Unsigned(IntSize::U4),
        Dtype::I8 => TypeDescriptor::Integer(IntSize::U1),
        Dtype::I16 => TypeDescriptor::Integer(IntSize::U2),
        Dtype::I32 => TypeDescriptor::Integer(IntSize::U4),
        Dtype::I64 => TypeDescriptor::Integer(IntSize::U8),
        Dtype::F32 => TypeDescriptor::Float(FloatSize::U4),
        Dtype::F64 => TypeDescriptor::Float(FloatSize::U8),
    })
}

/// Returns the pixel type of a dataset, if it is one.
pub fn dtype_of(dataset: &Dataset) -> Option<Dtype> {
    Some(match dataset.dtype().ok()?.to_descriptor().ok()? {
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
        _ => return None,
    })
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| hdf5::Error::from(format!("name {text:?} holds a zero byte")))
}

fn dims(shape: &[usize]) -> Vec<u64> {
    shape.iter().map(|&n| n as u64).collect()
}

/// Adds a filter of the registry as an optional one: the library need not have it in order to
/// store chunks that were encoded elsewhere.
fn set_filter(plist: hid_t, filter: Filter) -> Result<()> {
    let registered = |id: i32, values: &[c_uint]| {
        // SAFETY: `plist` is open and `values` outlives the call.
        unsafe { H5Pset_filter(plist, id, H5Z_FLAG_OPTIONAL, values.len(), values.as_ptr()) }
    };
    let done = match filter {
        // SAFETY: `plist` is an open dataset creation list in these three calls.
        Filter::Deflate(level) => unsafe { H5Pset_deflate(plist, c_uint::from(level)) },
        // SAFETY: as above.
        Filter::Shuffle(_) => unsafe { H5Pset_shuffle(plist) },
        // SAFETY: as above.
        Filter::Fletcher32 => unsafe { H5Pset_fletcher32(plist) },
        // What the filter itself leaves in a file: its version, item size, block size, codec LZ4.
        Filter::Bslz4(item) => registered(BITSHUFFLE, &[0, 4, c_uint::from(item), 0, 2]),
        Filter::Lz4 => registered(LZ4, &[]),
        Filter::Blosc(_) => registered(filter.id(), &filter.cd_values()),
    };
    h5check(done).map(|_| ())
}

/// Makes a dataset; nothing is allocated until something is written, and what is not reads as zero.
///
/// # Errors
/// The library's.
pub fn create_dataset(
    parent: &Group,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    layout: Layout<'_>,
) -> Result<Dataset> {
    let name = c_string(name)?;
    let file_type = datatype(dtype)?;
    let extent = dims(shape);
    let _guard = LOCK.lock();
    // SAFETY: plain constructors of the library.
    let plist = unsafe { Owned(h5check(H5Pcreate(*H5P_CLS_DATASET_CREATE))?, H5Pclose) };
    // SAFETY: `plist` is open.
    h5check(unsafe { H5Pset_obj_track_times(plist.0, 0) })?;
    let mut most = extent.clone();
    if let Layout::Chunked { chunk, filters } = layout {
        if chunk.len() != shape.len() {
            return Err(format!("chunk {chunk:?} and shape {shape:?} differ in rank").into());
        }
        let chunk = dims(chunk);
        // The library refuses a chunk longer than a fixed axis.
        most[0] = most[0].max(chunk[0]);
        // SAFETY: `chunk` holds as many extents as its length says.
        h5check(unsafe { H5Pset_chunk(plist.0, chunk.len() as i32, chunk.as_ptr()) })?;
        for &filter in filters {
            set_filter(plist.0, filter)?;
        }
    }
    let space = if shape.is_empty() {
        // SAFETY: plain constructor.
        unsafe { H5Screate(H5S_class_t::H5S_SCALAR) }
    } else {
        // SAFETY: both lists hold `extent.len()` extents.
        unsafe { H5Screate_simple(extent.len() as i32, extent.as_ptr(), most.as_ptr()) }
    };
    let space = Owned(h5check(space)?, H5Sclose);
    // SAFETY: all identifiers are open, the name is zero-terminated; the new identifier is
    // handed to the only owner that it will have.
    unsafe {
        let id = H5Dcreate2(
            parent.id(),
            name.as_ptr(),
            file_type.id(),
            space.0,
            DEFAULT,
            plist.0,
            DEFAULT,
        );
        hdf5::from_id(h5check(id)?)
    }
}

/// Stores a chunk that was encoded elsewhere; `offset` counts items, a multiple of the chunk.
///
/// `mask`: bit i set = filter i was not applied.
/// # Errors
/// The library's, and a rank that is not the dataset's.
pub fn write_chunk(dataset: &Dataset, offset: &[usize], mask: u32, bytes: &[u8]) -> Result<()> {
    if offset.len() != dataset.ndim() {
        return Err(format!("offset {offset:?} is not of rank {}", dataset.ndim()).into());
    }
    let offset = dims(offset);
    let _guard = LOCK.lock();
    // SAFETY: `offset` has the dataset's rank, `bytes` its own length.
    let done = unsafe {
        H5Dwrite_chunk(
            dataset.id(),
            DEFAULT,
            mask,
            offset.as_ptr(),
            bytes.len(),
            bytes.as_ptr().cast(),
        )
    };
    h5check(done).map(|_| ())
}

/// Returns the bytes of a file that is open, as if it had been closed.
///
/// # Errors
/// The library's.
pub fn image(file: &File) -> Result<Vec<u8>> {
    let _guard = LOCK.lock();
    file.flush()?;
    // SAFETY: without a buffer the call returns the size alone.
    let size = unsafe { H5Fget_file_image(file.id(), null_mut(), 0) };
    let mut bytes = vec![0; usize::try_from(size).map_err(|_| "the file has no image")?];
    // SAFETY: the buffer has the length that is named.
    let copied = unsafe { H5Fget_file_image(file.id(), bytes.as_mut_ptr().cast(), bytes.len()) };
    if copied != size {
        return Err("the file's image was not copied whole".into());
    }
    Ok(bytes)
}

/// Returns the stored bytes of a chunk; 0 if it is not allocated.
fn stored_bytes(dataset: &Dataset, offset: &[usize]) -> Result<u64> {
    if offset.len() != dataset.ndim() {
        return Err(format!("offset {offset:?} is not of rank {}", dataset.ndim()).into());
    }
    let offset = dims(offset);
    let _guard = LOCK.lock();
    let (mut stored_mask, mut address, mut size) = (0, 0, 0u64);
    // SAFETY: `offset` has the dataset's rank.
    let known = unsafe {
        H5Dget_chunk_info_by_coord(
            dataset.id(),
            offset.as_ptr(),
            &mut stored_mask,
            &mut address,
            &mut size,
        )
    };
    h5check(known)?;
    Ok(size)
}

/// Tells whether a chunk has storage; `offset` counts items.
///
/// # Errors
/// The library's, and a rank that is not the dataset's.
pub fn is_allocated(dataset: &Dataset, offset: &[usize]) -> Result<bool> {
    stored_bytes(dataset, offset).map(|bytes| bytes > 0)
}

/// Reads a chunk as it is stored, with its filter mask; `None` if it is not allocated.
///
/// # Errors
/// The library's, and a rank that is not the dataset's.
pub fn read_chunk(dataset: &Dataset, offset: &[usize]) -> Result<Option<(u32, Vec<u8>)>> {
    let size = stored_bytes(dataset, offset)?;
    if size == 0 {
        return Ok(None);
    }
    let offset = dims(offset);
    let _guard = LOCK.lock();
    let mut bytes = vec![0u8; size as usize];
    let mut mask = 0u32;
    // SAFETY: the buffer has the size that the library has just told for this chunk.
    let done = unsafe {
        H5Dread_chunk(dataset.id(), DEFAULT, offset.as_ptr(), &mut mask, bytes.as_mut_ptr().cast())
    };
    h5check(done)?;
    Ok(Some((mask, bytes)))
}

/// Returns the extent of a dataset's chunks; `None` if it is not chunked.
pub fn chunk_extent(dataset: &Dataset) -> Option<Vec<usize>> {
    let rank = dataset.ndim();
    let mut chunk = vec![0u64; rank];
    let _guard = LOCK.lock();
    // SAFETY: the dataset is open; the list is closed by its owner.
    let plist = unsafe { Owned(h5check(H5Dget_create_plist(dataset.id())).ok()?, H5Pclose) };
    // SAFETY: `plist` is open.
    if unsafe { H5Pget_layout(plist.0) } != hdf5_sys::h5d::H5D_layout_t::H5D_CHUNKED {
        return None;
    }
    // SAFETY: `chunk` has room for `rank` extents.
    let got = unsafe { H5Pget_chunk(plist.0, rank as i32, chunk.as_mut_ptr()) };
    (got == rank as i32).then(|| chunk.iter().map(|&n| n as usize).collect())
}

/// Selects `count` entries of the first axis from `start` on; returns file and memory spaces.
fn rows_of(
    dataset: &Dataset,
    shape: &[usize],
    start: usize,
    count: usize,
) -> Result<(Owned, Owned)> {
    if shape.is_empty() || start + count > shape[0] {
        return Err(format!("rows {start}..{} lie outside shape {shape:?}", start + count).into());
    }
    let mut offset = vec![0u64; shape.len()];
    offset[0] = start as u64;
    let mut extent = dims(shape);
    extent[0] = count as u64;
    // SAFETY: the lists have the dataset's rank; each space is closed by its owner.
    unsafe {
        let file = Owned(h5check(hdf5_sys::h5d::H5Dget_space(dataset.id()))?, H5Sclose);
        h5check(H5Sselect_hyperslab(
            file.0,
            H5S_SELECT_SET,
            offset.as_ptr(),
            null(),
            extent.as_ptr(),
            null(),
        ))?;
        let memory = H5Screate_simple(extent.len() as i32, extent.as_ptr(), null());
        Ok((file, Owned(h5check(memory)?, H5Sclose)))
    }
}

fn row_bytes(shape: &[usize], dtype: Dtype) -> usize {
    shape.iter().skip(1).product::<usize>() * dtype.size()
}

/// Reads `count` entries of the first axis as C-ordered little-endian items of `dtype`.
///
/// # Errors
/// The library's, and rows outside the dataset.
pub fn read_rows(dataset: &Dataset, dtype: Dtype, start: usize, count: usize) -> Result<Vec<u8>> {
    let shape = dataset.shape();
    let mut bytes = vec![0u8; count * row_bytes(&shape, dtype)];
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let memory_type = datatype(dtype)?;
    let _guard = LOCK.lock();
    let (file, memory) = rows_of(dataset, &shape, start, count)?;
    // SAFETY: the buffer holds exactly the selected items in the memory type.
    let done = unsafe {
        H5Dread(
            dataset.id(),
            memory_type.id(),
            memory.0,
            file.0,
            DEFAULT,
            bytes.as_mut_ptr().cast(),
        )
    };
    h5check(done)?;
    Ok(bytes)
}

/// Writes entries of the first axis from `start` on, through the dataset's filters.
///
/// # Errors
/// The library's, and bytes that are no whole rows of the dataset.
pub fn write_rows(dataset: &Dataset, dtype: Dtype, start: usize, bytes: &[u8]) -> Result<()> {
    let shape = dataset.shape();
    let row = row_bytes(&shape, dtype);
    if row == 0 || !bytes.len().is_multiple_of(row) {
        return Err(format!("{} bytes are no whole rows of {row} bytes", bytes.len()).into());
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let memory_type = datatype(dtype)?;
    let _guard = LOCK.lock();
    let (file, memory) = rows_of(dataset, &shape, start, bytes.len() / row)?;
    // SAFETY: the buffer holds exactly the selected items in the memory type.
    let done = unsafe {
        H5Dwrite(dataset.id(), memory_type.id(), memory.0, file.0, DEFAULT, bytes.as_ptr().cast())
    };
    h5check(done).map(|_| ())
}

/// Has the library look at the file again: what another process has added since is seen afterwards.
///
/// # Errors
/// The library's.
pub fn refresh(dataset: &Dataset) -> Result<()> {
    let _lock = LOCK.lock();
    // SAFETY: the identifier is alive, and the library's lock is held.
    h5check(unsafe { H5Drefresh(dataset.id()) }).map(drop)
}

/// Reads a whole dataset as C-ordered little-endian items of `dtype`.
///
/// # Errors
/// The library's.
pub fn read_all(dataset: &Dataset, dtype: Dtype) -> Result<Vec<u8>> {
    let mut bytes = vec![0u8; dataset.size() * dtype.size()];
    if bytes.is_empty() {
        return Ok(bytes);
    }
    let memory_type = datatype(dtype)?;
    let _guard = LOCK.lock();
    // SAFETY: the buffer holds all items of the dataset in the memory type.
    let done = unsafe {
        H5Dread(
            dataset.id(),
            memory_type.id(),
            H5S_ALL,
            H5S_ALL,
            DEFAULT,
            bytes.as_mut_ptr().cast(),
        )
    };
    h5check(done)?;
    Ok(bytes)
}

/// Writes all items of a dataset.
///
/// # Errors
/// The library's, and bytes that do not fill the dataset.
pub fn write_all(dataset: &Dataset, dtype: Dtype, bytes: &[u8]) -> Result<()> {
    if bytes.len() != dataset.size() * dtype.size() {
        let size = dataset.size();
        return Err(format!("{} bytes do not fill {size} items of {dtype}", bytes.len()).into());
    }
    if bytes.is_empty() {
        return Ok(());
    }
    let memory_type = datatype(dtype)?;
    let _guard = LOCK.lock();
    // SAFETY: the buffer holds all items of the dataset in the memory type.
    let done = unsafe {
        H5Dwrite(dataset.id(), memory_type.id(), H5S_ALL, H5S_ALL, DEFAULT, bytes.as_ptr().cast())
    };
    h5check(done).map(|_| ())
}

/// Reads the bytes of a fixed-length text (0-d or one item) up to its padding.
///
/// # Errors
/// The library's.
pub fn read_fixed_text(dataset: &Dataset) -> Result<String> {
    let file_type = dataset.dtype()?;
    let mut bytes = vec![0u8; file_type.size() * dataset.size().max(1)];
    let _guard = LOCK.lock();
    // SAFETY: the buffer holds all items of the dataset in its own type, which is of fixed size.
    let done = unsafe {
        H5Dread(dataset.id(), file_type.id(), H5S_ALL, H5S_ALL, DEFAULT, bytes.as_mut_ptr().cast())
    };
    h5check(done)?;
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    Ok(String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned())
}

/// Returns file and object to which the external link `name` points.
///
/// # Errors
/// The library's, and a link whose value is no external one.
pub fn external_target(group: &Group, name: &str) -> Result<(String, String)> {
    let c_name = c_string(name)?;
    let mut buffer = vec![0u8; 8192];
    let _guard = LOCK.lock();
    // SAFETY: the library writes at most the buffer's length.
    let done = unsafe {
        H5Lget_val(group.id(), c_name.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len(), DEFAULT)
    };
    h5check(done)?;
    // One byte of version and flags, then two zero-terminated texts (HDF5 format, "User-defined links").
    let mut texts = buffer[1..].split(|&b| b == 0);
    let mut next = || texts.next().map(|t| String::from_utf8_lossy(t).into_owned());
    match (next(), next()) {
        (Some(file), Some(object)) if !file.is_empty() => Ok((file, object)),
        _ => Err(format!("link '{name}' is no external link").into()),
    }
}
