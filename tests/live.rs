//! Sources that cannot be read again: slow workers, roles that are killed, room that ends, and scans
//! that end before their time.

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::{Desk, PATIENCE, Role};

/// 128 KiB a frame: a megabyte has room for eight, the half that is for kept frames for four.
const FRAME: &str = "shape = 256\ndtype = 'uint16'\nsave = 'link'";
/// Slow to prepare, so that frames pile up.
const SLOW: &str = "compression = 'gzip:9'\nbatch = 1";

/// Says where `load_parallel` differs in the file's `info` only; frames and meta are compared.
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

/// Returns the gaps of a report: (first, count, reason).
fn gaps(report: &serde_json::Value) -> Vec<(u64, u64, String)> {
    let all = report["sink"]["gaps"].as_array().expect("a list of gaps");
    let gap = |g: &serde_json::Value| {
        let reason = g[1].as_str().expect("a reason").to_owned();
        (g[0]["first"].as_u64().expect("a number"), g[0]["count"].as_u64().expect("one"), reason)
    };
    all.iter().map(gap).collect()
}

fn produce(desk: &Desk, more: &str) -> Role {
    let line = format!("producer a.toml --quiet --bind {} --report a.json {more}", desk.ipc("p"));
    desk.start("producer", &line)
}

#[test]
fn slow_workers_lose_nothing_as_long_as_there_is_room() {
    let desk = Desk::new();
    let pipeline = format!(
        "{SLOW}\nframes_per_chunk = 5\nspool = 'overflow'\nproducer_memory_bytes = 2097152\n\
         spool_folder = 'raw'"
    )
    .replace("frames_per_chunk = 5\n", "");
    // The detector keeps so few that whoever does not take them at once loses them.
    let data = format!("{FRAME}\nlive = true\nrate = 400\nring = 60\nload_parallel = 'data'");
    desk.moonflower("a", 120, &data, &pipeline);
    reference(&desk, "a");
    let (producer, workers, sink) = desk.roles("a", &[]);
    assert!(workers.is_empty());
    // Nobody asks for frames until most have passed in the detector.
    wait("a spool", || {
        !desk.names("raw").is_empty() && {
            let there = std::fs::read_dir(desk.at("raw")).expect("a folder");
            there.flatten().any(|e| e.file_name().to_string_lossy().ends_with(".spool.000000"))
        }
    });
    let worker = desk.worker("w");
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
    let data = format!("{FRAME}\nlive = true\nrate = 1000\nring = 200");
    desk.moonflower("a", 150, &data, &format!("{SLOW}\nspool = 'overflow'"));
    reference(&desk, "a");
    let (producer, mut workers, sink) = desk.roles("a", &["w"]);
    desk.wait_for("a.ptyd.part003");
    sink.signal("KILL");
    sink.end();
    let line = format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("s"));
    let sink = desk.start("sink", &line);
    for role in [producer, workers.remove(0), sink] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    assert_eq!(desk.report("a.json")["sink"]["epoch"], 2);
}

#[test]
fn a_producer_that_is_killed_goes_on_from_its_spool() {
    let desk = Desk::new();
    // All frames have come long before the first is prepared, and all but the last are gone.
    let data = format!("{FRAME}\nlive = true\nrate = 2000\nring = 300");
    desk.moonflower("a", 150, &data, &format!("{SLOW}\nspool = 'always'"));
    reference(&desk, "a");
    let start = format!("--set data.live_start={}", now() + 0.5);
    let producer = produce(&desk, &start);
    let sink =
        desk.start("sink", &format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("s")));
    let worker = desk.worker("w");
    desk.wait_for("a.ptyd.part003");
    producer.signal("KILL");
    producer.end();
    // With a ring of one the source has nothing but its last frame any more.
    let producer = produce(&desk, &format!("{start} --set data.ring=1"));
    for role in [producer, worker, sink] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    assert!(desk.names("a.ptyd.spool").is_empty(), "{:?}", desk.names("a.ptyd"));
}

