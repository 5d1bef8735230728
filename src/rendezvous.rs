//! `--rendezvous`: where roles tell each other their addresses, so that nobody copies ports by hand.
//!
//! | given | how |
//! |---|---|
//! | a folder that all see | `producer.json` and `sink.json` there, whole at any time, removed at an orderly end |
//! | `tcp://HOST:PORT` | the producer keeps a list there; sink and workers ask it |
//!
//! A role that gives no address to bind takes any free port on all interfaces, and after a crash the same
//! one again, so that those who are connected find it.

use ptystream_common::error::{Failure, Kind};
use ptystream_common::names::host;
use ptystream_common::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const TICK: Duration = Duration::from_millis(100);
/// How often the sink tells the list again: the producer may have started anew.
const TELL_AGAIN: Duration = Duration::from_secs(2);
/// Longest that a question to the list may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Longest line of the list.
const LONGEST: u64 = 4096;

/// Who is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Hands out.
    Producer,
    /// Writes.
    Sink,
}

impl Who {
    fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Sink => "sink",
        }
    }
}

/// Where roles meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A folder that all see.
    Folder(PathBuf),
    /// A list that the producer keeps, `HOST:PORT`.
    List(String),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("tcp", address)) => match address.rsplit_once(':') {
                Some((host, port))
                    if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) =>
                {
                    Ok(Self::List(address.to_owned()))
                }
                _ => Err(format!("'{text}' is not tcp://HOST:PORT")),
            },
            Some(_) => Err(format!("'{text}' is neither a folder nor tcp://HOST:PORT")),
            None if text.is_empty() => Err("a folder, or tcp://HOST:PORT, is needed".into()),
            None => Ok(Self::Folder(PathBuf::from(text))),
        }
    }
}

/// What a role leaves in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Card {
    address: String,
    host: String,
    pid: u32,
    /// Seconds since 1970.
    since: u64,
}

