//! Hashes of bytes: identities and integrity, not security.
//!
//! Raw pixels are summed where they are read and checked before they are prepared; prepared ones
//! are summed by the worker, checked by the sink and kept in the file ([`crate::ptyd::sums`]).

use bytes::Bytes;

/// Returns the 128-bit XXH3 hash of `bytes`.
pub fn digest(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}

/// Returns the CRC-32 of `bytes`.
///
/// # Source
/// IEEE 802.3, as zlib's `crc32`. It finds every burst of up to 32 bits, and of any other change all
/// but one in 2³²; of the hashes tried it is the one that does not show beside the preparation.
pub fn sum(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Returns the sum of each payload part of a message.
pub fn sums(parts: &[Bytes]) -> Vec<u32> {
    parts.iter().map(|part| sum(part)).collect()
}

/// Tells whether parts are what their sums say; without sums nothing is known against them.
pub fn are_whole(parts: &[Bytes], sums: Option<&[u32]>) -> bool {
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
        // The check value that every description of it gives.
        assert_eq!(sum(b"123456789"), 0xcbf4_3926);
    }
}
