//! Listening sockets, with errors that name the cure.
//!
//! What is set on a listening TCP socket holds for each connection that it accepts. The system
//! breaks one whose peer takes no byte, or whose peer's machine does not answer, for
//! [`SYSTEM_PATIENCE`] times `dead_after`: what is queued for a peer that hangs is freed then, and a
//! program that sends no beats is missed too once its machine is gone.

use crate::error::{Failure, Kind};
use crate::link::address::ZmqAddress;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use zeromq::Listener;

/// Most bytes of an ipc path: the system's limit less its final zero.
const MAX_IPC_PATH: usize = 107;

/// Times `dead_after` until the system itself gives a connection up.
const SYSTEM_PATIENCE: u32 = 10;

/// Most seconds between two questions whether an idle peer's machine is there (the system's limit).
#[cfg(target_os = "linux")]
const MAX_PROBE_SECS: u128 = 32_767;

/// Binds an address; returns what listens and the address with its real port.
///
/// # Errors
/// [`Kind::Peer`] if the address is in use, [`Kind::Config`] if it cannot be bound at all.
pub(super) fn bind(
    address: &ZmqAddress,
    dead_after: Duration,
) -> Result<(Listener, ZmqAddress), Failure> {
    let bound = match address {
        ZmqAddress::Tcp(host, port) => {
            TcpListener::bind((host.as_str(), *port)).and_then(|listener| {
                let real = ZmqAddress::Tcp(host.clone(), listener.local_addr()?.port());
                if let Err(error) = limit_patience(&listener, dead_after * SYSTEM_PATIENCE) {
                    tracing::warn!("{address}: no limit for connections that hang: {error}");
                }
                Ok((listener.into(), real))
            })
        }
        ZmqAddress::Ipc(path) => bind_ipc(path).map(|listener| (listener, address.clone())),
    };
    bound.map_err(|e| {
        let (kind, why) = explain(address, &e);
        Failure::new(kind, format!("cannot bind {address}: {why}"))
    })
}

fn explain(address: &ZmqAddress, error: &io::Error) -> (Kind, String) {
    let other = match address {
        ZmqAddress::Tcp(..) => "port",
        ZmqAddress::Ipc(_) => "path",
    };
    let why = match (error.kind(), address) {
        (ErrorKind::AddrInUse, _) => {
            let why = format!(
                "address in use; is another producer or sink running? choose another {other} \
                 with --bind"
            );
            return (Kind::Peer, why);
        }
        (ErrorKind::AddrNotAvailable, _) => "it is not an address of this machine".into(),
        (ErrorKind::NotFound, ZmqAddress::Ipc(_)) => "its folder does not exist".into(),
        (ErrorKind::AlreadyExists, _) => "there is a file of that name which is no socket".into(),
        (ErrorKind::PermissionDenied, _) => format!("permission denied; choose another {other}"),
        _ => error.to_string(),
    };
    (Kind::Config, why)
}

/// Lets the system break connections of `listener` that make no progress for `patience`.
#[cfg(target_os = "linux")]
fn limit_patience(listener: &TcpListener, patience: Duration) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let set = |level, option, value: u128| {
        let value = libc::c_int::try_from(value).unwrap_or(libc::c_int::MAX).max(1);
        // SAFETY: the descriptor is open while `listener` is borrowed, and the pointer and the
        // length are those of a c_int that lives through the call.
        let result = unsafe {
            libc::setsockopt(
                listener.as_raw_fd(),
                level,
                option,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    let probe_secs = u128::from(patience.as_secs() / 4).min(MAX_PROBE_SECS);
    set(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, patience.as_millis())?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, probe_secs)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, probe_secs)?;
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)
}

#[cfg(not(target_os = "linux"))]
fn limit_patience(_: &TcpListener, _: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn bind_ipc(path: &Path) -> io::Result<Listener> {
    use std::os::unix::fs::FileTypeExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    let bytes = path.as_os_str().len();
    if bytes > MAX_IPC_PATH {
        let text = format!("the path has {bytes} bytes, at most {MAX_IPC_PATH} are allowed");
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let in_use = match UnixListener::bind(path) {
        Err(e) if e.kind() == ErrorKind::AddrInUse => e,
        result => return result.map(Into::into),
    };
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(ErrorKind::AlreadyExists.into()),
        _ => {}
    }
    // Nobody listens: the file was left by a process that was killed.
    if UnixStream::connect(path).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused) {
        tracing::debug!("removing the stale socket {}", path.display());
        std::fs::remove_file(path)?;
        return UnixListener::bind(path).map(Into::into);
    }
    Err(in_use)
}

#[cfg(not(unix))]
fn bind_ipc(_: &Path) -> io::Result<Listener> {
    Err(io::Error::new(ErrorKind::Unsupported, "ipc needs Unix sockets; use tcp://HOST:PORT"))
}

#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::link::DEAD_AFTER;
    use std::os::unix::net::UnixListener;

    fn failure(address: &ZmqAddress) -> Failure {
        bind(address, DEAD_AFTER).unwrap_err()
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ZmqAddress::Ipc(dir.path().join("hub.sock"));
        let ZmqAddress::Ipc(path) = &address else { unreachable!() };
        drop(UnixListener::bind(path).unwrap());
        assert!(path.exists(), "a listener leaves its file");
        let live = bind(&address, DEAD_AFTER).unwrap();
        let failure = failure(&address);
        assert_eq!(failure.kind, Kind::Peer);
        assert!(failure.text.contains("in use") && failure.text.contains("--bind"), "{failure}");
        drop(live);
    }

    #[test]
    fn what_is_no_socket_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("scan.h5");
        std::fs::write(&path, "data").unwrap();
        let failure = failure(&ZmqAddress::Ipc(path.clone()));
        assert!(failure.text.contains("no socket"), "{failure}");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[test]
    fn what_cannot_be_bound_is_explained() {
        let dir = tempfile::tempdir().unwrap();
        let missing = failure(&ZmqAddress::Ipc(dir.path().join("no/hub.sock")));
        assert!(missing.text.contains("folder does not exist"), "{missing}");
        let long = failure(&ZmqAddress::Ipc(dir.path().join("x".repeat(120))));
        assert!(long.text.contains("at most 107"), "{long}");
        let (_listener, real) = bind(&ZmqAddress::Tcp("127.0.0.1".into(), 0), DEAD_AFTER).unwrap();
        assert_ne!(real, ZmqAddress::Tcp("127.0.0.1".into(), 0));
        let used = failure(&real);
        assert_eq!(used.kind, Kind::Peer);
        assert!(used.text.contains(&real.to_string()) && used.text.contains("--bind"), "{used}");
    }
}
