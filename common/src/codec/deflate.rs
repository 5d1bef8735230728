//! HDF5 filter 1: a zlib stream.

use super::{CodecError, check_len};
use libdeflater::{CompressionLvl, Compressor, DecompressionError, Decompressor};
use std::cell::RefCell;

thread_local! {
    // Their tables cost more to make than a small frame takes to decode.
    static DECOMPRESSOR: RefCell<Decompressor> = RefCell::new(Decompressor::new());
    static COMPRESSOR: RefCell<Option<(u8, Compressor)>> = const { RefCell::new(None) };
}

const NAME: &str = "gzip";

pub(super) fn decode(input: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.resize(len, 0);
    let got = DECOMPRESSOR.with_borrow_mut(|d| d.zlib_decompress(input, out)).map_err(|e| {
        CodecError::Damaged {
            filter: NAME,
            what: match e {
                DecompressionError::BadData => "it is no zlib stream",
                DecompressionError::InsufficientSpace => "it holds more than the frame has",
            },
        }
    })?;
    check_len(NAME, len, got as u64)
}

pub(super) fn encode(input: &[u8], level: u8, out: &mut Vec<u8>) {
    let level = level.min(12);
    COMPRESSOR.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(have, _)| *have != level) {
            let checked = CompressionLvl::new(i32::from(level)).unwrap_or_default();
            *slot = Some((level, Compressor::new(checked)));
        }
        let Some((_, compressor)) = slot else { return };
        out.resize(compressor.zlib_compress_bound(input.len()), 0);
        let got = compressor
            .zlib_compress(input, out)
            .expect("the buffer has the size that libdeflate says is enough for any input");
        out.truncate(got);
    });
}
