//! One value against its declaration.

use super::tree::nearest;
use super::{ParamDecl, ParamDefault, ParamType};
use crate::value::Value;

/// A value that a parameter does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {text}")]
#[must_use]
pub struct ParamFault {
    /// Dotted name below its block.
    pub key: String,
    /// What was wrong, and the cure.
    pub text: String,
}

impl ParamFault {
    /// Makes a fault.
    pub fn new(key: impl Into<String>, text: impl Into<String>) -> Self {
        Self { key: key.into(), text: text.into() }
    }
}

impl From<ParamDefault> for Value {
    fn from(default: ParamDefault) -> Self {
        match default {
            ParamDefault::None => Self::None,
            ParamDefault::Bool(v) => Self::Bool(v),
            ParamDefault::Int(v) => Self::Int(v),
            ParamDefault::Float(v) => Self::Float(v),
            ParamDefault::Str(v) => Self::Str(v.to_owned()),
            ParamDefault::EmptyList => Self::List(Vec::new()),
        }
    }
}

impl ParamDecl {
    /// Checks a value and returns it in its plain form.
    ///
    /// The text "None" becomes [`Value::None`] where None is taken, a whole number such as 2.0 an
    /// integer where only integers are taken, and 0 and 1 truth values in [`ParamType::BoolTriple`].
    /// # Errors
    /// The text says what was wrong with the value and what is taken.
    pub fn check(&self, value: &Value) -> Result<Value, ParamFault> {
        let value = self.none(value);
        let plain = self.types.iter().find_map(|&ty| self.plain(ty, &value));
        let fault = match plain {
            None => self.type_fault(&value),
            Some(plain) => match self.limit_fault(&plain) {
                None => return Ok(plain),
                Some(fault) => fault,
            },
        };
        let mut text = format!("{fault}; {} is taken", self.expected());
        if !self.cure.is_empty() {
            text.push_str(": ");
            text.push_str(self.cure);
        }
        Err(ParamFault::new(self.name, text))
    }

    /// Tells whether the declaration takes values of a type.
    pub fn takes(&self, ty: ParamType) -> bool {
        self.types.contains(&ty)
    }

