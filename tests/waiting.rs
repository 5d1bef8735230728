//! Roles that are there before the scan is: they wait for it, say so, and end when they are asked to.

mod support;

use npyz::WriterBuilder;
use std::path::Path;
use std::time::{Duration, Instant};
use support::Desk;

const FRAMES: usize = 10;
const N: usize = 16;
/// For how long roles look for each other.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Writes the frames of a scan in the tutorial's layout.
fn acquire(folder: &Path) {
    std::fs::create_dir_all(folder).expect("a folder");
    let mut lines = String::new();
    for k in 0..FRAMES {
        let file = std::fs::File::create(folder.join(format!("{k}.npy"))).expect("a file");
        let mut frame = npyz::WriteOptions::new()
            .default_dtype()
            .shape(&[N as u64, N as u64])
            .writer(file)
            .begin_nd()
            .expect("a header");
        frame.extend((0..N * N).map(|i| (k * 1000 + i) as u16)).expect("pixels");
        frame.finish().expect("a whole file");
        lines += &format!("{k}.npy {k}e-6 -{k}e-6\n");
    }
    std::fs::write(folder.join("positions.txt"), lines).expect("positions");
}

/// Writes `name`.toml: a scan of the source that some lines describe.
fn scan(desk: &Desk, name: &str, source: &str) {
    desk.write(
        &format!("{name}.toml"),
        &format!(
            "[data]\n{source}\nnum_frames = {FRAMES}\nshape = {N}\nenergy = 6.2\ndistance = 7.0\n\
             psize = 0.000172\nauto_center = false\nsave = 'link'\ndfile = '{name}.ptyd'\n\
             [pipeline]\nframes_per_chunk = 4\n"
        ),
    );
}

const FILES: &str = "name = 'numpy'\npath = 'raw'\nlive = true";
const DETECTOR: &str = "name = 'simplon'\naddress = 'tcp://127.0.0.1:9'\n\
                        positions_theory = { pattern = 'raster', points = [2, 5], step = 1e-6 }";

const BOXES: &str = "name = 'simplon'\naddress = 'tcp://127.0.0.1:9'\n\
                     positions = { kind = 'panda', address = 'tcp://127.0.0.1:7', slow = 'y', fast = 'x' }";

#[test]
fn a_scan_may_begin_long_after_the_roles() {
    let desk = Desk::new();
    scan(&desk, "a", FILES);
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let patience = format!("--peer-timeout {}", TIMEOUT.as_secs());
    let started = Instant::now();
    let line = format!(
        "producer a.toml --quiet --bind {p} --set pipeline.peer_timeout_secs={}",
        TIMEOUT.as_secs()
    );
    let mut roles = [
        desk.start("producer", &line),
        desk.start("worker", &format!("worker --producer {p} --sink {s} {patience}")),
        desk.start("sink", &format!("sink --producer {p} --bind {s} {patience}")),
    ];
    roles[0].wait_said("waiting for the scan's first frame");
    std::thread::sleep((TIMEOUT + Duration::from_secs(2)).saturating_sub(started.elapsed()));
    for role in &mut roles {
        assert!(role.is_running(), "{}", role.said());
    }
    acquire(&desk.at("to be"));
    std::fs::rename(desk.at("to be"), desk.at("raw")).expect("the scan appears");
    for role in roles {
        role.end().must(0, &[]);
    }
    desk.run("run a.toml --quiet --set data.live=false --set data.dfile=run.ptyd").must(0, &[]);
    desk.assert_equal("run.ptyd", "a.ptyd");
}

#[test]
fn a_wait_is_told_and_ends_by_a_signal() {
    let desk = Desk::new();
    let first = "waiting for the scan's first frame";
    for (name, source, waits) in [
        ("files", FILES, first),
        ("detector", DETECTOR, "cannot connect to tcp://127.0.0.1:9 yet: nobody answers"),
        ("boxes", BOXES, "cannot connect to 127.0.0.1:7 yet: Connection refused"),
    ] {
        scan(&desk, name, source);
        for line in
            [format!("run {name}.toml"), format!("producer {name}.toml --bind {}", desk.ipc("p"))]
        {
            ends(&desk, &line, waits);
        }
    }
}

#[test]
fn what_is_wrong_all_the_same_is_said_before() {
    let desk = Desk::new();
    for (name, source) in [("files", FILES), ("detector", DETECTOR)] {
        scan(&desk, name, source);
        for (set, code, words) in [
            ("data.rebin=3", 2, ["data.rebin = 3", "does not divide"]),
            ("data.mask=none.npy", 3, ["data.mask", "none.npy"]),
            ("data.dfile=files.toml/x/out.ptyd", 6, ["data.dfile", "files.toml/x"]),
            ("data.dfile=.", 2, ["data.dfile", "is a folder"]),
        ] {
            desk.run(&format!("run {name}.toml --quiet --set {set}")).must(code, &words);
        }
    }
    scan(&desk, "nowhere", "name = 'simplon'\naddress = 'tcp://127.0.0.1:9'");
    desk.run("run nowhere.toml --quiet").must(2, &["data.positions.file", "data.positions_theory"]);
}

fn ends(desk: &Desk, line: &str, waits: &str) {
    let mut role = desk.start("waits", line);
    role.wait_said(waits);
    role.signal("TERM");
    let said = role.end();
    said.must(143, &["a signal ended the wait for the scan to begin"]);
    assert!(!said.err.contains("so it is ended now"), "{}", said.err);
}
