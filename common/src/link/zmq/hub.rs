//! The hub: a ROUTER.
//!
//! A peer gets its [`PeerId`] with its first message. One that cannot be understood is told why
//! once, in a `Refused` of this program's own version: whoever speaks another version sees from
//! its first six bytes which one is spoken here.

use super::memory::{self, Incoming, MemoryError, Outgoing, Said};
use super::{InFlight, SEND_BURST, SocketThread, bind, finish, flush, options, outgoing};
use crate::error::{Failure, Kind};
use crate::link::address::ZmqAddress;
use crate::link::{Hub, HubEvent, HubSend, PeerId};
use crate::message::{Body, Message, Stamp};
use crate::wire::{self, WireError};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use zeromq::{RouterSocket, Socket, SocketEvent, SocketRecv, SocketSend, ZmqMessage};

enum Command {
    Send { identity: Bytes, parts: Vec<Bytes> },
    Close,
}

/// How a peer is reached.
#[derive(Clone)]
struct Route {
    identity: Bytes,
    /// Where big parts go, once the peer has accepted it.
    memory: Option<Arc<Outgoing>>,
}

/// Routes to the peers that are there, for those who send.
#[derive(Clone, Default)]
struct Routes(Arc<Mutex<HashMap<PeerId, Route>>>);

