//! Resident memory of three processes stays within what they announce, however long the scan.
//!
//! 5,000 frames by default; with `PTYSTREAM_LONG=1`, as `make test-long` sets it, 20,000.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

mod support;

use std::time::{Duration, Instant};
use support::{Desk, PATIENCE, Role};

const MIB: u64 = 1 << 20;
/// Program, libraries, threads, buffers of sockets.
const ALLOWED: u64 = 150 * MIB;
const RAW: u64 = 512 * 512 * 2;
const WINDOW: u64 = 8;

/// Returns the process's highest resident memory so far.
fn peak(role: &Role) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", role.id())).ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

fn stays_within(parallel: &str) {
    let frames =
        if std::env::var("PTYSTREAM_LONG").is_ok_and(|v| v == "1") { 20_000 } else { 5_000 };
    let desk = Desk::new();
    let text = format!(
        "[data]\nname = 'moonflower'\nnum_frames = {frames}\nrepeat = 100\nraw_shape = 512\n\
         shape = 256\ndtype = 'uint16'\nauto_center = false\nload_parallel = '{parallel}'\n\
         energy = 6.2\ndistance = 7.0\npsize = 0.000172\ndfile = 'a.ptyd'\nsave = 'link'\n\
         [pipeline]\ncompression = 'bslz4'\nwindow = {WINDOW}\n\
         sink_memory_bytes = {budget}\nproducer_memory_bytes = {budget}\n",
        budget = 64 * MIB
    );
    desk.write("a.toml", &text);
    let (producer, mut workers, sink) = desk.roles("a", &["w"]);
    // The hundred frames that are repeated are the simulation's own, wherever it runs.
    let (here, there) = if parallel == "None" { (100 * RAW, 0) } else { (RAW, 100 * RAW) };
    let mut roles = [
        ("producer", producer, 64 * MIB + here, 0),
        ("worker", workers.remove(0), WINDOW * 2 * RAW + there, 0),
        ("sink", sink, 64 * MIB, 0),
    ];
    let deadline = Instant::now() + 4 * PATIENCE;
    while roles.iter_mut().any(|(_, role, ..)| role.is_running()) {
        for (_, role, _, highest) in &mut roles {
            *highest = peak(role).unwrap_or(0).max(*highest);
        }
        assert!(Instant::now() < deadline, "the scan does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    for (name, role, budget, highest) in roles {
        role.end().must(0, &[]);
        println!("{name}: {} MiB of {} + 150", highest / MIB, budget / MIB);
        assert!(highest > 0, "the {name} was never seen");
        assert!(
            highest < budget + ALLOWED,
            "the {name} had {} MiB, its budget is {} MiB",
            highest / MIB,
            budget / MIB
        );
    }
    let report = desk.report("a.json");
    assert_eq!(
        (&report["frames"]["expected"], &report["frames"]["received"]),
        (&frames.into(), &frames.into())
    );
}

#[test]
fn roles_stay_within_their_budgets_where_the_producer_reads() {
    stays_within("None");
}

#[test]
fn roles_stay_within_their_budgets_where_workers_read() {
    stays_within("data");
}
