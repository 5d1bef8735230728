//! The `.ptyd` format: encoding of values, schema, reader.
//!
//! ```text
//! /            h5rw_version, ctime, mtime
//! /chunks/N    data (n,H,W) · weights (n,H,W) · positions (n,2) · indices (n,)
//! /meta        version, num_frames, label, shape, psize, center, energy, distance
//! /info        the scan's parameters
//! /ptystream   what is ours; ptypy does not look at it
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`encode`] | values as h5rw encodes them |
//! | [`record`] | the group `/ptystream` |
//! | [`part`] | one chunk in a file of its own, being written or being verified |
//! | [`links`] | the file with the scan's name as links to parts, while it grows |
//! | [`master`] | the file with the scan's name: what all kinds share, and everything folded |
//! | [`per_frame`] | numbers of each frame |
//! | [`sums`] | checksums of what is stored |
//! | [`read`] | a file as a reader sees it |

pub mod encode;
mod error;
pub mod links;
pub mod master;
pub mod part;
pub mod per_frame;
pub mod read;
pub mod record;
pub mod sums;

pub use error::PtydError;
