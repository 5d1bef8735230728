//! Pixel types.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The type of one pixel (or weight, or position); little-endian in memory and on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// numpy `bool`, one byte, 0 or 1
    Bool,
    /// unsigned 8 bit
    U8,
    /// unsigned 16 bit
    U16,
    /// unsigned 32 bit
    U32,
    /// signed 8 bit
    I8,
    /// signed 16 bit
    I16,
    /// signed 32 bit
    I32,
    /// signed 64 bit
    I64,
    /// IEEE 754 single
    F32,
    /// IEEE 754 double
    F64,
}

impl Dtype {
    /// All pixel types.
    pub const ALL: [Self; 10] = [
        Self::Bool,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::I8,
        Self::I16,
        Self::I32,
        Self::I64,
        Self::F32,
        Self::F64,
    ];

    /// Returns the bytes of one pixel.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::I64 | Self::F64 => 8,
        }
    }

    /// Returns numpy's name of the type, such as `uint16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::U16 => "uint16",
            Self::U32 => "uint32",
            Self::I8 => "int8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }

    /// Finds the type of numpy's name, such as `uint16`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Tells whether the type is `float32` or `float64`.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    /// Keeps other types out.
    pub trait Sealed {}
}

/// A Rust type that is a pixel type: integers and floats of up to 8 bytes, of which every bit pattern is a
/// value.
pub trait Pixel: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The type's name.
    const DTYPE: Dtype;
    /// Reads one pixel from little-endian bytes; `bytes` holds exactly one.
    fn from_le(bytes: &[u8]) -> Self;
    /// Appends the pixel's little-endian bytes.
    fn put_le(self, out: &mut Vec<u8>);
}

macro_rules! pixel {
    ($($t:ty => $d:ident),*) => {$(
        impl sealed::Sealed for $t {}
        impl Pixel for $t {
            const DTYPE: Dtype = Dtype::$d;
            #[inline]
            fn from_le(bytes: &[u8]) -> Self {
                let mut b = [0u8; size_of::<$t>()];
                b.copy_from_slice(bytes);
                <$t>::from_le_bytes(b)
            }
            #[inline]
            fn put_le(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
pixel!(u8 => U8, u16 => U16, u32 => U32, i8 => I8, i16 => I16, i32 => I32, i64 => I64, f32 => F32, f64 => F64);
