//! The values that parameters hold and that `.ptyd` files store in `meta` and `info`.

use crate::dtype::Dtype;
use crate::frame::Array;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A parameter's value; the types that Python parameter trees and h5rw files know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// Python's `None`.
    None,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A real number.
    Float(f64),
    /// A text.
    Str(String),
    /// A list.
    List(Vec<Value>),
    /// Names and values, in the order in which they were given.
    Map(Vec<(String, Value)>),
    /// A numerical array.
    Array(NumArray),
}

/// An array small enough to travel in a header (positions, shapes); see [`Array`] for pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NumArray {
    /// Type in which a file stores the items.
    pub dtype: Dtype,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// Items in C order.
    pub items: Vec<f64>,
}

impl NumArray {
    /// Makes a one-dimensional `float64` array.
    pub fn f64s(items: &[f64]) -> Self {
        Self { dtype: Dtype::F64, shape: vec![items.len()], items: items.to_vec() }
    }

    /// Makes a one-dimensional `int64` array.
    pub fn i64s(items: &[i64]) -> Self {
        let items: Vec<f64> = items.iter().map(|&v| v as f64).collect();
        Self { dtype: Dtype::I64, shape: vec![items.len()], items }
    }

    /// Copies an [`Array`] (exact up to 2^53).
    pub fn from_array(a: &Array) -> Self {
        Self { dtype: a.dtype, shape: a.shape.clone(), items: a.to_f64() }
    }
}

impl Value {
    /// Returns the entry `key` of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Returns the entry at a dotted path, such as `intensities.file`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |v, key| v.get(key))
    }

    /// Sets the entry at a dotted path; makes the maps on the way.
    pub fn set_at(&mut self, path: &str, value: Self) {
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(Vec::new());
        }
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let Self::Map(entries) = self else { return };
        let place = match entries.iter().position(|(k, _)| k == key) {
            Some(place) => place,
            None => {
                entries.push((key.to_owned(), Self::None));
                entries.len() - 1
            }
        };
        match rest {
            Some(rest) => entries[place].1.set_at(rest, value),
            None => entries[place].1 = value,
        }
    }

    /// Returns the text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// Returns the number as `f64`, if it is an integer or a real.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(v) => Some(*v as f64),
            Self::Float(v) => Some(*v),
            _ => None,
        }
    }

    /// Returns the integer, if it is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(v) => Some(*v),
            _ => None,
        }
    }

    /// Returns the truth value, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(v) => Some(*v),
            _ => None,
        }
    }

    /// Tells whether it is [`Value::None`].
    pub fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for Value {
    /// Writes the value as Python would (`None`, `True`, `[1, 2]`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Bool(v) => f.write_str(if *v { "True" } else { "False" }),
            Self::Int(v) => v.fmt(f),
            Self::Float(v) => write!(f, "{v:?}"),
            Self::Str(v) => write!(f, "'{v}'"),
            Self::List(items) => {
                f.write_str("[")?;
                for (i, item) in items.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Self::Map(entries) => {
                f.write_str("{")?;
                for (i, (key, value)) in entries.iter().enumerate() {
                    let comma = if i > 0 { ", " } else { "" };
                    write!(f, "{comma}'{key}': {value}")?;
                }
                f.write_str("}")
            }
            Self::Array(a) => write!(f, "[array {:?} {}]", a.shape, a.dtype),
        }
    }
}

impl From<serde_json::Value> for Value {
    fn from(json: serde_json::Value) -> Self {
        use serde_json::Value as J;
        match json {
            J::Null => Self::None,
            J::Bool(v) => Self::Bool(v),
            J::Number(n) => match n.as_i64() {
                Some(v) => Self::Int(v),
                None => Self::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            J::String(s) => Self::Str(s),
            J::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            J::Object(map) => Self::Map(map.into_iter().map(|(k, v)| (k, v.into())).collect()),
        }
    }
}
