//! Makes parts durable and visible, in order; ends the file.

use super::open::save_name;
use super::{ClosedPart, Run, disk, operations, report};
use crate::error::SinkError;
use ptystream_common::codec::Filter;
use ptystream_common::index::{IndexRange, IndexSet};
use ptystream_common::message::{Aborted, SinkReport};
use ptystream_common::params::{OnGap, Save};
use ptystream_common::ptyd::links::Links;
use ptystream_common::ptyd::master::{self, Content};
use ptystream_common::ptyd::per_frame::PerFrame;
use ptystream_common::ptyd::record::{ChunkSpan, PartHead, Record, State};
use ptystream_common::ptyd::sums::Sums;
use ptystream_common::value::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What is on disk under its final name.
#[derive(Clone, Debug, Default)]
pub(super) struct Published {
    pub(super) spans: Vec<ChunkSpan>,
    pub(super) gaps: Vec<(IndexRange, String)>,
    pub(super) durable: IndexSet,
    /// The highest epoch of its parts.
    pub(super) epoch: u32,
    /// Checksums of each chunk; `None` where its part has none.
    pub(super) sums: Vec<Option<Arc<Sums>>>,
    /// Numbers of each chunk's frames.
    pub(super) per_frame: Vec<Option<Arc<PerFrame>>>,
}

impl Published {
    pub(super) fn add(&mut self, head: &PartHead) {
        self.spans.push(head.span);
        self.gaps.extend(head.gaps.iter().cloned());
        self.durable.insert(head.span.first, head.span.first + head.span.count);
        self.epoch = self.epoch.max(head.identity.epoch);
        self.sums.push(head.checksums.clone().map(Arc::new));
        self.per_frame.push(head.per_frame.clone().map(Arc::new));
    }

    /// Returns the numbers of all frames in a row; `None` if no chunk has any.
    fn all_per_frame(&self) -> Option<PerFrame> {
        if self.per_frame.iter().all(Option::is_none) {
            return None;
        }
        let mut all = PerFrame::default();
        for (span, of) in self.spans.iter().zip(&self.per_frame) {
            all.append(of.as_deref(), span.rows as usize);
        }
        Some(all)
    }

    /// Returns the checksums of all chunks in a row; `None` if no chunk has any. Where one has none,
    /// zeros say so.
    fn all_sums(&self, batch: u32) -> Option<Sums> {
        if self.sums.iter().all(Option::is_none) {
            return None;
        }
        let mut all = Sums::default();
        for (span, sums) in self.spans.iter().zip(&self.sums) {
            let unknown = || Sums::new(span.rows.div_ceil(u64::from(batch.max(1))) as usize);
            all.append(sums.as_deref().cloned().unwrap_or_else(unknown));
        }
        Some(all)
    }
}

/// How a scan ended.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// Scan points; what `meta/num_frames` becomes, less those that `on_gap = skip` left out.
    pub num_frames: u64,
    /// Why the scan ended before its announced number of frames, if it did.
    pub aborted: Option<Aborted>,
    /// Gaps that are in no chunk; those of chunks are known.
    pub gaps: Vec<(IndexRange, String)>,
    /// What to say; the publisher fills in file, chunks, gaps, run and epoch.
    pub report: SinkReport,
}

/// What the master says of the scan's end.
#[derive(Clone, Copy, Debug, Default)]
struct Ending<'a> {
    has_come: bool,
    aborted: Option<&'a Aborted>,
    /// Gaps that are in no chunk.
    gaps: &'a [(IndexRange, String)],
    report: &'a str,
    sums: Option<&'a Sums>,
    per_frame: Option<&'a PerFrame>,
}

/// A file that is complete.
#[derive(Debug)]
pub struct Finished {
    /// What to say.
    pub report: SinkReport,
    /// Parts that live readers may still be reading.
    pub linger: Option<Linger>,
}

/// Parts that were folded while readers followed them; keeps the file locked.
#[derive(Debug)]
pub struct Linger {
    run: Arc<Run>,
    parts: Vec<PathBuf>,
}

impl Linger {
    /// Returns the parts.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// Deletes the parts, and the lock with them.
    ///
    /// # Errors
    /// [`SinkError::File`] if a part cannot be deleted.
    pub fn clear(self) -> Result<(), SinkError> {
        self.parts.iter().rev().try_for_each(|part| disk::remove(part))?;
        self.run.lock.forget()
    }
}

/// Syncs, renames, and replaces the master; may live on another thread than the writer.
#[derive(Debug)]
pub struct Publisher {
    run: Arc<Run>,
    published: Published,
    waiting: BTreeMap<u64, ClosedPart>,
    /// Chunks that the visible master names; `None`: there is none of this epoch.
    shown: Option<usize>,
    links: Links,
}

impl Publisher {
    pub(super) fn new(run: Arc<Run>, published: Published) -> Self {
        Self { run, published, waiting: BTreeMap::new(), shown: None, links: Links::default() }
    }

    /// Returns the indices that are on disk and visible.
    pub fn durable(&self) -> &IndexSet {
        &self.published.durable
    }

