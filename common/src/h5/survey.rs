//! What is in a file of which nothing is known: its datasets, with what can be said at a glance.

use super::read::{H5File, ReadError};
use super::{raw, write};
use crate::dtype::Dtype;
use hdf5::{Dataset, Group, IndexType, IterationOrder, LinkType};
use std::path::Path;

/// Where the search stops: links may form rings.
const DEPTH: usize = 12;
const LIMIT: usize = 5000;
/// Items up to which a dataset's values are read.
const READ: usize = 1 << 20;

/// A dataset.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its key, without a slash in front.
    pub key: String,
    /// Its type, if it is a pixel type.
    pub dtype: Option<Dtype>,
    /// Extent of each axis; none for a scalar.
    pub shape: Vec<usize>,
    /// Its attribute `units`.
    pub units: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// Datasets, in the order of the file.
    pub datasets: Vec<Found>,
    /// Links whose target cannot be opened: key, file where it is another.
    pub dead: Vec<(String, Option<String>)>,
}

/// Lists the datasets of a file, links followed.
///
/// # Errors
/// [`ReadError`] if the file is missing, unreadable, no HDF5 file, or damaged.
pub fn survey(path: &Path) -> Result<Survey, ReadError> {
    // The reader's errors say more than the library's.
    H5File::open(path)?;
    let mut found = Survey::default();
    if let Ok(file) = hdf5::File::open(path) {
        walk(&file, "", 0, &mut found);
    }
    Ok(found)
}

fn walk(group: &Group, prefix: &str, depth: usize, found: &mut Survey) {
    let mut names: Vec<(String, bool)> = Vec::new();
    let visited = group.iter_visit(IndexType::Name, IterationOrder::Increasing, |name, info| {
        names.push((name.to_owned(), info.link_type == LinkType::External));
        Ok(())
    });
    if visited.is_err() {
        return;
    }
    for (name, external) in names {
        if found.datasets.len() + found.dead.len() >= LIMIT {
            return;
        }
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        if let Ok(inner) = group.group(&name) {
            if depth < DEPTH {
                walk(&inner, &key, depth + 1, found);
            }
        } else if let Ok(dataset) = group.dataset(&name) {
            found.datasets.push(Found {
                key,
                dtype: raw::dtype_of(&dataset),
                shape: dataset.shape(),
                units: units(&dataset),
            });
        } else {
            let file = external.then(|| raw::external_target(group, &name).ok()).flatten();
            found.dead.push((key, file.map(|(file, _)| file)));
        }
    }
}

fn units(dataset: &Dataset) -> Option<String> {
    write::text_attr(dataset, "units").or_else(|| {
        let attr = dataset.attr("units").ok()?;
        // Fixed-length text, as other programs write it.
        let text: Vec<hdf5::types::FixedAscii<32>> = attr.read_raw().ok()?;
        text.first().map(|t| t.as_str().to_owned())
    })
}

/// Reads the values of a dataset as `f64`, if it is not too large; `None` if it cannot be read.
pub fn values(path: &Path, key: &str) -> Option<Vec<f64>> {
    let dataset = H5File::open(path).ok()?.dataset(key).ok()?;
    let items: usize = dataset.shape().iter().product();
    (items <= READ).then(|| dataset.read().ok().map(|array| array.to_f64())).flatten()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn datasets_links_and_units_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let file = write::create_file(&path).unwrap();
        let group = file.create_group("entry").unwrap();
        let x = write::write_array(&group, "x", Dtype::F64, &[2], &[0; 16]).unwrap();
        write::set_attr(&x, "units", "mm").unwrap();
        group.link_soft("/entry/x", "alias").unwrap();
        group.link_soft("/entry", "ring").unwrap();
        group.link_external("gone.h5", "/data", "far").unwrap();
        write::write_text(&group, "title", "a scan").unwrap();
        drop((x, group));
        file.close().unwrap();
        let found = survey(&path).unwrap();
        let by = |key: &str| found.datasets.iter().find(|f| f.key == key);
        assert_eq!(by("entry/x").unwrap().units.as_deref(), Some("mm"));
        assert_eq!(by("entry/alias").unwrap().shape, [2]);
        assert_eq!(by("entry/title").unwrap().dtype, None);
        assert!(found.dead.contains(&("entry/far".to_owned(), Some("gone.h5".to_owned()))));
        assert_eq!(values(&path, "entry/x"), Some(vec![0.0, 0.0]));
        assert!(matches!(survey(&folder.path().join("b.h5")), Err(ReadError::Missing { .. })));
    }
}
