//! A `.ptyd` file as a reader sees it, links followed.

use crate::dtype::Dtype;
use crate::frame::Array;
use crate::h5::{raw, write};
use crate::ptyd::PtydError;
use crate::ptyd::encode::read_value;
use crate::ptyd::record::Record;
use crate::value::Value;
use hdf5::types::TypeDescriptor;
use hdf5::{Dataset, File, Group, IndexType, IterationOrder, LinkType};
use std::path::{Path, PathBuf};

/// What stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// A group.
    Group,
    /// A dataset.
    Dataset {
        /// numpy's name of the type; `str` for texts; the library's for what no `.ptyd` holds.
        dtype: String,
        /// The type, if it is a pixel type.
        pixel: Option<Dtype>,
        /// Extent of each axis.
        shape: Vec<usize>,
    },
    /// A link whose target cannot be opened.
    Dead,
}

/// One object of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Full name, such as `/chunks/0/data`.
    pub path: String,
    /// What it is.
    pub kind: NodeKind,
    /// Attribute `type`.
    pub kind_attr: Option<String>,
    /// File to which the name links, if it does.
    pub link: Option<String>,
}

/// A chunk by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    /// Its number.
    pub number: u64,
    /// Its name below `/chunks`.
    pub name: String,
    /// Rows of its data; `None` if the chunk cannot be opened or has no data of three axes.
    pub rows: Option<usize>,
}

/// An open `.ptyd` file.
#[derive(Debug)]
pub struct PtydFile {
    path: PathBuf,
    file: File,
}

