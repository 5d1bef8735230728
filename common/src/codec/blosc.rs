//! Filter 32001: Blosc, version 1 of its format, with any of its inner codecs.
//!
//! # Source
//! c-blosc, README_CHUNK_FORMAT: the container says its length and how it is compressed.

use super::{CodecError, check_len};

const DAMAGED: CodecError =
    CodecError::Damaged { filter: "blosc", what: "the container is not whole" };

/// Decompresses a container to exactly `expected_len` bytes.
///
/// # Errors
/// [`CodecError`] if it is damaged or of another length; checked before memory is taken.
pub(super) fn decode(
    bytes: &[u8],
    expected_len: usize,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    let mut length = 0usize;
    // SAFETY: the pointer is valid for `bytes.len()` bytes, which is what the call is told, and `length`
    // lives through it.
    let valid = unsafe {
        blosc_src::blosc_cbuffer_validate(bytes.as_ptr().cast(), bytes.len(), &mut length)
    };
    if bytes.len() < blosc_src::BLOSC_MIN_HEADER_LENGTH as usize || valid < 0 {
        return Err(DAMAGED);
    }
    check_len("blosc", expected_len, length as u64)?;
    out.resize(expected_len, 0);
    // SAFETY: the container has been validated to lie within `bytes`; it decompresses to `expected_len`
    // bytes, which `out` has, and the library writes no more than it is told there is room for.
    let got = unsafe {
        blosc_src::blosc_decompress_ctx(
            bytes.as_ptr().cast(),
            out.as_mut_ptr().cast(),
            out.len(),
            1,
        )
    };
    if got < 0 || got as usize != expected_len {
        return Err(DAMAGED);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(bytes: &[u8], item: usize, codec: &std::ffi::CStr) -> Vec<u8> {
        let mut out = vec![0u8; bytes.len() + 16];
        // SAFETY: both buffers are as long as the call is told; the name ends with a zero.
        let n = unsafe {
            blosc_src::blosc_compress_ctx(
                5,
                1,
                item,
                bytes.len(),
                bytes.as_ptr().cast(),
                out.as_mut_ptr().cast(),
                out.len(),
                codec.as_ptr(),
                0,
                1,
            )
        };
        assert!(n > 0, "{codec:?}");
        out.truncate(n as usize);
        out
    }

    #[test]
    fn all_inner_codecs_come_back() {
        let bytes: Vec<u8> = (0..20_000u32).flat_map(|i| ((i / 7) as u16).to_le_bytes()).collect();
        for codec in [c"blosclz", c"lz4", c"lz4hc", c"zlib", c"zstd", c"snappy"] {
            let packed = encode(&bytes, 2, codec);
            let mut out = Vec::new();
            decode(&packed, bytes.len(), &mut out).unwrap();
            assert_eq!(out, bytes, "{codec:?}");
            let length = decode(&packed, bytes.len() + 2, &mut out).unwrap_err();
            assert!(matches!(length, CodecError::Length { .. }), "{length}");
            assert!(decode(&packed[..packed.len() / 2], bytes.len(), &mut out).is_err());
        }
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_other_bytes(at in 0usize..400, to in any::<u8>(), cut in 0usize..400) {
            let bytes: Vec<u8> = (0..4000u32).map(|i| (i / 5) as u8).collect();
            let mut packed = encode(&bytes, 1, c"lz4");
            let at = at % packed.len();
            packed[at] = to;
            packed.truncate(packed.len().saturating_sub(cut % 20));
            let mut out = Vec::new();
            if decode(&packed, bytes.len(), &mut out).is_ok() {
                prop_assert_eq!(out.len(), bytes.len());
            }
        }
    }
}
