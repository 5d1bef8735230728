//! The hub: a ROUTER.
//!
//! A peer gets its [`PeerId`] with its first message that is not a beat. One that cannot be understood is told why
//! once, in a `Refused` of this program's own version: whoever speaks another version sees from
//! its first six bytes which one is spoken here.
//!
//! A peer that is dead is told so (`Reset`) and dropped: once it goes on, it reads what was queued,
//! the `Reset` and the end of the connection. What it says meanwhile is never read. Closing says
//! `Reset` too, so that the peer closes first, having read everything.

use super::memory::Outgoing;
use super::pulse::{Due, Pulse, Rhythm};
use super::sharing::{Received, Sharing, complain};
use super::{
    FLUSH_TIMEOUT, InFlight, SEND_BURST, SocketThread, bind, encoded, finish, flush, idle, options,
    outgoing, ticks,
};
use crate::error::{Failure, Kind};
use crate::link::address::ZmqAddress;
use crate::link::{Hub, HubEvent, HubSend, PeerId};
use crate::message::{Body, Header, Message, Stamp};
use crate::wire::{self, WireError};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use zeromq::util::PeerIdentity;
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
pub(super) fn open(address: &ZmqAddress, rhythm: Rhythm) -> Result<Hub, Failure> {
    let (listener, real) = bind::bind(address, rhythm.dead_after)?;
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
                rhythm,
                beat: encoded(Body::Beat { every_ms: rhythm.every_ms() }),
            };
            server.serve(socket, monitor, commands_rx).await;
        }
    };
    let thread = SocketThread::spawn("zmq-hub", move |runtime| {
        runtime.block_on(async { work().await });
        runtime.shutdown_background();
    })?;
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

/// A connection over which something was said.
#[derive(Default)]
struct Peer {
    /// Its name, once it has said something to the role.
    id: Option<PeerId>,
    /// Whether it was told that it cannot be understood.
    told: bool,
    /// What is queued for it.
    in_flight: InFlight,
    pulse: Pulse,
    sharing: Sharing,
}

/// What the link itself does about a message.
enum Answer {
    Say(Vec<Bytes>),
    /// Says several messages of one part each.
    SayEach(Vec<Bytes>),
    /// The peer closes, and waits for this end to do so first.
    Part,
}

type Monitor = futures::channel::mpsc::Receiver<SocketEvent>;

struct Server {
    events: Sender<HubEvent>,
    routes: Routes,
    peers: HashMap<Bytes, Peer>,
    next: u64,
    rhythm: Rhythm,
    /// A beat, encoded.
    beat: Vec<Bytes>,
}

