//! The worker of ptystream: prepares raw frames as ptypy's `PtyScan` does.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | the role: read first |
//! | [`activity`] | what a worker is at, for those who watch |
//! | [`prepare`] | from raw frames to HDF5 chunks of data and weights |
//! | [`plan`] | a plan checked against its arrays |
//! | [`center`] | centres of mass for the automatic centre |
//! | `signals` | what alignment is judged by |
//! | [`error`] | what can be wrong with a frame or a plan |

pub mod activity;
pub mod center;
pub mod error;
pub mod plan;
pub mod prepare;
pub mod run;
mod signals;

pub use error::PrepareError;
pub use prepare::{OpenBatch, PreparedBatch, Preparer};
