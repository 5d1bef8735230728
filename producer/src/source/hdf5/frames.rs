//! Frames of one dataset, by the cheapest way that its storage allows.

use super::super::piece::read_at;
use bytes::Bytes;
use ptystream_common::buffer::Pool;
use ptystream_common::codec::{self, Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::{Array, FrameForm, RawFrame, Region};
use ptystream_common::h5::read::storage::{RawChunk, Storage};
use ptystream_common::h5::read::{H5Dataset, ReadError};
use ptystream_common::index::Index;
use ptystream_common::source::SourceError;
use std::fs::File;
use std::path::PathBuf;

/// Largest group of frames that is kept decoded; beyond it frames are read one by one.
const KEPT_BYTES: usize = 512 << 20;

enum Way {
    /// From the file, past the library.
    Plain { file: File, path: PathBuf, offset: u64 },
    /// Chunks of whole frames that we decode ourselves, so many along each leading axis; a chunk of one
    /// frame goes to the workers as it is stored.
    Chunks { filters: Vec<Filter>, block: Vec<usize> },
    /// Through the library, so many frames at once along each leading axis.
    Library { block: Vec<usize> },
}

/// Frames, or a region of them, that the library decoded together.
struct Block {
    region: Region,
    start: Vec<usize>,
    count: Vec<usize>,
    data: Bytes,
}

/// A dataset whose last two axes are those of a frame.
pub(super) struct Frames {
    dataset: H5Dataset,
    parameter: &'static str,
    form: FrameForm,
    lead: Vec<usize>,
    /// All extents before those of a frame: an outer one before `lead`, where there is one.
    full: Vec<usize>,
    /// Which of the outer axis.
    outer: Option<usize>,
    way: Way,
    block: Option<Block>,
    pool: Pool,
    /// What is needed of frames, where [`Self::load`] reads no more.
    needed: Region,
}

impl Frames {
    /// Takes a 3-D or 4-D dataset; with `outer`, that part of a 4-D or 5-D one.
    ///
    /// # Errors
    /// [`SourceError::Input`] if it has another rank, is empty or holds no numbers, or if its filter
    /// is not installed.
    pub fn open(
        dataset: H5Dataset,
        parameter: &'static str,
        outer: Option<usize>,
    ) -> Result<Self, SourceError> {
        let shape = dataset.shape().to_vec();
        let fail = |text: String| {
            let (key, path) = (dataset.key(), dataset.path().display());
            SourceError::input(format!("{parameter}: '{key}' in '{path}' {text}"))
        };
        let inner = &shape[usize::from(outer.is_some()).min(shape.len())..];
        let (lead, frame) = match *inner {
            [n, rows, cols] => (vec![n], [rows, cols]),
            [slow, fast, rows, cols] => (vec![slow, fast], [rows, cols]),
            _ if outer.is_some() => {
                return Err(fail(format!(
                    "has rank {} (shape {shape:?}); with data.outer_index frames are 4-D (outer, n, rows, \
                     cols) or 5-D (outer, slow, fast, rows, cols)",
                    shape.len()
                )));
            }
            _ => {
                return Err(fail(format!(
                    "has rank {} (shape {shape:?}); frames are 3-D (n, rows, cols) or 4-D (slow, fast, rows, cols)",
                    shape.len()
                )));
            }
        };
        if shape.contains(&0) {
            return Err(fail(format!("is empty (shape {shape:?}); there is nothing to prepare")));
        }
        if let Some(outer) = outer.filter(|&outer| outer >= shape[0]) {
            let last = shape[0] - 1;
            return Err(fail(format!(
                "has shape {shape:?}: data.outer_index = {outer} is beyond the last one, {last}"
            )));
        }
        if dataset.dtype() == Dtype::Bool && parameter == "data.intensities.key" {
            return Err(fail("holds bool; frames are of integers or of reals".into()));
        }
        let form = FrameForm { dtype: dataset.dtype(), shape: frame };
        let full = shape[..shape.len() - 2].to_vec();
        let way = way(&dataset, form, &full)
            .map_err(|e| SourceError::input(format!("{parameter}: {}", chain(&e))))?;
        let needed = Region::whole(form.shape);
        Ok(Self {
            dataset,
            parameter,
            form,
            lead,
            full,
            outer,
            way,
            block: None,
            pool: Pool::default(),
            needed,
        })
    }

    /// Returns the dataset.
    pub fn dataset(&self) -> &H5Dataset {
        &self.dataset
    }

    /// Returns type and extent of a frame.
    pub fn form(&self) -> FrameForm {
        self.form
    }

    /// Returns the extents before those of a frame.
    pub fn lead(&self) -> &[usize] {
        &self.lead
    }

    /// Returns how many frames there are.
    pub fn len(&self) -> usize {
        self.lead.iter().product()
    }

    /// Has [`Self::load`] read no more than `region`, where that is less to read.
    pub fn narrow(&mut self, region: Region) {
        self.needed = match self.way {
            _ if region.pixels() == Some(0) => Region::whole(self.form.shape),
            Way::Plain { .. } => region.full_rows(self.form.shape[1]),
            Way::Library { .. } => region,
            Way::Chunks { .. } => Region::whole(self.form.shape),
        };
    }

    /// Reads a frame, as it is stored where a worker can decode it; `index` is what it is in the scan,
    /// `nth` in the dataset.
    ///
    /// # Errors
    /// [`SourceError::Frame`].
    pub fn load(&mut self, nth: u64, index: Index) -> Result<RawFrame, SourceError> {
        let at = self.place(nth, index)?;
        if let Way::Chunks { filters, block } = &self.way
            && block.iter().all(|&frames| frames == 1)
        {
            let start = [&at[..], &[0, 0]].concat();
            let chunk = self.dataset.read_chunk(&start).map_err(|e| self.fail(index, &e))?;
            if let Some(RawChunk { bytes, skipped }) = chunk {
                let applied = applied(filters, skipped);
                let encoding =
                    if applied.is_empty() { Encoding::Raw } else { Encoding::Filters(applied) };
                if encoding == Encoding::Raw && bytes.len() != self.form.bytes() {
                    let (has, needs) = (bytes.len(), self.form.bytes());
                    let text = format!(
                        "its chunk has {has} bytes, {needs} are needed; the file is damaged"
                    );
                    return Err(SourceError::frame(index, text));
                }
                return Ok(RawFrame::new(self.form, encoding, bytes));
            }
        }
        let payload = self.pixels(nth, index, &at, self.needed)?;
        Ok(RawFrame::part(self.form, self.needed, payload))
    }

    /// Tells whether all frames are stored, by their chunks; `None` where there are none that tell.
    pub fn is_stored(&self) -> Option<bool> {
        let Way::Chunks { block, .. } = &self.way else { return None };
        let block = &block[block.len() - self.lead.len()..];
        let places = (0..self.len()).map(|nth| match self.lead[..] {
            [_, fast] => vec![nth / fast, nth % fast],
            _ => vec![nth],
        });
        let begins = |at: &Vec<usize>| at.iter().zip(block).all(|(at, b)| at.is_multiple_of(*b));
        Some(places.filter(begins).all(|at| {
            let start: Vec<usize> = self.outer.into_iter().chain(at).chain([0, 0]).collect();
            self.dataset.read_chunk(&start).is_ok_and(|chunk| chunk.is_some())
        }))
    }

    /// Reads a frame decoded by the library.
    ///
    /// # Errors
    /// [`SourceError::Frame`].
    pub fn decoded(&mut self, nth: u64, index: Index) -> Result<Array, SourceError> {
        let at = self.place(nth, index)?;
        let data = self.pixels(nth, index, &at, Region::whole(self.form.shape))?;
        Ok(Array { dtype: self.form.dtype, shape: self.form.shape.to_vec(), data })
    }

    fn fail(&self, index: Index, error: &ReadError) -> SourceError {
        SourceError::frame(index, format!("{}: {}", self.parameter, chain(error)))
    }

    /// Returns the place of a frame along the leading axes.
    fn place(&self, nth: u64, index: Index) -> Result<Vec<usize>, SourceError> {
        let n = self.len();
        let at = usize::try_from(nth).ok().filter(|&i| i < n).ok_or_else(|| {
            let text = format!(
                "'{}' in '{}' holds only {n} frames; set data.num_frames={n}",
                self.dataset.key(),
                self.dataset.path().display(),
            );
            SourceError::frame(index, text)
        })?;
        let inner = match self.lead[..] {
            [_, fast] => vec![at / fast, at % fast],
            _ => vec![at],
        };
        Ok(self.outer.into_iter().chain(inner).collect())
    }

    /// Reads a region of a frame; in full rows where the file is read past the library, all of it where
    /// chunks are.
    fn pixels(
        &mut self,
        nth: u64,
        index: Index,
        at: &[usize],
        region: Region,
    ) -> Result<Bytes, SourceError> {
        let row = self.form.shape[1] * self.form.dtype.size();
        let block = match &self.way {
            Way::Plain { file, path, offset } => {
                let before = (self.outer.unwrap_or(0) * self.len()) as u64 + nth;
                let rows = before * self.form.shape[0] as u64 + region.first[0] as u64;
                let place = offset + rows * row as u64;
                let data = read_at(file, place, region.shape[0] * row, &self.pool);
                let data = data.map_err(|e| SourceError::Frame {
                    index,
                    text: format!(
                        "'{}' in '{}' cannot be read",
                        self.dataset.key(),
                        path.display()
                    ),
                    source: Some(Box::new(e)),
                })?;
                return Ok(data);
            }
            Way::Chunks { block, .. } | Way::Library { block } => block.clone(),
        };
        let within = |b: &Block| {
            b.region == region
                && (0..at.len()).all(|a| (b.start[a]..b.start[a] + b.count[a]).contains(&at[a]))
        };
        let read = match self.block.take().filter(within) {
            Some(block) => block,
            None => {
                let start: Vec<usize> =
                    (0..at.len()).map(|a| at[a] / block[a] * block[a]).collect();
                if let Way::Chunks { filters, .. } = &self.way {
                    self.chunk(index, filters, start, block)?
                } else {
                    self.slab(index, start, &block, region)?
                }
            }
        };
        let nth = (0..at.len()).fold(0, |n, a| n * read.count[a] + at[a] - read.start[a]);
        let bytes = region.shape[0] * region.shape[1] * self.form.dtype.size();
        let data = read.data.slice(nth * bytes..(nth + 1) * bytes);
        self.block = (read.data.len() > bytes).then_some(read);
        Ok(data)
    }

    /// Reads a region of frames through the library.
    fn slab(
        &self,
        index: Index,
        start: Vec<usize>,
        block: &[usize],
        region: Region,
    ) -> Result<Block, SourceError> {
        let count: Vec<usize> =
            (0..start.len()).map(|a| block[a].min(self.full[a] - start[a])).collect();
        let all_start = [&start[..], &region.first[..]].concat();
        let all_count = [&count[..], &region.shape[..]].concat();
        let array =
            self.dataset.read_slab(&all_start, &all_count).map_err(|e| self.fail(index, &e))?;
        Ok(Block { region, start, count, data: array.data })
    }

    /// Reads a storage chunk and decodes it.
    fn chunk(
        &self,
        index: Index,
        filters: &[Filter],
        start: Vec<usize>,
        count: Vec<usize>,
    ) -> Result<Block, SourceError> {
        let corner = [&start[..], &[0, 0]].concat();
        let expected = count.iter().product::<usize>() * self.form.bytes();
        let chunk = self.dataset.read_chunk(&corner).map_err(|e| self.fail(index, &e))?;
        let Some(RawChunk { bytes, skipped }) = chunk else {
            // Nothing is stored: the library knows the fill value.
            let clipped: Vec<usize> =
                (0..start.len()).map(|a| count[a].min(self.full[a] - start[a])).collect();
            return self.slab(index, start, &clipped, Region::whole(self.form.shape));
        };
        let mut data = Vec::new();
        codec::decode(&applied(filters, skipped), &bytes, expected, &mut data).map_err(|e| {
            let (key, path) = (self.dataset.key(), self.dataset.path().display());
            SourceError::Frame {
                index,
                text: format!("{}: '{key}' in '{path}' cannot be decoded", self.parameter),
                source: Some(Box::new(e)),
            }
        })?;
        let region = Region::whole(self.form.shape);
        Ok(Block { region, start, count, data: data.into() })
    }
}

/// Returns the filters that were not skipped for a chunk.
fn applied(filters: &[Filter], skipped: u32) -> Vec<Filter> {
    let kept = |(i, _): &(usize, &Filter)| skipped & (1 << i) == 0;
    filters.iter().enumerate().filter(kept).map(|(_, f)| *f).collect()
}

fn way(dataset: &H5Dataset, form: FrameForm, lead: &[usize]) -> Result<Way, ReadError> {
    let chunk = match dataset.storage()? {
        Storage::Plain { file: path, offset } => {
            let file = File::open(&path)
                .map_err(|source| ReadError::Unreadable { path: path.clone(), source })?;
            return Ok(Way::Plain { file, path, offset });
        }
        Storage::Chunks { extent, filters } => {
            let (front, frame) = extent.split_at(lead.len());
            let bytes = front.iter().product::<usize>().saturating_mul(form.bytes());
            if frame == form.shape && bytes <= KEPT_BYTES {
                return Ok(Way::Chunks { filters, block: front.to_vec() });
            }
            Some(extent)
        }
        Storage::Library { chunk } => chunk,
    };
    dataset.ensure_decodable()?;
    let mut block = chunk.unwrap_or_else(|| vec![1; lead.len()]);
    block.truncate(lead.len());
    for (b, &extent) in block.iter_mut().zip(lead) {
        *b = (*b).min(extent);
    }
    if block.iter().product::<usize>().saturating_mul(form.bytes()) > KEPT_BYTES {
        block.fill(1);
    }
    Ok(Way::Library { block })
}