impl Server {
    async fn serve(
        mut self,
        mut socket: RouterSocket,
        mut monitor: Monitor,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut ticks = ticks(&self.rhythm);
        let mut ticked = Instant::now();
        let mut open = true;
        while open {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => {
                        match self.receive(message) {
                            Some((identity, Answer::Say(parts))) => {
                                self.send(&mut socket, identity, parts).await;
                            }
                            Some((identity, Answer::SayEach(messages))) => {
                                for part in messages {
                                    self.send(&mut socket, identity.clone(), vec![part]).await;
                                }
                            }
                            Some((identity, Answer::Part)) => self.drop_peer(&socket, identity),
                            None => {}
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
                now = ticks.tick() => {
                    let elapsed = now.saturating_duration_since(ticked);
                    ticked = now;
                    self.tick(&mut socket, elapsed).await;
                }
            }
        }
        commands.close();
        self.routes.lock().clear();
        for error in socket.unbind_all().await {
            tracing::debug!("unbinding: {error}");
        }
        if self.part(&mut socket, &mut monitor).await {
            flush(&mut socket, || self.peers.values().all(|peer| idle(&peer.in_flight))).await;
        }
        drop(socket);
        finish().await;
    }

    /// Passes on what a peer said; returns what the link itself answers.
    fn receive(&mut self, message: ZmqMessage) -> Option<(Bytes, Answer)> {
        let mut parts = message.into_vecdeque();
        let identity = parts.pop_front()?;
        let peer = self.peers.entry(identity.clone()).or_default();
        peer.pulse.heard();
        let parts = match peer.sharing.receive(parts.into()) {
            Ok(Received::Message(parts)) => parts,
            Ok(Received::Answers(answers)) => {
                if let Some(id) = peer.id
                    && let Some(route) = self.routes.lock().get_mut(&id)
                {
                    route.memory = peer.sharing.accepted();
                }
                return Some((identity, Answer::SayEach(answers)));
            }
            Err(error) => {
                complain(&self.name(&identity), &error);
                return None;
            }
        };
        let decoded = wire::decode(parts);
        match &decoded {
            Ok(Message { header: Header { body: Body::Beat { every_ms }, .. }, .. }) => {
                let first = peer.pulse.beaten(*every_ms, &self.rhythm);
                return first.then(|| (identity, Answer::Say(self.beat.clone())));
            }
            Ok(Message { header: Header { body: Body::Reset, .. }, .. }) => {
                return Some((identity, Answer::Part));
            }
            _ => {}
        }
        let id = *peer.id.get_or_insert_with(|| {
            let id = PeerId(self.next);
            self.next += 1;
            let route = Route { identity: identity.clone(), memory: None };
            self.routes.lock().insert(id, route);
            id
        });
        let (event, answer) = match decoded {
            Ok(message) => (HubEvent::Message(id, message), None),
            Err(error) => {
                let answer = (!std::mem::replace(&mut peer.told, true)).then(|| refusal(&error));
                (HubEvent::Unreadable(id, error), answer)
            }
        };
        // Nobody may be reading any more while the hub is about to be closed.
        let _ = self.events.send(event);
        answer.flatten().map(|parts| (identity, Answer::Say(parts)))
    }

    /// Forgets a peer, which the role hears if it knows the peer.
    fn lose(&mut self, identity: &Bytes) {
        if let Some(id) = self.peers.remove(identity).and_then(|peer| peer.id) {
            self.routes.lock().remove(&id);
            let _ = self.events.send(HubEvent::Gone(id));
        }
    }

    /// Says to peers that this end lives, and drops those that do not.
    async fn tick(&mut self, socket: &mut RouterSocket, elapsed: Duration) {
        let mut beats = Vec::new();
        let mut dead = Vec::new();
        for (identity, peer) in &mut self.peers {
            match peer.pulse.tick(elapsed, &self.rhythm) {
                Due::Beat if !peer.told && idle(&peer.in_flight) => beats.push(identity.clone()),
                Due::Burial => dead.push(identity.clone()),
                Due::Beat | Due::Nothing => {}
            }
        }
        for identity in beats {
            self.send(socket, identity, self.beat.clone()).await;
        }
        for identity in dead {
            tracing::warn!("{} is silent and taken for dead", self.name(&identity));
            self.send(socket, identity.clone(), encoded(Body::Reset)).await;
            self.drop_peer(socket, identity);
        }
    }

    /// Ends a connection once what is queued for it is written.
    fn drop_peer(&mut self, socket: &RouterSocket, identity: Bytes) {
        self.lose(&identity);
        if let Ok(identity) = PeerIdentity::try_from(identity) {
            socket.backend().peer_disconnected(&identity);
        }
    }

    /// Lets peers that understand it close first, behind the last message for them: a beat that
    /// nobody reads any more would break the connection under what is still on its way.
    ///
    /// Returns `false` if one of them does not go.
    async fn part(&mut self, socket: &mut RouterSocket, monitor: &mut Monitor) -> bool {
        let watched = self.peers.iter().filter(|(_, peer)| peer.pulse.watched());
        let identities: Vec<_> = watched.map(|(identity, _)| identity.clone()).collect();
        for identity in identities {
            self.send(socket, identity, encoded(Body::Reset)).await;
        }
        let parting = async {
            while self.peers.values().any(|peer| peer.pulse.watched()) {
                tokio::select! {
                    received = socket.recv() => match received {
                        // It closes as well, and waits for this end.
                        Ok(message) => if let Some(identity) = parting_words(message) {
                            self.drop_peer(socket, identity);
                        },
                        Err(_) => tokio::task::yield_now().await,
                    },
                    event = monitor.next() => match event {
                        Some(SocketEvent::Disconnected(identity)) => {
                            self.peers.remove(&Bytes::from(identity));
                        }
                        Some(_) => {}
                        None => return,
                    },
                }
            }
        };
        let parted = tokio::time::timeout(FLUSH_TIMEOUT, parting).await.is_ok();
        if !parted {
            tracing::warn!("a peer does not read; what was queued for it is lost");
        }
        parted
    }

    /// Returns what the log calls a peer.
    fn name(&self, identity: &Bytes) -> String {
        match self.peers.get(identity).and_then(|peer| peer.id) {
            Some(id) => id.to_string(),
            None => "a peer that has said nothing yet".into(),
        }
    }

    async fn send(&mut self, socket: &mut RouterSocket, identity: Bytes, parts: Vec<Bytes>) {
        // It is gone; its `Gone` is on the way to whoever sent this.
        let Some(peer) = self.peers.get_mut(&identity) else { return };
        peer.pulse.said();
        let message = outgoing(Some(identity), parts, &peer.in_flight);
        // The monitor tells of a peer that is gone; its `Gone` follows.
        if let Err(error) = socket.send(message).await {
            tracing::debug!("sending: {error}");
        }
    }
}

/// Returns who says that it closes, if that is what a message says.
fn parting_words(message: ZmqMessage) -> Option<Bytes> {
    let mut parts = message.into_vecdeque();
    let identity = parts.pop_front()?;
    let message = wire::decode(parts.into()).ok()?;
    matches!(message.header.body, Body::Reset).then_some(identity)
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
