//! Peers written in Python with libzmq: the page of docs/wire.md as it stands, and a hub.
//!
//! `PTYSTREAM_PYTHON` names the interpreter (default `python3`); without pyzmq and msgpack these
//! tests say so and are skipped.

use crate::{SOON, heard};
use bytes::Bytes;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::Kind;
use ptystream_common::frame::FrameForm;
use ptystream_common::geometry::{Geometry, Orientation};
use ptystream_common::index::{IndexRange, IndexSet};
use ptystream_common::link::{HubEvent, Link, SpokeEvent, Zmq};
use ptystream_common::message::*;
use ptystream_common::wire::{VERSION, WireError};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Ends a process that a failing test leaves behind.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a Python that has pyzmq and msgpack.
fn python() -> Option<Command> {
    let interpreter = std::env::var_os("PTYSTREAM_PYTHON").unwrap_or_else(|| "python3".into());
    let check = Command::new(&interpreter)
        .args(["-c", "import zmq, msgpack"])
        .stderr(Stdio::null())
        .status();
    if check.is_ok_and(|status| status.success()) {
        return Some(Command::new(interpreter));
    }
    eprintln!("skipped: no Python with zmq and msgpack; PTYSTREAM_PYTHON names another");
    None
}

/// Returns the Python program of the documentation.
fn documented_worker() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/wire.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once("```python\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn plan() -> Body {
    let plan = PreparePlan {
        geometry: Some(Geometry {
            frame: [2, 3],
            roi: [2, 3],
            center: [1.0, 1.0],
            orientation: Orientation::default(),
            rebin: 1,
        }),
        batch: 3,
        frames_per_chunk: 5,
        ..PreparePlan::plain(FrameForm { dtype: Dtype::U16, shape: [2, 3] })
    };
    Body::Plan { plan: Box::new(plan), arrays: vec![], answers: 0 }
}

fn ticket(first: u64, count: u32, task: Task) -> (Body, Bytes) {
    let pixels: Vec<u8> = (0..count * 12).map(|i| (first as u32 + i) as u8).collect();
    let ticket = Ticket {
        range: IndexRange::new(first, count),
        task,
        positions: Some(vec![[1e-6, -2.5e-6]; count as usize]),
        gaps: vec![],
        pixels: Some(Box::new(PixelsHead {
            frames: vec![(Encoding::Raw, 12); count as usize],
            region: None,
            positions: None,
            weights: None,
            scale: None,
            scalars: None,
            checksums: None,
        })),
    };
    (Body::Ticket(ticket), pixels.into())
}

