//! The file with the scan's name: a small one with links to parts, or everything folded into one.

use crate::dtype::Dtype;
use crate::frame::Array;
use crate::h5::raw::{self, Layout};
use crate::h5::write;
use crate::message::PreparedForm;
use crate::ptyd::PtydError;
use crate::ptyd::encode::{doubled, set_type, stamp_root, write_map};
use crate::ptyd::part::{Closing, write_scan_points};
use crate::ptyd::per_frame::PerFrame;
use crate::ptyd::record::Record;
use crate::ptyd::sums::{self, Sums};
use crate::value::Value;
use hdf5::{Dataset, File, Group, IndexType, IterationOrder, LinkType};
use std::path::{Path, PathBuf};

/// Everything in the file but the chunks.
#[derive(Clone, Debug, PartialEq)]
pub struct Content<'a> {
    /// `/meta`.
    pub meta: &'a [(String, Value)],
    /// `/info`.
    pub info: &'a [(String, Value)],
    /// `/ptystream`.
    pub record: &'a Record,
    /// Checksums of all chunks, where the file is finished and has any.
    pub sums: Option<&'a Sums>,
    /// Numbers of all frames, where the file is finished and has any.
    pub per_frame: Option<&'a PerFrame>,
}

/// Writes everything but the chunks; returns their group.
pub(super) fn begin(path: &Path, file: &File, content: &Content<'_>) -> Result<Group, PtydError> {
    let chunks = outline(path, file, content.meta, content.info, Some(content.record))?;
    let written = content.per_frame.map_or(Ok(()), |all| all.write(file));
    written.map_err(PtydError::hdf5(path, "write", "ptystream/per_frame"))?;
    Ok(chunks)
}

pub(super) fn write_sums(path: &Path, file: &File, sums: Option<&Sums>) -> Result<(), PtydError> {
    sums.map_or(Ok(()), |sums| sums.write(file)).map_err(PtydError::hdf5(
        path,
        "write",
        "ptystream/checksums",
    ))
}

fn create(path: &Path) -> Result<File, PtydError> {
    write::create_file(path).map_err(PtydError::hdf5(path, "create", "/"))
}

fn outline(
    path: &Path,
    file: &File,
    meta: &[(String, Value)],
    info: &[(String, Value)],
    record: Option<&Record>,
) -> Result<Group, PtydError> {
    stamp_root(file).map_err(PtydError::hdf5(path, "write", "/"))?;
    for (name, entries) in [("meta", meta), ("info", info)] {
        if let Some(key) = doubled(entries).first() {
            let text = format!("would hold '{key}' twice; give it once");
            return Err(PtydError::content(path, name, text));
        }
        write_map(file, name, entries, "dict").map_err(PtydError::hdf5(path, "write", name))?;
    }
    if let Some(record) = record {
        record.write(file).map_err(PtydError::hdf5(path, "write", "ptystream"))?;
    }
    file.create_group("chunks")
        .and_then(|g| set_type(&g, "dict").map(|()| g))
        .map_err(PtydError::hdf5(path, "create", "chunks"))
}

fn end(path: &Path, file: File, chunks: Group) -> Result<(), PtydError> {
    drop(chunks);
    file.close().map_err(PtydError::hdf5(path, "close", "/"))
}

/// Opens the datasets of a part by name.
fn open_part(path: &Path) -> Result<File, PtydError> {
    File::open(path).map_err(PtydError::hdf5(path, "open", "/"))
}

fn member(path: &Path, place: &Group, name: &str) -> Result<Dataset, PtydError> {
    place.dataset(name).map_err(PtydError::hdf5(path, "open", name))
}

/// Writes a file that holds the parts' content, chunk by chunk, their bytes as they are stored.
///
/// # Errors
/// [`PtydError`] if a part cannot be read or the file cannot be written.
pub fn write_append(
    path: &Path,
    content: &Content<'_>,
    parts: &[PathBuf],
) -> Result<(), PtydError> {
    let file = create(path)?;
    let chunks = begin(path, &file, content)?;
    for (n, part) in parts.iter().enumerate() {
        let source = open_part(part)?;
        let name = n.to_string();
        let chunk = chunks
            .create_group(&name)
            .and_then(|g| set_type(&g, "dict").map(|()| g))
            .map_err(PtydError::hdf5(path, "create", &name))?;
        let members = source.member_names().map_err(PtydError::hdf5(part, "list", "/"))?;
        for name in members {
            let copied = match source.dataset(&name) {
                Ok(dataset) => dataset.copy_to(&chunk, &name),
                Err(_) => source.group(&name).and_then(|g| g.copy_to(&chunk, &name)),
            };
            copied.map_err(PtydError::hdf5(part, "copy", &name))?;
        }
    }
    write_sums(path, &file, content.sums)?;
    end(path, file, chunks)
}

