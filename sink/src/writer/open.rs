//! Opens the place of a file: begin, resume, nothing to do, refuse.

use super::names::PartNames;
use super::publish::Published;
use super::{Lock, Publisher, Run, Writer, disk, report, retire};
use crate::error::SinkError;
use crate::identity::{Found, Verdict, judge};
use ptystream_common::index::IndexSet;
use ptystream_common::message::{Announce, SinkReport};
use ptystream_common::params::Save;
use ptystream_common::ptyd::record::{ChunkSpan, Identity, Record, State};
use ptystream_common::ptyd::{master, part};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// What opening came to.
#[derive(Debug)]
pub enum Open {
    /// Frames can be written; the publisher may live on another thread.
    Ready(Writer, Box<Publisher>),
    /// The file is there already, of this very scan.
    AlreadyComplete(Box<SinkReport>),
}

pub(super) fn save_name(save: Save) -> &'static str {
    match save {
        Save::Append => "append",
        Save::Link => "link",
        Save::Merge => "merge",
    }
}

/// Opens the place of a file; `kept`: the lock, where this process holds it already.
pub(super) fn open(announce: &Announce, kept: Option<&Arc<Lock>>) -> Result<Open, SinkError> {
    let (Some(dfile), Some(save)) = (&announce.dfile, announce.save) else {
        return Err(SinkError::NoFile);
    };
    let dfile = disk::resolved(dfile)?;
    let wanted = PartNames::new(announce.chunk_format.as_deref())?;
    disk::make_folder_of(&dfile)?;
    let (lock, previous) = match kept {
        Some(lock) => {
            lock.stands()?;
            (Arc::clone(lock), lock.previous())
        }
        None => {
            let (lock, previous) = Lock::take(&dfile)?;
            (Arc::new(lock), previous)
        }
    };
    retire::recover(&dfile)?;
    remove_temporary(&dfile)?;

    let record = master::read_record(&dfile);
    // A run goes on under the names that it began with.
    let names = match &record {
        Some(r) if r.state == State::Writing => PartNames::new(Some(&r.part_format))?,
        _ => wanted.clone(),
    };
    let found = look(&dfile, record.as_ref(), &names, announce, save, &wanted);
    let pipeline = &announce.pipeline;
    let (key, parts) = (&announce.scan_key, &announce.key_parts);
    let resumed = match judge(&found, key, parts, pipeline.force, pipeline.fresh) {
        Verdict::Refuse(changed) => return Err(SinkError::OtherScan { file: dfile, changed }),
        Verdict::Complete => {
            if save != Save::Link {
                remove_parts(&dfile, &names, 0)?;
            }
            let said = report_of(&dfile, record.as_ref());
            if !disk::exists(&report::path_of(&dfile)) && said.run_id != 0 {
                // The sink before died when the file was complete and its report not yet there.
                report::write(announce, &SinkReport { already_complete: false, ..said.clone() });
            }
            lock.forget()?;
            return Ok(Open::AlreadyComplete(Box::new(said)));
        }
        Verdict::Begin => {
            let old = record.as_ref().map(|r| PartNames::new(Some(&r.part_format)));
            let old = old.unwrap_or_else(|| Ok(names.clone()))?;
            if record.as_ref().is_some_and(|r| r.save != save_name(Save::Link)) {
                // Parts that were folded and linger: without their file they would pass for an
                // unfinished scan.
                remove_parts(&dfile, &old, 0)?;
            }
            retire::retire(&dfile, &old)?;
            None
        }
        Verdict::Replace => {
            disk::remove(&dfile)?;
            None
        }
        Verdict::Resume(identity) => Some(identity),
    };
    let goes_on = resumed.is_some();
    let (names, identity, published) = match resumed {
        Some(identity) => {
            let aborted = record.as_ref().is_some_and(|r| r.state == State::Aborted);
            let published = whole_parts(&dfile, &names, &identity, announce, aborted);
            let left = previous.filter(|p| p.run_id == identity.run_id).map_or(0, |p| p.epoch);
            let epoch = identity.epoch.max(published.epoch).max(left) + 1;
            (names, Identity { epoch, ..identity }, published)
        }
        None => {
            remove_parts(&dfile, &names, 0)?;
            remove_parts(&dfile, &wanted, 0)?;
            disk::remove(&report::path_of(&dfile))?;
            (wanted, new_identity(key, parts), Published::default())
        }
    };
    lock.sign(identity.run_id, identity.epoch)?;
    let run = Run { dfile, save, names, identity, announce: announce.clone(), lock };
    let run = Arc::new(run);
    let durable = published.durable.clone();
    let mut publisher = Publisher::new(Arc::clone(&run), published);
    if goes_on {
        // The master first: it names no part that is about to be deleted.
        if publisher.chunks() == 0 {
            disk::remove(&run.dfile)?;
            disk::sync_folder_of(&run.dfile)?;
        }
        publisher.show()?;
        remove_parts(&run.dfile, &run.names, publisher.chunks())?;
    }
    let writer = Writer { run, durable, common: None, open: BTreeMap::new(), cut: BTreeMap::new() };
    Ok(Open::Ready(writer, Box::new(publisher)))
}

