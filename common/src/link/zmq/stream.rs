//! Sockets towards instruments: whole multipart messages of formats that are not ours.
//!
//! A socket connects, again after each loss, and reads only as fast as its messages are taken: what is
//! not read waits in the connection and at the instrument.

use super::super::address::ZmqAddress;
use super::{CONNECT_TIMEOUT, options};
use crate::error::{Failure, Kind};
use bytes::Bytes;
use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use zeromq::{PullSocket, Socket, SocketEvent, SocketRecv, SubSocket, ZmqError};

/// Messages that wait for whoever takes them.
const WAITING: usize = 16;
const RETRY: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(50);

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
            match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
                Ok(Ok(())) => complaint.clear(),
                Ok(Err(error)) => {
                    if error.to_string() != complaint {
                        complaint = error.to_string();
                        tracing::info!("cannot connect to {} yet: {complaint}", self.target);
                    }
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(_) => continue,
            }
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
