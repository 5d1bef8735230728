//! Ports that stay free for a role that is started again.

use std::io;
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below those that systems give to outgoing connections, of which one could take it meanwhile.
const FIRST: u16 = 20_000;
const COUNT: u16 = 10_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// Returns a port of this machine on which nobody listens.
///
/// # Errors
/// If there is none.
pub fn free() -> io::Result<u16> {
    // Two campaigns at a time begin at different places.
    let start = (std::process::id() as u16).wrapping_mul(101) % COUNT;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + step % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}
