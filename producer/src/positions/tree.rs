//! What a message of an instrument holds, whatever its format: maps, lists, numbers, arrays.

use std::fmt;

/// A value of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// Nothing.
    None,
    /// Any number or truth value.
    Number(f64),
    /// Several of them, of any shape, in C order.
    Numbers(Vec<f64>),
    /// A text.
    Text(String),
    /// Other values in a row.
    List(Vec<Tree>),
    /// Values by name.
    Map(Vec<(String, Tree)>),
    /// Something that holds no numbers, such as bytes.
    Other,
}

impl Tree {
    /// Returns an entry of a map.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// Returns what stands under a dotted path; names may have dots themselves, the longest counts.
    pub fn at(&self, path: &str) -> Option<&Self> {
        if let Some(found) = self.get(path) {
            return Some(found);
        }
        let ends = path.char_indices().rev().filter(|(_, c)| *c == '.').map(|(end, _)| end);
        ends.filter_map(|end| self.get(&path[..end])?.at(&path[end + 1..])).next()
    }

    /// Returns the text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns one number or several; `None` if it is no number.
    pub fn numbers(&self) -> Option<Vec<f64>> {
        match self {
            Self::Number(one) => Some(vec![*one]),
            Self::Numbers(all) => Some(all.clone()),
            Self::List(items) => {
                let nested = items.iter().map(Self::numbers).collect::<Option<Vec<_>>>()?;
                Some(nested.concat())
            }
            _ => None,
        }
    }

    /// Lists the paths under which numbers stand.
    pub fn paths(&self) -> Vec<String> {
        let Self::Map(entries) = self else { return Vec::new() };
        let below = |(key, value): &(String, Self)| match value {
            Self::Map(_) => value.paths().into_iter().map(|p| format!("{key}.{p}")).collect(),
            _ if value.numbers().is_some() => vec![key.clone()],
            _ => Vec::new(),
        };
        entries.iter().flat_map(below).collect()
    }
}

impl From<serde_json::Value> for Tree {
    fn from(value: serde_json::Value) -> Self {
        use serde_json::Value as Json;
        match value {
            Json::Null => Self::None,
            Json::Bool(b) => Self::Number(f64::from(u8::from(b))),
            Json::Number(n) => Self::Number(n.as_f64().unwrap_or(f64::NAN)),
            Json::String(text) => Self::Text(text),
            Json::Array(items) => match items.iter().map(Json::as_f64).collect() {
                Some(numbers) => Self::Numbers(numbers),
                None => Self::List(items.into_iter().map(Self::from).collect()),
            },
            Json::Object(map) => Self::Map(map.into_iter().map(|(k, v)| (k, v.into())).collect()),
        }
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Number(v) => write!(f, "{v}"),
            Self::Numbers(all) => write!(f, "{} numbers", all.len()),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::List(items) => write!(f, "a list of {}", items.len()),
            Self::Map(entries) => write!(f, "a map of {}", entries.len()),
            Self::Other => f.write_str("something without numbers"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_dots() {
        let json = r#"{"sx": 1, "panda0": {"INENC1.VAL_Mean": [2.5, 3], "note": "x"}, "a.b": {"c": [[1], [2]]}}"#;
        let tree = Tree::from(serde_json::from_str::<serde_json::Value>(json).unwrap());
        let at = |path: &str| tree.at(path).and_then(Tree::numbers);
        assert_eq!(at("sx"), Some(vec![1.0]));
        assert_eq!(at("panda0.INENC1.VAL_Mean"), Some(vec![2.5, 3.0]));
        assert_eq!(at("a.b.c"), Some(vec![1.0, 2.0]));
        assert_eq!((at("panda0.note"), at("panda0"), at("a.b.d")), (None, None, None));
        let mut paths = tree.paths();
        paths.sort();
        assert_eq!(paths, ["a.b.c", "panda0.INENC1.VAL_Mean", "sx"]);
    }
}
