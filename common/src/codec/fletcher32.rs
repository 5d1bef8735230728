//! HDF5 filter 3: a Fletcher-32 checksum, little-endian, after the data.
//!
//! # Source
//! HDF5 file format specification, "Fletcher32 filter"; big-endian 16-bit words, an odd last byte
//! counts as the high byte of a word.

use super::CodecError;

/// Bytes of the checksum.
pub(super) const SIZE: usize = 4;
/// Words after which a sum of 16-bit words may overflow 32 bits.
const BLOCK: usize = 360;

/// Checks the checksum; returns the length without it.
pub(super) fn verify(input: &[u8]) -> Result<usize, CodecError> {
    let (data, stored) = input.split_last_chunk::<SIZE>().ok_or(CodecError::Damaged {
        filter: "fletcher32",
        what: "it is shorter than a checksum",
    })?;
    let (expected, got) = (checksum(data), u32::from_le_bytes(*stored));
    if expected == got { Ok(data.len()) } else { Err(CodecError::Checksum { expected, got }) }
}

pub(super) fn append(input: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(input);
    out.extend_from_slice(&checksum(input).to_le_bytes());
}

fn checksum(data: &[u8]) -> u32 {
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (mut low, mut high) = (0u32, 0u32);
    for block in data.chunks(2 * BLOCK) {
        for word in block.chunks(2) {
            low += u32::from(word[0]) << 8 | word.get(1).map_or(0, |&b| u32::from(b));
            high += low;
        }
        (low, high) = (fold(low), fold(high));
    }
    (low, high) = (fold(low), fold(high));
    high << 16 | low
}
