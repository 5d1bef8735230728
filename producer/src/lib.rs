//! The producer of ptystream: alone knows where frames come from, and who gets which.
//!
//! | module | what it holds |
//! |---|---|
//! | [`run`] | the role: read first |
//! | [`scan`] | a scan opened and checked before its first frame is handed out |
//! | [`dispatch`] | who gets which frames, and when: a state machine without sockets or clocks |
//! | [`read`] | the thread that reads frames where the producer sends pixels |
//! | [`source`] | where raw frames and positions come from |
//! | [`error`] | what can go wrong |

pub mod dispatch;
pub mod error;
pub mod read;
pub mod run;
pub mod scan;
pub mod source;
