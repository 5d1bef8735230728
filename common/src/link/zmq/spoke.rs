//! The spoke: a DEALER, a new one for each connection.

use super::memory::{self, Incoming, MemoryError, Outgoing, Said};
use super::{
    CONNECT_TIMEOUT, InFlight, SEND_BURST, SocketThread, finish, flush, log_unsendable, options,
    outgoing,
};
use crate::error::Failure;
use crate::link::address::ZmqAddress;
use crate::link::{Spoke, SpokeEvent, SpokeSend};
use crate::message::Message;
use crate::wire;
use bytes::Bytes;
use crossbeam_channel::{Sender, unbounded};
use futures::StreamExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use zeromq::util::PeerIdentity;
use zeromq::{DealerSocket, Socket, SocketEvent, SocketRecv, SocketSend, ZmqError};

/// Pause between a failed attempt and the next.
const RETRY: Duration = Duration::from_millis(100);

type Monitor = futures::channel::mpsc::Receiver<SocketEvent>;

enum Command {
    /// `connection`: the one for which the message was meant; it does not go over a later one.
    Send {
        connection: u64,
        parts: Vec<Bytes>,
    },
    Close,
}

/// Starts the thread of a spoke.
///
/// # Errors
/// If the system gives no thread.
pub(super) fn open(address: &str, target: ZmqAddress) -> Result<Spoke, Failure> {
    let (events_tx, events) = unbounded();
    let (commands, commands_rx) = mpsc::unbounded_channel();
    let connection = Arc::new(AtomicU64::new(0));
    let memory = Memory::default();
    let client = Client {
        is_local: matches!(target, ZmqAddress::Ipc(_)),
        memory: memory.clone(),
        incoming: None,
        offered: None,
        target: target.to_string(),
        events: events_tx,
        commands: commands_rx,
        connection: connection.clone(),
        last: 0,
        in_flight: InFlight::default(),
        complaint: String::new(),
    };
    let thread = SocketThread::spawn("zmq-spoke", move || client.run())?;
    let tx = Arc::new(ZmqSpoke { commands, connection, memory, thread });
    Ok(Spoke { address: address.to_owned(), events, tx })
}

/// Where big parts go, and for which connection; empty until the hub has accepted it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<(u64, Arc<Outgoing>)>>>);

impl Memory {
    fn set(&self, memory: Option<(u64, Arc<Outgoing>)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = memory;
    }

    fn of(&self, connection: u64) -> Option<Arc<Outgoing>> {
        let memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.as_ref().filter(|(of, _)| *of == connection).map(|(_, memory)| Arc::clone(memory))
    }
}

struct ZmqSpoke {
    commands: mpsc::UnboundedSender<Command>,
    /// Number of the connection that stands; 0: none.
    connection: Arc<AtomicU64>,
    memory: Memory,
    thread: SocketThread,
}

impl SpokeSend for ZmqSpoke {
    fn send(&self, message: Message) -> bool {
        let connection = self.connection.load(Ordering::SeqCst);
        if connection == 0 {
            return false;
        }
        match wire::encode(&message) {
            Ok(parts) => {
                let placed = self.memory.of(connection).and_then(|memory| memory.place(&parts));
                let parts = placed.unwrap_or(parts);
                self.commands.send(Command::Send { connection, parts }).is_ok()
            }
            Err(error) => {
                log_unsendable(&error);
                false
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.connection.load(Ordering::SeqCst) != 0
    }

    fn close(&self) {
        // An error means that the thread has ended already.
        let _ = self.commands.send(Command::Close);
        self.thread.join();
    }
}

/// How a connection came to its end.
enum End {
    Gone,
    Closed,
}

struct Client {
    target: String,
    /// Whether the hub is on this machine.
    is_local: bool,
    memory: Memory,
    /// Where the hub puts big parts.
    incoming: Option<Incoming>,
    /// What was offered to the hub and is not accepted yet.
    offered: Option<Arc<Outgoing>>,
    events: Sender<SpokeEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    connection: Arc<AtomicU64>,
    last: u64,
    in_flight: InFlight,
    /// What was last wrong with connecting, so that it is said once.
    complaint: String,
}

impl Client {
    async fn run(mut self) {
        while let Some((mut socket, monitor)) = self.connect().await {
            self.last += 1;
            self.connection.store(self.last, Ordering::SeqCst);
            // Nobody may be reading any more while the spoke is about to be closed.
            let _ = self.events.send(SpokeEvent::Connected);
            let end = self.talk(&mut socket, monitor).await;
            self.connection.store(0, Ordering::SeqCst);
            self.memory.set(None);
            self.incoming = None;
            if let End::Closed = end {
                self.commands.close();
                flush(&mut socket, &self.in_flight).await;
                drop(socket);
                finish().await;
                return;
            }
            drop(socket);
            let _ = self.events.send(SpokeEvent::Gone);
        }
    }

    /// Connects, however long it takes; `None` if the spoke is closed meanwhile.
    async fn connect(&mut self) -> Option<(DealerSocket, Monitor)> {
        loop {
            tokio::select! {
                attempt = attempt(&self.target) => match attempt {
                    Ok(connected) => {
                        self.complaint.clear();
                        return Some(connected);
                    }
                    Err(ZmqError::ConnectTimeout(_)) => {}
                    Err(error) => {
                        let text = error.to_string();
                        if text != self.complaint {
                            tracing::warn!("cannot connect to {} yet: {text}", self.target);
                            self.complaint = text;
                        }
                    }
                },
                () = closed(&mut self.commands) => return None,
            }
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = closed(&mut self.commands) => return None,
            }
        }
    }

    async fn talk(&mut self, socket: &mut DealerSocket, mut monitor: Monitor) -> End {
        if self.is_local
            && let Some(offer) = self.offer()
            && self.say(socket, vec![offer]).await.is_err()
        {
            return End::Gone;
        }
        loop {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => if let Some(answer) = self.receive(message.into_vec())
                        && self.say(socket, vec![answer]).await.is_err()
                    {
                        return End::Gone;
                    },
                    Err(error) => {
                        tracing::debug!("receiving from {}: {error}", self.target);
                        return End::Gone;
                    }
                },
                event = monitor.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => return End::Gone,
                    Some(_) => {}
                },
                command = self.commands.recv() => {
                    let mut next = Some(command.unwrap_or(Command::Close));
                    let mut burst = 0;
                    while let Some(command) = next {
                        let Command::Send { connection, parts } = command else {
                            return End::Closed;
                        };
                        if connection == self.last {
                            if self.say(socket, parts).await.is_err() {
                                return End::Gone;
                            }
                        }
                        burst += 1;
                        next = if burst < SEND_BURST { self.commands.try_recv().ok() } else { None };
                    }
                }
            }
        }
    }
}

