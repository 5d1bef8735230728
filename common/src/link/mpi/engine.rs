//! The one thread of a rank that talks to MPI.
//!
//! A receive that blocks takes a whole core, so the thread looks for messages and sleeps in between:
//! short while something goes on, longer and longer while nothing does. What this rank sends wakes it
//! at once.
//!
//! How a world ends: each rank says that it is ready; once the rank that leads has heard it from all
//! it says so, and all finalize together, so that none waits inside MPI, where waiting takes a core.

use super::packet::{Begun, Packet};
use super::switch::{Alive, Rank, Switch};
use super::{Duty, Joined, Leave};
use crate::link::{HubEvent, PeerId, SpokeEvent};
use crate::shutdown::Shutdown;
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::point_to_point::{Destination, MatchedReceiveVec, Source};
use mpi::request::{Request, StaticScope};
use mpi::topology::{Communicator, SimpleCommunicator};
use mpi::traits::CommunicatorCollectives;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const TAG: i32 = 1;
/// Sleep while something goes on; the system makes some 70 µs of it.
const SHORT: Duration = Duration::from_micros(10);
/// Sleep while nothing has gone on for long.
const LONG: Duration = Duration::from_millis(2);
/// Rounds without news after which sleeps grow.
const PATIENT: u32 = 100;
/// Most of one MPI message: its length is a C int.
const PIECE: usize = 1 << 30;
/// How long closing waits for messages that are on their way.
const FLUSH: Duration = Duration::from_secs(5);
/// How long the rank that leads waits for workers that do not end.
const STRAGGLING: Duration = Duration::from_secs(30);

/// What the rest of the process asks of the engine.
pub(super) enum Command {
    OpenHub {
        name: String,
        events: Sender<HubEvent>,
        alive: Alive,
        done: Sender<bool>,
    },
    OpenSpoke {
        spoke: u32,
        rank: Rank,
        name: String,
        events: Sender<SpokeEvent>,
        connected: Arc<AtomicBool>,
    },
    ToPeer(PeerId, Vec<Bytes>),
    ToHub(u32, Vec<Bytes>),
    CloseHub {
        name: String,
        alive: Alive,
        done: Option<Sender<()>>,
    },
    CloseSpoke {
        spoke: u32,
        done: Option<Sender<()>>,
    },
    Word(Bytes),
    Leave(Leave),
}

/// A message on its way: MPI reads the bytes until the request is done.
struct Flight {
    request: Request<'static, [u8], StaticScope>,
    _bytes: Bytes,
}

struct Engine {
    world: SimpleCommunicator,
    rank: Rank,
    duties: Vec<Duty>,
    lead: Rank,
    switch: Switch,
    flights: VecDeque<Flight>,
    /// To this rank itself.
    own: VecDeque<Packet>,
    words: Option<Sender<Bytes>>,
    ending: Shutdown,
    /// Who waits until what was sent is on its way.
    flushing: Vec<(Instant, Sender<()>)>,
    leave: Option<Leave>,
    left: Vec<bool>,
    last_left: Instant,
    over: bool,
}

/// Joins the world and serves it until it ends; `joined` gets what was found, or why it failed.
pub(super) fn run(
    duty: fn(Rank) -> Duty,
    commands: &Receiver<Command>,
    words: Sender<Bytes>,
    ending: Shutdown,
    joined: &Sender<Result<Joined, String>>,
) {
    let (universe, duties) = match join(duty) {
        Ok(found) => found,
        Err(text) => {
            // Whoever asked waits for the answer.
            let _ = joined.send(Err(text));
            return;
        }
    };
    let world = universe.world();
    let rank = world.rank() as Rank;
    let lead = duties.iter().position(|d| d.leads()).unwrap_or(0) as Rank;
    // As above.
    let _ = joined.send(Ok(Joined { rank, duties: duties.clone() }));
    let mut engine = Engine {
        world,
        rank,
        left: vec![false; duties.len()],
        duties,
        lead,
        switch: Switch::default(),
        flights: VecDeque::new(),
        own: VecDeque::new(),
        words: Some(words),
        ending,
        flushing: Vec::new(),
        leave: None,
        last_left: Instant::now(),
        over: false,
    };
    engine.serve(commands);
    let done = engine.leave.take().and_then(|leave| leave.done);
    drop(engine);
    // Finalizes: all ranks are here, or nearly so.
    drop(universe);
    if let Some(done) = done {
        // As above.
        let _ = done.send(());
    }
}

