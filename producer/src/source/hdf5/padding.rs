//! Zeros around raw frames: `data.padding = [top, bottom, left, right]`, pixels.

use super::super::keys::{Keys, wrong};
use ptystream_common::codec::Encoding;
use ptystream_common::frame::{Array, FrameForm, RawFrame};
use ptystream_common::source::SourceError;
use ptystream_common::value::Value;

/// How many pixels are added on each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Padding {
    top: usize,
    bottom: usize,
    left: usize,
    right: usize,
}

impl Padding {
    /// Reads the parameter.
    ///
    /// # Errors
    /// [`SourceError::Param`] if it is not four numbers of pixels.
    pub fn new(keys: Keys<'_>) -> Result<Self, SourceError> {
        let Some(value) = keys.0.data.at("padding").filter(|v| !v.is_none()) else {
            return Ok(Self::default());
        };
        let items: Vec<f64> = match value {
            Value::List(items) => items.iter().filter_map(Value::as_f64).collect(),
            Value::Array(a) => a.items.clone(),
            single => single.as_f64().into_iter().collect(),
        };
        let whole = items.iter().all(|v| *v >= 0.0 && v.fract() == 0.0 && *v < 65536.0);
        match items[..] {
            [all] if whole => Ok(Self::of([all; 4])),
            [top, bottom, left, right] if whole => Ok(Self::of([top, bottom, left, right])),
            _ => Err(wrong(
                "padding",
                format!("{value} is not [top, bottom, left, right] in pixels, 0 or more"),
            )),
        }
    }

    fn of([top, bottom, left, right]: [f64; 4]) -> Self {
        let n = |v: f64| v as usize;
        Self { top: n(top), bottom: n(bottom), left: n(left), right: n(right) }
    }

    /// Tells whether anything is added.
    pub fn any(self) -> bool {
        self != Self::default()
    }

    /// Returns the form of a padded frame.
    pub fn form(self, form: FrameForm) -> FrameForm {
        let [rows, cols] = form.shape;
        FrameForm { shape: [rows + self.top + self.bottom, cols + self.left + self.right], ..form }
    }

    /// Pads an image; what is added is zero, or, with `ones`, one.
    pub fn image(self, image: &Array, ones: bool) -> Array {
        let size = image.dtype.size();
        let [rows, cols] = [image.shape[0], image.shape[1]];
        let form = self.form(FrameForm { dtype: image.dtype, shape: [rows, cols] });
        let [height, width] = form.shape;
        let mut out = match ones {
            true => one(image).repeat(height * width),
            false => vec![0u8; height * width * size],
        };
        for row in 0..rows {
            let to = ((row + self.top) * width + self.left) * size;
            let from = row * cols * size;
            out[to..to + cols * size].copy_from_slice(&image.data[from..from + cols * size]);
        }
        Array { dtype: image.dtype, shape: form.shape.to_vec(), data: out.into() }
    }

    /// Pads a decoded frame.
    pub fn frame(self, frame: &Array) -> RawFrame {
        let padded = self.image(frame, false);
        let form = FrameForm { dtype: padded.dtype, shape: [padded.shape[0], padded.shape[1]] };
        RawFrame::new(form, Encoding::Raw, padded.data)
    }
}

/// Returns the bytes of a one of the image's type.
fn one(image: &Array) -> Vec<u8> {
    use ptystream_common::dtype::Dtype;
    macro_rules! le {
        ($($d:ident => $v:expr),*) => { match image.dtype { $(Dtype::$d => $v.to_le_bytes().to_vec()),* } };
    }
    le!(Bool => 1u8, U8 => 1u8, U16 => 1u16, U32 => 1u32, I8 => 1i8, I16 => 1i16, I32 => 1i32,
        I64 => 1i64, F32 => 1f32, F64 => 1f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_stands_in_zeros_or_ones() {
        let image = Array::from_items(&[1, 2], &[7u16, 8]);
        let padding = Padding { top: 1, bottom: 0, left: 0, right: 1 };
        let zeros = Array::from_items(&[2, 3], &[0u16, 0, 0, 7, 8, 0]);
        let ones = Array::from_items(&[2, 3], &[1u16, 1, 1, 7, 8, 1]);
        assert_eq!((padding.image(&image, false), padding.image(&image, true)), (zeros, ones));
        assert!(padding.any() && !Padding::default().any());
    }
}
