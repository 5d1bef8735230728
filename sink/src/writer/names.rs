//! Names of parts.

use super::disk;
use crate::error::SinkError;
use std::path::{Path, PathBuf};

/// ptypy's names of parts.
pub(crate) const DEFAULT_FORMAT: &str = ".part%03d";

/// Makes the names of a file's parts: the file's name and a numbered suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartNames {
    format: String,
    before: String,
    width: usize,
    zeros: bool,
    after: String,
}

impl PartNames {
    /// Reads a format with one `%d`, `%3d` or `%03d`.
    pub(crate) fn new(format: Option<&str>) -> Result<Self, SinkError> {
        let format = format.unwrap_or(DEFAULT_FORMAT);
        let bad = || SinkError::ChunkFormat(format.to_owned());
        let (before, rest) = format.split_once('%').ok_or_else(bad)?;
        let (digits, after) = rest.split_once('d').ok_or_else(bad)?;
        let plain = digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit());
        if !plain || after.contains('%') || format.contains('/') {
            return Err(bad());
        }
        Ok(Self {
            format: format.to_owned(),
            before: before.to_owned(),
            width: digits.parse().unwrap_or(0),
            zeros: digits.starts_with('0'),
            after: after.to_owned(),
        })
    }

    /// Returns the format as it was given.
    pub(crate) fn format(&self) -> &str {
        &self.format
    }

    /// Returns the name of chunk `chunk`'s part of the file named `file`.
    pub(crate) fn name(&self, file: &str, chunk: u64) -> String {
        let width = self.width;
        let number =
            if self.zeros { format!("{chunk:0width$}") } else { format!("{chunk:width$}") };
        format!("{file}{}{number}{}", self.before, self.after)
    }

    /// Returns the path of chunk `chunk`'s part of `dfile`.
    pub(crate) fn path(&self, dfile: &Path, chunk: u64) -> PathBuf {
        disk::beside(dfile, &self.name(&disk::name_of(dfile), chunk))
    }

    /// Returns the chunk whose part of `file` has this name.
    pub(crate) fn chunk_of(&self, file: &str, name: &str) -> Option<u64> {
        let middle = name.strip_prefix(file)?.strip_prefix(&self.before)?;
        let chunk = middle.strip_suffix(&self.after)?.trim_start().parse().ok()?;
        (self.name(file, chunk) == name).then_some(chunk)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_c() {
        let names = PartNames::new(None).unwrap();
        assert_eq!(names.name("a.ptyd", 7), "a.ptyd.part007");
        assert_eq!(names.name("a.ptyd", 1234), "a.ptyd.part1234");
        assert_eq!(names.chunk_of("a.ptyd", "a.ptyd.part1234"), Some(1234));
        assert_eq!(names.chunk_of("a.ptyd", "a.ptyd.part07"), None);
        assert_eq!(names.chunk_of("a.ptyd", "a.ptyd.old.part007"), None);
        let names = PartNames::new(Some(".chunk%d.h5")).unwrap();
        assert_eq!(names.name("a", 12), "a.chunk12.h5");
        assert_eq!(names.chunk_of("a", "a.chunk12.h5"), Some(12));
    }

    #[test]
    fn formats_without_one_number_are_refused() {
        for bad in ["", ".part", ".%s", "%d%d", "/%d", ".%0333d", "%"] {
            assert!(matches!(PartNames::new(Some(bad)), Err(SinkError::ChunkFormat(_))), "{bad}");
        }
    }
}
