//! Keeps the raw frames of a live source until the sink says that they are durable: a sink that
//! starts again, or a worker that died, needs them once more, and the source has them no longer.
//!
//! | module | what it holds |
//! |---|---|
//! | [`book`] | which index is where, what has room, what is free again: no files |
//! | [`record`] | the bytes of the spool |
//! | [`spool`] | its files |
//!
//! Half of `pipeline.producer_memory_bytes` is for frames that are kept, the other half for tickets
//! on their way to workers.

pub mod book;
pub mod record;
pub mod spool;

use book::{Book, Found, Limits, Loss, Place};
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::frame::Loaded;
use ptystream_common::params::{OnFull, PipelineParams, Spool};
use record::{RECORD_HEADER, SEGMENT_HEADER};
use spool::{SpoolError, SpoolFile};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Segments of a full spool: so much of it may be durable and yet not free.
const SEGMENTS: u64 = 16;
const LARGEST_SEGMENT: u64 = 256 << 20;
/// How long a disk that refused is left alone.
const DISK_REST: Duration = Duration::from_secs(1);

/// What the frames of a scan are like.
#[derive(Clone, Debug)]
pub struct Frames {
    /// Hash of what identifies the scan.
    pub scan_key: String,
    /// The file to be written, beside which the spool stands unless a folder is given.
    pub dfile: Option<PathBuf>,
    /// Bytes of a raw frame with what comes with it.
    pub bytes: u64,
    /// Frames that have to be kept at once for the file to grow: those of a chunk.
    pub least: u64,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is kept.
    Yes,
    /// There is no room.
    Full,
}

/// The frames that are kept.
#[derive(Debug)]
pub struct Retention {
    book: Book,
    memory: HashMap<u64, Loaded>,
    spool: Option<SpoolFile>,
    always: bool,
    /// What to do with a frame for which there is no room.
    pub on_full: OnFull,
    disk_refused: Option<Instant>,
    /// Indices below this may be handed out: with `always` their records are on disk.
    ready: u64,
}

impl Retention {
    /// Makes room for the frames of a scan; what an earlier run left in the spool is kept again.
    ///
    /// # Errors
    /// If less than a chunk has room, or the spool cannot be used.
    pub fn open(frames: &Frames, pipeline: &PipelineParams) -> Result<Self, Failure> {
        let memory_bytes = pipeline.producer_memory_bytes / 2;
        let record = frames.bytes + RECORD_HEADER as u64;
        let segment_bytes = (pipeline.spool_bytes / SEGMENTS).min(LARGEST_SEGMENT);
        let limits = Limits {
            spool: pipeline.spool,
            memory_bytes,
            spool_bytes: pipeline.spool_bytes,
            segment_bytes,
            header_bytes: SEGMENT_HEADER as u64,
        };
        // A segment is free only as a whole, and one begins late if the last record is large.
        let slack = segment_bytes + record + SEGMENTS * SEGMENT_HEADER as u64;
        let on_disk = pipeline.spool_bytes.saturating_sub(slack) / record;
        let in_memory = memory_bytes / frames.bytes.max(1);
        let room = match pipeline.spool {
            Spool::Off => in_memory,
            Spool::Overflow => in_memory + on_disk,
            Spool::Always => on_disk,
        };
        if room < frames.least {
            let what = match pipeline.spool {
                Spool::Off => "half of pipeline.producer_memory_bytes has",
                Spool::Overflow => {
                    "half of pipeline.producer_memory_bytes and pipeline.spool_bytes have"
                }
                Spool::Always => "pipeline.spool_bytes has",
            };
            let text = format!(
                "raw frames of a live source are kept until their chunk of {} is durable, but \
                 {what} room for {room} of {} bytes; raise it, or lower pipeline.frames_per_chunk",
                frames.least, frames.bytes
            );
            return Err(Failure::new(Kind::Config, text));
        }
        let mut book = Book::new(limits);
        let mut spool = None;
        if pipeline.spool != Spool::Off {
            let stem = stem(frames, pipeline);
            let (file, left) = SpoolFile::open(&stem, &frames.scan_key, pipeline.fresh)
                .map_err(|e| Failure::from(&e))?;
            for damage in &left.damage {
                tracing::warn!("{damage}: what was there is lost");
            }
            for (number, bytes) in left.segments {
                book.stands(number, bytes);
            }
            for frame in &left.frames {
                book.recovered(frame.index, frame.address);
            }
            if !left.frames.is_empty() {
                tracing::info!(frames = left.frames.len(), "found in the spool");
            }
            spool = Some(file);
        }
        tracing::info!(frames = room, "raw frames that can be kept");
        let always = pipeline.spool == Spool::Always;
        let ready = book.next();
        let on_full = pipeline.on_full;
        let memory = HashMap::new();
        Ok(Self { book, memory, spool, always, on_full, disk_refused: None, ready })
    }

