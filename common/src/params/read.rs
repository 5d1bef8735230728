//! Readers from values to the types of the parameter structs.
//!
//! Declarations have been checked before; a reader refuses what they cannot see.

use crate::codec::Compression;
use crate::dtype::Dtype;
use crate::geometry::{Center, Orientation};
use crate::value::{NumArray, Value};
use serde::de::DeserializeOwned;
use serde::de::value::{Error as WordError, StrDeserializer};

/// Says that a value slipped past its declaration.
pub(super) fn misfit() -> String {
    "the value is not of the declared type".to_owned()
}

/// Reads a text.
pub(super) fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(misfit)
}

/// Reads one of the words of an enumeration.
pub(super) fn word<T: DeserializeOwned>(value: &Value) -> Result<T, String> {
    let word = value.as_str().ok_or_else(misfit)?;
    T::deserialize(StrDeserializer::<WordError>::new(word)).map_err(|e| e.to_string())
}

/// Reads a real number.
pub(super) fn number(value: &Value) -> Result<f64, String> {
    value.as_f64().ok_or_else(misfit)
}

/// Reads an integer into a narrower type.
pub(super) fn count<T: TryFrom<i64>>(value: &Value) -> Result<T, String> {
    let number = value.as_i64().ok_or_else(misfit)?;
    T::try_from(number).map_err(|_| format!("{number} is out of range"))
}

/// Reads a pair, or one value that stands for both.
pub(super) fn both<T: Copy>(
    value: &Value,
    read: impl Fn(&Value) -> Result<T, String>,
) -> Result<[T; 2], String> {
    match value {
        Value::List(items) => match items.as_slice() {
            [a, b] => Ok([read(a)?, read(b)?]),
            _ => Err(misfit()),
        },
        one => read(one).map(|v| [v, v]),
    }
}

/// Reads ptypy's `center`.
pub(super) fn center(value: &Value) -> Result<Center, String> {
    match value {
        Value::Str(_) => word(value),
        pair => both(pair, number).map(Center::At),
    }
}

/// Reads a number 0 to 7 or three truth values.
pub(super) fn orientation(value: &Value) -> Result<Orientation, String> {
    match value {
        Value::List(items) => {
            let flags: Vec<_> = items.iter().filter_map(Value::as_bool).collect();
            match flags[..] {
                [transpose, flipud, fliplr] => Ok(Orientation { transpose, flipud, fliplr }),
                _ => Err(misfit()),
            }
        }
        number => Orientation::from_number(count(number)?).ok_or_else(misfit),
    }
}

/// Reads pairs (y, x) into an array.
pub(super) fn positions(value: &Value) -> Result<NumArray, String> {
    let cure = "give pairs (y, x) in metres";
    if let Value::Map(entries) = value {
        let items = super::pattern::points(entries)?.concat();
        return Ok(NumArray { dtype: Dtype::F64, shape: vec![items.len() / 2, 2], items });
    }
    let Value::List(rows) = value else { return Err(misfit()) };
    if rows.is_empty() {
        return Err(format!("the list is empty; {cure}"));
    }
    let mut items = Vec::with_capacity(2 * rows.len());
    for (index, row) in rows.iter().enumerate() {
        match row {
            Value::List(pair) if pair.len() == 2 => {
                for item in pair {
                    let number = item.as_f64().filter(|v| v.is_finite());
                    items.push(number.ok_or_else(|| {
                        format!("item {index} holds {item}, which is not a number; {cure}")
                    })?);
                }
            }
            other => return Err(format!("item {index} is {other}, not a pair; {cure}")),
        }
    }
    Ok(NumArray { dtype: Dtype::F64, shape: vec![rows.len(), 2], items })
}

/// Checks that an ending has one place for the chunk's number, and stays in the file's folder.
pub(super) fn part_ending(value: &Value) -> Result<String, String> {
    let ending = text(value)?;
    let cure = "give an ending with one %d, such as '.chunk%02d'";
    let one_number = match ending.split_once('%') {
        Some((_, rest)) => rest
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .strip_prefix('d')
            .is_some_and(|tail| !tail.contains('%')),
        None => false,
    };
    if !one_number {
        return Err(format!("'{ending}' has not exactly one place for a number; {cure}"));
    }
    if ending.contains(['/', '\\']) {
        return Err(format!("'{ending}' holds a slash, but parts stand beside the file; {cure}"));
    }
    Ok(ending)
}

/// Reads `gzip:4` and the like; without a level gzip has 4, as in h5py.
pub(super) fn compression(value: &Value) -> Result<Compression, String> {
    const LEVEL: u8 = 4;
    let word = value.as_str().ok_or_else(misfit)?;
    let (kind, level) = match word.split_once(':') {
        Some((kind, level)) => (kind, level.parse().map_err(|_| misfit())?),
        None => (word, LEVEL),
    };
    match kind {
        "none" => Ok(Compression::None),
        "gzip" => Ok(Compression::Gzip(level)),
        "shuffle-gzip" => Ok(Compression::ShuffleGzip(level)),
        "bslz4" => Ok(Compression::Bslz4),
        _ => Err(misfit()),
    }
}

/// Reads finite numbers.
pub(super) fn numbers(value: &Value) -> Result<Vec<f64>, String> {
    let Value::List(items) = value else { return Err(misfit()) };
    let finite = |v: &Value| {
        v.as_f64().filter(|v| v.is_finite()).ok_or_else(|| {
            format!("{v} is not a finite number; NaN and infinity are invalid without being listed once another value is")
        })
    };
    items.iter().map(finite).collect()
}

/// Reads (lowest, highest).
pub(super) fn range(value: &Value) -> Result<[f64; 2], String> {
    let [low, high] = both(value, number)?;
    if low > high {
        return Err(format!("{low} is above {high}; give (lowest, highest)"));
    }
    Ok([low, high])
}
