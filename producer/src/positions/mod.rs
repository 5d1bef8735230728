//! Positions that come as a stream of their own, and the join with the frames.
//!
//! ```text
//! bytes ──▶ decoder ──▶ Event ──▶ Join ◀── index, exposure of a frame
//! (stream.rs)                      │
//!                        position, scalars of that frame ──▶ Joined, a live Source around the frames' own
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`contrast`], [`panda`], [`panda_json`], [`lines`] | decoders: bytes in, [`Event`]s out |
//! | [`pickle`], [`fields`], [`columns`] | what messages hold, and which numbers are taken |
//! | [`stream`] | sockets and files |
//! | `listener` | which series counts |
//! | [`mod@axes`] | units, sign and order of the axes |
//! | [`join`] | which position belongs to which frame: no sockets, no clock |
//! | [`joined`] | the frames' source and its positions as one source |
//! | [`sends`] | what instruments send, for rehearsals |
//! | [`settings`] | the parameters |

pub mod axes;
pub mod columns;
pub mod connection;
pub mod contrast;
pub mod fields;
pub mod join;
pub mod joined;
pub mod lines;
mod listener;
pub mod panda;
pub mod panda_json;
pub mod pickle;
pub mod sends;
pub mod settings;
pub mod stream;

pub(crate) use joined::open;
pub(crate) use settings::{PARAMS, axes};

/// How a series of positions ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As it should.
    Finished,
    /// By somebody or something.
    Interrupted(String),
}

/// What bytes of an instrument mean.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A series begins.
    Begin,
    /// Rows of the wanted columns.
    Samples {
        /// One value a column.
        rows: Vec<Vec<f64>>,
        /// Number of the first, where the instrument counts.
        first: Option<u64>,
        /// Whether the beginning of their series was seen, if it has one.
        begun: bool,
    },
    /// The series has ended.
    End(Ending),
    /// The instrument says that it has lost so many samples.
    Lost(u64),
    /// Something that is no message of the format: why.
    Unknown(String),
    /// A message without what is wanted: which.
    Lacking(String),
}

impl Event {
    /// Makes [`Event::Samples`] of a series from its beginning.
    pub(crate) fn samples(rows: Vec<Vec<f64>>, first: Option<u64>) -> Self {
        Self::Samples { rows, first, begun: true }
    }
}
