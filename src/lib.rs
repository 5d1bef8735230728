//! The command line of ptystream, as a library.

pub mod compare;
pub mod inspect;
pub mod repair;
