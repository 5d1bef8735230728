//! Channels of one process; messages move, nothing is encoded or copied.
//!
//! Endpoints have names, known to the whole process. A spoke may come before its hub and waits
//! for it; when the hub closes, its spokes wait for the next one of the name. `inproc://*` binds a
//! name that nobody else has; [`Hub::address`] tells it.
//!
//! Locks are taken in this order and never the other way round: endpoints, then `Hub::peers`,
//! then one `Spoke::line`. Events are sent while the lock that guards their order is held: nothing
//! of a peer follows its `Gone`.

use super::{Hub, HubEvent, HubSend, Link, PeerId, Spoke, SpokeEvent, SpokeSend};
use crate::error::{Failure, Kind};
use crate::message::Message;
use crossbeam_channel::{Sender, unbounded};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

/// Channels of one process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inproc;

/// What stands under a name: a hub, or spokes that wait for one.
#[derive(Default)]
struct Endpoint {
    hub: Option<Arc<HubCore>>,
    waiting: Vec<Weak<SpokeCore>>,
}

static ENDPOINTS: LazyLock<Mutex<HashMap<String, Endpoint>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

struct HubCore {
    events: Sender<HubEvent>,
    peers: Mutex<HashMap<PeerId, Arc<SpokeCore>>>,
}

struct SpokeCore {
    /// `None` once the spoke is closed, so that its reader sees the end.
    events: Mutex<Option<Sender<SpokeEvent>>>,
    line: Mutex<Option<Line>>,
}

/// A spoke's connection.
struct Line {
    hub: Arc<HubCore>,
    peer: PeerId,
    /// Whether the hub has heard of the peer.
    spoken: bool,
}

/// Locks; a panic elsewhere leaves these maps whole, since no update of them can stop halfway.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn name(address: &str) -> Result<&str, Failure> {
    match address.strip_prefix("inproc://") {
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Failure::new(
            Kind::Config,
            format!("'{address}' is no in-process address; write inproc://NAME"),
        )),
    }
}

impl Link for Inproc {
    fn hub(&self, address: &str) -> Result<Hub, Failure> {
        let name = match name(address)? {
            "*" => format!("*{}", NEXT.fetch_add(1, Ordering::Relaxed)),
            name => name.to_owned(),
        };
        let address = format!("inproc://{name}");
        let (tx, events) = unbounded();
        let core = Arc::new(HubCore { events: tx, peers: Mutex::default() });
        let mut endpoints = lock(&ENDPOINTS);
        let endpoint = endpoints.entry(name.clone()).or_default();
        if endpoint.hub.is_some() {
            return Err(Failure::new(
                Kind::Peer,
                format!("cannot bind {address}: the name is in use; choose another with --bind"),
            ));
        }
        endpoint.hub = Some(core.clone());
        for spoke in endpoint.waiting.drain(..).filter_map(|w| w.upgrade()) {
            core.connect(spoke);
        }
        drop(endpoints);
        Ok(Hub { address, events, tx: Arc::new(InprocHub { name, core: Mutex::new(Some(core)) }) })
    }

    fn spoke(&self, address: &str) -> Result<Spoke, Failure> {
        let name = name(address)?.to_owned();
        let (tx, events) = unbounded();
        let core = Arc::new(SpokeCore { events: Mutex::new(Some(tx)), line: Mutex::default() });
        let mut endpoints = lock(&ENDPOINTS);
        let endpoint = endpoints.entry(name.clone()).or_default();
        match &endpoint.hub {
            Some(hub) => hub.connect(core.clone()),
            None => endpoint.waiting.push(Arc::downgrade(&core)),
        }
        drop(endpoints);
        Ok(Spoke { address: address.to_owned(), events, tx: Arc::new(InprocSpoke { name, core }) })
    }
}

impl HubCore {
    /// Joins a spoke to the hub; the caller holds the lock of the endpoints.
    fn connect(self: &Arc<Self>, spoke: Arc<SpokeCore>) {
        let peer = PeerId(NEXT.fetch_add(1, Ordering::Relaxed));
        let mut peers = lock(&self.peers);
        *lock(&spoke.line) = Some(Line { hub: self.clone(), peer, spoken: false });
        spoke.tell(SpokeEvent::Connected);
        peers.insert(peer, spoke);
    }
}

impl SpokeCore {
    /// Passes an event on; `false` if nobody reads any more.
    fn tell(&self, event: SpokeEvent) -> bool {
        lock(&self.events).as_ref().is_some_and(|tx| tx.send(event).is_ok())
    }
}

struct InprocHub {
    name: String,
    core: Mutex<Option<Arc<HubCore>>>,
}

impl HubSend for InprocHub {
    fn send(&self, peer: PeerId, message: Message) -> bool {
        let Some(core) = lock(&self.core).clone() else { return false };
        let peers = lock(&core.peers);
        peers.get(&peer).is_some_and(|spoke| spoke.tell(SpokeEvent::Message(message)))
    }

    fn close(&self) {
        let Some(core) = lock(&self.core).take() else { return };
        let mut endpoints = lock(&ENDPOINTS);
        let Some(endpoint) = endpoints.get_mut(&self.name) else { return };
        endpoint.hub = None;
        for (_, spoke) in lock(&core.peers).drain() {
            *lock(&spoke.line) = None;
            spoke.tell(SpokeEvent::Gone);
            endpoint.waiting.push(Arc::downgrade(&spoke));
        }
        if endpoint.waiting.is_empty() {
            endpoints.remove(&self.name);
        }
    }
}

impl Drop for InprocHub {
    fn drop(&mut self) {
        self.close();
    }
}

struct InprocSpoke {
    name: String,
    core: Arc<SpokeCore>,
}

impl SpokeSend for InprocSpoke {
    fn send(&self, message: Message) -> bool {
        let mut line = lock(&self.core.line);
        let Some(line) = line.as_mut() else { return false };
        line.spoken = true;
        line.hub.events.send(HubEvent::Message(line.peer, message)).is_ok()
    }

    fn is_connected(&self) -> bool {
        lock(&self.core.line).is_some()
    }

    fn close(&self) {
        let mut endpoints = lock(&ENDPOINTS);
        let here = Arc::as_ptr(&self.core);
        if let Some(endpoint) = endpoints.get_mut(&self.name) {
            endpoint.waiting.retain(|w| w.as_ptr() != here && w.strong_count() > 0);
            if endpoint.hub.is_none() && endpoint.waiting.is_empty() {
                endpoints.remove(&self.name);
            }
        }
        let line = lock(&self.core.line).take();
        if let Some(line) = line {
            lock(&line.hub.peers).remove(&line.peer);
            if line.spoken {
                // A hub whose reader has left needs no news.
                let _ = line.hub.events.send(HubEvent::Gone(line.peer));
            }
        }
        *lock(&self.core.events) = None;
    }
}

impl Drop for InprocSpoke {
    fn drop(&mut self) {
        self.close();
    }
}
