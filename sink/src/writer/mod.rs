//! The file: parts, the master, the fold.
//!
//! ```text
//! put ──▶ .<dfile>.partK temporary ──close_chunk──▶ ClosedPart ──publish──▶ <dfile>.partK, master
//!         (Writer: one thread, HDF5)                (Publisher: may be another thread, fsync)
//! ```
//!
//! - A part is written under a temporary name and renamed when it is whole and synced.
//! - Parts are published in the order of their chunks: a reader never sees chunk k without k - 1.
//! - The visible master is never opened for writing: a new one takes its place.
//! - `append` and `merge` fold the parts into one file at the end; until then the parts are the
//!   scan, and an interrupted run resumes from them as it does for `link`.
//! - Temporary files may be deleted by whoever holds the lock; parts count only with this run's id.

mod disk;
mod lock;
mod names;
mod open;
pub mod operations;
mod publish;
mod report;
mod retire;

pub use disk::check_place;
pub use open::Open;
pub use ptystream_common::ptyd::part::Closing as ChunkClose;
pub use publish::{Finish, Finished, Linger, Publisher};
pub(crate) use report::complete as complete_report;

use crate::error::SinkError;
use bytes::Bytes;
use lock::Lock;
use names::PartNames;
use ptystream_common::index::{IndexRange, IndexSet};
use ptystream_common::message::{Announce, Stamp};
use ptystream_common::params::{OnGap, Save};
use ptystream_common::ptyd::part::PartWriter;
use ptystream_common::ptyd::per_frame::PerFrame;
use ptystream_common::ptyd::record::{Identity, PartHead};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Below this many free bytes a failed write is put down to a full disk.
const NEARLY_FULL: u64 = 4 << 20;

/// What writer and publisher share; does not change while the scan runs.
#[derive(Debug)]
struct Run {
    dfile: PathBuf,
    save: Save,
    names: PartNames,
    identity: Identity,
    announce: Announce,
    lock: Arc<Lock>,
}

impl Run {
    fn part(&self, chunk: u64) -> PathBuf {
        self.names.path(&self.dfile, chunk)
    }

    /// Tells whether a master with links is to be seen while the scan runs.
    fn is_live(&self) -> bool {
        self.save == Save::Link || self.announce.pipeline.live
    }

    /// Deletes a temporary file that cannot be completed, then explains why.
    fn give_up(&self, temporary: &Path, error: impl Into<SinkError>, needed: u64) -> SinkError {
        let explained = self.explain(error, needed);
        if let Err(error) = disk::remove(temporary) {
            tracing::warn!("{}", ptystream_common::error::chain(&error));
        }
        explained
    }

    /// Names a full disk as the cause of a failed write where it is one.
    fn explain(&self, error: impl Into<SinkError>, needed: u64) -> SinkError {
        match disk::free_bytes(&self.dfile) {
            Some(free) if free < needed.max(NEARLY_FULL) => {
                SinkError::DiskFull { path: self.dfile.clone(), needed, free }
            }
            _ => error.into(),
        }
    }
}

/// The hold on a file, which outlives the writer and the publisher of one opening.
#[derive(Clone, Debug)]
pub struct Hold {
    dfile: PathBuf,
    lock: Arc<Lock>,
}

impl Hold {
    /// Tries whether the disk takes writes again: there is room for `needed` bytes, and a small
    /// file reaches it.
    ///
    /// # Errors
    /// What is still wrong.
    pub fn probe(&self, needed: u64) -> Result<(), SinkError> {
        disk::probe(&self.dfile, needed)
    }

    /// Opens the file anew, as a sink that starts again would, without letting go of it: run and
    /// parts stay, the epoch is the next one. Writer and publisher of the opening before must be
    /// gone.
    ///
    /// # Errors
    /// As [`Writer::open`]; [`SinkError::LockLost`] if somebody else took over.
    pub fn reopen(&self, announce: &Announce) -> Result<Open, SinkError> {
        // Both were meant for what stood there at first; now it is this very scan.
        let mut announce = announce.clone();
        (announce.pipeline.force, announce.pipeline.fresh) = (false, false);
        open::open(&announce, Some(&self.lock))
    }
}

/// A part that is whole, closed, and not yet synced or visible.
#[derive(Debug)]
pub struct ClosedPart {
    head: PartHead,
    temporary: PathBuf,
    bytes: u64,
}

