//! The command line of ptystream, as a library.
