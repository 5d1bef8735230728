//! What every role of ptystream shares.
//!
//! | module | what it holds |
//! |---|---|
//! | [`index`] | scan point indices, ranges and sets of them |
//! | [`dtype`], [`frame`] | pixel types and frames |
//! | [`buffer`] | memory for pixels: aligned, used again |
//! | [`value`] | the values that parameters and HDF5 files hold |
//! | [`params`] | the declarations of all parameters, checking, the typed parameter structs |
//! | [`geometry`] | region of interest, centre, orientation and rebinning of a scan |
//! | [`form`] | types and extents of what a plan makes of a frame |
//! | [`source`] | the trait behind which raw data stand, with ptypy's hooks |
//! | [`checksum`] | hashes of bytes |
//! | [`codec`] | HDF5 filter pipelines (gzip, shuffle, bitshuffle-LZ4, Blosc) on bytes |
//! | [`h5`] | the one door to the HDF5 library |
//! | [`ptyd`] | the `.ptyd` format: encoding, schema, reader |
//! | [`message`], [`wire`] | what roles say to each other, and its bytes |
//! | [`link`] | carriers of messages: in-process channels, ZeroMQ, MPI |
//! | [`report`] | the report of a scan, for the logbook |
//! | [`loops`] | whether the loops of a process turn |
//! | [`names`] | names of files and roles: their order, patterns that they fit |
//! | [`shutdown`] | the trigger that ends a role |
//! | [`disk`] | what there is to know of a disk |
//! | [`error`] | kinds of failure, and the exit codes they lead to |

pub mod buffer;
pub mod checksum;
pub mod codec;
pub mod disk;
pub mod dtype;
pub mod error;
pub mod form;
pub mod frame;
pub mod geometry;
pub mod h5;
pub mod index;
pub mod link;
pub mod loops;
pub mod message;
pub mod names;
pub mod params;
pub mod ptyd;
pub mod report;
pub mod shutdown;
pub mod source;
pub mod value;
pub mod wire;
