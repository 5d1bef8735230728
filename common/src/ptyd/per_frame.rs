//! Numbers that belong to each frame: scalars of its positions' stream, and what alignment is judged by.
//!
//! In a finished file each stands in `/ptystream/per_frame` as a dataset of its name, `float64`, one item a row
//! of the scan, NaN where a row has no frame. A part carries its own in its head.

use crate::dtype::Dtype;
use crate::h5::write;
use crate::ptyd::record::GROUP;
use hdf5::{File, Result};
use serde::{Deserialize, Serialize};

/// Name of the group below `/ptystream`.
pub const PER_FRAME: &str = "per_frame";

/// Numbers by name, row by row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PerFrame {
    /// The names.
    pub names: Vec<String>,
    /// One item a name; empty for a row without a frame. `None` stands for what JSON cannot hold.
    pub rows: Vec<Vec<Option<f64>>>,
}

impl PerFrame {
    /// Makes an empty one.
    pub fn new(names: Vec<String>) -> Self {
        Self { names, rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push(&mut self, values: &[f64]) {
        self.rows.push(values.iter().map(|v| v.is_finite().then_some(*v)).collect());
    }

    /// Adds the rows of a later chunk; `None`: it has `rows` of which nothing is known.
    pub fn append(&mut self, other: Option<&Self>, rows: usize) {
        match other {
            Some(other) if self.names.is_empty() || self.names == other.names => {
                self.names.clone_from(&other.names);
                self.rows.extend(other.rows.iter().cloned());
            }
            _ => self.rows.extend(std::iter::repeat_n(Vec::new(), rows)),
        }
    }

    /// Writes the group into a file that has `/ptystream`.
    ///
    /// # Errors
    /// The library's.
    pub fn write(&self, file: &File) -> Result<()> {
        let group = file.group(GROUP)?.create_group(PER_FRAME)?;
        for (column, name) in self.names.iter().enumerate() {
            let value = |row: &Vec<Option<f64>>| row.get(column).copied().flatten();
            let values = self.rows.iter().map(|row| value(row).unwrap_or(f64::NAN));
            let bytes: Vec<u8> = values.flat_map(f64::to_le_bytes).collect();
            // A slash would make a group.
            let name = name.replace('/', ".");
            write::write_array(&group, &name, Dtype::F64, &[self.rows.len()], &bytes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dtype::Pixel;
    use crate::h5::raw;

    #[test]
    fn chunks_of_which_nothing_is_known_keep_their_rows() {
        let mut chunk = PerFrame::new(vec!["i0".into(), "a/b".into()]);
        chunk.push(&[1.5, f64::NAN]);
        chunk.push(&[]);
        let json = serde_json::to_string(&chunk).unwrap();
        assert_eq!(serde_json::from_str::<PerFrame>(&json).unwrap(), chunk);
        let mut all = PerFrame::default();
        all.append(None, 1);
        all.append(Some(&chunk), 2);
        let file = write::memory_file().unwrap();
        file.create_group(GROUP).unwrap();
        all.write(&file).unwrap();
        let read = |name: &str| {
            let path = format!("{GROUP}/{PER_FRAME}/{name}");
            let bytes = raw::read_all(&file.dataset(&path).unwrap(), Dtype::F64).unwrap();
            bytes.chunks_exact(8).map(f64::from_le).collect::<Vec<_>>()
        };
        let i0 = read("i0");
        assert!(i0.len() == 3 && i0[0].is_nan() && i0[1] == 1.5 && i0[2].is_nan());
        assert!(read("a.b").iter().all(|v| v.is_nan()));
    }
}
