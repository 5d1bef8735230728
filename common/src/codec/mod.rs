//! HDF5 filter pipelines on bytes, without the HDF5 library: what workers decode and encode.
//!
//! A frame travels as the detector or the raw file stored it and is decoded where it is prepared;
//! a prepared batch is encoded there too, so that the cost of compression scales with the pool.

use serde::{Deserialize, Serialize};
use std::ops::Range;

mod blosc;
mod bslz4;
mod deflate;
mod fletcher32;
mod lz4;
mod shuffle;

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
    /// Filter 32001: Blosc, with any of its inner codecs; read only. Bytes of an item.
    Blosc(u8),
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

/// Bytes that are not what their filters promise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[must_use]
pub enum CodecError {
    /// The bytes end too early, or hold something else.
    #[error("{filter} data are damaged: {what}")]
    Damaged {
        /// Which filter.
        filter: &'static str,
        /// What was wrong.
        what: &'static str,
    },
    /// The decoded length is not the frame's.
    #[error("{filter} data hold {got} bytes, the frame has {expected}")]
    Length {
        /// Which filter.
        filter: &'static str,
        /// What the frame needs.
        expected: usize,
        /// What the data say.
        got: u64,
    },
    /// The checksum does not match.
    #[error("fletcher32 checksum is {got:#010x}, the data give {expected:#010x}")]
    Checksum {
        /// From the data.
        expected: u32,
        /// Stored.
        got: u32,
    },
    /// A pipeline or filter that is not decoded here.
    #[error(
        "filter pipeline {0} cannot be decoded here: store the frames with gzip or bitshuffle-LZ4"
    )]
    Unsupported(String),
}

impl Filter {
    /// Returns the filter's number in HDF5.
    pub const fn id(self) -> i32 {
        match self {
            Self::Deflate(_) => 1,
            Self::Shuffle(_) => 2,
            Self::Fletcher32 => 3,
            Self::Bslz4(_) => 32008,
            Self::Lz4 => 32004,
            Self::Blosc(_) => 32001,
        }
    }

    /// Returns the filter's parameters as a dataset stores them.
    pub fn cd_values(self) -> Vec<u32> {
        match self {
            Self::Deflate(level) => vec![u32::from(level)],
            Self::Shuffle(size) => vec![u32::from(size)],
            Self::Fletcher32 => vec![],
            // Version 0.4 of the filter, item size, default block size, LZ4.
            Self::Bslz4(size) => vec![0, 4, u32::from(size), 0, 2],
            Self::Lz4 => vec![0],
            // Versions of the filter and the format, item size; the rest is in each container.
            Self::Blosc(size) => vec![2, 2, u32::from(size), 0],
        }
    }

    /// Finds the filter of an HDF5 number and its stored parameters.
    ///
    /// `item_size`: bytes of an item of the dataset, where the parameters do not say it.
    /// # Errors
    /// [`CodecError::Unsupported`] for all others, bitshuffle without LZ4 included.
    pub fn from_id(id: i32, cd_values: &[u32], item_size: usize) -> Result<Self, CodecError> {
        let at = |k: usize| cd_values.get(k).copied();
        let size = |value: Option<u32>| match value {
            Some(v @ 1..=255) => v as u8,
            _ => item_size as u8,
        };
        match id {
            1 => Ok(Self::Deflate(at(0).map_or(4, |level| level.min(9) as u8))),
            2 => Ok(Self::Shuffle(size(at(0)))),
            3 => Ok(Self::Fletcher32),
            32008 if at(4) == Some(2) => Ok(Self::Bslz4(size(at(2)))),
            32004 => Ok(Self::Lz4),
            32001 => Ok(Self::Blosc(size(at(2)))),
            _ => Err(CodecError::Unsupported(format!("{id} {cd_values:?}"))),
        }
    }

    const fn compresses(self) -> bool {
        matches!(self, Self::Deflate(_) | Self::Bslz4(_) | Self::Lz4 | Self::Blosc(_))
    }
}

