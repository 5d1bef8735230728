//! A network that can fail: forwards connections, and holds back what it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Which way bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    ToHub,
    ToSpoke,
}

/// A forwarder in front of a hub; its threads end with the connections or the program.
pub struct Proxy {
    pub address: String,
    held: [Arc<AtomicBool>; 2],
}

impl Proxy {
    pub fn new(hub: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let held: [Arc<AtomicBool>; 2] = Default::default();
        let target = hub.strip_prefix("tcp://").unwrap().to_owned();
        let switches = held.clone();
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { return };
                let Ok(far) = TcpStream::connect(&target) else { continue };
                let [to_hub, to_spoke] = switches.clone();
                let (from, into) = (near.try_clone().unwrap(), far.try_clone().unwrap());
                std::thread::spawn(move || pump(from, into, &to_hub));
                std::thread::spawn(move || pump(far, near, &to_spoke));
            }
        });
        Self { address, held }
    }

    /// Holds back all bytes, and the ends of connections, that go this way; or lets them go.
    pub fn hold(&self, way: Way, hold: bool) {
        self.held[way as usize].store(hold, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut into: TcpStream, held: &AtomicBool) {
    from.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let mut buffer = [0; 4096];
    loop {
        let read = from.read(&mut buffer);
        while held.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(2));
        }
        match read {
            Ok(0) => break,
            Ok(n) if into.write_all(&buffer[..n]).is_err() => break,
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            _ => {}
        }
    }
    // The other end may have gone first.
    let _ = into.shutdown(Shutdown::Write);
}
