//! Why something cannot be read from an HDF5 file.

use std::path::PathBuf;

/// Why something cannot be read from an HDF5 file.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum ReadError {
    /// No such file.
    #[error("'{}' is missing", path.display())]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The system refuses to read the file.
    #[error("'{}' cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The file has no HDF5 signature.
    #[error("'{}' is not an HDF5 file", path.display())]
    NotHdf5 {
        /// Which file.
        path: PathBuf,
    },
    /// The library refuses the file.
    #[error("'{}' cannot be opened: it is cut off, damaged, or open for writing elsewhere", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: hdf5::Error,
    },
    /// No object under this key.
    #[error("no dataset '{key}' in '{}'{}", path.display(), super::keys::hint(near))]
    Key {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        key: String,
        /// Keys of datasets that come near.
        near: Vec<String>,
    },
    /// The key names a group.
    #[error("'{key}' in '{}' is a group, not a dataset{}", path.display(), super::keys::hint(near))]
    Group {
        /// Which file.
        path: PathBuf,
        /// What was looked for.
        key: String,
        /// Keys of datasets in or near it.
        near: Vec<String>,
    },
    /// The object is of a format that the library does not know yet.
    #[error("'{key}' in '{}' was written by a newer HDF5 than {} here; use that one, or have the writer set libver (h5py: libver=(\"v110\", \"v110\"))", path.display(), crate::h5::library_version())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Which object.
        key: String,
        /// The cause.
        #[source]
        source: hdf5::Error,
    },
    /// Items are of no pixel type.
    #[error("'{key}' in '{}' holds items of type {what}; integers up to 32 bit, int64, float32, float64 and bool can be read", path.display())]
    Type {
        /// Which file.
        path: PathBuf,
        /// Which dataset.
        key: String,
        /// Their type.
        what: String,
    },
    /// Chunks are compressed by something unknown.
    #[error("'{key}' in '{}' is compressed with HDF5 filter {id}, which is not installed; install its plugin, set HDF5_PLUGIN_PATH, or repack the file with gzip", path.display())]
    Filter {
        /// Which file.
        path: PathBuf,
        /// Which dataset.
        key: String,
        /// The filter's registered number.
        id: i32,
    },
    /// A source of a virtual dataset is missing.
    #[error("virtual dataset '{key}' in '{}' takes from {missing}: it would read as zeros; bring that file to where the virtual dataset expects it", path.display())]
    Virtual {
        /// Which file.
        path: PathBuf,
        /// Which dataset.
        key: String,
        /// What it takes from, and what is wrong with it.
        missing: String,
    },
    /// The library refuses to read the items.
    #[error("'{key}' in '{}' cannot be read", path.display())]
    Items {
        /// Which file.
        path: PathBuf,
        /// Which dataset.
        key: String,
        /// The cause.
        #[source]
        source: hdf5::Error,
    },
}
