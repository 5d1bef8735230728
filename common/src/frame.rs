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

/// One raw frame as a source delivers it: possibly still encoded, decoded by the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Type and extent once decoded.
    pub form: FrameForm,
    /// How `payload` is encoded.
    pub encoding: Encoding,
    /// The pixels, C order, little-endian once decoded.
    pub payload: Bytes,
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
