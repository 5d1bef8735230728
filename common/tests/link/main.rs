//! What every link promises, shown for each of them.

#![allow(clippy::unwrap_used)]

mod liveness;
mod proxy;
mod python;
mod zmq;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use ptystream_common::index::IndexRange;
use ptystream_common::link::{Hub, HubEvent, PeerId, Spoke, SpokeEvent, for_address};
use ptystream_common::message::{Body, Message, Prepared, Role, Stamp};
use std::collections::BTreeSet;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Where to bind; removed with its folder.
struct Place {
    bind: String,
    _dir: Option<tempfile::TempDir>,
}

fn place(scheme: &str) -> Place {
    match scheme {
        "inproc" => Place { bind: "inproc://*".into(), _dir: None },
        "tcp" => Place { bind: "tcp://127.0.0.1:0".into(), _dir: None },
        #[cfg(feature = "mpi")]
        "mpi" => Place { bind: format!("mpi://{}", world()), _dir: None },
        _ => {
            let dir = tempfile::tempdir().unwrap();
            Place { bind: format!("ipc://{}/hub.sock", dir.path().display()), _dir: Some(dir) }
        }
    }
}

/// Joins the world of this process alone, once; returns a name for a hub that is free.
#[cfg(feature = "mpi")]
fn world() -> String {
    use ptystream_common::link::mpi::{Duty, World};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};
    static WORLD: OnceLock<World> = OnceLock::new();
    static NAMES: AtomicU32 = AtomicU32::new(0);
    let world = WORLD.get_or_init(|| {
        World::join(|_| Duty::Master, ptystream_common::shutdown::Shutdown::new()).unwrap()
    });
    format!("{}/{}", world.rank(), NAMES.fetch_add(1, Ordering::Relaxed))
}

/// An address that is free, for a spoke that comes before its hub.
fn free_address(place: &Place) -> String {
    let hub = hub(&place.bind);
    hub.tx.close();
    hub.address.clone()
}

fn hub(address: &str) -> Hub {
    for_address(address).unwrap().hub(address).unwrap()
}

fn spoke(address: &str) -> Spoke {
    for_address(address).unwrap().spoke(address).unwrap()
}

fn want(tickets: u32) -> Message {
    Message::new(Stamp { run_id: 7, epoch: 1 }, Body::Want { tickets })
}

fn hello(name: &str) -> Message {
    Message::new(
        Stamp::default(),
        Body::Hello { role: Role::Worker, name: name.into(), attempt: 0 },
    )
}

fn prepared(first: u64, payload: Bytes) -> Message {
    let prepared = Prepared {
        range: IndexRange::new(first, 1),
        positions: Some(vec![[0.5, -0.25]]),
        max_valid: None,
        invalid: None,
        scalars: None,
        checksums: None,
        load_us: 1,
        prepare_us: 2,
    };
    Message::with_parts(Stamp::default(), Body::Prepared(prepared), vec![payload])
}

fn noise(bytes: usize, seed: u64) -> Bytes {
    let mut x = seed | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(step).collect::<Vec<_>>().into()
}

fn heard(events: &Receiver<HubEvent>) -> (PeerId, Message) {
    match events.recv_timeout(SOON).unwrap() {
        HubEvent::Message(peer, message) => (peer, message),
        other => panic!("expected a message, got {other:?}"),
    }
}

fn gone(events: &Receiver<HubEvent>) -> PeerId {
    match events.recv_timeout(SOON).unwrap() {
        HubEvent::Gone(peer) => peer,
        other => panic!("expected that a peer is gone, got {other:?}"),
    }
}

fn connected(spoke: &Spoke) {
    let event = spoke.events.recv_timeout(SOON).unwrap();
    assert!(matches!(event, SpokeEvent::Connected), "{event:?}");
}

fn lost(spoke: &Spoke) {
    let event = spoke.events.recv_timeout(SOON).unwrap();
    assert!(matches!(event, SpokeEvent::Gone), "{event:?}");
}