impl Client {
    async fn say(&self, socket: &mut DealerSocket, parts: Vec<Bytes>) -> Result<(), ()> {
        let message = outgoing(None, parts, &self.in_flight);
        socket.send(message).await.map_err(|error| {
            tracing::debug!("sending to {}: {error}", self.target);
        })
    }

    /// Passes on what the hub said; returns the answer of the link itself.
    fn receive(&mut self, mut parts: Vec<Bytes>) -> Option<Bytes> {
        if parts.first().is_some_and(|head| memory::is_ours(head)) {
            match self.share(&parts) {
                Ok(Shared::Message(whole)) => parts = whole,
                Ok(Shared::Answer(answer)) => return answer,
                Err(error @ MemoryError::Garbage(_)) => {
                    tracing::error!("a message from {} was dropped: {error}", self.target);
                    return None;
                }
                Err(error) => {
                    let why = crate::error::chain(&error);
                    tracing::debug!("from {}: {why}; all goes through the socket", self.target);
                    return None;
                }
            }
        }
        let event = match wire::decode(parts) {
            Ok(message) => SpokeEvent::Message(message),
            Err(error) => SpokeEvent::Unreadable(error),
        };
        let _ = self.events.send(event);
        None
    }

    /// Makes shared memory to be offered to the hub.
    fn offer(&mut self) -> Option<Bytes> {
        match Outgoing::new() {
            Ok(own) => {
                let offer = own.offer();
                self.offered = Some(Arc::new(own));
                Some(offer)
            }
            Err(error) => {
                tracing::debug!("{}; all goes through the socket", crate::error::chain(&error));
                None
            }
        }
    }

    fn share(&mut self, parts: &[Bytes]) -> Result<Shared, MemoryError> {
        match memory::read(&parts[0])? {
            Said::Offer(offer) => {
                let (incoming, acceptance) = Incoming::open(&offer)?;
                self.incoming = Some(incoming);
                Ok(Shared::Answer(Some(acceptance)))
            }
            Said::Acceptance(token) => {
                let accepted = self.offered.take().filter(|own| own.is_accepted_by(&token));
                self.memory.set(accepted.map(|own| (self.last, own)));
                Ok(Shared::Answer(None))
            }
            Said::Reference(reference) => {
                let (Some(incoming), Some(head)) = (&self.incoming, parts.get(1)) else {
                    return Err(MemoryError::Garbage("nothing was offered before"));
                };
                incoming.resolve(&reference, head.clone()).map(Shared::Message)
            }
        }
    }
}

/// What came of a message about shared memory.
enum Shared {
    /// The message whose payload lay there.
    Message(Vec<Bytes>),
    /// What is to be said in return.
    Answer(Option<Bytes>),
}

/// Waits until the spoke is to be closed; what was sent meanwhile was for a lost connection.
async fn closed(commands: &mut mpsc::UnboundedReceiver<Command>) {
    while let Some(Command::Send { .. }) = commands.recv().await {}
}

async fn attempt(target: &str) -> Result<(DealerSocket, Monitor), ZmqError> {
    let identity = PeerIdentity::new();
    let mut options = options();
    options.peer_identity(identity.clone()).connect_timeout(CONNECT_TIMEOUT);
    let mut socket = DealerSocket::with_options(options);
    let mut monitor = socket.monitor();
    socket.connect(target).await?;
    // A port of this machine that nobody listens on can connect to itself, and would then keep
    // the hub from binding it.
    if let Ok(SocketEvent::Connected(_, peer)) = monitor.try_recv()
        && peer == identity
    {
        return Err(ZmqError::Other("connected to itself"));
    }
    Ok((socket, monitor))
}
