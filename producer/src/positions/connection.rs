//! A connection on which an instrument is asked once and sends bytes from then on: a PandA's data port.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PIECE: usize = 1 << 16;
const RETRY: Duration = Duration::from_millis(200);
const TICK: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);

/// What happens on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happens<'a> {
    /// It stands, and was asked.
    Opens,
    /// These bytes come next.
    Comes(&'a [u8]),
    /// It has ended; another one is tried.
    Ends,
}

/// Connects to `target` (`HOST:PORT`) whenever it is there, asks by `request`, and tells what happens, until
/// `closed` or nobody listens any more: `told` returns false.
pub fn read(
    target: &str,
    request: &[u8],
    closed: &AtomicBool,
    mut told: impl FnMut(Happens<'_>) -> bool,
) {
    let mut piece = vec![0; PIECE];
    // What was said last: why there is no connection, or nothing while there is one.
    let mut said = None;
    while !closed.load(Ordering::Acquire) {
        let connected = connect(target, request);
        let state = connected.as_ref().err().map(ToString::to_string).unwrap_or_default();
        if said.as_ref() != Some(&state) {
            match &connected {
                Ok(_) => tracing::info!(address = target, "connected"),
                Err(error) => tracing::info!("cannot connect to {target} yet: {error}"),
            }
            said = Some(state);
        }
        if let Ok(mut connection) = connected {
            if !told(Happens::Opens) {
                return;
            }
            while !closed.load(Ordering::Acquire) {
                match connection.read(&mut piece) {
                    Ok(0) => break,
                    Ok(n) if !told(Happens::Comes(&piece[..n])) => return,
                    Ok(_) => {}
                    Err(e) if is_only_late(&e) => {}
                    Err(_) => break,
                }
            }
            if !told(Happens::Ends) {
                return;
            }
        }
        std::thread::sleep(RETRY);
    }
}

fn connect(target: &str, request: &[u8]) -> std::io::Result<TcpStream> {
    let address = target.to_socket_addrs()?.next().ok_or(ErrorKind::AddrNotAvailable)?;
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE)?;
    connection.set_read_timeout(Some(TICK))?;
    connection.write_all(request)?;
    Ok(connection)
}

fn is_only_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
