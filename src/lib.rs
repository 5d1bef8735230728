//! The command line of ptystream, as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | what can be typed |
//! | [`app`] | from what was typed to what is done, and the exit code |
//! | [`config`] | one tree of parameters out of file, environment and flags |
//! | [`local`] | `run`: all roles in one process |
//! | [`roles`] | `producer`, `worker`, `sink`: one role over ZeroMQ |
//! | [`progress`] | what is seen while a scan runs |
//! | [`report`] | what is said at its end |
//! | [`params_cmd`], [`inspect`], [`checksums`], [`repair`], [`compare`], [`picture`] | the tools around |
//! | [`chaos`] | scans under faults, compared with undisturbed ones |
//! | [`signals`] | from signals to an orderly end |
//! | [`memory`] | what the allocator keeps |

pub mod app;
pub mod chaos;
pub mod checksums;
pub mod cli;
pub mod compare;
pub mod config;
pub mod inspect;
pub mod local;
pub mod memory;
pub mod params_cmd;
pub mod picture;
pub mod progress;
pub mod repair;
pub mod report;
pub mod roles;
pub mod signals;
