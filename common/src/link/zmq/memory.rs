//! Shared memory for the big parts of messages over `ipc://`.
//!
//! What goes through a socket is copied into the crate's write buffer, into the kernel, into a
//! zeroed read buffer. Two processes of one machine do with one copy: each side of a connection has
//! a segment that it alone writes payload into and the other reads in place.
//!
//! | part 0 of a message | bytes | content |
//! |---|---|---|
//! | all | 0..4 | magic `PTYM` |
//! | | 4..6 | version of the wire format |
//! | | 6 | 1 offer, 2 acceptance, 3 reference |
//! | offer, acceptance | 7..23 | the segment's token, random |
//! | offer | 23..27, 27..31 | process and descriptor of the segment, unsigned, little-endian |
//! | reference | 7..15 | where the first part begins in the segment; the next begins at the next multiple of 64 |
//! | | 15.. | bytes of each part, 8 bytes a number; part 1 is the message's own part 0 |
//!
//! | segment | bytes | content |
//! |---|---|---|
//! | head | 0..16 | token |
//! | | 64.. | [`SLOTS`] words of 4 bytes: 0 free, 1 taken |
//! | slots | 4096.. | [`SLOTS`] times [`SLOT_BYTES`]; pages that were never written take no memory |
//!
//! Life: the spoke offers its segment when it connects; a hub that can open it accepts and offers its
//! own. Who sends takes the lowest free slot, so that memory stays warm; who receives frees it when
//! the last reader lets go. Where there is no free slot, or no acceptance (another machine, user or
//! container, a foreign program), parts go through the socket.
//!
//! A segment lives and dies with its connection: a peer that was taken for dead may still read in
//! it, so that nothing in it is ever given to another. It is an anonymous file that cannot shrink,
//! found under `/proc`, so that nothing is left behind by a process that is killed, and no reader
//! meets a missing page.

use crate::wire::VERSION;
use bytes::Bytes;
use memmap2::{MmapOptions, MmapRaw};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// First bytes of the messages of this module.
const MAGIC: [u8; 4] = *b"PTYM";
const OFFER: u8 = 1;
const ACCEPTANCE: u8 = 2;
const REFERENCE: u8 = 3;

/// Messages that may be in a segment at once; beyond a window of tickets.
const SLOTS: usize = 16;
/// Most payload of a message in a segment.
const SLOT_BYTES: usize = 64 << 20;
/// Less payload goes through the socket.
const LEAST_BYTES: usize = 16 << 10;
/// Begin of a part within a slot.
const ALIGN: usize = 64;
const STATES_AT: usize = 64;
const SLOTS_AT: usize = 4096;
const SIZE: usize = SLOTS_AT + SLOTS * SLOT_BYTES;

type Token = [u8; 16];

/// Why a segment or a message about one is of no use; the parts then go through the socket.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub(super) enum MemoryError {
    /// The system refuses.
    #[error("{what}")]
    System {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    /// Not the segment that was offered.
    #[error("what stands under that descriptor is not the segment that was offered")]
    Other,
    /// A message that is none of this module, or points outside of the segment.
    #[error("a message about shared memory cannot be understood: {0}")]
    Garbage(&'static str),
}

fn system(what: &'static str) -> impl Fn(io::Error) -> MemoryError {
    move |source| MemoryError::System { what, source }
}

/// A mapped segment.
#[derive(Debug)]
struct Segment {
    map: MmapRaw,
    token: Token,
}

impl Segment {
    fn state(&self, slot: usize) -> &AtomicU32 {
        debug_assert!(slot < SLOTS);
        // SAFETY: the word lies in the mapped head, is aligned to 4 bytes, lives as long as the
        // map, and both processes touch it by atomic operations alone.
        unsafe { AtomicU32::from_ptr(self.map.as_mut_ptr().add(STATES_AT + 4 * slot).cast()) }
    }
}

/// Payload of one message in a segment, read in place; frees its slot when dropped.
struct Slot {
    segment: Arc<Segment>,
    slot: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.segment.state(self.slot).store(0, Ordering::Release);
    }
}

/// A part of a message in a slot.
struct Part {
    slot: Arc<Slot>,
    at: usize,
    bytes: usize,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        let start = self.slot.segment.map.as_ptr();
        // SAFETY: `Incoming::resolve` saw that the part lies inside of its slot, the file cannot
        // shrink, and the sender does not write into the slot before it is freed, which happens
        // after the last part is dropped.
        unsafe { std::slice::from_raw_parts(start.add(self.at), self.bytes) }
    }
}

