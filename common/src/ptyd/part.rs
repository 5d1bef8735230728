//! One chunk in a file of its own: `data`, `weights`, `positions`, `indices` at its root.
//!
//! A part is written under a temporary name, batch by batch as the workers encoded them, in any
//! order. What nothing was put for is not allocated and reads as zero: a gap costs no bytes.

mod cut;

use crate::checksum;
use crate::dtype::Dtype;
use crate::h5::raw::{self, Layout};
use crate::h5::write;
use crate::index::IndexRange;
use crate::message::PreparedForm;
use crate::ptyd::PtydError;
use crate::ptyd::encode::{bytes_of, set_type, stamp_root};
use crate::ptyd::per_frame::PerFrame;
use crate::ptyd::record::{ChunkSpan, Identity, PartHead};
use crate::ptyd::sums::{self, Sums};
use hdf5::{Dataset, File, Group};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What is known of a chunk when it closes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Closing {
    /// Indices of the rows, in order; gaps that are filled in included.
    pub indices: Vec<u64>,
    /// Positions (y, x) in metres, one a row.
    pub positions: Option<Vec<[f64; 2]>>,
    /// Indices whose weights become zero.
    pub clear_weights: Vec<u64>,
    /// Filled gaps among `indices`: nothing was put for them, their weights are zero.
    pub gaps: Vec<u64>,
    /// Gaps of the chunk, filled or not, and why.
    pub reasons: Vec<(IndexRange, String)>,
    /// Numbers of each row, where there are any.
    pub per_frame: Option<PerFrame>,
}

/// A part that is being written; owned by one thread.
#[derive(Debug)]
pub struct PartWriter {
    path: PathBuf,
    file: File,
    data: Dataset,
    weights: Dataset,
    form: PreparedForm,
    first: u64,
    len: u64,
    /// Batches of which at least one frame is there, with their place in rows.
    filled: Vec<bool>,
    /// `None`: no checksums are wanted.
    sums: Option<Sums>,
    /// Batches whose storage chunk the library has written itself: their sums are to be found out.
    rewritten: BTreeSet<(&'static str, usize)>,
    bytes: u64,
}

/// Makes `data` and `weights` of `rows` rows below `place`.
fn make_frames(
    file: &Path,
    place: &Group,
    form: &PreparedForm,
    rows: usize,
) -> Result<(Dataset, Dataset), PtydError> {
    let batch = form.batch as usize;
    let make = |name: &'static str, dtype, of: [usize; 2], filters: &[_]| {
        let chunk = [batch, of[0], of[1]];
        let layout = Layout::Chunked { chunk: &chunk, filters };
        let made = raw::create_dataset(place, name, dtype, &[rows, of[0], of[1]], layout)
            .and_then(|d| set_type(&d, "array").map(|()| d));
        made.map_err(PtydError::hdf5(file, "create", name))
    };
    Ok((
        make("data", form.data, form.shape, &form.data_filters)?,
        make("weights", form.weights, form.weights_shape, &form.weights_filters)?,
    ))
}

impl PartWriter {
    /// Creates the file for the indices `first..first + len`, with or without checksums.
    ///
    /// # Errors
    /// [`PtydError::Hdf5`] if the file cannot be created.
    pub fn create(
        path: &Path,
        form: &PreparedForm,
        first: u64,
        len: u64,
        checksums: bool,
    ) -> Result<Self, PtydError> {
        let file = write::create_file(path).map_err(PtydError::hdf5(path, "create", "/"))?;
        let (data, weights) = make_frames(path, &file, form, len as usize)?;
        let batches = len.div_ceil(u64::from(form.batch)) as usize;
        Ok(Self {
            path: path.to_owned(),
            file,
            data,
            weights,
            form: form.clone(),
            first,
            len,
            filled: vec![false; batches],
            sums: checksums.then(|| Sums::new(batches)),
            rewritten: BTreeSet::new(),
            bytes: 0,
        })
    }

