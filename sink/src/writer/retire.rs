//! Moves a finished file with its parts to `.old`.
//!
//! A file that links to parts cannot simply be renamed: the new scan's parts would take the place
//! of those that it links to. Steps, each of which may be the last before a crash:
//! 1. the file with its links rewritten, under a temporary name;
//! 2. the journal: which part gets which name;
//! 3. the visible file is deleted: a reader finds none rather than one with holes;
//! 4. the parts are renamed, from the last to the first: a reader that has the file open still sees
//!    fewer chunks, never chunk 2 without chunk 1, which ptypy's reader would deliver in its place;
//! 5. the rewritten file becomes `.old`, and then its report;
//! 6. the journal is deleted.
//!
//! With a journal the steps from 3 on are done again; each of them can be. The visible file is only
//! ever read: a reader may hold it.

use super::disk;
use super::names::PartNames;
use super::operations;
use super::report;
use crate::error::SinkError;
use ptystream_common::ptyd::master;
use std::path::{Path, PathBuf};

fn old_of(dfile: &Path) -> PathBuf {
    disk::beside(dfile, &format!("{}.old", disk::name_of(dfile)))
}

fn journal_of(dfile: &Path) -> PathBuf {
    disk::beside(dfile, &format!(".{}.old-journal", disk::name_of(dfile)))
}

fn rewritten(dfile: &Path) -> PathBuf {
    disk::beside(dfile, &format!(".{}.old-rewritten", disk::name_of(dfile)))
}

/// Moves the file in its entirety; does nothing if there is none.
///
/// `names`: how the file's parts are named.
pub(crate) fn retire(dfile: &Path, names: &PartNames) -> Result<(), SinkError> {
    if !disk::exists(dfile) {
        return Ok(());
    }
    remove_old(dfile, names)?;
    let links = match master::links(dfile) {
        Ok(links) => links,
        // It may have parts that the new scan's would replace: better not to touch it.
        Err(error) if disk::is_hdf5(dfile) => return Err(error.into()),
        Err(_) => Vec::new(),
    };
    let here = disk::name_of(dfile);
    let own = |file: &str| {
        let name = Path::new(file).file_name()?.to_string_lossy().into_owned();
        let rest = name.strip_prefix(&here)?.to_owned();
        disk::exists(&disk::beside(dfile, &name)).then(|| (name, format!("{here}.old{rest}")))
    };
    let moves: Vec<(String, (String, String))> =
        links.into_iter().filter_map(|(chunk, file)| Some((chunk, own(&file)?))).collect();
    if moves.is_empty() {
        disk::rename(dfile, &old_of(dfile))?;
        move_report(dfile)?;
        return disk::sync_folder_of(dfile);
    }
    let targets: Vec<(String, String)> =
        moves.iter().map(|(chunk, (_, new))| (chunk.clone(), new.clone())).collect();
    let copy = rewritten(dfile);
    operations::next("write", &copy)?;
    master::relink(dfile, &copy, &targets)?;
    disk::sync_file(&copy)?;
    let journal = last_first(&moves);
    disk::write_whole(dfile, &journal_of(dfile), &journal)?;
    replay(dfile, &journal)
}

/// Writes the journal's lines, (chunk, (name, new name)), from the last chunk to the first.
fn last_first(moves: &[(String, (String, String))]) -> String {
    let mut sorted: Vec<_> = moves.iter().collect();
    sorted.sort_by_key(|(chunk, _)| std::cmp::Reverse(chunk.parse().unwrap_or(u64::MAX)));
    sorted.iter().map(|(_, (from, to))| format!("{from}\t{to}\n")).collect()
}

/// Completes a move that a crash cut off.
pub(crate) fn recover(dfile: &Path) -> Result<(), SinkError> {
    let journal = journal_of(dfile);
    match std::fs::read_to_string(&journal) {
        Ok(text) => replay(dfile, &text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            disk::remove(&rewritten(dfile))?;
            match disk::exists(dfile) || !disk::exists(&old_of(dfile)) {
                true => Ok(()),
                // A file without parts had been renamed, and its report not yet.
                false => move_report(dfile),
            }
        }
        Err(e) => Err(SinkError::file("read", journal)(e)),
    }
}