/// Undoes `filters`, which were applied in this order; `out` is replaced.
///
/// Never allocates more than a small multiple of `expected_len`, whatever the bytes say.
/// # Errors
/// [`CodecError`] if the bytes do not decode to exactly `expected_len`.
pub fn decode(
    filters: &[Filter],
    bytes: &[u8],
    expected_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    decode_part(filters, bytes, expected_len, &(0..expected_len), out)
}

/// As [`decode`], for whoever needs no other bytes than those of `needed`: what `out` holds elsewhere is
/// of no meaning, and damage may go unnoticed there.
///
/// # Errors
/// As [`decode`].
pub fn decode_part(
    filters: &[Filter],
    bytes: &[u8],
    expected_len: usize,
    needed: &Range<usize>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    if filters.iter().filter(|f| f.compresses()).count() > 1 {
        return Err(CodecError::Unsupported(format!("{filters:?}")));
    }
    let mut lengths = Vec::with_capacity(filters.len());
    let mut len = expected_len;
    for filter in filters {
        lengths.push(len);
        if *filter == Filter::Fletcher32 {
            len += fletcher32::SIZE;
        }
    }
    let mut current: Option<Vec<u8>> = None;
    let mut cut = bytes.len();
    for (at, (filter, &len)) in filters.iter().zip(&lengths).enumerate().rev() {
        // What a filter before this one has made is needed as a whole.
        let needed = if at == 0 { needed.clone() } else { 0..len };
        let input = &current.as_deref().unwrap_or(bytes)[..cut];
        let mut next = Vec::new();
        match *filter {
            Filter::Fletcher32 => {
                cut = fletcher32::verify(input)?;
                continue;
            }
            Filter::Deflate(_) => deflate::decode(input, len, reuse(out, &mut next))?,
            Filter::Bslz4(size) => {
                bslz4::decode(input, size, len, &needed, reuse(out, &mut next))?;
            }
            Filter::Lz4 => lz4::decode(input, len, reuse(out, &mut next))?,
            Filter::Blosc(_) => blosc::decode(input, len, reuse(out, &mut next))?,
            Filter::Shuffle(size) => {
                check_len("shuffle", len, input.len() as u64)?;
                shuffle::decode(input, usize::from(size), reuse(out, &mut next));
            }
        }
        cut = next.len();
        // The buffer that was read from serves as the next stage's output.
        if let Some(free) = current.replace(next) {
            *out = free;
        }
    }
    check_len("stored", expected_len, cut as u64)?;
    match current {
        Some(mut done) => {
            done.truncate(cut);
            *out = done;
        }
        None => {
            out.clear();
            out.extend_from_slice(&bytes[..cut]);
        }
    }
    Ok(())
}

/// Applies `filters` in order; `out` is replaced.
///
/// # Errors
/// [`CodecError::Length`] if the bytes are not whole items of a filter that works on items;
/// [`CodecError::Unsupported`] for a filter that is only read.
pub fn encode(filters: &[Filter], bytes: &[u8], out: &mut Vec<u8>) -> Result<(), CodecError> {
    let mut current: Option<Vec<u8>> = None;
    for filter in filters {
        let input = current.as_deref().unwrap_or(bytes);
        let mut next = Vec::new();
        match *filter {
            Filter::Deflate(level) => deflate::encode(input, level, &mut next),
            Filter::Shuffle(size) => shuffle::encode(input, usize::from(size), &mut next),
            Filter::Fletcher32 => fletcher32::append(input, &mut next),
            Filter::Bslz4(size) => bslz4::encode(input, size, &mut next)?,
            Filter::Lz4 => lz4::encode(input, &mut next),
            Filter::Blosc(_) => return Err(CodecError::Unsupported("of blosc".into())),
        }
        current = Some(next);
    }
    match current {
        Some(done) => *out = done,
        None => {
            out.clear();
            out.extend_from_slice(bytes);
        }
    }
    Ok(())
}

