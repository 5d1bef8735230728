//! Bytes of the spool.
//!
//! A spool is a row of segments, `<stem>.spool.000000` and so on. Numbers are little-endian.
//!
//! | segment | bytes | content |
//! |---|---|---|
//! | header | 0..8 | magic `PTYSPOOL` |
//! | | 8..12 | [`VERSION`] |
//! | | 12..44 | scan key, 32 hexadecimal digits |
//! | | 44..52 | low half of XXH3 (128 bit) of bytes 0..44 |
//! | records | 52.. | one after the other, to the end of the file |
//!
//! | record | bytes | content |
//! |---|---|---|
//! | header | 0..4 | magic `FRAM` |
//! | | 4..12 | index |
//! | | 12 | type of the pixels: its place in [`Dtype::ALL`] |
//! | | 13..21 | rows, columns |
//! | | 21 | number of filters; 0: the pixels are not encoded |
//! | | 22..38 | each filter: its code (1 deflate, 2 shuffle, 3 fletcher32, 4 bslz4, 5 lz4, 6 blosc), its parameter |
//! | | 38 | 1 where a position follows, else 0 |
//! | | 39..55 | position y, x, in metres |
//! | | 55 | 1 + type of the weights; 0: the frame has none of its own |
//! | | 56..64 | rows, columns of the weights |
//! | | 64..72 | bytes of the pixels |
//! | | 72..80 | bytes of the weights |
//! | | 80 | 1 where a factor follows, else 0 |
//! | | 81..89 | what the frame is multiplied by |
//! | | 89..91 | number of scalars |
//! | | 91..99 | low half of XXH3 (128 bit) of the body |
//! | | 99..107 | low half of XXH3 (128 bit) of bytes 0..99 |
//! | body | 107.. | pixels, then weights, then scalars, `float64` |
//!
//! The header's own checksum makes its lengths trustworthy: a damaged body costs one frame, a
//! damaged header the rest of its segment. A record that the end of the file cuts off is torn: its
//! frame was never handed out.

use bytes::Bytes;
use ptystream_common::checksum::digest;
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;

/// Version of the spool's format.
pub const VERSION: u32 = 2;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 52;
/// Bytes of a record's header.
pub const RECORD_HEADER: usize = 107;

const MAGIC: &[u8; 8] = b"PTYSPOOL";
const FRAME: &[u8; 4] = b"FRAM";
const KEY: std::ops::Range<usize> = 12..44;
const MOST_FILTERS: usize = 8;

/// What is wrong with bytes of a spool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[must_use]
pub enum RecordError {
    /// The file ends in the middle of it.
    #[error("cut off")]
    Torn,
    /// The header is not one, or is damaged.
    #[error("its header is damaged")]
    Header,
    /// Pixels or weights have another checksum than the header says.
    #[error("its pixels are damaged")]
    Body,
    /// The segment was written by another version.
    #[error("it has version {0} of the spool's format, this program writes {VERSION}")]
    Version(u32),
    /// The frame has more filters than a record can name.
    #[error("{0} filters; at most {MOST_FILTERS} can be kept in a spool")]
    Filters(usize),
    /// The frame has more scalars than a record can count.
    #[error("{0} scalars; at most 65535 can be kept in a spool")]
    Scalars(usize),
}

/// What a record's header says.
#[derive(Clone, Debug, PartialEq)]
pub struct Head {
    /// Which frame.
    pub index: Index,
    form: FrameForm,
    encoding: Encoding,
    position: Option<[f64; 2]>,
    weights: Option<(Dtype, [usize; 2])>,
    pixel_bytes: usize,
    weight_bytes: usize,
    scale: Option<f64>,
    scalars: usize,
    body_sum: u64,
}

impl Head {
    /// Returns the bytes of pixels, weights and scalars.
    pub fn body_bytes(&self) -> u64 {
        let scalars = 8 * self.scalars as u64;
        (self.pixel_bytes as u64).saturating_add(self.weight_bytes as u64).saturating_add(scalars)
    }
}

