//! The declarations as JSON schema, for editors.

use super::{ParamDecl, ParamDefault, ParamType};
use serde_json::{Map, Value as Json, json};

/// Makes the schema of a block: an object that takes the declared names and no others.
///
/// A name that is declared more than once (by several sources) takes what any of them takes.
pub fn block_schema<'a>(decls: impl IntoIterator<Item = &'a ParamDecl>) -> Json {
    let mut block = object();
    for decl in decls {
        let path: Vec<&str> = decl.name.split('.').collect();
        insert(&mut block, &path, decl);
    }
    block
}

fn object() -> Json {
    json!({ "type": "object", "additionalProperties": false, "properties": {} })
}

fn insert(block: &mut Json, path: &[&str], decl: &ParamDecl) {
    let Some((&key, rest)) = path.split_first() else { return };
    let Some(properties) = block.get_mut("properties").and_then(Json::as_object_mut) else {
        return;
    };
    if rest.is_empty() && !decl.takes(ParamType::Group) {
        add_variant(properties, key, decl_schema(decl));
        return;
    }
    let group = group_in(properties, key);
    match rest {
        [] => group["description"] = Json::from(decl.help),
        rest => insert(group, rest, decl),
    }
}

/// Adds a schema to what a property takes already.
fn add_variant(properties: &mut Map<String, Json>, key: &str, schema: Json) {
    match properties.get_mut(key) {
        None => {
            properties.insert(key.to_owned(), schema);
        }
        Some(there) if *there == schema => {}
        Some(there) => match there.get_mut("anyOf").and_then(Json::as_array_mut) {
            Some(variants) if !variants.contains(&schema) => variants.push(schema),
            Some(_) => {}
            None => *there = json!({ "anyOf": [there.take(), schema] }),
        },
    }
}

/// Returns the schema of a group, which is made where there is none.
fn group_in<'a>(properties: &'a mut Map<String, Json>, key: &str) -> &'a mut Json {
    let is_group = |s: &Json| s.get("properties").is_some();
    let there = properties.get(key);
    let found = there.is_some_and(is_group);
    let among = there
        .and_then(|s| s.get("anyOf"))
        .and_then(Json::as_array)
        .and_then(|variants| variants.iter().position(is_group));
    if !found && among.is_none() {
        add_variant(properties, key, object());
        return group_in(properties, key);
    }
    match among {
        Some(place) => &mut properties[key]["anyOf"][place],
        None => &mut properties[key],
    }
}

/// Makes the schema of one parameter.
fn decl_schema(decl: &ParamDecl) -> Json {
    let mut variants: Vec<Json> = decl.types.iter().map(|&ty| type_schema(decl, ty)).collect();
    if decl.takes(ParamType::None) {
        variants.push(json!({ "enum": ["None", "none"] }));
    }
    let mut schema = match variants.len() {
        1 => variants.remove(0),
        _ => json!({ "anyOf": variants }),
    };
    let unit = if decl.unit.is_empty() { String::new() } else { format!(" [{}]", decl.unit) };
    let doc = if decl.doc.is_empty() { String::new() } else { format!(" {}", decl.doc) };
    schema["description"] = format!("{}{unit}{doc}", decl.help).into();
    schema["default"] = match decl.default {
        ParamDefault::None => Json::Null,
        ParamDefault::Bool(v) => v.into(),
        ParamDefault::Int(v) => v.into(),
        ParamDefault::Float(v) => v.into(),
        ParamDefault::Str(v) => v.into(),
        ParamDefault::EmptyList => json!([]),
    };
    schema
}

