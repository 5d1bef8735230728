//! What belongs to the frames: masks, dark and flat, recorded geometry.

use super::super::keys::Keys;
use super::super::normalization::{Scale, scale};
use super::order::Order;
use super::stack::Stack;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::Array;
use ptystream_common::h5::read::H5Dataset;
use ptystream_common::source::SourceError;

/// Checks that a dataset is as one frame; a leading axis of 1 does not count.
///
/// # Errors
/// [`SourceError::Input`] naming both shapes.
pub(super) fn ensure_frame_shaped(
    dataset: &H5Dataset,
    parameter: &str,
    frames: &Stack,
) -> Result<(), SourceError> {
    let frame = frames.form().shape;
    let shape = dataset.shape();
    if shape == frame || (shape.len() == 3 && shape[0] == 1 && shape[1..] == frame) {
        return Ok(());
    }
    let also = if parameter == "data.mask.key" {
        format!(" or all frames' {:?}", frames.shape())
    } else {
        String::new()
    };
    Err(SourceError::input(format!(
        "{parameter}: '{}' in '{}' has shape {shape:?}; the frame's {frame:?}{also} is needed",
        dataset.key(),
        dataset.path().display()
    )))
}

/// Makes weights of a mask, and tells what a user should know of it.
///
/// # Source
/// numpy's `1 - mask`: bool becomes `int64`, other types stay. Otherwise than there, values above 1
/// become 0 where they would wrap around or fall below 0.
pub(super) fn weight(mask: Array, invert: bool) -> (Array, Vec<String>) {
    let mut notes = Vec::new();
    let values = mask.to_f64();
    let weight = if invert {
        if mask.dtype != Dtype::Bool && values.iter().any(|&v| v > 1.0) {
            notes.push("the mask has values above 1 and is inverted: they count as bad".into());
        }
        let dtype = if mask.dtype == Dtype::Bool { Dtype::I64 } else { mask.dtype };
        inverted(&values, dtype, &mask.shape)
    } else {
        mask
    };
    let good = weight.to_f64().iter().filter(|&&w| w > 0.0).count();
    if 2 * good < weight.len() {
        notes.push(format!(
            "the mask leaves {good} of {} pixels; is data.mask.invert right?",
            weight.len()
        ));
    }
    (weight, notes)
}

fn inverted(values: &[f64], dtype: Dtype, shape: &[usize]) -> Array {
    macro_rules! by_type {
        ($($d:ident => $t:ty),*) => {
            match dtype {
                $(Dtype::$d => Array::from_items(
                    shape,
                    &values.iter().map(|v| (1.0 - v).max(0.0) as $t).collect::<Vec<$t>>(),
                ),)*
                Dtype::F32 => Array::from_items(
                    shape,
                    &values.iter().map(|&v| (1.0 - v as f32).max(0.0)).collect::<Vec<f32>>(),
                ),
            }
        };
    }
    by_type!(Bool => u8, U8 => u8, U16 => u16, U32 => u32, I8 => i8, I16 => i16, I32 => i32, I64 => i64, F64 => f64)
}

/// Reads one value (I0) a frame and makes factors of them.
///
/// # Errors
/// [`SourceError`] if there is not one value for each frame, or one is not above 0.
pub(super) fn normalization(
    keys: Keys<'_>,
    dataset: &H5Dataset,
    order: &Order,
    frames: usize,
    outer: Option<usize>,
) -> Result<Scale, SourceError> {
    let name = "data.normalization.key";
    let read = dataset.read().map_err(|e| SourceError::input(format!("{name}: {}", chain(&e))))?;
    let all = of_outer(&read, outer, frames).to_f64();
    if all.len() != frames {
        return Err(SourceError::input(format!(
            "{name}: {} has shape {:?}; one value for each of {frames} frames is needed",
            origin(dataset),
            dataset.shape()
        )));
    }
    let points = 0..order.len(frames) as u64;
    let values: Vec<f64> = points.map(|point| all[order.frame(point) as usize]).collect();
    scale(keys, &values, &origin(dataset))
}

