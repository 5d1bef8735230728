//! The small file of links while it grows: kept in memory, so that a new chunk costs its own link
//! and not all of those before it.

use crate::h5::{raw, write};
use crate::ptyd::master::{self, Content};
use crate::ptyd::record::Record;
use crate::ptyd::{PtydError, encode};
use hdf5::{File, Group};
use std::path::Path;

/// What the library leaves behind in a file that changes may take so many bytes, and as many as the
/// file had when it was made; then it is made anew.
const LEFT_BEHIND: usize = 64 << 10;

/// A file whose chunk N is a link to a file of its own.
#[derive(Debug, Default)]
pub struct Links {
    now: Option<Growing>,
}

#[derive(Debug)]
struct Growing {
    file: File,
    chunks: Group,
    count: usize,
    /// Bytes of the file when it was made.
    made: usize,
}

impl Links {
    /// Returns the bytes of the file with a link to each of `targets`, names relative to its folder.
    ///
    /// `path` stands in errors; nothing is stored there. From call to call `targets` grows, and of
    /// `content` the chunks and gaps of the record change, nothing else.
    /// # Errors
    /// [`PtydError`] if the content cannot be encoded.
    pub fn image(
        &mut self,
        path: &Path,
        content: &Content<'_>,
        targets: &[String],
    ) -> Result<Vec<u8>, PtydError> {
        if let Some(mut growing) = self.now.take().filter(|g| g.count <= targets.len()) {
            growing.refresh(path, content.record)?;
            growing.add(path, targets)?;
            let bytes = growing.bytes(path)?;
            if bytes.len() <= 2 * growing.made + LEFT_BEHIND {
                self.now = Some(growing);
                return Ok(bytes);
            }
        }
        let mut growing = Growing::make(path, content)?;
        growing.add(path, targets)?;
        let bytes = growing.bytes(path)?;
        growing.made = bytes.len();
        self.now = Some(growing);
        Ok(bytes)
    }
}

impl Growing {
    fn make(path: &Path, content: &Content<'_>) -> Result<Self, PtydError> {
        let file = write::memory_file().map_err(PtydError::hdf5(path, "create", "/"))?;
        let chunks = master::begin(path, &file, content)?;
        master::write_sums(path, &file, content.sums)?;
        Ok(Self { file, chunks, count: 0, made: 0 })
    }

    fn add(&mut self, path: &Path, targets: &[String]) -> Result<(), PtydError> {
        for target in &targets[self.count..] {
            self.chunks
                .link_external(target, "/", &self.count.to_string())
                .map_err(PtydError::hdf5(path, "link", target))?;
            self.count += 1;
        }
        Ok(())
    }

    fn refresh(&mut self, path: &Path, record: &Record) -> Result<(), PtydError> {
        record
            .refresh(&self.file)
            .and_then(|()| encode::touch_root(&self.file))
            .map_err(PtydError::hdf5(path, "write", "ptystream"))
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, PtydError> {
        raw::image(&self.file).map_err(PtydError::hdf5(path, "write", "/"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::index::IndexRange;
    use crate::ptyd::record::{ChunkSpan, Identity, State};
    use crate::value::Value;

    fn record() -> Record {
        Record {
            identity: Identity::default(),
            state: State::Writing,
            aborted: None,
            save: "link".into(),
            part_format: ".part%03d".into(),
            gaps: vec![],
            chunks: vec![],
            filters: vec![],
            report: String::new(),
            config: String::new(),
        }
    }

    #[test]
    fn it_is_the_same_file_however_it_has_grown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scan.ptyd");
        let meta = [("num_frames".to_owned(), Value::Int(4000))];
        let mut record = record();
        let start = record.clone();
        let content =
            Content { meta: &meta, info: &[], record: &start, sums: None, per_frame: None };
        let mut links = Links::default();
        let mut targets = Vec::new();
        for n in 0..2000u64 {
            targets.push(format!("scan.ptyd.part{n:03}"));
            record.chunks.push(ChunkSpan { first: 10 * n, count: 10, rows: 10 });
            if n % 100 == 99 {
                record.gaps.push((IndexRange::new(10 * n, 1), "lost".into()));
            }
            let content = Content { record: &record, ..content };
            let grown = links.image(&path, &content, &targets).unwrap();
            if n % 666 == 0 || n == 1999 {
                let fresh = Links::default().image(&path, &content, &targets).unwrap();
                assert!(grown.len() < 2 * fresh.len() + LEFT_BEHIND, "{}", grown.len());
                std::fs::write(&path, grown).unwrap();
                assert_eq!(master::read_record(&path).as_ref(), Some(&record), "{n}");
                let mut named = master::links(&path).unwrap();
                named.sort_by_key(|(name, _)| name.parse::<u64>().unwrap());
                let expected: Vec<_> =
                    targets.iter().enumerate().map(|(n, t)| (n.to_string(), t.clone())).collect();
                assert_eq!(named, expected);
            }
        }
        let fewer = links.image(&path, &content, &targets[..1]).unwrap();
        std::fs::write(&path, fewer).unwrap();
        assert_eq!(master::links(&path).unwrap().len(), 1);
    }
}
