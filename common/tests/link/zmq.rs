//! What only sockets can suffer: killed hubs, other versions, broken and hanging peers.

use crate::{SOON, connected, free_address, gone, heard, hello, hub, lost, noise, place, prepared};
use crate::{spoke, told, want};
use ptystream_common::link::HubEvent;
use ptystream_common::wire::{VERSION, WireError};
use std::io::{Read, Write};
use std::net::TcpStream;

/// Names the address at which this program, started by [`a_killed_hub_is_found_again`], is a hub.
const HUB_PROCESS: &str = "PTYSTREAM_TEST_HUB";

#[test]
fn hub_process() {
    let Ok(address) = std::env::var(HUB_PROCESS) else { return };
    let hub = hub(&address);
    loop {
        if let HubEvent::Message(peer, message) = hub.events.recv().unwrap() {
            hub.tx.send(peer, message);
        }
    }
}

#[test]
fn a_killed_hub_is_found_again() {
    for scheme in ["tcp", "ipc"] {
        let place = place(scheme);
        let address = free_address(&place);
        let start = || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "zmq::hub_process", "--nocapture"])
                .env(HUB_PROCESS, &address)
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        };
        let spoke = spoke(&address);
        for round in 0..3 {
            let mut process = start();
            connected(&spoke);
            assert!(spoke.tx.send(want(round)));
            assert_eq!(told(&spoke), want(round));
            process.kill().unwrap();
            process.wait().unwrap();
            lost(&spoke);
        }
    }
}

/// Reads until `wanted` bytes of this text have passed by.
pub fn read_until(stream: &mut TcpStream, wanted: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !got.windows(wanted.len()).any(|w| w == wanted) {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the hub has closed the connection after {got:?}");
        got.extend_from_slice(&buffer[..n]);
    }
    got
}

/// ZeroMQ's first bytes of a connection.
pub fn greeting(socket: &str) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..12].copy_from_slice(b"\xff\0\0\0\0\0\0\0\0\x7f\x03\0");
    bytes[12..16].copy_from_slice(b"NULL");
    let ready = [b"\x05READY\x0bSocket-Type\0\0\0\x06", socket.as_bytes()].concat();
    bytes.extend_from_slice(&[4, ready.len() as u8]);
    bytes.extend_from_slice(&ready);
    bytes
}

/// Does ZeroMQ's handshake as a DEALER, by hand.
pub fn dealer_by_hand(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address.strip_prefix("tcp://").unwrap()).unwrap();
    stream.write_all(&greeting("DEALER")).unwrap();
    read_until(&mut stream, b"ROUTER");
    stream
}

#[test]
fn a_peer_of_another_version_is_told_which_one_is_spoken_here() {
    let hub = hub("tcp://127.0.0.1:0");
    let mut peer = dealer_by_hand(&hub.address);
    peer.write_all(b"\x00\x08PTYS\x09\x00xx").unwrap();
    let HubEvent::Unreadable(id, error) = hub.events.recv_timeout(SOON).unwrap() else { panic!() };
    assert_eq!(error, WireError::Version { theirs: 9, ours: VERSION });
    let answer = read_until(&mut peer, b"same ptystream everywhere");
    let head = [b"PTYS", &VERSION.to_le_bytes()[..]].concat();
    let at = answer.windows(6).position(|w| w == head).unwrap();
    assert!(answer[at..].windows(7).any(|w| w == b"refused"));
    peer.write_all(b"\x00\x03GET").unwrap();
    let event = hub.events.recv_timeout(SOON).unwrap();
    assert!(matches!(event, HubEvent::Unreadable(same, WireError::Garbage(_)) if same == id));
    drop(peer);
    assert_eq!(gone(&hub.events), id);
}

#[test]
fn broken_connections_do_not_disturb_a_hub() {
    let hub = hub("tcp://127.0.0.1:0");
    let spoke = spoke(&hub.address);
    connected(&spoke);
    assert!(spoke.tx.send(hello("worker")));
    let (id, _) = heard(&hub.events);
    for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\xff", b""] {
        let mut stream = TcpStream::connect(hub.address.strip_prefix("tcp://").unwrap()).unwrap();
        stream.write_all(text).unwrap();
    }
    let mut cut = dealer_by_hand(&hub.address);
    cut.write_all(b"\x00\xffPTYS").unwrap();
    drop(cut);
    assert!(spoke.tx.send(want(1)));
    assert_eq!(heard(&hub.events), (id, want(1)));
    assert!(hub.tx.send(id, want(2)));
    assert_eq!(told(&spoke), want(2));
}

#[test]
fn closing_does_not_wait_for_ever_for_a_peer_that_hangs() {
    let hub = hub("tcp://127.0.0.1:0");
    let mut peer = dealer_by_hand(&hub.address);
    peer.write_all(b"\x00\x03GET").unwrap();
    let HubEvent::Unreadable(id, _) = hub.events.recv_timeout(SOON).unwrap() else { panic!() };
    for i in 0..32 {
        assert!(hub.tx.send(id, prepared(i, noise(1 << 20, 1))));
    }
    hub.tx.close();
    assert!(hub.events.recv().is_err());
}