    /// Says in words what is taken: `an integer from 1 to 32 or None`.
    pub fn expected(&self) -> String {
        let words: Vec<String> = self
            .types
            .iter()
            .map(|ty| match ty {
                ParamType::None => "None".to_owned(),
                ParamType::Bool => "true or false".to_owned(),
                ParamType::Int => format!("an integer{}", self.range()),
                ParamType::Float => format!("a number{}", self.range()),
                ParamType::Str if self.choices.is_empty() => "a text".to_owned(),
                ParamType::Str => format!("one of {}", self.choices.join(", ")),
                ParamType::InputPath | ParamType::OutputPath => "a path".to_owned(),
                ParamType::IntPair => "a pair of integers".to_owned(),
                ParamType::FloatPair => "a pair of numbers".to_owned(),
                ParamType::BoolTriple => "a list of three truth values".to_owned(),
                ParamType::List => "a list".to_owned(),
                ParamType::Image => "a path or { file, key }".to_owned(),
                ParamType::Pattern => "{ pattern, points, step }".to_owned(),
                ParamType::Images => "a path, { file, key, invert } or a list of these".to_owned(),
                ParamType::Group => "a group".to_owned(),
            })
            .collect();
        match words.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
        }
    }

    /// Says the limits in words, with a space in front; empty if there are none.
    pub(super) fn range(&self) -> String {
        match (self.low, self.high) {
            (None, None) => String::new(),
            (Some(low), None) if self.low_open => format!(" above {low}"),
            (Some(low), None) => format!(" of {low} or more"),
            (Some(low), Some(high)) if self.low_open => format!(" above {low}, at most {high}"),
            (Some(low), Some(high)) => format!(" from {low} to {high}"),
            (None, Some(high)) => format!(" of {high} or less"),
        }
    }

    fn none(&self, value: &Value) -> Value {
        let word = matches!(value, Value::Str(s) if s.eq_ignore_ascii_case("none"));
        match value {
            _ if word && self.takes(ParamType::None) => Value::None,
            _ if (word || value.is_none()) && self.choices.contains(&"none") => {
                Value::Str("none".to_owned())
            }
            other => other.clone(),
        }
    }

    /// Returns the value in its plain form if it has the type.
    fn plain(&self, ty: ParamType, value: &Value) -> Option<Value> {
        match (ty, value) {
            (ParamType::None, Value::None)
            | (ParamType::Bool, Value::Bool(_))
            | (ParamType::Int | ParamType::Float, Value::Int(_))
            | (ParamType::List, Value::List(_)) => Some(value.clone()),
            (ParamType::Int, Value::Float(_)) if !self.takes(ParamType::Float) => whole(value),
            (ParamType::Float, Value::Float(v)) => v.is_finite().then(|| value.clone()),
            (ParamType::Str, Value::Str(s)) => (self.choices.is_empty()
                || self.choices.contains(&s.as_str()))
            .then(|| value.clone()),
            (ParamType::InputPath | ParamType::OutputPath, Value::Str(s)) => {
                (!s.is_empty()).then(|| value.clone())
            }
            (ParamType::IntPair, Value::List(items)) if items.len() == 2 => {
                items.iter().map(whole).collect::<Option<_>>().map(Value::List)
            }
            (ParamType::FloatPair, Value::List(items)) if items.len() == 2 => {
                items.iter().all(|v| v.as_f64().is_some_and(f64::is_finite)).then(|| value.clone())
            }
            (ParamType::BoolTriple, Value::List(items)) if items.len() == 3 => {
                items.iter().map(truth).collect::<Option<_>>().map(Value::List)
            }
            (ParamType::Pattern, Value::Map(_)) => Some(value.clone()),
            (ParamType::Image | ParamType::Images, one) if is_image(one) => Some(value.clone()),
            (ParamType::Images, Value::List(items)) => {
                (!items.is_empty() && items.iter().all(is_image)).then(|| value.clone())
            }
            _ => None,
        }
    }

    fn type_fault(&self, value: &Value) -> String {
        let shown = short(value);
        if let Value::Str(word) = value
            && self.takes(ParamType::Str)
            && let Some(near) = nearest(word, self.choices.iter().copied())
        {
            return format!("{shown} is not known, did you mean '{near}'");
        }
        match value {
            Value::Str(s) if s.is_empty() => "the text is empty".to_owned(),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) if self.text_only() => {
                format!("{shown} is not a text, write it in quotes")
            }
            _ => format!("{shown} does not fit"),
        }
    }

    fn text_only(&self) -> bool {
        use ParamType::{Bool, Float, Int, Str};
        self.takes(Str)
            && self.choices.is_empty()
            && ![Int, Float, Bool].iter().any(|&t| self.takes(t))
    }

    fn limit_fault(&self, value: &Value) -> Option<String> {
        if let Value::List(items) = value {
            let pair = self.takes(ParamType::IntPair) || self.takes(ParamType::FloatPair);
            return items.iter().filter(|_| pair).find_map(|item| self.limit_fault(item));
        }
        let number = value.as_f64()?;
        if self.low.is_some_and(|low| number < low || (self.low_open && number == low)) {
            return Some(format!("{value} is too low"));
        }
        self.high.is_some_and(|high| number > high).then(|| format!("{value} is too high"))
    }
}

/// Tells whether a value names a file with an image.
fn is_image(value: &Value) -> bool {
    match value {
        Value::Str(path) => !path.is_empty(),
        Value::Map(entries) => {
            let fits = |(key, value): &(String, Value)| match (key.as_str(), value) {
                ("file" | "key", Value::Str(text)) => !text.is_empty(),
                ("invert", Value::Bool(_)) => true,
                ("average", Value::Str(how)) => how == "mean" || how == "median",
                _ => false,
            };
            entries.iter().all(fits) && entries.iter().any(|(key, _)| key == "file")
        }
        _ => false,
    }
}

fn whole(value: &Value) -> Option<Value> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Int(_) => Some(value.clone()),
        Value::Float(v) if v.fract() == 0.0 && v.abs() <= EXACT => Some(Value::Int(*v as i64)),
        _ => None,
    }
}

