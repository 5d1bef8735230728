//! Numbers of a message, whatever its format, by the names of its fields.

use ptystream_common::value::Value;

/// Returns what stands under a dotted path; names may have dots themselves, the longest counts.
pub fn find<'a>(message: &'a Value, path: &str) -> Option<&'a Value> {
    if let Some(found) = message.get(path) {
        return Some(found);
    }
    let ends = path.char_indices().rev().filter(|(_, c)| *c == '.').map(|(end, _)| end);
    ends.filter_map(|end| find(message.get(&path[..end])?, &path[end + 1..])).next()
}

/// Returns one number or several, truth values included; `None` if it is no number.
pub fn numbers(value: &Value) -> Option<Vec<f64>> {
    match value {
        Value::Bool(truth) => Some(vec![f64::from(u8::from(*truth))]),
        Value::Array(array) => Some(array.items.clone()),
        Value::List(items) => Some(items.iter().map(numbers).collect::<Option<Vec<_>>>()?.concat()),
        one => one.as_f64().map(|number| vec![number]),
    }
}

/// Lists the paths under which numbers stand.
pub fn paths(message: &Value) -> Vec<String> {
    let Value::Map(entries) = message else { return Vec::new() };
    let below = |(key, value): &(String, Value)| match value {
        Value::Map(_) => paths(value).into_iter().map(|path| format!("{key}.{path}")).collect(),
        _ if numbers(value).is_some() => vec![key.clone()],
        _ => Vec::new(),
    };
    entries.iter().flat_map(below).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_dots() {
        let json = r#"{"sx": 1, "panda0": {"INENC1.VAL_Mean": [2.5, 3], "note": "x"}, "a.b": {"c": [[1], [2]]}}"#;
        let message = Value::from(serde_json::from_str::<serde_json::Value>(json).unwrap());
        let at = |path: &str| find(&message, path).and_then(numbers);
        assert_eq!(at("sx"), Some(vec![1.0]));
        assert_eq!(at("panda0.INENC1.VAL_Mean"), Some(vec![2.5, 3.0]));
        assert_eq!(at("a.b.c"), Some(vec![1.0, 2.0]));
        assert_eq!((at("panda0.note"), at("panda0"), at("a.b.d")), (None, None, None));
        let mut all = paths(&message);
        all.sort();
        assert_eq!(all, ["a.b.c", "panda0.INENC1.VAL_Mean", "sx"]);
    }
}
