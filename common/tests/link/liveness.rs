//! Peers that hang and networks that swallow: noticed on both ends, and mended.

use crate::proxy::{Proxy, Way};
use crate::zmq::{dealer_by_hand, greeting, read_until};
use crate::{SOON, connected, gone, heard, hello, lost, noise, place, prepared, told, want};
use ptystream_common::link::{Hub, HubEvent, Link, PeerId, Spoke, SpokeEvent, Zmq};
use ptystream_common::message::{Body, Message, Stamp};
use ptystream_common::wire;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Silence that means death, where death is what a test is about.
const SHORT: Duration = Duration::from_millis(300);
/// Silence that means death, where a test is about staying alive.
const LONG: Duration = Duration::from_secs(300);

/// Address and role of this program as a child of [`start`].
const ROLE: &str = "PTYSTREAM_TEST_LIVENESS";

fn hub(address: &str, dead_after: Duration) -> Hub {
    Zmq::new(dead_after).hub(address).unwrap()
}

fn spoke(address: &str, dead_after: Duration) -> Spoke {
    Zmq::new(dead_after).spoke(address).unwrap()
}

/// Talks until both ends have heard a beat: it travels before the second message of each.
fn meet(hub: &Hub, spoke: &Spoke) -> PeerId {
    connected(spoke);
    assert!(spoke.tx.send(hello("worker")));
    let (id, message) = heard(&hub.events);
    assert_eq!(message, hello("worker"));
    for round in 0..2 {
        assert!(spoke.tx.send(want(round)));
        assert_eq!(heard(&hub.events), (id, want(round)));
        assert!(hub.tx.send(id, want(round)));
        assert_eq!(told(spoke), want(round));
    }
    id
}

/// Runs [`child_process`] in a process of its own.
struct Other(Child);

impl Other {
    fn start(role: &str, address: &str, dead_after: Duration) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "liveness::child_process", "--nocapture"])
            .env(ROLE, format!("{role} {} {address}", dead_after.as_millis()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).unwrap();
        // SAFETY: the child has not been waited for, so its number is still its own.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // A failed test leaves it running or stopped.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Greets, and echoes what it is told.
#[test]
fn child_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut words = role.split(' ');
    let role = words.next().unwrap();
    let dead_after = Duration::from_millis(words.next().unwrap().parse().unwrap());
    let address = words.next().unwrap();
    if role == "hub" {
        let hub = hub(address, dead_after);
        loop {
            if let HubEvent::Message(peer, message) = hub.events.recv().unwrap() {
                hub.tx.send(peer, message);
            }
        }
    }
    let spoke = spoke(address, dead_after);
    loop {
        match spoke.events.recv().unwrap() {
            SpokeEvent::Connected => drop(spoke.tx.send(hello("child"))),
            SpokeEvent::Message(message) => drop(spoke.tx.send(message)),
            _ => {}
        }
    }
}

#[test]
fn a_network_that_swallows_is_noticed_on_both_ends_and_mended() {
    for ways in [&[Way::ToHub, Way::ToSpoke][..], &[Way::ToHub], &[Way::ToSpoke]] {
        let hub = hub("tcp://127.0.0.1:0", SHORT);
        let proxy = Proxy::new(&hub.address);
        let spoke = spoke(&proxy.address, SHORT);
        let first = meet(&hub, &spoke);
        ways.iter().for_each(|way| proxy.hold(*way, true));
        if let [Way::ToHub, ..] = ways {
            assert!(spoke.tx.send(want(99)), "nobody knows yet");
        }
        assert_eq!(gone(&hub.events), first, "{ways:?}");
        lost(&spoke);
        assert!(!hub.tx.send(first, want(1)) && !spoke.tx.send(want(1)), "{ways:?}");
        ways.iter().for_each(|way| proxy.hold(*way, false));
        // What was held back, and came after the death, is not heard.
        let second = meet(&hub, &spoke);
        assert_ne!(second, first);
        assert!(hub.events.is_empty() && spoke.events.is_empty(), "{ways:?}");
    }
}

#[test]
fn a_peer_that_was_stopped_comes_back_as_a_new_one() {
    for scheme in ["tcp", "ipc"] {
        let place = place(scheme);
        let hub = hub(&place.bind, SHORT);
        let child = Other::start("spoke", &hub.address, SHORT);
        let echo = |id| {
            for i in 0..3 {
                assert!(hub.tx.send(id, want(i)));
                assert_eq!(heard(&hub.events), (id, want(i)));
            }
        };
        let (mut id, message) = heard(&hub.events);
        assert_eq!(message, hello("child"));
        for _ in 0..2 {
            echo(id);
            child.stop();
            assert_eq!(gone(&hub.events), id);
            assert!(!hub.tx.send(id, want(9)));
            child.go_on();
            let (fresh, message) = heard(&hub.events);
            assert_eq!(message, hello("child"));
            assert_ne!(fresh, id);
            id = fresh;
        }
        echo(id);
        assert!(hub.events.is_empty());
    }
}

#[test]
fn a_hub_that_was_stopped_is_found_again() {
    for scheme in ["tcp", "ipc"] {
        let place = place(scheme);
        let address = crate::free_address(&place);
        let child = Other::start("hub", &address, SHORT);
        let spokes = [spoke(&address, SHORT), spoke(&address, SHORT)];
        let echo = || {
            for spoke in &spokes {
                connected(spoke);
                for i in 0..3 {
                    assert!(spoke.tx.send(want(i)));
                    assert_eq!(told(spoke), want(i));
                }
            }
        };
        echo();
        for _ in 0..2 {
            child.stop();
            spokes.iter().for_each(lost);
            child.go_on();
            echo();
        }
        assert!(spokes.iter().all(|spoke| spoke.events.is_empty()));
    }
}