/// Writes a file that holds the parts' content as one chunk.
///
/// # Errors
/// [`PtydError`] if a part cannot be read or the file cannot be written; where chunks do not meet,
/// this includes a filter that the library cannot decode.
pub fn write_merge(
    path: &Path,
    content: &Content<'_>,
    parts: &[PathBuf],
    form: &PreparedForm,
    positions: Option<Dtype>,
) -> Result<(), PtydError> {
    let file = create(path)?;
    let chunks = begin(path, &file, content)?;
    let rows: usize = content.record.chunks.iter().map(|c| c.rows as usize).sum();
    let chunk = chunks
        .create_group("0")
        .and_then(|g| set_type(&g, "dict").map(|()| g))
        .map_err(PtydError::hdf5(path, "create", "chunks/0"))?;
    let make = |name: &'static str, dtype, [h, w]: [usize; 2], filters: &[_]| {
        let extent = [form.batch as usize, h, w];
        let layout = Layout::Chunked { chunk: &extent, filters };
        raw::create_dataset(&chunk, name, dtype, &[rows, h, w], layout)
            .and_then(|d| set_type(&d, "array").map(|()| d))
            .map_err(PtydError::hdf5(path, "create", name))
    };
    let data = make("data", form.data, form.shape, &form.data_filters)?;
    let weights = make("weights", form.weights, form.weights_shape, &form.weights_filters)?;
    let mut all = Closing { positions: positions.map(|_| Vec::new()), ..Closing::default() };
    let mut at = 0;
    let mut meet = true;
    for part in parts {
        meet &= at % form.batch.max(1) as usize == 0;
        let source = open_part(part)?;
        for (name, to, dtype) in [("data", &data, form.data), ("weights", &weights, form.weights)] {
            let from = member(part, &source, name)?;
            write::copy_rows(&from, 0, from.shape()[0], to, at, dtype)
                .map_err(PtydError::hdf5(part, "merge", name))?;
        }
        let indices = member(part, &source, "indices")?;
        let bytes = raw::read_all(&indices, Dtype::I64)
            .map_err(PtydError::hdf5(part, "read", "indices"))?;
        let item = |b: &[u8]| <i64 as crate::dtype::Pixel>::from_le(b) as u64;
        all.indices.extend(bytes.chunks_exact(8).map(item));
        if let Some(list) = &mut all.positions {
            let stored = member(part, &source, "positions")?;
            let bytes = raw::read_all(&stored, Dtype::F64).map_err(PtydError::hdf5(
                part,
                "read",
                "positions",
            ))?;
            let item = |b: &[u8]| <f64 as crate::dtype::Pixel>::from_le(b);
            list.extend(bytes.chunks_exact(16).map(|p| [item(&p[..8]), item(&p[8..])]));
        }
        at += indices.size();
    }
    write_scan_points(path, &chunk, &all, positions)?;
    // Where the parts' storage chunks did not meet, they were encoded anew.
    let anew = match content.sums.filter(|_| !meet) {
        None => None,
        Some(_) => Some(Sums {
            data: sums::all_stored(&data).map_err(PtydError::hdf5(path, "read", "data"))?,
            weights: sums::all_stored(&weights)
                .map_err(PtydError::hdf5(path, "read", "weights"))?,
        }),
    };
    write_sums(path, &file, anew.as_ref().or(content.sums))?;
    drop((data, weights, chunk));
    end(path, file, chunks)
}

/// Writes a file of chunks that are at hand as arrays: repaired copies, small files.
#[derive(Debug)]
pub struct PlainWriter {
    path: PathBuf,
    file: File,
    chunks: Group,
    count: u64,
}

impl PlainWriter {
    /// Creates the file with `meta` and `info`.
    ///
    /// # Errors
    /// [`PtydError`] if the file is there already or cannot be written.
    pub fn create(
        path: &Path,
        meta: &[(String, Value)],
        info: &[(String, Value)],
    ) -> Result<Self, PtydError> {
        if path.exists() {
            return Err(PtydError::content(path, "the file", "exists; name another"));
        }
        let file = create(path)?;
        let chunks = outline(path, &file, meta, info, None)?;
        Ok(Self { path: path.to_owned(), file, chunks, count: 0 })
    }