/// Stands as long as others are to find the role.
#[derive(Debug)]
pub struct Told {
    card: Option<(PathBuf, Card)>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Told {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
        if let Some((path, card)) = &self.card
            && read(path).as_ref() == Some(card)
        {
            // It may be gone with its folder.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn refused(text: String) -> Failure {
    Failure::new(Kind::Peer, format!("--rendezvous: {text}"))
}

impl Place {
    fn path(folder: &Path, who: Who) -> PathBuf {
        folder.join(format!("{}.json", who.name()))
    }

    /// Returns the address that a role binds which was told none.
    pub fn bind(&self, who: Who) -> String {
        let before = match self {
            Self::Folder(folder) => read(&Self::path(folder, who)).filter(|c| c.host == host()),
            Self::List(_) => None,
        };
        // The port of one that was killed; another one's would be in use.
        let port = before
            .and_then(|card| card.address.rsplit_once(':')?.1.parse::<u16>().ok())
            .filter(|port| TcpListener::bind(("0.0.0.0", *port)).is_ok());
        format!("tcp://0.0.0.0:{}", port.unwrap_or(0))
    }

    /// Tells where a role is that has bound `address`; `advertise`: under which name others reach this
    /// host.
    ///
    /// # Errors
    /// If nobody can be told.
    pub fn tell(&self, who: Who, address: &str, advertise: Option<&str>) -> Result<Told, Failure> {
        let address = reachable(address, advertise);
        tracing::info!(address, role = who.name(), "told to others");
        let stop = Arc::new(AtomicBool::new(false));
        let mut told = Told { card: None, stop: stop.clone(), thread: None };
        match self {
            Self::Folder(folder) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
                let card = Card { address, host: host(), pid: std::process::id(), since };
                let path = Self::path(folder, who);
                write(&path, &card)
                    .map_err(|e| refused(format!("cannot write '{}': {e}", path.display())))?;
                told.card = Some((path, card));
            }
            Self::List(at) if who == Who::Producer => {
                let port = at.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                let listener = TcpListener::bind(("0.0.0.0", port.unwrap_or(0)))
                    .map_err(|e| refused(format!("cannot bind {at}: {e}")))?;
                let list = Arc::new(Mutex::new(BTreeMap::from([(who.name().to_owned(), address)])));
                told.thread = Some(spawn(move || keep(&listener, &list, &stop))?);
            }
            Self::List(at) => {
                let at = at.clone();
                let put = Ask::Put { role: who.name().into(), address };
                let work = move || {
                    let mut next = Instant::now();
                    while !stop.load(Ordering::Acquire) {
                        if Instant::now() >= next {
                            // One that does not answer is asked again.
                            let answer = ask(&at, &put);
                            next = Instant::now() + if answer.is_ok() { TELL_AGAIN } else { TICK };
                        }
                        std::thread::sleep(TICK);
                    }
                };
                told.thread = Some(spawn(work)?);
            }
        }
        Ok(told)
    }

    /// Finds where a role is.
    ///
    /// # Errors
    /// [`Kind::Peer`] if it has told nobody within `patience`, or `shutdown` began meanwhile.
    pub fn find(
        &self,
        who: Who,
        patience: Duration,
        shutdown: &Shutdown,
    ) -> Result<String, Failure> {
        let start = Instant::now();
        shutdown.set_waits_for(format!("the {}'s address", who.name()));
        loop {
            let found = match self {
                Self::Folder(folder) => read(&Self::path(folder, who)).map(|card| card.address),
                Self::List(at) => ask(at, &Ask::Get { role: who.name().into() }).ok().flatten(),
            };
            if let Some(address) = found {
                shutdown.set_waits_for("");
                return Ok(address);
            }
            if shutdown.is_begun() || start.elapsed() > patience {
                return Err(refused(format!(
                    "no {} has told its address {} within {:.0} s; is it running, with the same \
                     --rendezvous?",
                    who.name(),
                    match self {
                        Self::Folder(folder) => format!("in '{}'", folder.display()),
                        Self::List(at) => format!("at tcp://{at}"),
                    },
                    start.elapsed().as_secs_f64()
                )));
            }
            std::thread::sleep(TICK);
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Failure> {
    std::thread::Builder::new()
        .name("rendezvous".into())
        .spawn(work)
        .map_err(|e| refused(format!("cannot start a thread: {e}")))
}

/// Returns the address with a host that others reach, where it was bound on all interfaces.
fn reachable(address: &str, advertise: Option<&str>) -> String {
    let Some((scheme @ "tcp", rest)) = address.split_once("://") else { return address.to_owned() };
    let Some((bound, port)) = rest.rsplit_once(':') else { return address.to_owned() };
    let name = match advertise {
        Some(name) => name.to_owned(),
        None if ["0.0.0.0", "[::]", "*"].contains(&bound) => own_address(),
        None => bound.to_owned(),
    };
    format!("{scheme}://{name}:{port}")
}

/// Returns this host's address towards others; its name if there is only the loopback.
fn own_address() -> String {
    // Nothing is sent: the system only chooses the interface of its default route.
    let outward = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    match outward {
        Ok(address) if !address.ip().is_loopback() && !address.ip().is_unspecified() => {
            address.ip().to_string()
        }
        _ => "127.0.0.1".into(),
    }
}

fn read(path: &Path) -> Option<Card> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn write(path: &Path, card: &Card) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&temporary, serde_json::to_vec_pretty(card)?)?;
    std::fs::rename(&temporary, path)
}

/// A line to the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Put { role: String, address: String },
    Get { role: String },
}

/// Asks the list; the answer is an address, if there is one.
fn ask(at: &str, line: &Ask) -> std::io::Result<Option<String>> {
    let nobody = || std::io::Error::other("the name stands for no address");
    let address: SocketAddr = at.to_socket_addrs()?.next().ok_or_else(nobody)?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.set_write_timeout(Some(ANSWER))?;
    stream.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream.take(LONGEST)).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}

/// Keeps the list until it is told to stop.
fn keep(listener: &TcpListener, list: &Mutex<BTreeMap<String, String>>, stop: &AtomicBool) {
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !stop.load(Ordering::Acquire) {
        match listener.accept() {
            Ok((stream, peer)) => {
                if let Err(error) = answer(stream, list) {
                    tracing::debug!(%peer, "a question to the list: {error}");
                }
            }
            Err(_) => std::thread::sleep(TICK / 4),
        }
    }
}

