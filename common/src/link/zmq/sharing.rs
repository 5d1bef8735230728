//! What a connection over `ipc://` has of shared memory, and what is said about it.
//!
//! Both ends use this: the spoke makes the first offer, the hub answers one with its own.

use super::memory::{self, Incoming, MemoryError, Outgoing, Said};
use bytes::Bytes;
use std::sync::Arc;

/// The two segments of a connection; the default is a connection without.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Where the other end puts big parts.
    incoming: Option<Incoming>,
    /// What was offered and is not accepted yet.
    offered: Option<Arc<Outgoing>>,
    /// Where big parts for the other end go.
    accepted: Option<Arc<Outgoing>>,
}

/// What came of a message.
pub(super) enum Received {
    /// It is whole: its parts.
    Message(Vec<Bytes>),
    /// It was about shared memory: what is to be said in return, a message each.
    Answers(Vec<Bytes>),
}

impl Sharing {
    /// Returns the segment that the other end has accepted.
    pub(super) fn accepted(&self) -> Option<Arc<Outgoing>> {
        self.accepted.clone()
    }

    /// Makes a segment; returns its offer, or `None` where there is no such memory.
    pub(super) fn offer(&mut self) -> Option<Bytes> {
        match Outgoing::new() {
            Ok(own) => {
                let offer = own.offer();
                self.offered = Some(Arc::new(own));
                Some(offer)
            }
            Err(error) => {
                tracing::debug!("{}; all goes through the socket", crate::error::chain(&error));
                None
            }
        }
    }

    /// Takes a message: returns it with the parts that lie in shared memory, or the answer to what
    /// is said about that memory.
    ///
    /// # Errors
    /// [`MemoryError`]; after an offer that cannot be taken all goes through the socket, while a
    /// reference that leads nowhere is a message lost.
    pub(super) fn receive(&mut self, parts: Vec<Bytes>) -> Result<Received, MemoryError> {
        let Some(head) = parts.first().filter(|head| memory::is_ours(head)) else {
            return Ok(Received::Message(parts));
        };
        match memory::read(head)? {
            Said::Offer(offer) => {
                let (incoming, acceptance) = Incoming::open(&offer)?;
                self.incoming = Some(incoming);
                let own = match (&self.offered, &self.accepted) {
                    (None, None) => self.offer(),
                    _ => None,
                };
                Ok(Received::Answers([Some(acceptance), own].into_iter().flatten().collect()))
            }
            Said::Acceptance(token) => {
                if let Some(own) = self.offered.take().filter(|own| own.is_accepted_by(&token)) {
                    self.accepted = Some(own);
                }
                Ok(Received::Answers(Vec::new()))
            }
            Said::Reference(reference) => match (&self.incoming, parts.get(1)) {
                (Some(incoming), Some(own_head)) => {
                    incoming.resolve(&reference, own_head.clone()).map(Received::Message)
                }
                _ => Err(MemoryError::Garbage("nothing was offered before")),
            },
        }
    }
}

/// Says what was wrong with a message about shared memory from `whom`.
pub(super) fn complain(whom: &str, error: &MemoryError) {
    match error {
        MemoryError::Garbage(_) => tracing::error!("a message from {whom} was dropped: {error}"),
        MemoryError::System { .. } | MemoryError::Other => {
            let why = crate::error::chain(error);
            tracing::debug!("{whom}: {why}; all goes through the socket");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn answers(received: Received) -> Vec<Bytes> {
        match received {
            Received::Answers(answers) => answers,
            Received::Message(parts) => panic!("{parts:?}"),
        }
    }

    #[test]
    fn after_the_greetings_both_ends_have_a_way() {
        let (mut spoke, mut hub) = (Sharing::default(), Sharing::default());
        let offer = spoke.offer().unwrap();
        let mut to_spoke = answers(hub.receive(vec![offer]).unwrap());
        assert_eq!(to_spoke.len(), 2, "an acceptance and an offer");
        let own = to_spoke.pop().unwrap();
        assert!(answers(spoke.receive(to_spoke).unwrap()).is_empty());
        let to_hub = answers(spoke.receive(vec![own]).unwrap());
        assert_eq!(to_hub.len(), 1, "an acceptance alone");
        assert!(answers(hub.receive(to_hub).unwrap()).is_empty());

        let sent = vec![Bytes::from_static(b"PTYS"), vec![7; 20_000].into()];
        // Whoever was offered nothing finds nothing.
        let placed = spoke.accepted().unwrap().place(&sent).unwrap();
        let lost = Sharing::default().receive(placed).err().unwrap();
        assert!(matches!(lost, MemoryError::Garbage(_)), "{lost}");
        let placed = spoke.accepted().unwrap().place(&sent).unwrap();
        let Received::Message(parts) = hub.receive(placed).unwrap() else { panic!() };
        assert_eq!(parts, sent);
        let placed = hub.accepted().unwrap().place(&sent).unwrap();
        let Received::Message(parts) = spoke.receive(placed).unwrap() else { panic!() };
        assert_eq!(parts, sent);
    }
}