/// The segment into which this side of a connection writes.
#[derive(Debug)]
pub(super) struct Outgoing {
    segment: Segment,
    /// Kept open, since the other side finds the segment through it.
    file: File,
}

impl Outgoing {
    /// Makes a segment.
    ///
    /// # Errors
    /// [`MemoryError::System`] where the system has no such files.
    pub(super) fn new() -> Result<Self, MemoryError> {
        let file = sealed_file(SIZE as u64).map_err(system("cannot make shared memory"))?;
        let token = *uuid::Uuid::new_v4().as_bytes();
        let map = map(&file)?;
        // SAFETY: the head is mapped, and nobody else knows of the segment yet.
        unsafe { std::ptr::copy_nonoverlapping(token.as_ptr(), map.as_mut_ptr(), token.len()) };
        Ok(Self { segment: Segment { map, token }, file })
    }

    /// Returns the message that offers it.
    pub(super) fn offer(&self) -> Bytes {
        let mut head = head(OFFER, &self.segment.token);
        head.extend_from_slice(&std::process::id().to_le_bytes());
        head.extend_from_slice(&self.file.as_raw_fd().to_le_bytes());
        head.into()
    }

    /// Tells whether an acceptance is of this segment.
    pub(super) fn is_accepted_by(&self, token: &Token) -> bool {
        self.segment.token == *token
    }

    /// Puts the payload of an encoded message into the segment: returns the message that refers to
    /// it; `None` where it goes through the socket as it is.
    pub(super) fn place(&self, parts: &[Bytes]) -> Option<Vec<Bytes>> {
        let (own_head, payload) = parts.split_first()?;
        let needed: usize = payload.iter().map(|p| p.len().next_multiple_of(ALIGN)).sum();
        if !(LEAST_BYTES..=SLOT_BYTES).contains(&needed) {
            return None;
        }
        let free = |slot: &usize| {
            let state = self.segment.state(*slot);
            state.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        let slot = (0..SLOTS).find(free)?;
        let start = SLOTS_AT + slot * SLOT_BYTES;
        let mut head = head(REFERENCE, &(start as u64).to_le_bytes());
        let mut at = start;
        for part in payload {
            // SAFETY: the sum of all parts fits into the slot, which this thread has just taken and
            // nobody reads before the reference is sent.
            unsafe {
                let to = self.segment.map.as_mut_ptr().add(at);
                std::ptr::copy_nonoverlapping(part.as_ptr(), to, part.len());
            }
            head.extend_from_slice(&(part.len() as u64).to_le_bytes());
            at += part.len().next_multiple_of(ALIGN);
        }
        Some(vec![head.into(), own_head.clone()])
    }
}

/// The segment into which the other side of a connection writes.
#[derive(Debug)]
pub(super) struct Incoming(Arc<Segment>);

impl Incoming {
    /// Opens what was offered; returns also the acceptance to be sent.
    ///
    /// # Errors
    /// [`MemoryError`] if it cannot be opened from here.
    pub(super) fn open(offer: &Offer) -> Result<(Self, Bytes), MemoryError> {
        let path = format!("/proc/{}/fd/{}", offer.process, offer.descriptor);
        let opened = OpenOptions::new().read(true).write(true).open(path);
        let file = opened.map_err(system("cannot open the peer's shared memory"))?;
        let size = file.metadata().map_err(system("cannot look at shared memory"))?.len();
        if !is_sealed(&file) || size != SIZE as u64 {
            return Err(MemoryError::Other);
        }
        let map = map(&file)?;
        let mut token = [0; 16];
        // SAFETY: the head is mapped and is not written to after it was offered.
        unsafe { std::ptr::copy_nonoverlapping(map.as_ptr(), token.as_mut_ptr(), token.len()) };
        if token != offer.token {
            return Err(MemoryError::Other);
        }
        let answer = head(ACCEPTANCE, &token).into();
        Ok((Self(Arc::new(Segment { map, token })), answer))
    }

