//! Names of the files of a series: a folder, a pattern, a list.

use super::super::appearing::Numbered;
use super::super::keys::wrong;
use ptystream_common::names::{fits, natural};
use ptystream_common::source::{SourceError, SourceSpec};
use ptystream_common::value::Value;
use std::path::{Path, PathBuf};

/// Which files there are.
pub(super) enum Names {
    List(Vec<PathBuf>),
    Numbered(Numbered),
}

impl Names {
    /// Finds out what the files of a series are called of which few are there yet.
    pub(super) fn appearing(
        spec: &SourceSpec,
        endings: &'static [&'static str],
    ) -> Result<Self, SourceError> {
        if let Some(Value::List(_)) = spec.data.at("path") {
            return listed(spec).map(Self::List);
        }
        let found = files(spec, endings)?;
        found.iter().find_map(|path| Numbered::of(path)).map(Self::Numbered).ok_or_else(|| {
            let text = format!("'{}' has no number in its name", found[0].display());
            SourceError::input(text)
        })
    }

    pub(super) fn path(&self, file: usize) -> Option<PathBuf> {
        match self {
            Self::List(list) => list.get(file).cloned(),
            Self::Numbered(numbered) => Some(numbered.path(file)),
        }
    }
}

fn listed(spec: &SourceSpec) -> Result<Vec<PathBuf>, SourceError> {
    let Some(Value::List(items)) = spec.data.at("path") else {
        return Err(wrong("path", "is no list"));
    };
    let all: Option<Vec<PathBuf>> =
        items.iter().map(|v| v.as_str().map(|text| spec.path(text))).collect();
    all.filter(|all| !all.is_empty())
        .ok_or_else(|| wrong("path", "is a list, but not one of files"))
}

/// Lists the files of a series.
pub(super) fn files(
    spec: &SourceSpec,
    endings: &'static [&'static str],
) -> Result<Vec<PathBuf>, SourceError> {
    let list = match spec.data.at("path").filter(|v| !v.is_none()) {
        Some(Value::List(_)) => listed(spec)?,
        Some(Value::Str(text)) => found(&spec.path(text), endings)?,
        _ => {
            return Err(wrong("path", "is needed: a folder, a pattern with *, or a list of files"));
        }
    };
    match list.iter().find(|path| !path.is_file()) {
        Some(missing) => Err(SourceError::input(format!(
            "data.path: '{}' is missing ({} files are named)",
            missing.display(),
            list.len()
        ))),
        None => Ok(list),
    }
}

fn found(path: &Path, endings: &'static [&'static str]) -> Result<Vec<PathBuf>, SourceError> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new(".")) };
    let wanted: Box<dyn Fn(&str) -> bool> = if path.is_dir() {
        let ends = move |file: &str| {
            let ending = Path::new(file).extension().map(|e| e.to_string_lossy().to_lowercase());
            ending.is_some_and(|e| endings.contains(&e.as_str()))
        };
        Box::new(ends)
    } else if name.contains(['*', '?']) {
        let pattern = name.clone();
        Box::new(move |file| fits(&pattern, file))
    } else {
        return Ok(vec![path.to_owned()]);
    };
    let entries = std::fs::read_dir(folder).map_err(|e| SourceError::Input {
        text: format!("data.path: the folder '{}' cannot be read", folder.display()),
        source: Some(Box::new(e)),
    })?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| wanted(name))
        .collect();
    names.sort_by_cached_key(|name| natural(name));
    if names.is_empty() {
        let what = match path.is_dir() {
            true => format!("a file ending in .{}", endings.join(" or .")),
            false => format!("a file like '{name}'"),
        };
        let text = format!("data.path: '{}' holds not {what}", folder.display());
        return Err(SourceError::input(text));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
