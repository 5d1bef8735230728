//! Listening sockets, with errors that name the cure.

use crate::error::{Failure, Kind};
use crate::link::address::ZmqAddress;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::path::Path;
use zeromq::Listener;

/// Most bytes of an ipc path: the system's limit less its final zero.
const MAX_IPC_PATH: usize = 107;

/// Binds an address; returns what listens and the address with its real port.
///
/// # Errors
/// [`Kind::Peer`] if the address is in use, [`Kind::Config`] if it cannot be bound at all.
pub(super) fn bind(address: &ZmqAddress) -> Result<(Listener, ZmqAddress), Failure> {
    let bound = match address {
        ZmqAddress::Tcp(host, port) => {
            TcpListener::bind((host.as_str(), *port)).and_then(|listener| {
                let real = ZmqAddress::Tcp(host.clone(), listener.local_addr()?.port());
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
    use std::os::unix::net::UnixListener;

    fn failure(address: &ZmqAddress) -> Failure {
        bind(address).unwrap_err()
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let address = ZmqAddress::Ipc(dir.path().join("hub.sock"));
        let ZmqAddress::Ipc(path) = &address else { unreachable!() };
        drop(UnixListener::bind(path).unwrap());
        assert!(path.exists(), "a listener leaves its file");
        let live = bind(&address).unwrap();
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
        let (_listener, real) = bind(&ZmqAddress::Tcp("127.0.0.1".into(), 0)).unwrap();
        assert_ne!(real, ZmqAddress::Tcp("127.0.0.1".into(), 0));
        let used = failure(&real);
        assert_eq!(used.kind, Kind::Peer);
        assert!(used.text.contains(&real.to_string()) && used.text.contains("--bind"), "{used}");
    }
}
