//! Values as ptypy's h5rw encodes them.
//!
//! | value | object | attribute `type` |
//! |---|---|---|
//! | None | `float64 (1,)` of zero | `None` |
//! | bool, int, float | 0-d dataset: h5py's enumeration, `int64`, `float64` | `scalar` |
//! | text | 0-d variable-length UTF-8 | `string` |
//! | array | dataset, gzip 4 | `array` |
//! | list of numbers of one kind | dataset, gzip 4 | `arraylist` |
//! | any other list | group with `00000`, `00001`, … | `list` |
//! | map | group; the two of the schema are `dict`, maps in them `param` | `dict`, `param` |
//!
//! A `/` in a name becomes `_SLASH_`, with the attribute `escaped` = `1`.

use crate::dtype::{Dtype, Pixel};
use crate::frame::Array;
use crate::h5::{raw, write};
use crate::value::{NumArray, Value};
use hdf5::{Dataset, Group, Location, Result};
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Version of h5rw whose encoding this is.
const H5RW_VERSION: &str = "0.1";

/// Sets the attributes that h5rw sets at a file's root.
///
/// # Errors
/// The library's.
pub fn stamp_root(root: &Group) -> Result<()> {
    write::set_attr(root, "h5rw_version", H5RW_VERSION)?;
    write::set_attr(root, "ctime", &now())?;
    touch_root(root)
}

/// Sets the time at which the file was last changed, `mtime`.
///
/// # Errors
/// The library's.
pub fn touch_root(root: &Group) -> Result<()> {
    write::set_attr(root, "mtime", &now())
}

fn now() -> String {
    asctime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()))
}

/// Sets the attribute `type`.
///
/// # Errors
/// The library's.
pub fn set_type(place: &Location, kind: &str) -> Result<()> {
    write::set_attr(place, "type", kind)
}

/// Stores a map as a group of kind `kind` (`dict` or `param`).
///
/// # Errors
/// The library's.
pub fn write_map(
    parent: &Group,
    name: &str,
    entries: &[(String, Value)],
    kind: &str,
) -> Result<()> {
    let group = parent.create_group(name)?;
    set_type(&group, kind)?;
    entries.iter().try_for_each(|(key, value)| write_value(&group, key, value))
}

/// Stores a value under a name.
///
/// # Errors
/// The library's.
pub fn write_value(parent: &Group, key: &str, value: &Value) -> Result<()> {
    let name = key.replace('/', "_SLASH_");
    let place: Location = match value {
        Value::None => {
            let zero = 0f64.to_le_bytes();
            let dataset = raw::create_dataset(parent, &name, Dtype::F64, &[1], raw::Layout::Plain)?;
            raw::write_all(&dataset, Dtype::F64, &zero)?;
            typed(dataset, "None")?
        }
        Value::Bool(v) => {
            typed(write::write_scalar(parent, &name, Dtype::Bool, &[u8::from(*v)])?, "scalar")?
        }
        Value::Int(v) => {
            typed(write::write_scalar(parent, &name, Dtype::I64, &v.to_le_bytes())?, "scalar")?
        }
        Value::Float(v) => {
            typed(write::write_scalar(parent, &name, Dtype::F64, &v.to_le_bytes())?, "scalar")?
        }
        Value::Str(v) => typed(write::write_text(parent, &name, v)?, "string")?,
        Value::Array(a) => write_array(parent, &name, a, "array")?,
        Value::List(items) => match numbers(items) {
            Some(array) => write_array(parent, &name, &array, "arraylist")?,
            None => {
                let group = parent.create_group(&name)?;
                set_type(&group, "list")?;
                for (i, item) in items.iter().enumerate() {
                    write_value(&group, &format!("{i:05}"), item)?;
                }
                Location::clone(&group)
            }
        },
        Value::Map(entries) => {
            write_map(parent, &name, entries, "param")?;
            Location::clone(&*parent.group(&name)?)
        }
    };
    if name != key {
        write::set_attr(&place, "escaped", "1")?;
    }
    Ok(())
}

fn typed(dataset: Dataset, kind: &str) -> Result<Location> {
    set_type(&dataset, kind)?;
    Ok(Location::clone(&dataset))
}

