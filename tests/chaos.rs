//! Scans under faults: a handful of seeds, and what long campaigns have found.

mod support;

use ptystream::chaos::actor::{Actor, Ended};
use ptystream::chaos::plan;
use ptystream_common::index::IndexSet;
use ptystream_common::link::{HubEvent, Spoke, SpokeEvent, for_address};
use ptystream_common::message::{Body, Message, Role, SinkReport, Stamp};
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Desk, PATIENCE};

/// Runs seeds, prints a line each, and fails unless all went well.
#[allow(clippy::print_stdout, reason = "a seed that is printed can be repeated")]
fn seeds(first: u64, count: u64) {
    let desk = Desk::new();
    let said =
        desk.run(&format!("chaos --first-seed {first} --seeds {count} --jobs 4 --folder seeds"));
    print!("{}", said.out);
    said.must(0, &[]);
    let last = format!("{count} seeds: {count} well, 0 failed");
    assert!(said.out.ends_with(&format!("{last}\n")), "{said:#?}");
}

#[test]
fn scans_under_faults_leave_what_undisturbed_ones_do() {
    seeds(0, 50);
}

#[test]
fn bits_that_flip_on_their_way_are_found_and_the_pixels_sent_again() {
    let desk = Desk::new();
    let said = desk.run("chaos --first-seed 500 --seeds 8 --faults flip --keep --folder seeds");
    said.must(0, &[]);
    let damaged: u64 = (500..508)
        .map(|seed| {
            let report = desk.report(&format!("seeds/seed-{seed}/out/scan.ptyd.report.json"));
            report["dispatch"]["damaged"].as_u64().expect("a number")
        })
        .sum();
    assert!(damaged >= 4, "{damaged} tickets were damaged");
}

#[test]
fn a_difference_is_found_and_everything_about_it_kept() {
    let desk = Desk::new();
    // No schedule of any fault could bring about what is no such file.
    let said = desk.run("chaos --seeds 1 --faults nonsense");
    said.must(2, &["'nonsense' is no fault", "kill, term"]);
    desk.write("blocked", "");
    desk.run("chaos --seeds 1 --faults kill --folder blocked").must(6, &["blocked"]);
}

fn hello(address: &str, name: &str) -> Spoke {
    let spoke = for_address(address).and_then(|l| l.spoke(address)).expect("a spoke");
    match spoke.events.recv_timeout(PATIENCE) {
        Ok(SpokeEvent::Connected) => {}
        other => panic!("not connected: {other:?}"),
    }
    let body = Body::Hello { role: Role::Sink, name: name.to_owned(), attempt: 0 };
    assert!(spoke.tx.send(Message::new(Stamp::default(), body)));
    spoke
}

fn answer(spoke: &Spoke) -> Body {
    loop {
        match spoke.events.recv_timeout(PATIENCE).expect("an answer") {
            SpokeEvent::Message(message) => return message.header.body,
            SpokeEvent::Connected => {}
            other => panic!("no message: {other:?}"),
        }
    }
}

#[test]
fn a_sink_that_connects_anew_takes_the_place_of_its_own_connection_only() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "");
    let p = desk.ipc("p");
    let mut producer = desk.start("producer", &format!("producer a.toml --quiet --bind {p}"));
    producer.address();
    let first = hello(&p, "host:1");
    assert!(matches!(answer(&first), Body::Announce(_)));
    // The first connection stands still: as when its end has not been noticed yet.
    let again = hello(&p, "host:1");
    assert!(matches!(answer(&again), Body::Announce(_)));
    let other = hello(&p, "host:2");
    match answer(&other) {
        Body::Refused(failure) => assert!(failure.text.contains("has a sink already"), "{failure}"),
        body => panic!("{body:?}"),
    }
    producer.signal("TERM");
    producer.end().must(143, &["interrupted by a signal"]);
    for spoke in [first, again, other] {
        spoke.tx.close();
    }
}

