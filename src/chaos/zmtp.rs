//! Cuts the bytes of a ZMTP 3 connection into messages, without a socket.
//!
//! | bytes | what |
//! |---|---|
//! | 0..64 | greeting |
//! | then frames: 1 | flags: 1 more follow, 2 the length has 8 bytes, 4 a command |
//! | 1 or 8 | length, big-endian |
//! | length | content |
//!
//! # Source
//! ZMTP 3.1 (RFC 37), sections 3 and 4.

use bytes::Bytes;

const GREETING: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A piece of a connection that can be passed on as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Greeting or command.
    Opaque(Vec<u8>),
    /// A multipart message.
    Message {
        /// As it travels.
        raw: Vec<u8>,
        /// What is in it.
        parts: Vec<Bytes>,
    },
}

impl Piece {
    /// Returns the bytes that travel.
    pub fn raw(&self) -> &[u8] {
        match self {
            Self::Opaque(raw) | Self::Message { raw, .. } => raw,
        }
    }
}

/// Bytes of one direction of a connection that are not a whole piece yet.
#[derive(Debug, Default)]
pub struct Splitter {
    bytes: Vec<u8>,
    greeted: bool,
}

impl Splitter {
    /// Takes what came in.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole piece.
    pub fn piece(&mut self) -> Option<Piece> {
        if !self.greeted {
            if self.bytes.len() < GREETING {
                return None;
            }
            self.greeted = true;
            return Some(Piece::Opaque(self.take(GREETING)));
        }
        let mut parts = Vec::new();
        let mut at = 0;
        loop {
            let flags = *self.bytes.get(at)?;
            let (from, length) = self.length(at, flags)?;
            let end = from.checked_add(length)?;
            let content = self.bytes.get(from..end)?;
            if flags & COMMAND != 0 {
                // Commands do not stand within a message.
                return Some(Piece::Opaque(self.take(end)));
            }
            parts.push(Bytes::copy_from_slice(content));
            at = end;
            if flags & MORE == 0 {
                return Some(Piece::Message { raw: self.take(end), parts });
            }
        }
    }

    /// Returns what is left of a piece that never became whole.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }

    fn length(&self, at: usize, flags: u8) -> Option<(usize, usize)> {
        if flags & LONG == 0 {
            return Some((at + 2, usize::from(*self.bytes.get(at + 1)?)));
        }
        let bytes = self.bytes.get(at + 1..at + 9)?;
        let length = bytes.iter().fold(0, |n: u64, &b| n << 8 | u64::from(b));
        Some((at + 9, usize::try_from(length).ok()?))
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count);
        std::mem::replace(&mut self.bytes, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Vec<u8> {
        let mut bytes = vec![9; GREETING];
        bytes.extend([COMMAND, 5, b'R', b'E', b'A', b'D', b'Y']);
        bytes.extend([MORE, 1, b'a', LONG, 0, 0, 0, 0, 0, 0, 1, 0]);
        bytes.extend([7; 256]);
        bytes.extend([0, 0]);
        bytes
    }

    #[test]
    fn pieces_are_the_same_however_the_bytes_come() {
        let stream = stream();
        for step in [1, 3, 64, 65, stream.len()] {
            let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
            for bytes in stream.chunks(step) {
                splitter.push(bytes);
                while let Some(piece) = splitter.piece() {
                    pieces.push(piece);
                }
            }
            assert_eq!(pieces.len(), 4, "step {step}");
            let raw: Vec<u8> = pieces.iter().flat_map(|p| p.raw().to_vec()).collect();
            assert_eq!(raw, stream);
            assert!(matches!(&pieces[1], Piece::Opaque(raw) if raw.len() == 7));
            let Piece::Message { parts, .. } = &pieces[2] else { panic!("{:?}", pieces[2]) };
            assert_eq!(parts[..], [Bytes::from_static(b"a"), Bytes::from(vec![7; 256])]);
            assert!(
                matches!(&pieces[3], Piece::Message { parts, .. } if parts[..] == [Bytes::new()])
            );
            assert!(splitter.rest().is_empty());
        }
    }

    #[test]
    fn half_a_message_is_no_piece() {
        let mut splitter = Splitter::default();
        splitter.push(&stream()[..GREETING + 7 + 20]);
        assert!(splitter.piece().is_some() && splitter.piece().is_some());
        assert_eq!(splitter.piece(), None);
        assert_eq!(splitter.rest().len(), 20);
    }
}
