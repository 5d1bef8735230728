//! Hashes of bytes: identities and integrity, not security.
//!
//! Raw pixels are summed where they are read and checked before they are prepared; prepared ones
//! are summed by the worker, checked by the sink and kept in the file ([`crate::ptyd::sums`]).

use bytes::Bytes;

/// Returns the 128-bit XXH3 hash of `bytes`.
pub fn digest(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

/// Returns the 64-bit XXH3 hash of `bytes`, seed 0.
pub fn sum(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Returns the sum of each payload part of a message.
pub fn sums(parts: &[Bytes]) -> Vec<u64> {
    parts.iter().map(|part| sum(part)).collect()
}

/// Tells whether parts are what their sums say; without sums nothing is known against them.
pub fn are_whole(parts: &[Bytes], sums: Option<&[u64]>) -> bool {
    sums.is_none_or(|sums| parts.iter().zip(sums).all(|(part, &said)| sum(part) == said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flipped_bit_is_seen() {
        let parts = [Bytes::from(vec![7u8; 1000]), Bytes::from_static(b"weights")];
        let said = sums(&parts);
        assert!(are_whole(&parts, Some(&said)) && are_whole(&parts, None));
        let mut other = parts[0].to_vec();
        other[501] ^= 4;
        assert!(!are_whole(&[other.into(), parts[1].clone()], Some(&said)));
    }

    #[test]
    fn the_sum_is_that_of_the_published_algorithm() {
        // From the reference implementation's own tests: the empty input.
        assert_eq!(sum(b""), 0x2d06_8005_38d3_94c2);
    }
}
