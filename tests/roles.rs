//! The three roles as processes: equal files, roles that come and go, signals, time-outs.

mod support;

use support::{Desk, free};

/// Long enough to be met in mid-scan: large frames, compressed as slowly as can be.
const LONG: (u32, &str, &str) =
    (350, "shape = 256\nsave = 'link'", "compression = 'gzip:9'\nbatch = 1");

fn long(desk: &Desk, name: &str) {
    desk.moonflower(name, LONG.0, LONG.1, LONG.2);
}

fn frames_of(report: &serde_json::Value, worker: &str) -> u64 {
    let workers = report["workers"].as_array().expect("a list of workers");
    let mine = workers.iter().filter(|w| w["name"].as_str().is_some_and(|n| n.starts_with(worker)));
    mine.filter_map(|w| w["frames"].as_u64()).sum()
}

#[test]
fn files_are_equal_for_any_number_of_workers_over_tcp_and_ipc() {
    let desk = Desk::new();
    for (i, (link, workers, save, parallel, batch)) in [
        ("tcp", 1, "link", "None", 1),
        ("tcp", 2, "append", "data", 3),
        ("tcp", 5, "merge", "common", 3),
        ("ipc", 1, "merge", "all", 2),
        ("ipc", 2, "link", "data", 3),
        ("ipc", 5, "append", "None", 1),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("case{i}");
        let data = format!(
            "shape = 48\nraw_shape = [64, 60]\nauto_center = true\nrebin = 2\norientation = 3\n\
             save = '{save}'\nload_parallel = '{parallel}'"
        );
        desk.moonflower(&name, 100, &data, &format!("batch = {batch}"));
        let wanted = format!("run{i}.ptyd");
        // In one process, with other batches and no reading by workers: the same file.
        desk.run(&format!(
            "run {name}.toml --quiet --threads 2 --set data.dfile={wanted} --set pipeline.batch=4 \
             --set data.load_parallel=None"
        ))
        .must(0, &[]);
        let (at, s) = match link {
            // Nobody else is at that host, so the port stays free until the sink has it.
            "tcp" => ("tcp://127.0.0.1:0".to_owned(), format!("tcp://{}", free("127.70.0.1"))),
            _ => (desk.ipc(&format!("{name}.p")), desk.ipc(&format!("{name}.s"))),
        };
        let mut producer =
            desk.start("producer", &format!("producer {name}.toml --bind {at} --quiet"));
        let p = producer.address();
        let mut roles: Vec<_> = (0..workers)
            .map(|w| desk.start(&format!("w{w}"), &format!("worker --producer {p} --sink {s}")))
            .collect();
        producer.wait_joined(workers);
        let sink = desk.start("sink", &format!("sink --producer {p} --bind {s}"));
        roles.extend([producer, sink]);
        for role in roles {
            role.end().must(0, &[]);
        }
        desk.assert_equal(&wanted, &format!("{name}.ptyd"));
        assert!(desk.names(&format!("{name}.ptyd.lock")).is_empty(), "the lock is left");
        let check = desk.run(&format!("inspect --checksums {name}.ptyd"));
        check.must(0, &[]);
        assert!(check.out.contains("as written: "), "{}", check.out);
        let (here, there) = (
            desk.report(&format!("{wanted}.report.json")),
            desk.report(&format!("{name}.ptyd.report.json")),
        );
        // The same of one process and of many.
        for key in ["format", "state", "lost", "invalid_pixels", "origins"] {
            assert_eq!(here[key], there[key], "{key}");
        }
        assert_eq!(there["frames"]["written"], 100);
        assert_eq!(there["workers"].as_array().map(Vec::len), Some(workers), "{there}");
        assert_eq!(here["frames"]["written"], 100);
        assert!(there["started"].is_string(), "the producer has told its part: {there}");
    }
}

#[test]
fn workers_join_late_and_leave_early() {
    let desk = Desk::new();
    long(&desk, "a");
    desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
    let (producer, mut first, sink) = desk.roles("a", &["early"]);
    desk.wait_for("a.ptyd.part000");
    let (killed, late) = (desk.worker("killed"), desk.worker("late"));
    desk.wait_for("a.ptyd.part006");
    let early = first.remove(0);
    early.signal("TERM");
    // A worker that is asked to leave finishes what it holds: nothing went wrong.
    early.end().must(0, &[]);
    desk.wait_for("a.ptyd.part012");
    killed.signal("KILL");
    killed.end();
    for role in [producer, sink, late] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    let report = desk.report("a.json");
    for worker in ["early", "killed", "late"] {
        assert!(frames_of(&report, worker) > 0, "{worker} did nothing: {report:#}");
    }
    assert_eq!(report["frames"]["expected"], LONG.0);
}