#[test]
fn a_stopped_peer_does_not_hold_up_others() {
    let hub = hub("tcp://127.0.0.1:0", LONG);
    let child = Other::start("spoke", &hub.address, LONG);
    let (stopped, _) = heard(&hub.events);
    child.stop();
    let payload = noise(8 << 20, 3);
    for i in 0..8 {
        assert!(hub.tx.send(stopped, prepared(i, payload.clone())));
    }
    let other = spoke(&hub.address, LONG);
    let id = meet(&hub, &other);
    for i in 0..50 {
        assert!(hub.tx.send(id, prepared(i, payload.slice(..1 << 20))));
        assert!(told(&other) == prepared(i, payload.slice(..1 << 20)));
    }
    assert!(hub.events.is_empty());
    child.go_on();
    for i in 0..8 {
        assert!(heard(&hub.events) == (stopped, prepared(i, payload.clone())), "{i}");
    }
}

#[test]
fn an_idle_connection_stays_up_and_shows_no_beats() {
    for scheme in ["tcp", "ipc"] {
        let place = place(scheme);
        let hub = hub(&place.bind, SHORT);
        let spoke = spoke(&hub.address, SHORT);
        let silent = crate::liveness::spoke(&hub.address, SHORT);
        connected(&silent);
        let id = meet(&hub, &spoke);
        std::thread::sleep(5 * SHORT);
        assert!(hub.events.is_empty() && spoke.events.is_empty() && silent.events.is_empty());
        assert!(spoke.tx.send(want(7)));
        assert_eq!(heard(&hub.events), (id, want(7)));
        assert!(silent.tx.send(hello("late")));
        assert_eq!(heard(&hub.events).1, hello("late"));
    }
}

/// Returns a message without payload as one frame of ZMTP.
fn framed(message: &Message) -> Vec<u8> {
    let [head] = &wire::encode(message).unwrap()[..] else { panic!("it has payload") };
    let mut frame = vec![0, u8::try_from(head.len()).unwrap()];
    frame.extend_from_slice(head);
    frame
}

#[test]
fn a_peer_that_never_beats_is_left_alone() {
    let hub = hub("tcp://127.0.0.1:0", SHORT);
    let mut foreign = dealer_by_hand(&hub.address);
    foreign.write_all(&framed(&hello("foreign"))).unwrap();
    let (id, _) = heard(&hub.events);
    // A third beat more than its silence may last, were it watched.
    for _ in 0..15 {
        read_until(&mut foreign, b"every_ms");
    }
    assert!(hub.events.is_empty());
    foreign.write_all(&framed(&want(3))).unwrap();
    assert_eq!(heard(&hub.events), (id, want(3)));

    // The same peer, once it has sent a beat, is missed.
    let beat = Message::new(Stamp::default(), Body::Beat { every_ms: 10 });
    foreign.write_all(&framed(&beat)).unwrap();
    read_until(&mut foreign, b"reset");
    assert_eq!(gone(&hub.events), id);
}

#[test]
fn a_reset_makes_a_spoke_connect_anew() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let spoke = spoke(&format!("tcp://{}", listener.local_addr().unwrap()), LONG);
    let accept = || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&greeting("ROUTER")).unwrap();
        read_until(&mut stream, b"DEALER");
        stream
    };
    let mut first = accept();
    connected(&spoke);
    first.write_all(&framed(&Message::new(Stamp::default(), Body::Reset))).unwrap();
    lost(&spoke);
    let mut second = accept();
    connected(&spoke);
    assert!(spoke.tx.send(hello("again")));
    read_until(&mut second, b"again");
    assert!(spoke.events.is_empty());
}

#[test]
fn a_spoke_with_much_to_say_gives_up_a_hub_that_hangs() {
    let place = place("tcp");
    let address = crate::free_address(&place);
    let child = Other::start("hub", &address, SHORT);
    let spoke = spoke(&address, SHORT);
    connected(&spoke);
    for i in 0..2 {
        assert!(spoke.tx.send(want(i)));
        assert_eq!(told(&spoke), want(i));
    }
    let payload = noise(4 << 20, 1);
    child.stop();
    for i in 0..8 {
        // It may have been given up already, if this machine is very busy.
        spoke.tx.send(prepared(i, payload.clone()));
    }
    lost(&spoke);
    let begun = Instant::now();
    while !payload.is_unique() {
        assert!(begun.elapsed() < SOON, "what was queued for it is still held");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_breaks_a_connection_that_takes_nothing() {
    let hub = hub("tcp://127.0.0.1:0", Duration::from_millis(100));
    let mut foreign = dealer_by_hand(&hub.address);
    foreign.write_all(&framed(&hello("foreign"))).unwrap();
    let (id, _) = heard(&hub.events);
    let payload = noise(1 << 20, 3);
    for i in 0..64 {
        assert!(hub.tx.send(id, prepared(i, payload.clone())));
    }
    assert_eq!(gone(&hub.events), id);
    drop(hub);
    let begun = Instant::now();
    while !payload.is_unique() {
        assert!(begun.elapsed() < SOON, "what was queued for it is still held");
        std::thread::sleep(Duration::from_millis(5));
    }
}
