//! Sockets and files on which positions come: what has come since the last call, as [`Event`]s.

use super::connection::{self, Happens};
use super::contrast::Contrast;
use super::lines::Lines;
use super::panda::{self, Panda};
use super::panda_json::PandaJson;
use super::settings::{Kind, Settings};
use super::{Ending, Event};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use ptystream_common::link::instrument::{Incoming, Pattern};
use ptystream_common::source::SourceError;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Messages that are read at one call.
const BURST: usize = 256;
/// Bytes of a text that are read at one call.
const TEXT_BYTES: u64 = 1 << 20;
/// Pieces of a PandA's stream that wait; beyond them it is read all the same, and what does not fit is lost.
const WAITING: usize = 4096;
/// The data port of a PandA.
const PORT: u16 = 8888;

/// Tells what a message means.
type Feed = Box<dyn FnMut(&[u8]) -> Option<Event> + Send>;

/// Where positions come from.
pub(super) enum Stream {
    /// Messages over PUB.
    Messages(Incoming, Feed),
    /// A connection that a thread keeps empty: a slow reader would block the instrument.
    Connection(Receiver<Event>, Connected),
    /// A text.
    Text(Text),
    /// They come with the frames.
    None,
}

/// Ends the thread of a connection.
pub(super) struct Connected {
    closed: Arc<AtomicBool>,
    is_there: Arc<AtomicBool>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

/// A text that grows.
pub(super) struct Text {
    path: PathBuf,
    file: Option<File>,
    at: u64,
    lines: Lines,
}

impl Stream {
    /// Connects, or begins to look.
    ///
    /// # Errors
    /// [`SourceError::Param`] for an address that is none.
    pub(super) fn open(settings: &Settings) -> Result<Self, SourceError> {
        let refused = |text: String| SourceError::Param { key: "positions.address".into(), text };
        let columns = settings.columns.clone();
        let subscribe = || {
            Incoming::connect(&settings.address, Pattern::Subscribe).map_err(|f| refused(f.text))
        };
        Ok(match settings.kind {
            Kind::Contrast => {
                let mut reader = Contrast::new(columns);
                Self::Messages(subscribe()?, Box::new(move |m| reader.feed(m)))
            }
            Kind::PandaJson => {
                let mut reader = PandaJson::new(columns);
                Self::Messages(subscribe()?, Box::new(move |m| reader.feed(m)))
            }
            Kind::Panda => {
                let target = settings.address.strip_prefix("tcp://").unwrap_or(&settings.address);
                let target = match target.rsplit_once(':') {
                    Some((_, port)) if port.parse::<u16>().is_ok() => target.to_owned(),
                    Some(_) => return Err(refused(format!("'{target}' is not HOST:PORT"))),
                    None => format!("{target}:{PORT}"),
                };
                let (events, out) = bounded(WAITING);
                let (closed, is_there) =
                    (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
                let connected =
                    Connected { closed: Arc::clone(&closed), is_there: Arc::clone(&is_there) };
                let reader = Panda::new(columns.names().to_vec());
                std::thread::Builder::new()
                    .name("panda".into())
                    .spawn(move || drain(&target, reader, &events, &closed, &is_there))
                    .map_err(|e| SourceError::input(format!("cannot start a thread: {e}")))?;
                Self::Connection(out, connected)
            }
            Kind::Growing => {
                let columns = columns.names().iter().filter_map(|n| n.parse().ok()).collect();
                let lines = Lines::new(columns);
                Self::Text(Text { path: settings.file.clone(), file: None, at: 0, lines })
            }
            Kind::Frames => Self::None,
        })
    }

    /// Tells whether the instrument is there.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Messages(incoming, _) => incoming.is_connected(),
            Self::Connection(_, connected) => connected.is_there.load(Ordering::Acquire),
            Self::Text(text) => text.file.is_some(),
            Self::None => true,
        }
    }