    /// Returns how many chunks are on disk.
    pub fn chunks(&self) -> u64 {
        self.published.spans.len() as u64
    }

    /// Returns how many closed parts wait for one before them.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Publishes parts in the order of their chunks; what comes before its turn waits inside.
    ///
    /// Returns what is durable now. One call replaces the master once: the caller decides how
    /// often that is.
    /// # Errors
    /// [`SinkError`] if the lock is lost or the disk refuses; what was durable remains so.
    pub fn publish(&mut self, parts: Vec<ClosedPart>) -> Result<&IndexSet, SinkError> {
        for part in parts {
            let chunk = part.chunk();
            if chunk < self.chunks() || self.waiting.insert(chunk, part).is_some() {
                return Err(SinkError::Chunk { chunk, text: "was closed twice".to_owned() });
            }
        }
        let mut ready = Vec::new();
        while let Some(part) = self.waiting.remove(&(self.chunks() + ready.len() as u64)) {
            ready.push(part);
        }
        if ready.is_empty() {
            return Ok(self.durable());
        }
        self.run.lock.check(self.run.identity.run_id, self.run.identity.epoch)?;
        for part in &ready {
            disk::sync_file(&part.temporary)?;
        }
        for part in &ready {
            disk::rename(&part.temporary, &self.run.part(part.chunk()))?;
        }
        disk::sync_folder_of(&self.run.dfile)?;
        let mut next = self.published.clone();
        ready.iter().for_each(|part| next.add(&part.head));
        let before = std::mem::replace(&mut self.published, next);
        if let Err(error) = self.show() {
            self.published = before;
            return Err(error);
        }
        Ok(self.durable())
    }

    /// Replaces the visible master, where there is to be one and it is not of this state.
    pub(super) fn show(&mut self) -> Result<(), SinkError> {
        let chunks = self.published.spans.len();
        if !self.run.is_live() || chunks == 0 || self.shown == Some(chunks) {
            return Ok(());
        }
        let num_frames = self.run.announce.num_frames;
        let mut links = std::mem::take(&mut self.links);
        self.replace_with_links(&mut links, num_frames, &Ending::default())?;
        self.links = links;
        self.shown = Some(chunks);
        Ok(())
    }

    fn replace_with_links(
        &self,
        links: &mut Links,
        num_frames: Option<u64>,
        ending: &Ending<'_>,
    ) -> Result<(), SinkError> {
        let here = disk::name_of(&self.run.dfile);
        let targets: Vec<String> =
            (0..self.chunks()).map(|chunk| self.run.names.name(&here, chunk)).collect();
        self.replace("master", num_frames, ending, |path, content| {
            disk::write(path, &links.image(path, content, &targets)?)
        })
    }

