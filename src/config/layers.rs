//! The layers of a configuration, and how one tree comes out of them.

use super::assign::{self, Assignment};
use super::error::{ConfigError, ConfigErrors};
use super::file::{self, FileBlocks};
use super::placeholders::Filling;
use super::presets;
use super::{ConfigArgs, Entry, Origin, Surroundings, absolute, near_key, with_origin};
use ptystream_common::params::{
    DataParams, PIPELINE, ParamDecl, ParamFault, ParamType, declarations, flatten, has_members,
    nearest,
};
use ptystream_common::source::{Registry, SourceKind};
use ptystream_common::value::Value;
use std::convert::Infallible;
use std::path::{Path, PathBuf};

/// A value that a layer gives to a declared parameter.
struct Given {
    key: String,
    value: Value,
    /// What stood behind the equals sign, if it was an assignment.
    text: Option<String>,
    origin: Origin,
}

/// A block's effective tree and the names that the user gave.
pub(super) struct Resolved {
    tree: Value,
    given: Vec<String>,
}

/// Everything that was given, and what came out so far.
pub(super) struct Layers {
    preset: FileBlocks,
    preset_origin: Origin,
    blocks: FileBlocks,
    file_origin: Origin,
    assignments: Vec<Assignment>,
    /// Working folder.
    folder: PathBuf,
    live_default: bool,
    /// Folder to which relative input paths of the file refer.
    pub base: PathBuf,
    /// Chosen scan of a ptypy file.
    pub scan: Option<String>,
    /// The effective tree so far.
    pub entries: Vec<Entry>,
    /// What a user should know.
    pub notes: Vec<String>,
    /// All faults so far.
    pub errors: Vec<ConfigError>,
    /// Keys whose values are paths of files that are read.
    pub inputs: Vec<String>,
    /// Keys in whose values placeholders count.
    pub filled: Vec<String>,
    filling: Filling,
}