/// Moves the caller's buffer, with whatever it holds, into `next`: clearing it would cost as much as a
/// copy of the frame.
fn reuse<'a>(out: &mut Vec<u8>, next: &'a mut Vec<u8>) -> &'a mut Vec<u8> {
    std::mem::swap(out, next);
    next
}

fn check_len(filter: &'static str, expected: usize, got: u64) -> Result<(), CodecError> {
    if got == expected as u64 { Ok(()) } else { Err(CodecError::Length { filter, expected, got }) }
}

/// Takes `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8], filter: &'static str) -> Result<[u8; N], CodecError> {
    let (head, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(CodecError::Damaged { filter, what: "it ends within a length" })?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pipelines(size: u8) -> Vec<Vec<Filter>> {
        let mut all: Vec<_> = [
            Compression::None,
            Compression::Gzip(1),
            Compression::ShuffleGzip(4),
            Compression::Bslz4,
        ]
        .map(|c| c.filters(usize::from(size)))
        .into();
        all.push(vec![Filter::Lz4]);
        all.push(vec![Filter::Shuffle(size), Filter::Fletcher32]);
        all.push(vec![Filter::Shuffle(size), Filter::Deflate(6), Filter::Fletcher32]);
        all.push(vec![Filter::Fletcher32, Filter::Bslz4(size)]);
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_encoded_decodes(
            items in proptest::collection::vec(0u64..9, 0..3000),
            log_size in 0u32..4,
        ) {
            let size = 1usize << log_size;
            let bytes: Vec<u8> =
                items.iter().flat_map(|v| v.to_le_bytes()[..size].to_vec()).collect();
            let (mut stored, mut back) = (Vec::new(), vec![7; 5]);
            for filters in pipelines(size as u8) {
                // A checksum is no whole item, so bitshuffle can follow it only for small ones.
                if filters[..].first() == Some(&Filter::Fletcher32) && size > 4 { continue; }
                encode(&filters, &bytes, &mut stored).unwrap();
                decode(&filters, &stored, bytes.len(), &mut back).unwrap();
                prop_assert_eq!(&back, &bytes);
                prop_assert!(decode(&filters, &stored, bytes.len() + size, &mut back).is_err());
            }
        }

        #[test]
        fn damaged_bytes_neither_panic_nor_allocate_much(
            items in proptest::collection::vec(0u16..9, 1..3000),
            cut in any::<prop::sample::Index>(),
            flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..4),
        ) {
            let bytes: Vec<u8> = items.iter().flat_map(|v| v.to_le_bytes()).collect();
            for filters in pipelines(2) {
                let (mut stored, mut back) = (Vec::new(), Vec::new());
                encode(&filters, &bytes, &mut stored).unwrap();
                for (place, bit) in &flips {
                    let place = place.index(stored.len());
                    stored[place] ^= 1 << bit;
                }
                let short = &stored[..cut.index(stored.len())];
                for damaged in [&stored[..], short] {
                    if decode(&filters, damaged, bytes.len(), &mut back).is_ok() {
                        prop_assert_eq!(back.len(), bytes.len());
                    }
                    prop_assert!(back.capacity() <= 4 * bytes.len() + 64);
                }
                prop_assert!(decode(&filters, short, bytes.len(), &mut back).is_err());
            }
        }
    }

    #[test]
    fn hdf5_numbers_and_parameters_come_back() {
        for filter in [
            Filter::Deflate(4),
            Filter::Shuffle(8),
            Filter::Fletcher32,
            Filter::Bslz4(2),
            Filter::Lz4,
        ] {
            assert_eq!(Filter::from_id(filter.id(), &filter.cd_values(), 2), Ok(filter));
        }
        assert!(Filter::from_id(32008, &[0, 4, 2, 0, 3], 2).is_err(), "bitshuffle-zstd");
        assert!(Filter::from_id(32015, &[], 2).is_err());
    }

    #[test]
    fn two_compressors_are_refused() {
        let mut out = Vec::new();
        let filters = [Filter::Lz4, Filter::Deflate(1)];
        assert!(matches!(decode(&filters, &[], 8, &mut out), Err(CodecError::Unsupported(_))));
    }
}