fn write_array(parent: &Group, name: &str, array: &NumArray, kind: &str) -> Result<Location> {
    let bytes = bytes_of(array.dtype, &array.items);
    typed(write::write_array(parent, name, array.dtype, &array.shape, &bytes)?, kind)
}

/// Converts numbers to little-endian items of `dtype`, as a cast in C would.
pub fn bytes_of(dtype: Dtype, items: &[f64]) -> Vec<u8> {
    fn all<T: Pixel>(items: &[f64], cast: impl Fn(f64) -> T) -> Vec<u8> {
        let mut out = Vec::with_capacity(items.len() * size_of::<T>());
        items.iter().for_each(|&v| cast(v).put_le(&mut out));
        out
    }
    match dtype {
        Dtype::Bool => all(items, |v| u8::from(v != 0.0)),
        Dtype::U8 => all(items, |v| v as u8),
        Dtype::U16 => all(items, |v| v as u16),
        Dtype::U32 => all(items, |v| v as u32),
        Dtype::I8 => all(items, |v| v as i8),
        Dtype::I16 => all(items, |v| v as i16),
        Dtype::I32 => all(items, |v| v as i32),
        Dtype::I64 => all(items, |v| v as i64),
        Dtype::F32 => all(items, |v| v as f32),
        Dtype::F64 => all(items, |v| v),
    }
}

/// Makes one array of a list whose items are numbers of one kind, or lists of such of one length.
fn numbers(items: &[Value]) -> Option<NumArray> {
    let one = |v: &Value| match v {
        Value::Bool(b) => Some(NumArray {
            dtype: Dtype::Bool,
            shape: vec![],
            items: vec![f64::from(u8::from(*b))],
        }),
        // Beyond 2^53 a float would not hold the integer.
        Value::Int(i) if i.unsigned_abs() <= 1 << 53 => {
            Some(NumArray { dtype: Dtype::I64, shape: vec![], items: vec![*i as f64] })
        }
        Value::Float(x) => Some(NumArray { dtype: Dtype::F64, shape: vec![], items: vec![*x] }),
        Value::List(inner) => numbers(inner),
        Value::Array(a) => Some(a.clone()),
        _ => None,
    };
    let parts = items.iter().map(one).collect::<Option<Vec<_>>>()?;
    let first = parts.first()?;
    if parts.iter().any(|p| p.dtype != first.dtype || p.shape != first.shape) {
        return None;
    }
    let mut shape = vec![parts.len()];
    shape.extend(&first.shape);
    Some(NumArray {
        dtype: first.dtype,
        shape,
        items: parts.into_iter().flat_map(|p| p.items).collect(),
    })
}

/// Reads the value stored under a name.
///
/// # Errors
/// The library's, and types that no parameter has.
pub fn read_value(parent: &Group, name: &str) -> Result<Value> {
    if let Ok(group) = parent.group(name) {
        return read_group(&group);
    }
    let dataset = parent.dataset(name)?;
    let kind = write::text_attr(&dataset, "type");
    if kind.as_deref() == Some("None") {
        return Ok(Value::None);
    }
    let Some(dtype) = raw::dtype_of(&dataset) else {
        return write::read_text(&dataset).map(Value::Str);
    };
    let shape = dataset.shape();
    let data = raw::read_all(&dataset, dtype)?;
    if shape.is_empty() {
        return Ok(match dtype {
            Dtype::Bool => Value::Bool(data[0] != 0),
            Dtype::F32 => Value::Float(f64::from(<f32 as Pixel>::from_le(&data))),
            Dtype::F64 => Value::Float(<f64 as Pixel>::from_le(&data)),
            Dtype::I64 => Value::Int(<i64 as Pixel>::from_le(&data)),
            _ => {
                let array = Array { dtype, shape, data: data.into() };
                Value::Int(array.to_f64()[0] as i64)
            }
        });
    }
    let array = NumArray::from_array(&Array { dtype, shape, data: data.into() });
    Ok(match kind.as_deref() {
        Some("arraylist" | "arraytuple") => list_of(&array),
        _ => Value::Array(array),
    })
}

