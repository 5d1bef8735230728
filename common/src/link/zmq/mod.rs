//! ZeroMQ: the only place that knows the crate `zeromq`.
//!
//! A socket lives on a thread of its own with a single-threaded tokio runtime. The crate's
//! limits shape what is done here:
//!
//! | the crate | here |
//! |---|---|
//! | does not reconnect DEALERs; `recv` never returns when the peer vanishes | one socket a connection, `select!` on its monitor, a loop that connects anew |
//! | a reused identity: the late death of the old connection removes the new one | a fresh uuid for each connection |
//! | `connect` backs off up to 30 s | given up after [`CONNECT_TIMEOUT`] and begun anew |
//! | no linger | closing waits until the writers have ended ([`finish`]) |
//! | a queue of 100,000 messages a peer | credit, one level up; a beat goes only where nothing is queued |
//! | no heartbeat; a peer that hangs or is cut off is never missed | beats both ways ([`pulse`]) |
//! | closing with unread input resets the connection under data on its way | the other end closes first, on a `Reset` (`part`) |
//! | gives whole messages only, so one that travels counts as silence | a message must travel within `dead_after` |
//! | a ROUTER has no call to drop a peer | its backend has: `peer_disconnected`, after a `Reset` |
//! | a writer whose peer reads nothing never ends and keeps its queue | spoke: a runtime a connection, dropped with it; hub: the system breaks the connection ([`bind`]) |
//! | ipc: binding fails on a stale socket file | the file is removed if nobody answers on it ([`bind`]) |
//!
//! Messages are encoded on the sender's thread and decoded on the socket's. Payload is not copied
//! on the way in; on the way out the crate copies it once into its write buffer.

mod bind;
mod hub;
mod memory;
mod pulse;
mod sharing;
mod spoke;
pub mod stream;

use self::pulse::Rhythm;
use super::address::ZmqAddress;
use super::{DEAD_AFTER, Hub, Link, Spoke};
use crate::error::{Failure, Kind};
use crate::message::{Body, Message, Stamp};
use crate::wire::{self, WireError};
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use zeromq::{SocketOptions, ZmqMessage};

/// After this, connecting is begun anew with a short delay between tries.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long closing waits for a peer that does not take what is queued for it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a flushed socket is read on, so that unread input does not reset the connection
/// before the peer has what was sent.
const LINGER: Duration = Duration::from_millis(50);
/// How long closing waits for writers to hand their last bytes to the system.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// Most messages that are passed to the writers before the socket is read again.
const SEND_BURST: usize = 64;

/// ROUTER and DEALER sockets over tcp and ipc.
#[derive(Clone, Copy, Debug)]
pub struct Zmq {
    rhythm: Rhythm,
}

impl Zmq {
    /// Makes a link that takes a silent peer for dead after `dead_after`.
    ///
    /// A message must travel within that time: it is a sign of life only once it is whole.
    pub fn new(dead_after: Duration) -> Self {
        Self { rhythm: Rhythm::new(dead_after) }
    }
}

impl Default for Zmq {
    fn default() -> Self {
        Self::new(DEAD_AFTER)
    }
}

impl Link for Zmq {
    fn hub(&self, address: &str) -> Result<Hub, Failure> {
        hub::open(&ZmqAddress::parse(address)?, self.rhythm)
    }

    fn spoke(&self, address: &str) -> Result<Spoke, Failure> {
        match ZmqAddress::parse(address)? {
            ZmqAddress::Tcp(_, 0) => Err(Failure::new(
                Kind::Config,
                format!("cannot connect to '{address}': port 0 is for binding only"),
            )),
            target => spoke::open(address, target, self.rhythm),
        }
    }
}

fn options() -> SocketOptions {
    let mut options = SocketOptions::default();
    // Each poll zeroes its buffer: a larger one is slower. It never shrinks.
    options.read_buffer(64 << 10, 64 << 10, 1 << 30);
    options
}

/// Counts the messages that are queued or being written: one clone a message.
type InFlight = Arc<()>;

/// First part of a message under way; the crate drops it once it has taken the part.
struct Tracked {
    head: Bytes,
    _in_flight: InFlight,
}

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.head
    }
}

/// Makes the crate's message of encoded parts, behind an identity where there is one.
fn outgoing(identity: Option<Bytes>, parts: Vec<Bytes>, in_flight: &InFlight) -> ZmqMessage {
    let mut parts = parts.into_iter();
    let head = parts.next().unwrap_or_default();
    let tracked = Bytes::from_owner(Tracked { head, _in_flight: in_flight.clone() });
    let mut message = match identity {
        Some(identity) => {
            let mut message = ZmqMessage::from(identity);
            message.push_back(tracked);
            message
        }
        None => ZmqMessage::from(tracked),
    };
    parts.for_each(|part| message.push_back(part));
    message
}

/// Returns the parts of a message of the links themselves.
fn encoded(body: Body) -> Vec<Bytes> {
    wire::encode(&Message::new(Stamp::default(), body)).expect("it has neither payload nor paths")
}

/// Ticks of a socket's clock: those that were missed do not come in a burst.
fn ticks(rhythm: &Rhythm) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(rhythm.tick());
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

/// Tells whether all that was queued is encoded.
fn idle(in_flight: &InFlight) -> bool {
    Arc::strong_count(in_flight) == 1
}

/// Reads on until all that was queued is encoded, and a little longer; what comes in is dropped.
async fn flush(socket: &mut impl zeromq::SocketRecv, all_idle: impl Fn() -> bool) {
    let begun = Instant::now();
    let mut flushed = None;
    loop {
        let now = Instant::now();
        if flushed.is_none() && all_idle() {
            flushed = Some(now);
        }
        match flushed {
            Some(at) if now - at >= LINGER => return,
            None if now - begun >= FLUSH_TIMEOUT => {
                tracing::warn!("a peer does not read; what was queued for it is lost");
                return;
            }
            _ => {}
        }
        tokio::select! {
            received = socket.recv() => if received.is_err() {
                // Nothing more can be read, but writers may still be at work.
                tokio::time::sleep(Duration::from_millis(1)).await;
            },
            () = tokio::time::sleep(Duration::from_millis(1)) => {}
        }
    }
}

/// Waits, the socket being dropped, until its writers have written all and ended.
async fn finish() {
    let metrics = tokio::runtime::Handle::current().metrics();
    let begun = Instant::now();
    while metrics.num_alive_tasks() > 0 && begun.elapsed() < END_TIMEOUT {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Makes a runtime for the thread that calls.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// The thread of a socket; whoever closes waits for it.
struct SocketThread(Mutex<Option<JoinHandle<()>>>);

impl SocketThread {
    /// Runs `work` on a thread, with a runtime that is nobody else's.
    ///
    /// # Errors
    /// If the system gives no thread or no runtime.
    fn spawn(name: &str, work: impl FnOnce(Runtime) + Send + 'static) -> Result<Self, Failure> {
        let failure = |e| Failure::new(Kind::Peer, format!("cannot start the thread {name}: {e}"));
        let runtime = runtime().map_err(failure)?;
        let run = move || work(runtime);
        let thread = std::thread::Builder::new().name(name.into()).spawn(run).map_err(failure)?;
        Ok(Self(Mutex::new(Some(thread))))
    }

    /// Waits for the end of the thread; a second caller returns at once.
    fn join(&self) {
        let thread = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|t| t.join().is_err()) {
            tracing::error!("the thread of a socket has panicked");
        }
    }
}

/// Says that a message of ours cannot travel; it is dropped.
fn log_unsendable(error: &WireError) {
    tracing::error!("{error}");
}
