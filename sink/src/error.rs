//! What can go wrong in the sink.

use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::ptyd::PtydError;
use std::io;
use std::path::PathBuf;

/// A failure of the sink.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum SinkError {
    /// The announced scan names no file though one is to be written.
    #[error("data.dfile is not set, though data.save is; name the file to write")]
    NoFile,
    /// A folder stands where the file is to be.
    #[error("data.dfile: {} is a folder; name a file in it, such as {}", .0.display(), .0.join("scan.ptyd").display())]
    Folder(PathBuf),
    /// The name of part files cannot be made.
    #[error("data.chunk_format '{0}' must hold exactly one number such as %d or %03d and no '/'")]
    ChunkFormat(String),
    /// Another sink writes the file.
    #[error("{}: is being written by {owner}; wait for it, or give another data.dfile", file.display())]
    Locked {
        /// The file.
        file: PathBuf,
        /// Process and host, as far as they are known.
        owner: String,
    },
    /// The lock is no longer ours.
    #[error("{}: another process took over the lock; this one stops writing", file.display())]
    LockLost {
        /// The file.
        file: PathBuf,
    },
    /// The file holds an unfinished scan that is not this one.
    #[error(
        "{}: holds an unfinished scan that differs in {}; finish that scan with its own configuration, or replace it with --fresh",
        file.display(),
        changed.join(", ")
    )]
    OtherScan {
        /// The file.
        file: PathBuf,
        /// Names of what differs, with both values where they are short.
        changed: Vec<String>,
    },
    /// A file operation failed.
    #[error("{}: cannot {doing}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The disk is too full.
    #[error(
        "{}: its disk is full: the next write needs {needed} bytes, {free} are free; make room and start again: whole chunks are kept",
        path.display()
    )]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// Bytes needed, as far as they are known.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A `.ptyd` file or part failed.
    #[error(transparent)]
    Ptyd(#[from] PtydError),
    /// Chunks or frames that cannot be.
    #[error("chunk {chunk}: {text}")]
    Chunk {
        /// Number of the chunk.
        chunk: u64,
        /// What was wrong.
        text: String,
    },
}

impl SinkError {
    /// Makes what turns an I/O error into ours.
    pub(crate) fn file(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing, path, source }
    }

    /// Returns what the failure is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoFile | Self::Folder(_) | Self::ChunkFormat(_) | Self::OtherScan { .. } => {
                Kind::Config
            }
            _ => Kind::Output,
        }
    }
}

impl From<&SinkError> for Failure {
    fn from(error: &SinkError) -> Self {
        Self::new(error.kind(), chain(error))
    }
}