    /// Returns the file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn row(&self, index: u64) -> Result<usize, PtydError> {
        if (self.first..self.first + self.len).contains(&index) {
            return Ok((index - self.first) as usize);
        }
        let end = self.first + self.len;
        let text = format!("does not lie in this chunk of {}..{end}", self.first);
        Err(PtydError::content(&self.path, format!("index {index}"), text))
    }

    /// Stores frames of one batch: a storage chunk each, as the worker encoded it.
    ///
    /// A range that is only a piece of a batch (its other frames failed) has its frames in the
    /// first rows of the storage chunk; it is decoded and put where it belongs.
    ///
    /// `said`: the worker's checksums of data and weights.
    /// # Errors
    /// [`PtydError`] if the range does not lie in one batch of this chunk, weights are missing,
    /// or the file cannot be written.
    pub fn put(
        &mut self,
        range: IndexRange,
        data: &[u8],
        weights: Option<&[u8]>,
        said: Option<&[u32]>,
    ) -> Result<(), PtydError> {
        let batch = self.form.batch as usize;
        let row = self.row(range.first.0)?;
        let last = self.row(range.end().max(1) - 1)?;
        if range.count == 0 || row / batch != last / batch {
            let text = format!("do not lie in one batch of {batch}");
            return Err(PtydError::content(&self.path, format!("frames {range}"), text));
        }
        let said = |part: usize| said.and_then(|all| all.get(part)).copied();
        self.put_one("data", row, range.count as usize, data, said(0))?;
        match weights {
            Some(blob) => self.put_one("weights", row, range.count as usize, blob, said(1))?,
            None if self.form.common_weights => {}
            None => {
                let text = "came without weights, though weights are the frames' own";
                return Err(PtydError::content(&self.path, format!("frames {range}"), text));
            }
        }
        self.filled[row / batch] = true;
        Ok(())
    }

    fn put_one(
        &mut self,
        name: &'static str,
        row: usize,
        count: usize,
        blob: &[u8],
        said: Option<u32>,
    ) -> Result<(), PtydError> {
        let batch = self.form.batch as usize;
        let whole =
            row.is_multiple_of(batch) && (count == batch || row + count == self.len as usize);
        let done = if whole {
            let dataset = self.dataset(name);
            raw::write_chunk(dataset, &[row, 0, 0], 0, blob)
        } else {
            self.decode(name, blob, count).and_then(|rows| {
                let dtype = self.dtype(name);
                raw::write_rows(self.dataset(name), dtype, row, &rows)
            })
        };
        done.map_err(PtydError::hdf5(&self.path, "write", name))?;
        self.bytes += blob.len() as u64;
        match (&mut self.sums, whole) {
            (None, _) => {}
            (Some(sums), true) => {
                let sum = said.unwrap_or_else(|| checksum::sum(blob));
                sums.of_mut(name)[row / batch] = sum;
                self.rewritten.remove(&(name, row / batch));
            }
            (Some(_), false) => {
                self.rewritten.insert((name, row / batch));
            }
        }
        Ok(())
    }

    fn dataset(&self, name: &str) -> &Dataset {
        if name == "data" { &self.data } else { &self.weights }
    }

    fn dtype(&self, name: &str) -> Dtype {
        if name == "data" { self.form.data } else { self.form.weights }
    }

    /// Decodes the first rows of a storage chunk by way of a file in memory.
    fn decode(&self, name: &str, blob: &[u8], rows: usize) -> hdf5::Result<Vec<u8>> {
        let (of, filters) = match name {
            "data" => (self.form.shape, &self.form.data_filters),
            _ => (self.form.weights_shape, &self.form.weights_filters),
        };
        let extent = [self.form.batch as usize, of[0], of[1]];
        let scratch = write::memory_file()?;
        let layout = Layout::Chunked { chunk: &extent, filters };
        let dataset = raw::create_dataset(&scratch, name, self.dtype(name), &extent, layout)?;
        raw::write_chunk(&dataset, &[0, 0, 0], 0, blob)?;
        raw::read_rows(&dataset, self.dtype(name), 0, rows)
    }

    /// Completes and closes the file.
    ///
    /// `common`: the storage chunk of the weights that all frames share.
    /// # Errors
    /// [`PtydError`] if `closing` does not fit what was put, or the file cannot be written.
    pub fn close(
        mut self,
        identity: &Identity,
        chunk: u64,
        closing: &Closing,
        common: Option<&[u8]>,
        positions: Option<Dtype>,
    ) -> Result<(PartHead, u64), PtydError> {
        if self.form.common_weights {
            self.repeat_weights(common)?;
        }
        self.clear(closing)?;
        if closing.indices.len() as u64 != self.len {
            self.compact(&closing.indices)?;
        }
        let path = self.path.clone();
        self.sum_up()?;
        write_scan_points(&path, &self.file, closing, positions)?;
        let rows = closing.indices.len() as u64;
        let head = PartHead {
            identity: identity.clone(),
            chunk,
            // Less than was provided for where the scan has ended inside the chunk.
            span: ChunkSpan { first: self.first, count: covered(self.first, closing), rows },
            gaps: closing.reasons.clone(),
            checksums: self.sums.take(),
            per_frame: closing.per_frame.clone(),
        };
        stamp_root(&self.file)
            .and_then(|()| head.write(&self.file))
            .map_err(PtydError::hdf5(&path, "write", "/"))?;
        let Self { file, data, weights, bytes, .. } = self;
        drop((data, weights));
        file.close().map_err(PtydError::hdf5(&path, "close", "/"))?;
        Ok((head, bytes))
    }

    fn repeat_weights(&mut self, common: Option<&[u8]>) -> Result<(), PtydError> {
        if !self.filled.contains(&true) {
            return Ok(());
        }
        let Some(blob) = common else {
            let text = "are missing: they are common to all frames, and no worker has sent them";
            return Err(PtydError::content(&self.path, "weights", text));
        };
        let sum = self.sums.is_some().then(|| checksum::sum(blob));
        for (i, _) in self.filled.iter().enumerate().filter(|&(_, &filled)| filled) {
            let row = i * self.form.batch as usize;
            raw::write_chunk(&self.weights, &[row, 0, 0], 0, blob)
                .map_err(PtydError::hdf5(&self.path, "write", "weights"))?;
            self.bytes += blob.len() as u64;
            if let (Some(sums), Some(sum)) = (&mut self.sums, sum) {
                sums.weights[i] = sum;
            }
        }
        Ok(())
    }

    /// Finds out the sums of what the library has written itself.
    fn sum_up(&mut self) -> Result<(), PtydError> {
        let batch = self.form.batch as usize;
        for (name, n) in std::mem::take(&mut self.rewritten) {
            let sum = sums::stored(self.dataset(name), n * batch)
                .map_err(PtydError::hdf5(&self.path, "read", name))?;
            if let Some(sums) = &mut self.sums {
                sums.of_mut(name)[n] = sum;
            }
        }
        Ok(())
    }

    /// Zeroes the weights of gaps and of frames that are to lose them.
    fn clear(&mut self, closing: &Closing) -> Result<(), PtydError> {
        let [h, w] = self.form.weights_shape;
        let zeros = vec![0u8; h * w * self.form.weights.size()];
        let batch = self.form.batch as usize;
        for &index in closing.gaps.iter().chain(&closing.clear_weights) {
            let row = self.row(index)?;
            if self.filled[row / batch] {
                raw::write_rows(&self.weights, self.form.weights, row, &zeros)
                    .map_err(PtydError::hdf5(&self.path, "clear", "weights"))?;
                if self.sums.is_some() {
                    self.rewritten.insert(("weights", row / batch));
                }
            }
        }
        Ok(())
    }
}

