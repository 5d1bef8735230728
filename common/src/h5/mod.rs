//! The one door to the HDF5 library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`read`] | typed reads, raw chunks, attributes of files that others wrote |
//! | [`write`] | what the sink writes: values as h5rw encodes them, raw chunks, links, copies |

pub mod read;
pub mod write;
