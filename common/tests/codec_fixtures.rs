//! Chunks as HDF5 1.14 with the plugins of `hdf5plugin` wrote them: 2705 items `i * i / 3 % 251`.

#![allow(clippy::unwrap_used)]

use ptystream_common::codec::{Filter, decode, encode};

const ITEMS: u64 = 2705;

fn items(size: usize) -> Vec<u8> {
    (0..ITEMS).flat_map(|i| (i * i / 3 % 251).to_le_bytes()[..size].to_vec()).collect()
}

macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name, ".bin"))
    };
}

fn all() -> Vec<(&'static [u8], usize, Vec<Filter>)> {
    use Filter::{Bslz4, Deflate, Fletcher32, Lz4, Shuffle};
    vec![
        (fixture!("bslz4_u1"), 1, vec![Bslz4(1)]),
        (fixture!("bslz4_u2"), 2, vec![Bslz4(2)]),
        (fixture!("bslz4_u4"), 4, vec![Bslz4(4)]),
        (fixture!("bslz4_u8"), 8, vec![Bslz4(8)]),
        (fixture!("lz4_u2"), 2, vec![Lz4]),
        (fixture!("gzip_u2"), 2, vec![Deflate(4)]),
        (fixture!("shuffle_gzip_u4"), 4, vec![Shuffle(4), Deflate(4)]),
        (fixture!("shuffle_fletcher32_u2"), 2, vec![Shuffle(2), Fletcher32]),
        (fixture!("shuffle_gzip_fletcher32_u8"), 8, vec![Shuffle(8), Deflate(4), Fletcher32]),
    ]
}

#[test]
fn chunks_of_hdf5_decode_to_their_items() {
    let mut out = Vec::new();
    for (stored, size, filters) in all() {
        decode(&filters, stored, ITEMS as usize * size, &mut out)
            .unwrap_or_else(|e| panic!("{filters:?}: {e}"));
        assert!(out == items(size), "{filters:?} gives other items");
    }
}

#[test]
fn bit_rows_and_checksums_are_encoded_as_hdf5_does() {
    // LZ4 and zlib streams of two encoders may differ; what is deterministic must not.
    let mut out = Vec::new();
    encode(&[Filter::Shuffle(2), Filter::Fletcher32], &items(2), &mut out).unwrap();
    assert!(out == fixture!("shuffle_fletcher32_u2"));
    encode(&[Filter::Bslz4(2)], &items(2), &mut out).unwrap();
    assert_eq!(out[..12], fixture!("bslz4_u2")[..12], "header");
}
