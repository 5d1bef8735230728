//! Who is connected to whom over MPI: a state machine without MPI, threads or clocks.
//!
//! Every rank has one. Hubs and spokes of the rank are known to it by their names and numbers; what it
//! has to say to other ranks, and to its own, are [`Envelope`]s, which arrive in the order in which
//! they were sent.
//!
//! | envelope | from | what it says |
//! |---|---|---|
//! | `Open` | spoke | looks for the hub of this name, and waits until there is one |
//! | `Accepted` | hub | the connection stands; this is its number |
//! | `Up` | spoke | a message on the connection |
//! | `Down` | hub | a message on the connection |
//! | `Close` | spoke | looks for no hub any more |
//! | `Gone` | hub | the hub has closed; the spoke waits for the next one of the name |
//!
//! What travels on a connection that its receiver has closed meanwhile carries an old number and is
//! dropped.

use crate::link::{HubEvent, PeerId, SpokeEvent};
use crate::wire;
use bytes::Bytes;
use crossbeam_channel::Sender;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A process among those that were started together.
pub(crate) type Rank = u32;

/// What ranks say to each other about connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Envelope {
    /// See the table of the module.
    Open { spoke: u32, name: String },
    /// See the table of the module.
    Accepted { spoke: u32, line: u32 },
    /// See the table of the module.
    Up { spoke: u32, line: u32, parts: Vec<Bytes> },
    /// See the table of the module.
    Down { spoke: u32, line: u32, parts: Vec<Bytes> },
    /// See the table of the module.
    Close { spoke: u32 },
    /// See the table of the module.
    Gone { spoke: u32, line: u32 },
}

/// Peers of a hub that can be sent to; shared with whoever sends.
pub(crate) type Alive = Arc<Mutex<HashSet<PeerId>>>;

struct HubEnd {
    events: Sender<HubEvent>,
    alive: Alive,
}

struct SpokeEnd {
    rank: Rank,
    events: Sender<SpokeEvent>,
    connected: Arc<AtomicBool>,
    line: Option<u32>,
}

/// A spoke somewhere, as the rank of its hub knows it.
struct Caller {
    name: String,
    line: Option<Line>,
}

struct Line {
    number: u32,
    peer: PeerId,
    /// Whether the hub has heard of the peer.
    spoken: bool,
}

/// All connections that begin or end at one rank.
#[derive(Default)]
pub(crate) struct Switch {
    hubs: HashMap<String, HubEnd>,
    spokes: HashMap<u32, SpokeEnd>,
    callers: BTreeMap<(Rank, u32), Caller>,
    peers: HashMap<PeerId, (Rank, u32)>,
    lines: u32,
    last_peer: u64,
    out: Vec<(Rank, Envelope)>,
}

impl Switch {
    /// Returns what is to be said, in this order.
    pub(crate) fn take_out(&mut self) -> Vec<(Rank, Envelope)> {
        std::mem::take(&mut self.out)
    }

    /// A hub opens; `false` if there is one of that name.
    pub(crate) fn open_hub(&mut self, name: &str, events: Sender<HubEvent>, alive: Alive) -> bool {
        if self.hubs.contains_key(name) {
            return false;
        }
        self.hubs.insert(name.to_owned(), HubEnd { events, alive });
        let callers: Vec<_> =
            self.callers.iter().filter(|(_, c)| c.name == name).map(|(k, _)| *k).collect();
        for caller in callers {
            self.accept(caller);
        }
        true
    }

    /// The hub with these peers closes; its spokes wait for the next one of its name.
    pub(crate) fn close_hub(&mut self, name: &str, alive: &Alive) {
        if !self.hubs.get(name).is_some_and(|hub| Arc::ptr_eq(&hub.alive, alive)) {
            return;
        }
        self.hubs.remove(name);
        lock(alive).clear();
        for ((rank, spoke), caller) in self.callers.iter_mut().filter(|(_, c)| c.name == name) {
            if let Some(line) = caller.line.take() {
                self.peers.remove(&line.peer);
                self.out.push((*rank, Envelope::Gone { spoke: *spoke, line: line.number }));
            }
        }
    }

    /// A spoke looks for a hub on `rank`.
    pub(crate) fn open_spoke(
        &mut self,
        spoke: u32,
        rank: Rank,
        name: String,
        events: Sender<SpokeEvent>,
        connected: Arc<AtomicBool>,
    ) {
        self.spokes.insert(spoke, SpokeEnd { rank, events, connected, line: None });
        self.out.push((rank, Envelope::Open { spoke, name }));
    }

    /// A spoke leaves.
    pub(crate) fn close_spoke(&mut self, spoke: u32) {
        let Some(end) = self.spokes.remove(&spoke) else { return };
        end.connected.store(false, Ordering::Release);
        self.out.push((end.rank, Envelope::Close { spoke }));
    }

