//! Stands between two roles, passes on what they say, and does what a network may do.
//!
//! | fault | what the roles see |
//! |---|---|
//! | [`Proxy::reset`] | the connection ends at once, with a reset where it is TCP |
//! | [`Proxy::tear`] | the same in the middle of the next message upwards |
//! | [`Proxy::half_close`] | who binds sees the end of the stream, who connects can go on sending for a while |
//! | [`Proxy::stall`] | nothing comes through for a time; bytes wait in the buffers |
//! | [`Proxy::delay`] | each message takes longer for a time |
//! | [`Proxy::repeat`] | the next messages upwards come twice |
//! | [`Proxy::swap`] | neighbours upwards change places, where the protocol does not mind |
//! | [`Proxy::flip`] | every other message with pixels, in either direction, has a bit flipped in them |
//!
//! *Upwards* is from who connects to who binds. Messages of one connection come in their order, and
//! roles rely on it; those that may change places are results of a worker (each is whole in itself)
//! and reports of what the sink holds (each is the whole state, and states only grow).

use super::stream::{Listener, Stream};
use super::zmtp::{Piece, Splitter};
use ptystream_common::message::{Body, Message};
use ptystream_common::wire;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(10);
/// How long a message is kept back for another to overtake it.
const HOLD: Duration = Duration::from_millis(60);
const SLOWER: Duration = Duration::from_millis(20);
const BUFFER: usize = 1 << 16;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets results pass one after the other in their time, and counts them.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Mutex<Instant>,
    passed: AtomicU64,
}

impl Pace {
    /// Makes a pace of one result in `interval`.
    pub fn new(interval: Duration) -> Self {
        Self { interval, next: Mutex::new(Instant::now()), passed: AtomicU64::new(0) }
    }

    /// Returns how many results have passed.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn wait(&self) {
        let now = Instant::now();
        let at = {
            let mut next = lock(&self.next);
            let at = (*next).max(now);
            *next = at + self.interval;
            at
        };
        std::thread::sleep(at.saturating_duration_since(now));
        self.passed.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Debug, Default)]
struct Weather {
    silent_until: Option<Instant>,
    slow_until: Option<Instant>,
    tear: bool,
    repeat: u64,
    swap: u64,
    flip: u64,
    /// The last one with pixels was flipped: the next one passes.
    flipped: bool,
}

#[derive(Debug)]
struct Connection {
    client: Stream,
    server: Stream,
    /// What still comes upwards is for nobody.
    deaf: AtomicBool,
    over: AtomicBool,
}

impl Connection {
    /// Ends the connection; the pumps see it and let go of the streams.
    fn cut(&self, reset: bool) {
        if reset {
            self.client.reset_at_close();
            self.server.reset_at_close();
        }
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }
}

#[derive(Debug)]
struct Shared {
    target: String,
    pace: Option<Arc<Pace>>,
    weather: Mutex<Weather>,
    connections: Mutex<Vec<Arc<Connection>>>,
    closed: AtomicBool,
}

/// One way between two roles.
#[derive(Debug)]
pub struct Proxy(Arc<Shared>);

impl Proxy {
    /// Listens at `address` for connections to `target`.
    ///
    /// `pace`: how fast results pass, if they do here.
    ///
    /// # Errors
    /// The system's, if the address cannot be bound or there is no thread.
    pub fn start(address: &str, target: &str, pace: Option<Arc<Pace>>) -> io::Result<Self> {
        let listener = Listener::bind(address)?;
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            pace,
            weather: Mutex::default(),
            connections: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let proxy = Self(shared.clone());
        std::thread::Builder::new()
            .name("proxy".into())
            .spawn(move || accept(&listener, &shared))?;
        Ok(proxy)
    }

    fn each(&self, what: impl Fn(&Connection)) {
        lock(&self.0.connections).iter().for_each(|c| what(c));
    }

    /// Ends all connections at once.
    pub fn reset(&self) {
        self.each(|c| c.cut(true));
    }

    /// Ends the connection that carries the next message, in the middle of it.
    pub fn tear(&self) {
        lock(&self.0.weather).tear = true;
    }

    /// Ends what goes upwards, and nothing else.
    pub fn half_close(&self) {
        self.each(|c| {
            c.deaf.store(true, Ordering::SeqCst);
            c.server.shutdown(Shutdown::Write);
        });
    }

    /// Lets nothing through for a time.
    pub fn stall(&self, time: Duration) {
        lock(&self.0.weather).silent_until = Some(Instant::now() + time);
    }

    /// Makes each message take longer for a time.
    pub fn delay(&self, time: Duration) {
        lock(&self.0.weather).slow_until = Some(Instant::now() + time);
    }

    /// Sends the next `messages` upwards twice.
    pub fn repeat(&self, messages: u64) {
        lock(&self.0.weather).repeat = messages;
    }

    /// Flips a bit in the pixels of every other message, `messages` times.
    pub fn flip(&self, messages: u64) {
        lock(&self.0.weather).flip = messages;
    }

    /// Exchanges neighbours upwards, `messages` times.
    pub fn swap(&self, messages: u64) {
        lock(&self.0.weather).swap = messages;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::SeqCst);
        self.each(|c| c.cut(false));
    }
}

fn accept(listener: &Listener, shared: &Arc<Shared>) {
    while !shared.closed.load(Ordering::SeqCst) {
        match listener.accept() {
            // Nobody listens behind: the connection ends as one to a role that is away does.
            Ok(client) => match Stream::connect(&shared.target) {
                Ok(server) => {
                    if let Err(error) = join(client, server, shared) {
                        tracing::warn!("a connection to {}: {error}", shared.target);
                    }
                }
                Err(_) => client.reset_at_close(),
            },
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(TICK),
            Err(error) => {
                tracing::warn!("accepting for {}: {error}", shared.target);
                std::thread::sleep(TICK);
            }
        }
    }
}