impl ClosedPart {
    /// Returns the number of the chunk.
    pub fn chunk(&self) -> u64 {
        self.head.chunk
    }

    /// Returns the bytes of pixels and weights as they are stored.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for ClosedPart {
    /// Deletes it unless it was published: its frames are not durable and come again, and a full
    /// disk needs the room.
    fn drop(&mut self) {
        if let Err(error) = disk::remove(&self.temporary) {
            tracing::warn!("{}", ptystream_common::error::chain(&error));
        }
    }
}

/// Writes prepared frames into parts; owned by one thread.
#[derive(Debug)]
pub struct Writer {
    run: Arc<Run>,
    durable: IndexSet,
    common: Option<Bytes>,
    /// By the place of their chunk among chunks that are full.
    open: BTreeMap<u64, PartWriter>,
    /// Of chunks that were closed before they were full: the first index of what is left.
    cut: BTreeMap<u64, u64>,
}

impl Writer {
    /// Takes the lock and looks at what is there: begins, resumes, refuses, or has nothing to do.
    ///
    /// # Errors
    /// [`SinkError`]: no file named, another sink at work, an unfinished scan that is another one,
    /// or a folder that cannot be written.
    pub fn open(announce: &Announce) -> Result<Open, SinkError> {
        open::open(announce, None)
    }

    /// Returns the hold on the file.
    pub fn hold(&self) -> Hold {
        Hold { dfile: self.run.dfile.clone(), lock: Arc::clone(&self.run.lock) }
    }

    /// Returns run and epoch.
    pub fn stamp(&self) -> Stamp {
        Stamp { run_id: self.run.identity.run_id, epoch: self.run.identity.epoch }
    }

    /// Returns the indices that were on disk when the file was opened.
    pub fn durable(&self) -> &IndexSet {
        &self.durable
    }

    /// Returns the file's name.
    pub fn path(&self) -> &Path {
        &self.run.dfile
    }

    /// Takes the weights that all frames share: one storage chunk.
    pub fn common_weights(&mut self, blob: Bytes) {
        self.common = Some(blob);
    }

    /// Names the numbers of a chunk's rows; `None` where there are none.
    pub fn per_frame(&self, rows: &[Vec<f64>]) -> Option<PerFrame> {
        let mut all = PerFrame::new(self.run.announce.per_frame.clone());
        rows.iter().for_each(|row| all.push(row));
        (!all.names.is_empty() && !rows.is_empty()).then_some(all)
    }

    /// Tells whether the weights that all frames share are there, or not needed.
    pub fn has_weights(&self) -> bool {
        self.common.is_some() || !self.run.announce.form.common_weights
    }

    /// Returns which of the chunks that are full holds an index, and first index and length of what is
    /// left of it.
    fn chunk_of(&self, index: u64) -> (u64, u64, u64) {
        let per_chunk = u64::from(self.run.announce.frames_per_chunk.max(1));
        let chunk = index / per_chunk;
        let first = chunk * per_chunk;
        let end = self.run.announce.num_frames.unwrap_or(u64::MAX).min(first + per_chunk);
        let first =
            self.cut.get(&chunk).copied().unwrap_or_else(|| self.durable.first_missing(first));
        (chunk, first, end.saturating_sub(first))
    }