fn sum(bytes: &[u8]) -> u64 {
    digest(bytes) as u64
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Makes the header of a segment; `key` has 32 digits.
pub fn segment_header(key: &str) -> [u8; SEGMENT_HEADER] {
    let mut out = [0; SEGMENT_HEADER];
    out[..8].copy_from_slice(MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (to, from) in out[KEY].iter_mut().zip(key.bytes()) {
        *to = from;
    }
    let check = sum(&out[..44]);
    out[44..].copy_from_slice(&check.to_le_bytes());
    out
}

/// Reads the header of a segment; returns the scan's key.
///
/// # Errors
/// [`RecordError`] if it is none, or of another version.
pub fn read_segment_header(bytes: &[u8]) -> Result<String, RecordError> {
    if bytes.len() < SEGMENT_HEADER {
        return Err(RecordError::Torn);
    }
    if bytes[..8] != *MAGIC {
        return Err(RecordError::Header);
    }
    match u32_at(bytes, 8) {
        VERSION => {}
        other => return Err(RecordError::Version(other)),
    }
    if sum(&bytes[..44]) != u64_at(bytes, 44) {
        return Err(RecordError::Header);
    }
    Ok(String::from_utf8_lossy(&bytes[KEY]).into_owned())
}

fn code(filter: Filter) -> [u8; 2] {
    match filter {
        Filter::Deflate(level) => [1, level],
        Filter::Shuffle(size) => [2, size],
        Filter::Fletcher32 => [3, 0],
        Filter::Bslz4(size) => [4, size],
        Filter::Lz4 => [5, 0],
        Filter::Blosc(size) => [6, size],
    }
}

fn filter(code: u8, parameter: u8) -> Option<Filter> {
    match code {
        1 => Some(Filter::Deflate(parameter)),
        2 => Some(Filter::Shuffle(parameter)),
        3 => Some(Filter::Fletcher32),
        4 => Some(Filter::Bslz4(parameter)),
        5 => Some(Filter::Lz4),
        6 => Some(Filter::Blosc(parameter)),
        _ => None,
    }
}

fn place_of(dtype: Dtype) -> u8 {
    Dtype::ALL.iter().position(|d| *d == dtype).unwrap_or_default() as u8
}

/// Returns the bytes of a frame's record.
pub fn record_bytes(loaded: &Loaded) -> u64 {
    let weights = loaded.weights.as_ref().map_or(0, |w| w.data.len());
    (RECORD_HEADER + loaded.frame.payload.len() + weights + 8 * loaded.scalars.len()) as u64
}

/// Makes the record of a frame.
///
/// # Errors
/// [`RecordError::Filters`] if it has too many.
pub fn encode(loaded: &Loaded) -> Result<Vec<u8>, RecordError> {
    let Loaded { index, frame, position, weights, scale, scalars } = loaded;
    let filters: &[Filter] = match &frame.encoding {
        Encoding::Raw => &[],
        Encoding::Filters(all) if all.len() > MOST_FILTERS => {
            return Err(RecordError::Filters(all.len()));
        }
        Encoding::Filters(all) => all,
    };
    let mut out = Vec::with_capacity(record_bytes(loaded) as usize);
    out.extend_from_slice(FRAME);
    out.extend_from_slice(&index.0.to_le_bytes());
    out.push(place_of(frame.form.dtype));
    for extent in frame.form.shape {
        out.extend_from_slice(&(extent as u32).to_le_bytes());
    }
    out.push(filters.len() as u8);
    for &filter in filters {
        out.extend_from_slice(&code(filter));
    }
    out.resize(38, 0);
    out.push(u8::from(position.is_some()));
    for value in position.unwrap_or_default() {
        out.extend_from_slice(&value.to_le_bytes());
    }
    let (dtype, shape) = match weights {
        Some(w) => (1 + place_of(w.dtype), [w.shape[0], w.shape[1]]),
        None => (0, [0, 0]),
    };
    out.push(dtype);
    for extent in shape {
        out.extend_from_slice(&(extent as u32).to_le_bytes());
    }
    let weights: &[u8] = weights.as_ref().map_or(&[], |w| &w.data);
    out.extend_from_slice(&(frame.payload.len() as u64).to_le_bytes());
    out.extend_from_slice(&(weights.len() as u64).to_le_bytes());
    out.push(u8::from(scale.is_some()));
    out.extend_from_slice(&scale.unwrap_or_default().to_le_bytes());
    let count = u16::try_from(scalars.len()).map_err(|_| RecordError::Scalars(scalars.len()))?;
    out.extend_from_slice(&count.to_le_bytes());
    out.resize(RECORD_HEADER, 0);
    out.extend_from_slice(&frame.payload);
    out.extend_from_slice(weights);
    for scalar in scalars {
        out.extend_from_slice(&scalar.to_le_bytes());
    }
    let body = sum(&out[RECORD_HEADER..]);
    out[91..99].copy_from_slice(&body.to_le_bytes());
    let head = sum(&out[..99]);
    out[99..107].copy_from_slice(&head.to_le_bytes());
    Ok(out)
}

/// Reads a record's header.
///
/// # Errors
/// [`RecordError::Torn`] if the bytes end before it, [`RecordError::Header`] if it is none.
pub fn head(bytes: &[u8]) -> Result<Head, RecordError> {
    if bytes.len() < RECORD_HEADER {
        return Err(RecordError::Torn);
    }
    if bytes[..4] != *FRAME || sum(&bytes[..99]) != u64_at(bytes, 99) {
        return Err(RecordError::Header);
    }
    let dtype = |at: u8| Dtype::ALL.get(usize::from(at)).copied().ok_or(RecordError::Header);
    let pair = |at: usize| [u32_at(bytes, at) as usize, u32_at(bytes, at + 4) as usize];
    let filters: Option<Vec<Filter>> = (0..usize::from(bytes[21]).min(MOST_FILTERS))
        .map(|k| filter(bytes[22 + 2 * k], bytes[23 + 2 * k]))
        .collect();
    let filters = filters.ok_or(RecordError::Header)?;
    let real = |at: usize| f64::from_bits(u64_at(bytes, at));
    Ok(Head {
        index: Index(u64_at(bytes, 4)),
        form: FrameForm { dtype: dtype(bytes[12])?, shape: pair(13) },
        encoding: if filters.is_empty() { Encoding::Raw } else { Encoding::Filters(filters) },
        position: (bytes[38] == 1).then(|| [real(39), real(47)]),
        weights: match bytes[55] {
            0 => None,
            n => Some((dtype(n - 1)?, pair(56))),
        },
        pixel_bytes: u64_at(bytes, 64) as usize,
        weight_bytes: u64_at(bytes, 72) as usize,
        scale: (bytes[80] == 1).then(|| real(81)),
        scalars: usize::from(u16::from_le_bytes([bytes[89], bytes[90]])),
        body_sum: u64_at(bytes, 91),
    })
}

/// Joins a record's header with its body.
///
/// # Errors
/// [`RecordError::Body`] if the body is not what the header says.
pub fn frame(head: Head, body: Bytes) -> Result<Loaded, RecordError> {
    if body.len() as u64 != head.body_bytes() || sum(&body) != head.body_sum {
        return Err(RecordError::Body);
    }
    let end = head.pixel_bytes + head.weight_bytes;
    let weights = match head.weights {
        None => None,
        Some((dtype, shape)) => Some(
            Array::from_bytes(dtype, &shape, body.slice(head.pixel_bytes..end))
                .ok_or(RecordError::Body)?,
        ),
    };
    let scalars = (0..head.scalars).map(|k| f64::from_bits(u64_at(&body, end + 8 * k))).collect();
    let payload = body.slice(..head.pixel_bytes);
    let frame = RawFrame::new(head.form, head.encoding.clone(), payload);
    let Head { index, position, scale, .. } = head;
    Ok(Loaded { index, frame, position, weights, scale, scalars })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;

    /// A frame with everything that a frame can have.
    pub(in crate::retain) fn full(index: u64) -> Loaded {
        let weights = Array::from_items(&[2, 3], &[1u8, 0, 1, 1, 0, index as u8]);
        Loaded {
            index: Index(index),
            frame: RawFrame::new(
                FrameForm { dtype: Dtype::U16, shape: [2, 3] },
                Encoding::Filters(vec![Filter::Shuffle(2), Filter::Bslz4(2)]),
                Bytes::from(vec![index as u8; 17]),
            ),
            position: Some([1e-6, -2.5]),
            weights: Some(weights),
            scale: Some(0.75),
            scalars: vec![1.5, -2.0],
        }
    }

    fn read(bytes: &[u8]) -> Result<Loaded, RecordError> {
        let head = head(bytes)?;
        let end = RECORD_HEADER + head.body_bytes() as usize;
        let body = bytes.get(RECORD_HEADER..end).ok_or(RecordError::Torn)?;
        frame(head, Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_frame_comes_back_as_it_was() {
        let mut plain = full(7);
        plain.weights = None;
        plain.position = None;
        plain.scale = None;
        plain.scalars.clear();
        plain.frame.encoding = Encoding::Raw;
        for loaded in [full(3), plain] {
            let bytes = encode(&loaded).unwrap();
            assert_eq!(bytes.len() as u64, record_bytes(&loaded));
            assert_eq!(read(&bytes), Ok(loaded));
        }
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_seen() {
        let bytes = encode(&full(5)).unwrap();
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Err(RecordError::Torn), "cut at {end}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let wanted =
                if bit / 8 < RECORD_HEADER { RecordError::Header } else { RecordError::Body };
            assert_eq!(read(&bad), Err(wanted), "bit {bit}");
        }
        let header = segment_header(&"a".repeat(32));
        assert_eq!(read_segment_header(&header), Ok("a".repeat(32)));
        for bit in 0..header.len() * 8 {
            let mut bad = header;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read_segment_header(&bad).is_err(), "bit {bit}");
        }
    }
}