fn replay(dfile: &Path, journal: &str) -> Result<(), SinkError> {
    disk::remove(dfile)?;
    for (from, to) in journal.lines().filter_map(|line| line.split_once('\t')) {
        let from = disk::beside(dfile, from);
        if disk::exists(&from) {
            disk::rename(&from, &disk::beside(dfile, to))?;
        }
    }
    let copy = rewritten(dfile);
    if disk::exists(&copy) {
        disk::rename(&copy, &old_of(dfile))?;
    }
    move_report(dfile)?;
    disk::sync_folder_of(dfile)?;
    disk::remove(&journal_of(dfile))
}

/// The report follows its file; where the old file has one, it has been moved already.
fn move_report(dfile: &Path) -> Result<(), SinkError> {
    let (from, to) = (report::path_of(dfile), report::path_of(&old_of(dfile)));
    if disk::exists(&from) && !disk::exists(&to) { disk::rename(&from, &to) } else { Ok(()) }
}

/// Deletes an older `.old` with its report, then its parts.
fn remove_old(dfile: &Path, names: &PartNames) -> Result<(), SinkError> {
    let old = old_of(dfile);
    disk::remove(&report::path_of(&old))?;
    disk::remove(&old)?;
    let here = disk::name_of(&old);
    let standard = PartNames::new(None)?;
    for name in disk::siblings(dfile)? {
        let part = |n: &PartNames| n.chunk_of(&here, &name).is_some();
        if part(names) || part(&standard) {
            disk::remove(&disk::beside(dfile, &name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_move_that_was_cut_off_is_completed() {
        let folder = tempfile::tempdir().unwrap();
        let dfile = folder.path().join("a.ptyd");
        let at = |name: &str| folder.path().join(name);
        // As after the first part was renamed.
        fs::write(
            at(".a.ptyd.old-journal"),
            "a.ptyd.part000\ta.ptyd.old.part000\na.ptyd.part001\ta.ptyd.old.part001\n",
        )
        .unwrap();
        fs::write(at(".a.ptyd.old-rewritten"), "master").unwrap();
        fs::write(at("a.ptyd.old.part000"), "0").unwrap();
        fs::write(at("a.ptyd.part001"), "1").unwrap();
        recover(&dfile).unwrap();
        let mut names = disk::siblings(&dfile).unwrap();
        names.sort();
        assert_eq!(names, ["a.ptyd.old", "a.ptyd.old.part000", "a.ptyd.old.part001"]);
        assert_eq!(fs::read_to_string(at("a.ptyd.old")).unwrap(), "master");
    }

    #[test]
    fn the_last_part_moves_first() {
        let part = |n: u64| (n.to_string(), (format!("a.part{n}"), format!("a.old.part{n}")));
        // As HDF5 lists them.
        let journal = last_first(&[part(0), part(1), part(10), part(2)]);
        let order: Vec<&str> = journal.lines().filter_map(|l| l.split('\t').next()).collect();
        assert_eq!(order, ["a.part10", "a.part2", "a.part1", "a.part0"]);
    }

    #[test]
    fn a_file_that_only_seems_to_be_hdf5_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let dfile = folder.path().join("a.ptyd");
        fs::write(&dfile, b"\x89HDF\r\n\x1a\nbroken off").unwrap();
        let error = retire(&dfile, &PartNames::new(None).unwrap()).unwrap_err();
        assert!(matches!(error, SinkError::Ptyd(_)), "{error}");
        assert!(dfile.exists());
    }

    #[test]
    fn a_file_without_links_is_renamed_over_the_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let dfile = folder.path().join("a.ptyd");
        let at = |name: &str| folder.path().join(name);
        fs::write(&dfile, "not HDF5").unwrap();
        fs::write(at("a.ptyd.old"), "older").unwrap();
        fs::write(at("a.ptyd.old.part003"), "older part").unwrap();
        fs::write(at("a.ptyd.older"), "somebody's").unwrap();
        retire(&dfile, &PartNames::new(None).unwrap()).unwrap();
        let mut names = disk::siblings(&dfile).unwrap();
        names.sort();
        assert_eq!(names, ["a.ptyd.old", "a.ptyd.older"]);
        assert_eq!(fs::read_to_string(at("a.ptyd.old")).unwrap(), "not HDF5");
    }
}
