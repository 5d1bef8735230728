//! `ptystream record` and `replay`: what instruments send, into one file and out of it again, for rehearsals
//! and for whoever looks for a fault.

use crate::cli::{RecordArgs, ReplayArgs};
use crate::connection::{Pieces, Port, all_connected};
use crate::recording::{Head, Reader, Recorded, Stream, write_head, write_message};
use bytes::Bytes;
use crossbeam_channel::{Receiver, Select};
use ptystream_common::error::{Failure, Kind};
use ptystream_common::link::instrument::{Incoming, Outgoing, Pattern, Sending};
use ptystream_common::report::time_text;
use ptystream_common::shutdown::Shutdown;
use ptystream_producer::positions::panda;
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

const TICK: Duration = Duration::from_millis(50);

/// Where messages come from.
enum Origin {
    Socket(Incoming),
    Connection(Pieces),
}

impl Origin {
    fn connect(address: &str) -> Result<(Self, Stream), Failure> {
        let plain = |plain: &str| Stream { address: plain.to_owned(), ..Stream::default() };
        if let Some(at) = address.strip_prefix("panda+") {
            let from = Self::Connection(Pieces::connect(at, panda::REQUEST)?);
            return Ok((from, Stream { connection: true, ..plain(at) }));
        }
        if let Some(at) = address.strip_prefix("sub+") {
            let from = Self::Socket(Incoming::connect(at, Pattern::Subscribe)?);
            return Ok((from, Stream { publishes: true, ..plain(at) }));
        }
        Ok((Self::Socket(Incoming::connect(address, Pattern::Pull)?), plain(address)))
    }

    fn messages(&self) -> &Receiver<Vec<Bytes>> {
        match self {
            Self::Socket(socket) => &socket.messages,
            Self::Connection(pieces) => &pieces.messages,
        }
    }
}

/// What somebody is to connect to.
enum Bound {
    Socket(Outgoing),
    Port(Port),
}

/// Where messages go.
enum Target {
    Socket(Outgoing),
    Connection(TcpStream),
}

impl Target {
    fn socket(&self) -> Option<&Outgoing> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Connection(_) => None,
        }
    }

    fn send(&mut self, parts: Vec<Bytes>) -> Result<(), Failure> {
        match self {
            Self::Socket(socket) => socket.send(parts),
            Self::Connection(client) => {
                parts
                    .iter()
                    .try_for_each(|part| client.write_all(part))
                    .map_err(|e| Failure::new(Kind::Peer, format!("a connection is lost: {e}")))?;
            }
        }
        Ok(())
    }
}

/// Records until it is told to end, or one of the limits is reached; says what came.
///
/// # Errors
/// Addresses that are none, and a file that cannot be written.
pub fn record(args: &RecordArgs, shutdown: &Shutdown) -> Result<String, Failure> {
    let mut streams = Vec::new();
    let mut incoming = Vec::new();
    for address in &args.addresses {
        let (from, stream) = Origin::connect(address)?;
        incoming.push(from);
        streams.push(stream);
    }
    let broken = |e: std::io::Error| {
        Failure::new(Kind::Output, format!("'{}' cannot be written: {e}", args.out.display()))
    };
    let mut out = BufWriter::new(File::create(&args.out).map_err(broken)?);
    write_head(&mut out, &Head { began: time_text(SystemTime::now()), streams }).map_err(broken)?;
    out.flush().map_err(broken)?;
    let began = Instant::now();
    let (mut messages, mut bytes) = (0u64, 0u64);
    let mut select = Select::new();
    for one in &incoming {
        select.recv(one.messages());
    }
    let over = |messages: u64| {
        shutdown.is_begun()
            || args.secs.is_some_and(|secs| began.elapsed().as_secs_f64() >= secs)
            || args.messages.is_some_and(|most| messages >= most)
    };
    while !over(messages) {
        let Ok(ready) = select.select_timeout(TICK) else {
            // Nothing comes: what has come is to be in the file.
            out.flush().map_err(broken)?;
            continue;
        };
        let stream = ready.index();
        let Ok(parts) = ready.recv(incoming[stream].messages()) else { break };
        messages += 1;
        bytes += parts.iter().map(|p| p.len() as u64).sum::<u64>();
        let message = Recorded { at: began.elapsed(), stream, parts };
        write_message(&mut out, &message).map_err(broken)?;
    }
    out.into_inner().map_err(|e| broken(e.into_error()))?.sync_all().map_err(broken)?;
    Ok(format!(
        "{messages} messages, {bytes} bytes, {:.1} s: {}",
        began.elapsed().as_secs_f64(),
        args.out.display()
    ))
}

