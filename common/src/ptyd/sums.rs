//! Checksums of data and weights, kept in the file and compared with what is stored.
//!
//! | where | what |
//! |---|---|
//! | head of a part ([`PartHead`]) | those of its storage chunks |
//! | `/ptystream/checksums/data`, `…/weights` of a finished file, uint32 | those of all storage chunks, chunk after chunk |
//!
//! A sum is the CRC-32 of a storage chunk's bytes as they are stored, filters applied;
//! 0 where nothing is stored. It is the worker's own, unless the sink had to write the chunk anew.

use crate::checksum;
use crate::h5::{raw, write};
use crate::ptyd::PtydError;
use crate::ptyd::read::PtydFile;
use crate::ptyd::record::{GROUP, PartHead};
use hdf5::{Dataset, File, Group, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the group below `/ptystream`.
const CHECKSUMS: &str = "checksums";

/// Sums of the storage chunks of data and weights, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Of the data.
    pub data: Vec<u32>,
    /// Of the weights.
    pub weights: Vec<u32>,
}

impl Sums {
    /// Makes sums of `batches` storage chunks each, nothing stored yet.
    pub fn new(batches: usize) -> Self {
        Self { data: vec![0; batches], weights: vec![0; batches] }
    }

    /// Returns those of a dataset, `data` or `weights`.
    pub fn of(&self, name: &str) -> &[u32] {
        if name == "data" { &self.data } else { &self.weights }
    }

    /// Returns those of a dataset, to be changed.
    pub fn of_mut(&mut self, name: &str) -> &mut Vec<u32> {
        if name == "data" { &mut self.data } else { &mut self.weights }
    }

    /// Adds those of the next chunk.
    pub fn append(&mut self, mut next: Self) {
        self.data.append(&mut next.data);
        self.weights.append(&mut next.weights);
    }

    /// Writes them into the group `/ptystream` of a file.
    ///
    /// # Errors
    /// The library's.
    pub fn write(&self, root: &Group) -> Result<()> {
        let group = root.group(GROUP)?.create_group(CHECKSUMS)?;
        write::set_attr(&group, "algorithm", "CRC-32")?;
        for name in ["data", "weights"] {
            group.new_dataset_builder().with_data(self.of(name)).create(name)?;
        }
        Ok(())
    }

    /// Reads those of a finished file; `None` if it has none.
    pub fn read(root: &Group) -> Option<Self> {
        let group = root.group(GROUP).ok()?.group(CHECKSUMS).ok()?;
        let all = |name: &str| group.dataset(name).ok()?.read_raw::<u32>().ok();
        Some(Self { data: all("data")?, weights: all("weights")? })
    }
}

/// Returns the sum of the storage chunk that begins at `row`; 0 if there is none.
///
/// # Errors
/// The library's.
pub fn stored(dataset: &Dataset, row: usize) -> Result<u32> {
    let stored = raw::read_chunk(dataset, &[row, 0, 0])?;
    Ok(stored.map_or(0, |(_, bytes)| checksum::sum(&bytes)))
}

/// Returns the sums of all storage chunks of a dataset.
///
/// # Errors
/// The library's.
pub fn all_stored(dataset: &Dataset) -> Result<Vec<u32>> {
    let rows = dataset.shape()[0];
    (0..rows).step_by(batch_of(dataset)).map(|row| stored(dataset, row)).collect()
}

fn batch_of(dataset: &Dataset) -> usize {
    raw::chunk_extent(dataset).map_or(1, |extent| extent[0].max(1))
}

/// A storage chunk that is not what was written, or cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The file in which it lies.
    pub file: PathBuf,
    /// The dataset, or the chunk where it cannot be opened at all.
    pub object: String,
    /// Indices of the frames, first and last, where they can be read.
    pub frames: Option<(u64, u64)>,
    /// What is wrong.
    pub text: String,
}

/// What came of comparing a file with its checksums.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Storage chunks that were compared.
    pub compared: u64,
    /// Storage chunks without a checksum.
    pub unknown: u64,
    /// Those that are not as they were written.
    pub different: Vec<Difference>,
}

/// Compares every storage chunk of data and weights with its checksum, parts included.
///
/// # Errors
/// [`PtydError`] if the file cannot be opened, or holds no checksums at all.
pub fn verify(path: &Path) -> std::result::Result<Verified, PtydError> {
    let chunks = PtydFile::open(path)?.chunks()?;
    let file = File::open(path).map_err(PtydError::hdf5(path, "open", "/"))?;
    let whole = Sums::read(&file);
    let mut next = Sums::default();
    if let Some(all) = &whole {
        next.clone_from(all);
    }
    let mut found = Verified::default();
    for chunk in chunks {
        let place = format!("chunks/{}", chunk.name);
        let group = match file.group(&place) {
            Ok(group) => group,
            Err(error) => {
                let linked =
                    file.group("chunks").and_then(|g| raw::external_target(&g, &chunk.name));
                let linked = linked.map(|(name, _)| path.with_file_name(name));
                found.different.push(Difference {
                    file: linked.unwrap_or_else(|_| path.to_owned()),
                    object: format!("/{place}"),
                    frames: None,
                    text: format!("cannot be opened: {error}"),
                });
                // Where the sums of the next chunk begin is not known without this one's rows.
                next = Sums::default();
                continue;
            }
        };
        let own = PartHead::read(&group).and_then(|head| head.checksums);
        for name in ["data", "weights"] {
            let there = group.dataset(name).map_err(PtydError::hdf5(path, "open", name))?;
            let batches = there.shape()[0].div_ceil(batch_of(&there));
            let list = next.of_mut(name);
            let said: Vec<u32> = match (list.len() >= batches && whole.is_some(), &own) {
                (true, _) => list.drain(..batches).collect(),
                (false, Some(own)) => own.of(name).to_vec(),
                (false, None) => Vec::new(),
            };
            compare(&group, name, &there, &said, &mut found);
        }
    }
    if found.compared == 0 && found.different.is_empty() {
        let text = "holds no checksums: it was written with pipeline.checksums = false, or by \
                    another program";
        return Err(PtydError::content(path, "the file", text));
    }
    Ok(found)
}

fn compare(group: &Group, name: &str, dataset: &Dataset, said: &[u32], found: &mut Verified) {
    let (batch, rows) = (batch_of(dataset), dataset.shape()[0]);
    for (n, row) in (0..rows).step_by(batch).enumerate() {
        let there = stored(dataset, row);
        let text = match (&there, said.get(n).copied().unwrap_or(0)) {
            (Ok(0), 0) => continue,
            (Ok(_), 0) => {
                found.unknown += 1;
                continue;
            }
            (Ok(sum), said) if *sum == said => {
                found.compared += 1;
                continue;
            }
            (Ok(0), _) => "nothing is stored any more".to_owned(),
            (Ok(sum), said) => format!("checksum is {sum:08x}, {said:08x} was written"),
            (Err(error), _) => format!("cannot be read: {error}"),
        };
        found.compared += 1;
        found.different.push(Difference {
            file: PathBuf::from(dataset.filename()),
            object: dataset.name(),
            frames: frames(group, row, batch.min(rows - row)),
            text: format!("{name} of storage chunk {n}: {text}"),
        });
    }
}

/// Returns the first and last index of rows of a chunk.
fn frames(group: &Group, row: usize, count: usize) -> Option<(u64, u64)> {
    let indices = group.dataset("indices").ok()?.read_raw::<i64>().ok()?;
    let (first, last) = (indices.get(row)?, indices.get(row + count - 1)?);
    Some((*first as u64, *last as u64))
}
