//! Sources that cannot be read again: slow workers, roles that are killed, room that ends, and scans
//! that end before their time.

mod support;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Desk, PATIENCE, Role};

/// 128 KiB a frame; the detector has each until the next is taken, and no longer.
const FRAME: &str = "shape = 256\ndtype = 'uint16'\nsave = 'link'\nlive = true\nring = 1";
/// Slow to prepare, so that frames pile up.
const SLOW: &str = "compression = 'gzip:9'\nbatch = 1";
/// Bytes of a frame in the spool.
const RECORD: u64 = (128 << 10) + 96;

/// Prepares the same frames out of a source that can be read again.
fn reference(desk: &Desk, name: &str) {
    desk.run(&format!("run {name}.toml --quiet --set data.live=false --set data.dfile=run.ptyd"))
        .must(0, &[]);
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Returns the gaps of a report, each index with its reason.
fn gaps(report: &serde_json::Value) -> BTreeMap<u64, String> {
    let all = report["lost"].as_array().expect("a list of gaps");
    let mut gaps = BTreeMap::new();
    for gap in all {
        let first = gap["first"].as_u64().expect("a number");
        let count = gap["count"].as_u64().expect("a number");
        let reason = gap["reason"].as_str().expect("a reason");
        gaps.extend((first..first + count).map(|i| (i, reason.to_owned())));
    }
    gaps
}

/// Makes what [`gaps`] returns where all have one reason.
fn each(range: Range<u64>, reason: &str) -> BTreeMap<u64, String> {
    range.map(|i| (i, reason.to_owned())).collect()
}

fn produce(desk: &Desk, more: &str) -> Role {
    let line = format!("producer a.toml --quiet --bind {} --report a.json {more}", desk.ipc("p"));
    desk.start("producer", &line)
}

/// Waits until a spool of one segment holds so many frames.
fn spooled(desk: &Desk, name: &str, frames: u64) {
    wait("the frames are in the spool", || {
        std::fs::metadata(desk.at(name)).is_ok_and(|m| m.len() >= frames * RECORD)
    });
}

fn sink(desk: &Desk) -> Role {
    desk.start("sink", &format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("s")))
}

#[test]
fn slow_workers_lose_nothing_as_long_as_there_is_room() {
    let desk = Desk::new();
    let data = format!("{FRAME}\nload_parallel = 'data'");
    // Memory keeps eight.
    let pipeline = format!(
        "{SLOW}\nspool = 'overflow'\nproducer_memory_bytes = 2097152\nspool_folder = 'raw'"
    );
    desk.moonflower("a", 120, &data, &pipeline);
    reference(&desk, "a");
    let producer = produce(&desk, "");
    // All have been taken from the detector before anybody asks for one.
    spooled(&desk, "raw/a.ptyd.spool.000000", 112);
    let (sink, worker) = (sink(&desk), desk.worker("w"));
    for role in [producer, worker, sink] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    let report = desk.report("a.json");
    assert!(gaps(&report).is_empty());
    let warnings = report["warnings"].to_string();
    assert_eq!(warnings.matches("load_parallel counts as None").count(), 1, "{warnings}");
    assert_eq!(std::fs::read_dir(desk.at("raw")).expect("it stays").count(), 0, "spool is left");
}

#[test]
fn a_live_scan_in_one_process_equals_one_of_files() {
    let desk = Desk::new();
    let data = "shape = 48\nauto_center = true\nsave = 'append'\nlive = true\nrate = 500";
    desk.moonflower("a", 60, data, "batch = 3");
    reference(&desk, "a");
    desk.run("run a.toml --quiet").must(0, &[]);
    desk.assert_equal("run.ptyd", "a.ptyd");
}

#[test]
fn a_sink_that_is_killed_gets_again_what_it_had_not_written() {
    let desk = Desk::new();
    let pipeline = format!("{SLOW}\nspool = 'overflow'\nproducer_memory_bytes = 4194304");
    desk.moonflower("a", 150, FRAME, &pipeline);
    reference(&desk, "a");
    let (producer, mut workers, first) = desk.roles("a", &["w"]);
    desk.wait_for("a.ptyd.part003");
    first.signal("KILL");
    first.end();
    let again = sink(&desk);
    for role in [producer, workers.remove(0), again] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    assert_eq!(desk.report("a.json")["epoch"], 2);
}

#[test]
fn a_producer_that_is_killed_goes_on_from_its_spool() {
    let desk = Desk::new();
    desk.moonflower("a", 150, FRAME, &format!("{SLOW}\nspool = 'always'"));
    reference(&desk, "a");
    // All have come long ago; the second time the detector has nothing but the last one.
    let times = "--set data.rate=1 --set data.live_start=0";
    let producer = produce(&desk, &format!("{times} --set data.ring=150"));
    let (sink, worker) = (sink(&desk), desk.worker("w"));
    desk.wait_for("a.ptyd.part001");
    spooled(&desk, "a.ptyd.spool.000000", 150);
    producer.signal("KILL");
    producer.end();
    let producer = produce(&desk, times);
    for role in [producer, worker, sink] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    assert!(desk.names("a.ptyd.spool").is_empty(), "{:?}", desk.names("a.ptyd"));
}