/// Tells whether a fault falls on the `nth` message, counted from 1.
fn falls(every: Option<u64>, nth: u64) -> bool {
    every.is_some_and(|every| nth.is_multiple_of(every.max(1)))
}

/// Cuts the longest part of a message in half.
fn truncated(mut parts: Vec<Bytes>) -> Vec<Bytes> {
    if let Some(longest) = parts.iter_mut().max_by_key(|part| part.len()) {
        longest.truncate(longest.len() / 2);
    }
    parts
}

/// Sends a recording again; says what was sent.
///
/// # Errors
/// A file that is no recording, addresses that cannot be bound.
pub fn replay(args: &ReplayArgs, shutdown: &Shutdown) -> Result<String, Failure> {
    let unreadable = |e: std::io::Error| {
        Failure::new(Kind::Input, format!("'{}' cannot be read: {e}", args.file.display()))
    };
    let file = File::open(&args.file).map_err(unreadable)?;
    let mut reader = Reader::new(BufReader::new(file), &args.file).map_err(unreadable)?;
    let streams = reader.head.streams.clone();
    if args.bind.len() != streams.len() {
        let named: Vec<&str> = streams.iter().map(|s| s.address.as_str()).collect();
        let text = format!(
            "the recording has {} streams ({}), and {} addresses are given (--bind)",
            streams.len(),
            named.join(", "),
            args.bind.len()
        );
        return Err(Failure::new(Kind::Config, text));
    }
    let (mut bound, mut publish) = (Vec::new(), false);
    for (address, stream) in args.bind.iter().zip(&streams) {
        let one = if stream.connection {
            Bound::Port(Port::bind(address)?)
        } else {
            let publishes = stream.publishes || args.publish;
            publish |= publishes;
            let sending = if publishes { Sending::Publish } else { Sending::Push };
            Bound::Socket(Outgoing::bind(address, sending)?)
        };
        let (Bound::Socket(Outgoing { address, .. }) | Bound::Port(Port { address, .. })) = &one;
        eprintln!("bound {address}");
        bound.push(one);
    }
    let nobody = "nobody has connected, nothing was sent";
    let mut targets = Vec::new();
    for one in bound {
        targets.push(match one {
            Bound::Socket(socket) => Target::Socket(socket),
            Bound::Port(port) => match port.client(shutdown)? {
                Some(client) => Target::Connection(client),
                None => return Ok(nobody.into()),
            },
        });
    }
    let sockets = targets.iter().filter_map(Target::socket);
    if !all_connected(sockets, publish, shutdown) {
        return Ok(nobody.into());
    }
    let began = Instant::now();
    let (mut read, mut sent) = (0u64, 0u64);
    let mut held: Option<Recorded> = None;
    let mut send = |message: Recorded| {
        sent += 1;
        targets[message.stream].send(message.parts)
    };
    while let Some(mut message) = reader.read_message().map_err(unreadable)? {
        if shutdown.is_begun() {
            break;
        }
        read += 1;
        if args.speed > 0.0 {
            let due = message.at.div_f64(args.speed);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        if falls(args.drop, read) {
            continue;
        }
        if falls(args.truncate, read) {
            message.parts = truncated(message.parts);
        }
        if falls(args.reorder, read) && held.is_none() {
            held = Some(message);
            continue;
        }
        if falls(args.duplicate, read) {
            send(message.clone())?;
        }
        send(message)?;
        if let Some(late) = held.take() {
            send(late)?;
        }
    }
    held.into_iter().try_for_each(send)?;
    Ok(format!("{read} messages read, {sent} sent, in {:.1} s", began.elapsed().as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_fall_on_every_nth() {
        let hit: Vec<u64> = (1..=6).filter(|n| falls(Some(3), *n)).collect();
        assert_eq!((hit, falls(None, 3)), (vec![3, 6], false));
        let parts = vec![Bytes::from_static(b"ab"), Bytes::from_static(b"abcdef")];
        assert_eq!(truncated(parts), [&b"ab"[..], b"abc"]);
    }
}
