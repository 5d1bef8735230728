//! The files of the spool: segments are written at their end, read anywhere, and deleted as a whole.
//!
//! Bytes are described in [`super::record`]; which segment, and where in it, is the book's to say.

use super::book::Address;
use super::record::{self, RECORD_HEADER, RecordError, SEGMENT_HEADER};
use bytes::Bytes;
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::frame::Loaded;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What can go wrong with the spool.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum SpoolError {
    /// The file system refuses.
    #[error("cannot {doing} the spool {}: {source}", file.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// Which file.
        file: PathBuf,
        /// Its answer.
        #[source]
        source: io::Error,
    },
    /// Another producer has it.
    #[error("the spool {} is in use: another producer of this file is running", file.display())]
    InUse {
        /// The lock.
        file: PathBuf,
    },
    /// It holds frames of another scan.
    #[error(
        "the spool {} holds frames of another scan; finish that one, give this one another \
         pipeline.spool_folder, or let --fresh throw them away", file.display()
    )]
    OtherScan {
        /// The first of its segments.
        file: PathBuf,
    },
    /// Bytes are not what was written.
    #[error("the spool {} at byte {offset}: {source}", file.display())]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong.
        #[source]
        source: RecordError,
    },
}

impl From<&SpoolError> for Failure {
    fn from(error: &SpoolError) -> Self {
        let kind = match error {
            SpoolError::OtherScan { .. } => Kind::Config,
            _ => Kind::Output,
        };
        Self::new(kind, chain(error))
    }
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SpoolError {
    let file = path.to_owned();
    move |source| SpoolError::File { doing, file, source }
}

/// A frame that an earlier run left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub index: u64,
    /// Where.
    pub address: Address,
}

/// What an earlier run left.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Segments and their bytes.
    pub segments: Vec<(u64, u64)>,
    /// Frames that can be read.
    pub frames: Vec<Left>,
    /// What cannot be read, in words.
    pub damage: Vec<String>,
}

/// The spool of one scan.
#[derive(Debug)]
pub struct SpoolFile {
    stem: PathBuf,
    key: String,
    open: BTreeMap<u64, File>,
    unsynced: Vec<u64>,
    /// Held for life.
    lock: File,
}

