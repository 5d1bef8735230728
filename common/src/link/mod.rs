//! Carriers of messages.
//!
//! A *hub* binds an address and talks to many peers; a *spoke* connects to one hub. Producer and
//! sink are hubs for the workers; the sink is also a spoke of the producer. Sending never blocks:
//! what may be in flight is limited by credit, one level up. Whoever reads [`HubEvent`]s and
//! [`SpokeEvent`]s does so with `crossbeam_channel::select!`.
//!
//! | link | address | what it is |
//! |---|---|---|
//! | [`Inproc`] | `inproc://name` | channels of one process; buffers move, nothing is copied |
//! | [`mpi::Mpi`] | `mpi://RANK/NAME` | ranks of one MPI job, with the feature `mpi` |
//! | [`Zmq`] | `tcp://host:port`, `ipc:///path` | ROUTER (hub) and DEALER (spoke) of the crate `zeromq` |
//!
//! Messages of one connection arrive whole, in order and once, or the connection is gone; what
//! was under way when it went may be lost. A `Gone` comes after the last message of its
//! connection. Between a `Gone` that is not read yet and the next `Connected`, what a spoke sends
//! may travel on the new connection: a hub ignores what a peer says before its `Hello`.
//! Dropping the last sender closes as `close` does, but does not wait.
//!
//! A peer that hangs, or that the network has cut off, is gone too, on both ends: links say `Beat`
//! where nothing else is said and miss it after [`DEAD_AFTER`], or what they were told. Whoever reads
//! events sees neither `Beat` nor `Reset`.

mod address;
mod inproc;
pub mod mpi;
mod zmq;

pub use address::{for_address, for_address_with};
pub use inproc::Inproc;
pub use zmq::{Zmq, stream as instrument};

use crate::error::Failure;
use crate::message::Message;
use crossbeam_channel::Receiver;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a peer may be silent before it is taken for dead, unless told otherwise.
pub const DEAD_AFTER: Duration = Duration::from_secs(10);

/// Names a peer of a hub for the life of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// What happens at a hub.
#[derive(Debug)]
pub enum HubEvent {
    /// A peer said something; its first message makes it known.
    Message(PeerId, Message),
    /// A peer sent what cannot be read (garbage, another protocol version); it was told so.
    Unreadable(PeerId, crate::wire::WireError),
    /// A peer's connection is gone.
    Gone(PeerId),
}

/// What happens at a spoke.
#[derive(Debug)]
pub enum SpokeEvent {
    /// The connection stands (again).
    Connected,
    /// The hub said something.
    Message(Message),
    /// The hub sent what cannot be read.
    Unreadable(crate::wire::WireError),
    /// The connection is gone; the link goes on trying, with a fresh identity.
    Gone,
}

/// Sends to the peers of a hub.
pub trait HubSend: Send + Sync {
    /// Queues a message for a peer; `false` if the peer is gone.
    fn send(&self, peer: PeerId, message: Message) -> bool;
    /// Sends what is queued, waits until it is on its way, then closes.
    fn close(&self);
}

/// Sends to the hub of a spoke.
pub trait SpokeSend: Send + Sync {
    /// Queues a message; `false` if there is no connection.
    fn send(&self, message: Message) -> bool;
    /// Tells whether the connection stands.
    fn is_connected(&self) -> bool;
    /// Sends what is queued, waits until it is on its way, then closes.
    fn close(&self);
}

/// A bound end with many peers.
pub struct Hub {
    /// The address that peers connect to, the port being filled in.
    pub address: String,
    /// What happens.
    pub events: Receiver<HubEvent>,
    /// The way out.
    pub tx: Arc<dyn HubSend>,
}

impl Hub {
    /// Tells whether what is sent never leaves the memory of this process: nothing of it is copied,
    /// so there is nothing to be checked.
    pub fn is_local(&self) -> bool {
        self.address.starts_with("inproc://")
    }
}

/// A connected end with one peer.
pub struct Spoke {
    /// The hub's address.
    pub address: String,
    /// What happens.
    pub events: Receiver<SpokeEvent>,
    /// The way out.
    pub tx: Arc<dyn SpokeSend>,
}

/// A carrier of messages.
pub trait Link: Send + Sync {
    /// Binds a hub.
    ///
    /// # Errors
    /// If the address cannot be understood or is in use; the text names it.
    fn hub(&self, address: &str) -> Result<Hub, Failure>;

    /// Connects a spoke; returns at once and goes on trying until the hub is there.
    ///
    /// # Errors
    /// If the address cannot be understood.
    fn spoke(&self, address: &str) -> Result<Spoke, Failure>;
}
