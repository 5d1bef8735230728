//! The spoke: a DEALER, a new one for each connection, each on a runtime of its own.
//!
//! A connection ends with its runtime: what is still queued for a hub that reads nothing goes with
//! it, and the system's end of the connection too.

use super::memory::Outgoing;
use super::pulse::{Due, Pulse, Rhythm};
use super::sharing::{Received, Sharing, complain};
use super::{
    CONNECT_TIMEOUT, FLUSH_TIMEOUT, InFlight, SEND_BURST, SocketThread, encoded, finish, flush,
    idle, log_unsendable, options, outgoing, ticks,
};
use crate::error::Failure;
use crate::link::address::ZmqAddress;
use crate::link::{Spoke, SpokeEvent, SpokeSend};
use crate::message::{Body, Header, Message};
use crate::wire;
use bytes::Bytes;
use crossbeam_channel::{Sender, unbounded};
use futures::StreamExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::Instant;
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
pub(super) fn open(address: &str, target: ZmqAddress, rhythm: Rhythm) -> Result<Spoke, Failure> {
    let (events_tx, events) = unbounded();
    let (commands, commands_rx) = mpsc::unbounded_channel();
    let connection = Arc::new(AtomicU64::new(0));
    let memory = Memory::default();
    let client = Client {
        is_local: matches!(target, ZmqAddress::Ipc(_)),
        memory: memory.clone(),
        sharing: Sharing::default(),
        target: target.to_string(),
        events: events_tx,
        commands: commands_rx,
        connection: connection.clone(),
        last: 0,
        in_flight: InFlight::default(),
        rhythm,
        beat: encoded(Body::Beat { every_ms: rhythm.every_ms() }),
        complaint: String::new(),
    };
    let thread = SocketThread::spawn("zmq-spoke", move |runtime| client.run(runtime))?;
    let tx = Arc::new(ZmqSpoke { commands, connection, memory, thread });
    Ok(Spoke { address: address.to_owned(), events, tx })
}

/// A segment that the hub of a connection has accepted.
struct Accepted {
    connection: u64,
    memory: Arc<Outgoing>,
}

/// Where big parts go; empty until the hub has accepted it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Option<Accepted>>>);

impl Memory {
    fn set(&self, accepted: Option<Accepted>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = accepted;
    }

    fn of(&self, connection: u64) -> Option<Arc<Outgoing>> {
        let accepted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let accepted = accepted.as_ref().filter(|a| a.connection == connection)?;
        Some(Arc::clone(&accepted.memory))
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
    sharing: Sharing,
    events: Sender<SpokeEvent>,
    commands: mpsc::UnboundedReceiver<Command>,
    connection: Arc<AtomicU64>,
    last: u64,
    in_flight: InFlight,
    rhythm: Rhythm,
    /// A beat, encoded.
    beat: Vec<Bytes>,
    /// What was last wrong with connecting, so that it is said once.
    complaint: String,
}

impl Client {
    fn run(mut self, mut runtime: Runtime) {
        while let End::Gone = runtime.block_on(self.connection()) {
            match super::runtime() {
                Ok(fresh) => std::mem::replace(&mut runtime, fresh).shutdown_background(),
                // The old one serves as well, but for a writer that may be left in it.
                Err(error) => tracing::warn!("no fresh runtime for a connection: {error}"),
            }
            let _ = self.events.send(SpokeEvent::Gone);
        }
        // Name look-ups that are still under way are not waited for.
        runtime.shutdown_background();
    }

