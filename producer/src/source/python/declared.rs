//! Parameters of docstrings as declarations.

use ptystream_common::params::{DATA, ParamDecl, ParamDefault, ParamType};
use serde_json::Value as Json;

/// Makes declarations of what a class tells; they stay for the life of the program.
///
/// `name` is ptystream's own. ptypy's parameters that a class declares anew keep their types: only
/// their default changes.
pub(super) fn params(all: &Json) -> Vec<ParamDecl> {
    let entries = all.as_array().into_iter().flatten();
    entries.filter(|entry| entry["name"] != "name").filter_map(declaration).collect()
}

fn forever(text: &str) -> &'static str {
    Box::leak(text.to_owned().into_boxed_str())
}

fn declaration(entry: &Json) -> Option<ParamDecl> {
    let name = entry["name"].as_str()?;
    let words: Vec<&str> = entry["types"].as_array()?.iter().filter_map(Json::as_str).collect();
    let default = default(&entry["default"]);
    let text = |key: &str| forever(entry[key].as_str().unwrap_or_default());
    if let Some(shared) = DATA.iter().find(|d| d.name == name) {
        return Some(ParamDecl { default, ..*shared });
    }
    let mut types: Vec<ParamType> = words.iter().filter_map(|word| kind(word)).collect();
    if types.is_empty() {
        // Nothing is said: whatever may stand in a configuration.
        types = vec![ParamType::Str, ParamType::Float, ParamType::Bool, ParamType::List];
    }
    if matches!(default, ParamDefault::None) && !types.contains(&ParamType::Group) {
        types.push(ParamType::None);
    }
    let mut decl = ParamDecl::new(forever(name), Vec::leak(types), default, text("help"))
        .doc(text("doc"))
        .level(entry["userlevel"].as_u64().unwrap_or(0).min(2) as u8)
        .limits(entry["lowlim"].as_f64(), entry["uplim"].as_f64());
    let choices: Vec<&'static str> = entry["choices"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c.as_str().map(forever))
        .collect();
    if !choices.is_empty() {
        decl = decl.choices(Vec::leak(choices));
    }
    Some(decl)
}

fn kind(word: &str) -> Option<ParamType> {
    Some(match word {
        "str" => ParamType::Str,
        "int" => ParamType::Int,
        "float" => ParamType::Float,
        "bool" => ParamType::Bool,
        "None" => ParamType::None,
        "list" | "tuple" | "ndarray" | "array" => ParamType::List,
        "Param" | "dict" => ParamType::Group,
        "file" | "path" => ParamType::InputPath,
        _ => return None,
    })
}

/// A list that is not empty is the class's own to fill in.
fn default(value: &Json) -> ParamDefault {
    match value {
        Json::Bool(v) => ParamDefault::Bool(*v),
        Json::String(v) => ParamDefault::Str(forever(v)),
        Json::Number(v) => match v.as_i64() {
            Some(v) => ParamDefault::Int(v),
            None => ParamDefault::Float(v.as_f64().unwrap_or(0.0)),
        },
        _ => ParamDefault::None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn docstrings_become_declarations() {
        let all = json!([
            { "name": "name", "types": ["str"], "default": "x" },
            { "name": "base_path", "types": ["str"], "default": "./", "help": "Folder." },
            { "name": "size", "types": ["int", "None"], "default": 3, "lowlim": 1, "userlevel": 2 },
            { "name": "energy", "types": ["float"], "default": null },
            { "name": "box", "types": ["tuple"], "default": [1, 2] },
        ]);
        let found = params(&all);
        let names: Vec<&str> = found.iter().map(|d| d.name).collect();
        assert_eq!(names, ["base_path", "size", "energy", "box"]);
        assert_eq!(found[0].default, ParamDefault::Str("./"));
        assert_eq!((found[1].low, found[1].level), (Some(1.0), 2));
        assert!(found[1].takes(ParamType::None));
        let shared = DATA.iter().find(|d| d.name == "energy").unwrap();
        assert_eq!((found[2].unit, found[2].default), (shared.unit, ParamDefault::None));
        assert!(found[3].takes(ParamType::List) && found[3].takes(ParamType::None));
    }
}