    /// A hub sends; a peer that is gone gets nothing.
    pub(crate) fn send_to_peer(&mut self, peer: PeerId, parts: Vec<Bytes>) {
        let Some(&(rank, spoke)) = self.peers.get(&peer) else { return };
        let line = self.callers.get(&(rank, spoke)).and_then(|c| c.line.as_ref());
        if let Some(line) = line {
            self.out.push((rank, Envelope::Down { spoke, line: line.number, parts }));
        }
    }

    /// A spoke sends; without a connection it is dropped.
    pub(crate) fn send_to_hub(&mut self, spoke: u32, parts: Vec<Bytes>) {
        let Some(end) = self.spokes.get(&spoke) else { return };
        if let Some(line) = end.line {
            self.out.push((end.rank, Envelope::Up { spoke, line, parts }));
        }
    }

    /// Another rank, or this one, has said something.
    pub(crate) fn on_envelope(&mut self, from: Rank, envelope: Envelope) {
        match envelope {
            Envelope::Open { spoke, name } => {
                let waits = self.hubs.contains_key(&name);
                self.callers.insert((from, spoke), Caller { name, line: None });
                if waits {
                    self.accept((from, spoke));
                }
            }
            Envelope::Close { spoke } => {
                let Some(caller) = self.callers.remove(&(from, spoke)) else { return };
                let Some(line) = caller.line else { return };
                self.peers.remove(&line.peer);
                if let Some(hub) = self.hubs.get(&caller.name) {
                    lock(&hub.alive).remove(&line.peer);
                    if line.spoken {
                        // A hub whose reader has left needs no news.
                        let _ = hub.events.send(HubEvent::Gone(line.peer));
                    }
                }
            }
            Envelope::Up { spoke, line: number, parts } => {
                let Some(caller) = self.callers.get_mut(&(from, spoke)) else { return };
                let Some(line) = caller.line.as_mut().filter(|l| l.number == number) else {
                    return;
                };
                let Some(hub) = self.hubs.get(&caller.name) else { return };
                line.spoken = true;
                let event = match wire::decode(parts) {
                    Ok(message) => HubEvent::Message(line.peer, message),
                    Err(error) => HubEvent::Unreadable(line.peer, error),
                };
                // As above.
                let _ = hub.events.send(event);
            }
            Envelope::Accepted { spoke, line } => {
                let Some(end) = self.spokes.get_mut(&spoke) else { return };
                end.line = Some(line);
                end.connected.store(true, Ordering::Release);
                // A spoke whose reader has left closes soon.
                let _ = end.events.send(SpokeEvent::Connected);
            }
            Envelope::Gone { spoke, line } => {
                let Some(end) = self.spokes.get_mut(&spoke) else { return };
                if end.line.take_if(|l| *l == line).is_some() {
                    end.connected.store(false, Ordering::Release);
                    // As above.
                    let _ = end.events.send(SpokeEvent::Gone);
                }
            }
            Envelope::Down { spoke, line, parts } => {
                let Some(end) = self.spokes.get(&spoke).filter(|e| e.line == Some(line)) else {
                    return;
                };
                let event = match wire::decode(parts) {
                    Ok(message) => SpokeEvent::Message(message),
                    Err(error) => SpokeEvent::Unreadable(error),
                };
                // As above.
                let _ = end.events.send(event);
            }
        }
    }

    fn accept(&mut self, key: (Rank, u32)) {
        let Some(caller) = self.callers.get_mut(&key) else { return };
        let Some(hub) = self.hubs.get(&caller.name) else { return };
        self.lines = self.lines.wrapping_add(1);
        self.last_peer += 1;
        let peer = PeerId(self.last_peer);
        caller.line = Some(Line { number: self.lines, peer, spoken: false });
        self.peers.insert(peer, key);
        lock(&hub.alive).insert(peer);
        self.out.push((key.0, Envelope::Accepted { spoke: key.1, line: self.lines }));
    }
}

