//! Where the bytes of a dataset lie, and raw chunks.
//!
//! | storage | how a frame is had |
//! |---|---|
//! | one piece, uncompressed, little-endian | `pread` of the file, without the library's lock |
//! | chunks whose filters [`crate::codec`] decodes, little-endian | raw bytes, decoded by whoever prepares them |
//! | anything else | through the library |

use super::{H5Dataset, ReadError};
use crate::codec::Filter;
use crate::dtype::Dtype;
use bytes::Bytes;
use hdf5_sys::h5::{herr_t, hsize_t};
use hdf5_sys::h5i::hid_t;
use std::path::PathBuf;

const BSLZ4: i32 = 32008;
const LZ4: i32 = 32004;
/// Third parameter after the filter's version of bitshuffle: LZ4 follows.
const BITSHUFFLE_LZ4: u32 = 2;

/// Where the bytes of a dataset lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storage {
    /// All items in C order, little-endian, in one piece.
    Plain {
        /// The file that holds them; another one if the key is an external link.
        file: PathBuf,
        /// Where they start.
        offset: u64,
    },
    /// Chunks that can be decoded without the library.
    Chunks {
        /// Extent of a chunk along each axis.
        extent: Vec<usize>,
        /// Filters in the order in which they were applied.
        filters: Vec<Filter>,
    },
    /// Only the library can read them; `chunk` is the extent of its chunks, if there are any.
    Library {
        /// Extent of a chunk along each axis.
        chunk: Option<Vec<usize>>,
    },
}

/// One chunk as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawChunk {
    /// The stored bytes.
    pub bytes: Bytes,
    /// Bit i set: filter i of the pipeline was left out for this chunk.
    pub skipped: u32,
}

unsafe extern "C" {
    // Public in HDF5 since 1.10.2, but not declared by the binding.
    fn H5Dget_chunk_storage_size(dset: hid_t, offset: *const hsize_t, size: *mut hsize_t)
    -> herr_t;
}

impl H5Dataset {
    /// Tells where the bytes lie.
    ///
    /// # Errors
    /// [`ReadError::Items`] if the library cannot tell.
    pub fn storage(&self) -> Result<Storage, ReadError> {
        self.find_storage().map_err(|source| self.items(source))
    }

    fn find_storage(&self) -> Result<Storage, hdf5::Error> {
        let plist = self.dataset.dcpl()?;
        let chunk = plist.get_chunk()?;
        let plain_items = !self.swapped && self.dtype != Dtype::Bool;
        if !plain_items {
            return Ok(Storage::Library { chunk });
        }
        let Some(extent) = chunk else {
            let inside = self.dataset.layout() == hdf5::dataset::Layout::Contiguous
                && plist.get_external()?.is_empty();
            return Ok(match self.dataset.offset() {
                Some(offset) if inside => {
                    Storage::Plain { file: self.dataset.filename().into(), offset }
                }
                _ => Storage::Library { chunk: None },
            });
        };
        let known: Option<Vec<Filter>> =
            plist.get_filters()?.iter().map(|f| self.known_filter(f)).collect();
        Ok(match known {
            Some(filters) => Storage::Chunks { extent, filters },
            None => Storage::Library { chunk: Some(extent) },
        })
    }

    fn known_filter(&self, filter: &hdf5::filters::Filter) -> Option<Filter> {
        use hdf5::filters::Filter as H;
        let size = u8::try_from(self.dtype.size()).ok()?;
        match filter {
            H::Deflate(level) => Some(Filter::Deflate(*level)),
            H::Shuffle => Some(Filter::Shuffle(size)),
            H::Fletcher32 => Some(Filter::Fletcher32),
            H::User(LZ4, _) => Some(Filter::Lz4),
            // Parameters: version major, minor, item size, block size, compression.
            H::User(BSLZ4, values) => {
                let lz4 = values.get(4) == Some(&BITSHUFFLE_LZ4);
                let item = u8::try_from(*values.get(2)?).ok()?;
                lz4.then_some(Filter::Bslz4(item))
            }
            _ => None,
        }
    }

    /// Tells whether the library can decode the items.
    ///
    /// # Errors
    /// [`ReadError::Filter`] naming the filter that is not installed.
    pub fn ensure_decodable(&self) -> Result<(), ReadError> {
        let filters = self
            .dataset
            .dcpl()
            .and_then(|plist| plist.get_filters())
            .map_err(|source| self.items(source))?;
        match filters.iter().find(|f| !f.is_available()) {
            Some(filter) => Err(ReadError::Filter {
                path: self.path.clone(),
                key: self.key.clone(),
                id: filter.id(),
            }),
            None => Ok(()),
        }
    }

    /// Reads the chunk whose first item lies at `start`, as it is stored; `None` if it was never
    /// written.
    ///
    /// # Errors
    /// [`ReadError::Items`].
    ///
    /// # Source
    /// HDF5 reference, `H5Dread_chunk` and `H5Dget_chunk_storage_size`.
    pub fn read_chunk(&self, start: &[usize]) -> Result<Option<RawChunk>, ReadError> {
        if start.len() != self.shape.len() || start.iter().zip(&self.shape).any(|(s, e)| s >= e) {
            let text = format!("no chunk starts at {start:?} of {:?}", self.shape);
            return Err(self.items(text.into()));
        }
        let offset: Vec<hsize_t> = start.iter().map(|&s| s as hsize_t).collect();
        hdf5::sync::sync(|| {
            let mut size: hsize_t = 0;
            // SAFETY: the dataset is alive, `offset` has one entry an axis, `size` is written by
            // the call, the library's lock is held.
            let known =
                unsafe { H5Dget_chunk_storage_size(self.dataset.id(), offset.as_ptr(), &mut size) };
            hdf5::h5check(known)?;
            if size == 0 {
                return Ok(None);
            }
            let mut bytes = vec![0u8; size as usize];
            let mut skipped = 0;
            // SAFETY: as above, and `bytes` has room for the stored size of this very chunk.
            hdf5::h5check(unsafe {
                hdf5_sys::h5d::H5Dread_chunk1(
                    self.dataset.id(),
                    hdf5_sys::h5p::H5P_DEFAULT,
                    offset.as_ptr(),
                    &mut skipped,
                    bytes.as_mut_ptr().cast(),
                )
            })?;
            Ok(Some(RawChunk { bytes: bytes.into(), skipped }))
        })
        .map_err(|source| self.items(source))
    }
}
