//! The command line of ptystream, as a library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`] | one checked configuration out of defaults, file, environment and flags |
//! | [`params_cmd`] | what `ptystream params` prints |

pub mod config;
pub mod params_cmd;
