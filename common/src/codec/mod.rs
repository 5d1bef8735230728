//! HDF5 filter pipelines on bytes, without the HDF5 library: what workers decode and encode.
//!
//! A frame travels as the detector or the raw file stored it and is decoded where it is prepared;
//! a prepared batch is encoded there too, so that the cost of compression scales with the pool.

use serde::{Deserialize, Serialize};

/// One HDF5 filter with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// Filter 1: zlib stream; the level matters to the encoder only.
    Deflate(u8),
    /// Filter 2: byte shuffle over items of this many bytes.
    Shuffle(u8),
    /// Filter 3: Fletcher-32 checksum appended.
    Fletcher32,
    /// Filter 32008: bitshuffle over items of this many bytes, then LZ4, in 12-byte-header framing.
    Bslz4(u8),
    /// Filter 32004: LZ4 in HDF5 framing.
    Lz4,
}

/// How a frame's payload is encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Plain little-endian pixels.
    #[default]
    Raw,
    /// The bytes of one HDF5 chunk; filters in the order in which they were applied.
    Filters(Vec<Filter>),
}

/// Compression of the prepared data, as the user chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Stored as they are.
    None,
    /// zlib of this level: what every reader opens.
    Gzip(u8),
    /// Byte shuffle, then zlib of this level.
    ShuffleGzip(u8),
    /// Bitshuffle-LZ4 (filter 32008): readers need the plugin, such as `hdf5plugin`.
    Bslz4,
}

impl Compression {
    /// Returns the HDF5 filters of a dataset whose items have `item_size` bytes.
    pub fn filters(self, item_size: usize) -> Vec<Filter> {
        let size = item_size as u8;
        match self {
            Self::None => vec![],
            Self::Gzip(level) => vec![Filter::Deflate(level)],
            Self::ShuffleGzip(level) => vec![Filter::Shuffle(size), Filter::Deflate(level)],
            Self::Bslz4 => vec![Filter::Bslz4(size)],
        }
    }
}
