//! What comes to a role's socket and is not one of ours: ports in use, other versions, garbage.

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use support::{Desk, python};

#[test]
fn a_port_in_use_is_named() {
    let desk = Desk::new();
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("tcp://{}", taken.local_addr().expect("an address"));
    let words = [&format!("cannot bind {address}"), "address in use", "with --bind"];
    desk.run(&format!("producer a.toml --quiet --bind {address}")).must(4, &words);
    desk.run(&format!("sink --bind {address}")).must(4, &words);
    for bad in ["tcp://127.0.0.1", "http://127.0.0.1:1", "127.0.0.1:5710"] {
        desk.run(&format!("sink --bind {bad}")).must(2, &[bad, "tcp://"]);
    }
}

/// A producer of wire version 99: answers the first message that comes.
const OTHER_PRODUCER: &str = "
import sys, zmq
socket = zmq.Context().socket(zmq.ROUTER)
socket.bind(sys.argv[1])
socket.setsockopt(zmq.RCVTIMEO, 60000)
who, head, *rest = socket.recv_multipart()
assert head[:6] == b'PTYS\\x06\\x00', head
socket.send_multipart([who, b'PTYS\\x63\\x00what comes now is of another version'])
while True:
    try:
        socket.recv_multipart()
    except zmq.Again:
        break
    finally:
        socket.setsockopt(zmq.RCVTIMEO, 2000)
";

#[test]
fn a_role_of_another_version_is_refused_in_words_by_both_sides() {
    let desk = Desk::new();
    let words = ["wire version 99, this program 6", "use the same ptystream everywhere"];
    // The other side binds: worker and sink say so, and end.
    for role in ["worker --sink", "sink --bind"] {
        let address = desk.ipc("other");
        let line = format!("{role} {} --producer {address}", desk.ipc("s"));
        let role = desk.start("role", &line);
        if python(OTHER_PRODUCER, &[&address]).is_none() {
            return;
        }
        role.end().must(4, &words);
    }
    // The other side connects: it is told in our version, and the role waits for its own kind.
    desk.moonflower("a", 20, "shape = 32\nsave = 'link'", "peer_timeout_secs = 3");
    let p = desk.ipc("p");
    let mut producer = desk.start("producer", &format!("producer a.toml --quiet --bind {p}"));
    producer.address();
    let script = "
import sys, zmq
socket = zmq.Context().socket(zmq.DEALER)
socket.connect(sys.argv[1])
socket.setsockopt(zmq.RCVTIMEO, 60000)
socket.send(b'PTYS\\x63\\x00what comes now is of another version')
print(socket.recv())
";
    let answer = python(script, &[&p]).expect("Python was there before");
    assert!(answer.starts_with("b'PTYS\\x06\\x00"), "{answer}");
    assert!(answer.contains("speaks wire version 6 and was sent version 99"), "{answer}");
    producer.end().must(4, &[words[0], words[1], "no sink at ipc://"]);
}

/// Garbage, cut-off and bit-flipped messages over ZeroMQ to both hubs.
const GARBAGE: &str = "
import random, sys, zmq
random.seed(1)
hello = (b'PTYS\\x06\\x00\\x82\\xa5stamp\\x82\\xa6run_id\\x00\\xa5epoch\\x00\\xa4body\\x81\\xa5hello'
         b'\\x82\\xa4role\\xa6worker\\xa4name\\xa5ghost')
context = zmq.Context()
for address in sys.argv[1:]:
    messages = [[b''], [b'', b''], [b'PTYS'], [b'PTYS\\x06\\x00'], [hello, b'a part too many']]
    messages += [[hello[:n]] for n in range(len(hello))]
    for _ in range(200):
        bad = bytearray(hello)
        bad[random.randrange(4, len(bad))] ^= 1 << random.randrange(8)
        messages.append([bytes(bad)])
        messages.append([random.randbytes(random.randrange(64)) for _ in range(3)])
    for some in range(0, len(messages), 50):
        socket = context.socket(zmq.DEALER)
        socket.connect(address)
        for message in messages[some:some + 50]:
            socket.send_multipart(message)
        # Whoever is told that it cannot be understood has been heard.
        socket.setsockopt(zmq.RCVTIMEO, 500)
        try:
            socket.recv_multipart()
        except zmq.Again:
            pass
        socket.close(linger=1000)
";

#[test]
fn garbage_ends_no_role_and_changes_no_file() {
    let desk = Desk::new();
    desk.moonflower("a", 40, "shape = 32\nsave = 'link'", "");
    desk.run("run a.toml --quiet --set data.dfile=run.ptyd").must(0, &[]);
    let line = "producer a.toml --quiet --bind tcp://127.0.0.1:0";
    let mut producer = desk.start("producer", line);
    let p = producer.address();
    let mut sink = desk.start("sink", &format!("sink --producer {p} --bind tcp://127.0.0.1:0"));
    let s = sink.address();
    producer.wait_said("sink connected");
    for address in [&p, &s] {
        let target = address.trim_start_matches("tcp://");
        for bytes in [
            &b""[..],
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f",
            &[0; 64],
        ] {
            let mut stream = TcpStream::connect(target).expect("the role listens");
            stream.write_all(bytes).expect("it takes bytes");
        }
    }
    if python(GARBAGE, &[&p, &s]).is_some() {
        producer.wait_said("a message that cannot be read was dropped");
        sink.wait_said("a message that cannot be read was dropped");
    }
    let worker = desk.start("worker", &format!("worker --producer {p} --sink {s}"));
    for role in [producer, sink, worker] {
        role.end().must(0, &[]);
    }
    desk.assert_equal("run.ptyd", "a.ptyd");
}
