//! Configuration files: TOML, JSON and YAML, ours and ptypy's.

use super::Origin;
use super::error::ConfigError;
use ptystream_common::error::chain;
use ptystream_common::params::nearest;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::value::Value;
use std::path::Path;

/// The blocks of a file, and what was left aside.
#[derive(Debug)]
pub(super) struct FileBlocks {
    /// The `[data]` block.
    pub data: Value,
    /// The `[pipeline]` block.
    pub pipeline: Value,
    /// The preset below the blocks.
    pub preset: Option<String>,
    /// The chosen scan of a ptypy file.
    pub scan: Option<String>,
    /// What was ignored.
    pub notes: Vec<String>,
}

impl Default for FileBlocks {
    fn default() -> Self {
        Self { data: map(), pipeline: map(), preset: None, scan: None, notes: Vec::new() }
    }
}

/// Reads a file into a tree, by its ending.
pub(super) fn read_tree(file: &Path) -> Result<Value, ConfigError> {
    let fault = |text: String, source| ConfigError::File { file: file.to_owned(), text, source };
    let ending = file.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    if !["toml", "json", "yaml", "yml"].contains(&ending.as_str()) {
        let text = match file.exists() {
            true => "not a configuration; it must end in .toml, .json or .yaml",
            false => "no such file or folder; check the path",
        };
        return Err(fault(text.to_owned(), None));
    }
    let text = std::fs::read_to_string(file)
        .map_err(|e| fault("the configuration cannot be read".to_owned(), Some(e)))?;
    let tree = match ending.as_str() {
        "toml" => text
            .parse::<toml::Table>()
            .map(|table| from_toml(toml::Value::Table(table)))
            .map_err(|e| format!("not TOML: {}{}", place(&text, e.span()), e.message())),
        "json" => serde_json::from_str::<serde_json::Value>(&text)
            .map(Value::from)
            .map_err(|e| format!("not JSON: {e}")),
        _ => serde_yaml_ng::from_str::<serde_yaml_ng::Value>(&text)
            .map(from_yaml)
            .map_err(|e| format!("not YAML: {e}")),
    };
    match tree.map_err(|text| fault(text, None))? {
        tree @ Value::Map(_) => Ok(tree),
        Value::None => Ok(Value::Map(Vec::new())),
        _ => Err(fault("the file holds no blocks; it must start with [data]".to_owned(), None)),
    }
}

/// Reads the configuration that a `.ptyd` was prepared with.
pub(super) fn read_recorded(file: &Path) -> Result<Value, ConfigError> {
    let fault = |text: String| ConfigError::File { file: file.to_owned(), text, source: None };
    let opened = PtydFile::open(file).map_err(|e| fault(chain(&e)))?;
    let recorded = opened.record().map(|r| r.config).filter(|text| !text.is_empty());
    let text = recorded.ok_or_else(|| {
        fault("holds no configuration: another program wrote it, or an older ptystream".to_owned())
    })?;
    toml_tree(&text).map_err(fault)
}

/// Reads TOML into a tree.
pub(super) fn toml_tree(text: &str) -> Result<Value, String> {
    let table: toml::Table =
        text.parse().map_err(|e: toml::de::Error| format!("not TOML: {}", e.message()))?;
    Ok(from_toml(toml::Value::Table(table)))
}