impl Layers {
    /// Reads the file and takes assignments apart.
    ///
    /// # Errors
    /// Only if the file cannot be read: then nothing else can be judged.
    pub fn gather(args: &ConfigArgs, around: &Surroundings) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let mut blocks = FileBlocks::default();
        let mut file_origin = Origin::Default;
        let mut base = around.folder.clone();
        if let Some(given) = &args.file {
            let path = absolute(&around.folder, given);
            if path.is_dir() {
                blocks.data.set_at("name", Value::Str("numpy".to_owned()));
                blocks.data.set_at("path", Value::Str(path.to_string_lossy().into_owned()));
                file_origin = Origin::Folder(given.clone());
            } else {
                let tree = file::read_tree(&path).map_err(|e| rename(e, given))?;
                blocks = file::blocks(given, tree, args.scan.as_deref(), &mut errors);
                base = path.parent().map_or(base, PathBuf::from);
                file_origin = Origin::File(given.clone());
            }
        }
        if let Some(given) = &args.from {
            let path = absolute(&around.folder, given);
            let tree = file::read_recorded(&path).map_err(|e| rename(e, given))?;
            blocks = file::blocks(given, tree, None, &mut errors);
            file_origin = Origin::File(given.clone());
        }
        let mut preset = FileBlocks::default();
        let mut preset_origin = Origin::Default;
        // That of the command line goes by the working folder, as all paths there do.
        let named = args.preset.as_ref().map(|name| (name, &around.folder));
        if let Some((name, base)) = named.or(blocks.preset.as_ref().map(|name| (name, &base))) {
            match presets::blocks(name, base, &mut errors) {
                Ok(found) => preset = found,
                Err(error) => errors.push(error),
            }
            preset_origin = Origin::Preset(name.clone());
        }
        let mut assignments = match args.env {
            true => assign::from_env(&around.variables, &mut errors),
            false => Vec::new(),
        };
        for given in &args.set {
            match assign::from_flag(given) {
                Ok(assignment) => assignments.push(assignment),
                Err(error) => errors.push(error),
            }
        }
        let mut layers = Self {
            scan: blocks.scan.take(),
            notes: std::mem::take(&mut blocks.notes),
            preset,
            preset_origin,
            blocks,
            file_origin,
            assignments,
            folder: around.folder.clone(),
            live_default: args.live_default,
            base,
            entries: Vec::new(),
            errors,
            inputs: Vec::new(),
            filled: Vec::new(),
            filling: Filling {
                scan: args.number,
                tag: args.tag.clone(),
                label: None,
                file: args.watched.clone(),
            },
        };
        layers.refuse_other_blocks();
        Ok(layers)
    }

    /// Reports assignments to keys outside of the two blocks.
    fn refuse_other_blocks(&mut self) {
        let (kept, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.assignments)
            .into_iter()
            .partition(|a| a.key.starts_with("data.") || a.key.starts_with("pipeline."));
        self.assignments = kept;
        self.errors.extend(others.into_iter().map(|a| ConfigError::Unknown {
            near: near_key(&a.key, &[]),
            key: a.key,
            origin: a.origin,
            elsewhere: None,
        }));
    }

    /// Finds the source that the highest layer names; reports if there is none.
    pub fn source<'r>(&mut self, registry: &'r Registry) -> Option<&'r SourceKind> {
        let assigned = self.assignments.iter().rev().find(|a| a.key == "data.name");
        let (value, origin) = match (assigned, self.blocks.data.get("name")) {
            (Some(a), _) => (a.value.clone(), a.origin.clone()),
            (None, Some(value)) => (value.clone(), self.file_origin.clone()),
            (None, None) => match self.preset.data.get("name") {
                Some(value) => (value.clone(), self.preset_origin.clone()),
                None => (Value::None, Origin::Default),
            },
        };
        let known = || registry.iter().map(|k| k.name).collect::<Vec<_>>().join(", ");
        let name = match &value {
            Value::None => {
                self.errors.push(ConfigError::NoSource { known: known() });
                return None;
            }
            Value::Str(name) => name.clone(),
            other => other.to_string(),
        };
        let kind = match registry.resolve(&name, &self.base) {
            Ok(kind) => kind,
            Err(error) => {
                let text = ptystream_common::error::chain(&error);
                self.errors.push(ConfigError::Value { key: "data.name".to_owned(), origin, text });
                return None;
            }
        };
        if kind.is_none() {
            let names = registry.iter().flat_map(|k| k.aliases.iter().copied().chain([k.name]));
            let near = nearest(&name, names)
                .map_or_else(String::new, |n| format!(", did you mean '{n}'?"));
            let text = format!("no source '{name}' is known{near}; give one of {}", known());
            self.errors.push(ConfigError::Value { key: "data.name".to_owned(), origin, text });
        }
        kind
    }

    /// Resolves the `[data]` block by the declarations of ptypy and of the source.
    ///
    /// Without a source only what all sources share is judged.
    pub fn resolve_data(&mut self, kind: Option<&SourceKind>, registry: &Registry) -> Resolved {
        let decls = declarations(kind.map_or(&[], |k| k.params));
        let of_sources = |name: &str| {
            let is_other = |k: &&SourceKind| kind.is_none_or(|own| own.name != k.name);
            let takes = |k: &&SourceKind| k.params.iter().any(|d| is_in(d.name, name));
            registry.iter().filter(is_other).find(takes).map(|k| k.name.to_owned())
        };
        let block = [self.preset.data.clone(), self.blocks.data.clone()];
        let mut givens = self.collect("data", block, &decls, |key, origin| {
            let elsewhere = of_sources(key);
            if kind.is_none() && elsewhere.is_some() {
                return None;
            }
            let own = kind.map_or(&[][..], |k| k.params);
            let key = format!("data.{key}");
            let near = near_key(&key, own).filter(|_| elsewhere.is_none());
            Some(ConfigError::Unknown { key, origin, near, elsewhere })
        });
        if kind.is_none() {
            givens.retain(|g| g.key != "name");
        }
        self.imply_dfile(&mut givens);
        // The file of a `.ptyd` that is only read.
        let is_read = kind.is_some_and(|k| k.name == "ptyd") && !names_source(&givens);
        if !is_read {
            self.imply_save(&mut givens);
        }
        let label = givens.iter().rev().find(|g| g.key == "label").and_then(|g| g.value.as_str());
        // A label that cannot be filled in is reported where it is settled.
        self.filling.label = label.and_then(|text| self.filling.fill(text).ok());
        self.settle("data", &decls, givens)
    }

    /// Resolves the `[pipeline]` block.
    pub fn resolve_pipeline(&mut self, live_default: bool) -> Resolved {
        let block = [self.preset.pipeline.clone(), self.blocks.pipeline.clone()];
        let mut givens = self.collect("pipeline", block, PIPELINE, |key, origin| {
            let key = format!("pipeline.{key}");
            Some(ConfigError::Unknown { near: near_key(&key, &[]), key, origin, elsewhere: None })
        });
        if live_default && givens.iter().all(|g| g.key != "live") {
            let origin = Origin::Derived("default of live roles");
            givens.push(Given {
                key: "live".to_owned(),
                value: Value::Bool(true),
                text: None,
                origin,
            });
        }
        self.settle("pipeline", PIPELINE, givens)
    }

    /// Flattens preset, file and assignments of one block, lowest layer first.
    fn collect(
        &mut self,
        block: &str,
        [of_preset, of_file]: [Value; 2],
        decls: &[ParamDecl],
        unknown: impl Fn(&str, Origin) -> Option<ConfigError>,
    ) -> Vec<Given> {
        let prefix = format!("{block}.");
        let mut layers = vec![
            (of_preset, None, self.preset_origin.clone()),
            (of_file, None, self.file_origin.clone()),
        ];
        for a in &self.assignments {
            let Some(key) = a.key.strip_prefix(&prefix) else { continue };
            let lower = key.to_lowercase();
            let same = |d: &&ParamDecl| d.name.to_lowercase() == lower;
            let is_env = matches!(a.origin, Origin::Env(_));
            let key = decls.iter().find(same).filter(|_| is_env).map_or(key, |d| d.name);
            let mut tree = Value::Map(Vec::new());
            tree.set_at(key, a.value.clone());
            layers.push((tree, Some(a.text.clone()), a.origin.clone()));
        }
        let mut givens = Vec::new();
        for (tree, text, origin) in layers {
            let flat = flatten(&tree, decls);
            self.errors.extend(flat.unknown.iter().filter_map(|k| unknown(k, origin.clone())));
            self.errors.extend(flat.faults.into_iter().map(|fault| ConfigError::Value {
                key: if fault.key.is_empty() {
                    block.to_owned()
                } else {
                    format!("{prefix}{}", fault.key)
                },
                origin: origin.clone(),
                text: fault.text,
            }));
            givens.extend(flat.leaves.into_iter().map(|(key, value)| Given {
                key,
                value,
                text: text.clone(),
                origin: origin.clone(),
            }));
        }
        givens
    }

    /// Names the file after the folder where a folder is all that is given.
    fn imply_dfile(&mut self, givens: &mut Vec<Given>) {
        let Origin::Folder(folder) = &self.file_origin else { return };
        if givens.iter().any(|g| g.key == "dfile" || (g.key == "save" && g.value.is_none())) {
            return;
        }
        let whole = absolute(&self.folder, folder);
        let Some(name) = whole.file_name() else { return };
        let dfile = format!("{}.ptyd", name.to_string_lossy());
        self.notes.push(format!("data.dfile is not given: it is \"{dfile}\", after the folder"));
        givens.push(Given {
            key: "dfile".to_owned(),
            value: Value::Str(dfile),
            text: None,
            origin: Origin::Derived("named after the folder"),
        });
    }

    /// Adds `save` where only `dfile` is given.
    fn imply_save(&mut self, givens: &mut Vec<Given>) {
        let has = |key: &str| givens.iter().rev().find(|g| g.key == key).map(|g| &g.value);
        let writes = has("dfile").is_some_and(|v| {
            !v.is_none() && v.as_str().is_none_or(|s| !s.eq_ignore_ascii_case("none"))
        });
        if !writes || has("save").is_some() {
            return;
        }
        let word = if self.live_default { "link" } else { "append" };
        self.notes.push(format!("data.dfile is given and data.save is not: save = \"{word}\""));
        givens.push(Given {
            key: "save".to_owned(),
            value: Value::Str(word.to_owned()),
            text: None,
            origin: Origin::Derived("follows from dfile"),
        });
    }

    /// Lets the highest layer win, checks each value, and notes it with its origin.
    fn settle(&mut self, block: &str, decls: &[ParamDecl], givens: Vec<Given>) -> Resolved {
        let mut resolved = Resolved { tree: Value::Map(Vec::new()), given: Vec::new() };
        for decl in decls.iter().filter(|d| !d.takes(ParamType::Group)) {
            let given = givens.iter().rev().find(|g| g.key == decl.name);
            let (value, origin) = match given {
                None => (Ok(decl.default.into()), Origin::Default),
                Some(given) => (check(decl, given), given.origin.clone()),
            };
            if origin.is_given() {
                resolved.given.push(decl.name.to_owned());
            }
            let key = format!("{block}.{}", decl.name);
            match value.and_then(|value| self.fill(decl, &key, value, &origin)) {
                // It stands for its members, which are settled.
                Ok(Value::None) if has_members(decl.name, decls) => {}
                Ok(value) => {
                    if decl.is_input() {
                        self.inputs.push(key.clone());
                    }
                    let value = self.rooted(decl, value, &origin);
                    resolved.tree.set_at(decl.name, value.clone());
                    self.entries.push(Entry { key, value, origin });
                }
                Err(fault) => {
                    resolved.tree.set_at(decl.name, decl.default.into());
                    self.errors.push(ConfigError::Value { key, origin, text: fault.text });
                }
            }
        }
        resolved
    }

    /// Fills placeholders in, where the user has given a path or a label.
    fn fill(
        &mut self,
        decl: &ParamDecl,
        key: &str,
        value: Value,
        origin: &Origin,
    ) -> Result<Value, ParamFault> {
        let path = decl.is_input() || decl.takes(ParamType::OutputPath);
        let counts = (path || ["label", "experimentID"].contains(&decl.name))
            && !matches!(origin, Origin::Default | Origin::Derived(_) | Origin::Folder(_));
        if !counts {
            return Ok(value);
        }
        self.filled.push(key.to_owned());
        each_path(value, &|text| self.filling.fill(&text))
            .map_err(|text| ParamFault { key: decl.name.to_owned(), text })
    }

    /// Makes input paths of flags and environment absolute: they refer to the working folder.
    fn rooted(&self, decl: &ParamDecl, value: Value, origin: &Origin) -> Value {
        match origin {
            Origin::Set | Origin::Env(_) if decl.is_input() => rooted_at(value, &self.folder),
            _ => value,
        }
    }

    /// Makes a typed block and collects its faults.
    pub fn typed<T>(
        &mut self,
        block: &str,
        resolved: Resolved,
        make: impl FnOnce(Value, Vec<String>) -> Result<T, Vec<ParamFault>>,
    ) -> Option<T> {
        match make(resolved.tree, resolved.given) {
            Ok(typed) => Some(typed),
            Err(faults) => {
                let entries = &self.entries;
                self.errors.extend(faults.into_iter().map(|f| with_origin(block, f, entries)));
                None
            }
        }
    }

    /// Says that theoretical positions decided the number of frames.
    pub fn note_theory(&mut self, data: &DataParams) {
        let given = data.tree.get("num_frames").and_then(Value::as_i64);
        if let (Some(positions), Some(given)) = (&data.positions_theory, given)
            && positions.shape[0] as i64 != given
        {
            self.notes.push(format!(
                "data.num_frames = {given} is not used: data.positions_theory holds {} positions",
                positions.shape[0]
            ));
        }
    }
}

