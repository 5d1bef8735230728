//! What the golden test needs: SHA-256 and `.npy` files.

use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use std::path::Path;

/// Reads a C-ordered little-endian `.npy` file of version 1.
pub fn npy(path: &Path) -> Array {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert_eq!(&bytes[..7], b"\x93NUMPY\x01", "{}", path.display());
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(header.contains("'fortran_order': False"), "{header}");
    let after = |key: &str| header.split_once(key).unwrap().1;
    let dtype = match after("'descr': '").split_once('\'').unwrap().0 {
        "|b1" => Dtype::Bool,
        "|u1" => Dtype::U8,
        "|i1" => Dtype::I8,
        "<u2" => Dtype::U16,
        "<i2" => Dtype::I16,
        "<u4" => Dtype::U32,
        "<i4" => Dtype::I32,
        "<i8" => Dtype::I64,
        "<f4" => Dtype::F32,
        "<f8" => Dtype::F64,
        other => panic!("{}: type {other}", path.display()),
    };
    let shape: Vec<usize> = after("'shape': (")
        .split_once(')')
        .unwrap()
        .0
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    Array::from_bytes(dtype, &shape, bytes[end..].to_vec().into()).unwrap()
}

/// Returns the SHA-256 of `data` in hexadecimal (FIPS 180-4).
pub fn sha256(data: &[u8]) -> String {
    let (k, mut h) = constants();
    let mut message = data.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend_from_slice(&(8 * data.len() as u64).to_be_bytes());
    for block in message.chunks_exact(64) {
        let mut w = [0u32; 64];
        for (w, b) in w.iter_mut().zip(block.chunks_exact(4)) {
            *w = u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
        }
        for t in 16..64 {
            let s0 = w[t - 15].rotate_right(7) ^ w[t - 15].rotate_right(18) ^ (w[t - 15] >> 3);
            let s1 = w[t - 2].rotate_right(17) ^ w[t - 2].rotate_right(19) ^ (w[t - 2] >> 10);
            w[t] = w[t - 16].wrapping_add(s0).wrapping_add(w[t - 7]).wrapping_add(s1);
        }
        let mut v = h;
        for t in 0..64 {
            let s1 = v[4].rotate_right(6) ^ v[4].rotate_right(11) ^ v[4].rotate_right(25);
            let choice = (v[4] & v[5]) ^ (!v[4] & v[6]);
            let t1 = [s1, choice, k[t], w[t]].into_iter().fold(v[7], u32::wrapping_add);
            let s0 = v[0].rotate_right(2) ^ v[0].rotate_right(13) ^ v[0].rotate_right(22);
            let majority = (v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]);
            v.rotate_right(1);
            v[4] = v[4].wrapping_add(t1);
            v[0] = t1.wrapping_add(s0.wrapping_add(majority));
        }
        h.iter_mut().zip(v).for_each(|(h, v)| *h = h.wrapping_add(v));
    }
    h.iter().map(|w| format!("{w:08x}")).collect()
}

/// First 32 bits of the fractional parts of the cube and square roots of the first primes.
fn constants() -> ([u32; 64], [u32; 8]) {
    let primes: Vec<u128> = (2u128..).filter(|n| (2..*n).all(|d| n % d != 0)).take(64).collect();
    let root = |n: u128, power: u32| {
        let (mut low, mut high) = (0u128, 1 << 40);
        while low + 1 < high {
            let middle = (low + high) / 2;
            if middle.pow(power) <= n { low = middle } else { high = middle }
        }
        low as u32
    };
    let mut k = [0; 64];
    k.iter_mut().zip(&primes).for_each(|(k, p)| *k = root(p << 96, 3));
    let mut h = [0; 8];
    h.iter_mut().zip(&primes).for_each(|(h, p)| *h = root(p << 64, 2));
    (k, h)
}