    /// Returns the index to take from the source next.
    pub fn next(&self) -> u64 {
        self.book.next()
    }

    /// Returns how far frames may be handed out: each index below is kept, lost or durable.
    pub fn ready(&self) -> u64 {
        self.ready
    }

    /// Returns how many frames are kept.
    pub fn kept(&self) -> usize {
        self.book.kept()
    }

    /// Keeps the next frame, if there is room; a disk that refuses has none.
    pub fn keep(&mut self, loaded: &Loaded) -> Kept {
        let disk = self.spool.is_some() && !self.disk_refused.is_some_and(is_recent);
        let record = record::record_bytes(loaded);
        let bytes = record - RECORD_HEADER as u64;
        let Some(place) = self.book.place(bytes, record, disk) else { return Kept::Full };
        if let Err(error) = self.write(loaded, place) {
            self.refused(&error);
            return Kept::Full;
        }
        if place.memory {
            self.memory.insert(loaded.index.0, loaded.clone());
        }
        self.book.keep(bytes, place);
        Kept::Yes
    }

    /// The next frame will not come.
    pub fn lose(&mut self, loss: Loss) {
        self.book.lose(loss);
    }

    /// Lets what has been taken be handed out, once it is as safe as it is to be.
    pub fn settle(&mut self) {
        if self.always
            && let Some(spool) = &mut self.spool
        {
            if !spool.is_synced() && self.disk_refused.is_some_and(is_recent) {
                return;
            }
            if let Err(error) = spool.sync() {
                self.refused(&error);
                return;
            }
        }
        self.ready = self.book.next();
    }

    /// Returns a kept frame.
    ///
    /// # Errors
    /// Why it is not there.
    pub fn get(&mut self, index: u64) -> Result<Loaded, String> {
        let place = match self.book.find(index) {
            Found::Kept(place) => place,
            Found::Lost(loss) => return Err(loss.reason()),
            Found::Durable => return Err("it was let go once it was durable".into()),
            Found::Ahead => return Err("it has not been taken from the source".into()),
        };
        if let Some(loaded) = self.memory.get(&index) {
            return Ok(loaded.clone());
        }
        let read = place.spool.zip(self.spool.as_ref()).map(|(address, file)| file.read(address));
        match read {
            Some(Ok(loaded)) => Ok(loaded),
            other => {
                let why = other.and_then(Result::err).map(|e| chain(&e));
                let loss = Loss::Damaged(why.unwrap_or_else(|| "it is in no memory".into()));
                let reason = loss.reason();
                tracing::error!(index, "{reason}");
                self.book.spoilt(index, loss);
                Err(reason)
            }
        }
    }

    /// Every index below `watermark` is durable: their room is free.
    pub fn durable(&mut self, watermark: u64) {
        let freed = self.book.durable(watermark);
        for index in freed.memory {
            self.memory.remove(&index);
        }
        for segment in freed.segments {
            if let Some(Err(error)) = self.spool.as_mut().map(|s| s.delete(segment)) {
                tracing::warn!("{}", chain(&error));
            }
        }
        self.ready = self.ready.max(watermark);
    }

    /// The scan is done: nothing is kept any more.
    pub fn finish(self) {
        if let Some(Err(error)) = self.spool.map(SpoolFile::finish) {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn write(&mut self, loaded: &Loaded, place: Place) -> Result<(), SpoolError> {
        let (Some(address), Some(spool)) = (place.spool, self.spool.as_mut()) else {
            return Ok(());
        };
        let bytes = record::encode(loaded).map_err(|source| SpoolError::Damaged {
            file: PathBuf::from(format!("(frame {})", loaded.index)),
            offset: address.offset,
            source,
        })?;
        spool.write(address, &bytes)?;
        self.disk_refused = None;
        Ok(())
    }

    fn refused(&mut self, error: &SpoolError) {
        if self.disk_refused.is_none() {
            tracing::error!("{}; the spool counts as full until that works", chain(error));
        }
        self.disk_refused = Some(Instant::now());
    }
}

fn is_recent(at: Instant) -> bool {
    at.elapsed() < DISK_REST
}

/// Returns the path that all names of the spool begin with.
fn stem(frames: &Frames, pipeline: &PipelineParams) -> PathBuf {
    let name = frames.dfile.as_deref().and_then(Path::file_name);
    let name = name.map_or_else(|| PathBuf::from(&frames.scan_key), PathBuf::from);
    let beside = || frames.dfile.as_deref().and_then(Path::parent).map(Path::to_owned);
    pipeline.spool_folder.clone().or_else(beside).unwrap_or_default().join(name)
}