#[test]
fn roles_start_in_any_order() {
    let desk = Desk::new();
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    desk.moonflower("a", 40, "shape = 32\nauto_center = true\nsave = 'append'", "");
    desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
    for (i, order) in ["swp", "wsp", "wps", "spw", "psw"].into_iter().enumerate() {
        let dfile = format!("a{i}.ptyd");
        let roles = order.chars().map(|role| {
            let (name, line) = match role {
                'p' => (
                    "producer",
                    format!("producer a.toml --quiet --bind {p} --set data.dfile={dfile}"),
                ),
                's' => ("sink", format!("sink --producer {p} --bind {s}")),
                _ => ("worker", format!("worker --producer {p} --sink {s} --threads 3 --name w")),
            };
            let mut role = desk.start(name, &line);
            if name != "worker" {
                role.address();
            }
            role
        });
        for role in roles.collect::<Vec<_>>() {
            role.end().must(0, &[]);
        }
        desk.assert_equal("run.ptyd", &dfile);
    }
}

#[test]
fn the_threads_of_a_worker_are_workers_of_their_own() {
    let desk = Desk::new();
    desk.moonflower("a", 120, "shape = 128\nsave = 'link'", "compression = 'gzip:9'\nbatch = 1");
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let line = format!("producer a.toml --bind {p} --quiet --report a.json");
    let mut producer = desk.start("producer", &line);
    let line = format!("worker --producer {p} --sink {s} --threads 3 --name many --window 2");
    let worker = desk.start("many", &line);
    producer.wait_joined(3);
    let sink = desk.start("sink", &format!("sink --producer {p} --bind {s}"));
    for role in [producer, sink, worker] {
        role.end().must(0, &[]);
    }
    let report = desk.report("a.json");
    for thread in ["many.0", "many.1", "many.2"] {
        assert!(frames_of(&report, thread) > 0, "{thread} did nothing: {report:#}");
    }
    assert_eq!(frames_of(&report, "many"), 120);
}

#[test]
fn a_peer_that_never_comes_is_named() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "peer_timeout_secs = 1");
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let produce = format!("producer a.toml --quiet --bind {p}");
    let work = format!("worker --producer {p} --sink {s} --peer-timeout");
    let sink = format!("sink --producer {p} --bind {s} --peer-timeout");
    desk.run(&produce).must(4, &["no sink at ipc://", "ptystream sink --producer"]);
    desk.run(&format!("{work} 0.5")).must(4, &["no producer at ipc://", "is it running"]);
    desk.run(&format!("{sink} 0.5")).must(4, &["no producer at ipc://", "is it running"]);
    // Two of three: the one that is there names the one that is not, and tells the other.
    let (a, b) = (desk.start("p", &produce), desk.start("s", &format!("{sink} 60")));
    a.end().must(4, &["no worker at ipc://", "ptystream worker --producer"]);
    b.end().must(4, &["no worker at ipc://"]);
    let (a, b) = (desk.start("p", &produce), desk.start("w", &format!("{work} 60")));
    a.end().must(4, &["no sink at ipc://"]);
    b.end().must(4, &["no sink at ipc://"]);
    assert!(desk.names("a.ptyd").iter().all(|n| n.ends_with(".lock")), "{:?}", desk.names("a."));
}

#[test]
fn a_second_sink_is_refused_and_the_first_goes_on() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "");
    let (mut producer, _, sink) = desk.roles("a", &[]);
    producer.wait_said("sink connected");
    let other = format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("other"));
    desk.run(&other).must(4, &["has a sink already", "end that one"]);
    let worker = desk.worker("w");
    for role in [producer, sink, worker] {
        role.end().must(0, &[]);
    }
}

