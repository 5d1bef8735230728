//! Frames and arrays as bytes with a type and a shape.

use crate::codec::Encoding;
use crate::dtype::{Dtype, Pixel};
use crate::index::Index;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A C-ordered array of any rank; `data` holds little-endian items and may be unaligned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Array {
    /// Type of one item.
    pub dtype: Dtype,
    /// Extent of each axis, slowest first; a frame is `[rows, cols]`.
    pub shape: Vec<usize>,
    /// `shape` product × `dtype` size bytes.
    pub data: Bytes,
}

impl Array {
    /// Makes an array from typed items in C order.
    ///
    /// # Panics
    /// If `items` does not fill `shape`: that is a fault of the caller.
    pub fn from_items<T: Pixel>(shape: &[usize], items: &[T]) -> Self {
        assert_eq!(items.len(), shape.iter().product::<usize>(), "items fill the shape");
        let mut data = Vec::with_capacity(size_of_val(items));
        for &item in items {
            item.put_le(&mut data);
        }
        Self { dtype: T::DTYPE, shape: shape.to_vec(), data: data.into() }
    }

    /// Makes an array from C-ordered little-endian bytes; `None` if they do not fill `shape`.
    pub fn from_bytes(dtype: Dtype, shape: &[usize], data: Bytes) -> Option<Self> {
        let len = shape.iter().try_fold(dtype.size(), |n, &e| n.checked_mul(e))?;
        (len == data.len()).then(|| Self { dtype, shape: shape.to_vec(), data })
    }

    /// Returns the array with zeros where a mask of the same shape is not above 0.
    pub fn masked(&self, mask: &Self) -> Self {
        let mut bytes = self.data.to_vec();
        for (item, good) in bytes.chunks_exact_mut(self.dtype.size()).zip(mask.to_f64()) {
            if good <= 0.0 {
                item.fill(0);
            }
        }
        Self { data: bytes.into(), ..self.clone() }
    }

    /// Returns the number of items.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Tells whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Copies the items out, each converted to `f64` (exact up to 2^53).
    pub fn to_f64(&self) -> Vec<f64> {
        fn all<T: Pixel>(data: &[u8], f: impl Fn(T) -> f64) -> Vec<f64> {
            data.chunks_exact(size_of::<T>()).map(|b| f(T::from_le(b))).collect()
        }
        let d = &self.data;
        match self.dtype {
            Dtype::Bool | Dtype::U8 => all::<u8>(d, f64::from),
            Dtype::U16 => all::<u16>(d, f64::from),
            Dtype::U32 => all::<u32>(d, f64::from),
            Dtype::I8 => all::<i8>(d, f64::from),
            Dtype::I16 => all::<i16>(d, f64::from),
            Dtype::I32 => all::<i32>(d, f64::from),
            Dtype::I64 => all::<i64>(d, |v| v as f64),
            Dtype::F32 => all::<f32>(d, f64::from),
            Dtype::F64 => all::<f64>(d, |v| v),
        }
    }
}

/// Type and extent of every raw frame of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameForm {
    /// Type of one pixel.
    pub dtype: Dtype,
    /// `[rows, cols]`.
    pub shape: [usize; 2],
}

impl FrameForm {
    /// Returns the bytes of one decoded frame.
    pub fn bytes(&self) -> usize {
        self.shape[0] * self.shape[1] * self.dtype.size()
    }
}

/// A rectangle of a raw frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Its first row and column.
    pub first: [usize; 2],
    /// `[rows, cols]`.
    pub shape: [usize; 2],
}

impl Region {
    /// Takes whole frames of `shape`.
    pub fn whole(shape: [usize; 2]) -> Self {
        Self { first: [0; 2], shape }
    }

    /// Returns its rows in all their length, of a frame with so many columns.
    pub fn full_rows(self, cols: usize) -> Self {
        Self { first: [self.first[0], 0], shape: [self.shape[0], cols] }
    }

    /// Returns how many pixels it has; `None`: more than can be counted.
    pub fn pixels(&self) -> Option<usize> {
        self.shape[0].checked_mul(self.shape[1])
    }

    /// Tells whether all of `other` lies in it.
    pub fn contains(&self, other: Self) -> bool {
        [0, 1].iter().all(|&axis| {
            let end = |r: &Self| r.first[axis].checked_add(r.shape[axis]);
            self.first[axis] <= other.first[axis]
                && end(&other).zip(end(self)).is_some_and(|(inner, outer)| inner <= outer)
        })
    }
}

