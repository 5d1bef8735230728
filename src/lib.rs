//! The command line of ptystream, as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`auto`] | a scan without the pipeline, package by package |
//! | [`cli`] | what can be typed |
//! | [`app`] | from what was typed to what is done, and the exit code |
//! | [`config`] | one tree of parameters out of file, environment and flags |
//! | [`local`] | `run`: all roles in one process |
//! | [`roles`] | `producer`, `worker`, `sink`: one role over ZeroMQ or MPI |
//! | [`rendezvous`] | where roles tell each other their addresses |
//! | [`replay`], [`recording`] | what instruments send, into a file and out of it again |
//! | [`watch`] | scan after scan, as their files appear |
//! | [`health`] | whether a role lives |
//! | [`progress`] | what is seen while a scan runs |
//! | [`report`] | what is said at its end |
//! | [`init`], [`check`], [`params_cmd`], [`peek`], [`inspect`], [`checksums`], [`repair`], [`compare`], [`picture`] | the tools around |
//! | [`chaos`] | scans under faults, compared with undisturbed ones |
//! | [`signals`] | from signals to an orderly end |
//! | [`memory`] | what the allocator keeps |

pub mod app;
pub mod auto;
mod canvas;
pub mod chaos;
pub mod check;
pub mod checksums;
pub mod cli;
pub mod compare;
pub mod config;
mod connection;
pub mod health;
mod hooks;
pub mod init;
pub mod inspect;
pub mod local;
pub mod memory;
pub mod params_cmd;
pub mod peek;
pub mod picture;
pub mod progress;
mod ranks;
pub mod recording;
pub mod rendezvous;
pub mod repair;
pub mod replay;
pub mod report;
pub mod roles;
mod runs;
pub mod signals;
pub mod simulate;
pub mod watch;

pub use app::main_with;
// For programs with sources of their own: one dependency is enough.
pub use ptystream_common as common;
pub use ptystream_producer as producer;