impl SpoolFile {
    /// Opens the spool `<stem>.spool...` and looks at what an earlier run left in it.
    ///
    /// `key`: the scan's; `fresh`: whether frames of another scan may be thrown away.
    ///
    /// # Errors
    /// [`SpoolError::InUse`], [`SpoolError::OtherScan`], or the file system's.
    pub fn open(stem: &Path, key: &str, fresh: bool) -> Result<(Self, Leftovers), SpoolError> {
        if let Some(folder) = stem.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(file("make the folder of", folder))?;
        }
        let path = with_suffix(stem, "lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(file("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse { file: path }),
            Err(TryLockError::Error(e)) => return Err(file("lock", &path)(e)),
        }
        let (stem, key) = (stem.to_owned(), key.to_owned());
        let mut spool = Self { stem, key, open: BTreeMap::new(), unsynced: Vec::new(), lock };
        let mut left = Leftovers::default();
        for number in spool.numbers()? {
            spool.look(number, fresh, &mut left)?;
        }
        Ok((spool, left))
    }

    /// Writes a record at its place.
    ///
    /// # Errors
    /// The file system's; the place is still free then.
    pub fn write(&mut self, address: Address, bytes: &[u8]) -> Result<(), SpoolError> {
        let Address { segment, offset, .. } = address;
        let path = self.path(segment);
        if !self.open.contains_key(&segment) {
            let new = OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)
                .map_err(file("create", &path))?;
            new.write_all_at(&record::segment_header(&self.key), 0)
                .map_err(file("write", &path))?;
            self.open.insert(segment, new);
        }
        if let Some(open) = self.open.get(&segment) {
            open.write_all_at(bytes, offset).map_err(file("write", &path))?;
        }
        if !self.unsynced.contains(&segment) {
            self.unsynced.push(segment);
        }
        Ok(())
    }

    /// Tells whether everything that was written is durable.
    pub fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Makes durable what has been written.
    ///
    /// # Errors
    /// The file system's; it is to be called again then.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        for segment in &self.unsynced {
            if let Some(open) = self.open.get(segment) {
                open.sync_data().map_err(file("sync", &self.path(*segment)))?;
            }
        }
        if !self.unsynced.is_empty() {
            // A new segment is only there for good once its folder says so.
            let folder = self.folder();
            File::open(&folder)
                .and_then(|f| f.sync_all())
                .map_err(file("sync the folder of", &folder))?;
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Reads a frame back.
    ///
    /// # Errors
    /// [`SpoolError::Damaged`] if it is not what was written, or the file system's.
    pub fn read(&self, address: Address) -> Result<Loaded, SpoolError> {
        let path = self.path(address.segment);
        let mut bytes = vec![0; address.bytes as usize];
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let open = self.open.get(&address.segment).ok_or_else(missing);
        open.and_then(|f| f.read_exact_at(&mut bytes, address.offset))
            .map_err(file("read", &path))?;
        let whole = Bytes::from(bytes);
        record::head(&whole)
            .and_then(|head| record::frame(head, whole.slice(RECORD_HEADER..)))
            .map_err(|source| SpoolError::Damaged { file: path, offset: address.offset, source })
    }

    /// Deletes a segment.
    ///
    /// # Errors
    /// The file system's.
    pub fn delete(&mut self, segment: u64) -> Result<(), SpoolError> {
        self.open.remove(&segment);
        self.unsynced.retain(|n| *n != segment);
        let path = self.path(segment);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(file("delete", &path)(e)),
            _ => Ok(()),
        }
    }

    /// Deletes everything: the scan is done.
    ///
    /// # Errors
    /// The file system's.
    pub fn finish(mut self) -> Result<(), SpoolError> {
        for number in self.numbers()? {
            self.delete(number)?;
        }
        let path = with_suffix(&self.stem, "lock");
        std::fs::remove_file(&path).map_err(file("delete", &path))?;
        drop(self.lock);
        Ok(())
    }

    fn folder(&self) -> PathBuf {
        match self.stem.parent().filter(|f| !f.as_os_str().is_empty()) {
            Some(folder) => folder.to_owned(),
            None => PathBuf::from("."),
        }
    }

    fn path(&self, segment: u64) -> PathBuf {
        with_suffix(&self.stem, &format!("{segment:06}"))
    }

    /// Lists the segments that there are.
    fn numbers(&self) -> Result<Vec<u64>, SpoolError> {
        let folder = self.folder();
        let start = with_suffix(&self.stem, "");
        let start = start.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let entries = std::fs::read_dir(&folder).map_err(file("list the folder of", &folder))?;
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(file("list the folder of", &folder))?.file_name();
            let name = name.to_string_lossy();
            numbers.extend(name.strip_prefix(&start).and_then(|n| n.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn look(&mut self, number: u64, fresh: bool, left: &mut Leftovers) -> Result<(), SpoolError> {
        let path = self.path(number);
        let open = File::open(&path).map_err(file("open", &path))?;
        let bytes = open.metadata().map_err(file("look at", &path))?.len();
        let mut head = vec![0; SEGMENT_HEADER.min(bytes as usize)];
        open.read_exact_at(&mut head, 0).map_err(file("read", &path))?;
        match record::read_segment_header(&head) {
            Ok(key) if key == self.key => {}
            Err(RecordError::Torn) => {
                // Created, and nothing else: nothing of it was handed out.
                left.damage.push(format!("{}: empty", path.display()));
                return self.delete(number);
            }
            Ok(_) | Err(RecordError::Version(_)) if fresh => return self.delete(number),
            Ok(_) => return Err(SpoolError::OtherScan { file: path }),
            Err(source) if !fresh => {
                return Err(SpoolError::Damaged { file: path, offset: 0, source });
            }
            Err(_) => return self.delete(number),
        }
        self.records(number, &open, bytes, left)?;
        left.segments.push((number, bytes));
        self.open.insert(number, open);
        Ok(())
    }

    fn records(
        &self,
        segment: u64,
        open: &File,
        bytes: u64,
        left: &mut Leftovers,
    ) -> Result<(), SpoolError> {
        let path = self.path(segment);
        let mut offset = SEGMENT_HEADER as u64;
        while offset < bytes {
            let rest = bytes - offset;
            let damaged = |source: RecordError| {
                let (file, source) = (path.clone(), source);
                chain(&SpoolError::Damaged { file, offset, source })
            };
            let mut head = vec![0; (RECORD_HEADER as u64).min(rest) as usize];
            open.read_exact_at(&mut head, offset).map_err(file("read", &path))?;
            let head = match record::head(&head) {
                Ok(head) => head,
                Err(error) => {
                    left.damage.push(damaged(error));
                    return Ok(());
                }
            };
            let record = (RECORD_HEADER as u64).saturating_add(head.body_bytes());
            if record > rest {
                left.damage.push(damaged(RecordError::Torn));
                return Ok(());
            }
            let mut body = vec![0; head.body_bytes() as usize];
            open.read_exact_at(&mut body, offset + RECORD_HEADER as u64)
                .map_err(file("read", &path))?;
            let index = head.index.0;
            match record::frame(head, body.into()) {
                Ok(_) => {
                    let address = Address { segment, offset, bytes: record };
                    left.frames.push(Left { index, address });
                }
                Err(error) => left.damage.push(damaged(error)),
            }
            offset += record;
        }
        Ok(())
    }
}

fn with_suffix(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(".spool.");
    name.push(suffix);
    name.into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::record::tests::full;
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn written(stem: &Path, indices: std::ops::Range<u64>) -> Vec<Address> {
        let (mut spool, left) = SpoolFile::open(stem, KEY, false).unwrap();
        assert!(left.frames.is_empty() && left.damage.is_empty());
        let mut offset = SEGMENT_HEADER as u64;
        let addresses = indices.map(|index| {
            let record = record::encode(&full(index)).unwrap();
            let address = Address { segment: 0, offset, bytes: record.len() as u64 };
            spool.write(address, &record).unwrap();
            assert_eq!(spool.read(address).unwrap(), full(index));
            offset += address.bytes;
            address
        });
        let addresses = addresses.collect();
        spool.sync().unwrap();
        addresses
    }

    fn found(stem: &Path) -> (Vec<u64>, usize) {
        let (spool, left) = SpoolFile::open(stem, KEY, false).unwrap();
        for frame in &left.frames {
            assert_eq!(spool.read(frame.address).unwrap(), full(frame.index));
        }
        (left.frames.iter().map(|f| f.index).collect(), left.damage.len())
    }

    #[test]
    fn what_was_written_is_found_again_and_the_end_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let stem = temp.path().join("a.ptyd");
        written(&stem, 3..6);
        assert_eq!(found(&stem), (vec![3, 4, 5], 0));
        SpoolFile::open(&stem, KEY, false).unwrap().0.finish().unwrap();
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_is_cut_off_at_any_byte_is_dropped_alone() {
        let temp = tempfile::tempdir().unwrap();
        let stem = temp.path().join("a");
        let addresses = written(&stem, 0..3);
        let path = with_suffix(&stem, "000000");
        let whole = std::fs::read(&path).unwrap();
        let start = addresses[2].offset as usize;
        for end in start..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(found(&stem), (vec![0, 1], usize::from(end > start)), "cut at {end}");
        }
        for end in 0..SEGMENT_HEADER {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(found(&stem), (vec![], 1), "cut at {end}");
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_flipped_bit_costs_its_frame_and_never_passes() {
        let temp = tempfile::tempdir().unwrap();
        let stem = temp.path().join("a");
        let addresses = written(&stem, 0..3);
        let path = with_suffix(&stem, "000000");
        let whole = std::fs::read(&path).unwrap();
        let (start, end) = (addresses[1].offset as usize, addresses[2].offset as usize);
        for at in start..end {
            let mut bad = whole.clone();
            bad[at] ^= 0x10;
            std::fs::write(&path, &bad).unwrap();
            let left = if at < start + RECORD_HEADER { vec![0] } else { vec![0, 2] };
            assert_eq!(found(&stem), (left, 1), "byte {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        let (spool, _) = SpoolFile::open(&stem, KEY, false).unwrap();
        let mut bad = whole;
        bad[end - 1] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        let text = spool.read(addresses[1]).unwrap_err().to_string();
        assert!(text.contains("000000 at byte") && text.contains("pixels are damaged"), "{text}");
    }

    #[test]
    fn another_scan_is_refused_and_a_running_producer_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        let stem = temp.path().join("a");
        written(&stem, 0..1);
        let other = "f".repeat(32);
        let error = SpoolFile::open(&stem, &other, false).unwrap_err();
        assert!(matches!(error, SpoolError::OtherScan { .. }), "{error}");
        assert_eq!(Failure::from(&error).kind, Kind::Config);
        let (held, _) = SpoolFile::open(&stem, KEY, false).unwrap();
        let error = SpoolFile::open(&stem, KEY, false).unwrap_err();
        assert!(matches!(error, SpoolError::InUse { .. }), "{error}");
        drop(held);
        let (_, left) = SpoolFile::open(&stem, &other, true).unwrap();
        assert!(left.segments.is_empty() && !with_suffix(&stem, "000000").exists());
    }
}