fn new_identity(key: &str, parts: &BTreeMap<String, String>) -> Identity {
    // Zero means "no run" on the wire.
    let run_id = uuid::Uuid::new_v4().as_u64_pair().0.max(1);
    Identity { run_id, epoch: 1, scan_key: key.to_owned(), key_parts: parts.clone() }
}

/// Finds out what stands where the file is to be.
fn look(
    dfile: &Path,
    record: Option<&Record>,
    names: &PartNames,
    announce: &Announce,
    save: Save,
    wanted: &PartNames,
) -> Found {
    let Some(record) = record else {
        if disk::exists(dfile) {
            return Found::Foreign;
        }
        let head = part::read_head(&names.path(dfile, 0));
        return head.map_or(Found::Nothing, |head| Found::Unfinished(head.identity));
    };
    let identity = record.identity.clone();
    if record.state == State::Writing {
        return Found::Unfinished(identity);
    }
    if record.save != save_name(save)
        || (save == Save::Link && record.part_format != wanted.format())
    {
        // Finished, but not in the form that is asked for now.
        return Found::Foreign;
    }
    let whole = |chunk: usize| {
        part::is_whole(
            &wanted.path(dfile, chunk as u64),
            identity.run_id,
            chunk as u64,
            &announce.form,
        )
    };
    let same = identity.scan_key == announce.scan_key;
    if same && record.state == State::Aborted {
        let there = record.chunks.iter().map(|c| c.first + c.count).max().unwrap_or(0);
        if announce.num_frames.is_none_or(|n| n > there) {
            // A folded file cannot be gone on with: it is kept as `.old`.
            return match save {
                Save::Link => Found::Unfinished(identity),
                Save::Append | Save::Merge => Found::Foreign,
            };
        }
    }
    if same && save == Save::Link && !(0..record.chunks.len()).all(whole) {
        // Somebody deleted parts: what is left of them is the beginning of the scan.
        return Found::Unfinished(identity);
    }
    Found::Finished(identity)
}

/// Collects the parts of the run that are whole, from chunk 0 on.
///
/// `aborted`: the last chunk may have ended where the scan was cut short, and is to go on.
fn whole_parts(
    dfile: &Path,
    names: &PartNames,
    identity: &Identity,
    announce: &Announce,
    aborted: bool,
) -> Published {
    let mut found = Published { durable: IndexSet::new(), ..Published::default() };
    let per_chunk = u64::from(announce.frames_per_chunk.max(1));
    for chunk in 0.. {
        let path = names.path(dfile, chunk);
        if !part::is_whole(&path, identity.run_id, chunk, &announce.form) {
            break;
        }
        let Some(head) = part::read_head(&path) else { break };
        let ChunkSpan { first, count, .. } = head.span;
        let end = first + count;
        // Where the scan ended, the chunk may have to go on; what was flushed ends with a batch, and the
        // next chunk is the rest of it.
        let is_full = end.is_multiple_of(per_chunk) || announce.num_frames == Some(end);
        let flushed = announce.pipeline.flush_after_secs.is_some()
            && (end % per_chunk).is_multiple_of(u64::from(announce.form.batch.max(1)));
        if first != found.durable.first_missing(0) || (aborted && !is_full && !flushed) {
            break;
        }
        found.add(&head);
    }
    found
}

fn report_of(dfile: &Path, record: Option<&Record>) -> SinkReport {
    let stored = record.and_then(|r| serde_json::from_str(&r.report).ok());
    SinkReport {
        file: Some(dfile.to_owned()),
        already_complete: true,
        ..stored.unwrap_or_default()
    }
}

fn remove_temporary(dfile: &Path) -> Result<(), SinkError> {
    let start = format!(".{}.", disk::name_of(dfile));
    for name in disk::siblings(dfile)? {
        // A compacted part bears one more ending.
        let plain = name.strip_suffix(".compact").unwrap_or(&name);
        if plain.starts_with(&start) && plain.ends_with(disk::TEMPORARY) {
            disk::remove(&disk::beside(dfile, &name))?;
        }
    }
    Ok(())
}

/// Deletes parts of chunks from `from` on, the last one first: who still has their master open sees
/// fewer chunks, never one without those before it.
fn remove_parts(dfile: &Path, names: &PartNames, from: u64) -> Result<(), SinkError> {
    let here = disk::name_of(dfile);
    let siblings = disk::siblings(dfile)?.into_iter();
    let mut parts: Vec<_> =
        siblings.filter_map(|name| Some((names.chunk_of(&here, &name)?, name))).collect();
    parts.retain(|(chunk, _)| *chunk >= from);
    parts.sort();
    parts.iter().rev().try_for_each(|(_, name)| disk::remove(&disk::beside(dfile, name)))
}
