//! What can be wrong with a `.ptyd` file.

use std::path::{Path, PathBuf};

/// A failure to write or read a `.ptyd` file or one of its parts.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum PtydError {
    /// The HDF5 library refused.
    #[error("{}: cannot {doing} '{object}'", file.display())]
    Hdf5 {
        /// The file.
        file: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The object inside the file.
        object: String,
        /// The library's reason.
        #[source]
        source: hdf5::Error,
    },
    /// The file holds something else than it should.
    #[error("{}: {object} {text}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// The object inside the file.
        object: String,
        /// What was expected, and what is there.
        text: String,
    },
}

impl PtydError {
    /// Makes a [`PtydError::Content`].
    pub fn content(file: &Path, object: impl Into<String>, text: impl Into<String>) -> Self {
        Self::Content { file: file.to_owned(), object: object.into(), text: text.into() }
    }

    /// Makes what turns an error of the library into ours.
    pub(crate) fn hdf5<'a>(
        file: &'a Path,
        doing: &'static str,
        object: &'a str,
    ) -> impl FnOnce(hdf5::Error) -> Self + 'a {
        move |source| Self::Hdf5 { file: file.to_owned(), doing, object: object.to_owned(), source }
    }

    /// Returns the system's error behind a failure of the library, where it tells one.
    pub fn os_error(&self) -> Option<i32> {
        let Self::Hdf5 { source, .. } = self else { return None };
        let stack = source.stack()?;
        // The library writes it into the text of the frame that made the call.
        stack.iter().find_map(|frame| {
            let (_, rest) = frame.desc().split_once("errno = ")?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        })
    }
}