impl PtydFile {
    /// Opens a file.
    ///
    /// # Errors
    /// [`PtydError`] if it is missing or no HDF5 file.
    pub fn open(path: &Path) -> Result<Self, PtydError> {
        if !path.is_file() {
            return Err(PtydError::content(path, "the file", "does not exist, or is a folder"));
        }
        let file = File::open(path).map_err(PtydError::hdf5(path, "open as HDF5", "/"))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Returns the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `/ptystream`, if the file has it.
    pub fn record(&self) -> Option<Record> {
        Record::read(&self.file)
    }

    /// Tells whether there is something of this name that can be opened.
    pub fn has(&self, path: &str) -> bool {
        self.file.group(path).is_ok() || self.file.dataset(path).is_ok()
    }

    /// Reads a group of values, such as `meta` or `info`; empty if there is none.
    ///
    /// # Errors
    /// [`PtydError`] if a value cannot be read.
    pub fn values(&self, group: &str) -> Result<Vec<(String, Value)>, PtydError> {
        if self.file.group(group).is_err() {
            return Ok(Vec::new());
        }
        match read_value(&self.file, group).map_err(PtydError::hdf5(&self.path, "read", group))? {
            Value::Map(entries) => Ok(entries),
            _ => Ok(Vec::new()),
        }
    }

    /// Lists the chunks in the order of their numbers.
    ///
    /// # Errors
    /// [`PtydError`] if there is no group `chunks`, or a name in it is no number.
    pub fn chunks(&self) -> Result<Vec<ChunkRef>, PtydError> {
        let group =
            self.file.group("chunks").map_err(PtydError::hdf5(&self.path, "open", "chunks"))?;
        let mut chunks = Vec::new();
        for name in group.member_names().map_err(PtydError::hdf5(&self.path, "list", "chunks"))? {
            let Ok(number) = name.parse() else {
                let text = "has a name that is no number";
                return Err(PtydError::content(&self.path, format!("/chunks/{name}"), text));
            };
            let data = group.dataset(&format!("{name}/data"));
            let rows = data.ok().filter(|d| d.ndim() == 3).map(|d| d.shape()[0]);
            chunks.push(ChunkRef { number, name, rows });
        }
        chunks.sort_by_key(|c| c.number);
        Ok(chunks)
    }

    fn dataset(&self, path: &str) -> Result<Dataset, PtydError> {
        self.file.dataset(path).map_err(PtydError::hdf5(&self.path, "open", path))
    }

    fn pixel_type(&self, dataset: &Dataset, path: &str) -> Result<Dtype, PtydError> {
        raw::dtype_of(dataset).ok_or_else(|| {
            PtydError::content(&self.path, path, format!("is of type {}", type_name(dataset)))
        })
    }

    /// Reads a whole array.
    ///
    /// # Errors
    /// [`PtydError`] if it is missing, no array of numbers, or cannot be decoded.
    pub fn array(&self, path: &str) -> Result<Array, PtydError> {
        let dataset = self.dataset(path)?;
        let dtype = self.pixel_type(&dataset, path)?;
        let data =
            raw::read_all(&dataset, dtype).map_err(PtydError::hdf5(&self.path, "read", path))?;
        Ok(Array { dtype, shape: dataset.shape(), data: data.into() })
    }

    /// Reads `count` entries of an array's first axis from `start` on.
    ///
    /// # Errors
    /// [`PtydError`] as for [`Self::array`], and for rows outside the array.
    pub fn rows(&self, path: &str, start: usize, count: usize) -> Result<Array, PtydError> {
        let dataset = self.dataset(path)?;
        let dtype = self.pixel_type(&dataset, path)?;
        let data = raw::read_rows(&dataset, dtype, start, count)
            .map_err(PtydError::hdf5(&self.path, "read", path))?;
        let mut shape = dataset.shape();
        shape[0] = count;
        Ok(Array { dtype, shape, data: data.into() })
    }

    /// Reads a text.
    ///
    /// # Errors
    /// [`PtydError`] if it is missing or no text.
    pub fn text(&self, path: &str) -> Result<String, PtydError> {
        let dataset = self.dataset(path)?;
        write::read_text(&dataset).map_err(PtydError::hdf5(&self.path, "read", path))
    }

    /// Lists all objects, parents first, numbers in their order, links followed.
    ///
    /// # Errors
    /// [`PtydError`] if a group cannot be listed.
    pub fn tree(&self) -> Result<Vec<Node>, PtydError> {
        let mut nodes = Vec::new();
        self.walk(&self.file, "", &mut nodes, 0)?;
        Ok(nodes)
    }

    fn walk(
        &self,
        group: &Group,
        at: &str,
        nodes: &mut Vec<Node>,
        depth: usize,
    ) -> Result<(), PtydError> {
        // Links may form a ring; no .ptyd is as deep as this.
        if depth > 32 {
            return Err(PtydError::content(&self.path, at, "is nested too deeply"));
        }
        let mut names: Vec<(String, bool)> = Vec::new();
        group
            .iter_visit(IndexType::Name, IterationOrder::Increasing, |name, info| {
                names.push((name.to_owned(), info.link_type == LinkType::External));
                Ok(())
            })
            .map_err(PtydError::hdf5(&self.path, "list", at))?;
        names.sort_by_cached_key(|(name, _)| (name.parse::<u64>().ok(), name.clone()));
        for (name, external) in names {
            let path = format!("{at}/{name}");
            let link =
                external.then(|| raw::external_target(group, &name).ok()).flatten().map(|t| t.0);
            let node = |kind, kind_attr| Node { path: path.clone(), kind, kind_attr, link };
            if let Ok(inner) = group.group(&name) {
                nodes.push(node(NodeKind::Group, write::text_attr(&inner, "type")));
                self.walk(&inner, &path, nodes, depth + 1)?;
            } else if let Ok(dataset) = group.dataset(&name) {
                let kind = NodeKind::Dataset {
                    dtype: type_name(&dataset),
                    pixel: raw::dtype_of(&dataset),
                    shape: dataset.shape(),
                };
                nodes.push(node(kind, write::text_attr(&dataset, "type")));
            } else {
                nodes.push(node(NodeKind::Dead, None));
            }
        }
        Ok(())
    }
}

fn type_name(dataset: &Dataset) -> String {
    if let Some(dtype) = raw::dtype_of(dataset) {
        return dtype.name().to_owned();
    }
    match dataset.dtype().and_then(|t| t.to_descriptor()) {
        Ok(
            TypeDescriptor::VarLenUnicode
            | TypeDescriptor::VarLenAscii
            | TypeDescriptor::FixedAscii(_)
            | TypeDescriptor::FixedUnicode(_),
        ) => "str".to_owned(),
        Ok(other) => other.to_string(),
        Err(_) => "unknown".to_owned(),
    }
}
