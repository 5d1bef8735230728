//! Compressed pixels: the first byte chooses filter and item size, the next two how long they are to be.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ptystream_common::codec::{self, Filter};

fuzz_target!(|data: &[u8]| {
    let [how, low, high, rest @ ..] = data else { return };
    let filter = match how % 6 {
        0 => Filter::Bslz4(1),
        1 => Filter::Bslz4(2),
        2 => Filter::Bslz4(4),
        3 => Filter::Bslz4(8),
        4 => Filter::Lz4,
        _ => Filter::Blosc(2),
    };
    let expected = usize::from(u16::from_le_bytes([*low, *high]));
    let mut out = Vec::new();
    if codec::decode(&[filter], rest, expected, &mut out).is_ok() {
        assert_eq!(out.len(), expected);
    }
});