#[test]
fn an_interrupted_run_goes_on_where_it_stopped() {
    for (signal, code, save) in [("TERM", 143, "link"), ("INT", 130, "append")] {
        let desk = Desk::new();
        desk.moonflower(
            "a",
            LONG.0,
            &LONG.1.replace("link", save),
            &format!("{}\nlive = true\nparts_linger_secs = 0", LONG.2),
        );
        desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
        let role = desk.start("run", "run a.toml");
        desk.wait_for("a.ptyd.part002");
        role.signal(signal);
        let said = role.end();
        said.must(code, &["interrupted by a signal", "the same command goes on"]);
        let state = desk.run("inspect a.ptyd");
        state.must(0, &[]);
        assert!(state.out.contains("state: incomplete: "), "{}", state.out);
        desk.run("run a.toml --quiet --report again.json").must(0, &[]);
        let resumed = desk.report("again.json")["frames"]["resumed"].as_u64();
        assert!(resumed.is_some_and(|n| n >= 21), "{resumed:?} frames were taken over");
        desk.assert_equal("run.ptyd", "a.ptyd");
        assert!(desk.run("inspect a.ptyd").out.contains("state: complete: "));
    }
}

#[test]
fn a_sink_that_was_killed_goes_on_when_it_is_started_again() {
    let desk = Desk::new();
    long(&desk, "a");
    desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
    let (producer, mut workers, sink) = desk.roles("a", &["w"]);
    desk.wait_for("a.ptyd.part004");
    sink.signal("KILL");
    sink.end();
    let line = format!("sink --producer {} --bind {}", desk.ipc("p"), desk.ipc("s"));
    let sink = desk.start("sink", &line);
    for role in [producer, workers.remove(0), sink] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
    assert_eq!(desk.report("a.json")["epoch"], 2);
}

#[test]
fn whoever_ends_tells_the_others_why() {
    for (who, signal) in
        [("producer", "TERM"), ("sink", "TERM"), ("producer", "KILL"), ("sink", "KILL")]
    {
        let desk = Desk::new();
        long(&desk, "a");
        let (p, s) = (desk.ipc("p"), desk.ipc("s"));
        let producer = "producer a.toml --quiet --set pipeline.peer_timeout_secs=4";
        let producer = desk.start("producer", &format!("{producer} --bind {p}"));
        let timeout = "--peer-timeout 4";
        let sink = desk.start("sink", &format!("sink --producer {p} --bind {s} {timeout}"));
        let worker = desk.start("w", &format!("worker --producer {p} --sink {s} {timeout}"));
        desk.wait_for("a.ptyd.part002");
        let (ended, other) = if who == "sink" { (sink, producer) } else { (producer, sink) };
        ended.signal(signal);
        let said = ended.end();
        for role in [other, worker] {
            match signal {
                "KILL" => role.end().must(4, &[&format!("no {who} at ipc://")]),
                _ => role.end().must(7, &[&format!("the {who} was interrupted by a signal")]),
            }
        }
        if signal == "TERM" {
            said.must(143, &["interrupted by a signal"]);
        }
        let state = desk.run("inspect a.ptyd");
        assert!(state.out.contains("state: incomplete: "), "{state:#?}");
    }
}

#[test]
fn a_worker_that_cannot_open_the_source_says_so_to_all() {
    let desk = Desk::new();
    std::fs::create_dir(desk.at("raw")).expect("a folder");
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (16, 16), }";
    let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    npy.extend(format!("{header:<117}\n").bytes());
    npy.extend([1u8; 512]);
    std::fs::write(desk.at("raw/0.npy"), npy).expect("a frame");
    desk.write("raw/positions.txt", "0.npy 1e-6 1e-6\n0.npy 2e-6 1e-6\n");
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let line =
        format!("producer raw --quiet --bind {p} --set data.dfile=a.ptyd --set data.save=link");
    let mut producer = desk.start("producer", &line);
    producer.address();
    std::fs::remove_file(desk.at("raw/positions.txt")).expect("it was there");
    let sink = desk.start("sink", &format!("sink --producer {p} --bind {s}"));
    let worker = desk.worker("blind");
    for role in [producer, sink] {
        role.end().must(3, &["blind cannot prepare this scan", "positions.txt' is missing"]);
    }
    worker.end().must(3, &["positions.txt' is missing"]);
    assert!(!desk.at("a.ptyd").exists());
}

#[test]
fn nobody_waits_for_the_interval_between_masters() {
    let desk = Desk::new();
    // More frames than a horizon has, and less time than the interval.
    let data = "shape = 16\nraw_shape = 20\nsave = 'link'";
    desk.moonflower("a", 1500, data, "batch = 7\npublish_interval_secs = 3600");
    desk.run("run a.toml --quiet").must(0, &[]);
    assert_eq!(desk.report("a.ptyd.report.json")["frames"]["received"], 1500);
    assert_eq!(desk.names("a.ptyd.part").len(), 215);
}
