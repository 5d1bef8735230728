//! The sink of ptystream: puts prepared frames in order and writes the `.ptyd`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | the role: read first |
//! | [`assemble`] | order, duplicates, gaps, chunks: a state machine without files or clocks |
//! | [`credit`] | how many results each worker may have on its way |
//! | [`threads`] | the threads that touch the disk |
//! | [`identity`] | whether a file is begun, resumed, left alone or refused |
//! | `pause` | what the sink does while its disk refuses |
//! | `scan` | a scan whose file is open |
//! | `report` | what is counted, and said at the end |
//! | [`writer`] | parts, the master, the fold |
//! | [`error`] | what can go wrong |

mod alignment;
pub mod assemble;
pub mod credit;
pub mod error;
pub mod identity;
mod pause;
mod report;
pub mod run;
mod scan;
pub mod threads;
pub mod writer;

pub use error::SinkError;