#[test]
fn a_worker_with_a_result_that_no_sink_takes_leaves_at_the_end_of_the_scan() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "");
    let (p, s) = (desk.ipc("p"), desk.ipc("s"));
    let mut producer = desk.start("producer", &format!("producer a.toml --quiet --bind {p}"));
    producer.address();
    let hub = for_address(&s).and_then(|l| l.hub(&s)).expect("a hub");
    let sink = hello(&p, "host:1");
    assert!(matches!(answer(&sink), Body::Announce(_)));
    let stamp = Stamp { run_id: 1, epoch: 1 };
    let opened = Body::Opened { horizon: 100, durable: IndexSet::new() };
    assert!(sink.tx.send(Message::new(stamp, opened)));
    let line = format!("worker --producer {p} --sink {s} --peer-timeout 20");
    let worker = desk.start("worker", &line);
    loop {
        // The scan's weight comes with the plan; tickets are right behind it.
        match hub.events.recv_timeout(PATIENCE).expect("something from the worker") {
            HubEvent::Message(_, m) if matches!(m.header.body, Body::CommonWeights { .. }) => break,
            _ => {}
        }
    }
    std::thread::sleep(Duration::from_millis(500));
    let finished = Body::Finished(Box::<SinkReport>::default());
    assert!(sink.tx.send(Message::new(stamp, finished)));
    worker.end().must(0, &[]);
    producer.end().must(0, &[]);
    sink.tx.close();
    hub.tx.close();
}

#[test]
fn a_sink_that_leaves_before_the_file_is_finished_is_missed_though_all_is_on_disk() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "");
    let p = desk.ipc("p");
    let line = format!("producer a.toml --quiet --bind {p} --set pipeline.peer_timeout_secs=2");
    let mut producer = desk.start("producer", &line);
    producer.address();
    let sink = hello(&p, "host:1");
    assert!(matches!(answer(&sink), Body::Announce(_)));
    let stamp = Stamp { run_id: 1, epoch: 1 };
    let mut durable = IndexSet::new();
    durable.insert(0, 20);
    assert!(sink.tx.send(Message::new(stamp, Body::Opened { horizon: 100, durable })));
    // Longer than a role may be missing: no worker has anything to do.
    std::thread::sleep(Duration::from_secs(3));
    assert!(producer.is_running(), "{}", producer.said());
    sink.tx.close();
    producer.end().must(4, &["every frame is on disk", "the same commands", "no sink at"]);
}

// Not beside the tests of the library: a child that is made there inherits their files, and HDF5's
// locks with them.
fn shell(folder: &Path, script: &str) -> Actor {
    let words = vec!["-c".to_owned(), script.to_owned()];
    Actor::new(plan::Role::Sink, Path::new("/bin/sh"), words, folder)
}

fn end_of(actor: &mut Actor) -> Ended {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(ended) = actor.reap().expect("the system") {
            return ended;
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn only_ends_that_somebody_asked_for_are_fine() {
    let folder = tempfile::tempdir().expect("the system");
    let mut killed = shell(folder.path(), "sleep 600");
    killed.start().expect("the system");
    killed.stop(Duration::from_secs(600));
    killed.strike(libc::SIGKILL, Duration::ZERO);
    let ended = end_of(&mut killed);
    assert_eq!(killed.judge(ended, false, false), Ok(()));
    killed.start().expect("the system");
    killed.signal(libc::SIGKILL);
    let ended = end_of(&mut killed);
    assert!(killed.judge(ended, false, false).is_err_and(|e| e.contains("signal 9")));
    for (script, told, full, fine) in [
        ("exit 0", false, false, true),
        ("exit 7", true, false, true),
        ("exit 7", false, false, false),
        ("exit 143", true, false, false),
        ("echo it has a sink already; exit 4", false, false, true),
        ("echo no producer; exit 4", false, false, false),
        ("echo its disk is full; exit 6", false, true, true),
        ("echo its disk is full; exit 6", false, false, false),
        ("echo the disk fails; exit 6", false, true, false),
        ("exit 101", true, false, false),
    ] {
        let mut actor = shell(folder.path(), script);
        actor.start().expect("the system");
        let ended = end_of(&mut actor);
        assert_eq!(actor.judge(ended, told, full).is_ok(), fine, "{script}");
    }
}
