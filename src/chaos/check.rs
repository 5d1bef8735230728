//! Compares what a disturbed scan left with what an undisturbed one makes.

use super::plan::Plan;
use super::reader;
use crate::compare::{CompareOptions, compare};
use ptystream_common::error::chain;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::ptyd::sums;
use ptystream_common::report::{ScanReport, report_name};
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
    equal(plan, &folder.join(REFERENCE), &out.join(NAME))?;
    let indices = reader::indices(&out.join(NAME)).map_err(|e| chain(&e))?;
    if !indices.iter().copied().eq(0..plan.setup.frames) {
        return Err(format!("the file's indices are not 0 to {}: {indices:?}", plan.setup.frames));
    }
    if plan.again {
        equal(plan, &folder.join(BEFORE), &out.join(format!("{NAME}.old")))?;
    }
    strays(plan, &out)
}

/// Compares the file with its checksums, and its report with the scan.
///
/// # Errors
/// What is wrong, in a line.
pub fn proofs(plan: &Plan, folder: &Path) -> Result<(), String> {
    let file = folder.join(OUT).join(NAME);
    let found = sums::verify(&file).map_err(|e| chain(&e))?;
    if let Some(one) = found.different.first() {
        return Err(format!("{}: {}: {}", one.file.display(), one.object, one.text));
    }
    if found.unknown > 0 {
        return Err(format!("{} storage chunks have no checksum", found.unknown));
    }
    let path = folder.join(OUT).join(report_name(NAME));
    let wrong = |text: String| format!("{}: {text}", path.display());
    let text = std::fs::read_to_string(&path).map_err(|e| wrong(e.to_string()))?;
    let report: ScanReport = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let (frames, wanted) = (report.frames, plan.setup.frames);
    match (frames.expected, frames.written, frames.lost, frames.mismatched) {
        (expected, written, 0, 0) if expected == wanted && written == wanted => Ok(()),
        _ => Err(wrong(format!("of {wanted} frames it says {frames:?}"))),
    }
}

fn equal(plan: &Plan, wanted: &Path, got: &Path) -> Result<(), String> {
    // Where chunks close depends on time if they may close early.
    let options = CompareOptions {
        ignore_chunking: plan.setup.flush_millis.is_some(),
        ..CompareOptions::default()
    };
    let found = compare(wanted, got, &options).map_err(|e| chain(&e))?;
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

fn parts(out: &Path, of: &str, plan: &Plan) -> Result<Vec<String>, String> {
    let chunks = match plan.setup.flush_millis {
        None => plan.setup.frames.div_ceil(plan.setup.per_chunk),
        Some(_) => {
            let file = PtydFile::open(&out.join(of)).and_then(|file| file.chunks());
            file.map_err(|e| chain(&e))?.len() as u64
        }
    };
    Ok((0..chunks).map(|n| format!("{of}.part{n:03}")).collect())
}

/// Refuses names that no finished scan leaves, and misses those that it does.
fn strays(plan: &Plan, out: &Path) -> Result<(), String> {
    let mut wanted = BTreeSet::from([NAME.to_owned(), report_name(NAME)]);
    if plan.setup.save == "link" {
        wanted.extend(parts(out, NAME, plan)?);
    }
    if plan.again {
        let old = format!("{NAME}.old");
        wanted.extend(parts(out, &old, plan)?);
        wanted.insert(report_name(&old));
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::chaos::watch;
    use ptystream_common::frame::Array;
    use ptystream_common::ptyd::master::PlainWriter;
    use ptystream_common::value::Value;

    /// Writes a file of one chunk; `indices` stand for the frames too.
    fn write(path: &Path, indices: &[i64]) {
        let _ = std::fs::remove_file(path);
        let count = indices.len();
        let meta = vec![("num_frames".to_owned(), Value::Int(count as i64))];
        let mut writer = PlainWriter::create(path, &meta, &[]).unwrap();
        let frames: Vec<f64> = indices.iter().map(|i| *i as f64).collect();
        let data = Array::from_items(&[count, 1, 1], &frames);
        let positions = Array::from_items(&[count, 2], &vec![1e-6; 2 * count]);
        let indices = Array::from_items(&[count], indices);
        let items =
            [("data", &data), ("weights", &data), ("positions", &positions), ("indices", &indices)];
        writer.add(&items).unwrap();
        writer.close().unwrap();
    }

    fn plan() -> Plan {
        let mut plan = Plan::new(0, &[]);
        (plan.setup.frames, plan.setup.per_chunk, plan.setup.save) = (4, 4, "append");
        plan.setup.flush_millis = None;
        plan
    }

    #[test]
    fn what_differs_is_doubled_or_left_behind_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at(OUT)).unwrap();
        let (wanted, got) = (at(REFERENCE), at(OUT).join(NAME));
        write(&wanted, &[0, 1, 2, 3]);
        let wrong = |word: &str| {
            let said = check(&plan(), folder.path());
            assert!(said.as_ref().is_err_and(|e| e.contains(word)), "{said:?}");
        };
        wrong("does not exist");
        write(&got, &[0, 1, 2, 3]);
        wrong("missing: scan.ptyd.report.json");
        std::fs::write(at(OUT).join("scan.ptyd.report.json"), "").unwrap();
        assert_eq!(check(&plan(), folder.path()), Ok(()));
        let stray = at(OUT).join(".scan.ptyd.1.ptystream-tmp");
        std::fs::write(&stray, "").unwrap();
        wrong("left behind: .scan.ptyd.1.ptystream-tmp");
        std::fs::remove_file(&stray).unwrap();
        write(&got, &[0, 1, 1, 3]);
        wrong("not what an undisturbed run makes");
        write(&wanted, &[0, 1, 1, 3]);
        wrong("indices are not 0 to 4");
    }

    #[test]
    fn a_reader_that_misses_or_doubles_a_frame_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("wanted"), &[0, 1, 2, 3]);
        for (frames, word) in [
            (&[0, 1, 2, 3][..], ""),
            (&[0, 1, 2], "got 3 frames of 4"),
            (&[0, 1, 1, 2, 3], "another frame than that of the file as frame 2"),
            (&[0, 2, 3], "another frame than that of the file as frame 1"),
            (&[0, 1, 2, 3, 3], "got 5 frames of 4"),
        ] {
            write(&at("got"), frames);
            let mut reader = reader::Follower::attach(&at("got")).unwrap();
            while reader.look().unwrap() != reader::Look::End {}
            let said = watch::judge(&reader, &at("wanted"), true).err().unwrap_or_default();
            assert!(said.contains(word) && said.is_empty() == word.is_empty(), "{said}");
        }
    }
}
