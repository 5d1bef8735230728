//! The one door to the HDF5 library.
//!
//! | module | what it holds |
//! |---|---|
//! | [`survey`] | what is in a file of which nothing is known |
//! | [`read`] | typed reads, raw chunks, attributes of files that others wrote |
//! | [`mod@write`] | files, texts, attributes and small arrays as h5py writes them; copies |
//! | [`raw`] | the C calls that the safe crate does not offer |
//! | `spawn` | programs that are started while files are open |

pub mod raw;
pub mod read;
mod spawn;
pub mod survey;
pub mod write;

pub use hdf5::Group;
pub use spawn::spawn;

/// Returns the version of the HDF5 library, such as `1.14.6`.
pub fn library_version() -> String {
    let (major, minor, patch) = hdf5::library_version();
    format!("{major}.{minor}.{patch}")
}
