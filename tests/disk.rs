//! Disks that are full or read-only: nothing that is durable is lost, a scan waits for room and goes
//! on, and one that cannot says what is missing.

#![allow(clippy::print_stdout, reason = "a skipped test says so there")]

mod support;

use std::path::Path;
use support::Desk;

/// A small disk of its own in memory, as long as it lives.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, options: &str) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a folder");
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .output();
        match done {
            Ok(done) if done.status.success() => Some(Self(at)),
            other => {
                println!("skipped: a tmpfs cannot be mounted here: {other:?}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let done = std::process::Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0)
            .output()
            .expect("mount starts");
        assert!(done.status.success(), "{options}: {done:?}");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let done = std::process::Command::new("umount").arg(self.0).output();
        let done = done.expect("umount starts");
        assert!(done.status.success() || std::thread::panicking(), "{done:?}");
    }
}

#[test]
fn a_read_only_disk_is_named() {
    let desk = Desk::new();
    desk.moonflower("a", 10, "shape = 32", "");
    let at = desk.at("disk");
    let Some(disk) = Disk::mount(&at, "size=1m") else { return };
    disk.remount("ro");
    desk.run("run a.toml --quiet --set data.dfile=disk/out.ptyd")
        .must(6, &["disk/", "Read-only file system"]);
}

#[test]
fn a_full_disk_keeps_whole_chunks_and_the_same_command_goes_on() {
    let desk = Desk::new();
    let at = desk.at("disk");
    let Some(disk) = Disk::mount(&at, "size=32m") else { return };
    for save in ["link", "append", "merge"] {
        desk.moonflower(
            "a",
            60,
            &format!("shape = 96\nsave = '{save}'"),
            // What is merged cannot be followed while it is written.
            &format!(
                "compression = 'none'\nlive = {}\nparts_linger_secs = 0\ndisk_wait_secs = 0",
                save != "merge"
            ),
        );
        let want = format!("{save}.ptyd");
        desk.run(&format!("run a.toml --quiet --set data.dfile={want}")).must(0, &[]);
        disk.remount("size=1700k");
        // One worker takes chunks in order: the first is whole before the last takes its room.
        let command = "run a.toml --quiet --threads 1 --set data.dfile=disk/a.ptyd";
        let words = ["disk/a.ptyd", "disk is full", "bytes, ", "are free", "make room"];
        desk.run(command).must(6, &words);
        // Chunks that were whole are there, unfinished ones are not, and nothing looks complete.
        let names: Vec<String> = std::fs::read_dir(&at)
            .expect("the disk")
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().any(|n| n == "a.ptyd.part000"), "{names:?}");
        assert!(!names.iter().any(|n| n.contains(".part") && n.ends_with("-tmp")), "{names:?}");
        if names.iter().any(|n| n == "a.ptyd") {
            let shown = desk.run("inspect disk/a.ptyd");
            assert!(shown.out.contains("state: incomplete: "), "{shown:#?}");
        }
        // Still full: the same again, and nothing is lost.
        desk.run(command).must(6, &words);
        disk.remount("size=32m");
        let said = desk.run(command);
        said.must(0, &[]);
        assert!(said.out.contains("from an earlier run"), "{}", said.out);
        assert_equal(&desk, &want);
        for entry in std::fs::read_dir(&at).expect("the disk") {
            std::fs::remove_file(entry.expect("an entry").path()).expect("a file");
        }
    }
}

/// Compares by a program: a file that is open here, on a disk that is changed, is in the way.
#[track_caller]
fn assert_equal(desk: &Desk, want: &str) {
    desk.run(&format!("compare {want} disk/a.ptyd")).must(0, &[]);
}

/// Bytes of a file.
fn size(desk: &Desk, name: &str) -> u64 {
    std::fs::metadata(desk.at(name)).expect("a file").len()
}

fn clear(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("the disk") {
        std::fs::remove_file(entry.expect("an entry").path()).expect("a file");
    }
}

/// Writes the configuration of a scan; `wait`: its `disk_wait_secs`.
fn scan(desk: &Desk, save: &str, wait: u32) {
    desk.moonflower(
        "a",
        60,
        &format!("shape = 96\nsave = '{save}'"),
        &format!("compression = 'none'\nparts_linger_secs = 0\ndisk_wait_secs = {wait}"),
    );
}

const COMMAND: &str = "run a.toml --threads 2 --set data.dfile=disk/a.ptyd";

#[test]
fn a_scan_waits_for_room_on_its_disk_and_goes_on() {
    let desk = Desk::new();
    let at = desk.at("disk");
    let Some(disk) = Disk::mount(&at, "size=32m") else { return };
    for save in ["link", "append", "merge"] {
        scan(&desk, save, 600);
        let want = format!("{save}.ptyd");
        desk.run(&format!("run a.toml --quiet --set data.dfile={want}")).must(0, &[]);
        // In mid-scan, then with room for the parts but not for the file that they are folded into.
        let mut sizes = vec!["1700k".to_owned()];
        if save != "link" {
            sizes.push(format!("{}k", size(&desk, &want) * 3 / 2 / 1024));
        }
        for small in sizes {
            disk.remount(&format!("size={small}"));
            let mut role = desk.start("full", COMMAND);
            role.wait_said("paused: ");
            assert!(role.said().contains("disk is full"), "{}", role.said());
            assert!(role.is_running());
            disk.remount("size=32m");
            let said = role.end();
            said.must(0, &["the disk takes writes again"]);
            assert_equal(&desk, &want);
            let names: Vec<String> = std::fs::read_dir(&at)
                .expect("the disk")
                .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
                .filter(|n| n.starts_with('.') || n.ends_with(".lock"))
                .collect();
            assert!(names.is_empty(), "{save} {small}: {names:?}");
            clear(&at);
        }
    }
}

#[test]
fn a_disk_that_stays_full_ends_the_scan_with_what_is_missing() {
    let desk = Desk::new();
    let at = desk.at("disk");
    let Some(disk) = Disk::mount(&at, "size=1700k") else { return };
    scan(&desk, "link", 1);
    desk.run("run a.toml --quiet").must(0, &[]);
    let words =
        ["disk is full", "make room", "waited 1 s", "not on disk: frames ", "the same command"];
    desk.run(COMMAND).must(6, &words);
    let shown = desk.run("inspect disk/a.ptyd");
    assert!(shown.out.contains("state: incomplete: "), "{shown:#?}");
    disk.remount("size=32m");
    desk.run(COMMAND).must(0, &[]);
    assert_equal(&desk, "a.ptyd");
}

#[test]
fn a_signal_ends_a_scan_that_is_paused() {
    let desk = Desk::new();
    let at = desk.at("disk");
    let Some(_disk) = Disk::mount(&at, "size=1700k") else { return };
    scan(&desk, "link", 3600);
    let mut role = desk.start("full", COMMAND);
    role.wait_said("paused: ");
    role.signal("TERM");
    assert_eq!(role.end().code, 143);
}
