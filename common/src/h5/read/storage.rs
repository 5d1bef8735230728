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
const BLOSC: i32 = 32001;
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
            H::User(BLOSC, _) => Some(Filter::Blosc(size)),
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

    /// Reads the chunk whose first item lies at `start`, as it is stored; `None` if it is not
    /// stored, so that it reads as fill values.
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
            // The library answers 0 or an error for a chunk that was never written; whoever asks
            // goes on to `read_slab`, which reports any other fault.
            if known < 0 || size == 0 {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::H5File;
    use super::*;

    #[test]
    fn storage_tells_how_the_bytes_lie() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.h5");
        let items: Vec<u16> = (0..60).collect();
        let mut builder = hdf5::File::with_options();
        let made = builder.with_fcpl(|p| p.userblock(512)).create(&path).unwrap();
        let new = || made.new_dataset::<u16>().shape((3, 4, 5));
        let fill = |d: hdf5::Dataset| d.write_raw(&items).unwrap();
        fill(new().create("plain").unwrap());
        fill(new().chunk((1, 4, 5)).shuffle().deflate(3).fletcher32().create("gzip").unwrap());
        fill(
            new()
                .chunk((2, 4, 5))
                .scale_offset(hdf5::filters::ScaleOffset::Integer(0))
                .create("scaled")
                .unwrap(),
        );
        made.new_dataset::<u16>().shape((3, 4, 5)).chunk((1, 4, 5)).create("unwritten").unwrap();
        made.close().unwrap();

        let file = H5File::open(&path).unwrap();
        let Storage::Plain { file: place, offset } =
            file.dataset("plain").unwrap().storage().unwrap()
        else {
            panic!("one piece")
        };
        let bytes = std::fs::read(place).unwrap();
        let from_file: Vec<u16> = bytes[offset as usize..][..120]
            .chunks(2)
            .map(|b| u16::from_le_bytes([b[0], b[1]]))
            .collect();
        assert_eq!(from_file, items, "behind the user block");

        let gzip = file.dataset("gzip").unwrap();
        let filters = vec![Filter::Shuffle(2), Filter::Deflate(3), Filter::Fletcher32];
        let extent = vec![1, 4, 5];
        assert_eq!(gzip.storage().unwrap(), Storage::Chunks { extent: extent.clone(), filters });
        let chunk = gzip.read_chunk(&[1, 0, 0]).unwrap().unwrap();
        assert_eq!(chunk.skipped, 0);
        let (body, sum) = chunk.bytes.split_at(chunk.bytes.len() - 4);
        assert_eq!(sum.len(), 4);
        let mut shuffled = vec![0; 40];
        libdeflater::Decompressor::new().zlib_decompress(body, &mut shuffled).unwrap();
        let low: Vec<u8> = (20..40).collect();
        assert_eq!(shuffled, [low, vec![0; 20]].concat());
        assert!(gzip.read_chunk(&[3, 0, 0]).is_err());

        let scaled = file.dataset("scaled").unwrap();
        assert_eq!(scaled.storage().unwrap(), Storage::Library { chunk: Some(vec![2, 4, 5]) });
        let unwritten = file.dataset("unwritten").unwrap();
        assert_eq!(unwritten.storage().unwrap(), Storage::Chunks { extent, filters: vec![] });
        assert_eq!(unwritten.read_chunk(&[0, 0, 0]).unwrap(), None);
    }

    /// Makes an empty dataset of `[4, 8, 8]` u16 with a filter that is not installed.
    fn with_filter(
        file: &hdf5::File,
        key: &str,
        chunk: (usize, usize, usize),
        id: i32,
        values: &[u32],
    ) {
        let plist = hdf5::plist::DatasetCreate::build().chunk(chunk).finish().unwrap();
        let item = hdf5::Datatype::from_type::<u16>().unwrap();
        let space = hdf5::Dataspace::try_new((4, 8, 8)).unwrap();
        let name = std::ffi::CString::new(key).unwrap();
        let default = hdf5_sys::h5p::H5P_DEFAULT;
        let made = hdf5::sync::sync(|| {
            // SAFETY: all identifiers are alive, `values` and `name` outlive the calls; the new
            // identifier is owned by the returned dataset.
            unsafe {
                let optional = hdf5_sys::h5z::H5Z_FLAG_OPTIONAL;
                hdf5_sys::h5p::H5Pset_filter(
                    plist.id(),
                    id,
                    optional,
                    values.len(),
                    values.as_ptr(),
                );
                let dataset = hdf5_sys::h5d::H5Dcreate2(
                    file.id(),
                    name.as_ptr(),
                    item.id(),
                    space.id(),
                    default,
                    plist.id(),
                    default,
                );
                hdf5::from_id::<hdf5::Dataset>(dataset)
            }
        });
        made.unwrap();
    }

    #[test]
    fn filters_that_workers_decode_need_not_be_installed_and_others_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("in.h5");
        let made = hdf5::File::create(&path).unwrap();
        with_filter(&made, "bslz4", (1, 8, 8), BSLZ4, &[0, 4, 2, 0, 2]);
        with_filter(&made, "bszstd", (1, 8, 8), BSLZ4, &[0, 4, 2, 0, 3]);
        with_filter(&made, "lz4", (2, 8, 8), LZ4, &[]);
        with_filter(&made, "strange", (1, 8, 8), 31999, &[]);
        made.close().unwrap();
        let file = H5File::open(&path).unwrap();
        let storage = |key: &str| file.dataset(key).unwrap().storage().unwrap();
        let chunks = |extent: [usize; 3], filter| Storage::Chunks {
            extent: extent.to_vec(),
            filters: vec![filter],
        };
        assert_eq!(storage("bslz4"), chunks([1, 8, 8], Filter::Bslz4(2)));
        assert_eq!(storage("lz4"), chunks([2, 8, 8], Filter::Lz4));
        assert_eq!(storage("bszstd"), Storage::Library { chunk: Some(vec![1, 8, 8]) });
        assert_eq!(storage("strange"), Storage::Library { chunk: Some(vec![1, 8, 8]) });
        let strange = file.dataset("strange").unwrap();
        for error in [strange.ensure_decodable().unwrap_err(), strange.read().unwrap_err()] {
            let text = error.to_string();
            assert!(
                text.contains("'strange' in '") && text.contains("HDF5 filter 31999"),
                "{text}"
            );
            assert!(text.contains("repack the file"), "{text}");
        }
    }
}