#[test]
fn what_passes_while_the_producer_is_down_is_listed_and_nothing_else() {
    let desk = Desk::new();
    desk.moonflower("a", 200, FRAME, "batch = 3\nspool = 'always'");
    // A frame every thousand seconds: `come` of them are there for the length of the test.
    let times = |come: u32, ring: u32| {
        let start = now() - (f64::from(come) - 0.5) * 1000.0;
        format!("--set data.rate=0.001 --set data.live_start={start} --set data.ring={ring}")
    };
    let producer = produce(&desk, &times(60, 200));
    let (sink, worker) = (sink(&desk), desk.worker("w"));
    spooled(&desk, "a.ptyd.spool.000000", 60);
    desk.wait_for("a.ptyd.part003");
    producer.signal("KILL");
    producer.end();
    // Meanwhile 140 others have come, of which the detector has 50.
    let producer = produce(&desk, &times(200, 50));
    producer.end().must(5, &[]);
    worker.end().must(0, &[]);
    sink.end().must(5, &[]);
    let report = desk.report("a.json");
    assert_eq!(report["frames"]["expected"], 200);
    assert_eq!(gaps(&report), each(60..150, "passed while the producer was down"));
}

#[test]
fn frames_without_room_are_dropped_and_listed() {
    let desk = Desk::new();
    let pipeline = format!("{SLOW}\non_full = 'drop'\nproducer_memory_bytes = 4194304");
    desk.moonflower("a", 60, FRAME, &pipeline);
    let mut producer = produce(&desk, "");
    producer.wait_said("memory and spool are full: frames are dropped");
    let (sink, worker) = (sink(&desk), desk.worker("w"));
    producer.end().must(5, &[]);
    sink.end().must(5, &[]);
    worker.end().must(0, &[]);
    let report = desk.report("a.json");
    // Memory keeps sixteen, and nothing is durable before all others have been taken.
    assert_eq!(gaps(&report), each(16..60, "no room: memory and spool are full"));
    assert_eq!(report["frames"]["expected"], 60);
}

#[test]
fn too_little_room_for_a_chunk_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    desk.moonflower("a", 20, FRAME, "batch = 1\nproducer_memory_bytes = 1048576");
    desk.run("run a.toml --quiet").must(
        2,
        &["until their chunk of 7 is durable", "producer_memory_bytes has room for 4 of 131072"],
    );
    assert!(desk.names("a.ptyd").is_empty());
}

#[test]
fn an_early_end_truncates_fills_or_keeps() {
    for live in ["live = true", "live = false"] {
        let desk = Desk::new();
        let data = format!("shape = 32\nsave = 'append'\nends_at = 16\n{live}");
        desk.moonflower("a", 40, &data, "");
        let said = "the source ended after 16 of 40 frames";
        desk.run("run a.toml --quiet --report cut.json").must(7, &[said]);
        let report = desk.report("cut.json");
        assert_eq!(report["frames"]["expected"], 16);
        assert_eq!(report["aborted"]["announced"], 40);
        assert!(gaps(&report).is_empty());

        desk.run(
            "run a.toml --quiet --report fill.json --set pipeline.on_abort=fill \
             --set data.dfile=fill.ptyd",
        )
        .must(7, &[said]);
        let report = desk.report("fill.json");
        assert_eq!(report["frames"]["expected"], 40);
        assert_eq!(gaps(&report), each(16..40, said));

        let keep = "run a.toml --quiet --set pipeline.on_abort=keep --set data.dfile=keep.ptyd";
        desk.run(keep).must(7, &[said, "stays unfinished", "the same command goes on"]);
        assert_eq!(desk.names("keep.ptyd.part"), ["keep.ptyd.part000", "keep.ptyd.part001"]);
        // The rest has come meanwhile.
        desk.run(&format!("{keep} --set data.ends_at=None --report keep.json")).must(0, &[]);
        assert_eq!(desk.report("keep.json")["frames"]["resumed"], 14);
        desk.run("run a.toml --quiet --set data.ends_at=None --set data.dfile=all.ptyd")
            .must(0, &[]);
        desk.assert_equal("all.ptyd", "keep.ptyd");
    }
}

#[test]
fn an_early_end_in_the_first_chunk_does_not_hold_up_the_centre() {
    let desk = Desk::new();
    let data = "shape = 32\nauto_center = true\nsave = 'append'\nends_at = 4";
    desk.moonflower("a", 40, data, "");
    desk.run("run a.toml --quiet --report a.json").must(7, &["ended after 4 of 40 frames"]);
    assert_eq!(desk.report("a.json")["frames"]["expected"], 4);
    desk.run(
        "run a.toml --quiet --set data.ends_at=0 --set data.live=true --set data.dfile=none.ptyd",
    )
    .must(7, &["there is nothing to write"]);
}