fn type_schema(decl: &ParamDecl, ty: ParamType) -> Json {
    let limited = |ty: &str| {
        let mut schema = json!({ "type": ty });
        if let Some(low) = decl.low {
            let key = if decl.low_open { "exclusiveMinimum" } else { "minimum" };
            schema[key] = low.into();
        }
        if let Some(high) = decl.high {
            schema["maximum"] = high.into();
        }
        schema
    };
    let list = |item: Json, n: usize| json!({ "type": "array", "items": item, "minItems": n, "maxItems": n });
    match ty {
        ParamType::None => json!({ "type": "null" }),
        ParamType::Bool => json!({ "type": "boolean" }),
        ParamType::Int => limited("integer"),
        ParamType::Float => limited("number"),
        ParamType::Str if !decl.choices.is_empty() => json!({ "enum": decl.choices }),
        ParamType::Str => json!({ "type": "string" }),
        ParamType::InputPath | ParamType::OutputPath => json!({ "type": "string", "minLength": 1 }),
        ParamType::IntPair => list(limited("integer"), 2),
        ParamType::FloatPair => list(limited("number"), 2),
        ParamType::BoolTriple => list(json!({ "enum": [true, false, 0, 1] }), 3),
        ParamType::List => json!({ "type": "array" }),
        ParamType::Image => image(),
        ParamType::Images => json!({
            "anyOf": [image(), { "type": "array", "items": image(), "minItems": 1 }]
        }),
        ParamType::Pattern => json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["pattern", "points", "step"],
            "properties": {
                "pattern": { "enum": ["raster", "snake", "round", "spiral"] },
                "points": { "type": ["integer", "array"] },
                "step": { "type": ["number", "array"] },
                "center": { "type": "array" }
            }
        }),
        ParamType::Group => json!({ "type": "object" }),
    }
}

/// Returns the schema of a file with an image.
fn image() -> Json {
    let text = json!({ "type": "string", "minLength": 1 });
    json!({ "anyOf": [text, {
        "type": "object",
        "additionalProperties": false,
        "required": ["file"],
        "properties": {
            "file": text, "key": text,
            "invert": { "type": "boolean" },
            "average": { "enum": ["mean", "median"] }
        }
    }] })
}

#[cfg(test)]
mod tests {
    use super::super::DATA;
    use super::*;

    const MASKS: &[ParamDecl] = &[
        ParamDecl::new(
            "mask",
            &[ParamType::InputPath, ParamType::None],
            ParamDefault::None,
            "One.",
        ),
        ParamDecl::new("mask", &[ParamType::Group], ParamDefault::None, "A group."),
        ParamDecl::new("mask.file", &[ParamType::InputPath], ParamDefault::None, "Its file."),
        ParamDecl::new("mask.key", &[ParamType::Str], ParamDefault::Str("m"), "Its key."),
    ];

    #[test]
    fn limits_choices_and_defaults_are_in_the_schema() {
        let schema = block_schema(DATA);
        assert_eq!(schema["additionalProperties"], json!(false));
        let rebin = &schema["properties"]["rebin"];
        assert_eq!(
            rebin["anyOf"][0],
            json!({ "type": "integer", "minimum": 1.0, "maximum": 32.0 })
        );
        assert_eq!(rebin["default"], Json::Null);
        let save = &schema["properties"]["save"]["anyOf"];
        assert_eq!(save[0], json!({ "enum": ["append", "link", "merge"] }));
        assert_eq!(save[2], json!({ "enum": ["None", "none"] }));
        assert_eq!(schema["properties"]["energy"]["anyOf"][0]["exclusiveMinimum"], json!(0.0));
    }

    #[test]
    fn a_name_may_be_a_value_of_one_source_and_a_group_of_another() {
        for masks in [MASKS.to_vec(), MASKS.iter().rev().copied().collect()] {
            let schema = block_schema(&masks);
            let variants = schema["properties"]["mask"]["anyOf"].as_array();
            let groups: Vec<_> = variants
                .into_iter()
                .flatten()
                .filter_map(|v| v["properties"].as_object())
                .collect();
            assert_eq!(groups.len(), 1, "{schema}");
            assert!(groups[0].contains_key("file") && groups[0].contains_key("key"), "{schema}");
            assert!(schema.to_string().contains("\"One.\""), "{schema}");
        }
    }
}
