//! The producer of ptystream: alone knows where frames come from, and who gets which.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | the role: read first |
//! | [`scan`] | a scan opened and checked before its first frame is handed out |
//! | [`dispatch`] | who gets which frames, and when: a state machine without sockets or clocks |
//! | [`peers`] | who is connected, and whose messages count |
//! | [`measure`] | the automatic centre out of what workers measured |
//! | [`read`] | the thread that reads frames where the producer sends pixels |
//! | `live` | the same for a live source: takes every frame as it comes |
//! | [`retain`] | the frames of a live source, kept until they are durable: memory and spool |
//! | [`report`] | what is said while a scan runs, and at its end |
//! | `latency` | how long frames take until they are visible |
//! | [`positions`] | positions that come as a stream, and their join with the frames |
//! | [`source`] | where raw frames come from, and positions that lie beside them |
//! | [`error`] | what can go wrong |

pub mod dispatch;
pub mod error;
mod latency;
mod live;
pub mod measure;
pub mod peers;
mod phase;
pub mod positions;
pub mod read;
pub mod report;
pub mod retain;
pub mod run;
pub mod scan;
pub mod source;
mod waits;