    /// Writes a file under a temporary name and puts it in the master's place.
    fn replace(
        &self,
        what: &str,
        num_frames: Option<u64>,
        ending: &Ending<'_>,
        write: impl FnOnce(&Path, &Content<'_>) -> Result<(), SinkError>,
    ) -> Result<(), SinkError> {
        let run = &*self.run;
        let record = self.record(ending);
        let num_frames = num_frames.map_or(Value::None, |n| Value::Int(n as i64));
        let meta = with(&run.announce.meta, "num_frames", Some(num_frames));
        let scan = run.announce.positions_scan.clone().map(Value::Array);
        let info = with(&run.announce.info, "positions_scan", scan);
        let content = Content {
            meta: &meta,
            info: &info,
            record: &record,
            sums: ending.sums,
            per_frame: ending.per_frame,
        };
        let temp = disk::temporary(&run.dfile, what);
        operations::next("write", &temp)?;
        write(&temp, &content).map_err(|e| {
            let needed = disk::size(&temp).max(run.announce.form.frame_bytes());
            run.give_up(&temp, e, needed)
        })?;
        disk::sync_file(&temp)?;
        run.lock.check(run.identity.run_id, run.identity.epoch)?;
        disk::rename(&temp, &run.dfile)?;
        disk::sync_folder_of(&run.dfile)
    }

    fn record(&self, ending: &Ending<'_>) -> Record {
        let run = &*self.run;
        let form = &run.announce.form;
        let all = united(self.published.gaps.iter().chain(ending.gaps));
        Record {
            identity: run.identity.clone(),
            state: match (ending.has_come, ending.aborted) {
                (false, _) => State::Writing,
                (true, None) => State::Complete,
                (true, Some(_)) => State::Aborted,
            },
            aborted: ending.aborted.map(|a| a.reason.clone()),
            save: save_name(run.save).to_owned(),
            part_format: run.names.format().to_owned(),
            gaps: all,
            chunks: self.published.spans.clone(),
            filters: vec![
                format!("data: {}", describe(&form.data_filters)),
                format!("weights: {}", describe(&form.weights_filters)),
            ],
            report: ending.report.to_owned(),
            config: run.announce.config.clone(),
        }
    }

    /// Ends the file: the final master, or the fold of all parts into one file.
    ///
    /// # Errors
    /// [`SinkError`] if a chunk is missing, the fold does not fit on the disk, or the disk
    /// refuses; the parts remain, and the next start folds again.
    pub fn finish(mut self, end: &Finish) -> Result<Finished, SinkError> {
        if let Some((&chunk, _)) = self.waiting.first_key_value() {
            let text = format!("cannot be published: chunk {} was never closed", self.chunks());
            return Err(SinkError::Chunk { chunk, text });
        }
        let run = Arc::clone(&self.run);
        run.lock.check(run.identity.run_id, run.identity.epoch)?;
        let mut report = SinkReport {
            file: Some(run.dfile.clone()),
            chunks: if run.save == Save::Merge { 1 } else { self.chunks() },
            run_id: run.identity.run_id,
            epoch: run.identity.epoch,
            aborted: end.aborted.clone(),
            ..end.report.clone()
        };
        let mut ending = Ending {
            has_come: true,
            aborted: end.aborted.as_ref(),
            gaps: &end.gaps,
            ..Ending::default()
        };
        report.gaps = self.record(&ending).gaps;
        let json = serde_json::to_string(&report).unwrap_or_default();
        ending.report = &json;
        let sums = self.published.all_sums(run.announce.form.batch);
        ending.sums = sums.as_ref();
        let per_frame = self.published.all_per_frame();
        ending.per_frame = per_frame.as_ref();
        let num_frames = Some(match run.announce.pipeline.on_gap {
            OnGap::Skip => self.published.spans.iter().map(|s| s.rows).sum(),
            OnGap::Fill | OnGap::Fail => end.num_frames,
        });
        let parts: Vec<PathBuf> = (0..self.chunks()).map(|chunk| run.part(chunk)).collect();
        if run.save == Save::Link {
            self.replace_with_links(&mut Links::default(), num_frames, &ending)?;
            report::write(&run.announce, &report);
            run.lock.forget()?;
            return Ok(Finished { report, linger: None });
        }
        self.check_room(&parts)?;
        if run.save == Save::Merge {
            let whole: u64 = self.published.spans.iter().map(|s| s.count).sum();
            let spans = ChunkSpan {
                first: 0,
                count: whole,
                rows: self.published.spans.iter().map(|s| s.rows).sum(),
            };
            self.published.spans = vec![spans];
        }
        self.replace("fold", num_frames, &ending, |path, content| {
            let announce = &run.announce;
            match run.save {
                Save::Merge => {
                    master::write_merge(path, content, &parts, &announce.form, announce.positions)
                }
                _ => master::write_append(path, content, &parts),
            }?;
            Ok(())
        })?;
        report::write(&run.announce, &report);
        if run.is_live() {
            return Ok(Finished { report, linger: Some(Linger { run, parts }) });
        }
        parts.iter().try_for_each(|part| disk::remove(part))?;
        run.lock.forget()?;
        Ok(Finished { report, linger: None })
    }

    /// Makes sure that the parts fit on the disk once more.
    fn check_room(&self, parts: &[PathBuf]) -> Result<(), SinkError> {
        let needed = parts.iter().map(|part| disk::size(part)).sum();
        match disk::free_bytes(&self.run.dfile) {
            Some(free) if free < needed => {
                Err(SinkError::DiskFull { path: self.run.dfile.clone(), needed, free })
            }
            _ => Ok(()),
        }
    }
}

/// Unites lists of gaps that overlap: each index once, neighbours of one reason joined.
fn united<'a>(gaps: impl Iterator<Item = &'a (IndexRange, String)>) -> Vec<(IndexRange, String)> {
    let mut sorted: Vec<_> = gaps.collect();
    sorted.sort_by_key(|(range, _)| (range.first, std::cmp::Reverse(range.count)));
    let mut all: Vec<(IndexRange, String)> = Vec::new();
    let mut next = 0;
    for (range, reason) in sorted {
        let first = range.first.0.max(next);
        if first >= range.end() {
            continue;
        }
        next = range.end();
        let count = (next - first) as u32;
        match all.last_mut() {
            Some((last, why)) if last.end() == first && why == reason => last.count += count,
            _ => all.push((IndexRange::new(first, count), reason.clone())),
        }
    }
    all
}

/// Returns entries with one of them set, at its place or at the end.
fn with(entries: &[(String, Value)], key: &str, value: Option<Value>) -> Vec<(String, Value)> {
    let mut all = entries.to_vec();
    if let Some(value) = value {
        match all.iter_mut().find(|(k, _)| k == key) {
            Some(entry) => entry.1 = value,
            None => all.push((key.to_owned(), value)),
        }
    }
    all
}

fn describe(filters: &[Filter]) -> String {
    let name = |f: &Filter| match f {
        Filter::Deflate(level) => format!("gzip {level}"),
        Filter::Shuffle(_) => "shuffle".to_owned(),
        Filter::Fletcher32 => "fletcher32".to_owned(),
        Filter::Bslz4(_) => "bitshuffle-lz4".to_owned(),
        Filter::Lz4 => "lz4".to_owned(),
        Filter::Blosc(_) => "blosc".to_owned(),
    };
    match filters {
        [] => "none".to_owned(),
        all => all.iter().map(name).collect::<Vec<_>>().join(", "),
    }
}