fn told(spoke: &Spoke) -> Message {
    match spoke.events.recv_timeout(SOON).unwrap() {
        SpokeEvent::Message(message) => message,
        other => panic!("expected a message, got {other:?}"),
    }
}

fn talks_both_ways(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let spoke = spoke(&hub.address);
    connected(&spoke);
    assert!(spoke.tx.send(prepared(3, noise(1000, 1))));
    let (peer, message) = heard(&hub.events);
    assert_eq!(message, prepared(3, noise(1000, 1)));
    assert!(hub.tx.send(peer, want(5)));
    assert_eq!(told(&spoke), want(5));
    assert!(!hub.tx.send(PeerId(u64::MAX), want(5)), "nobody of that name");
}

fn keeps_three_peers_apart(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let spokes: Vec<_> = (0..3).map(|_| spoke(&hub.address)).collect();
    for (i, spoke) in (0..).zip(&spokes) {
        connected(spoke);
        assert!(spoke.tx.send(want(i)));
    }
    let mut peers = BTreeSet::new();
    for _ in 0..3 {
        let (peer, message) = heard(&hub.events);
        peers.insert(peer);
        let Body::Want { tickets } = message.header.body else { panic!("{message:?}") };
        assert!(hub.tx.send(peer, want(100 + tickets)));
    }
    assert_eq!(peers.len(), 3);
    for (i, spoke) in (0..).zip(&spokes) {
        assert_eq!(told(spoke), want(100 + i));
    }
}

fn waits_for_a_late_hub(scheme: &str) {
    let place = place(scheme);
    let address = free_address(&place);
    let spoke = spoke(&address);
    assert!(!spoke.tx.send(want(1)), "there is nobody yet");
    std::thread::sleep(Duration::from_millis(150));
    assert!(spoke.events.is_empty());
    let hub = hub(&address);
    connected(&spoke);
    assert!(spoke.tx.send(want(2)));
    assert_eq!(heard(&hub.events).1, want(2), "what was not sent does not come");
}

fn finds_a_hub_again(scheme: &str) {
    let place = place(scheme);
    let first = hub(&place.bind);
    let spokes = [spoke(&first.address), spoke(&first.address)];
    for spoke in &spokes {
        connected(spoke);
        assert!(spoke.tx.send(hello("first")));
        heard(&first.events);
    }
    first.tx.close();
    for spoke in &spokes {
        lost(spoke);
        assert!(!spoke.tx.send(want(1)), "the connection is gone");
    }
    let second = hub(&first.address);
    for spoke in &spokes {
        connected(spoke);
        assert!(spoke.tx.send(hello("second")));
        let (peer, message) = heard(&second.events);
        assert_eq!(message, hello("second"));
        assert!(second.tx.send(peer, want(3)));
        assert_eq!(told(spoke), want(3));
    }
    assert!(first.events.is_empty() || matches!(first.events.recv(), Ok(HubEvent::Gone(_))));
}

fn tells_of_peers_that_leave(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let silent = spoke(&hub.address);
    connected(&silent);
    silent.tx.close();
    let staying = spoke(&hub.address);
    let leaving = spoke(&hub.address);
    let dropped = spoke(&hub.address);
    for spoke in [&staying, &leaving, &dropped] {
        connected(spoke);
        assert!(spoke.tx.send(hello("worker")));
    }
    let (mut peers, mut left) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..3 {
        peers.insert(heard(&hub.events).0);
    }
    for i in 0..50 {
        assert!(leaving.tx.send(want(i)));
    }
    leaving.tx.close();
    assert!(!leaving.tx.send(want(99)));
    for i in 0..50 {
        assert_eq!(heard(&hub.events).1, want(i), "Gone comes last");
    }
    left.insert(gone(&hub.events));
    drop(dropped);
    left.insert(gone(&hub.events));
    assert_eq!(left.len(), 2);
    for peer in left {
        assert!(!hub.tx.send(peer, want(1)));
    }
    assert!(staying.tx.send(want(7)));
    let (peer, message) = heard(&hub.events);
    assert_eq!(message, want(7));
    assert!(peers.contains(&peer) && hub.events.is_empty());
    assert!(hub.tx.send(peer, want(8)));
    assert_eq!(told(&staying), want(8));
}

