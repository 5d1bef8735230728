//! What `ptystream params` prints: the declarations as text, as documentation and as JSON schema.

use ptystream_common::params::{
    DATA, PIPELINE, ParamDecl, ParamType, block_schema, markdown, nearest,
};
use ptystream_common::source::{Registry, SourceKind};
use serde_json::{Value as Json, json};

/// A name that no parameter, group, block or source has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no parameter, block or source '{name}'; {}", hint(near.as_deref()))]
#[must_use]
pub struct UnknownName {
    /// The name as it was given.
    pub name: String,
    /// The known one that is most like it.
    pub near: Option<String>,
}

fn hint(near: Option<&str>) -> String {
    match near {
        Some(near) => format!("did you mean '{near}'?"),
        None => "without a name all are listed".to_owned(),
    }
}

/// Describes parameters up to a user level.
///
/// `name`: a block (`data`, `pipeline`), a source, a group or a parameter, with or without its
/// block; `None`: everything. A parameter that is named itself is described whatever its level.
/// # Errors
/// [`UnknownName`] with the nearest known name.
/// # Source
/// ptypy `utils/descriptor.py`, `to_string`: the same properties in the same manner.
pub fn describe(registry: &Registry, name: Option<&str>, level: u8) -> Result<String, UnknownName> {
    let mut text = String::new();
    for (title, block, decls) in sections(registry) {
        let wanted: Vec<&ParamDecl> = match name {
            None => decls.iter().filter(|d| d.level <= level).collect(),
            Some(name) if title.names.iter().any(|n| n.eq_ignore_ascii_case(name)) => {
                decls.iter().filter(|d| d.level <= level).collect()
            }
            Some(name) => {
                let within = |d: &&ParamDecl| is_within(d.name, block, name);
                let exact = |d: &ParamDecl| is_named(d.name, block, name);
                decls.iter().filter(within).filter(|d| d.level <= level || exact(d)).collect()
            }
        };
        if wanted.is_empty() {
            continue;
        }
        text.push_str(&format!("# {}\n\n", title.help));
        for decl in wanted {
            text.push_str(&decl.describe(block));
            text.push('\n');
        }
    }
    match name {
        Some(name) if text.is_empty() => Err(unknown(registry, name)),
        _ => {
            text.truncate(text.trim_end().len());
            text.push('\n');
            Ok(text)
        }
    }
}

/// Makes the JSON schema of a configuration file.
///
/// The keys of all sources stand in `data`; whether they fit the chosen one is seen when loading.
pub fn json_schema(registry: &Registry) -> Json {
    let own = registry.iter().flat_map(|k| k.params);
    let mut data = block_schema(DATA.iter().chain(own));
    let names: Vec<&str> = registry
        .iter()
        .flat_map(|k| std::iter::once(k.name).chain(k.aliases.iter().copied()))
        .collect();
    let name = &mut data["properties"]["name"];
    *name = json!({ "enum": names, "description": name["description"] });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ptystream configuration",
        "type": "object",
        "properties": {
            "data": data,
            "pipeline": block_schema(PIPELINE),
            "scans": {
                "type": "object",
                "description": "The scans of a ptypy parameter file, in the place of the data block.",
                "additionalProperties": {
                    "type": "object",
                    "properties": { "data": data },
                    "required": ["data"]
                }
            }
        }
    })
}

/// Writes docs/parameters.md: the tables of the two blocks and of each source.
pub fn document(registry: &Registry) -> String {
    let mut text = String::from(
        "# Parameters\n\n\
         This page is made from the declarations in the code; `ptystream params [NAME] [--level N]`\n\
         prints the same.\n\n\
         - A configuration is a TOML, JSON or YAML file with the blocks `data` and `pipeline`, or a\n  \
           ptypy parameter file, of which `scans.<name>.data` is used.\n\
         - Defaults < file < environment (`PTYSTREAM_DATA__REBIN=2`) < `--set data.rebin=2`.\n\
         - The text \"None\" stands for None where None is taken; JSON and YAML may use null.\n\
         - Relative paths of files that are read start at the configuration file's folder, or at the\n  \
           working folder when they come from `--set` or the environment. Paths of files that are\n  \
           written start at the working folder.\n\
         - Pairs are (row, column) = (y, x).\n\
         - Level: 0 for everybody, 1 for some purposes, 2 for experts.\n",
    );
    for (title, block, decls) in sections(registry) {
        if decls.is_empty() {
            continue;
        }
        let heading = match title.source {
            None => format!("`[{block}]`"),
            Some(kind) => format!("`[{block}]` of the source `{}`", kind.name),
        };
        text.push_str(&format!("\n## {heading}\n\n{}\n\n{}", title.help, markdown(decls)));
    }
    text
}

/// How a section of the declarations is called.
struct Title<'a> {
    names: Vec<&'a str>,
    help: String,
    source: Option<&'a SourceKind>,
}