    /// Returns what has come.
    ///
    /// # Errors
    /// If a text cannot be read, or was replaced.
    pub(super) fn poll(&mut self) -> Result<Vec<Event>, SourceError> {
        match self {
            Self::Messages(incoming, feed) => {
                let messages: Vec<_> = incoming.messages.try_iter().take(BURST).collect();
                let read = |parts: Vec<bytes::Bytes>| match &parts[..] {
                    [one] => feed(one),
                    // The topic of a publisher, then the message.
                    [_, message] => feed(message),
                    other => Some(Event::Unknown(format!("a message has {} parts", other.len()))),
                };
                Ok(messages.into_iter().filter_map(read).collect())
            }
            Self::Connection(events, _) => Ok(events.try_iter().take(BURST).collect()),
            Self::Text(text) => text.poll(),
            Self::None => Ok(Vec::new()),
        }
    }
}

impl Text {
    fn poll(&mut self) -> Result<Vec<Event>, SourceError> {
        let failed = |path: &PathBuf, e: std::io::Error| SourceError::Input {
            text: format!("data.positions.file: cannot read '{}'", path.display()),
            source: Some(Box::new(e)),
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => match File::open(&self.path) {
                Ok(file) => self.file.insert(file),
                // It may still come.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(e) => return Err(failed(&self.path, e)),
            },
        };
        let length = file.metadata().map_err(|e| failed(&self.path, e))?.len();
        if length < self.at {
            return Err(SourceError::input(format!(
                "data.positions.file: '{}' became shorter while it was read: lines may only be added",
                self.path.display()
            )));
        }
        let mut bytes = Vec::new();
        let limit = TEXT_BYTES;
        file.take(limit).read_to_end(&mut bytes).map_err(|e| failed(&self.path, e))?;
        self.at += bytes.len() as u64;
        Ok(self.lines.feed(&bytes))
    }
}

/// Reads what a PandA sends, until it is closed.
fn drain(
    target: &str,
    mut reader: Panda,
    events: &Sender<Event>,
    closed: &AtomicBool,
    is_there: &AtomicBool,
) {
    let (mut lost, mut begun) = (0u64, false);
    connection::read(target, panda::REQUEST, closed, |happens| {
        is_there.store(happens != Happens::Ends, Ordering::Release);
        match happens {
            Happens::Opens => true,
            Happens::Comes(bytes) => reader.feed(bytes).into_iter().all(|event| {
                begun = match event {
                    Event::Begin => true,
                    Event::End(_) => false,
                    _ => begun,
                };
                let rows = match &event {
                    Event::Samples { rows, .. } => rows.len() as u64,
                    _ => 0,
                };
                if lost > 0 && events.try_send(Event::Lost(lost)).is_ok() {
                    lost = 0;
                }
                match events.try_send(event) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_)) if rows > 0 => {
                        lost += rows;
                        true
                    }
                    // Beginning and end must not be lost.
                    Err(TrySendError::Full(event)) => events.send(event).is_ok(),
                    Err(TrySendError::Disconnected(_)) => false,
                }
            }),
            Happens::Ends => {
                reader = reader.anew();
                let text = || "the connection to the PandA is lost".to_owned();
                !std::mem::take(&mut begun)
                    || events.send(Event::End(Ending::Interrupted(text()))).is_ok()
            }
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_text_may_come_later_and_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.txt");
        let lines = Lines::new(vec![0, 1]);
        let mut stream = Stream::Text(Text { path: path.clone(), file: None, at: 0, lines });
        assert!(stream.poll().unwrap().is_empty() && !stream.is_there());
        std::fs::write(&path, "1 2\n3").unwrap();
        assert_eq!(stream.poll().unwrap(), [Event::samples(vec![vec![1.0, 2.0]], None)]);
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b" 4\n").unwrap();
        assert_eq!(stream.poll().unwrap(), [Event::samples(vec![vec![3.0, 4.0]], None)]);
        file.set_len(2).unwrap();
        assert!(stream.poll().unwrap_err().to_string().contains("became shorter"));
    }
}
