//! Sockets towards instruments: whole multipart messages of formats that are not ours.
//!
//! A socket connects, again after each loss, and reads only as fast as its messages are taken: what is
//! not read waits in the connection and at the instrument.

use super::super::address::ZmqAddress;
use super::{CONNECT_TIMEOUT, FLUSH_TIMEOUT, InFlight, LINGER, finish, idle, options, outgoing};
use crate::error::{Failure, Kind};
use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use zeromq::{
    PubSocket, PullSocket, PushSocket, Socket, SocketEvent, SocketRecv, SocketSend, SubSocket,
    ZmqError,
};

/// Messages that wait for whoever takes them.
const WAITING: usize = 16;
const RETRY: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_micros(200);

/// How an instrument sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// PUSH: each message to one of those that are connected.
    Pull,
    /// PUB: all messages to all.
    Subscribe,
}

/// What comes from an instrument; ends when it is dropped.
#[derive(Debug)]
pub struct Incoming {
    /// The parts of each message, in the order of their sending.
    pub messages: Receiver<Vec<Bytes>>,
    /// Where the instrument is.
    pub address: String,
    connected: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

impl Incoming {
    /// Connects to an instrument, whenever it is there.
    ///
    /// # Errors
    /// [`Kind::Config`] for an address that is none.
    pub fn connect(address: &str, pattern: Pattern) -> Result<Self, Failure> {
        let target = match ZmqAddress::parse(address)? {
            ZmqAddress::Tcp(_, 0) => {
                let text = format!("cannot connect to '{address}': port 0 is for binding only");
                return Err(Failure::new(Kind::Config, text));
            }
            target => target.to_string(),
        };
        let (tx, messages) = bounded(WAITING);
        let (connected, closed) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let incoming = Self {
            messages,
            address: address.to_owned(),
            connected: connected.clone(),
            closed: Arc::clone(&closed),
        };
        let failed = |e: std::io::Error| Failure::new(Kind::Peer, format!("{address}: {e}"));
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        std::thread::Builder::new()
            .name("instrument".into())
            .spawn(move || {
                let work = Work { target, tx, connected, closed };
                match pattern {
                    Pattern::Pull => runtime.block_on(work.run(PullSocket::with_options)),
                    Pattern::Subscribe => runtime.block_on(work.run(SubSocket::with_options)),
                }
            })
            .map_err(failed)?;
        Ok(incoming)
    }

