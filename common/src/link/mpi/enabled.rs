//! The link over MPI as the rest of the process sees it.

use super::Duty;
use super::engine::{self, Command};
use super::switch::{Alive, Rank, lock};
use super::{Joined, Leave};
use crate::error::{Failure, Kind};
use crate::link::{Hub, HubSend, Link, PeerId, Spoke, SpokeSend};
use crate::message::Message;
use crate::shutdown::Shutdown;
use crate::wire;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Longer than any closing takes: the engine answers before.
const CLOSING: Duration = Duration::from_secs(10);

/// The engine of this process, once it has joined a world.
struct Handle {
    commands: Sender<Command>,
    rank: Rank,
    size: usize,
}

static HANDLE: OnceLock<Handle> = OnceLock::new();
static SPOKES: AtomicU32 = AtomicU32::new(0);

/// The processes that were started together with this one.
#[derive(Debug)]
pub struct World {
    joined: Joined,
    words: Receiver<Bytes>,
}

impl World {
    /// Joins the world and tells it what this rank does, by its number; once in the life of a process.
    ///
    /// All ranks have to join, or none gets any further. `ending` begins when the rank that leads
    /// ends, unless this rank is a sink and all went well.
    ///
    /// # Errors
    /// [`Kind::Peer`] if MPI refuses, or does not support threads; [`Kind::Config`] if there is not
    /// exactly one rank that leads and one that writes.
    pub fn join(duty: fn(u32) -> Duty, ending: Shutdown) -> Result<Self, Failure> {
        let refused = |text: String| Failure::new(Kind::Peer, format!("MPI: {text}"));
        let (commands, rx) = unbounded();
        let (words_tx, words) = unbounded();
        let (tx, joined) = bounded(1);
        std::thread::Builder::new()
            .name("mpi".into())
            .spawn(move || engine::run(duty, &rx, words_tx, ending, &tx))
            .map_err(|e| refused(format!("cannot start a thread: {e}")))?;
        let joined =
            joined.recv().map_err(|_| refused("its thread has ended".into()))?.map_err(refused)?;
        let handle = Handle { commands, rank: joined.rank, size: joined.duties.len() };
        if HANDLE.set(handle).is_err() {
            return Err(refused("the world has been joined already".into()));
        }
        let world = Self { joined, words };
        let (leads, writes) = (world.count(Duty::leads), world.count(Duty::writes));
        if (leads, writes) != (1, 1) {
            let text = format!(
                "among the {} ranks are {leads} producers and {writes} sinks, and there has to be \
                 one of each; start all roles with one mpirun (`mpirun -n 1 ptystream producer \
                 scan.toml : -n 6 ptystream worker : -n 1 ptystream sink`), or give the addresses \
                 of those that are elsewhere (--producer tcp://HOST:PORT --sink tcp://HOST:PORT)",
                world.duties().len()
            );
            let failure = Failure::new(Kind::Config, text);
            world.leave(failure.kind.exit_code());
            return Err(failure);
        }
        Ok(world)
    }

    /// Returns the number of this rank.
    pub fn rank(&self) -> u32 {
        self.joined.rank
    }

    /// Returns what each rank does.
    pub fn duties(&self) -> &[Duty] {
        &self.joined.duties
    }

    /// Returns how many ranks have a duty.
    pub fn count(&self, has: impl Fn(Duty) -> bool) -> usize {
        self.duties().iter().filter(|duty| has(**duty)).count()
    }

    /// Returns the address of a hub on the first rank that `has` the duty.
    pub fn address(&self, has: impl Fn(Duty) -> bool, name: &str) -> Option<String> {
        let rank = self.duties().iter().position(|d| has(*d))?;
        Some(format!("mpi://{rank}/{name}"))
    }

    /// Tells all other ranks something.
    pub fn tell(&self, word: Bytes) {
        command(Command::Word(word));
    }

    /// Returns what the rank that leads tells; ends when it does.
    pub fn words(&self) -> &Receiver<Bytes> {
        &self.words
    }

    /// Ends together with all other ranks.
    ///
    /// `code`: the exit code of this rank. If it leads, and is not 0, the other ranks end too; workers
    /// that do not are aborted with the job after half a minute.
    pub fn leave(self, code: u8) {
        let (done, over) = bounded(1);
        command(Command::Leave(Leave { code, done: Some(done) }));
        // An engine that has ended has left.
        let _ = over.recv();
    }
}

/// Passes a command on; an engine that has ended needs none any more.
fn command(command: Command) {
    if let Some(handle) = HANDLE.get() {
        let _ = handle.commands.send(command);
    }
}

