//! What travels between ranks, as bytes.
//!
//! One MPI message is a head; parts of at least [`APART`] bytes follow as messages of their own, of the
//! same tag, in their order, so that they are not copied into it. All numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | kind of packet |
//! | 4 | spoke, or exit code |
//! | 4 | number of the connection |
//! | 4 | how many parts, `n` |
//! | 8 `n` | length of each part |
//! | rest | the short parts, one after the other |

use super::switch::Envelope;
use bytes::Bytes;

/// Parts of this many bytes travel apart from the head.
pub(crate) const APART: usize = 16 << 10;
const FIXED: usize = 13;
/// No message of ours has more parts than a plan has arrays, a dozen; more is damage.
const MOST_PARTS: usize = 1 << 16;

/// What ranks say to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// About a connection.
    Link(Envelope),
    /// To all ranks, from the one that leads.
    Word(Bytes),
    /// A rank is ready to end.
    Leaving,
    /// The rank that leads is ready to end, with this exit code; the others are to follow.
    Ending(u8),
    /// All are ready: the world ends.
    Over,
}

/// A packet that has begun to arrive: its long parts are still to come.
#[derive(Debug)]
pub(crate) struct Begun {
    kind: u8,
    a: u32,
    b: u32,
    lengths: Vec<usize>,
    head: Bytes,
}

impl Packet {
    /// Returns the head and the parts that follow it.
    pub(crate) fn pack(self) -> (Vec<u8>, Vec<Bytes>) {
        let (kind, a, b, parts) = match self {
            Self::Link(Envelope::Open { spoke, name }) => (0, spoke, 0, vec![name.into()]),
            Self::Link(Envelope::Accepted { spoke, line }) => (1, spoke, line, vec![]),
            Self::Link(Envelope::Up { spoke, line, parts }) => (2, spoke, line, parts),
            Self::Link(Envelope::Down { spoke, line, parts }) => (3, spoke, line, parts),
            Self::Link(Envelope::Close { spoke }) => (4, spoke, 0, vec![]),
            Self::Link(Envelope::Gone { spoke, line }) => (5, spoke, line, vec![]),
            Self::Word(word) => (6, 0, 0, vec![word]),
            Self::Leaving => (7, 0, 0, vec![]),
            Self::Ending(code) => (8, u32::from(code), 0, vec![]),
            Self::Over => (9, 0, 0, vec![]),
        };
        let short: usize = parts.iter().map(Bytes::len).filter(|n| *n < APART).sum();
        let mut head = Vec::with_capacity(FIXED + 8 * parts.len() + short);
        head.push(kind);
        head.extend_from_slice(&a.to_le_bytes());
        head.extend_from_slice(&b.to_le_bytes());
        head.extend_from_slice(&(parts.len() as u32).to_le_bytes());
        for part in &parts {
            head.extend_from_slice(&(part.len() as u64).to_le_bytes());
        }
        let (apart, short): (Vec<_>, Vec<_>) = parts.into_iter().partition(|p| p.len() >= APART);
        short.iter().for_each(|part| head.extend_from_slice(part));
        (head, apart)
    }
}

impl Begun {
    /// Reads a head; `None` if it is none of ours.
    pub(crate) fn read(head: Vec<u8>) -> Option<Self> {
        let number = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
        let (kind, a, b) = (*head.first()?, number(1)?, number(5)?);
        let n = number(9)? as usize;
        if n > MOST_PARTS {
            return None;
        }
        let lengths = head.get(FIXED..FIXED + 8 * n)?;
        let lengths: Vec<usize> = lengths
            .chunks_exact(8)
            .map(|c| c.try_into().ok().and_then(|c| usize::try_from(u64::from_le_bytes(c)).ok()))
            .collect::<Option<_>>()?;
        let short: usize = lengths.iter().filter(|n| **n < APART).sum();
        (head.len() == FIXED + 8 * n + short).then(|| Self {
            kind,
            a,
            b,
            lengths,
            head: head.into(),
        })
    }

    /// Returns the lengths of the parts that follow, in their order.
    pub(crate) fn to_come(&self) -> impl Iterator<Item = usize> + '_ {
        self.lengths.iter().copied().filter(|n| *n >= APART)
    }

    /// Puts the packet together; `None` if it is none of ours.
    pub(crate) fn complete(self, apart: Vec<Bytes>) -> Option<Packet> {
        let mut apart = apart.into_iter();
        let mut at = FIXED + 8 * self.lengths.len();
        let mut parts = Vec::with_capacity(self.lengths.len());
        for n in self.lengths {
            parts.push(match n >= APART {
                true => apart.next().filter(|p| p.len() == n)?,
                false => {
                    at += n;
                    self.head.slice(at - n..at)
                }
            });
        }
        let (spoke, line) = (self.a, self.b);
        Some(match self.kind {
            0 => {
                let name = String::from_utf8(parts.pop()?.into()).ok()?;
                Packet::Link(Envelope::Open { spoke, name })
            }
            1 => Packet::Link(Envelope::Accepted { spoke, line }),
            2 => Packet::Link(Envelope::Up { spoke, line, parts }),
            3 => Packet::Link(Envelope::Down { spoke, line, parts }),
            4 => Packet::Link(Envelope::Close { spoke }),
            5 => Packet::Link(Envelope::Gone { spoke, line }),
            6 => Packet::Word(parts.pop()?),
            7 => Packet::Leaving,
            8 => Packet::Ending(u8::try_from(self.a).ok()?),
            9 => Packet::Over,
            _ => return None,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn back(packet: &Packet) -> Packet {
        let (head, apart) = packet.clone().pack();
        let begun = Begun::read(head).unwrap();
        let lengths: Vec<_> = apart.iter().map(Bytes::len).collect();
        assert_eq!(begun.to_come().collect::<Vec<_>>(), lengths);
        begun.complete(apart).unwrap()
    }

    #[test]
    fn every_kind_comes_back() {
        let parts = vec![
            Bytes::from_static(b"head"),
            vec![1; APART].into(),
            Bytes::new(),
            vec![2; APART - 1].into(),
            vec![3; 3 * APART].into(),
        ];
        for packet in [
            Packet::Link(Envelope::Open { spoke: 7, name: "producer".into() }),
            Packet::Link(Envelope::Accepted { spoke: u32::MAX, line: 9 }),
            Packet::Link(Envelope::Up { spoke: 1, line: 2, parts: parts.clone() }),
            Packet::Link(Envelope::Down { spoke: 1, line: 2, parts }),
            Packet::Link(Envelope::Close { spoke: 3 }),
            Packet::Link(Envelope::Gone { spoke: 3, line: 4 }),
            Packet::Word(Bytes::from_static(b"{}")),
            Packet::Leaving,
            Packet::Ending(5),
            Packet::Over,
        ] {
            assert_eq!(back(&packet), packet);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(head in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(begun) = Begun::read(head) {
                let _ = begun.complete(Vec::new());
            }
        }
    }
}