fn carries_a_big_payload(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let spoke = spoke(&hub.address);
    connected(&spoke);
    let payload = noise(32 << 20, 5);
    assert!(spoke.tx.send(prepared(9, payload.clone())));
    let (peer, message) = heard(&hub.events);
    assert!(message.parts[0] == payload, "32 MiB arrive as they were");
    assert!(hub.tx.send(peer, message));
    assert!(told(&spoke).parts[0] == payload, "and come back");
}

fn keeps_the_order(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let spoke = spoke(&hub.address);
    connected(&spoke);
    std::thread::scope(|scope| {
        scope.spawn(|| (0..10_000).for_each(|i| assert!(spoke.tx.send(want(i)))));
        scope.spawn(|| {
            for i in 0..10_000 {
                let (peer, message) = heard(&hub.events);
                assert_eq!(message, want(i));
                assert!(hub.tx.send(peer, message));
            }
        });
        for i in 0..10_000 {
            assert_eq!(told(&spoke), want(i));
        }
    });
}

fn flushes_when_it_closes(scheme: &str) {
    let place = place(scheme);
    let payload = noise(1 << 20, 3);

    let first = hub(&place.bind);
    let sender = spoke(&first.address);
    connected(&sender);
    for i in 0..100 {
        assert!(sender.tx.send(prepared(i, payload.clone())));
    }
    sender.tx.close();
    for i in 0..100 {
        assert!(heard(&first.events).1 == prepared(i, payload.clone()), "message {i} of a spoke");
    }
    gone(&first.events);

    let reader = spoke(&first.address);
    connected(&reader);
    assert!(reader.tx.send(hello("reader")));
    let (peer, _) = heard(&first.events);
    for i in 0..100 {
        assert!(first.tx.send(peer, prepared(i, payload.clone())));
    }
    first.tx.close();
    for i in 0..100 {
        assert!(told(&reader) == prepared(i, payload.clone()), "message {i} of a hub");
    }
    lost(&reader);
    assert!(!first.tx.send(peer, want(1)));
}

fn ends_its_events_when_it_closes(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let near = spoke(&hub.address);
    connected(&near);
    near.tx.close();
    near.tx.close();
    assert!(near.events.recv_timeout(SOON).is_err());
    assert!(near.events.recv().is_err(), "no event can come any more");
    hub.tx.close();
    assert!(hub.events.recv().is_err());
    let alone = spoke(&hub.address);
    alone.tx.close();
    assert!(alone.events.recv().is_err(), "a spoke that never met its hub can be closed");
}

fn refuses_an_address_in_use(scheme: &str) {
    let place = place(scheme);
    let hub = hub(&place.bind);
    let again = for_address(&hub.address).unwrap().hub(&hub.address);
    let failure = again.err().unwrap();
    assert_eq!(failure.kind, ptystream_common::error::Kind::Peer);
    assert!(failure.text.contains(&hub.address) && failure.text.contains("in use"), "{failure}");
    let spoke = spoke(&hub.address);
    connected(&spoke);
}

macro_rules! conformance {
    ($($promise:ident),* $(,)?) => {
        mod inproc { $(#[test] fn $promise() { super::$promise("inproc"); })* }
        mod tcp { $(#[test] fn $promise() { super::$promise("tcp"); })* }
        mod ipc { $(#[test] fn $promise() { super::$promise("ipc"); })* }
        #[cfg(feature = "mpi")]
        mod mpi { $(#[test] fn $promise() { super::$promise("mpi"); })* }
    };
}
conformance!(
    talks_both_ways,
    keeps_three_peers_apart,
    waits_for_a_late_hub,
    finds_a_hub_again,
    tells_of_peers_that_leave,
    carries_a_big_payload,
    keeps_the_order,
    flushes_when_it_closes,
    ends_its_events_when_it_closes,
    refuses_an_address_in_use,
);