    fn part(&mut self, index: u64) -> Result<&mut PartWriter, SinkError> {
        let (chunk, first, len) = self.chunk_of(index);
        if len == 0 || index < first {
            let text = match index < first {
                false => format!("index {index} lies beyond the end of the scan"),
                true => format!("index {index} is on disk already"),
            };
            return Err(SinkError::Chunk { chunk, text });
        }
        match self.open.entry(chunk) {
            std::collections::btree_map::Entry::Occupied(part) => Ok(part.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => {
                let temp = disk::temporary(&self.run.dfile, &format!("part-of-{first}"));
                let form = &self.run.announce.form;
                let checksums = self.run.announce.pipeline.checksums;
                let needed = form.frame_bytes() * u64::from(form.batch);
                operations::next("create", &temp)?;
                let part = PartWriter::create(&temp, form, first, len, checksums)
                    .map_err(|e| self.run.give_up(&temp, e, needed))?;
                Ok(place.insert(part))
            }
        }
    }

    /// Writes frames of one batch, in any order; the blobs are storage chunks.
    ///
    /// `said`: the worker's checksums of data and weights, kept in the file.
    /// # Errors
    /// [`SinkError`] if the range is not a batch or a piece of one, is on disk already, or the
    /// disk refuses.
    pub fn put(
        &mut self,
        range: IndexRange,
        data: Bytes,
        weights: Option<Bytes>,
        said: Option<&[u32]>,
    ) -> Result<(), SinkError> {
        let needed = (data.len() + weights.as_ref().map_or(0, Bytes::len)) as u64;
        let part = self.part(range.first.0)?;
        operations::next("write", part.path())?;
        let done = part.put(range, &data, weights.as_deref(), said);
        done.map_err(|e| self.run.explain(e, needed))
    }

    /// Cuts a part off before index `end`, where that begins a batch; where it does not, the scan has ended
    /// there.
    fn cut_off(&mut self, part: &mut PartWriter, place: u64, end: u64) -> Result<(), SinkError> {
        if !part.can_end_at(end) {
            return Ok(());
        }
        let temp = disk::temporary(&self.run.dfile, &format!("part-of-{end}"));
        operations::next("create", &temp)?;
        let needed = self.run.announce.form.frame_bytes();
        let rest = part.split_off(end, &temp).map_err(|e| self.run.give_up(&temp, e, needed))?;
        self.cut.insert(place, end);
        if let Some(rest) = rest {
            self.open.insert(place, rest);
        }
        Ok(())
    }

    /// Completes the file of chunk number `chunk` under its temporary name; `close` lists all of the
    /// chunk's indices. Where these end before the chunk is full, with a batch, the rest stays open.
    ///
    /// # Errors
    /// [`SinkError`] if `close` does not fit what was put, or the disk refuses.
    pub fn close_chunk(&mut self, chunk: u64, close: &ChunkClose) -> Result<ClosedPart, SinkError> {
        let (Some(&first), Some(&last)) = (close.indices.first(), close.indices.last()) else {
            return Err(SinkError::Chunk { chunk, text: "has no index".to_owned() });
        };
        // A chunk of gaps alone was never put into.
        self.part(first)?;
        let (place, _, _) = self.chunk_of(first);
        let Some(mut part) = self.open.remove(&place) else {
            return Err(SinkError::Chunk { chunk, text: "is not open".to_owned() });
        };
        self.cut_off(&mut part, place, last + 1)?;
        let temporary = part.path().to_owned();
        let positions = self.run.announce.positions;
        let common = self.common.as_deref();
        let kept = (self.run.announce.pipeline.on_gap == OnGap::Skip).then(|| without_gaps(close));
        let close = kept.as_ref().unwrap_or(close);
        // What is left to be written: a copy of the common weights for each batch, and lists.
        let batches = close.indices.len().div_ceil(self.run.announce.form.batch.max(1) as usize);
        let needed = (batches * common.map_or(0, <[u8]>::len) + 32 * close.indices.len()) as u64;
        operations::next("close", &temporary)?;
        let (head, bytes) = part
            .close(&self.run.identity, chunk, close, common, positions)
            .map_err(|e| self.run.give_up(&temporary, e, needed))?;
        Ok(ClosedPart { head, temporary, bytes })
    }
}

/// Leaves the rows of gaps out (`on_gap = skip`); the list of gaps and why stays.
fn without_gaps(close: &ChunkClose) -> ChunkClose {
    let kept = |index: &u64| !close.gaps.contains(index);
    let rows = close.indices.iter().zip(close.positions.iter().flatten());
    ChunkClose {
        indices: close.indices.iter().copied().filter(kept).collect(),
        positions: close
            .positions
            .as_ref()
            .map(|_| rows.filter(|(index, _)| kept(index)).map(|(_, yx)| *yx).collect()),
        clear_weights: close.clear_weights.clone(),
        gaps: Vec::new(),
        reasons: close.reasons.clone(),
        per_frame: close.per_frame.as_ref().map(|all| PerFrame {
            names: all.names.clone(),
            rows: close
                .indices
                .iter()
                .zip(&all.rows)
                .filter(|(i, _)| kept(i))
                .map(|(_, r)| r.clone())
                .collect(),
        }),
    }
}

impl Drop for Writer {
    /// Deletes the parts that are not whole: their frames are not durable and come again.
    fn drop(&mut self) {
        for (_, part) in std::mem::take(&mut self.open) {
            let path = part.path().to_owned();
            drop(part);
            if let Err(error) = disk::remove(&path) {
                tracing::warn!("{}", ptystream_common::error::chain(&error));
            }
        }
    }
}