    /// Returns the parts of the message that refers to this segment; payload is not copied.
    ///
    /// # Errors
    /// [`MemoryError::Garbage`] if it points outside of a slot.
    pub(super) fn resolve(
        &self,
        reference: &Reference,
        own_head: Bytes,
    ) -> Result<Vec<Bytes>, MemoryError> {
        let outside = MemoryError::Garbage("it points outside of a slot");
        let start = reference.start.checked_sub(SLOTS_AT);
        let Some(slot) = start.filter(|s| s % SLOT_BYTES == 0).map(|s| s / SLOT_BYTES) else {
            return Err(outside);
        };
        let room = |left: usize, bytes: &usize| {
            left.checked_sub(bytes.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX))
        };
        if slot >= SLOTS || reference.bytes.iter().try_fold(SLOT_BYTES, room).is_none() {
            return Err(outside);
        }
        let slot = Arc::new(Slot { segment: Arc::clone(&self.0), slot });
        let mut at = reference.start;
        let mut parts = vec![own_head];
        for &bytes in &reference.bytes {
            parts.push(Bytes::from_owner(Part { slot: Arc::clone(&slot), at, bytes }));
            at += bytes.next_multiple_of(ALIGN);
        }
        Ok(parts)
    }
}

/// Makes an anonymous file that keeps its size.
#[cfg(target_os = "linux")]
fn sealed_file(bytes: u64) -> io::Result<File> {
    use std::os::fd::FromRawFd;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is zero-terminated.
    let descriptor = unsafe { libc::memfd_create(c"ptystream".as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and nobody else's.
    let file = unsafe { File::from_raw_fd(descriptor) };
    file.set_len(bytes)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is open.
    match unsafe { libc::fcntl(descriptor, libc::F_ADD_SEALS, seals) } {
        0 => Ok(file),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Tells whether a file cannot shrink.
#[cfg(target_os = "linux")]
fn is_sealed(file: &File) -> bool {
    // SAFETY: the descriptor is open.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

#[cfg(not(target_os = "linux"))]
fn sealed_file(_: u64) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn is_sealed(_: &File) -> bool {
    false
}

fn map(file: &File) -> Result<MmapRaw, MemoryError> {
    MmapOptions::new().len(SIZE).map_raw(file).map_err(system("cannot map shared memory"))
}

fn head(kind: u8, rest: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(48);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&VERSION.to_le_bytes());
    head.push(kind);
    head.extend_from_slice(rest);
    head
}

/// Where a segment is found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Offer {
    token: Token,
    process: u32,
    descriptor: u32,
}

/// Where the payload of a message lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reference {
    start: usize,
    bytes: Vec<usize>,
}

/// What a message about shared memory says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A segment can be opened.
    Offer(Offer),
    /// The segment with this token was opened.
    Acceptance(Token),
    /// Payload lies in the segment.
    Reference(Reference),
}

/// Tells whether part 0 is of a message about shared memory.
pub(super) fn is_ours(head: &[u8]) -> bool {
    head.starts_with(&MAGIC)
}

/// Reads part 0 of a message about shared memory.
///
/// # Errors
/// [`MemoryError::Garbage`] with what is wrong.
pub(super) fn read(head: &[u8]) -> Result<Said, MemoryError> {
    let garbage = Err(MemoryError::Garbage("its length is wrong"));
    let Some((&[_, _, _, _, low, high, kind], rest)) = head.split_first_chunk::<7>() else {
        return garbage;
    };
    if u16::from_le_bytes([low, high]) != VERSION {
        return Err(MemoryError::Garbage("it is of another version"));
    }
    match kind {
        ACCEPTANCE => match rest.try_into() {
            Ok(token) => Ok(Said::Acceptance(token)),
            Err(_) => garbage,
        },
        OFFER => match (rest.first_chunk(), rest.get(16..).map(<[u8]>::as_chunks::<4>)) {
            (Some(&token), Some(([process, descriptor], []))) => Ok(Said::Offer(Offer {
                token,
                process: u32::from_le_bytes(*process),
                descriptor: u32::from_le_bytes(*descriptor),
            })),
            _ => garbage,
        },
        REFERENCE => match rest.as_chunks::<8>() {
            ([start, bytes @ ..], []) if !bytes.is_empty() => {
                let number = |b: &[u8; 8]| usize::try_from(u64::from_le_bytes(*b)).ok();
                match (number(start), bytes.iter().map(number).collect()) {
                    (Some(start), Some(bytes)) => Ok(Said::Reference(Reference { start, bytes })),
                    _ => garbage,
                }
            }
            _ => garbage,
        },
        _ => Err(MemoryError::Garbage("its kind is unknown")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn offer_of(outgoing: &Outgoing) -> Offer {
        match read(&outgoing.offer()).unwrap() {
            Said::Offer(offer) => offer,
            other => panic!("{other:?}"),
        }
    }

    fn pair() -> (Outgoing, Incoming) {
        let outgoing = Outgoing::new().unwrap();
        let (incoming, answer) = Incoming::open(&offer_of(&outgoing)).unwrap();
        match read(&answer).unwrap() {
            Said::Acceptance(token) => assert!(outgoing.is_accepted_by(&token)),
            other => panic!("{other:?}"),
        }
        (outgoing, incoming)
    }

    fn message(sizes: &[usize]) -> Vec<Bytes> {
        let part = |(i, n): (usize, &usize)| -> Bytes {
            (0..*n).map(|k| (k * 7 + i) as u8).collect::<Vec<_>>().into()
        };
        std::iter::once(Bytes::from_static(b"PTYS head"))
            .chain(sizes.iter().enumerate().map(part))
            .collect()
    }

    fn received(incoming: &Incoming, placed: &[Bytes]) -> Vec<Bytes> {
        let Said::Reference(reference) = read(&placed[0]).unwrap() else { panic!("no reference") };
        incoming.resolve(&reference, placed[1].clone()).unwrap()
    }

    #[test]
    fn parts_arrive_as_they_were_and_slots_are_used_again() {
        let (outgoing, incoming) = pair();
        for sizes in [&[20_000][..], &[65_536, 1], &[1, 0, 40_000]] {
            let sent = message(sizes);
            let placed = outgoing.place(&sent).unwrap();
            assert_eq!(placed.len(), 2);
            assert_eq!(received(&incoming, &placed), sent);
            let Said::Reference(reference) = read(&placed[0]).unwrap() else { panic!() };
            assert_eq!(reference.start, SLOTS_AT, "the lowest free slot");
        }
    }

    #[test]
    fn a_slot_is_taken_until_the_last_reader_lets_go() {
        let (outgoing, incoming) = pair();
        let sent = message(&[30_000, 30_000]);
        let mut held: Vec<Vec<Bytes>> =
            (0..SLOTS).map(|_| received(&incoming, &outgoing.place(&sent).unwrap())).collect();
        assert!(outgoing.place(&sent).is_none(), "all are taken");
        let mut one = held.pop().unwrap();
        drop(one.pop());
        assert!(outgoing.place(&sent).is_none(), "one part of it is still read");
        drop(one);
        assert!(outgoing.place(&sent).is_some());
        drop(outgoing);
        assert_eq!(held[0], sent, "the sender's end does not take what is being read");
    }

    #[test]
    fn small_and_huge_messages_go_through_the_socket() {
        let (outgoing, _incoming) = pair();
        assert!(outgoing.place(&message(&[])).is_none());
        assert!(outgoing.place(&message(&[LEAST_BYTES - ALIGN])).is_none());
        let huge = vec![Bytes::new(), vec![0; SLOT_BYTES + 1].into()];
        assert!(outgoing.place(&huge).is_none());
    }

    #[test]
    fn what_is_not_the_offered_segment_is_not_opened() {
        let outgoing = Outgoing::new().unwrap();
        let right = offer_of(&outgoing);
        let wrong_token = Offer { token: [7; 16], ..offer_of(&outgoing) };
        assert!(matches!(Incoming::open(&wrong_token), Err(MemoryError::Other)));
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE as u64).unwrap();
        let no_memory = Offer { descriptor: file.as_raw_fd() as u32, ..right };
        assert!(matches!(Incoming::open(&no_memory), Err(MemoryError::Other)));
        let nobody = Offer { process: u32::MAX, ..no_memory };
        assert!(matches!(Incoming::open(&nobody), Err(MemoryError::System { .. })));
    }

    #[test]
    fn references_outside_of_slots_are_refused() {
        let (_outgoing, incoming) = pair();
        for (start, bytes) in [
            (0, vec![1]),
            (SLOTS_AT + 1, vec![1]),
            (SIZE, vec![1]),
            (SLOTS_AT, vec![SLOT_BYTES + 1]),
            (SLOTS_AT, vec![SLOT_BYTES, 1]),
            (SLOTS_AT, vec![usize::MAX, usize::MAX]),
        ] {
            let reference = Reference { start, bytes };
            let refused = incoming.resolve(&reference, Bytes::new());
            assert!(matches!(refused, Err(MemoryError::Garbage(_))), "{reference:?}");
        }
    }

    proptest! {
        #[test]
        fn no_head_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut head = head(REFERENCE, &[]);
            head.truncate(6);
            head.extend_from_slice(&bytes);
            // Whatever it says, it says it without a panic.
            let said = read(&head);
            if let Ok(Said::Reference(reference)) = said {
                prop_assert!(!reference.bytes.is_empty());
            }
        }
    }
}
