//! Frames of one dataset, or of several that follow each other: files split over many.
//!
//! `entry/data/data_*` names all datasets of the group whose names begin so, in the order of the
//! numbers in their names. Detectors that write so many frames a file link them from a master.

use super::frames::Frames;
use ptystream_common::frame::{Array, FrameForm, RawFrame, Region};
use ptystream_common::h5::read::H5Dataset;
use ptystream_common::index::Index;
use ptystream_common::source::SourceError;
use std::path::PathBuf;

/// Datasets of frames, one after the other.
pub(in crate::source) struct Stack {
    parts: Vec<Frames>,
    /// The index after the last frame of each part.
    ends: Vec<u64>,
}

impl Stack {
    /// Takes one dataset, 3-D or 4-D, or several 3-D ones of the same frames; with `outer`, that part of
    /// datasets that have an outer axis before.
    ///
    /// # Errors
    /// [`SourceError::Input`] naming the dataset that does not fit, as [`Frames::open`] and where
    /// frames of several are not alike.
    pub fn open(
        datasets: Vec<H5Dataset>,
        parameter: &'static str,
        outer: Option<usize>,
    ) -> Result<Self, SourceError> {
        let several = datasets.len() > 1;
        let mut parts: Vec<Frames> = Vec::with_capacity(datasets.len());
        let mut ends = Vec::with_capacity(datasets.len());
        let mut end = 0;
        for dataset in datasets {
            let part = Frames::open(dataset, parameter, outer)?;
            let fail = |text: String| {
                let (key, path) = (part.dataset().key(), part.dataset().path().display());
                SourceError::input(format!("{parameter}: '{key}' in '{path}' {text}"))
            };
            if several && part.lead().len() != 1 {
                let shape = part.dataset().shape();
                return Err(fail(format!(
                    "has shape {shape:?}; one of several is (n, rows, cols)"
                )));
            }
            if let Some(first) = parts.first().filter(|first| first.form() != part.form()) {
                let (a, b) = (first.form(), part.form());
                return Err(fail(format!(
                    "holds frames of {} {:?}, the first of the datasets {} {:?}",
                    b.dtype, b.shape, a.dtype, a.shape
                )));
            }
            end += part.len() as u64;
            parts.push(part);
            ends.push(end);
        }
        Ok(Self { parts, ends })
    }

    /// Makes one without frames, to stand in for another for a moment.
    pub fn none() -> Self {
        Self { parts: Vec::new(), ends: Vec::new() }
    }

    /// Returns the first dataset, for what a text says.
    pub fn dataset(&self) -> &H5Dataset {
        self.parts[0].dataset()
    }

    /// Returns type and extent of a frame.
    pub fn form(&self) -> FrameForm {
        self.parts[0].form()
    }

    /// Returns the extents before those of a frame.
    pub fn lead(&self) -> Vec<usize> {
        match &self.parts[..] {
            [one] => one.lead().to_vec(),
            _ => vec![self.len()],
        }
    }

    /// Returns the extents of all frames together.
    pub fn shape(&self) -> Vec<usize> {
        [&self.lead()[..], &self.form().shape[..]].concat()
    }

    /// Returns how many frames there are.
    pub fn len(&self) -> usize {
        self.ends.last().copied().unwrap_or(0) as usize
    }

    /// Returns the files in which the frames lie.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.parts.iter().flat_map(|p| p.dataset().files()).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Has [`Self::load`] read no more than `region`, where that is less to read.
    pub fn narrow(&mut self, region: Region) {
        self.parts.iter_mut().for_each(|part| part.narrow(region));
    }

    /// Reads the `nth` frame, scan point `index`, as it is stored where a worker can decode it.
    ///
    /// # Errors
    /// [`SourceError::Frame`].
    pub fn load(&mut self, nth: u64, index: Index) -> Result<RawFrame, SourceError> {
        let (part, nth) = self.place(nth);
        self.parts[part].load(nth, index)
    }

    /// Tells whether all frames are stored; `None` if the datasets do not show it.
    pub fn is_stored(&self) -> Option<bool> {
        self.parts.iter().map(Frames::is_stored).try_fold(true, |all, part| Some(all && part?))
    }

    /// Reads the `nth` frame, scan point `index`, decoded by the library.
    ///
    /// # Errors
    /// [`SourceError::Frame`].
    pub fn decoded(&mut self, nth: u64, index: Index) -> Result<Array, SourceError> {
        let (part, nth) = self.place(nth);
        self.parts[part].decoded(nth, index)
    }

    /// Returns the part of a frame and its place there; one beyond the end is the last part's to
    /// complain about.
    fn place(&self, nth: u64) -> (usize, u64) {
        let part = self.ends.partition_point(|&end| end <= nth).min(self.parts.len() - 1);
        let start = if part == 0 { 0 } else { self.ends[part - 1] };
        (part, nth - start)
    }
}
