//! Single assignments: `--set data.rebin=2` and `PTYSTREAM_DATA__REBIN=2`.

use super::Origin;
use super::error::ConfigError;
use super::file::from_toml;
use ptystream_common::value::Value;

/// One key that was given alone.
#[derive(Debug)]
pub(super) struct Assignment {
    /// Dotted, the block in front; as given.
    pub key: String,
    /// What stands behind the equals sign.
    pub text: String,
    /// The text, parsed.
    pub value: Value,
    /// Who gave it.
    pub origin: Origin,
}

/// Takes a `--set` argument apart.
pub(super) fn from_flag(given: &str) -> Result<Assignment, ConfigError> {
    let fault = |text: String| ConfigError::Assignment { given: given.to_owned(), text };
    let (key, text) = given
        .split_once('=')
        .filter(|(key, _)| !key.trim().is_empty())
        .ok_or_else(|| fault("no equals sign; write KEY=VALUE, as data.rebin=2".to_owned()))?;
    let (key, text) = (key.trim().to_owned(), text.trim().to_owned());
    let value = parse(&text).map_err(fault)?;
    Ok(Assignment { key, text, value, origin: Origin::Set })
}

/// Takes the variables apart that name a block: `PTYSTREAM_<BLOCK>__<KEY>`.
pub(super) fn from_env(
    variables: &[(String, String)],
    errors: &mut Vec<ConfigError>,
) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    for (name, text) in variables {
        let key = name.strip_prefix("PTYSTREAM_").filter(|key| key.contains("__"));
        let Some(key) = key.map(|key| key.replace("__", ".").to_lowercase()) else { continue };
        let origin = Origin::Env(name.clone());
        match parse(text) {
            Ok(value) => assignments.push(Assignment { key, text: text.clone(), value, origin }),
            Err(text) => errors.push(ConfigError::Value { key, origin, text }),
        }
    }
    assignments.sort_by(|a, b| a.key.cmp(&b.key));
    assignments
}

/// Parses a value as TOML, JSON or Python would write it; a bare word is a text.
///
/// A brace in front may open a placeholder, so what is no table is a text too.
fn parse(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match text {
        "None" | "none" | "null" => return Ok(Value::None),
        "True" => return Ok(Value::Bool(true)),
        "False" => return Ok(Value::Bool(false)),
        _ => {}
    }
    if let Ok(value) = text.parse::<toml::Value>() {
        return Ok(from_toml(value));
    }
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
        return Ok(value.into());
    }
    if let Some(inner) = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')) {
        return parse(&format!("[{inner}]"));
    }
    if text.starts_with(['[', '"', '\'']) {
        return Err(format!(
            "{text} is neither TOML nor JSON; close what is open, quote texts in lists"
        ));
    }
    Ok(Value::Str(text.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        from_flag(&format!("data.x={text}")).unwrap().value
    }

    #[test]
    fn values_as_people_write_them() {
        let pair = Value::List(vec![Value::Int(64), Value::Float(1.5)]);
        assert_eq!(value("[64, 1.5]"), pair);
        assert_eq!(value("(64, 1.5)"), pair);
        assert_eq!(value("2"), Value::Int(2));
        assert_eq!(value("1e-6"), Value::Float(1e-6));
        assert_eq!(value("true"), Value::Bool(true));
        assert_eq!(value("True"), Value::Bool(true));
        assert_eq!(value("None"), Value::None);
        assert_eq!(value("null"), Value::None);
        assert_eq!(value("out/a=b.ptyd"), Value::Str("out/a=b.ptyd".into()));
        assert_eq!(value("{scan:06}.ptyd"), Value::Str("{scan:06}.ptyd".into()));
        assert_eq!(value("\"7\""), Value::Str("7".into()));
        assert_eq!(value("{\"file\": \"a.h5\"}").get("file"), Some(&Value::Str("a.h5".into())));
        assert_eq!(value("{ file = 'a.h5' }").get("file"), Some(&Value::Str("a.h5".into())));
    }

    #[test]
    fn what_is_no_assignment_is_refused() {
        for given in ["data.rebin", "=2"] {
            let text = from_flag(given).unwrap_err().to_string();
            assert_eq!(
                text,
                format!("--set {given}: no equals sign; write KEY=VALUE, as data.rebin=2")
            );
        }
        let text = from_flag("data.center=[1, 2").unwrap_err().to_string();
        assert!(text.contains("[1, 2 is neither TOML nor JSON"), "{text}");
    }

    #[test]
    fn variables_without_a_block_are_not_ours() {
        let variables =
            [("PTYSTREAM_LOG", "x"), ("PTYSTREAM_DATA__MASK__FILE", "a.h5"), ("HOME", "/")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()));
        let mut errors = Vec::new();
        let found = from_env(&variables, &mut errors);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].key, "data.mask.file");
        assert!(errors.is_empty());
    }
}
