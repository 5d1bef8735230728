//! The group `/ptystream`: what is ours beside what ptypy reads.
//!
//! | name | kind | meaning |
//! |---|---|---|
//! | attributes `version`, `run_id`, `epoch`, `scan_key`, `state`, `save`, `part_format` | text | identity; `state` is `writing`, `complete` or `aborted` |
//! | attribute `aborted` | text | why the scan ended early; only where it did |
//! | `key_parts` | texts `name=value` | what the scan key is made of |
//! | `gaps/first`, `gaps/count`, `gaps/reason` | int64, int64, texts | indices without a frame |
//! | `chunks/first`, `chunks/count`, `chunks/rows` | int64 | indices that chunk N covers, and its rows |
//! | `filters` | texts | filters of data and weights |
//! | `report` | text, JSON | what the sink said at the end |
//! | `config` | text, TOML | what was given to prepare it: `ptystream run --from` goes by it |
//! | `checksums/data`, `checksums/weights` | uint32 | see [`crate::ptyd::sums`]; only in finished files, and only with `pipeline.checksums` |
//! | `per_frame/<name>` | float64 | see [`crate::ptyd::per_frame`]; only in finished files |
//!
//! A part has no groups, since readers take every member of a chunk for a dataset: there the
//! same stands in attributes of the root ([`PartHead`]).

use crate::dtype::Dtype;
use crate::h5::{raw, write};
use crate::index::IndexRange;
use crate::ptyd::per_frame::PerFrame;
use crate::ptyd::sums::Sums;
use hdf5::{Group, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Name of the group.
pub const GROUP: &str = "ptystream";
/// Version of the group's layout.
pub const VERSION: &str = "3";

/// Whether a file will still change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More chunks are to come.
    Writing,
    /// Nothing is to come.
    Complete,
    /// Nothing is to come: the scan ended before its announced number of frames.
    Aborted,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Writing => "writing",
            Self::Complete => "complete",
            Self::Aborted => "aborted",
        }
    }
}

/// Who wrote which scan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Random, one a run.
    pub run_id: u64,
    /// Counts the sink's starts over the run.
    pub epoch: u32,
    /// Hash of `key_parts`.
    pub scan_key: String,
    /// What the key is made of.
    pub key_parts: BTreeMap<String, String>,
}

/// The indices that a chunk covers, and its rows (fewer where gaps are left out).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSpan {
    /// First index.
    pub first: u64,
    /// Indices covered.
    pub count: u64,
    /// Rows stored.
    pub rows: u64,
}

/// The content of `/ptystream`.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Who and what.
    pub identity: Identity,
    /// Whether more is to come.
    pub state: State,
    /// Why the scan ended before its announced number of frames, if it did.
    pub aborted: Option<String>,
    /// `link`, `append` or `merge`.
    pub save: String,
    /// Suffix of the parts' names, with one `%d`.
    pub part_format: String,
    /// Indices without a frame, and why.
    pub gaps: Vec<(IndexRange, String)>,
    /// Chunks in order.
    pub chunks: Vec<ChunkSpan>,
    /// Filters of data and weights, for people.
    pub filters: Vec<String>,
    /// What the sink said at the end; empty before.
    pub report: String,
    /// The configuration as TOML; empty where it is not known.
    pub config: String,
}

/// What a part tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartHead {
    /// Who and what.
    pub identity: Identity,
    /// Number of the chunk.
    pub chunk: u64,
    /// Indices and rows.
    pub span: ChunkSpan,
    /// Indices of the chunk without a frame, and why.
    pub gaps: Vec<(IndexRange, String)>,
    /// Sums of its storage chunks; `None` without `pipeline.checksums`.
    #[serde(default)]
    pub checksums: Option<Sums>,
    /// Numbers of its frames, where there are any.
    #[serde(default)]
    pub per_frame: Option<PerFrame>,
}

fn integers(group: &Group, name: &str, items: impl Iterator<Item = u64>) -> Result<()> {
    let items: Vec<i64> = items.map(|v| v as i64).collect();
    let bytes: Vec<u8> = items.iter().flat_map(|v| v.to_le_bytes()).collect();
    write::write_array(group, name, Dtype::I64, &[items.len()], &bytes).map(|_| ())
}

fn read_integers(group: &Group, name: &str) -> Result<Vec<u64>> {
    let bytes = raw::read_all(&group.dataset(name)?, Dtype::I64)?;
    let item = |b: &[u8]| <i64 as crate::dtype::Pixel>::from_le(b) as u64;
    Ok(bytes.chunks_exact(8).map(item).collect())
}

impl Record {
    /// Writes the group.
    ///
    /// # Errors
    /// The library's.
    pub fn write(&self, root: &Group) -> Result<()> {
        let group = root.create_group(GROUP)?;
        for (name, value) in [
            ("version", VERSION),
            ("run_id", &format!("{:016x}", self.identity.run_id)),
            ("epoch", &self.identity.epoch.to_string()),
            ("scan_key", &self.identity.scan_key),
            ("state", self.state.name()),
            ("save", &self.save),
            ("part_format", &self.part_format),
        ] {
            write::set_attr(&group, name, value)?;
        }
        if let Some(reason) = &self.aborted {
            write::set_attr(&group, "aborted", reason)?;
        }
        let parts: Vec<String> =
            self.identity.key_parts.iter().map(|(k, v)| format!("{k}={v}")).collect();
        write::write_texts(&group, "key_parts", &parts)?;
        write::write_texts(&group, "filters", &self.filters)?;
        write::write_text(&group, "config", &self.config)?;
        write::write_text(&group, "report", &self.report)?;
        self.write_progress(&group)
    }

