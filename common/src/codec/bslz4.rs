//! HDF5 filter 32008: bitshuffle, then LZ4.
//!
//! | bytes | what |
//! |---|---|
//! | 8, big-endian | decoded length |
//! | 4, big-endian | block length, decoded: a multiple of 8 items |
//! | then per block: 4, big-endian | stored length |
//! | stored length | LZ4 block of the bit-shuffled items |
//! | last | the fewer than 8 items that are left, as they are |
//!
//! The last block is what remains, rounded down to a multiple of 8 items. Bit-shuffled items are
//! rows of bits: first bit 0 of byte 0 of every item (8 items a byte, the first in the lowest
//! bit), then bit 1, and so on through all bytes.

use super::{CodecError, check_len, shuffle, take};
use lz4_flex::block;
use std::ops::Range;

const NAME: &str = "bitshuffle-LZ4";
/// Block length that the filter chooses unless told otherwise.
const BLOCK: usize = 8192;

/// Decodes the blocks in which bytes of `needed` lie; what `out` holds elsewhere is of no meaning.
pub(super) fn decode(
    mut input: &[u8],
    size: u8,
    len: usize,
    needed: &Range<usize>,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let damaged = |what| CodecError::Damaged { filter: NAME, what };
    let size = usize::from(size);
    check_len(NAME, len, u64::from_be_bytes(take(&mut input, NAME)?))?;
    let block_len = u32::from_be_bytes(take(&mut input, NAME)?) as usize;
    if size == 0 || block_len == 0 || !block_len.is_multiple_of(8 * size) {
        return Err(damaged("its block length is no multiple of 8 items"));
    }
    if !len.is_multiple_of(size) {
        return Err(damaged("the frame is no whole number of items"));
    }
    out.resize(len, 0);
    let shuffled_len = len / (8 * size) * (8 * size);
    let (shuffled, rest) = out.split_at_mut(shuffled_len);
    let mut bits = vec![0u8; block_len.min(shuffled_len)];
    let mut planes = vec![0u8; bits.len()];
    for (n, target) in shuffled.chunks_mut(block_len).enumerate() {
        let stored = u32::from_be_bytes(take(&mut input, NAME)?) as usize;
        let (bytes, after) = input.split_at_checked(stored).ok_or(damaged("it ends in a block"))?;
        input = after;
        let place = n * block_len;
        if place >= needed.end || place + target.len() <= needed.start {
            continue;
        }
        let bits = &mut bits[..target.len()];
        if block::decompress_into(bytes, bits).ok() != Some(target.len()) {
            return Err(damaged("a block does not decode to its length"));
        }
        if size == 1 {
            rows_to_planes(bits, size, target);
        } else {
            let planes = &mut planes[..target.len()];
            rows_to_planes(bits, size, planes);
            shuffle::decode_into(planes, size, target);
        }
    }
    if input.len() != rest.len() {
        return Err(damaged("what follows the last block is not the rest of the items"));
    }
    rest.copy_from_slice(input);
    Ok(())
}

pub(super) fn encode(input: &[u8], size: u8, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let size = usize::from(size);
    if size == 0 || !input.len().is_multiple_of(size) {
        let what = "the frame is no whole number of items";
        return Err(CodecError::Damaged { filter: NAME, what });
    }
    let group = 8 * size;
    let block_len = (BLOCK / group).max(1) * group;
    out.extend_from_slice(&(input.len() as u64).to_be_bytes());
    out.extend_from_slice(&(block_len as u32).to_be_bytes());
    let (shuffled, rest) = input.split_at(input.len() / group * group);
    let mut planes = Vec::new();
    let mut bits = vec![0u8; block_len];
    let mut packed = vec![0u8; block::get_maximum_output_size(block_len)];
    for source in shuffled.chunks(block_len) {
        planes.clear();
        shuffle::encode(source, size, &mut planes);
        let bits = &mut bits[..source.len()];
        planes_to_rows(&planes, size, bits);
        let stored = block::compress_into(bits, &mut packed)
            .expect("the buffer has the size that LZ4 needs at most");
        out.extend_from_slice(&(stored as u32).to_be_bytes());
        out.extend_from_slice(&packed[..stored]);
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// Turns the rows of bits of each byte plane into that plane.
fn rows_to_planes(bits: &[u8], size: usize, planes: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2, as was asked above.
        return unsafe { rows_to_planes_avx2(bits, size, planes) };
    }
    rows_to_planes_portable(bits, size, planes);
}

/// As [`rows_to_planes_portable`], compiled for AVX2.
///
/// # Safety
/// The processor has to have AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn rows_to_planes_avx2(bits: &[u8], size: usize, planes: &mut [u8]) {
    rows_to_planes_portable(bits, size, planes);
}