/// Picks the blocks out of a file's tree; `scan` chooses among those of a ptypy file.
pub(super) fn blocks(
    file: &Path,
    tree: Value,
    scan: Option<&str>,
    errors: &mut Vec<ConfigError>,
) -> FileBlocks {
    let mut out = FileBlocks::default();
    let Value::Map(entries) = tree else { return out };
    let of_ptypy = entries.iter().any(|(key, _)| key == "scans");
    let mut ignored = Vec::new();
    for (key, value) in entries {
        let near = nearest(&key, ["data", "pipeline", "preset", "scans"]);
        match (key.as_str(), of_ptypy) {
            ("scans", _) => match pick_scan(value, scan) {
                Ok((name, data)) => {
                    let Value::Map(scan) = data else { continue };
                    for (key, value) in scan {
                        match key.as_str() {
                            "data" => out.data = value,
                            _ => ignored.push(format!("scans.{name}.{key}")),
                        }
                    }
                    out.scan = Some(name);
                }
                Err(text) => {
                    errors.push(ConfigError::File { file: file.to_owned(), text, source: None })
                }
            },
            ("preset", _) => match value {
                Value::Str(name) => out.preset = Some(name),
                other => errors.push(ConfigError::Preset { text: format!("{other} is no name") }),
            },
            ("pipeline", _) => out.pipeline = value,
            ("data", false) => out.data = value,
            (_, true) if near != Some("pipeline") => ignored.push(key),
            _ => errors.push(ConfigError::Unknown {
                near: near.map(str::to_owned).or_else(|| super::near_key(&key, &[])),
                key,
                origin: Origin::File(file.to_owned()),
                elsewhere: None,
            }),
        }
    }
    if !ignored.is_empty() {
        out.notes.push(format!("{}: not used here: {}", file.display(), ignored.join(", ")));
    }
    out
}

fn map() -> Value {
    Value::Map(Vec::new())
}

/// Chooses one scan out of ptypy's `scans` block.
fn pick_scan(scans: Value, chosen: Option<&str>) -> Result<(String, Value), String> {
    let Value::Map(mut scans) = scans else {
        return Err("scans is not a block; give scans.<name>.data".to_owned());
    };
    let names: Vec<String> = scans.iter().map(|(name, _)| name.clone()).collect();
    let listed = names.join(", ");
    let place = match chosen {
        Some(chosen) => names.iter().position(|n| n == chosen).ok_or_else(|| {
            format!("scans.{chosen} is not there; choose one of {listed} with --scan")
        })?,
        None if names.len() == 1 => 0,
        None if names.is_empty() => return Err("scans is empty; give scans.<name>.data".to_owned()),
        None => return Err(format!("there are scans {listed}; choose one with --scan")),
    };
    let (name, scan) = scans.swap_remove(place);
    match scan.get("data") {
        Some(Value::Map(_)) => Ok((name, scan)),
        _ => Err(format!("scans.{name}.data is missing; it says what to read")),
    }
}

/// Turns a TOML value into ours; dates become texts.
pub(super) fn from_toml(value: toml::Value) -> Value {
    match value {
        toml::Value::String(v) => Value::Str(v),
        toml::Value::Integer(v) => Value::Int(v),
        toml::Value::Float(v) => Value::Float(v),
        toml::Value::Boolean(v) => Value::Bool(v),
        toml::Value::Datetime(v) => Value::Str(v.to_string()),
        toml::Value::Array(items) => Value::List(items.into_iter().map(from_toml).collect()),
        toml::Value::Table(table) => {
            Value::Map(table.into_iter().map(|(k, v)| (k, from_toml(v))).collect())
        }
    }
}

/// Turns a YAML value into ours; tags are dropped, keys become texts.
fn from_yaml(value: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Y;
    match value {
        Y::Null => Value::None,
        Y::Bool(v) => Value::Bool(v),
        Y::Number(n) => match n.as_i64() {
            Some(v) => Value::Int(v),
            None => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Y::String(v) => Value::Str(v),
        Y::Sequence(items) => Value::List(items.into_iter().map(from_yaml).collect()),
        Y::Mapping(entries) => Value::Map(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = match key {
                        Y::String(key) => key,
                        other => from_yaml(other).to_string(),
                    };
                    (key, from_yaml(value))
                })
                .collect(),
        ),
        Y::Tagged(tagged) => from_yaml(tagged.value),
    }
}

/// Says line and column of an offset in a text.
fn place(text: &str, span: Option<std::ops::Range<usize>>) -> String {
    let Some(before) = span.and_then(|s| text.get(..s.start)) else { return String::new() };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
    format!("line {line}, column {column}: ")
}