fn truth(value: &Value) -> Option<Value> {
    match value {
        Value::Bool(_) => Some(value.clone()),
        Value::Int(v @ (0 | 1)) => Some(Value::Bool(*v == 1)),
        _ => None,
    }
}

/// Writes a value for an error's text, cut after 60 characters.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{DATA, PIPELINE};
    use super::*;

    fn decl(name: &str) -> ParamDecl {
        *DATA.iter().chain(PIPELINE).find(|d| d.name == name).unwrap()
    }

    fn text(name: &str, value: Value) -> String {
        decl(name).check(&value).unwrap_err().text
    }

    fn pair(a: f64, b: f64) -> Value {
        Value::List(vec![Value::Float(a), Value::Float(b)])
    }

    #[test]
    fn every_default_passes_its_own_check() {
        for decl in DATA.iter().chain(PIPELINE).filter(|d| d.name != "name") {
            let default = Value::from(decl.default);
            assert_eq!(decl.check(&default), Ok(default), "{}", decl.name);
        }
    }

    #[test]
    fn the_word_none_stands_for_none_where_none_is_taken() {
        for word in ["None", "none", "NONE"] {
            assert_eq!(decl("energy").check(&Value::Str(word.into())), Ok(Value::None));
            let compression = decl("compression").check(&Value::Str(word.into()));
            assert_eq!(compression, Ok(Value::Str("none".into())));
        }
        assert!(
            text("min_frames", Value::None).contains("None does not fit; an integer of 1 or more")
        );
        assert!(text("min_frames", Value::Str("None".into())).contains("'None' does not fit"));
    }

    #[test]
    fn a_fault_says_value_what_is_taken_and_the_cure() {
        let cases = [
            (
                "orientation",
                Value::Int(8),
                "8 is too high; an integer from 0 to 7, a list of three truth values or None is taken: give 0 to 7 or three booleans (transpose, flipud, fliplr)",
            ),
            ("orientation", Value::Int(-1), "-1 is too low; an integer from 0 to 7"),
            (
                "rebin",
                Value::Int(0),
                "0 is too low; an integer from 1 to 32 or None is taken: for no rebinning give 1 or None",
            ),
            ("rebin", Value::Float(2.5), "2.5 does not fit"),
            (
                "shape",
                Value::Int(0),
                "0 is too low; an integer of 1 or more, a pair of integers or None",
            ),
            ("shape", pair(128.0, 0.0), "0 is too low"),
            (
                "center",
                Value::Int(64),
                "64 does not fit; one of fftshift, geometric, fft, a pair of numbers or None is taken: give (row, column), such as [64, 64]",
            ),
            ("center", Value::Str("fftshit".into()), "did you mean 'fftshift'"),
            ("psize", pair(1e-4, -1e-4), "-0.0001 is too low; a number above 0"),
            ("energy", Value::Int(0), "0 is too low; a number above 0 or None"),
            ("energy", Value::Float(f64::INFINITY), "does not fit"),
            ("num_frames", Value::Int(0), "an integer of 1 or more or None"),
            ("save", Value::Str("apend".into()), "'apend' is not known, did you mean 'append'"),
            ("label", Value::Int(7), "7 is not a text, write it in quotes"),
            ("dfile", Value::Str(String::new()), "the text is empty"),
            ("auto_center", Value::Str("yes".into()), "'yes' does not fit; true or false or None"),
        ];
        for (name, value, expected) in cases {
            let text = text(name, value);
            assert!(text.contains(expected), "{name}: {text}");
        }
    }

    #[test]
    fn plain_forms() {
        assert_eq!(decl("rebin").check(&Value::Float(2.0)), Ok(Value::Int(2)));
        assert_eq!(decl("energy").check(&Value::Int(7)), Ok(Value::Int(7)));
        let triple = Value::List(vec![Value::Int(1), Value::Bool(false), Value::Int(0)]);
        let plain = Value::List(vec![Value::Bool(true), Value::Bool(false), Value::Bool(false)]);
        assert_eq!(decl("orientation").check(&triple), Ok(plain));
    }
}