    /// Makes a connection and serves it to its end.
    async fn connection(&mut self) -> End {
        let Some((mut socket, mut monitor)) = self.connect().await else { return End::Closed };
        self.last += 1;
        self.connection.store(self.last, Ordering::SeqCst);
        // Nobody may be reading any more while the spoke is about to be closed.
        let _ = self.events.send(SpokeEvent::Connected);
        let mut pulse = Pulse::default();
        let end = self.talk(&mut socket, &mut monitor, &mut pulse).await;
        self.connection.store(0, Ordering::SeqCst);
        self.memory.set(None);
        self.sharing = Sharing::default();
        if let End::Closed = end {
            self.commands.close();
            let parts = pulse.watched();
            if parts && self.send(&mut socket, encoded(Body::Reset)).await.is_ok() {
                part(&mut socket, &mut monitor).await;
            } else {
                flush(&mut socket, || idle(&self.in_flight)).await;
            }
            drop(socket);
            finish().await;
        }
        end
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

    async fn talk(
        &mut self,
        socket: &mut DealerSocket,
        monitor: &mut Monitor,
        pulse: &mut Pulse,
    ) -> End {
        let mut ticks = ticks(&self.rhythm);
        let mut ticked = Instant::now();
        let mut introduced = false;
        loop {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => {
                        pulse.heard();
                        let parts = match self.sharing.receive(message.into_vec()) {
                            Ok(Received::Message(parts)) => parts,
                            Ok(Received::Answers(answers)) => {
                                let connection = self.last;
                                let accepted = self.sharing.accepted();
                                self.memory.set(
                                    accepted.map(|memory| Accepted { connection, memory }),
                                );
                                for part in answers {
                                    if self.send(socket, vec![part]).await.is_err() {
                                        return End::Gone;
                                    }
                                }
                                continue;
                            }
                            Err(error) => {
                                complain(&self.target, &error);
                                continue;
                            }
                        };
                        let event = match wire::decode(parts) {
                            Ok(message) => match message.header.body {
                                Body::Beat { every_ms } => {
                                    pulse.beaten(every_ms, &self.rhythm);
                                    continue;
                                }
                                Body::Reset => {
                                    tracing::debug!("{} has ended the connection", self.target);
                                    return End::Gone;
                                }
                                _ => SpokeEvent::Message(message),
                            },
                            Err(error) => SpokeEvent::Unreadable(error),
                        };
                        let _ = self.events.send(event);
                    }
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
                            pulse.said();
                            if self.send(socket, parts).await.is_err() {
                                return End::Gone;
                            }
                            // Behind the first message, which is the role's: from then on both
                            // ends watch, and share memory where they can.
                            if !std::mem::replace(&mut introduced, true)
                                && self.introduce(socket).await.is_err()
                            {
                                return End::Gone;
                            }
                        }
                        burst += 1;
                        next = if burst < SEND_BURST { self.commands.try_recv().ok() } else { None };
                    }
                }
                now = ticks.tick() => {
                    let elapsed = now.saturating_duration_since(ticked);
                    ticked = now;
                    match pulse.tick(elapsed, &self.rhythm) {
                        Due::Beat if idle(&self.in_flight) => {
                            if self.send(socket, self.beat.clone()).await.is_err() {
                                return End::Gone;
                            }
                        }
                        Due::Burial => {
                            tracing::warn!("{} is silent; connecting anew", self.target);
                            return End::Gone;
                        }
                        Due::Beat | Due::Nothing => {}
                    }
                }
            }
        }
    }

    async fn introduce(&mut self, socket: &mut DealerSocket) -> Result<(), ()> {
        self.send(socket, self.beat.clone()).await?;
        if self.is_local
            && let Some(offer) = self.sharing.offer()
        {
            self.send(socket, vec![offer]).await?;
        }
        Ok(())
    }

    /// Passes a message to the writer; an error means that there is none any more.
    async fn send(&self, socket: &mut DealerSocket, parts: Vec<Bytes>) -> Result<(), ()> {
        socket.send(outgoing(None, parts, &self.in_flight)).await.map_err(|error| {
            tracing::debug!("sending to {}: {error}", self.target);
        })
    }
}

/// Lets the hub close first, once it has read all: a beat of the hub that nobody reads any more
/// would break the connection under what is still on its way.
async fn part(socket: &mut DealerSocket, monitor: &mut Monitor) {
    let parting = async {
        loop {
            tokio::select! {
                received = socket.recv() => match received.map(|m| wire::decode(m.into_vec())) {
                    Ok(Ok(Message { header: Header { body: Body::Reset, .. }, .. })) => return,
                    Ok(_) => {}
                    Err(_) => return,
                },
                event = monitor.next() => match event {
                    Some(SocketEvent::Disconnected(_)) | None => return,
                    Some(_) => {}
                },
            }
        }
    };
    if tokio::time::timeout(FLUSH_TIMEOUT, parting).await.is_err() {
        tracing::warn!("the hub does not read; what was queued for it is lost");
    }
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