    /// Tells whether the instrument is there.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

struct Work {
    target: String,
    tx: Sender<Vec<Bytes>>,
    connected: Arc<AtomicBool>,
    closed: Arc<AtomicBool>,
}

/// What becomes ready when a socket of its kind has connected.
trait Subscribed: Socket + SocketRecv {
    /// Asks for all messages, where one has to ask.
    async fn ask(&mut self) -> Result<(), ZmqError>;
}

impl Subscribed for PullSocket {
    async fn ask(&mut self) -> Result<(), ZmqError> {
        Ok(())
    }
}

impl Subscribed for SubSocket {
    async fn ask(&mut self) -> Result<(), ZmqError> {
        self.subscribe("").await
    }
}

impl Work {
    async fn run<S: Subscribed>(self, make: fn(zeromq::SocketOptions) -> S) {
        let mut complaint = String::new();
        while !self.is_closed() {
            let mut socket = make(options());
            let mut monitor = socket.monitor();
            let attempt = async {
                socket.connect(&self.target).await?;
                socket.ask().await
            };
            let error = match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                // The library goes on trying where nobody listens.
                Err(_) => Some("nobody answers".to_owned()),
            };
            if let Some(error) = error {
                if error != complaint {
                    tracing::info!("cannot connect to {} yet: {error}", self.target);
                }
                complaint = error;
                tokio::time::sleep(RETRY).await;
                continue;
            }
            complaint.clear();
            self.connected.store(true, Ordering::Release);
            tracing::info!(address = self.target, "connected");
            loop {
                tokio::select! {
                    received = socket.recv() => match received {
                        Ok(message) => if !self.pass(message.into_vec()) { return },
                        Err(error) => {
                            tracing::debug!("receiving from {}: {error}", self.target);
                            break;
                        }
                    },
                    event = monitor.next() => match event {
                        Some(SocketEvent::Disconnected(_)) | None => break,
                        Some(_) => {}
                    },
                    () = tokio::time::sleep(TICK) => if self.is_closed() { return },
                }
            }
            self.connected.store(false, Ordering::Release);
            tracing::info!(address = self.target, "the connection is lost; trying again");
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Hands a message on, as soon as there is room; `false` if nobody takes any more.
    fn pass(&self, mut parts: Vec<Bytes>) -> bool {
        loop {
            match self.tx.send_timeout(parts, TICK) {
                Ok(()) => return true,
                Err(SendTimeoutError::Timeout(back)) if !self.is_closed() => parts = back,
                Err(_) => return false,
            }
        }
    }
}

/// How messages are sent as an instrument would.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// PUSH: each message to one of those that are connected.
    Push,
    /// PUB: all messages to all.
    Publish,
}

/// A socket that sends as an instrument would; it binds.
#[derive(Debug)]
pub struct Outgoing {
    /// Where it is bound, the port being filled in.
    pub address: String,
    /// `None` once it ends.
    commands: Option<mpsc::Sender<Vec<Bytes>>>,
    peers: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Outgoing {
    /// Binds.
    ///
    /// # Errors
    /// [`Kind::Config`] for an address that is none, [`Kind::Peer`] if it cannot be bound.
    pub fn bind(address: &str, sending: Sending) -> Result<Self, Failure> {
        let target = ZmqAddress::parse(address)?;
        if let ZmqAddress::Ipc(path) = &target
            && std::os::unix::net::UnixStream::connect(path).is_err()
        {
            // Nobody answers on it: it was left behind. It may not be there at all.
            let _ = std::fs::remove_file(path);
        }
        let failed =
            |text: String| Failure::new(Kind::Peer, format!("cannot bind {address}: {text}"));
        let (commands, rx) = mpsc::channel(1);
        let (bound, told) = bounded(1);
        let peers = Arc::new(AtomicUsize::new(0));
        let feed = Feed { rx, peers: peers.clone(), in_flight: InFlight::default() };
        let target = target.to_string();
        let runtime = super::runtime().map_err(|e| failed(e.to_string()))?;
        let thread = std::thread::Builder::new()
            .name("instrument".into())
            .spawn(move || match sending {
                Sending::Push => {
                    runtime.block_on(feed.run(PushSocket::with_options, &target, &bound));
                }
                Sending::Publish => {
                    runtime.block_on(feed.run(PubSocket::with_options, &target, &bound));
                }
            })
            .map_err(|e| failed(e.to_string()))?;
        match told.recv() {
            Ok(Ok(address)) => {
                Ok(Self { address, commands: Some(commands), peers, thread: Some(thread) })
            }
            Ok(Err(text)) => Err(failed(text)),
            Err(_) => Err(failed("its thread has ended".into())),
        }
    }

    /// Returns how many are connected.
    pub fn peers(&self) -> usize {
        self.peers.load(Ordering::Acquire)
    }

    /// Sends a message; waits while too many are on their way.
    pub fn send(&self, parts: Vec<Bytes>) {
        if let Some(commands) = &self.commands {
            // The thread ends only when this is dropped.
            let _ = commands.blocking_send(parts);
        }
    }
}

impl Drop for Outgoing {
    /// Waits until what was sent is on its way.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

/// The thread of an [`Outgoing`].
struct Feed {
    rx: mpsc::Receiver<Vec<Bytes>>,
    peers: Arc<AtomicUsize>,
    in_flight: InFlight,
}

impl Feed {
    async fn run<S: Socket + SocketSend>(
        mut self,
        make: fn(zeromq::SocketOptions) -> S,
        target: &str,
        bound: &Sender<Result<String, String>>,
    ) {
        // Some begin to work as soon as they are made.
        let mut socket = make(options());
        let mut monitor = socket.monitor();
        let answer = socket.bind(target).await.map(|at| at.to_string()).map_err(|e| e.to_string());
        let failed = answer.is_err();
        // Whoever asked waits for the answer.
        let _ = bound.send(answer);
        if failed {
            return;
        }
        loop {
            self.count(&mut monitor);
            // More would be kept in memory, without bound.
            if Arc::strong_count(&self.in_flight) > WAITING {
                tokio::time::sleep(SHORT).await;
                continue;
            }
            let parts = match tokio::time::timeout(TICK, self.rx.recv()).await {
                Ok(Some(parts)) => parts,
                Ok(None) => break,
                Err(_) => continue,
            };
            // Bytes are shared: a second try costs nothing.
            while socket.send(outgoing(None, parts.clone(), &self.in_flight)).await.is_err() {
                // Nobody is there.
                tokio::time::sleep(TICK).await;
                self.count(&mut monitor);
            }
        }
        let begun = Instant::now();
        while !idle(&self.in_flight) && begun.elapsed() < FLUSH_TIMEOUT {
            tokio::time::sleep(SHORT).await;
        }
        tokio::time::sleep(LINGER).await;
        drop(socket);
        finish().await;
    }

    fn count(&self, monitor: &mut futures::channel::mpsc::Receiver<SocketEvent>) {
        while let Ok(event) = monitor.try_recv() {
            match event {
                SocketEvent::Accepted(..) => {
                    self.peers.fetch_add(1, Ordering::AcqRel);
                }
                SocketEvent::Disconnected(_) => {
                    let less = |n: usize| Some(n.saturating_sub(1));
                    // It always can.
                    let _ = self.peers.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
                }
                _ => {}
            }
        }
    }
}