/// Checks the value; an assignment's text counts where a text is wanted and a number was parsed.
fn check(decl: &ParamDecl, given: &Given) -> Result<Value, ParamFault> {
    let checked = decl.check(&given.value);
    match (&checked, &given.text, &given.value) {
        (Err(_), Some(text), Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::None) => {
            decl.check(&Value::Str(text.clone())).or(checked)
        }
        _ => checked,
    }
}

/// Tells whether a declared name is `name` or stands in the group `name`.
fn is_in(declared: &str, name: &str) -> bool {
    declared.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Lets an error of the file name it as the user did.
fn rename(error: ConfigError, given: &std::path::Path) -> ConfigError {
    match error {
        ConfigError::File { text, source, .. } => {
            ConfigError::File { file: given.to_owned(), text, source }
        }
        other => other,
    }
}

/// Tells whether a source of its own is given for what is prepared once more.
fn names_source(givens: &[Given]) -> bool {
    let given = givens.iter().rev().find(|g| g.key == "source").map(|g| &g.value);
    given.is_some_and(|value| {
        !value.is_none()
            && !value
                .as_str()
                .is_some_and(|s| ["none", "file"].contains(&s.to_lowercase().as_str()))
    })
}

/// Changes the paths in a value: a text, those of a list, `file` of a table.
pub(super) fn each_path<E>(
    value: Value,
    change: &dyn Fn(String) -> Result<String, E>,
) -> Result<Value, E> {
    Ok(match value {
        Value::Str(text) => Value::Str(change(text)?),
        Value::List(items) => Value::List(
            items.into_iter().map(|item| each_path(item, change)).collect::<Result<_, E>>()?,
        ),
        Value::Map(entries) => {
            let one = |(key, value): (String, Value)| {
                let value = if key == "file" { each_path(value, change)? } else { value };
                Ok((key, value))
            };
            Value::Map(entries.into_iter().map(one).collect::<Result<_, E>>()?)
        }
        other => other,
    })
}

/// Doubles the braces in the paths of a value.
pub(super) fn escaped(value: Value) -> Value {
    let change = |text: String| -> Result<String, Infallible> {
        Ok(text.replace('{', "{{").replace('}', "}}"))
    };
    match each_path(value, &change) {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

/// Makes the paths in a value absolute.
pub(super) fn rooted_at(value: Value, folder: &Path) -> Value {
    let change = |text: String| -> Result<String, Infallible> {
        Ok(absolute(folder, text.as_ref()).to_string_lossy().into_owned())
    };
    match each_path(value, &change) {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
