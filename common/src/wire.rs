//! Bytes of a message.
//!
//! | part | bytes | content |
//! |---|---|---|
//! | 0 | 0..4 | magic `PTYS` |
//! | | 4..6 | [`VERSION`], unsigned, little-endian |
//! | | 6.. | [`Header`] as MessagePack: structs as maps with named fields, to the last byte |
//! | 1.. | all | payload as it is; pixels little-endian; [`decode`] checks number and length against the header |
//!
//! Magic comes before version and version before the rest, so that programs of two versions can
//! tell each other what is wrong. Whatever changes the bytes raises the version. What a header
//! promises is checked when it is sent and when it comes in; past [`decode`], counts, lengths and
//! extents of a message agree with each other.

mod check;

use crate::message::{Body, Header, Message};
use bytes::Bytes;
use serde::Deserialize;

/// Version of the wire format.
pub const VERSION: u16 = 6;

/// First bytes of every message.
pub const MAGIC: [u8; 4] = *b"PTYS";

/// Most bytes of part 0; no scan's header comes near it.
pub const MAX_HEADER_BYTES: usize = 16 << 20;

/// Bytes before the MessagePack.
const PREFIX: usize = 6;

/// Deepest nesting of a header; parameter trees need about twenty levels.
const MAX_DEPTH: usize = 128;

/// What is wrong with bytes that should be a message, or with a message that should become bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[must_use]
pub enum WireError {
    /// Not a message of ptystream at all.
    #[error("not a ptystream message ({0})")]
    Garbage(String),
    /// Another version of the wire format.
    #[error(
        "the peer speaks wire version {theirs}, this program {ours}; use the same ptystream everywhere"
    )]
    Version {
        /// The peer's.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// The header's promise and the parts differ, or the header contradicts itself.
    #[error("message of {what}: {text}")]
    Parts {
        /// Which message.
        what: &'static str,
        /// What differs.
        text: String,
    },
    /// The header cannot be written as MessagePack.
    #[error("message of {what} cannot be sent: {text}")]
    Unsendable {
        /// Which message.
        what: &'static str,
        /// Why.
        text: String,
    },
}

/// Returns the name that a body has on the wire.
pub fn name(body: &Body) -> &'static str {
    match body {
        Body::Hello { .. } => "hello",
        Body::Refused(_) => "refused",
        Body::Stop(_) => "stop",
        Body::Bye => "bye",
        Body::Beat { .. } => "beat",
        Body::Reset => "reset",
        Body::Plan { .. } => "plan",
        Body::Ticket(_) => "ticket",
        Body::EndOfScan { .. } => "end_of_scan",
        Body::Want { .. } => "want",
        Body::Measured { .. } => "measured",
        Body::Failed { .. } => "failed",
        Body::Broken(_) => "broken",
        Body::Damaged { .. } => "damaged",
        Body::CommonWeights { .. } => "common_weights",
        Body::Prepared(_) => "prepared",
        Body::Grant { .. } => "grant",
        Body::Announce(_) => "announce",
        Body::Opened { .. } => "opened",
        Body::State { .. } => "state",
        Body::Paused { .. } => "paused",
        Body::Gap { .. } => "gap",
        Body::Finished(_) => "finished",
        Body::Report(_) => "report",
    }
}

/// Returns the parts of a message; payload is not copied.
///
/// # Errors
/// [`WireError::Parts`] if header and payload do not fit; [`WireError::Unsendable`] if the header
/// is longer than [`MAX_HEADER_BYTES`] or holds a path that is not UTF-8.
pub fn encode(message: &Message) -> Result<Vec<Bytes>, WireError> {
    check::message(&message.header, &message.parts)?;
    let unsendable =
        |text: String| WireError::Unsendable { what: name(&message.header.body), text };
    let mut head = Vec::with_capacity(256);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    rmp_serde::encode::write_named(&mut head, &message.header)
        .map_err(|e| unsendable(e.to_string()))?;
    if head.len() > MAX_HEADER_BYTES {
        return Err(unsendable(format!(
            "its header has {} bytes, at most {MAX_HEADER_BYTES} are allowed",
            head.len()
        )));
    }
    let mut parts = Vec::with_capacity(1 + message.parts.len());
    parts.push(head.into());
    parts.extend_from_slice(&message.parts);
    Ok(parts)
}

/// Reads a message from its parts; payload is not copied.
///
/// # Errors
/// [`WireError::Garbage`] if part 0 is not a header, [`WireError::Version`] if it is one of
/// another version, [`WireError::Parts`] if the payload is not what the header says.
pub fn decode(mut parts: Vec<Bytes>) -> Result<Message, WireError> {
    if parts.is_empty() {
        return Err(WireError::Garbage("it has no parts".into()));
    }
    let head = parts.remove(0);
    let header = decode_header(&head)?;
    check::message(&header, &parts)?;
    Ok(Message { header, parts })
}

fn decode_header(head: &[u8]) -> Result<Header, WireError> {
    let garbage = |text: String| Err(WireError::Garbage(text));
    if head.len() < PREFIX || head[..4] != MAGIC {
        return garbage(format!("part 0 of {} bytes does not begin with PTYS", head.len()));
    }
    let theirs = u16::from_le_bytes([head[4], head[5]]);
    if theirs != VERSION {
        return Err(WireError::Version { theirs, ours: VERSION });
    }
    if head.len() > MAX_HEADER_BYTES {
        return garbage(format!(
            "part 0 has {} bytes, a header at most {MAX_HEADER_BYTES}",
            head.len()
        ));
    }
    let mut reader = rmp_serde::Deserializer::new(&head[PREFIX..]);
    reader.set_max_depth(MAX_DEPTH);
    let header = Header::deserialize(&mut reader)
        .map_err(|e| WireError::Garbage(format!("its header cannot be read: {e}")))?;
    match reader.get_ref().len() {
        0 => Ok(header),
        n => garbage(format!("{n} bytes follow its header in part 0")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
