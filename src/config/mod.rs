//! One checked configuration out of defaults, file, environment and flags.
//!
//! | layer, lowest first | from |
//! |---|---|
//! | defaults | the declarations in [`ptystream_common::params`] and of the chosen source |
//! | preset | `preset = "cxi"` in the file, or `--preset` |
//! | file | TOML, JSON or YAML with `[data]` and `[pipeline]`; a ptypy parameter file; a folder |
//! | environment | `PTYSTREAM_DATA__REBIN=2` |
//! | flags | `--set data.rebin=2` |
//!
//! Every value keeps its [`Origin`]. Nothing is read but the configuration itself, and all faults
//! are reported at once.

mod assign;
mod error;
mod file;
mod layers;
mod placeholders;
pub mod presets;

pub use error::{ConfigError, ConfigErrors};

use layers::Layers;
use ptystream_common::params::{
    DATA, DataParams, PIPELINE, ParamDecl, ParamFault, PipelineParams, Save, nearest,
};
use ptystream_common::source::Registry;
use ptystream_common::value::Value;
use std::fmt;
use std::path::{Path, PathBuf};

/// Who gave a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The declaration.
    Default,
    /// A preset.
    Preset(String),
    /// A configuration file.
    File(PathBuf),
    /// The folder that stands in the place of a file.
    Folder(PathBuf),
    /// The environment variable of this name.
    Env(String),
    /// A `--set`.
    Set,
    /// It follows from something else, which the text names.
    Derived(&'static str),
}

impl Origin {
    /// Tells whether the user gave the value himself.
    pub fn is_given(&self) -> bool {
        !matches!(self, Self::Default | Self::Derived(_))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Preset(name) => write!(f, "preset {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Folder(path) => write!(f, "folder {}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Set => f.write_str("--set"),
            Self::Derived(why) => f.write_str(why),
        }
    }
}

/// What a configuration is loaded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigArgs {
    /// A file (TOML, JSON, YAML), or a folder in the tutorial layout.
    pub file: Option<PathBuf>,
    /// Assignments such as `data.rebin=2`, in order.
    pub set: Vec<String>,
    /// Whether the environment counts.
    pub env: bool,
    /// Whether a file can be followed while it is written, unless something else is said.
    pub live_default: bool,
    /// Which of a ptypy file's scans.
    pub scan: Option<String>,
    /// A preset below the file: a known name, or a file.
    pub preset: Option<String>,
    /// A finished file, in the place of a configuration: as it was prepared.
    pub from: Option<PathBuf>,
    /// What `{scan}` stands for.
    pub number: Option<u64>,
    /// What `{tag}` stands for.
    pub tag: Option<String>,
    /// What `{file}` and `{stem}` stand for.
    pub watched: Option<PathBuf>,
}

/// The process's surroundings, as far as a configuration depends on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The working folder, absolute.
    pub folder: PathBuf,
    /// Environment variables.
    pub variables: Vec<(String, String)>,
}

/// One value of the effective tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Dotted, the block in front.
    pub key: String,
    /// The value in force.
    pub value: Value,
    /// Who gave it.
    pub origin: Origin,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// ptypy's block and the source's own keys.
    pub data: DataParams,
    /// Everything else.
    pub pipeline: PipelineParams,
    /// The chosen scan.
    pub scan: Option<String>,
    /// The effective tree, in the order of the declarations.
    pub entries: Vec<Entry>,
    /// What a user should know: ignored blocks, values that follow from others.
    pub notes: Vec<String>,
    /// Keys whose values are paths of files that are read.
    inputs: Vec<String>,
    /// Keys in whose values placeholders count.
    filled: Vec<String>,
}

impl Config {
    /// Returns who gave a value; `key` has its block in front.
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.origin)
    }

    /// Writes what was given as TOML, for the file that is made of it: input paths are absolute, so
    /// that it means the same everywhere.
    pub fn given(&self) -> String {
        let mut text = String::new();
        for block in ["data", "pipeline"] {
            let prefix = format!("{block}.");
            text.push_str(&format!("[{block}]\n"));
            for entry in self.entries.iter().filter(|e| e.origin.is_given()) {
                let Some(key) = entry.key.strip_prefix(&prefix) else { continue };
                let value = match self.inputs.contains(&entry.key) {
                    true => layers::rooted_at(entry.value.clone(), &self.data.base),
                    false => entry.value.clone(),
                };
                // Braces have been filled in; those that are left are meant.
                let value = match self.filled.contains(&entry.key) {
                    true => layers::escaped(value),
                    false => value,
                };
                text.push_str(&format!("{key} = {}\n", in_toml(&value)));
            }
        }
        text
    }

    /// Writes the effective tree as TOML, with each value's origin in a comment.
    ///
    /// What nobody gave stands there as a comment, so that the text, used as a configuration,
    /// means the same: a value that is given has the better of one recorded beside the frames.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for block in ["data", "pipeline"] {
            let prefix = format!("{block}.");
            let lines: Vec<(String, &Origin)> = self
                .entries
                .iter()
                .filter_map(|e| Some((e.key.strip_prefix(&prefix)?, e)))
                .map(|(key, e)| {
                    let mark = if e.origin.is_given() { "" } else { "# " };
                    (format!("{mark}{key} = {}", in_toml(&e.value)), &e.origin)
                })
                .collect();
            const WIDEST: usize = 48;
            let width = lines.iter().map(|(l, _)| l.len()).filter(|&l| l <= WIDEST).max();
            let width = width.unwrap_or_default();
            text.push_str(&format!("[{block}]\n"));
            for (line, origin) in lines {
                text.push_str(&format!("{line:width$}  # {origin}\n"));
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len() + 1);
        text
    }
}