impl Routes {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Route>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Binds a hub and starts its thread.
///
/// # Errors
/// See [`bind::bind`].
pub(super) fn open(address: &ZmqAddress) -> Result<Hub, Failure> {
    let (listener, real) = bind::bind(address)?;
    let (events_tx, events) = unbounded();
    let (commands, commands_rx) = mpsc::unbounded_channel();
    let routes = Routes::default();
    let (ready, is_ready): (_, Receiver<Result<(), Failure>>) = bounded(1);
    let shown = real.to_string();
    let work = {
        let routes = routes.clone();
        let shown = shown.clone();
        move || async move {
            let mut socket = RouterSocket::with_options(options());
            let monitor = socket.monitor();
            let bound =
                socket.bind_listener(listener).await.map(drop).map_err(|e| {
                    Failure::new(Kind::Peer, format!("cannot listen on {shown}: {e}"))
                });
            let failed = bound.is_err();
            if ready.send(bound).is_err() || failed {
                return;
            }
            let server = Server {
                events: events_tx,
                routes,
                peers: HashMap::new(),
                next: 1,
                in_flight: InFlight::default(),
            };
            server.serve(socket, monitor, commands_rx).await;
        }
    };
    let thread = SocketThread::spawn("zmq-hub", work)?;
    is_ready.recv().unwrap_or_else(|_| {
        Err(Failure::new(Kind::Peer, format!("cannot listen on {shown}: its thread has ended")))
    })?;
    Ok(Hub { address: shown, events, tx: Arc::new(ZmqHub { commands, routes, thread }) })
}

struct ZmqHub {
    commands: mpsc::UnboundedSender<Command>,
    routes: Routes,
    thread: SocketThread,
}

impl HubSend for ZmqHub {
    fn send(&self, peer: PeerId, message: Message) -> bool {
        let Some(Route { identity, memory }) = self.routes.lock().get(&peer).cloned() else {
            return false;
        };
        match wire::encode(&message) {
            Ok(parts) => {
                let placed = memory.and_then(|memory| memory.place(&parts));
                let parts = placed.unwrap_or(parts);
                self.commands.send(Command::Send { identity, parts }).is_ok()
            }
            Err(error) => {
                super::log_unsendable(&error);
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

struct Peer {
    id: PeerId,
    /// Whether it was told that it cannot be understood.
    told: bool,
    /// Where it puts big parts.
    incoming: Option<Incoming>,
    /// What was offered to it and is not accepted yet.
    offered: Option<Arc<Outgoing>>,
}

struct Server {
    events: Sender<HubEvent>,
    routes: Routes,
    peers: HashMap<Bytes, Peer>,
    next: u64,
    in_flight: InFlight,
}

impl Server {
    async fn serve(
        mut self,
        mut socket: RouterSocket,
        mut monitor: futures::channel::mpsc::Receiver<SocketEvent>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut open = true;
        while open {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => {
                        for (identity, answer) in self.receive(message) {
                            self.send(&mut socket, identity, answer).await;
                        }
                    }
                    // The crate drops the peer that caused it and says so on the monitor.
                    Err(error) => {
                        tracing::debug!("receiving: {error}");
                        tokio::task::yield_now().await;
                    }
                },
                Some(event) = monitor.next() => if let SocketEvent::Disconnected(identity) = event {
                    self.lose(&identity.into());
                },
                command = commands.recv() => {
                    let mut next = Some(command.unwrap_or(Command::Close));
                    for _ in 0..SEND_BURST {
                        match next.take() {
                            Some(Command::Send { identity, parts }) => {
                                self.send(&mut socket, identity, parts).await;
                            }
                            Some(Command::Close) => {
                                open = false;
                                break;
                            }
                            None => break,
                        }
                        next = commands.try_recv().ok();
                    }
                    if let Some(Command::Send { identity, parts }) = next {
                        self.send(&mut socket, identity, parts).await;
                    }
                }
            }
        }
        commands.close();
        self.routes.lock().clear();
        for error in socket.unbind_all().await {
            tracing::debug!("unbinding: {error}");
        }
        flush(&mut socket, &self.in_flight).await;
        drop(socket);
        finish().await;
    }

    /// Passes on what a peer said; returns the answers of the link itself.
    fn receive(&mut self, message: ZmqMessage) -> Vec<(Bytes, Vec<Bytes>)> {
        let mut parts = message.into_vecdeque();
        let Some(identity) = parts.pop_front() else { return Vec::new() };
        let peer = self.peers.entry(identity.clone()).or_insert_with(|| {
            let id = PeerId(self.next);
            self.next += 1;
            self.routes.lock().insert(id, Route { identity: identity.clone(), memory: None });
            Peer { id, told: false, incoming: None, offered: None }
        });
        let mut parts = Vec::from(parts);
        if parts.first().is_some_and(|head| memory::is_ours(head)) {
            match peer.share(&parts, &self.routes) {
                Ok(Shared::Message(whole)) => parts = whole,
                Ok(Shared::Answers(answers)) => {
                    return answers.into_iter().map(|a| (identity.clone(), vec![a])).collect();
                }
                Err(error @ MemoryError::Garbage(_)) => {
                    tracing::error!(peer = %peer.id, "a message was dropped: {error}");
                    return Vec::new();
                }
                Err(error) => {
                    let why = crate::error::chain(&error);
                    tracing::debug!(peer = %peer.id, "{why}; all goes through the socket");
                    return Vec::new();
                }
            }
        }
        let (event, answer) = match wire::decode(parts) {
            Ok(message) => (HubEvent::Message(peer.id, message), None),
            Err(error) => {
                let answer = (!std::mem::replace(&mut peer.told, true)).then(|| refusal(&error));
                (HubEvent::Unreadable(peer.id, error), answer)
            }
        };
        // Nobody may be reading any more while the hub is about to be closed.
        let _ = self.events.send(event);
        answer.flatten().map(|parts| (identity, parts)).into_iter().collect()
    }

    fn lose(&mut self, identity: &Bytes) {
        if let Some(peer) = self.peers.remove(identity) {
            self.routes.lock().remove(&peer.id);
            let _ = self.events.send(HubEvent::Gone(peer.id));
        }
    }

    async fn send(&self, socket: &mut RouterSocket, identity: Bytes, parts: Vec<Bytes>) {
        let message = outgoing(Some(identity), parts, &self.in_flight);
        // The monitor tells of a peer that is gone; its `Gone` follows.
        if let Err(error) = socket.send(message).await {
            tracing::debug!("sending: {error}");
        }
    }
}

/// What came of a message about shared memory.
enum Shared {
    /// The message whose payload lay there.
    Message(Vec<Bytes>),
    /// What is to be said in return.
    Answers(Vec<Bytes>),
}

impl Peer {
    fn share(&mut self, parts: &[Bytes], routes: &Routes) -> Result<Shared, MemoryError> {
        match memory::read(&parts[0])? {
            Said::Offer(offer) => {
                let (incoming, acceptance) = Incoming::open(&offer)?;
                self.incoming = Some(incoming);
                let own = Arc::new(Outgoing::new()?);
                let answers = vec![acceptance, own.offer()];
                self.offered = Some(own);
                Ok(Shared::Answers(answers))
            }
            Said::Acceptance(token) => {
                let accepted = self.offered.take().filter(|o| o.is_accepted_by(&token));
                if let Some(route) = routes.lock().get_mut(&self.id) {
                    route.memory = accepted;
                }
                Ok(Shared::Answers(Vec::new()))
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

/// Returns the answer to what cannot be read.
fn refusal(error: &WireError) -> Option<Vec<Bytes>> {
    let text = match error {
        WireError::Version { theirs, ours } => format!(
            "it speaks wire version {ours} and was sent version {theirs}; use the same ptystream \
             everywhere"
        ),
        error => format!("it was sent what it cannot read: {error}"),
    };
    let refused = Body::Refused(Failure::new(Kind::Peer, text));
    wire::encode(&Message::new(Stamp::default(), refused)).ok()
}
