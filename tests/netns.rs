//! Two hosts, made of network namespaces, and a cable between them that is pulled out.
//!
//! Skipped where namespaces may not be made. `PTYSTREAM_LONG=1` pulls the cable for 20 s.
#![allow(clippy::print_stdout, reason = "a skipped test says so there")]

mod support;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use support::{Desk, PATIENCE, Role};

/// After this silence a role takes another for dead.
const DEAD_AFTER: f64 = 1.0;
const HERE: &str = "10.231.7.1";
const THERE: &str = "10.231.7.2";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Two namespaces; removed when dropped.
struct Hosts {
    here: String,
    there: String,
}

fn ip(line: &str) -> Result<(), String> {
    let done = Command::new("ip").args(line.split_whitespace()).stdin(Stdio::null()).output();
    let done = done.map_err(|e| format!("ip: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("ip {line}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

impl Hosts {
    fn new() -> Result<Self, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |host: &str| format!("ptys{}{host}{number}", std::process::id());
        let hosts = Self { here: name("a"), there: name("b") };
        let (a, b) = (&hosts.here, &hosts.there);
        ip(&format!("netns add {a}"))?;
        ip(&format!("netns add {b}"))?;
        ip(&format!("-n {a} link add cable type veth peer name cable netns {b}"))?;
        for (host, address) in [(a, HERE), (b, THERE)] {
            ip(&format!("-n {host} addr add {address}/30 dev cable"))?;
            ip(&format!("-n {host} link set lo up"))?;
            ip(&format!("-n {host} link set cable up"))?;
        }
        Ok(hosts)
    }

    fn pull(&self) {
        ip(&format!("-n {} link set cable down", self.here)).expect("the cable comes out");
    }

    fn plug(&self) {
        ip(&format!("-n {} link set cable up", self.here)).expect("the cable goes in");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in [&self.here, &self.there] {
            // There may be none if it could not be made.
            let _ = ip(&format!("netns del {host}"));
        }
    }
}

/// Makes the two hosts, or says why not.
fn hosts() -> Option<Hosts> {
    Hosts::new().map_err(|why| println!("skipped: no network namespaces here: {why}")).ok()
}

/// Returns the flag by which roles notice silence, or says that they do not.
fn dead_after(desk: &Desk) -> Option<String> {
    if desk.run("worker --help").out.contains("--dead-after") {
        return Some(format!(" --dead-after {DEAD_AFTER}"));
    }
    println!("skipped: the roles have no --dead-after, so they do not notice a cut");
    None
}

fn long() -> bool {
    std::env::var_os("PTYSTREAM_LONG").is_some()
}

/// Time for which the cable is out: longer than the roles wait.
fn cut() -> Duration {
    if long() { Duration::from_secs(20) } else { Duration::from_secs_f64(3.0 * DEAD_AFTER) }
}

/// Chunks that are visible.
fn chunks(desk: &Desk) -> usize {
    desk.names("a.ptyd.part").len()
}

fn wait_for_chunks(desk: &Desk, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while chunks(desk) < count {
        assert!(Instant::now() < deadline, "chunk {count} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

struct Scan<'a> {
    desk: &'a Desk,
    hosts: &'a Hosts,
    flags: String,
    sink: &'static str,
}

impl<'a> Scan<'a> {
    /// Writes a scan that lasts, and what an undisturbed run makes of it.
    fn new(
        desk: &'a Desk,
        hosts: &'a Hosts,
        frames: u32,
        flags: String,
        sink: &'static str,
    ) -> Self {
        let slow = "compression = 'gzip:9'\nbatch = 1\npeer_timeout_secs = 60";
        desk.moonflower("a", frames, "shape = 256\nsave = 'link'\nrate = 100", slow);
        desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
        Self { desk, hosts, flags, sink }
    }

    fn start(&self, host: &str, name: &str, line: &str) -> Role {
        let by = ["ip", "netns", "exec", host];
        self.desk.start_within(&by, name, &format!("{line}{}", self.flags))
    }

    fn producer(&self, more: &str) -> Role {
        let line = format!("producer a.toml --quiet --bind tcp://{HERE}:5710{more}");
        self.start(&self.hosts.here, "producer", &line)
    }

    fn sink(&self, host: &str) -> Role {
        let sink = self.sink;
        let line = format!("sink --producer tcp://{HERE}:5710 --bind tcp://{sink}:5711");
        self.start(host, "sink", &line)
    }

    fn worker(&self, host: &str, name: &str) -> Role {
        let sink = self.sink;
        let line =
            format!("worker --producer tcp://{HERE}:5710 --sink tcp://{sink}:5711 --name {name}");
        self.start(host, name, &line)
    }

    fn end(&self, roles: Vec<Role>) {
        for role in roles {
            role.end().must(0, &[]);
        }
        self.desk.assert_equal("run.ptyd", "a.ptyd");
    }
}

#[test]
fn a_short_cut_is_healed_by_tcp_alone() {
    let Some(hosts) = hosts() else { return };
    let desk = Desk::new();
    let scan = Scan::new(&desk, &hosts, 120, String::new(), THERE);
    let mut producer = scan.producer("");
    let (near, far) = (scan.worker(&hosts.here, "near"), scan.worker(&hosts.there, "far"));
    producer.wait_joined(2);
    let sink = scan.sink(&hosts.there);
    wait_for_chunks(&desk, 2);
    hosts.pull();
    std::thread::sleep(Duration::from_millis(400));
    hosts.plug();
    scan.end(vec![producer, sink, near, far]);
}

#[test]
fn a_worker_that_is_cut_off_is_replaced_and_comes_back() {
    let Some(hosts) = hosts() else { return };
    let desk = Desk::new();
    let Some(flag) = dead_after(&desk) else { return };
    // A hundred frames a second: the scan lasts longer than the cut, however fast the worker is.
    let scan = Scan::new(&desk, &hosts, if long() { 3000 } else { 700 }, flag, HERE);
    let mut producer = scan.producer(" --set data.live=true");
    let near = scan.worker(&hosts.here, "near");
    let mut far = scan.worker(&hosts.there, "far");
    producer.wait_joined(2);
    let sink = scan.sink(&hosts.here);
    wait_for_chunks(&desk, 2);
    hosts.pull();
    let pulled = Instant::now();
    producer.wait_said("connection is lost worker=\"far\"");
    // Nothing waits for the one that is away.
    let then = chunks(&desk);
    wait_for_chunks(&desk, then + 3);
    std::thread::sleep(cut().saturating_sub(pulled.elapsed()));
    hosts.plug();
    far.wait_said("the producer is gone");
    scan.end(vec![producer, sink, near, far]);
}

#[test]
fn a_sink_that_is_cut_off_comes_back_and_goes_on() {
    let Some(hosts) = hosts() else { return };
    let desk = Desk::new();
    let Some(flag) = dead_after(&desk) else { return };
    let scan = Scan::new(&desk, &hosts, 200, flag, THERE);
    let mut producer = scan.producer("");
    let sink = scan.sink(&hosts.there);
    let near = scan.worker(&hosts.here, "near");
    wait_for_chunks(&desk, 2);
    hosts.pull();
    let pulled = Instant::now();
    producer.wait_said("the sink's connection is lost");
    std::thread::sleep(cut().saturating_sub(pulled.elapsed()));
    hosts.plug();
    scan.end(vec![producer, sink, near]);
}
