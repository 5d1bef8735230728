//! The spoke: a DEALER, a new one for each connection.

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
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
    let client = Client {
        target: target.to_string(),
        events: events_tx,
        commands: commands_rx,
        connection: connection.clone(),
        last: 0,
        in_flight: InFlight::default(),
        complaint: String::new(),
    };
    let thread = SocketThread::spawn("zmq-spoke", move || client.run())?;
    let tx = Arc::new(ZmqSpoke { commands, connection, thread });
    Ok(Spoke { address: address.to_owned(), events, tx })
}

struct ZmqSpoke {
    commands: mpsc::UnboundedSender<Command>,
    /// Number of the connection that stands; 0: none.
    connection: Arc<AtomicU64>,
    thread: SocketThread,
}

impl SpokeSend for ZmqSpoke {
    fn send(&self, message: Message) -> bool {
        let connection = self.connection.load(Ordering::SeqCst);
        if connection == 0 {
            return false;
        }
        match wire::encode(&message) {
            Ok(parts) => self.commands.send(Command::Send { connection, parts }).is_ok(),
            Err(error) => {
                log_unsendable(&error);
                false
            }
        }
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
        loop {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => {
                        let event = match wire::decode(message.into_vec()) {
                            Ok(message) => SpokeEvent::Message(message),
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
                            let message = outgoing(None, parts, &self.in_flight);
                            if let Err(error) = socket.send(message).await {
                                tracing::debug!("sending to {}: {error}", self.target);
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