fn answer(mut stream: TcpStream, list: &Mutex<BTreeMap<String, String>>) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    // One that is slow keeps the others waiting.
    stream.set_read_timeout(Some(ANSWER / 5))?;
    stream.set_write_timeout(Some(ANSWER / 5))?;
    let mut line = String::new();
    BufReader::new((&stream).take(LONGEST)).read_line(&mut line)?;
    let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
    let found = match serde_json::from_str(&line)? {
        Ask::Get { role } => list.get(&role).cloned(),
        Ask::Put { role, address } if role == Who::Sink.name() => {
            list.insert(role, address.clone());
            Some(address)
        }
        // Nobody takes the producer's place.
        Ask::Put { .. } => None,
    };
    stream.write_all(format!("{}\n", serde_json::to_string(&found)?).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon(place: &Place, who: Who) -> Result<String, Failure> {
        place.find(who, Duration::from_secs(20), &Shutdown::new())
    }

    #[test]
    fn places_are_folders_or_addresses() {
        assert_eq!("a/b".parse(), Ok(Place::Folder("a/b".into())));
        assert_eq!("tcp://h:5".parse(), Ok(Place::List("h:5".into())));
        for bad in ["", "tcp://h", "tcp://:5", "tcp://h:0", "ipc://x"] {
            assert!(bad.parse::<Place>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_filled_in() {
        assert_eq!(reachable("tcp://0.0.0.0:7", Some("beam1")), "tcp://beam1:7");
        assert_eq!(reachable("tcp://127.0.0.1:7", None), "tcp://127.0.0.1:7");
        assert_eq!(reachable("ipc:///tmp/x", Some("beam1")), "ipc:///tmp/x");
        assert!(!reachable("tcp://0.0.0.0:7", None).contains("0.0.0.0:"));
    }

    #[test]
    fn roles_meet_in_a_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = Place::Folder(dir.path().join("new"));
        let now = Shutdown::new();
        now.begin();
        let error = place.find(Who::Sink, Duration::from_secs(60), &now).expect_err("nobody");
        assert!(error.text.contains("no sink has told"), "{error}");
        let told = place.tell(Who::Sink, "tcp://127.0.0.1:9", None).expect("it is told");
        assert_eq!(soon(&place, Who::Sink), Ok("tcp://127.0.0.1:9".into()));
        drop(told);
        assert!(!dir.path().join("new/sink.json").exists());
        // One that was killed leaves its card, and the next one takes its port.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let address = format!("tcp://127.0.0.1:{}", free.port());
        std::mem::forget(place.tell(Who::Producer, &address, None).expect("it is told"));
        assert_eq!(place.bind(Who::Producer), format!("tcp://0.0.0.0:{}", free.port()));
        assert_eq!(place.bind(Who::Sink), "tcp://0.0.0.0:0");
    }

    #[test]
    fn roles_meet_at_the_producers_list() {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
        let place = Place::List(format!("127.0.0.1:{}", free.port()));
        // The sink may be first.
        let sink = place.tell(Who::Sink, "tcp://10.0.0.1:9", None).expect("later");
        let producer = place.tell(Who::Producer, "tcp://10.0.0.2:8", None).expect("it binds");
        assert_eq!(soon(&place, Who::Producer), Ok("tcp://10.0.0.2:8".into()));
        assert_eq!(soon(&place, Who::Sink), Ok("tcp://10.0.0.1:9".into()));
        let Place::List(at) = &place else { panic!("a list") };
        let other = Ask::Put { role: "producer".into(), address: "tcp://6.6.6.6:6".into() };
        assert_eq!(ask(at, &other).expect("an answer"), None);
        // What is no question gets no answer, and the list stands.
        let mut odd = TcpStream::connect(at).expect("it listens");
        odd.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("it takes it");
        assert_eq!(soon(&place, Who::Producer), Ok("tcp://10.0.0.2:8".into()));
        drop((sink, producer));
        assert!(TcpListener::bind(at).is_ok(), "the port is free again");
    }
}