/// Returns the part of an array that belongs to an outer index, if its leading axis is the outer one:
/// if what is left of it is as much as `wanted`.
pub(super) fn of_outer(array: &Array, outer: Option<usize>, wanted: usize) -> Array {
    let (Some(outer), [n, rest @ ..]) = (outer, &array.shape[..]) else { return array.clone() };
    let items: usize = rest.iter().product();
    if outer >= *n || items != wanted || array.len() == wanted {
        return array.clone();
    }
    let bytes = items * array.dtype.size();
    Array {
        dtype: array.dtype,
        shape: rest.to_vec(),
        data: array.data.slice(outer * bytes..(outer + 1) * bytes),
    }
}

fn values(dataset: &H5Dataset, parameter: &str, most: usize) -> Result<Array, SourceError> {
    let fail = |text: String| {
        SourceError::input(format!(
            "{parameter}: '{}' in '{}' {text}",
            dataset.key(),
            dataset.path().display()
        ))
    };
    let count: usize = dataset.shape().iter().product();
    if count == 0 || count > most {
        return Err(fail(format!("has shape {:?}; one value is needed", dataset.shape())));
    }
    let read =
        dataset.read().map_err(|e| SourceError::input(format!("{parameter}: {}", chain(&e))))?;
    match read.to_f64().iter().find(|v| !v.is_finite() || **v == 0.0) {
        Some(bad) => Err(fail(format!("is {bad}; give the value yourself, or correct the file"))),
        None => Ok(read),
    }
}

fn origin(dataset: &H5Dataset) -> String {
    format!("'{}' in '{}'", dataset.key(), dataset.path().display())
}

fn positive(value: f64, group: &str, dataset: &H5Dataset) -> Result<f64, SourceError> {
    if value > 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(SourceError::input(format!(
        "data.{group}: {} gives {value}; is data.{group}.multiplier right?",
        origin(dataset)
    )))
}

/// Reads the photon energy in keV, and where it is from; tells if it is unlikely.
///
/// # Errors
/// [`SourceError::Input`] if it is not one value above 0.
pub(super) fn energy(
    keys: Keys<'_>,
    dataset: &H5Dataset,
    outer: Option<usize>,
) -> Result<((f64, String), Option<String>), SourceError> {
    // Of a spectrum, one energy an outer index.
    let read = match outer {
        Some(outer) if dataset.shape().iter().product::<usize>() > 1 => {
            let all = values(dataset, "data.recorded_energy.key", usize::MAX)?;
            let there = all.len();
            let one = all.to_f64().get(outer).copied().ok_or_else(|| {
                SourceError::input(format!(
                    "data.recorded_energy.key: {} holds {there} energies; there is none of outer index {outer}",
                    origin(dataset)
                ))
            })?;
            Array::from_items(&[1], &[one])
        }
        _ => values(dataset, "data.recorded_energy.key", 1)?,
    };
    let multiplier = keys.number("recorded_energy.multiplier")?.unwrap_or(1.0);
    let offset = keys.number("recorded_energy.offset")?.unwrap_or(0.0);
    let value = positive(read.to_f64()[0] * multiplier + offset, "recorded_energy", dataset)?;
    let note = (!(0.01..=1000.0).contains(&value)).then(|| {
        format!(
            "{} gives an energy of {value:e} keV; data.recorded_energy.multiplier makes keV of it (1e-3 for eV, 6.241509e15 for J)",
            origin(dataset)
        )
    });
    Ok(((value, origin(dataset)), note))
}

/// Reads up to `most` lengths in metres, and where they are from.
///
/// # Errors
/// [`SourceError::Input`] if there are none or more, or one is not above 0.
pub(super) fn lengths(
    keys: Keys<'_>,
    group: &str,
    dataset: &H5Dataset,
    most: usize,
) -> Result<(Vec<f64>, String), SourceError> {
    let read = values(dataset, &format!("data.{group}.key"), most)?;
    let multiplier = keys.number(&format!("{group}.multiplier"))?.unwrap_or(1.0);
    let scaled = |v: f64| match read.dtype {
        Dtype::F32 => f64::from(v as f32 * multiplier as f32),
        _ => v * multiplier,
    };
    let all = read.to_f64().into_iter().map(|v| positive(scaled(v), group, dataset));
    Ok((all.collect::<Result<_, _>>()?, origin(dataset)))
}
