//! The writer, killed at every file operation and started again.
//!
//! What a kill or a power failure leaves: all that was done before; of files that were not synced
//! half of their bytes, or zeros; of names those that the folder had when it was last synced.

#![allow(clippy::unwrap_used)]

mod support;

use ptystream_common::index::IndexSet;
use ptystream_common::params::Save;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::ptyd::record::State;
use ptystream_sink::SinkError;
use ptystream_sink::writer::{Open, Writer, operations};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use support::{Scan, content, expected, names};

/// What is lost beside the process.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Loss {
    Nothing,
    /// Half of each file that was not synced; after every second operation its bytes are zeros.
    Bytes,
    /// Names that the folder did not have when it was last synced.
    Names,
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(folder: &Path) -> Files {
    let read = |name: String| (name.clone(), std::fs::read(folder.join(name)).unwrap());
    names(folder).into_iter().map(read).collect()
}

fn put_back(folder: &Path, files: &Files) {
    for name in names(folder) {
        std::fs::remove_file(folder.join(name)).unwrap();
    }
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// A folder in memory where there is one: nothing here depends on a real disk.
fn desk() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What was watched of one start of the writer.
#[derive(Default)]
struct Watched {
    count: u64,
    /// Written since they were last synced.
    unsafe_files: BTreeSet<PathBuf>,
    /// The folder as it was when it was last synced.
    synced: Files,
}

/// Tells what of a master is seen: it is whole, or there is none.
fn look_at(path: &Path) {
    if !path.exists() {
        return;
    }
    let file = PtydFile::open(path).unwrap();
    for (n, chunk) in file.chunks().unwrap().iter().enumerate() {
        assert_eq!(chunk.number, n as u64);
        assert!(chunk.rows.is_some_and(|rows| rows > 0), "chunk {n} cannot be read");
        for name in ["data", "weights", "positions", "indices"] {
            file.array(&format!("chunks/{}/{name}", chunk.name)).unwrap();
        }
    }
}

/// Writes what is not there yet; `durable` is what the writer has ever reported as such.
fn write(scan: &Scan, durable: &mut IndexSet) -> Result<(), SinkError> {
    let (mut writer, mut publisher) = match Writer::open(&scan.announce)? {
        Open::Ready(writer, publisher) => (writer, *publisher),
        Open::AlreadyComplete(_) => return Ok(()),
    };
    for index in (0..scan.frames()).filter(|&i| durable.contains(i)) {
        assert!(writer.durable().contains(index), "index {index} was durable and is lost");
    }
    *durable = writer.durable().clone();
    // Chunks are closed in pairs, the second one first.
    let mut order: Vec<u64> = (0..scan.chunks()).collect();
    order.chunks_mut(2).for_each(<[u64]>::reverse);
    for chunk in order {
        if writer.durable().contains(scan.chunk(chunk).0) {
            continue;
        }
        let close = scan.try_put_chunk(&mut writer, chunk)?;
        let part = writer.close_chunk(chunk, &close)?;
        *durable = publisher.publish(vec![part])?.clone();
    }
    if let Some(linger) = publisher.finish(&scan.finish())?.linger {
        linger.clear()?;
    }
    Ok(())
}

/// Writes until operation `last`, which is not done any more; returns whether that was the end, and
/// how many operations there were.
fn start(scan: &Scan, last: u64, loss: Loss, durable: &mut IndexSet) -> (bool, u64) {
    let path = scan.announce.dfile.clone().unwrap();
    let folder = path.parent().unwrap().to_owned();
    let watched = Rc::new(RefCell::new(Watched { synced: files(&folder), ..Watched::default() }));
    let result = {
        let (watched, folder) = (Rc::clone(&watched), folder.clone());
        let _watch = operations::watch(move |doing, path| {
            let mut w = watched.borrow_mut();
            w.count += 1;
            if w.count > last {
                return false;
            }
            match doing {
                "create" | "write" | "close" => {
                    w.unsafe_files.insert(path.to_owned());
                }
                "sync" => {
                    w.unsafe_files.remove(path);
                }
                "rename" => assert!(!w.unsafe_files.contains(path), "{path:?} was not synced"),
                "sync folder" => w.synced = files(&folder),
                _ => {}
            }
            true
        });
        write(scan, durable)
    };
    let w = watched.borrow();
    let cut = w.count > last;
    assert_eq!(result.is_err(), cut, "{result:?}");
    if cut {
        for path in w.unsafe_files.iter().filter(|p| p.exists()) {
            let bytes = std::fs::read(path).unwrap();
            let left = match last % 2 {
                0 => bytes[..bytes.len() / 2].to_vec(),
                _ => vec![0; bytes.len()],
            };
            if loss == Loss::Bytes {
                std::fs::write(path, left).unwrap();
            }
        }
        if loss == Loss::Names {
            put_back(&folder, &w.synced);
        }
    }
    look_at(&path);
    (!cut, w.count.min(last))
}

/// What a run that nobody disturbed makes of `before`.
struct Undisturbed {
    names: Vec<String>,
    nodes: Vec<String>,
    operations: u64,
}

fn nodes(path: &Path) -> Vec<String> {
    PtydFile::open(path).unwrap().tree().unwrap().iter().map(|n| format!("{n:?}")).collect()
}

fn undisturbed(scan: &Scan, folder: &Path, before: &Files) -> Undisturbed {
    put_back(folder, before);
    let (whole, operations) = start(scan, u64::MAX, Loss::Nothing, &mut IndexSet::new());
    assert!(whole);
    let path = scan.announce.dfile.as_deref().unwrap();
    Undisturbed { names: names(folder), nodes: nodes(path), operations }
}

fn assert_same(scan: &Scan, folder: &Path, want: &Undisturbed, old: Option<&Scan>, when: &str) {
    let path = scan.announce.dfile.as_deref().unwrap();
    assert_eq!(content(path), expected(scan), "{when}");
    assert_eq!(names(folder), want.names, "{when}");
    assert_eq!(nodes(path), want.nodes, "{when}");
    assert_eq!(PtydFile::open(path).unwrap().record().unwrap().state, State::Complete, "{when}");
    if let Some(old) = old {
        let path = folder.join("a.ptyd.old");
        assert_eq!(content(&path), expected(old), "{when}");
        look_at(&path);
    }
}

/// Forms of a file, with and without a master while it is written.
const FORMS: [(Save, bool); 4] =
    [(Save::Link, true), (Save::Append, false), (Save::Append, true), (Save::Merge, false)];

fn scan(folder: &Path, save: Save, live: bool) -> Scan {
    let mut scan = Scan::new(folder.join("a.ptyd"), save, 8, 3, 2);
    scan.announce.pipeline.live = live;
    scan
}

/// Leaves a finished scan of another key, with the one before it in `.old`.
fn finished(folder: &Path) -> Scan {
    let mut older = Scan::new(folder.join("a.ptyd"), Save::Link, 7, 2, 2);
    older.announce.scan_key = "k0".into();
    older.write();
    let mut old = Scan::new(folder.join("a.ptyd"), Save::Link, 5, 2, 2);
    old.announce.scan_key = "k00".into();
    old.write();
    old
}

/// Kills at every operation, starts again.
fn kill_everywhere(scan: &Scan, folder: &Path, before: &Files, old: Option<&Scan>) {
    let want = undisturbed(scan, folder, before);
    assert_same(scan, folder, &want, old, "undisturbed");
    for loss in [Loss::Nothing, Loss::Bytes, Loss::Names] {
        for last in 0..want.operations {
            let when = format!("{:?} cut at {last}, {loss:?}", scan.announce.save);
            put_back(folder, before);
            let mut durable = IndexSet::new();
            assert!(!start(scan, last, loss, &mut durable).0, "{when}");
            assert!(start(scan, u64::MAX, loss, &mut durable).0, "{when}");
            assert_same(scan, folder, &want, old, &when);
        }
    }
}

#[test]
fn a_new_file_survives_a_kill_at_any_operation() {
    for (save, live) in FORMS {
        let folder = desk();
        let scan = scan(folder.path(), save, live);
        kill_everywhere(&scan, folder.path(), &Files::new(), None);
    }
}

#[test]
fn a_file_in_the_place_of_a_finished_one_survives_a_kill_at_any_operation() {
    for (save, live) in FORMS {
        let folder = desk();
        let old = finished(folder.path());
        let scan = scan(folder.path(), save, live);
        kill_everywhere(&scan, folder.path(), &files(folder.path()), Some(&old));
    }
}

#[test]
fn a_start_after_a_kill_may_be_killed_too() {
    for (save, live) in [(Save::Link, true), (Save::Append, true)] {
        let folder = desk();
        let old = finished(folder.path());
        let before = files(folder.path());
        let scan = scan(folder.path(), save, live);
        let want = undisturbed(&scan, folder.path(), &before);
        for last in (0..want.operations).step_by(11) {
            put_back(folder.path(), &before);
            let mut known = IndexSet::new();
            start(&scan, last, Loss::Names, &mut known);
            let left = files(folder.path());
            for second in 0.. {
                let when = format!("{save:?} cut at {last} and {second}");
                put_back(folder.path(), &left);
                let mut durable = known.clone();
                let (whole, _) = start(&scan, second, Loss::Bytes, &mut durable);
                if !whole {
                    assert!(start(&scan, u64::MAX, Loss::Bytes, &mut durable).0, "{when}");
                }
                assert_same(&scan, folder.path(), &want, Some(&old), &when);
                if whole {
                    break;
                }
            }
        }
    }
}

#[test]
fn parts_that_linger_after_a_kill_do_not_stand_in_the_way_of_another_scan() {
    let folder = desk();
    let old = scan(folder.path(), Save::Append, true);
    assert!(old.write().1.linger.is_some());
    assert!(names(folder.path()).contains(&"a.ptyd.part000".to_owned()));
    let mut scan = scan(folder.path(), Save::Append, true);
    scan.announce.scan_key = "k2".into();
    kill_everywhere(&scan, folder.path(), &files(folder.path()), Some(&old));
}