/// Ranks of one world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mpi;

fn parse(address: &str) -> Result<(Rank, &str, &'static Handle), Failure> {
    let wrong = |text: &str| Failure::new(Kind::Config, format!("address '{address}' {text}"));
    let handle = HANDLE.get().ok_or_else(|| {
        wrong("is of MPI, and this process has joined no world; start it with mpirun or srun")
    })?;
    let rest = address.strip_prefix("mpi://").unwrap_or_default();
    let (rank, name) = rest.split_once('/').ok_or_else(|| wrong("is not mpi://RANK/NAME"))?;
    let rank = rank.parse().ok().filter(|rank: &Rank| (*rank as usize) < handle.size);
    match rank {
        Some(rank) if !name.is_empty() => Ok((rank, name, handle)),
        Some(_) => Err(wrong("is not mpi://RANK/NAME")),
        None => Err(wrong(&format!("names no rank from 0 to {}", handle.size - 1))),
    }
}

impl Link for Mpi {
    fn hub(&self, address: &str) -> Result<Hub, Failure> {
        let (rank, name, handle) = parse(address)?;
        if rank != handle.rank {
            let text = format!("cannot bind {address}: this is rank {}", handle.rank);
            return Err(Failure::new(Kind::Config, text));
        }
        let (tx, events) = unbounded();
        let alive = Alive::default();
        let (done, opened) = bounded(1);
        command(Command::OpenHub { name: name.into(), events: tx, alive: alive.clone(), done });
        match opened.recv() {
            Ok(true) => {}
            Ok(false) => {
                let text = format!("cannot bind {address}: the name is in use");
                return Err(Failure::new(Kind::Peer, text));
            }
            Err(_) => return Err(Failure::new(Kind::Peer, "MPI: the world has ended")),
        }
        let tx = Arc::new(MpiHub { name: name.into(), alive });
        Ok(Hub { address: address.to_owned(), events, tx })
    }

    fn spoke(&self, address: &str) -> Result<Spoke, Failure> {
        let (rank, name, _) = parse(address)?;
        let (tx, events) = unbounded();
        let spoke = SPOKES.fetch_add(1, Ordering::Relaxed);
        let connected = Arc::<AtomicBool>::default();
        command(Command::OpenSpoke {
            spoke,
            rank,
            name: name.into(),
            events: tx,
            connected: connected.clone(),
        });
        let tx = Arc::new(MpiSpoke { spoke, connected });
        Ok(Spoke { address: address.to_owned(), events, tx })
    }
}

/// Encodes on the sender's thread.
fn parts(message: &Message) -> Option<Vec<Bytes>> {
    match wire::encode(message) {
        Ok(parts) => Some(parts),
        Err(error) => {
            tracing::error!("a message cannot be sent: {error}");
            None
        }
    }
}

struct MpiHub {
    name: String,
    alive: Alive,
}

impl MpiHub {
    fn end(&self, done: Option<Sender<()>>) {
        let (name, alive) = (self.name.clone(), self.alive.clone());
        command(Command::CloseHub { name, alive, done });
    }
}

impl HubSend for MpiHub {
    fn send(&self, peer: PeerId, message: Message) -> bool {
        if !lock(&self.alive).contains(&peer) {
            return false;
        }
        let Some(parts) = parts(&message) else { return false };
        command(Command::ToPeer(peer, parts));
        true
    }

    fn close(&self) {
        let (done, closed) = bounded(1);
        self.end(Some(done));
        // An engine that has ended has closed everything.
        let _ = closed.recv_timeout(CLOSING);
    }
}

impl Drop for MpiHub {
    fn drop(&mut self) {
        self.end(None);
    }
}

struct MpiSpoke {
    spoke: u32,
    connected: Arc<AtomicBool>,
}

impl SpokeSend for MpiSpoke {
    fn send(&self, message: Message) -> bool {
        if !self.is_connected() {
            return false;
        }
        let Some(parts) = parts(&message) else { return false };
        command(Command::ToHub(self.spoke, parts));
        true
    }

    fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    fn close(&self) {
        let (done, closed) = bounded(1);
        command(Command::CloseSpoke { spoke: self.spoke, done: Some(done) });
        // As for the hub.
        let _ = closed.recv_timeout(CLOSING);
    }
}

impl Drop for MpiSpoke {
    fn drop(&mut self) {
        command(Command::CloseSpoke { spoke: self.spoke, done: None });
    }
}
