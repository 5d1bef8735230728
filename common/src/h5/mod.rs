//! The one door to the HDF5 library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`read`] | typed reads, raw chunks, attributes of files that others wrote |
//! | [`mod@write`] | files, texts, attributes and small arrays as h5py writes them; copies |
//! | [`raw`] | the C calls that the safe crate does not offer |

pub mod raw;
pub mod read;
pub mod write;
