//! Hashes of bytes: identities and integrity, not security.

/// Returns the 128-bit XXH3 hash of `bytes`.
pub fn digest(bytes: &[u8]) -> u128 {
    xxhash_rust::xxh3::xxh3_128(bytes)
}