fn read_group(group: &Group) -> Result<Value> {
    let kind = write::text_attr(group, "type");
    let mut names: Vec<String> = group.member_names()?;
    names.sort();
    if matches!(kind.as_deref(), Some("list" | "tuple")) {
        let items = names.iter().map(|n| read_value(group, n)).collect::<Result<_>>()?;
        return Ok(Value::List(items));
    }
    let entry =
        |name: String| read_value(group, &name).map(|value| (name.replace("_SLASH_", "/"), value));
    Ok(Value::Map(names.into_iter().map(entry).collect::<Result<_>>()?))
}

fn list_of(array: &NumArray) -> Value {
    if array.shape.len() > 1 {
        let rows = array.shape[0].max(1);
        let inner = |items: &[f64]| {
            let shape = array.shape[1..].to_vec();
            list_of(&NumArray { dtype: array.dtype, shape, items: items.to_vec() })
        };
        let each = (array.items.len() / rows).max(1);
        return Value::List(array.items.chunks(each).map(inner).collect());
    }
    let item = |&v: &f64| match array.dtype {
        Dtype::Bool => Value::Bool(v != 0.0),
        Dtype::F32 | Dtype::F64 => Value::Float(v),
        _ => Value::Int(v as i64),
    };
    Value::List(array.items.iter().map(item).collect())
}

/// Returns the names that `entries` hold twice: a group cannot.
pub fn doubled(entries: &[(String, Value)]) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    entries.iter().filter(|(k, _)| !seen.insert(k.as_str())).map(|(k, _)| k.as_str()).collect()
}

/// Writes a time as C's `asctime` does, in UTC.
fn asctime(secs: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, rest) = (secs / 86_400, secs % 86_400);
    let (mut year, mut left) = (1970, days);
    let leap = |y: u64| y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!(
        "{} {} {:2} {:02}:{:02}:{:02} {year}",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        left + 1,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_with_their_kinds() {
        let file = write::memory_file().unwrap();
        let value = Value::Map(vec![
            ("a".into(), Value::None),
            ("b".into(), Value::List(vec![Value::Bool(true), Value::Bool(false)])),
            ("c".into(), Value::List(vec![Value::Int(1), Value::Str("x".into())])),
            ("d".into(), Value::Map(vec![("e/f".into(), Value::Float(7.2))])),
            ("g".into(), Value::Array(NumArray::i64s(&[20, 21]))),
            ("h".into(), Value::Str("µ".into())),
            ("i".into(), Value::List(vec![])),
            (
                "j".into(),
                Value::List(vec![
                    Value::List(vec![Value::Int(1), Value::Int(2)]),
                    Value::List(vec![Value::Int(3), Value::Int(4)]),
                ]),
            ),
            ("k".into(), Value::Int(-3)),
        ]);
        write_value(&file, "v", &value).unwrap();
        assert_eq!(read_value(&file, "v").unwrap(), value);
        let kind = |path: &str| {
            file.group(path).map_or_else(
                |_| write::text_attr(&file.dataset(path).unwrap(), "type"),
                |g| write::text_attr(&g, "type"),
            )
        };
        for (path, expected) in [
            ("v/a", "None"),
            ("v/b", "arraylist"),
            ("v/c", "list"),
            ("v/c/00001", "string"),
            ("v/d", "param"),
            ("v/g", "array"),
            ("v/k", "scalar"),
        ] {
            assert_eq!(kind(path).as_deref(), Some(expected), "{path}");
        }
        let escaped = file.dataset("v/d/e_SLASH_f").unwrap();
        assert_eq!(write::text_attr(&escaped, "escaped").as_deref(), Some("1"));
    }

    #[test]
    fn times_are_written_as_c_does() {
        assert_eq!(asctime(0), "Thu Jan  1 00:00:00 1970");
        assert_eq!(asctime(951_782_399), "Mon Feb 28 23:59:59 2000");
        assert_eq!(asctime(951_782_400), "Tue Feb 29 00:00:00 2000");
        assert_eq!(asctime(1_735_689_599), "Tue Dec 31 23:59:59 2024");
    }
}
