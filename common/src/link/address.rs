//! Addresses, and which link carries them.

use super::inproc::Inproc;
use super::mpi::Mpi;
use super::zmq::Zmq;
use super::{DEAD_AFTER, Link};
use crate::error::{Failure, Kind};
use std::path::PathBuf;
use std::time::Duration;

/// An address of the link `zmq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ZmqAddress {
    /// Host as written (IPv6 without brackets) and port.
    Tcp(String, u16),
    /// Path of a socket file.
    Ipc(PathBuf),
}

/// Chooses the link that carries `address`, by its scheme.
///
/// # Errors
/// [`Kind::Config`] if it begins with none of `inproc://`, `mpi://`, `tcp://` and `ipc://`.
pub fn for_address(address: &str) -> Result<Box<dyn Link>, Failure> {
    for_address_with(address, DEAD_AFTER)
}

/// Chooses the link that carries `address`; it takes a peer that is silent for `dead_after` for
/// dead, where the other end could die alone.
///
/// # Errors
/// As [`for_address`].
pub fn for_address_with(address: &str, dead_after: Duration) -> Result<Box<dyn Link>, Failure> {
    match address.split_once("://") {
        Some(("inproc", _)) => Ok(Box::new(Inproc)),
        Some(("mpi", _)) => Ok(Box::new(Mpi)),
        Some(("tcp" | "ipc", _)) => Ok(Box::new(Zmq::new(dead_after))),
        _ => Err(Failure::new(
            Kind::Config,
            format!(
                "address '{address}' is not understood; write tcp://HOST:PORT, ipc:///PATH or \
                 inproc://NAME"
            ),
        )),
    }
}

impl ZmqAddress {
    /// Reads `tcp://HOST:PORT` (`*` for all interfaces, IPv6 in brackets) or `ipc:///PATH`.
    ///
    /// # Errors
    /// [`Kind::Config`] with what is missing.
    pub(super) fn parse(address: &str) -> Result<Self, Failure> {
        let wrong =
            |text: &str| Err(Failure::new(Kind::Config, format!("address '{address}' {text}")));
        if let Some(path) = address.strip_prefix("ipc://") {
            return match path {
                "" | "*" => wrong("has no path; write ipc:///PATH"),
                _ if path.starts_with('@') => {
                    wrong("names an abstract socket, which is not supported; write ipc:///PATH")
                }
                _ => Ok(Self::Ipc(path.into())),
            };
        }
        let Some(rest) = address.strip_prefix("tcp://") else {
            return wrong("is not understood; write tcp://HOST:PORT or ipc:///PATH");
        };
        let Some((host, port)) = rest.rsplit_once(':') else {
            return wrong("has no port; write tcp://HOST:PORT");
        };
        let Ok(port) = port.parse() else {
            return wrong("has no port from 0 to 65535 behind its last colon");
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        match bare.unwrap_or(host) {
            "" => wrong("has no host; write tcp://HOST:PORT, * meaning all interfaces"),
            inner if bare.is_none() && inner.contains(':') => {
                wrong("has an IPv6 host without brackets; write tcp://[HOST]:PORT")
            }
            "*" => Ok(Self::Tcp("0.0.0.0".into(), port)),
            inner => Ok(Self::Tcp(inner.into(), port)),
        }
    }
}

impl std::fmt::Display for ZmqAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "tcp://{host}:{port}"),
            Self::Ipc(path) => write!(f, "ipc://{}", path.display()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, back) in [
            ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0"),
            ("tcp://*:5555", "tcp://0.0.0.0:5555"),
            ("tcp://[::1]:5555", "tcp://[::1]:5555"),
            ("tcp://beam-line.example:1", "tcp://beam-line.example:1"),
            ("ipc:///run/a b.sock", "ipc:///run/a b.sock"),
        ] {
            assert_eq!(ZmqAddress::parse(text).unwrap().to_string(), back);
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, says) in [
            ("tcp://host", "has no port"),
            ("tcp://host:99999", "0 to 65535"),
            ("tcp://:5555", "has no host"),
            ("tcp://::1:5555", "brackets"),
            ("ipc://", "has no path"),
            ("ipc://@name", "abstract"),
            ("udp://host:1", "not understood"),
        ] {
            let failure = ZmqAddress::parse(text).unwrap_err();
            assert!(failure.text.contains(says) && failure.text.contains(text), "{failure}");
            assert_eq!(failure.kind, Kind::Config);
        }
        assert!(for_address("localhost:5555").is_err_and(|f| f.text.contains("tcp://HOST:PORT")));
    }
}