#[inline(always)]
fn rows_to_planes_portable(bits: &[u8], size: usize, planes: &mut [u8]) {
    let plane = bits.len() / size;
    for (rows, plane) in bits.chunks_exact(plane).zip(planes.chunks_exact_mut(plane)) {
        let n = plane.len() / 8;
        let rows: [&[u8]; 8] = std::array::from_fn(|k| &rows[k * n..][..n]);
        for (m, to) in plane.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut x = 0u64;
            for (k, row) in rows.iter().enumerate() {
                x |= u64::from(row[m]) << (8 * k);
            }
            *to = transpose_bits(x).to_le_bytes();
        }
    }
}

/// Turns each byte plane into its rows of bits.
fn planes_to_rows(planes: &[u8], size: usize, bits: &mut [u8]) {
    let plane = planes.len() / size;
    for (plane, rows) in planes.chunks_exact(plane).zip(bits.chunks_exact_mut(plane)) {
        let n = plane.len() / 8;
        for (m, from) in plane.as_chunks::<8>().0.iter().enumerate() {
            let x = transpose_bits(u64::from_le_bytes(*from)).to_le_bytes();
            for (k, byte) in x.into_iter().enumerate() {
                rows[k * n + m] = byte;
            }
        }
    }
}

/// Swaps bit j of byte i and bit i of byte j.
#[inline(always)]
fn transpose_bits(mut x: u64) -> u64 {
    let mut t = (x ^ (x >> 7)) & 0x00aa_00aa_00aa_00aa;
    x ^= t ^ (t << 7);
    t = (x ^ (x >> 14)) & 0x0000_cccc_0000_cccc;
    x ^= t ^ (t << 14);
    t = (x ^ (x >> 28)) & 0x0000_0000_f0f0_f0f0;
    x ^ t ^ (t << 28)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_blocks_that_are_needed_are_decoded() {
        let items: Vec<u8> = (0..3 * BLOCK + 5).map(|k| (k / 7) as u8).collect();
        let mut stored = Vec::new();
        encode(&items, 1, &mut stored).unwrap();
        let mut out = Vec::new();
        for needed in
            [0..1, 0..0, BLOCK - 1..BLOCK + 1, BLOCK..2 * BLOCK, 3 * BLOCK - 1..items.len()]
        {
            out.clear();
            decode(&stored, 1, items.len(), &needed, &mut out).unwrap();
            assert_eq!((&out[needed.clone()], out.len()), (&items[needed.clone()], items.len()));
            for (k, block) in out[..3 * BLOCK].chunks(BLOCK).enumerate() {
                let overlaps = k * BLOCK < needed.end && (k + 1) * BLOCK > needed.start;
                assert_eq!(block.iter().all(|&b| b == 0), !overlaps, "block {k} for {needed:?}");
            }
        }
        let cut = &stored[..stored.len() - 1];
        assert!(
            decode(cut, 1, items.len(), &(0..1), &mut out).is_err(),
            "it is truncated elsewhere"
        );
    }

    #[test]
    fn headers_that_lie_are_refused() {
        let items = [3u8; 64];
        let mut good = Vec::new();
        encode(&items, 2, &mut good).unwrap();
        let mut out = Vec::new();
        decode(&good, 2, 64, &(0..64), &mut out).unwrap();
        let with = |place: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[place] = value;
            bytes
        };
        let refused =
            |bytes: &[u8], out: &mut Vec<u8>| decode(bytes, 2, 64, &(0..64), out).is_err();
        assert!(refused(&[0; 12], &mut out), "a header of zeros");
        assert!(refused(&with(7, 63), &mut out), "another total");
        assert!(refused(&with(0, 255), &mut out), "an absurd total");
        assert!(refused(&with(11, 8), &mut out), "half a group a block");
        assert!(refused(&with(12, 255), &mut out), "a block beyond the end");
        assert!(refused(&[&good[..], &[0]].concat(), &mut out), "bytes after the end");
        assert!(refused(&good[..good.len() - 1], &mut out), "truncated");
    }
}
