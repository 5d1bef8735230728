//! HDF5 filter 32004: LZ4 blocks.
//!
//! | bytes | what |
//! |---|---|
//! | 8, big-endian | decoded length |
//! | 4, big-endian | block length, decoded |
//! | then per block: 4, big-endian | stored length; equal to the block's own: not compressed |
//! | stored length | the block |

use super::{CodecError, check_len, take};
use lz4_flex::block;

const NAME: &str = "LZ4";
const BLOCK_MAX: usize = 1 << 30;

pub(super) fn decode(mut input: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    let damaged = |what| CodecError::Damaged { filter: NAME, what };
    check_len(NAME, len, u64::from_be_bytes(take(&mut input, NAME)?))?;
    let block_len = u32::from_be_bytes(take(&mut input, NAME)?) as usize;
    if block_len == 0 && len > 0 {
        return Err(damaged("its block length is 0"));
    }
    out.resize(len, 0);
    for block in out.chunks_mut(block_len.max(1)) {
        let stored = u32::from_be_bytes(take(&mut input, NAME)?) as usize;
        let (bytes, rest) = input.split_at_checked(stored).ok_or(damaged("it ends in a block"))?;
        input = rest;
        if stored == block.len() {
            block.copy_from_slice(bytes);
        } else if block::decompress_into(bytes, block).ok() != Some(block.len()) {
            return Err(damaged("a block does not decode to its length"));
        }
    }
    if input.is_empty() { Ok(()) } else { Err(damaged("bytes follow the last block")) }
}

pub(super) fn encode(input: &[u8], out: &mut Vec<u8>) {
    let block_len = input.len().clamp(1, BLOCK_MAX);
    out.extend_from_slice(&(input.len() as u64).to_be_bytes());
    out.extend_from_slice(&(block_len as u32).to_be_bytes());
    for block in input.chunks(block_len) {
        let packed = block::compress(block);
        let stored = if packed.len() < block.len() { &packed } else { block };
        out.extend_from_slice(&(stored.len() as u32).to_be_bytes());
        out.extend_from_slice(stored);
    }
}