/// Counts the indices from `first` on that have a row or are a gap: all up to the last of either.
fn covered(first: u64, closing: &Closing) -> u64 {
    let rows = closing.indices.iter().map(|i| i + 1);
    let gaps = closing.reasons.iter().map(|(range, _)| range.end());
    rows.chain(gaps).max().map_or(0, |end| end.saturating_sub(first))
}

/// Writes `positions` and `indices` of a chunk below `place`.
pub(crate) fn write_scan_points(
    file: &Path,
    place: &Group,
    closing: &Closing,
    dtype: Option<Dtype>,
) -> Result<(), PtydError> {
    let rows = closing.indices.len();
    let indices: Vec<u8> = closing.indices.iter().flat_map(|&i| (i as i64).to_le_bytes()).collect();
    write::write_array(place, "indices", Dtype::I64, &[rows], &indices)
        .and_then(|d| set_type(&d, "arraylist"))
        .map_err(PtydError::hdf5(file, "write", "indices"))?;
    let Some(dtype) = dtype else {
        // What ptypy stores where there are no positions: a list of None.
        let nothing = crate::value::Value::List(vec![crate::value::Value::None; rows]);
        return super::encode::write_value(place, "positions", &nothing).map_err(PtydError::hdf5(
            file,
            "write",
            "positions",
        ));
    };
    let positions = closing.positions.as_deref().unwrap_or_default();
    if positions.len() != rows {
        let text = format!("are {}, frames are {rows}", positions.len());
        return Err(PtydError::content(file, "positions", text));
    }
    let items: Vec<f64> = positions.iter().flatten().copied().collect();
    write::write_array(place, "positions", dtype, &[rows, 2], &bytes_of(dtype, &items))
        .and_then(|d| set_type(&d, "array"))
        .map_err(PtydError::hdf5(file, "write", "positions"))
}