#[test]
fn what_passes_while_the_producer_is_down_is_listed_and_nothing_else() {
    let desk = Desk::new();
    let data = format!("{FRAME}\nlive = true\nrate = 50\nring = 8");
    desk.moonflower("a", 300, &data, "batch = 1\nspool = 'always'");
    let start = format!("--set data.live_start={}", now());
    let mut producer = produce(&desk, &start);
    let sink =
        desk.start("sink", &format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("s")));
    let worker = desk.worker("w");
    producer.address();
    desk.wait_for("a.ptyd.part002");
    producer.signal("KILL");
    producer.end();
    // Longer than the ring: some frames pass.
    let down = now();
    wait("frames pass", || now() - down > 0.6);
    let producer = produce(&desk, &start);
    producer.end().must(5, &[]);
    for role in [worker, sink] {
        role.end();
    }
    let report = desk.report("a.json");
    assert_eq!(report["sink"]["frames"], 300);
    let gaps = gaps(&report);
    let (first, last) = (gaps.first().expect("gaps").0, gaps.last().expect("gaps"));
    let after: Vec<_> =
        gaps.iter().filter(|g| g.2 != "passed while the producer was down").collect();
    assert!(after.is_empty(), "{after:?}");
    // The frames that passed follow each other, but for the start before the producer was there.
    let missing: u64 = gaps.iter().map(|g| g.1).sum();
    assert!(missing < 300 - 14, "{gaps:?}");
    assert!(last.0 + last.1 > 14 && first < 300, "{gaps:?}");
    assert!(gaps.iter().any(|g| g.0 >= 14 && g.1 >= 20), "a row of 30 less the ring: {gaps:?}");
}

#[test]
fn frames_without_room_are_dropped_and_listed() {
    let desk = Desk::new();
    let data = format!("{FRAME}\nlive = true\nrate = 3000\nring = 400");
    let pipeline = format!("{SLOW}\non_full = 'drop'\nproducer_memory_bytes = 4194304");
    desk.moonflower("a", 200, &data, &pipeline);
    let (producer, _, sink) = desk.roles("a", &[]);
    let worker = desk.worker("w");
    producer.end().must(5, &["memory and spool are full: frames are dropped"]);
    sink.end().must(5, &[]);
    worker.end().must(0, &[]);
    let report = desk.report("a.json");
    let gaps = gaps(&report);
    assert!(!gaps.is_empty() && gaps.iter().all(|g| g.2 == "no room: memory and spool are full"));
    assert_eq!(report["sink"]["frames"], 200);
}

#[test]
fn too_little_room_for_a_chunk_is_refused_before_anything_is_written() {
    let desk = Desk::new();
    let data = format!("{FRAME}\nlive = true");
    desk.moonflower("a", 20, &data, "batch = 1\nproducer_memory_bytes = 1048576");
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
        assert_eq!(report["sink"]["frames"], 16);
        assert_eq!(report["aborted"]["announced"], 40);
        assert!(gaps(&report).is_empty());

        desk.run(
            "run a.toml --quiet --report fill.json --set pipeline.on_abort=fill \
             --set data.dfile=fill.ptyd",
        )
        .must(7, &[said]);
        let report = desk.report("fill.json");
        assert_eq!(report["sink"]["frames"], 40);
        assert_eq!(gaps(&report), [(16, 24, said.to_owned())]);

        let keep = "run a.toml --quiet --set pipeline.on_abort=keep --set data.dfile=keep.ptyd";
        desk.run(keep).must(7, &[said, "stays unfinished", "the same command goes on"]);
        let state = desk.run("inspect keep.ptyd.part000");
        assert_eq!(state.code, 0, "whole chunks are there: {state:?}");
        // The rest has come meanwhile.
        desk.run(&format!("{keep} --set data.ends_at=None --report keep.json")).must(0, &[]);
        assert_eq!(desk.report("keep.json")["sink"]["resumed"], 14);
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
    assert_eq!(desk.report("a.json")["sink"]["frames"], 4);
    desk.run("run a.toml --quiet --set data.ends_at=0 --set data.dfile=none.ptyd")
        .must(7, &["there is nothing to write"]);
}
