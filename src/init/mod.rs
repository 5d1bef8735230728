//! `ptystream init`: looks into a file or a folder, and writes a configuration to begin with.
//!
//! | module | what it holds |
//! |---|---|
//! | [`guess`] | which dataset of an HDF5 file is what |
//! | [`folder`] | what a folder holds |

pub mod folder;
pub mod guess;

use guess::{Guess, Guesses};
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::h5::survey;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Looks into `what` and writes a configuration to `out`; returns what is said.
///
/// # Errors
/// If nothing is understood, or `out` is there already or cannot be written.
pub fn init(what: &Path, out: &Path) -> Result<String, Failure> {
    if out.exists() {
        let text = format!("{}: exists; give --out another name, or delete it", out.display());
        return Err(Failure::new(Kind::Config, text));
    }
    let whole = std::path::absolute(what)
        .map_err(|e| Failure::new(Kind::Input, format!("{}: {e}", what.display())))?;
    let written = if whole.is_dir() { folder::look(&whole)? } else { file(&whole)? };
    let text = written.toml(out);
    std::fs::write(out, &text)
        .map_err(|e| Failure::new(Kind::Output, format!("{}: {e}", out.display())))?;
    let mut said = format!("wrote {}\n", out.display());
    for line in &written.said {
        let _ = writeln!(said, "  {line}");
    }
    let _ = write!(
        said,
        "next:\n  ptystream check {0}    # is it plausible?\n  ptystream run {0}\n",
        out.display()
    );
    Ok(said)
}

/// A configuration to be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// Name of the source.
    source: &'static str,
    /// What was looked into.
    from: PathBuf,
    /// Key, value in TOML, comment; a key that begins with `#` is only a proposal.
    lines: Vec<(String, String, String)>,
    /// What people are told.
    said: Vec<String>,
}

impl Written {
    fn new(source: &'static str, from: &Path) -> Self {
        Self { source, from: from.to_owned(), ..Self::default() }
    }

    fn line(&mut self, key: &str, value: impl Into<String>, comment: impl Into<String>) {
        self.lines.push((key.to_owned(), value.into(), comment.into()));
    }

    fn path(&mut self, key: &str, path: &Path, comment: &str) {
        self.line(key, quoted(&path.display().to_string()), comment);
    }

    fn toml(&self, out: &Path) -> String {
        let name = self.from.file_stem().map(|s| s.to_string_lossy().into_owned());
        let name = name.unwrap_or_else(|| "scan".to_owned());
        let mut text = format!(
            "# Written by `ptystream init {}`.\n# `ptystream params` explains every key; `ptystream \
             check {}` looks whether all is plausible.\n\n[data]\n",
            self.from.display(),
            out.display()
        );
        let mut lines = vec![("name".to_owned(), quoted(self.source), String::new())];
        lines.extend(self.lines.iter().cloned());
        lines.push((
            "dfile".to_owned(),
            quoted(&format!("{name}.ptyd")),
            "the file to be written; a relative path starts at the working folder".to_owned(),
        ));
        lines.push((
            "save".to_owned(),
            quoted("append"),
            "\"link\": can be followed while it grows".to_owned(),
        ));
        for (key, value, comment) in &lines {
            let line = format!("{key} = {value}");
            let _ = match comment.is_empty() {
                true => writeln!(text, "{line}"),
                false => writeln!(text, "{line:<60} # {comment}"),
            };
        }
        text.push_str("\n[pipeline]\n# compression = \"gzip:4\"\n");
        text
    }
}

/// Writes a text as a TOML string.
fn quoted(text: &str) -> String {
    // Braces stand for placeholders in paths.
    toml::Value::String(text.replace('{', "{{").replace('}', "}}")).to_string()
}

/// Looks into an HDF5 file.
pub(crate) fn file(path: &Path) -> Result<Written, Failure> {
    let found = survey::survey(path).map_err(|e| Failure::new(Kind::Input, chain(&e)))?;
    let values = |key: &str| survey::values(path, key);
    let guesses = Guesses::new(&found, &values)
        .map_err(|text| Failure::new(Kind::Input, format!("{}: {text}", path.display())))?;
    let mut written = Written::new("hdf5", path);
    written.path("intensities.file", path, "");
    let Guess { key, comment, .. } = &guesses.frames;
    written.line("intensities.key", quoted(key), comment);
    written.said.push(format!("frames     {key}: {comment}"));
    match &guesses.positions {
        None => {
            written.said.push(
                "positions  none that fit the frames: give positions.slow_key and fast_key (y and x), \
                 or positions_theory"
                    .to_owned(),
            );
            written.line("# positions.slow_key", quoted("entry/y"), "y: none was found that fits");
            written.line("# positions.fast_key", quoted("entry/x"), "x");
        }
        Some(p) => {
            for (axis, word) in [(&p.slow, "slow"), (&p.fast, "fast")] {
                let name = if word == "slow" { "y" } else { "x" };
                written.line(&format!("positions.{word}_key"), quoted(&axis.key), name);
                if let Some(column) = axis.column {
                    written.line(&format!("positions.{word}_index"), column.to_string(), "");
                }
                let factor = format!("{:e}", axis.factor);
                written.line(&format!("positions.{word}_multiplier"), factor, &axis.comment);
                let column = axis.column.map_or(String::new(), |c| format!("[:, {c}]"));
                written
                    .said
                    .push(format!("{name}          {}{column}: {}", axis.key, axis.comment));
            }
        }
    }
    for (word, group, guess) in [
        ("energy", "recorded_energy", &guesses.energy),
        ("distance", "recorded_distance", &guesses.distance),
        ("psize", "recorded_psize", &guesses.psize),
    ] {
        match guess {
            Some(Guess { key, factor, comment }) => {
                written.line(&format!("{group}.key"), quoted(key), comment);
                written.line(&format!("{group}.multiplier"), format!("{factor:e}"), "");
                written.said.push(format!("{word:<10} {key}: {comment}"));
            }
            None => {
                let unit = if word == "energy" { "keV" } else { "m" };
                let default = match word {
                    "energy" => "7.2",
                    "distance" => "7.19",
                    _ => "0.000172",
                };
                written.line(
                    &format!("# {word}"),
                    default,
                    format!("{unit}; none was found in the file: this is ptypy's default"),
                );
                written.said.push(format!("{word:<10} not found: give data.{word} ({unit})"));
            }
        }
    }
    for (group, guess) in
        [("mask", &guesses.mask), ("darkfield", &guesses.dark), ("flatfield", &guesses.flat)]
    {
        if let Some(Guess { key, factor, comment }) = guess {
            written.line(&format!("{group}.key"), quoted(key), comment);
            if group == "mask" {
                let inverted = *factor < 0.0;
                written.line("mask.invert", inverted.to_string(), "true: 0 is good in the file");
            }
            written.said.push(format!("{group:<10} {key}: {comment}"));
        }
    }
    written.line(
        "shape",
        quoted("None"),
        "the largest square; or a region of interest: rows, or [rows, cols]",
    );
    written.line("# center", quoted("None"), "found from the frames; default: the middle");
    written.line("# orientation", "0", "0 to 7: `ptystream check` draws all eight");
    written.line("# rebin", "1", "");
    for (key, file) in found.dead.iter().take(3) {
        let target = file.as_ref().map_or(String::new(), |f| format!(" to '{f}'"));
        written.said.push(format!("note       the link '{key}'{target} leads nowhere"));
    }
    Ok(written)
}
