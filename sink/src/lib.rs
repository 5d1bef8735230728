//! The sink: puts prepared frames in order and writes the `.ptyd`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`identity`] | whether a file is begun, resumed, left alone or refused |
//! | [`writer`] | parts, the master, the fold |
//! | [`error`] | what can go wrong |

pub mod error;
pub mod identity;
pub mod writer;

pub use error::SinkError;
