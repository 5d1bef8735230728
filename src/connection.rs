//! Connections of instruments that send bytes and not messages: a PandA's data port, asked from its client's end
//! and played from the other.

use bytes::Bytes;
use crossbeam_channel::{Receiver, bounded};
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::instrument::Outgoing;
use ptystream_common::shutdown::Shutdown;
use ptystream_producer::positions::connection::{self, Happens};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(20);
/// A subscriber has connected before it has subscribed.
const SUBSCRIBING: Duration = Duration::from_millis(300);
/// Most pieces that wait, of 64 KiB at most: 16 MiB together.
const WAITING: usize = 256;
/// No request is longer.
const REQUEST_BYTES: usize = 1000;

/// Waits until something is there; `None` if it is told to end before.
fn waits<T>(shutdown: &Shutdown, what: String, mut there: impl FnMut() -> Option<T>) -> Option<T> {
    shutdown.set_waits_for(what);
    let found = loop {
        if shutdown.is_begun() {
            break None;
        }
        if let Some(found) = there() {
            break Some(found);
        }
        std::thread::sleep(TICK);
    };
    shutdown.set_waits_for("");
    found
}

/// Waits until somebody has connected to each socket, and a subscriber has subscribed; false if it is told to
/// end before.
pub fn all_connected<'a>(
    sockets: impl Iterator<Item = &'a Outgoing>,
    publish: bool,
    shutdown: &Shutdown,
) -> bool {
    for socket in sockets {
        let what = format!("somebody who connects to {}", socket.address);
        if waits(shutdown, what, || (socket.peers() > 0).then_some(())).is_none() {
            return false;
        }
    }
    if publish {
        std::thread::sleep(SUBSCRIBING);
    }
    true
}

/// A port at which somebody is waited for.
pub struct Port {
    server: TcpListener,
    /// Where it is, with the port that was given for port 0.
    pub address: String,
}

impl Port {
    /// Binds `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// [`Kind::Peer`] if that cannot be bound.
    pub fn bind(address: &str) -> Result<Self, Failure> {
        let failed =
            |e: std::io::Error| Failure::new(Kind::Peer, format!("cannot bind {address}: {e}"));
        let target = address.strip_prefix("tcp://").unwrap_or(address);
        let server = TcpListener::bind(target.replace('*', "0.0.0.0")).map_err(failed)?;
        server.set_nonblocking(true).map_err(failed)?;
        let address = format!("tcp://{}", server.local_addr().map_err(failed)?);
        Ok(Self { server, address })
    }

    /// Waits for somebody to connect and to ask, in one line; `None` if it is told to end before.
    ///
    /// # Errors
    /// [`Kind::Peer`] if the connection breaks.
    pub fn client(&self, shutdown: &Shutdown) -> Result<Option<TcpStream>, Failure> {
        let failed = |e: std::io::Error| Failure::new(Kind::Peer, format!("{}: {e}", self.address));
        let what = format!("somebody who connects to {}", self.address);
        let Some((mut client, _)) = waits(shutdown, what, || self.server.accept().ok()) else {
            return Ok(None);
        };
        client.set_nonblocking(false).map_err(failed)?;
        // What is asked for is always the same.
        let (mut asked, mut byte) = (Vec::new(), [0]);
        while asked.last() != Some(&b'\n') && asked.len() < REQUEST_BYTES {
            if client.read(&mut byte).map_err(failed)? == 0 {
                break;
            }
            asked.push(byte[0]);
        }
        Ok(Some(client))
    }
}

/// What an instrument sends on a connection, piece by piece.
pub struct Pieces {
    /// The pieces, as the one part of a message each.
    pub messages: Receiver<Vec<Bytes>>,
    closed: Arc<AtomicBool>,
}

impl Pieces {
    /// Connects to `tcp://HOST:PORT`, whenever it is there, and asks by `request`.
    ///
    /// # Errors
    /// [`Kind::Config`] for an address that is none, [`Kind::Peer`] if there is no thread.
    pub fn connect(address: &str, request: &'static [u8]) -> Result<Self, Failure> {
        let target = address.strip_prefix("tcp://").unwrap_or(address).to_owned();
        if target.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            let text = format!("'{address}' is no address; give tcp://HOST:PORT");
            return Err(Failure::new(Kind::Config, text));
        }
        let (tx, messages) = bounded(WAITING);
        let closed: Arc<AtomicBool> = Arc::default();
        let stop = Arc::clone(&closed);
        let work = move || {
            connection::read(&target, request, &stop, |happens| match happens {
                Happens::Comes(bytes) => tx.send(vec![Bytes::copy_from_slice(bytes)]).is_ok(),
                Happens::Opens | Happens::Ends => true,
            });
        };
        std::thread::Builder::new()
            .name("connection".into())
            .spawn(work)
            .map_err(|e| Failure::new(Kind::Peer, format!("{address}: {e}")))?;
        Ok(Self { messages, closed })
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}
