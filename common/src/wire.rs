//! Bytes of a message.

/// Version of the wire format.
pub const VERSION: u16 = 1;

/// What is wrong with bytes that should be a message.
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
    /// The header's promise and the parts differ.
    #[error("message of {what}: {text}")]
    Parts {
        /// Which message.
        what: &'static str,
        /// What differs.
        text: String,
    },
}
