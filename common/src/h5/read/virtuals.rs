//! The check of virtual datasets: a missing source reads as fill values without an error.

use super::{H5File, ReadError};
use std::path::{Path, PathBuf};

/// How deep virtual datasets may stand on others.
const DEPTH: usize = 8;

/// Checks that all sources of a virtual dataset are there.
///
/// # Errors
/// [`ReadError::Virtual`] naming the first source that is not.
///
/// # Source
/// HDF5 reference, `H5Pset_virtual`: names with `%b` stand for a series of unknown length and are
/// not checked; relative names go from the folder of the virtual dataset's file.
pub(super) fn check(
    file: &H5File,
    dataset: &hdf5::Dataset,
    key: &str,
    depth: usize,
) -> Result<(), ReadError> {
    let fail = |missing: String| ReadError::Virtual {
        path: file.path().to_owned(),
        key: key.to_owned(),
        missing,
    };
    if depth > DEPTH {
        return Err(fail(format!("more than {DEPTH} virtual datasets one above the other")));
    }
    let sources = sources(dataset).map_err(|source| ReadError::Items {
        path: file.path().to_owned(),
        key: key.to_owned(),
        source,
    })?;
    let mut opened: Option<(String, H5File)> = None;
    for (name, inner) in sources {
        if name.contains("%b") || inner.contains("%b") {
            continue;
        }
        let source = match &opened {
            Some((known, source)) if *known == name => source.clone(),
            _ if name == "." => file.clone(),
            _ => {
                let path = find(&dataset.filename(), &name)
                    .ok_or_else(|| fail(format!("the file '{name}', which is missing")))?;
                H5File::open(&path)
                    .map_err(|e| fail(format!("the file '{name}', which cannot be read ({e})")))?
            }
        };
        source.dataset_at_depth(&inner, depth + 1).map_err(|e| match e {
            deeper @ ReadError::Virtual { .. } => deeper,
            other => {
                fail(format!("'{inner}' of the file '{name}', which cannot be read ({other})"))
            }
        })?;
        opened = Some((name, source));
    }
    Ok(())
}

/// Returns the source files of a virtual dataset that can be found; none for another dataset.
pub(super) fn files(dataset: &hdf5::Dataset) -> Vec<PathBuf> {
    if dataset.layout() != hdf5::dataset::Layout::Virtual {
        return Vec::new();
    }
    let mut names: Vec<String> =
        sources(dataset).unwrap_or_default().into_iter().map(|(file, _)| file).collect();
    names.dedup();
    names.iter().filter_map(|name| find(&dataset.filename(), name)).collect()
}

/// Returns file and dataset names of the sources, each pair once.
fn sources(dataset: &hdf5::Dataset) -> Result<Vec<(String, String)>, hdf5::Error> {
    let plist = dataset.dcpl()?;
    hdf5::sync::sync(|| {
        let mut count = 0;
        // SAFETY: `plist` is alive, `count` is written by the call, the library's lock is held.
        hdf5::h5check(unsafe { hdf5_sys::h5p::H5Pget_virtual_count(plist.id(), &mut count) })?;
        let mut all: Vec<(String, String)> = Vec::new();
        for i in 0..count {
            let name = |get: unsafe extern "C" fn(i64, usize, *mut i8, usize) -> isize| {
                // SAFETY: a null buffer asks for the length alone.
                let len = unsafe { get(plist.id(), i, std::ptr::null_mut(), 0) };
                let len = usize::try_from(len).map_err(|_| hdf5::Error::from("no name"))?;
                let mut text = vec![0u8; len + 1];
                // SAFETY: `text` has room for `len` bytes and the terminating zero.
                unsafe { get(plist.id(), i, text.as_mut_ptr().cast(), text.len()) };
                text.truncate(len);
                Ok::<_, hdf5::Error>(String::from_utf8_lossy(&text).into_owned())
            };
            let pair = (
                name(hdf5_sys::h5p::H5Pget_virtual_filename)?,
                name(hdf5_sys::h5p::H5Pget_virtual_dsetname)?,
            );
            if all.last() != Some(&pair) {
                all.push(pair);
            }
        }
        all.sort();
        all.dedup();
        Ok(all)
    })
}

/// Finds a source file in the places in which the library looks for it.
fn find(virtual_file: &str, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let folder = Path::new(virtual_file).parent().unwrap_or(Path::new(""));
    let bare = Path::new(name.file_name()?);
    let prefix = std::env::var_os("HDF5_VDS_PREFIX").map(PathBuf::from);
    let mut places = vec![name.to_owned(), folder.join(name), folder.join(bare)];
    places.extend(prefix.map(|p| p.join(name)));
    places.into_iter().find(|p| p.is_file())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn source(path: &Path, key: &str) {
        let file = hdf5::File::create(path).unwrap();
        let dataset = file.new_dataset::<u16>().shape((2, 3)).create(key).unwrap();
        dataset.write_raw(&[7u16; 6]).unwrap();
    }

    fn virtual_of(path: &Path, sources: &[(&str, &str)]) {
        let file = hdf5::File::create(path).unwrap();
        let mut builder = file.new_dataset::<u16>().shape((2 * sources.len(), 3));
        for (i, (name, key)) in sources.iter().enumerate() {
            let target = ndarray::s![2 * i..2 * i + 2, ..];
            let target = hdf5::Selection::try_from(target).unwrap();
            builder = builder.virtual_map(name, key, (2, 3), .., (2 * sources.len(), 3), target);
        }
        builder.create("all").unwrap();
    }

    #[test]
    fn a_missing_source_is_named_instead_of_read_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        source(&at("one.h5"), "data");
        source(&at("two.h5"), "data");
        virtual_of(&at("all.h5"), &[("one.h5", "data"), ("two.h5", "data")]);
        let open = || H5File::open(&at("all.h5")).unwrap().dataset("all");
        let dataset = open().unwrap();
        assert_eq!(dataset.read().unwrap().to_f64(), vec![7.0; 12]);
        assert_eq!(dataset.files(), [at("all.h5"), at("one.h5"), at("two.h5")]);
        drop(dataset);

        source(&at("two.h5"), "other");
        let text = open().unwrap_err().to_string();
        assert!(text.contains("takes from 'data' of the file 'two.h5'"), "{text}");
        assert!(text.contains("it would read as zeros"), "{text}");
        std::fs::remove_file(at("two.h5")).unwrap();
        let text = open().unwrap_err().to_string();
        assert!(
            text.contains("'all' in '") && text.contains("the file 'two.h5', which is missing"),
            "{text}"
        );
        std::fs::write(at("two.h5"), "x").unwrap();
        let text = open().unwrap_err().to_string();
        assert!(text.contains("'two.h5', which cannot be read"), "{text}");

        virtual_of(&at("outer.h5"), &[("all.h5", "all")]);
        let text = H5File::open(&at("outer.h5")).unwrap().dataset("all").unwrap_err().to_string();
        assert!(text.contains("two.h5"), "a virtual dataset on a virtual dataset: {text}");
    }
}
