//! Conversions between pixel types, and the choice of code by type and processor.

use ptystream_common::dtype::Pixel;

/// A pixel type with the conversions that preparation needs.
pub(crate) trait Raw: Pixel + Default + PartialEq {
    /// Reads one pixel; the integers' own `from_le` is another function.
    #[inline(always)]
    fn read(bytes: &[u8]) -> Self {
        <Self as Pixel>::from_le(bytes)
    }
    /// Converts as C does.
    fn f64(self) -> f64;
    /// Converts as C does.
    fn f32(self) -> f32;
    /// Converts towards zero; what does not fit becomes the nearest value.
    fn truncated(v: f64) -> Self;
    /// Converts to the nearest value, half to even; what does not fit becomes the nearest value.
    fn rounded(v: f64) -> Self;
}

macro_rules! raw {
    ($($t:ty, $rounded:expr);*) => {$(
        impl Raw for $t {
            #[inline(always)]
            fn f64(self) -> f64 { self as f64 }
            #[inline(always)]
            fn f32(self) -> f32 { self as f32 }
            #[inline(always)]
            fn truncated(v: f64) -> Self { v as $t }
            #[inline(always)]
            fn rounded(v: f64) -> Self {
                let rounded: fn(f64) -> f64 = $rounded;
                rounded(v) as $t
            }
        }
    )*};
}
raw!(
    u8, f64::round_ties_even; u16, f64::round_ties_even; u32, f64::round_ties_even;
    i8, f64::round_ties_even; i16, f64::round_ties_even; i32, f64::round_ties_even;
    i64, f64::round_ties_even; f32, |v| v; f64, |v| v
);

/// The types in which sums and quotients are formed.
pub(crate) trait Float:
    Raw + std::ops::Add<Output = Self> + std::ops::Div<Output = Self> + std::ops::Mul<Output = Self>
{
    /// Converts a pixel.
    fn of<T: Raw>(v: T) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn of<T: Raw>(v: T) -> Self {
        v.f32()
    }
}

impl Float for f64 {
    #[inline(always)]
    fn of<T: Raw>(v: T) -> Self {
        v.f64()
    }
}

/// Runs `$body` with `$t` bound to the Rust type of `$dtype`; bool is held as `u8`.
macro_rules! with_type {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            Dtype::Bool | Dtype::U8 => {
                type $t = u8;
                $body
            }
            Dtype::U16 => {
                type $t = u16;
                $body
            }
            Dtype::U32 => {
                type $t = u32;
                $body
            }
            Dtype::I8 => {
                type $t = i8;
                $body
            }
            Dtype::I16 => {
                type $t = i16;
                $body
            }
            Dtype::I32 => {
                type $t = i32;
                $body
            }
            Dtype::I64 => {
                type $t = i64;
                $body
            }
            Dtype::F32 => {
                type $t = f32;
                $body
            }
            Dtype::F64 => {
                type $t = f64;
                $body
            }
        }
    };
}
pub(crate) use with_type;
