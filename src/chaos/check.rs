//! Compares what a disturbed scan left with what an undisturbed one makes.

use super::plan::Plan;
use super::reader;
use crate::compare::{CompareOptions, compare};
use ptystream_common::error::chain;
use std::collections::BTreeSet;
use std::path::Path;

/// Name of the file that is prepared.
pub const NAME: &str = "scan.ptyd";
/// Folder of the file.
pub const OUT: &str = "out";
/// What an undisturbed run of the same configuration makes.
pub const REFERENCE: &str = "reference.ptyd";
/// The same with other parameters: what was there before.
pub const BEFORE: &str = "before.ptyd";

const SHOWN: usize = 3;

/// Judges the folder of a seed whose roles have ended.
///
/// # Errors
/// What is wrong, in a line.
pub fn check(plan: &Plan, folder: &Path) -> Result<(), String> {
    let out = folder.join(OUT);
    equal(&folder.join(REFERENCE), &out.join(NAME))?;
    let indices = reader::indices(&out.join(NAME)).map_err(|e| chain(&e))?;
    if !indices.iter().copied().eq(0..plan.setup.frames) {
        return Err(format!("the file's indices are not 0 to {}: {indices:?}", plan.setup.frames));
    }
    if plan.again {
        equal(&folder.join(BEFORE), &out.join(format!("{NAME}.old")))?;
    }
    strays(plan, &out)
}

fn equal(wanted: &Path, got: &Path) -> Result<(), String> {
    let found = compare(wanted, got, &CompareOptions::default()).map_err(|e| chain(&e))?;
    if found.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = found.iter().take(SHOWN).map(ToString::to_string).collect();
    Err(format!(
        "{} is not what an undisturbed run makes, {} differences (wanted | got): {}",
        got.display(),
        found.len(),
        shown.join("; ")
    ))
}

fn parts(of: &str, plan: &Plan) -> impl Iterator<Item = String> {
    let chunks = plan.setup.frames.div_ceil(plan.setup.per_chunk);
    (0..chunks).map(move |n| format!("{of}.part{n:03}"))
}

/// Refuses names that no finished scan leaves, and misses those that it does.
fn strays(plan: &Plan, out: &Path) -> Result<(), String> {
    let mut wanted = BTreeSet::from([NAME.to_owned()]);
    if plan.setup.save == "link" {
        wanted.extend(parts(NAME, plan));
    }
    if plan.again {
        let old = format!("{NAME}.old");
        wanted.extend(parts(&old, plan));
        wanted.insert(old);
    }
    let entries = std::fs::read_dir(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let found: BTreeSet<String> =
        entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    let list =
        |names: Vec<&String>| names.iter().map(|s| s.as_str()).collect::<Vec<_>>().join(", ");
    let stray: Vec<&String> = found.difference(&wanted).collect();
    if !stray.is_empty() {
        return Err(format!("left behind: {}", list(stray)));
    }
    let missing: Vec<&String> = wanted.difference(&found).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", list(missing))) }
}