fn join(client: Stream, server: Stream, shared: &Arc<Shared>) -> io::Result<()> {
    for stream in [&client, &server] {
        stream.set_read_timeout(2 * TICK)?;
        stream.set_write_timeout(2 * TICK)?;
    }
    let pumps = [
        (client.try_clone()?, server.try_clone()?, true),
        (server.try_clone()?, client.try_clone()?, false),
    ];
    let (deaf, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let connection = Arc::new(Connection { client, server, deaf, over });
    lock(&shared.connections).push(connection.clone());
    for (from, to, upward) in pumps {
        let (shared, connection) = (shared.clone(), connection.clone());
        std::thread::Builder::new().name("pump".into()).spawn(move || {
            let mut pump =
                Pump { from, to, upward, shared: &shared, connection: &connection, held: None };
            // A connection that breaks is what this is about.
            if pump.run().is_err() {
                connection.cut(false);
            }
            if upward && connection.is_over() {
                lock(&shared.connections).retain(|c| !Arc::ptr_eq(c, &connection));
            }
        })?;
    }
    Ok(())
}

/// Tells whether a message carries pixels that have checksums.
fn has_pixels(message: &Message) -> bool {
    match &message.header.body {
        Body::Ticket(ticket) => ticket.pixels.as_ref().is_some_and(|p| p.checksums.is_some()),
        Body::Prepared(prepared) => prepared.checksums.is_some(),
        Body::CommonWeights { checksum } => checksum.is_some(),
        Body::Plan { arrays, .. } => arrays.iter().all(|a| a.checksum.is_some()),
        _ => false,
    }
}

/// What kind of message may change places with its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Like {
    Result,
    State,
    Other,
}

struct Pump<'a> {
    from: Stream,
    to: Stream,
    upward: bool,
    shared: &'a Shared,
    connection: &'a Connection,
    held: Option<(Like, Vec<u8>, Instant)>,
}

impl Pump<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; BUFFER];
        loop {
            self.go_on()?;
            self.wait_while(|w| w.silent_until)?;
            match self.from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => splitter.push(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
            while let Some(piece) = splitter.piece() {
                self.pass(piece)?;
            }
            if self.held.as_ref().is_some_and(|(.., since)| since.elapsed() > HOLD) {
                self.release()?;
            }
        }
        self.release()?;
        self.write(&splitter.rest())?;
        // The other direction may still be needed.
        self.to.shutdown(Shutdown::Write);
        Ok(())
    }

    fn go_on(&self) -> io::Result<()> {
        match self.connection.is_over() || self.shared.closed.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    fn wait_while(&self, until: impl Fn(&Weather) -> Option<Instant>) -> io::Result<()> {
        while until(&lock(&self.shared.weather)).is_some_and(|at| Instant::now() < at) {
            self.go_on()?;
            std::thread::sleep(TICK / 2);
        }
        Ok(())
    }

    /// Flips a bit in the last part of a message with pixels, if that is to be.
    fn damage(&self, piece: &mut Piece) {
        let Piece::Message { raw, parts } = piece else { return };
        let Some(last) = parts[1..].last().map(|part| part.len()).filter(|&bytes| bytes > 0) else {
            return;
        };
        let mut weather = lock(&self.shared.weather);
        if weather.flip == 0 || !wire::decode(parts.clone()).is_ok_and(|m| has_pixels(&m)) {
            return;
        }
        weather.flipped = !weather.flipped;
        if weather.flipped {
            weather.flip -= 1;
            let at = raw.len() - 1 - last / 2;
            raw[at] ^= 0x20;
        }
    }

    fn pass(&mut self, mut piece: Piece) -> io::Result<()> {
        self.damage(&mut piece);
        self.wait_while(|w| w.silent_until)?;
        let slow = lock(&self.shared.weather).slow_until.is_some_and(|at| Instant::now() < at);
        if slow {
            std::thread::sleep(SLOWER);
        }
        let (true, Piece::Message { raw, parts }) = (self.upward, &piece) else {
            return self.write(piece.raw());
        };
        let like = match wire::decode(parts.clone()).map(|m| m.header.body) {
            Ok(Body::Prepared(_)) => Like::Result,
            Ok(Body::State { .. }) => Like::State,
            _ => Like::Other,
        };
        if let (Like::Result, Some(pace)) = (like, &self.shared.pace) {
            pace.wait();
        }
        let (twice, torn, swapped) = {
            let mut weather = lock(&self.shared.weather);
            let twice = weather.repeat > 0;
            weather.repeat -= u64::from(twice);
            let torn = std::mem::take(&mut weather.tear);
            let swapped = like != Like::Other && self.held.is_none() && weather.swap > 0;
            weather.swap -= u64::from(swapped);
            (twice, torn, swapped)
        };
        if torn {
            self.release()?;
            self.write(&raw[..raw.len() / 2])?;
            self.connection.cut(true);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if swapped {
            self.held = Some((like, raw.clone(), Instant::now()));
            return Ok(());
        }
        if self.held.as_ref().is_some_and(|(held, ..)| *held != like) {
            self.release()?;
        }
        self.write(raw)?;
        if twice {
            self.write(raw)?;
        }
        self.release()
    }

    fn release(&mut self) -> io::Result<()> {
        match self.held.take() {
            Some((_, raw, _)) => self.write(&raw),
            None => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.upward && self.connection.deaf.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => rest = &rest[n..],
                // A peer that is stopped reads nothing; its connection may be ended meanwhile.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.go_on()?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