fn sections(registry: &Registry) -> Vec<(Title<'_>, &'static str, &[ParamDecl])> {
    let block = |name, help: &str| Title { names: vec![name], help: help.to_owned(), source: None };
    let mut sections = vec![
        (block("data", "What all sources share: ptypy's scan.data."), "data", DATA),
        (
            block("pipeline", "How frames travel, and what the file is made of."),
            "pipeline",
            PIPELINE,
        ),
    ];
    for kind in registry.iter() {
        let mut names = vec![kind.name];
        names.extend(kind.aliases);
        let aliases = match kind.aliases {
            [] => String::new(),
            aliases => format!(" ({})", aliases.join(", ")),
        };
        let help = format!("The source {}{aliases}: {}.", kind.name, kind.help);
        sections.push((Title { names, help, source: Some(kind) }, "data", kind.params));
    }
    sections
}

/// Tells whether a parameter is the named one or stands in the named group.
fn is_within(decl: &str, block: &str, name: &str) -> bool {
    let full = format!("{block}.{decl}").to_lowercase();
    let name = name.to_lowercase();
    [full.as_str(), &decl.to_lowercase()].iter().any(|known| {
        known
            .strip_prefix(name.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

fn is_named(decl: &str, block: &str, name: &str) -> bool {
    decl.eq_ignore_ascii_case(name) || format!("{block}.{decl}").eq_ignore_ascii_case(name)
}

fn unknown(registry: &Registry, name: &str) -> UnknownName {
    let mut known: Vec<String> = Vec::new();
    for (title, block, decls) in sections(registry) {
        known.extend(title.names.iter().map(|&n| n.to_owned()));
        let leaves = decls.iter().filter(|d| !d.takes(ParamType::Group));
        known.extend(leaves.map(|d| format!("{block}.{}", d.name)));
    }
    let near = nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
    UnknownName { name: name.to_owned(), near }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ptystream_common::params::ParamDefault as D;
    use ptystream_common::source::SourceError;
    use std::path::Path;
    use std::sync::Arc;

    const HDF5: &[ParamDecl] = &[
        ParamDecl::new("intensities.key", &[ParamType::Str], D::None, "Dataset."),
        ParamDecl::new("mask", &[ParamType::Group], D::None, "The mask."),
        ParamDecl::new("mask.invert", &[ParamType::Bool], D::Bool(false), "Whether 0 is good."),
    ];
    const MOONFLOWER: &[ParamDecl] =
        &[ParamDecl::new("density", &[ParamType::Float], D::Float(0.2), "Step.").level(1)];

    fn registry() -> Registry {
        let mut registry = Registry::new();
        for (name, aliases, params) in [
            ("hdf5", &["Hdf5Loader"][..], HDF5),
            ("moonflower", &["MoonFlowerScan"][..], MOONFLOWER),
        ] {
            let open = Arc::new(|_: &_| Err(SourceError::input("a test never opens a source")));
            registry.add(SourceKind { name, aliases, help: "made for this test", params, open });
        }
        registry
    }

    #[test]
    fn parameters_are_described_by_name_and_level() {
        let registry = registry();
        let describe = |name: Option<&str>, level| describe(&registry, name, level);
        let rebin = describe(Some("data.rebin"), 0).expect("a parameter");
        assert!(rebin.contains("[data.rebin]\n") && rebin.contains("uplim     = 32\n"), "{rebin}");
        assert_eq!(describe(Some("rebin"), 0), Ok(rebin));
        let all = describe(None, 0).expect("all");
        assert!(all.contains("[data.energy]") && !all.contains("[data.rebin]"), "{all}");
        assert!(describe(None, 2).expect("all").contains("[pipeline.window]"));
        let group = describe(Some("mask"), 0).expect("a group");
        assert!(group.contains("[data.mask.invert]") && !group.contains("intensities"), "{group}");
        let source = describe(Some("MoonFlowerScan"), 1).expect("a source");
        assert!(source.contains("[data.density]") && !source.contains("[data.rebin]"), "{source}");
        let text = describe(Some("rebinn"), 0).expect_err("a fault").to_string();
        assert_eq!(text, "no parameter, block or source 'rebinn'; did you mean 'data.rebin'?");
    }

    #[test]
    fn the_schema_knows_every_key() {
        let schema = json_schema(&registry());
        let data = &schema["properties"]["data"]["properties"];
        let names = data["name"]["enum"].as_array().map(Vec::len);
        assert_eq!(names, Some(4));
        // A list of files, or the group of the source.
        let masks = data["mask"]["anyOf"].as_array().expect("several forms");
        assert!(masks.iter().any(|form| form["properties"]["invert"].is_object()));
        assert!(data["density"].is_object());
        assert!(schema["properties"]["pipeline"]["properties"]["window"].is_object());
    }

    #[test]
    fn the_documentation_is_made_from_the_declarations() {
        let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/parameters.md"));
        let made = document(&ptystream_producer::source::builtin());
        if std::env::var_os("PTYSTREAM_BLESS").is_some_and(|v| v == "1") {
            std::fs::write(file, &made).expect("docs/parameters.md can be written");
        }
        let stands = std::fs::read_to_string(file).unwrap_or_default();
        assert!(
            stands == made,
            "docs/parameters.md is old; PTYSTREAM_BLESS=1 cargo test -p ptystream --lib"
        );
        let with_sources = document(&registry());
        assert!(with_sources.contains("## `[data]` of the source `hdf5`\n"));
        assert!(with_sources.contains("| `mask.invert` | bool | `False` |"));
    }
}
