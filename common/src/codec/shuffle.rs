//! HDF5 filter 2: bytes of the same significance side by side.
//!
//! Items that do not fill up the buffer, and what is left after the last whole item, stay.

pub(super) fn encode(input: &[u8], size: usize, out: &mut Vec<u8>) {
    out.resize(input.len(), 0);
    let whole = whole_items(input.len(), size);
    if size < 2 || whole == 0 {
        return out.copy_from_slice(input);
    }
    for (k, plane) in out[..whole].chunks_exact_mut(whole / size).enumerate() {
        for (to, item) in plane.iter_mut().zip(input.chunks_exact(size)) {
            *to = item[k];
        }
    }
    out[whole..].copy_from_slice(&input[whole..]);
}

pub(super) fn decode(input: &[u8], size: usize, out: &mut Vec<u8>) {
    out.resize(input.len(), 0);
    decode_into(input, size, out);
}

/// As [`decode`], into a slice of the input's length.
pub(super) fn decode_into(input: &[u8], size: usize, out: &mut [u8]) {
    let whole = whole_items(input.len(), size);
    if size < 2 || whole == 0 {
        return out.copy_from_slice(input);
    }
    match size {
        2 => interleave::<2>(&input[..whole], &mut out[..whole]),
        4 => interleave::<4>(&input[..whole], &mut out[..whole]),
        8 => interleave::<8>(&input[..whole], &mut out[..whole]),
        _ => {
            for (k, plane) in input[..whole].chunks_exact(whole / size).enumerate() {
                for (from, item) in plane.iter().zip(out.chunks_exact_mut(size)) {
                    item[k] = *from;
                }
            }
        }
    }
    out[whole..].copy_from_slice(&input[whole..]);
}

fn interleave<const N: usize>(planes: &[u8], out: &mut [u8]) {
    let n = out.len() / N;
    let planes: [&[u8]; N] = std::array::from_fn(|k| &planes[k * n..][..n]);
    for (i, item) in out.chunks_exact_mut(N).enumerate() {
        for k in 0..N {
            item[k] = planes[k][i];
        }
    }
}

fn whole_items(len: usize, size: usize) -> usize {
    len.checked_div(size).map_or(0, |items| items * size)
}