fn join(duty: fn(Rank) -> Duty) -> Result<(Universe, Vec<Duty>), String> {
    // This thread initializes MPI, so it is the one that may talk to it at the level "funneled".
    let (universe, level) = mpi::initialize_with_threading(Threading::Funneled)
        .ok_or("MPI has been initialized already in this process")?;
    if level < Threading::Funneled {
        return Err(format!(
            "this MPI gives threads level {level:?}, and Funneled is needed; use one that is built \
             with support of threads"
        ));
    }
    let world = universe.world();
    let mut all = vec![0_u8; world.size() as usize];
    let duty = duty(world.rank() as Rank);
    world.all_gather_into(&duty.to_byte(), &mut all[..]);
    let duties = all.into_iter().map(Duty::from_byte).collect::<Option<Vec<_>>>();
    let duties =
        duties.ok_or("ranks of other programs, or of another version, are in this world")?;
    Ok((universe, duties))
}

impl Engine {
    fn serve(&mut self, commands: &Receiver<Command>) {
        let (mut pause, mut quiet) = (SHORT, 0);
        while !(self.over && self.flights.is_empty()) {
            let mut news = false;
            // Not more than a few at once, so that what comes in is not kept waiting.
            for _ in 0..64 {
                match commands.try_recv() {
                    Ok(command) => {
                        news = true;
                        self.on_command(command);
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            news |= self.receive();
            self.send();
            self.on_time();
            if news {
                (pause, quiet) = (SHORT, 0);
                continue;
            }
            quiet += 1;
            if quiet > PATIENT && self.flights.is_empty() {
                pause = (pause + pause / 4).min(LONG);
            }
            match commands.recv_timeout(pause) {
                Ok(command) => {
                    self.on_command(command);
                    self.send();
                    (pause, quiet) = (SHORT, 0);
                }
                Err(RecvTimeoutError::Timeout) => {}
                // Nobody is left who could ask for anything: the process is at its end.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(pause),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::OpenHub { name, events, alive, done } => {
                // Whoever asked waits for the answer.
                let _ = done.send(self.switch.open_hub(&name, events, alive));
            }
            Command::OpenSpoke { spoke, rank, name, events, connected } => {
                self.switch.open_spoke(spoke, rank, name, events, connected);
            }
            Command::ToPeer(peer, parts) => self.switch.send_to_peer(peer, parts),
            Command::ToHub(spoke, parts) => self.switch.send_to_hub(spoke, parts),
            Command::CloseHub { name, alive, done } => {
                self.switch.close_hub(&name, &alive);
                self.flush(done);
            }
            Command::CloseSpoke { spoke, done } => {
                self.switch.close_spoke(spoke);
                self.flush(done);
            }
            Command::Word(word) => {
                for rank in self.others() {
                    self.post(rank, Packet::Word(word.clone()));
                }
            }
            Command::Leave(leave) => {
                self.last_left = Instant::now();
                if self.rank == self.lead {
                    self.left[self.rank as usize] = true;
                    for rank in self.others() {
                        self.post(rank, Packet::Ending(leave.code));
                    }
                } else {
                    self.post(self.lead, Packet::Leaving);
                }
                self.leave = Some(leave);
            }
        }
    }

    fn others(&self) -> impl Iterator<Item = Rank> + use<> {
        let own = self.rank;
        (0..self.duties.len() as Rank).filter(move |rank| *rank != own)
    }

    fn flush(&mut self, done: Option<Sender<()>>) {
        self.send();
        if let Some(done) = done {
            self.flushing.push((Instant::now() + FLUSH, done));
        }
    }

    /// Sends what the switch has to say, and sees what has gone out.
    fn send(&mut self) {
        loop {
            for (rank, envelope) in self.switch.take_out() {
                self.post(rank, Packet::Link(envelope));
            }
            let Some(packet) = self.own.pop_front() else { break };
            self.on_packet(self.rank, packet);
        }
        let mut waiting = VecDeque::with_capacity(self.flights.len());
        for flight in self.flights.drain(..) {
            if let Err(request) = flight.request.test() {
                waiting.push_back(Flight { request, _bytes: flight._bytes });
            }
        }
        self.flights = waiting;
    }

    fn post(&mut self, rank: Rank, packet: Packet) {
        if rank == self.rank {
            self.own.push_back(packet);
            return;
        }
        let (head, apart) = packet.pack();
        for bytes in std::iter::once(Bytes::from(head)).chain(apart) {
            for at in (0..bytes.len()).step_by(PIECE) {
                let piece = bytes.slice(at..bytes.len().min(at + PIECE));
                // SAFETY: the flight holds the bytes until the request is done, and is not dropped
                // before: `serve` ends only once there is none.
                let text: &'static [u8] = unsafe { &*std::ptr::from_ref::<[u8]>(&piece) };
                let to = self.world.process_at_rank(rank as i32);
                let request = to.immediate_send_with_tag(StaticScope, text, TAG);
                self.flights.push_back(Flight { request, _bytes: piece });
            }
        }
    }

    /// Takes what has come; tells whether there was anything.
    fn receive(&mut self) -> bool {
        let mut any = false;
        for _ in 0..64 {
            let found = self.world.any_process().immediate_matched_probe_with_tag(TAG);
            let Some(found) = found else { break };
            any = true;
            let (head, status) = found.matched_receive_vec::<u8>();
            let from = status.source_rank();
            let begun = Begun::read(head).expect("ranks speak the same protocol: it was checked");
            let mut apart = Vec::new();
            for length in begun.to_come() {
                let mut bytes = vec![0; length];
                for piece in bytes.chunks_mut(PIECE) {
                    // It follows the head: they are of one tag and one sender.
                    self.world.process_at_rank(from).receive_into_with_tag(piece, TAG);
                }
                apart.push(bytes.into());
            }
            let packet = begun.complete(apart).expect("as above");
            self.on_packet(from as Rank, packet);
        }
        any
    }

    fn on_packet(&mut self, from: Rank, packet: Packet) {
        match packet {
            Packet::Link(envelope) => self.switch.on_envelope(from, envelope),
            Packet::Word(word) => {
                if let Some(words) = &self.words {
                    // A rank that does not listen is not one that is spoken to.
                    let _ = words.send(word);
                }
            }
            Packet::Leaving => {
                self.left[from as usize] = true;
                self.last_left = Instant::now();
            }
            Packet::Ending(code) => {
                self.words = None;
                let duty = self.duties[self.rank as usize];
                // A sink that has written its file may have to wait for its readers.
                if code != 0 || duty != Duty::Sink {
                    self.ending.begin();
                }
            }
            Packet::Over => self.over = true,
        }
    }

    fn on_time(&mut self) {
        if !self.flushing.is_empty() {
            let (gone, now) = (self.flights.is_empty(), Instant::now());
            self.flushing.retain(|(deadline, done)| {
                let wait = !gone && now < *deadline;
                if !wait {
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
                wait
            });
        }
        let Some(leave) = self.leave.as_ref().filter(|_| self.rank == self.lead && !self.over)
        else {
            return;
        };
        let code = leave.code;
        let missing: Vec<Rank> =
            (0..).zip(&self.left).filter(|(_, l)| !**l).map(|(r, _)| r).collect();
        if missing.is_empty() {
            for rank in self.others() {
                self.post(rank, Packet::Over);
            }
            self.over = true;
        } else if self.last_left.elapsed() > STRAGGLING
            && missing.iter().all(|rank| self.duties[*rank as usize] == Duty::Worker)
        {
            tracing::warn!("ranks {missing:?} did not end: the job is aborted; the scan has ended");
            self.world.abort(i32::from(code));
        }
    }
}
