//! Recordings of instruments' streams: one file, whole messages, when each came.
//!
//! ```text
//! "PTYREC01" | u32 length of JSON | {"began": …, "streams": [{"address": …, "publishes": false, "connection": false}, …]}
//! message    | u64 nanoseconds since the beginning | u16 stream | u32 parts | each: u64 length, bytes
//! ```
//!
//! All numbers are little-endian. A message that is cut off at the end does not count. Two forms of others are
//! read too, told by the ending of the name: `.zmqdump` (u32 parts; each u64 length, bytes) and `.cbors`
//! (CBOR arrays of byte strings).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

const MAGIC: &[u8; 8] = b"PTYREC01";
/// No message has more parts, no part more bytes.
const MOST_PARTS: u32 = 1024;
const MOST_BYTES: u64 = 1 << 32;

/// A stream of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Where it was recorded.
    pub address: String,
    /// Whether the instrument publishes to all (PUB), and does not push to one (PUSH).
    pub publishes: bool,
    /// Whether it is a connection of bytes, as a PandA's data port, and its messages are pieces of them.
    #[serde(default)]
    pub connection: bool,
}

/// What a recording begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// When it began, UTC, RFC 3339; empty where nobody noted it.
    pub began: String,
    /// Its streams.
    pub streams: Vec<Stream>,
}

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// When it came, since the beginning.
    pub at: Duration,
    /// Of which stream.
    pub stream: usize,
    /// Its parts.
    pub parts: Vec<Bytes>,
}

/// Writes the beginning.
///
/// # Errors
/// The writer's.
pub fn write_head(out: &mut impl Write, head: &Head) -> io::Result<()> {
    let text = serde_json::to_vec(head)?;
    out.write_all(MAGIC)?;
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    out.write_all(&text)
}

/// Writes a message.
///
/// # Errors
/// The writer's.
pub fn write_message(out: &mut impl Write, message: &Recorded) -> io::Result<()> {
    out.write_all(&(message.at.as_nanos() as u64).to_le_bytes())?;
    out.write_all(&(message.stream as u16).to_le_bytes())?;
    out.write_all(&(message.parts.len() as u32).to_le_bytes())?;
    for part in &message.parts {
        out.write_all(&(part.len() as u64).to_le_bytes())?;
        out.write_all(part)?;
    }
    Ok(())
}

/// The form of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Own,
    Dump,
    Cbors,
}

/// Reads a recording, message by message.
pub struct Reader<R> {
    input: R,
    form: Form,
    /// What the recording begins with.
    pub head: Head,
}

fn damaged(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.to_owned())
}

impl<R: Read> Reader<R> {
    /// Reads the beginning; `path` tells the form by its ending.
    ///
    /// # Errors
    /// If it is no recording.
    pub fn new(mut input: R, path: &Path) -> io::Result<Self> {
        let form = match path.extension().and_then(|e| e.to_str()) {
            Some("zmqdump") => Form::Dump,
            Some("cbors") => Form::Cbors,
            _ => Form::Own,
        };
        let one = Stream::default();
        let mut head = Head { began: String::new(), streams: vec![one] };
        if form == Form::Own {
            let mut magic = [0; 8];
            input.read_exact(&mut magic)?;
            if magic != *MAGIC {
                return Err(damaged("it is no recording (ptystream record, .zmqdump or .cbors)"));
            }
            let length = u32::from_le_bytes(array(&mut input)?);
            if length > 1 << 20 {
                return Err(damaged("its beginning is too long"));
            }
            head = serde_json::from_slice(&bytes(&mut input, u64::from(length))?)?;
        }
        Ok(Self { input, form, head })
    }

    /// Reads the next message; `None` at the end, also where a message is cut off.
    ///
    /// # Errors
    /// If what stands there is no message, and the reader's.
    pub fn read_message(&mut self) -> io::Result<Option<Recorded>> {
        match self.message() {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            result => result.map(Some),
        }
    }

