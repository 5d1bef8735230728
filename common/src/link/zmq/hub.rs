//! The hub: a ROUTER.
//!
//! A peer gets its [`PeerId`] with its first message that is not a beat. One that cannot be understood is told why
//! once, in a `Refused` of this program's own version: whoever speaks another version sees from
//! its first six bytes which one is spoken here.
//!
//! A peer that is dead is told so (`Reset`) and dropped: once it goes on, it reads what was queued,
//! the `Reset` and the end of the connection. What it says meanwhile is never read.

use super::pulse::{Due, Pulse, Rhythm};
use super::{
    InFlight, SEND_BURST, SocketThread, bind, encoded, finish, flush, idle, options, outgoing,
    ticks,
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

/// Identities of the peers that are there, for those who send.
#[derive(Clone, Default)]
struct Identities(Arc<Mutex<HashMap<PeerId, Bytes>>>);

impl Identities {
    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Bytes>> {
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
    let identities = Identities::default();
    let (ready, is_ready): (_, Receiver<Result<(), Failure>>) = bounded(1);
    let shown = real.to_string();
    let work = {
        let identities = identities.clone();
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
                identities,
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
    Ok(Hub { address: shown, events, tx: Arc::new(ZmqHub { commands, identities, thread }) })
}

struct ZmqHub {
    commands: mpsc::UnboundedSender<Command>,
    identities: Identities,
    thread: SocketThread,
}

impl HubSend for ZmqHub {
    fn send(&self, peer: PeerId, message: Message) -> bool {
        let Some(identity) = self.identities.lock().get(&peer).cloned() else { return false };
        match wire::encode(&message) {
            Ok(parts) => self.commands.send(Command::Send { identity, parts }).is_ok(),
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
}

struct Server {
    events: Sender<HubEvent>,
    identities: Identities,
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
        mut monitor: futures::channel::mpsc::Receiver<SocketEvent>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut ticks = ticks(&self.rhythm);
        let mut ticked = Instant::now();
        let mut open = true;
        while open {
            tokio::select! {
                received = socket.recv() => match received {
                    Ok(message) => {
                        if let Some((identity, answer)) = self.receive(message) {
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
                now = ticks.tick() => {
                    let elapsed = now.saturating_duration_since(ticked);
                    ticked = now;
                    self.tick(&mut socket, elapsed).await;
                }
            }
        }
        commands.close();
        self.identities.lock().clear();
        for error in socket.unbind_all().await {
            tracing::debug!("unbinding: {error}");
        }
        flush(&mut socket, || self.peers.values().all(|peer| idle(&peer.in_flight))).await;
        drop(socket);
        finish().await;
    }

    /// Passes on what a peer said; returns what the link itself answers.
    fn receive(&mut self, message: ZmqMessage) -> Option<(Bytes, Vec<Bytes>)> {
        let mut parts = message.into_vecdeque();
        let identity = parts.pop_front()?;
        let peer = self.peers.entry(identity.clone()).or_default();
        peer.pulse.heard();
        let decoded = wire::decode(parts.into());
        match &decoded {
            Ok(Message { header: Header { body: Body::Beat { every_ms }, .. }, .. }) => {
                let first = peer.pulse.beaten(*every_ms, &self.rhythm);
                return first.then(|| (identity, self.beat.clone()));
            }
            // A spoke that has given this end up says nothing more.
            Ok(Message { header: Header { body: Body::Reset, .. }, .. }) => return None,
            _ => {}
        }
        let id = *peer.id.get_or_insert_with(|| {
            let id = PeerId(self.next);
            self.next += 1;
            self.identities.lock().insert(id, identity.clone());
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
        answer.flatten().map(|parts| (identity, parts))
    }

    /// Forgets a peer, which the role hears if it knows the peer.
    fn lose(&mut self, identity: &Bytes) {
        if let Some(id) = self.peers.remove(identity).and_then(|peer| peer.id) {
            self.identities.lock().remove(&id);
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
            self.lose(&identity);
            if let Ok(identity) = PeerIdentity::try_from(identity) {
                socket.backend().peer_disconnected(&identity);
            }
        }
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
