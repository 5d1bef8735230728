//! What can go wrong in the sink.

use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::ptyd::PtydError;
use std::io;
use std::path::PathBuf;

/// Errors of the system that may go away: no room, a disk or share that fails, is gone or has
/// become read-only.
const TROUBLE: &[i32] = &[
    libc::ENOSPC,
    libc::EDQUOT,
    libc::EIO,
    libc::EROFS,
    libc::EACCES,
    libc::EPERM,
    libc::ESTALE,
    libc::ENODEV,
    libc::ENXIO,
    libc::ENOTCONN,
    libc::ETIMEDOUT,
    libc::EHOSTDOWN,
    libc::ENOENT,
];

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
        "{}: its disk is full: the next write needs {needed} bytes, {free} are free; make room",
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

impl SinkError {
    /// Tells whether the disk refuses for a reason that may go away while the scan waits.
    pub fn is_trouble(&self) -> bool {
        let code = match self {
            Self::DiskFull { .. } => return true,
            Self::File { source, .. } => source.raw_os_error(),
            Self::Ptyd(error) => error.os_error(),
            _ => None,
        };
        code.is_some_and(|code| TROUBLE.contains(&code))
    }

    /// Returns the failure of a scan that had begun: it says how to go on.
    pub fn in_mid_scan(&self) -> Failure {
        let mut failure = Failure::from(self);
        if self.is_trouble() {
            failure.text.push_str("; the same command goes on from the chunks that are whole");
        }
        failure
    }

    /// Returns the bytes that are needed, as far as they are known.
    pub fn needed(&self) -> u64 {
        match self {
            Self::DiskFull { needed, .. } => *needed,
            _ => 0,
        }
    }
}

impl From<&SinkError> for Failure {
    fn from(error: &SinkError) -> Self {
        Self::new(error.kind(), chain(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_what_may_go_away() {
        let failed = |code| SinkError::file("write", "a")(io::Error::from_raw_os_error(code));
        for code in TROUBLE {
            assert!(failed(*code).is_trouble(), "{code}");
        }
        assert!(!failed(libc::EINVAL).is_trouble());
        assert!(!SinkError::NoFile.is_trouble());
        let missing = ptystream_common::ptyd::part::PartWriter::create(
            std::path::Path::new("/dev/null/part"),
            &form(),
            0,
            1,
            false,
        );
        assert_eq!(missing.err().and_then(|e| e.os_error()), Some(libc::ENOTDIR));
    }

    fn form() -> ptystream_common::message::PreparedForm {
        let dtype = ptystream_common::dtype::Dtype::U8;
        ptystream_common::message::PreparedForm {
            data: dtype,
            weights: dtype,
            shape: [1, 1],
            weights_shape: [1, 1],
            batch: 1,
            data_filters: vec![],
            weights_filters: vec![],
            common_weights: false,
        }
    }
}
