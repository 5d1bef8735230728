//! Streams of bytes at the addresses of roles: `tcp://HOST:PORT` and `ipc://PATH`.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

/// Time in which a role of this machine accepts, or does not.
const CONNECT: Duration = Duration::from_millis(500);

/// Listens at an address.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Ipc(UnixListener),
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Ipc(UnixStream),
}

fn unknown(address: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("'{address}' is neither tcp nor ipc"))
}

impl Listener {
    /// Binds `address`; [`Self::accept`] then never waits.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(address: &str) -> io::Result<Self> {
        if let Some(host) = address.strip_prefix("tcp://") {
            let listener = TcpListener::bind(host)?;
            listener.set_nonblocking(true)?;
            return Ok(Self::Tcp(listener));
        }
        let path = address.strip_prefix("ipc://").ok_or_else(|| unknown(address))?;
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Ipc(listener))
    }

    /// Takes the next connection, if one is waiting.
    ///
    /// # Errors
    /// The system's; `WouldBlock` if there is none.
    pub fn accept(&self) -> io::Result<Stream> {
        let stream = match self {
            Self::Tcp(listener) => Stream::Tcp(listener.accept()?.0),
            Self::Ipc(listener) => Stream::Ipc(listener.accept()?.0),
        };
        match &stream {
            Stream::Tcp(s) => s.set_nonblocking(false)?,
            Stream::Ipc(s) => s.set_nonblocking(false)?,
        }
        Ok(stream)
    }
}

impl Stream {
    /// Connects to `address`.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(address: &str) -> io::Result<Self> {
        if let Some(host) = address.strip_prefix("tcp://") {
            let host: SocketAddr = host.parse().map_err(|_| unknown(address))?;
            let stream = TcpStream::connect_timeout(&host, CONNECT)?;
            stream.set_nodelay(true)?;
            return Ok(Self::Tcp(stream));
        }
        let path = address.strip_prefix("ipc://").ok_or_else(|| unknown(address))?;
        Ok(Self::Ipc(UnixStream::connect(path)?))
    }

    /// Makes a second handle of the connection.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Ipc(s) => Self::Ipc(s.try_clone()?),
        })
    }

    /// Limits how long a read waits.
    ///
    /// # Errors
    /// The system's.
    pub fn set_read_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(limit)),
            Self::Ipc(s) => s.set_read_timeout(Some(limit)),
        }
    }

    /// Limits how long a write waits.
    ///
    /// # Errors
    /// The system's.
    pub fn set_write_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_write_timeout(Some(limit)),
            Self::Ipc(s) => s.set_write_timeout(Some(limit)),
        }
    }

    /// Closes one direction or both; a connection that is closed already stays so.
    pub fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Ipc(s) => s.shutdown(how),
        };
    }

    /// Makes the end of the connection a reset where there is such a thing.
    pub fn reset_at_close(&self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of::<libc::linger>() as libc::socklen_t;
        // SAFETY: the descriptor is open as long as `self` lives, and pointer and size are those of
        // one `linger`. A Unix socket ignores the option.
        let _ = unsafe {
            libc::setsockopt(
                self.descriptor(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size,
            )
        };
    }

    fn descriptor(&self) -> RawFd {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Ipc(s) => s.as_raw_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(into),
            Self::Ipc(s) => s.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(from),
            Self::Ipc(s) => s.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