    fn message(&mut self) -> io::Result<Recorded> {
        let input = &mut self.input;
        if self.form == Form::Cbors {
            let (kind, parts) = cbor_head(input)?;
            if kind != 4 || parts > u64::from(MOST_PARTS) {
                return Err(damaged("it is no sequence of CBOR arrays"));
            }
            let part = |_| -> io::Result<Bytes> {
                match cbor_head(input)? {
                    (2, length) => bytes(input, length),
                    _ => Err(damaged("a part is no CBOR byte string")),
                }
            };
            let parts = (0..parts).map(part).collect::<io::Result<_>>()?;
            return Ok(Recorded { at: Duration::ZERO, stream: 0, parts });
        }
        let (mut at, mut stream) = (Duration::ZERO, 0);
        if self.form == Form::Own {
            at = Duration::from_nanos(u64::from_le_bytes(array(input)?));
            stream = usize::from(u16::from_le_bytes(array(input)?));
            if stream >= self.head.streams.len() {
                return Err(damaged("a message is of a stream that the beginning does not name"));
            }
        }
        let count = u32::from_le_bytes(array(input)?);
        if count > MOST_PARTS {
            return Err(damaged("a message has too many parts"));
        }
        let mut parts = Vec::new();
        for _ in 0..count {
            let length = u64::from_le_bytes(array(input)?);
            parts.push(bytes(input, length)?);
        }
        Ok(Recorded { at, stream, parts })
    }
}

fn array<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads so many bytes; takes memory only for what is there.
fn bytes(input: &mut impl Read, length: u64) -> io::Result<Bytes> {
    if length > MOST_BYTES {
        return Err(damaged("a part is too long"));
    }
    let mut out = Vec::new();
    input.take(length).read_to_end(&mut out)?;
    match out.len() as u64 == length {
        true => Ok(out.into()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads the head of a CBOR item: its major type and its number.
fn cbor_head(input: &mut impl Read) -> io::Result<(u8, u64)> {
    let [first] = array(input)?;
    let number = match first & 31 {
        small @ 0..=23 => u64::from(small),
        24 => u64::from(array::<1>(input)?[0]),
        25 => u64::from(u16::from_be_bytes(array(input)?)),
        26 => u64::from(u32::from_be_bytes(array(input)?)),
        27 => u64::from_be_bytes(array(input)?),
        _ => return Err(damaged("a length of CBOR is not understood")),
    };
    Ok((first >> 5, number))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8], name: &str) -> io::Result<(Head, Vec<Recorded>)> {
        let mut reader = Reader::new(bytes, Path::new(name))?;
        let mut all = Vec::new();
        while let Some(message) = reader.read_message()? {
            all.push(message);
        }
        Ok((reader.head, all))
    }

    fn part(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    #[test]
    fn what_is_written_is_read_up_to_a_message_that_is_cut_off() {
        let stream = |address: &str, publishes| Stream {
            address: address.into(),
            publishes,
            connection: publishes,
        };
        let head = Head {
            began: "now".into(),
            streams: vec![stream("tcp://a:1", false), stream("tcp://b:2", true)],
        };
        let messages: Vec<Recorded> = (0..3)
            .map(|n| Recorded {
                at: Duration::from_millis(n * 7),
                stream: n as usize % 2,
                parts: vec![part("head"), part(""), part("a blob")],
            })
            .collect();
        let mut out = Vec::new();
        write_head(&mut out, &head).unwrap();
        for message in &messages {
            write_message(&mut out, message).unwrap();
        }
        assert_eq!(read_all(&out, "x.rec").unwrap(), (head, messages.clone()));
        let cut = read_all(&out[..out.len() - 1], "x.rec").unwrap().1;
        assert_eq!(cut, messages[..2]);
        assert!(read_all(b"something else", "x.rec").is_err());
    }

    #[test]
    fn other_forms_are_read_by_their_names() {
        let dump =
            [&2u32.to_le_bytes()[..], &2u64.to_le_bytes(), b"ab", &0u64.to_le_bytes()].concat();
        let got = read_all(&dump, "a.zmqdump").unwrap().1;
        assert_eq!(got[0].parts, [part("ab"), part("")]);
        // Two messages: ["ab"], ["c", ""].
        let cbors = [0x81, 0x42, b'a', b'b', 0x82, 0x58, 1, b'c', 0x40];
        let got: Vec<_> =
            read_all(&cbors, "a.cbors").unwrap().1.into_iter().map(|m| m.parts).collect();
        assert_eq!(got, [vec![part("ab")], vec![part("c"), part("")]]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_take_memory(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            form in 0usize..3,
        ) {
            let _ = read_all(&bytes, ["x.rec", "x.zmqdump", "x.cbors"][form]);
            let mut whole = Vec::new();
            let streams = vec![Stream::default()];
            write_head(&mut whole, &Head { began: String::new(), streams }).unwrap();
            whole.extend(bytes);
            let _ = read_all(&whole, "x.rec");
        }
    }
}
