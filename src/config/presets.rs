//! Presets: configurations of keys for layouts that many have, below a user's own.
//!
//! Each is an ordinary file; `ptystream preset NAME` prints it to be copied and changed, and a preset may
//! be a file of one's own.

use super::error::ConfigError;
use super::file::{self, FileBlocks};
use ptystream_common::params::nearest;
use std::path::Path;

/// Name and text of each.
pub const ALL: &[(&str, &str)] = &[
    ("cxi", include_str!("presets/cxi.toml")),
    ("diamond-nexus", include_str!("presets/diamond-nexus.toml")),
    ("nanomax-contrast", include_str!("presets/nanomax-contrast.toml")),
    ("dectris-master", include_str!("presets/dectris-master.toml")),
];

/// Returns the text of a preset.
///
/// # Errors
/// If there is none of that name; the text names the nearest.
pub fn text(name: &str) -> Result<&'static str, String> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text).ok_or_else(|| {
        let names = || ALL.iter().map(|(known, _)| *known);
        let near =
            nearest(name, names()).map_or(String::new(), |n| format!(", did you mean '{n}'?"));
        let all: Vec<&str> = names().collect();
        format!(
            "no preset '{name}' is known{near}; there are {}, or give a .toml file",
            all.join(", ")
        )
    })
}

/// Reads the blocks of a preset: a known name, or a file, relative to `base`.
pub(super) fn blocks(
    name: &str,
    base: &Path,
    errors: &mut Vec<ConfigError>,
) -> Result<FileBlocks, ConfigError> {
    let tree = match Path::new(name).extension() {
        Some(_) => file::read_tree(&super::absolute(base, Path::new(name)))?,
        None => {
            let fault = |text| ConfigError::Preset { text };
            let text = text(name).map_err(fault)?;
            file::toml_tree(text).map_err(fault)?
        }
    };
    let mut blocks = file::blocks(Path::new(name), tree, None, errors);
    if blocks.preset.take().is_some() {
        let text = format!("'{name}' names a preset itself, which a preset cannot");
        errors.push(ConfigError::Preset { text });
    }
    Ok(blocks)
}
