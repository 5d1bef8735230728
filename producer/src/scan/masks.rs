//! Masks that the configuration names, for whatever source: `data.mask`.

use crate::error::ProducerError;
use crate::source::image::Named;
use crate::source::stamp::stamp;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::params::ParamDecl;
use ptystream_common::source::SourceSpec;
use ptystream_common::value::Value;

/// The masks of `data.mask`, unless the source has its own group of that name.
///
/// # Errors
/// What is no mask, by parameter and file.
pub(super) fn named(spec: &SourceSpec, own: &[ParamDecl]) -> Result<Vec<Named>, ProducerError> {
    let group = own.iter().any(|d| d.name.starts_with("mask."));
    match spec.data.at("mask") {
        Some(Value::Map(_)) if group => Ok(Vec::new()),
        _ => Ok(Named::all(spec, "mask")?),
    }
}

/// Checks that the files are there.
///
/// # Errors
/// Naming the parameter and the file that is not.
pub(super) fn are_there(masks: &[Named]) -> Result<(), ProducerError> {
    match masks.iter().find(|named| !named.path.exists()) {
        // Reading it says what is wrong.
        Some(missing) => missing.read().map(|_| ()).map_err(ProducerError::from),
        None => Ok(()),
    }
}

/// Combines masks: a pixel is good where all say so.
///
/// # Shapes
/// As a frame. The type of a single mask stays as it is; of several it is bool.
/// # Errors
/// A file that cannot be read, or has another shape than the frames.
pub(super) fn combined(masks: &[Named], frame: [usize; 2]) -> Result<Option<Array>, ProducerError> {
    let mut good: Option<Vec<u8>> = None;
    for named in masks {
        let mask = named.image(frame)?;
        if masks.len() == 1 && !named.invert {
            return Ok(Some(mask));
        }
        let values = mask.to_f64().into_iter();
        let now = values.map(|v| u8::from(if named.invert { v == 0.0 } else { v > 0.0 }));
        good = Some(match good {
            None => now.collect(),
            Some(before) => before.into_iter().zip(now).map(|(a, b)| a & b).collect(),
        });
    }
    Ok(good.and_then(|items| Array::from_bytes(Dtype::Bool, &frame, items.into())))
}

/// Joins the source's own weight with a mask; returns the weight of all frames, and the mask if it is to
/// be joined with weights that come with the frames.
///
/// # Errors
/// If both are of all frames and not of one shape.
pub(super) fn joined(
    weight: Option<Array>,
    mask: Option<Array>,
    with_frames: bool,
) -> Result<(Option<Array>, Option<Array>), ProducerError> {
    match (weight, mask) {
        (weight, Some(mask)) if with_frames => Ok((weight, Some(mask))),
        (Some(weight), Some(mask)) if weight.shape != mask.shape => {
            Err(ProducerError::Config(format!(
                "data.mask has shape {:?}, the source's own mask {:?}",
                mask.shape, weight.shape
            )))
        }
        (Some(weight), Some(mask)) => Ok((Some(weight.masked(&mask)), None)),
        (None, mask) => Ok((mask, None)),
        (weight, None) => Ok((weight, None)),
    }
}

/// Tells what identifies masks.
pub(super) fn identity(masks: &[Named]) -> Vec<(String, String)> {
    let one = |named: &Named| {
        let invert = if named.invert { "inverted " } else { "" };
        (named.parameter.clone(), format!("{invert}{} {}", named.origin(), stamp(&named.path)))
    };
    masks.iter().map(one).collect()
}

/// Tells of a mask that leaves little.
pub(super) fn note(mask: &Array) -> Option<String> {
    let good = mask.to_f64().iter().filter(|&&w| w > 0.0).count();
    (2 * good < mask.len()).then(|| {
        format!(
            "data.mask leaves {good} of {} pixels; should one of them be inverted ({{ file = …, invert = \
             true }})?",
            mask.len()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_pixels_lose_their_weight_and_types_stay() {
        let weight = Array::from_items(&[1, 3], &[2i64, 3, 4]);
        let mask = Array::from_items(&[1, 3], &[1u8, 0, 1]);
        let join = |weight: Option<&Array>, own| joined(weight.cloned(), Some(mask.clone()), own);
        let both = join(Some(&weight), false).expect("of one shape");
        assert_eq!(both, (Some(Array::from_items(&[1, 3], &[2i64, 0, 4])), None));
        assert_eq!(join(None, false).expect("one"), (Some(mask.clone()), None));
        assert_eq!(join(None, true).expect("one"), (None, Some(mask.clone())));
        assert!(join(Some(&Array::from_items(&[3, 1], &[1u8; 3])), false).is_err());
        assert_eq!(note(&mask), None);
        assert!(note(&Array::from_items(&[1, 3], &[0u8, 0, 1])).is_some());
    }
}