/// Locks; nothing that holds the lock can stop halfway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::message::{Body, Message, Stamp};
    use crossbeam_channel::{Receiver, unbounded};
    use std::collections::VecDeque;

    /// Ranks whose envelopes travel when told to, in order between each two of them.
    struct Ranks {
        switches: Vec<Switch>,
        under_way: BTreeMap<(Rank, Rank), VecDeque<Envelope>>,
    }

    impl Ranks {
        fn new(n: usize) -> Self {
            let switches = (0..n).map(|_| Switch::default()).collect();
            Self { switches, under_way: BTreeMap::new() }
        }

        fn collect(&mut self) {
            for (from, switch) in (0..).zip(&mut self.switches) {
                for (to, envelope) in switch.take_out() {
                    self.under_way.entry((from, to)).or_default().push_back(envelope);
                }
            }
        }

        fn deliver(&mut self, from: Rank, to: Rank) -> bool {
            self.collect();
            let Some(envelope) = self.under_way.get_mut(&(from, to)).and_then(VecDeque::pop_front)
            else {
                return false;
            };
            self.switches[to as usize].on_envelope(from, envelope);
            true
        }

        fn settle(&mut self) {
            loop {
                self.collect();
                let next = self.under_way.iter().find(|(_, q)| !q.is_empty()).map(|(k, _)| *k);
                let Some((from, to)) = next else { break };
                self.deliver(from, to);
            }
        }

        fn hub(&mut self, rank: Rank, name: &str) -> (Receiver<HubEvent>, Alive) {
            let (tx, events) = unbounded();
            let alive = Alive::default();
            assert!(self.switches[rank as usize].open_hub(name, tx, alive.clone()));
            (events, alive)
        }

        fn spoke(&mut self, rank: Rank, number: u32, to: Rank, name: &str) -> Receiver<SpokeEvent> {
            let (tx, events) = unbounded();
            let connected = Arc::default();
            self.switches[rank as usize].open_spoke(number, to, name.into(), tx, connected);
            events
        }
    }

    fn want(tickets: u32) -> Vec<Bytes> {
        wire::encode(&Message::new(Stamp::default(), Body::Want { tickets })).unwrap()
    }

    fn tickets(message: &Message) -> u32 {
        match message.header.body {
            Body::Want { tickets } => tickets,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_sent_to_a_hub_that_has_closed_does_not_reach_the_next_one() {
        let mut ranks = Ranks::new(2);
        let spoke = ranks.spoke(1, 1, 0, "a");
        let (first, old) = ranks.hub(0, "a");
        ranks.settle();
        assert!(matches!(spoke.try_recv(), Ok(SpokeEvent::Connected)));
        ranks.switches[1].send_to_hub(1, want(1));
        ranks.collect();
        // The hub closes and another one opens while that is under way.
        ranks.switches[0].close_hub("a", &old);
        let (second, alive) = ranks.hub(0, "a");
        ranks.switches[0].close_hub("a", &old);
        ranks.settle();
        assert!(first.try_recv().is_err() && second.try_recv().is_err());
        assert!(matches!(spoke.try_recv(), Ok(SpokeEvent::Gone)));
        assert!(matches!(spoke.try_recv(), Ok(SpokeEvent::Connected)));
        ranks.switches[1].send_to_hub(1, want(2));
        ranks.settle();
        let Ok(HubEvent::Message(peer, message)) = second.try_recv() else { panic!("nothing") };
        assert_eq!(tickets(&message), 2);
        assert!(lock(&alive).contains(&peer));
        ranks.switches[0].send_to_peer(peer, want(3));
        ranks.settle();
        assert!(matches!(spoke.try_recv(), Ok(SpokeEvent::Message(m)) if tickets(&m) == 3));
    }

    #[test]
    fn a_spoke_that_leaves_is_gone_once_and_only_if_it_spoke() {
        let mut ranks = Ranks::new(3);
        let (events, alive) = ranks.hub(0, "a");
        let quiet = ranks.spoke(1, 1, 0, "a");
        let loud = ranks.spoke(2, 1, 0, "a");
        ranks.settle();
        ranks.switches[2].send_to_hub(1, want(7));
        ranks.switches[1].close_spoke(1);
        ranks.switches[2].close_spoke(1);
        ranks.settle();
        let Ok(HubEvent::Message(peer, _)) = events.try_recv() else { panic!("nothing") };
        assert!(matches!(events.try_recv(), Ok(HubEvent::Gone(p)) if p == peer));
        assert!(events.try_recv().is_err());
        assert!(lock(&alive).is_empty());
        drop((quiet, loud));
    }

    #[test]
    fn names_are_apart_and_taken_once() {
        let mut ranks = Ranks::new(1);
        let (a, _) = ranks.hub(0, "a");
        let (b, _) = ranks.hub(0, "b");
        let (tx, _rx) = unbounded();
        assert!(!ranks.switches[0].open_hub("a", tx, Alive::default()));
        let _spoke = ranks.spoke(0, 1, 0, "b");
        ranks.settle();
        ranks.switches[0].send_to_hub(1, want(1));
        ranks.settle();
        assert!(a.try_recv().is_err());
        assert!(matches!(b.try_recv(), Ok(HubEvent::Message(..))));
    }

    #[test]
    fn garbage_is_reported_with_its_peer() {
        let mut ranks = Ranks::new(2);
        let (events, _) = ranks.hub(0, "a");
        let _spoke = ranks.spoke(1, 4, 0, "a");
        ranks.settle();
        ranks.switches[1].send_to_hub(4, vec![Bytes::from_static(b"nothing that we say")]);
        ranks.settle();
        assert!(matches!(events.try_recv(), Ok(HubEvent::Unreadable(..))));
    }
}