/// Reads a part's head; `None` if the file is missing, unreadable, or no part of ours.
pub fn read_head(path: &Path) -> Option<PartHead> {
    let file = File::open(path).ok()?;
    PartHead::read(&file)
}

/// Tells whether a file is part `chunk` of the run, whole, and of the scan's form.
///
/// The library itself refuses a file that is shorter than what is allocated in it; what is looked
/// at here is that data and weights of each batch that is no gap are allocated at all.
pub fn is_whole(path: &Path, run_id: u64, chunk: u64, form: &PreparedForm) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let Some(head) = PartHead::read(&file) else { return false };
    let rows = head.span.rows as usize;
    let is = |name: &str, dtype: Dtype, shape: &[usize]| {
        file.dataset(name).is_ok_and(|d| d.shape() == shape && raw::dtype_of(&d) == Some(dtype))
    };
    let ([h, w], [m, n]) = (form.shape, form.weights_shape);
    head.identity.run_id == run_id
        && head.chunk == chunk
        && is("data", form.data, &[rows, h, w])
        && is("weights", form.weights, &[rows, m, n])
        && is("indices", Dtype::I64, &[rows])
        && file.link_exists("positions")
        && has_frames(&file, &head, form).unwrap_or(false)
}

/// Tells whether storage is allocated for each batch of rows but those of gaps.
fn has_frames(file: &File, head: &PartHead, form: &PreparedForm) -> hdf5::Result<bool> {
    let indices = raw::read_all(&file.dataset("indices")?, Dtype::I64)?;
    let item = |b: &[u8]| <i64 as crate::dtype::Pixel>::from_le(b) as u64;
    let indices: Vec<u64> = indices.chunks_exact(8).map(item).collect();
    let is_gap = |i: &u64| head.gaps.iter().any(|(gap, _)| (gap.first.0..gap.end()).contains(i));
    let (data, weights) = (file.dataset("data")?, file.dataset("weights")?);
    let batch = form.batch.max(1) as usize;
    for (n, rows) in indices.chunks(batch).enumerate() {
        let at = [n * batch, 0, 0];
        let there = raw::is_allocated(&data, &at)? && raw::is_allocated(&weights, &at)?;
        if !there && !rows.iter().all(is_gap) {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn form(batch: u32, common: bool) -> PreparedForm {
        PreparedForm {
            data: Dtype::U8,
            weights: Dtype::Bool,
            shape: [1, 2],
            weights_shape: [1, 2],
            batch,
            data_filters: vec![],
            weights_filters: vec![],
            common_weights: common,
        }
    }

    fn closing(indices: &[u64], gaps: &[u64], clear: &[u64]) -> Closing {
        Closing {
            indices: indices.to_vec(),
            positions: Some(indices.iter().map(|&i| [i as f64, 0.0]).collect()),
            clear_weights: clear.to_vec(),
            gaps: gaps.to_vec(),
            reasons: gaps.iter().map(|&i| (IndexRange::new(i, 1), "lost".to_owned())).collect(),
            per_frame: None,
        }
    }

    /// Reads data and weights, whose sums must be those in the head.
    fn read(path: &Path) -> (Vec<u8>, Vec<u8>) {
        let file = File::open(path).unwrap();
        let sums = PartHead::read(&file).unwrap().checksums.unwrap();
        for name in ["data", "weights"] {
            let there = sums::all_stored(&file.dataset(name).unwrap()).unwrap();
            assert_eq!(there, sums.of(name), "{name}");
        }
        let all = |n: &str, t| raw::read_all(&file.dataset(n).unwrap(), t).unwrap();
        (all("data", Dtype::U8), all("weights", Dtype::Bool))
    }

    #[test]
    fn the_workers_sums_are_kept_as_they_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let mut part = PartWriter::create(&path, &form(2, false), 0, 4, true).unwrap();
        part.put(IndexRange::new(0, 2), &[1, 1, 2, 2], Some(&[1; 4]), Some(&[17, 18])).unwrap();
        part.put(IndexRange::new(2, 2), &[1, 1, 2, 2], Some(&[1; 4]), None).unwrap();
        let closing = closing(&[0, 1, 2, 3], &[], &[]);
        let (head, _) =
            part.close(&Identity::default(), 0, &closing, None, Some(Dtype::F64)).unwrap();
        let sums = head.checksums.unwrap();
        assert_eq!((sums.data[0], sums.weights[0]), (17, 18));
        assert_eq!(sums.data[1], checksum::sum(&[1, 1, 2, 2]));
        assert_eq!(sums.weights[1], checksum::sum(&[1; 4]));
    }

    #[test]
    fn gaps_and_cleared_frames_have_no_weight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let mut part = PartWriter::create(&path, &form(2, true), 10, 5, true).unwrap();
        part.put(IndexRange::new(14, 1), &[5, 5, 0, 0], None, None).unwrap();
        // One frame of a batch alone stands in the first row of its storage chunk.
        part.put(IndexRange::new(11, 1), &[2, 2, 0, 0], None, None).unwrap();
        let closing = closing(&[10, 11, 12, 13, 14], &[10, 12, 13], &[14]);
        let common = [1u8, 1, 1, 1];
        part.close(&Identity::default(), 2, &closing, Some(&common), Some(Dtype::F64)).unwrap();
        let (data, weights) = read(&path);
        assert_eq!(data, [0, 0, 2, 2, 0, 0, 0, 0, 5, 5]);
        assert_eq!(weights, [0, 0, 1, 1, 0, 0, 0, 0, 0, 0]);
        assert!(is_whole(&path, 0, 2, &form(2, true)));
        assert!(!is_whole(&path, 1, 2, &form(2, true)));
        assert!(!is_whole(&path, 0, 1, &form(2, true)));
    }

    #[test]
    fn skipped_frames_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let mut part = PartWriter::create(&path, &form(2, false), 0, 4, true).unwrap();
        let ones = [1u8, 1, 1, 1];
        part.put(IndexRange::new(0, 1), &[1, 1, 0, 0], Some(&ones), None).unwrap();
        part.put(IndexRange::new(2, 2), &[3, 3, 4, 4], Some(&ones), None).unwrap();
        let (head, _) = part
            .close(&Identity::default(), 0, &closing(&[0, 2, 3], &[], &[]), None, Some(Dtype::F32))
            .unwrap();
        assert_eq!(head.span, ChunkSpan { first: 0, count: 4, rows: 3 });
        assert_eq!(read(&path), (vec![1, 1, 3, 3, 4, 4], vec![1; 6]));
    }

    #[test]
    fn a_scan_that_ends_inside_a_chunk_covers_no_more_than_came() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let mut part = PartWriter::create(&path, &form(2, false), 4, 4, true).unwrap();
        part.put(IndexRange::new(4, 2), &[1, 1, 2, 2], Some(&[1; 4]), None).unwrap();
        let (head, _) = part
            .close(&Identity::default(), 1, &closing(&[4, 5], &[], &[]), None, Some(Dtype::F32))
            .unwrap();
        assert_eq!(head.span, ChunkSpan { first: 4, count: 2, rows: 2 });
        assert!(is_whole(&path, 0, 1, &form(2, false)));
    }

    #[test]
    fn a_part_of_which_frames_are_not_there_is_not_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        let mut part = PartWriter::create(&path, &form(2, false), 0, 4, true).unwrap();
        part.put(IndexRange::new(0, 2), &[1, 1, 2, 2], Some(&[1; 4]), None).unwrap();
        let closing = closing(&[0, 1, 2, 3], &[], &[]);
        part.close(&Identity::default(), 0, &closing, None, Some(Dtype::F32)).unwrap();
        assert!(!is_whole(&path, 0, 0, &form(2, false)));
    }

    #[test]
    fn frames_of_another_chunk_or_of_two_batches_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut part =
            PartWriter::create(&folder.path().join("p"), &form(2, true), 4, 4, true).unwrap();
        for (first, count) in [(3, 1), (5, 2), (8, 1)] {
            let put = part.put(IndexRange::new(first, count), &[0; 4], None, None);
            assert!(matches!(put, Err(PtydError::Content { .. })), "{first} {count}");
        }
    }
}
