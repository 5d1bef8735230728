//! Parts of a message out of bytes: each with its length before it, two bytes, little-endian.

use bytes::Bytes;

pub fn parts(data: &[u8]) -> Vec<Bytes> {
    let (mut rest, mut parts) = (data, Vec::new());
    while let Some((head, tail)) = rest.split_at_checked(2) {
        let length = usize::from(u16::from_le_bytes([head[0], head[1]])).min(tail.len());
        let (part, others) = tail.split_at(length);
        parts.push(Bytes::copy_from_slice(part));
        rest = others;
    }
    parts
}