/// One raw frame as a source delivers it: possibly still encoded, decoded by the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Type and extent of the whole frame once decoded.
    pub form: FrameForm,
    /// How `payload` is encoded.
    pub encoding: Encoding,
    /// The pixels, C order, little-endian once decoded.
    pub payload: Bytes,
    /// Which pixels those are.
    pub region: Region,
}

impl RawFrame {
    /// Takes a whole frame.
    pub fn new(form: FrameForm, encoding: Encoding, payload: Bytes) -> Self {
        Self { form, encoding, payload, region: Region::whole(form.shape) }
    }

    /// Takes pixels of a region, not encoded.
    pub fn part(form: FrameForm, region: Region, payload: Bytes) -> Self {
        Self { form, encoding: Encoding::Raw, payload, region }
    }

    /// Returns the bytes of its region once decoded.
    pub fn bytes(&self) -> usize {
        self.region.pixels().unwrap_or(usize::MAX).saturating_mul(self.form.dtype.size())
    }

    /// Returns the rows of a region, where it can be cut out of the payload: not of what is encoded, nor
    /// of a payload that is damaged or has less.
    pub fn rows_of(&self, region: Region) -> Option<impl Iterator<Item = &[u8]>> {
        let whole = self.encoding == Encoding::Raw && self.payload.len() == self.bytes();
        if !whole || !self.region.contains(region) {
            return None;
        }
        let size = self.form.dtype.size();
        let left = (region.first[1] - self.region.first[1]) * size;
        let rows = self.payload.chunks_exact((self.region.shape[1] * size).max(1));
        let rows = rows.skip(region.first[0] - self.region.first[0]).take(region.shape[0]);
        let length = region.shape[1] * size;
        Some(rows.map(move |row| &row[left..left + length]))
    }
}

/// What [`crate::source::Source::load`] returns of one scan point.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// Which scan point.
    pub index: Index,
    /// Its frame.
    pub frame: RawFrame,
    /// Position that came with the frame, (y, x) in metres; wins over every other position.
    pub position: Option<[f64; 2]>,
    /// Weights that came with the frame; win over the scan's 2-D weight.
    pub weights: Option<Array>,
    /// What the frame is multiplied by, after dark and flat.
    pub scale: Option<f64>,
    /// Other numbers that came with it, in the order of their names in
    /// [`crate::source::WithFrames::scalars`].
    pub scalars: Vec<f64>,
}

impl Loaded {
    /// Makes a frame with nothing beside its pixels.
    pub fn plain(index: Index, frame: RawFrame) -> Self {
        Self { index, frame, position: None, weights: None, scale: None, scalars: Vec::new() }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn region(of: [usize; 2]) -> impl Strategy<Value = Region> {
        let axis = |n: usize| (0..=n).prop_flat_map(move |first| (Just(first), 0..=n - first));
        (axis(of[0]), axis(of[1])).prop_map(|((top, rows), (left, cols))| Region {
            first: [top, left],
            shape: [rows, cols],
        })
    }

    fn pixels(form: FrameForm, region: &Region) -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in (region.first[0]..).take(region.shape[0]) {
            for col in (region.first[1]..).take(region.shape[1]) {
                bytes.extend(((row * form.shape[1] + col) as u16).to_le_bytes());
            }
        }
        bytes
    }

    proptest! {
        #[test]
        fn a_region_is_cut_out_of_whatever_contains_it(
            outer in region([9, 7]), inner in region([9, 7]),
        ) {
            let form = FrameForm { dtype: Dtype::U16, shape: [9, 7] };
            let frame = RawFrame::part(form, outer, pixels(form, &outer).into());
            let cut = frame.rows_of(inner).map(|rows| rows.flatten().copied().collect::<Vec<_>>());
            prop_assert_eq!(cut.is_some(), outer.contains(inner));
            if let Some(cut) = cut {
                prop_assert_eq!(cut, pixels(form, &inner));
            }
        }
    }

    #[test]
    fn what_is_encoded_or_damaged_is_not_cut() {
        let form = FrameForm { dtype: Dtype::U16, shape: [2, 3] };
        let all = Region::whole(form.shape);
        let short = RawFrame::new(form, Encoding::Raw, vec![0; 11].into());
        let encoded = RawFrame::new(form, Encoding::Filters(vec![]), vec![0; 12].into());
        assert!(short.rows_of(all).is_none() && encoded.rows_of(all).is_none());
        let endless = Region { first: [usize::MAX, 0], shape: [2, 3] };
        assert!(!all.contains(endless) && !endless.contains(all));
        assert_eq!(all.full_rows(9), Region { first: [0, 0], shape: [2, 9] });
        assert_eq!(Region { first: [0; 2], shape: [usize::MAX; 2] }.pixels(), None);
    }
}
