//! Parts that get fewer rows than they were made for: cut off where a chunk closes before it is full, or written
//! anew without the rows of gaps.

use super::{PartWriter, make_frames};
use crate::h5::{raw, write};
use crate::ptyd::PtydError;
use crate::ptyd::sums::Sums;
use std::path::{Path, PathBuf};

impl PartWriter {
    /// Tells whether index `at` begins a batch inside the file: there it can be cut off.
    pub fn can_end_at(&self, at: u64) -> bool {
        (self.first + 1..self.first + self.len).contains(&at)
            && (at - self.first).is_multiple_of(u64::from(self.form.batch))
    }

    /// Cuts the file off before index `at`, the first one of a batch; what was put for indices from there
    /// on moves to a new file.
    ///
    /// Returns the new one, if anything was put for it.
    /// # Errors
    /// [`PtydError`] if it cannot be cut there, or a file cannot be written.
    pub fn split_off(&mut self, at: u64, path: &Path) -> Result<Option<Self>, PtydError> {
        if !self.can_end_at(at) {
            let text = format!("begins no batch behind {}", self.first);
            return Err(PtydError::content(&self.path, format!("index {at}"), text));
        }
        let rows = self.row(at)?;
        let kept = rows / self.form.batch as usize;
        let filled = self.filled.split_off(kept);
        let moved: Vec<usize> = (0..filled.len()).filter(|&n| filled[n]).collect();
        let mut rest = None;
        if !moved.is_empty() {
            let checksums = self.sums.is_some();
            let mut new = Self::create(path, &self.form, at, self.len - rows as u64, checksums)?;
            for n in moved {
                self.move_batch(&mut new, kept + n, n)?;
            }
            rest = Some(new);
        }
        for (name, [h, w]) in [("data", self.form.shape), ("weights", self.form.weights_shape)] {
            let cut = self.dataset(name).resize([rows, h, w]);
            cut.map_err(PtydError::hdf5(&self.path, "cut", name))?;
            if let Some(sums) = &mut self.sums {
                sums.of_mut(name).truncate(kept);
            }
        }
        self.rewritten.retain(|(_, n)| *n < kept);
        self.len = rows as u64;
        Ok(rest)
    }

    /// Copies batch `from` into another file as its batch `to`, as it is stored.
    fn move_batch(&mut self, new: &mut Self, from: usize, to: usize) -> Result<(), PtydError> {
        let batch = self.form.batch as usize;
        let names: &[&'static str] =
            if self.form.common_weights { &["data"] } else { &["data", "weights"] };
        for &name in names {
            let stored = raw::read_chunk(self.dataset(name), &[from * batch, 0, 0])
                .map_err(PtydError::hdf5(&self.path, "read", name))?;
            let Some((mask, blob)) = stored else { continue };
            raw::write_chunk(new.dataset(name), &[to * batch, 0, 0], mask, &blob)
                .map_err(PtydError::hdf5(&new.path, "write", name))?;
            self.bytes -= blob.len() as u64;
            new.bytes += blob.len() as u64;
            if let (Some(old), Some(sums)) = (&mut self.sums, &mut new.sums) {
                sums.of_mut(name)[to] = old.of_mut(name)[from];
            }
            if self.rewritten.contains(&(name, from)) {
                new.rewritten.insert((name, to));
            }
        }
        new.filled[to] = true;
        Ok(())
    }

    /// Leaves out the rows of indices that are not in `kept`, by writing the file anew.
    pub(super) fn compact(&mut self, kept: &[u64]) -> Result<(), PtydError> {
        let rows = kept.iter().map(|&i| self.row(i)).collect::<Result<Vec<_>, _>>()?;
        let mut name = self.path.clone().into_os_string();
        name.push(".compact");
        let path = PathBuf::from(name);
        let file = write::create_file(&path).map_err(PtydError::hdf5(&path, "create", "/"))?;
        let (data, weights) = make_frames(&path, &file, &self.form, rows.len())?;
        let mut at = 0;
        while at < rows.len() {
            let run =
                (at + 1..rows.len()).take_while(|&j| rows[j] == rows[at] + (j - at)).count() + 1;
            for (from, to, dtype) in
                [(&self.data, &data, self.form.data), (&self.weights, &weights, self.form.weights)]
            {
                write::copy_rows(from, rows[at], run, to, at, dtype).map_err(PtydError::hdf5(
                    &path,
                    "copy rows of",
                    "data and weights",
                ))?;
            }
            at += run;
        }
        self.data = data;
        self.weights = weights;
        if self.sums.is_some() {
            let batches = rows.len().div_ceil(self.form.batch as usize);
            self.sums = Some(Sums::new(batches));
            self.rewritten = (0..batches).flat_map(|n| [("data", n), ("weights", n)]).collect();
        }
        let old = std::mem::replace(&mut self.file, file);
        old.close().map_err(PtydError::hdf5(&self.path, "close", "/"))?;
        let moved = std::fs::rename(&path, &self.path);
        moved.map_err(|e| {
            PtydError::content(
                &self.path,
                "/",
                format!("cannot be replaced by its compact form: {e}"),
            )
        })
    }
}