/// Loads a configuration from the layers that `args` names.
///
/// # Errors
/// All faults at once, each with key, origin and cure.
pub fn load(args: &ConfigArgs, registry: &Registry) -> Result<Config, ConfigErrors> {
    load_in(args, registry, &surroundings()?)
}

/// Loads only the `[pipeline]` block, for roles that are told of their data by others.
///
/// # Errors
/// All faults at once; what stands in `[data]` is not judged.
pub fn load_pipeline(args: &ConfigArgs) -> Result<PipelineParams, ConfigErrors> {
    let mut layers = Layers::gather(args, &surroundings()?)?;
    let pipeline = layers.resolve_pipeline(args.live_default);
    let pipeline = layers.typed("pipeline", pipeline, |tree, _| PipelineParams::from_tree(&tree));
    match pipeline {
        Some(pipeline) if layers.errors.is_empty() => Ok(pipeline),
        _ => Err(ConfigErrors(layers.errors)),
    }
}

fn surroundings() -> Result<Surroundings, ConfigError> {
    let folder = std::env::current_dir().map_err(|e| ConfigError::File {
        file: PathBuf::from("."),
        text: "the working folder cannot be found".to_owned(),
        source: Some(e),
    })?;
    let text = |v: std::ffi::OsString| v.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(k, v)| (text(k), text(v))).collect();
    Ok(Surroundings { folder, variables })
}

/// Loads a configuration as [`load`] does, in given surroundings.
///
/// # Errors
/// All faults at once, each with key, origin and cure.
pub fn load_in(
    args: &ConfigArgs,
    registry: &Registry,
    around: &Surroundings,
) -> Result<Config, ConfigErrors> {
    let mut layers = Layers::gather(args, around)?;
    let kind = layers.source(registry);
    let data = layers.resolve_data(kind, registry);
    let pipeline = layers.resolve_pipeline(args.live_default);
    let base = layers.base.clone();
    let name = kind.map_or("", |k| k.name);
    let data =
        layers.typed("data", data, |tree, given| DataParams::from_tree(name, tree, given, base));
    let pipeline = layers.typed("pipeline", pipeline, |tree, _| PipelineParams::from_tree(&tree));
    if let (Some(data), Some(pipeline)) = (&data, &pipeline)
        && data.save == Some(Save::Merge)
        && pipeline.live
    {
        // A reader that counted chunks before the merge looks for them after it.
        let text = "true does not go with data.save = \"merge\": the chunks that a live reader \
                    counts vanish when they are merged into one; give data.save = \"append\" or \
                    \"link\", or live = false";
        let fault = ParamFault { key: "live".to_owned(), text: text.to_owned() };
        layers.errors.push(with_origin("pipeline", fault, &layers.entries));
    }
    match (data, pipeline, layers.errors.is_empty()) {
        (Some(data), Some(pipeline), true) => {
            layers.note_theory(&data);
            let scan = layers.scan.or_else(|| args.scan.clone());
            Ok(Config {
                data,
                pipeline,
                scan,
                entries: layers.entries,
                notes: layers.notes,
                inputs: layers.inputs,
                filled: layers.filled,
            })
        }
        _ => Err(ConfigErrors(layers.errors)),
    }
}

/// Finds the known key, its block in front, that is most like `key`.
fn near_key(key: &str, own: &[ParamDecl]) -> Option<String> {
    let keys_of = |block: &'static str, decls: &[ParamDecl]| -> Vec<String> {
        decls.iter().map(|d| format!("{block}.{}", d.name)).collect()
    };
    let mut known = keys_of("data", DATA);
    known.extend(keys_of("data", own));
    known.extend(keys_of("pipeline", PIPELINE));
    nearest(key, known.iter().map(String::as_str)).map(str::to_owned)
}

/// Makes a path absolute, without touching the disk.
fn absolute(folder: &Path, path: &Path) -> PathBuf {
    std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path))
}

/// Writes a value in TOML; None is the text "None".
fn in_toml(value: &Value) -> String {
    match value {
        Value::None => "\"None\"".to_owned(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) => format!("{v:?}"),
        Value::Str(v) => toml::Value::String(v.clone()).to_string(),
        Value::List(items) => {
            format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let entries = entries.iter().map(|(k, v)| format!("{k} = {}", in_toml(v)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(array) => {
            let columns = array.shape.get(1).copied().unwrap_or(1).max(1);
            let rows = array.items.chunks(columns).map(|row| format!("{row:?}"));
            format!("[{}]", rows.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Turns the faults of a block into errors that name who gave the value.
fn with_origin(block: &str, fault: ParamFault, entries: &[Entry]) -> ConfigError {
    let key = format!("{block}.{}", fault.key);
    let origin =
        entries.iter().find(|e| e.key == key).map_or(Origin::Default, |e| e.origin.clone());
    ConfigError::Value { key, origin, text: fault.text }
}