#[test]
fn the_worker_of_the_documentation_works() {
    let Some(mut python) = python() else { return };
    let producer = Zmq::default().hub("tcp://127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sink = Zmq::default().hub(&format!("ipc://{}/sink.sock", dir.path().display())).unwrap();
    let script = dir.path().join("worker.py");
    std::fs::write(&script, documented_worker()).unwrap();
    let child = python.arg(&script).args([&producer.address, &sink.address]).spawn().unwrap();
    let mut child = Running(child);

    let (at_producer, said) = heard(&producer.events);
    let Body::Hello { role: Role::Worker, name, .. } = said.header.body else { panic!("{said:?}") };
    assert!(name.starts_with("copier-"), "{name}");
    assert_eq!(
        heard(&producer.events),
        (at_producer, Message::new(Stamp::default(), Body::Want { tickets: 2 }))
    );
    let (at_sink, said) = heard(&sink.events);
    assert!(matches!(said.header.body, Body::Hello { role: Role::Worker, .. }), "{said:?}");

    let stamp = Stamp { run_id: u64::MAX - 1, epoch: 4 };
    let to_producer = |body| Message::new(stamp, body);
    producer.tx.send(at_producer, to_producer(plan()));
    let (measure, pixels) = ticket(0, 1, Task::Measure);
    producer.tx.send(at_producer, Message::with_parts(stamp, measure, vec![pixels]));
    let (_, said) = heard(&producer.events);
    let Body::Failed { range, failure } = said.header.body else { panic!("{said:?}") };
    assert_eq!((range, failure.kind), (IndexRange::new(0, 1), Kind::Config));

    // The second batch ends where its file chunk ends.
    for (first, count) in [(0, 3), (3, 2)] {
        let (body, pixels) = ticket(first, count, Task::Prepare);
        producer.tx.send(at_producer, Message::with_parts(stamp, body, vec![pixels]));
    }
    assert!(sink.events.recv_timeout(Duration::from_millis(200)).is_err(), "nothing is granted");
    sink.tx.send(at_sink, Message::new(stamp, Body::Grant { messages: 2 }));

    let (_, common) = heard(&sink.events);
    assert_eq!(
        (common.header.stamp, &common.header.body),
        (stamp, &Body::CommonWeights { checksum: None })
    );
    assert_eq!(common.parts[0], 1f64.to_le_bytes().repeat(2 * 3 * 3));
    for (first, count) in [(0, 3), (3, 2)] {
        let (_, said) = heard(&sink.events);
        assert_eq!(said.header.stamp, stamp);
        let Body::Prepared(prepared) = said.header.body else { panic!("{said:?}") };
        assert_eq!(prepared.range, IndexRange::new(first, count));
        assert_eq!(prepared.positions, Some(vec![[1e-6, -2.5e-6]; count as usize]));
        let mut chunk = ticket(first, count, Task::Prepare).1.to_vec();
        chunk.resize(3 * 12, 0);
        assert_eq!(said.parts, [chunk]);
        assert_eq!(heard(&producer.events).1, to_producer(Body::Want { tickets: 1 }));
    }
    let end = Body::EndOfScan { expected: 5, gaps: IndexSet::new(), aborted: None };
    producer.tx.send(at_producer, to_producer(end));
    for hub in [&producer, &sink] {
        assert_eq!(heard(&hub.events).1, to_producer(Body::Bye));
        assert!(matches!(hub.events.recv_timeout(SOON).unwrap(), HubEvent::Gone(_)));
    }
    assert!(child.0.wait().unwrap().success());
}

/// A hub that echoes the first message, sends one of another version, and goes.
const HUB: &str = r#"
import sys, zmq
hub = zmq.Context().socket(zmq.ROUTER)
port = hub.bind_to_random_port("tcp://127.0.0.1")
print(port, flush=True)
peer, *message = hub.recv_multipart()
while b"ticket" not in message[0]:  # a beat may come first
    peer, *message = hub.recv_multipart()
hub.send_multipart([peer, *message])
hub.send_multipart([peer, b"PTYS\x63\x00what comes later"])
while b"bye" not in hub.recv_multipart()[1]:
    pass
hub.close(linger=1000)
"#;

#[test]
fn a_spoke_talks_to_a_router_of_libzmq() {
    let Some(mut python) = python() else { return };
    let child = python.args(["-c", HUB]).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Running(child);
    let mut port = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let spoke = Zmq::default().spoke(&format!("tcp://127.0.0.1:{}", port.trim())).unwrap();
    let event = || spoke.events.recv_timeout(SOON).unwrap();
    assert!(matches!(event(), SpokeEvent::Connected));
    let (body, pixels) = ticket(7, 200, Task::Prepare);
    let message = Message::with_parts(Stamp::default(), body, vec![pixels]);
    assert!(spoke.tx.send(message.clone()));
    assert!(matches!(event(), SpokeEvent::Message(back) if back == message));
    let mismatch = WireError::Version { theirs: 99, ours: VERSION };
    assert!(matches!(event(), SpokeEvent::Unreadable(error) if error == mismatch));
    assert!(spoke.tx.send(Message::new(Stamp::default(), Body::Bye)));
    assert!(matches!(event(), SpokeEvent::Gone));
    assert!(child.0.wait().unwrap().success());
}