    /// Adds the next chunk: frames, weights, positions and indices with as many rows each.
    ///
    /// # Errors
    /// [`PtydError`] if the file cannot be written.
    pub fn add(&mut self, arrays: &[(&str, &Array)]) -> Result<(), PtydError> {
        let number = self.count.to_string();
        let chunk = self
            .chunks
            .create_group(&number)
            .and_then(|g| set_type(&g, "dict").map(|()| g))
            .map_err(PtydError::hdf5(&self.path, "create chunk", &number))?;
        for &(name, array) in arrays {
            let kind = if name == "indices" { "arraylist" } else { "array" };
            write::write_array(&chunk, name, array.dtype, &array.shape, &array.data)
                .and_then(|d| set_type(&d, kind))
                .map_err(PtydError::hdf5(&self.path, "write", name))?;
        }
        self.count += 1;
        Ok(())
    }

    /// Closes the file.
    ///
    /// # Errors
    /// [`PtydError`] if the file cannot be written.
    pub fn close(self) -> Result<(), PtydError> {
        end(&self.path, self.file, self.chunks)
    }
}

/// Returns the names of the files that a file's chunks link to, by chunk; empty if none do.
///
/// # Errors
/// [`PtydError`] if the file is no HDF5 file.
pub fn links(path: &Path) -> Result<Vec<(String, String)>, PtydError> {
    let file = File::open(path).map_err(PtydError::hdf5(path, "open", "/"))?;
    let Ok(chunks) = file.group("chunks") else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    chunks
        .iter_visit(IndexType::Name, IterationOrder::Increasing, |name, info| {
            if info.link_type == LinkType::External {
                names.push(name.to_owned());
            }
            Ok(())
        })
        .map_err(PtydError::hdf5(path, "list", "chunks"))?;
    let target = |name: String| {
        let (file, _) = raw::external_target(&chunks, &name).map_err(PtydError::hdf5(
            path,
            "read the link",
            &name,
        ))?;
        Ok((name, file))
    };
    names.into_iter().map(target).collect()
}

/// Copies a file, with other targets for the links of its chunks (chunk name, new target).
///
/// # Errors
/// [`PtydError`] if the file cannot be read or the copy not written.
pub fn relink(from: &Path, to: &Path, links: &[(String, String)]) -> Result<(), PtydError> {
    let source = File::open(from).map_err(PtydError::hdf5(from, "open", "/"))?;
    let target = create(to)?;
    for name in source.attr_names().map_err(PtydError::hdf5(from, "list", "/"))? {
        if let Some(value) = write::text_attr(&source, &name) {
            write::set_attr(&target, &name, &value).map_err(PtydError::hdf5(to, "write", "/"))?;
        }
    }
    let copy = |from_group: &Group, to_group: &Group, name: &str| match from_group.group(name) {
        Ok(group) => group.copy_to(to_group, name),
        Err(_) => from_group.dataset(name).and_then(|d| d.copy_to(to_group, name)),
    };
    for name in source.member_names().map_err(PtydError::hdf5(from, "list", "/"))? {
        if name != "chunks" {
            copy(&source, &target, &name).map_err(PtydError::hdf5(from, "copy", &name))?;
            continue;
        }
        let old = source.group("chunks").map_err(PtydError::hdf5(from, "open", "chunks"))?;
        let new = target
            .create_group("chunks")
            .and_then(|g| set_type(&g, "dict").map(|()| g))
            .map_err(PtydError::hdf5(to, "create", "chunks"))?;
        for name in old.member_names().map_err(PtydError::hdf5(from, "list", "chunks"))? {
            match links.iter().find(|(n, _)| *n == name) {
                Some((_, file)) => new.link_external(file, "/", &name),
                None => copy(&old, &new, &name),
            }
            .map_err(PtydError::hdf5(to, "copy chunk", &name))?;
        }
    }
    target.close().map_err(PtydError::hdf5(to, "close", "/"))
}

/// Reads `/ptystream` of a file; `None` if there is no such file, it cannot be read, or it is
/// not ours.
pub fn read_record(path: &Path) -> Option<Record> {
    let file = File::open(path).ok()?;
    Record::read(&file)
}