    fn write_progress(&self, group: &Group) -> Result<()> {
        let gaps = group.create_group("gaps")?;
        integers(&gaps, "first", self.gaps.iter().map(|(r, _)| r.first.0))?;
        integers(&gaps, "count", self.gaps.iter().map(|(r, _)| u64::from(r.count)))?;
        let reasons: Vec<&str> = self.gaps.iter().map(|(_, why)| why.as_str()).collect();
        write::write_texts(&gaps, "reason", &reasons)?;
        let chunks = group.create_group("chunks")?;
        integers(&chunks, "first", self.chunks.iter().map(|c| c.first))?;
        integers(&chunks, "count", self.chunks.iter().map(|c| c.count))?;
        integers(&chunks, "rows", self.chunks.iter().map(|c| c.rows))
    }

    /// Writes gaps and chunks anew, in a file that has the group.
    ///
    /// # Errors
    /// The library's.
    pub fn refresh(&self, root: &Group) -> Result<()> {
        let group = root.group(GROUP)?;
        group.unlink("gaps")?;
        group.unlink("chunks")?;
        self.write_progress(&group)
    }

    /// Reads the group; `None` if the file has none, or one that this program does not know.
    pub fn read(root: &Group) -> Option<Self> {
        let group = root.group(GROUP).ok()?;
        let attr = |name: &str| write::text_attr(&group, name);
        let key_parts = write::read_texts(&group.dataset("key_parts").ok()?).ok()?;
        let split = |line: &String| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        };
        let gaps = group.group("gaps").ok()?;
        let chunks = group.group("chunks").ok()?;
        let reasons = write::read_texts(&gaps.dataset("reason").ok()?).ok()?;
        let range = |(first, count): (u64, u64)| IndexRange::new(first, count as u32);
        Some(Self {
            identity: Identity {
                run_id: u64::from_str_radix(&attr("run_id")?, 16).ok()?,
                epoch: attr("epoch")?.parse().ok()?,
                scan_key: attr("scan_key")?,
                key_parts: key_parts.iter().filter_map(split).collect(),
            },
            state: match attr("state")?.as_str() {
                "writing" => State::Writing,
                "complete" => State::Complete,
                "aborted" => State::Aborted,
                _ => return None,
            },
            aborted: attr("aborted"),
            save: attr("save")?,
            part_format: attr("part_format")?,
            gaps: read_integers(&gaps, "first")
                .ok()?
                .into_iter()
                .zip(read_integers(&gaps, "count").ok()?)
                .map(range)
                .zip(reasons)
                .collect(),
            chunks: read_integers(&chunks, "first")
                .ok()?
                .into_iter()
                .zip(read_integers(&chunks, "count").ok()?)
                .zip(read_integers(&chunks, "rows").ok()?)
                .map(|((first, count), rows)| ChunkSpan { first, count, rows })
                .collect(),
            filters: write::read_texts(&group.dataset("filters").ok()?).ok()?,
            report: write::read_text(&group.dataset("report").ok()?).ok()?,
            config: group
                .dataset("config")
                .and_then(|text| write::read_text(&text))
                .unwrap_or_default(),
        })
    }
}

/// Attribute of a part's root that holds its head as JSON.
const HEAD: &str = "ptystream";

impl PartHead {
    /// Writes the attribute.
    ///
    /// # Errors
    /// The library's.
    pub fn write(&self, root: &Group) -> Result<()> {
        let json = serde_json::to_string(self)
            .map_err(|e| hdf5::Error::from(format!("head of the part: {e}")))?;
        write::set_attr(root, HEAD, &json)
    }

    /// Reads the attribute; `None` if the file is no part of ours.
    pub fn read(root: &Group) -> Option<Self> {
        serde_json::from_str(&write::text_attr(root, HEAD)?).ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back() {
        let file = write::memory_file().unwrap();
        let record = Record {
            identity: Identity {
                run_id: u64::MAX - 3,
                epoch: 4,
                scan_key: "abc".into(),
                key_parts: [("data.rebin".to_owned(), "a=b".to_owned())].into(),
            },
            state: State::Aborted,
            aborted: Some("stopped by the user".into()),
            save: "link".into(),
            part_format: ".part%03d".into(),
            gaps: vec![(IndexRange::new(3, 2), "frame lost".into())],
            chunks: vec![ChunkSpan { first: 0, count: 7, rows: 5 }],
            filters: vec![],
            report: String::new(),
            config: "[data]\n".into(),
        };
        record.write(&file).unwrap();
        assert_eq!(Record::read(&file), Some(record));
    }

    #[test]
    fn a_long_head_of_a_part_comes_back() {
        let file = write::memory_file().unwrap();
        let head = PartHead {
            identity: Identity {
                key_parts: [("long".to_owned(), "x".repeat(200_000))].into(),
                ..Identity::default()
            },
            chunk: 2,
            span: ChunkSpan { first: 80, count: 40, rows: 40 },
            gaps: vec![],
            checksums: Some(Sums { data: vec![u32::MAX, 0, 1 << 30], weights: vec![3; 3] }),
            per_frame: None,
        };
        head.write(&file).unwrap();
        assert_eq!(PartHead::read(&file), Some(head));
    }
}
