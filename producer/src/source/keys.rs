//! Reads of parameters by a source: dotted keys of the effective `[data]` tree.

use ptystream_common::dtype::Dtype;
use ptystream_common::source::{SourceError, SourceSpec};
use ptystream_common::value::Value;
use std::path::PathBuf;

/// Makes the error of one parameter.
pub(crate) fn wrong(key: &str, text: impl Into<String>) -> SourceError {
    SourceError::Param { key: key.into(), text: text.into() }
}

/// The parameters of one source.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a>(pub &'a SourceSpec);

impl<'a> Keys<'a> {
    fn some(self, key: &str) -> Option<&'a Value> {
        self.0.data.at(key).filter(|v| !v.is_none())
    }

    /// Returns a text, `None` if it is not given.
    pub fn text(self, key: &str) -> Result<Option<&'a str>, SourceError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| wrong(key, format!("{value} is not a text")))
    }

    /// Returns an input path, relative ones taken from the configuration's folder.
    pub fn input_path(self, key: &str) -> Result<Option<PathBuf>, SourceError> {
        Ok(self.text(key)?.map(|path| self.0.path(path)))
    }

    /// Returns a real number, `None` if it is not given.
    pub fn number(self, key: &str) -> Result<Option<f64>, SourceError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        value
            .as_f64()
            .filter(|v| v.is_finite())
            .map(Some)
            .ok_or_else(|| wrong(key, format!("{value} is not a finite number")))
    }

    /// Returns an integer that is not negative, `None` if it is not given.
    pub fn count(self, key: &str) -> Result<Option<usize>, SourceError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        value
            .as_i64()
            .and_then(|v| usize::try_from(v).ok())
            .map(Some)
            .ok_or_else(|| wrong(key, format!("{value} is not an integer of 0 or more")))
    }

    /// Returns a truth value, `default` if it is not given.
    pub fn flag(self, key: &str, default: bool) -> Result<bool, SourceError> {
        let Some(value) = self.some(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| wrong(key, format!("{value} is neither true nor false")))
    }

    /// Returns two numbers (y, x); a single one stands for both.
    pub fn pair(self, key: &str) -> Result<Option<[f64; 2]>, SourceError> {
        let Some(value) = self.some(key) else { return Ok(None) };
        let items: Vec<f64> = match value {
            Value::List(items) => items.iter().filter_map(Value::as_f64).collect(),
            Value::Array(a) => a.items.clone(),
            single => single.as_f64().into_iter().collect(),
        };
        match items[..] {
            [both] => Ok(Some([both, both])),
            [y, x] => Ok(Some([y, x])),
            _ => Err(wrong(key, format!("{value} is neither a number nor two numbers (y, x)"))),
        }
    }

    /// Returns a pixel type by numpy's name, `default` if it is not given.
    pub fn dtype(self, key: &str, default: Dtype) -> Result<Dtype, SourceError> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        Dtype::from_name(name).filter(|d| *d != Dtype::Bool).ok_or_else(|| {
            let names = Dtype::ALL.into_iter().filter(|d| *d != Dtype::Bool).map(Dtype::name);
            wrong(
                key,
                format!("'{name}' is no pixel type; {}", names.collect::<Vec<_>>().join(", ")),
            )
        })
    }

    /// Tells whether a parameter is given, whatever its type.
    pub fn has(self, key: &str) -> bool {
        self.some(key).is_some()
    }
}
