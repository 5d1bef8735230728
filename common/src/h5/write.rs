//! Writes of HDF5 files: what h5py would write for texts, attributes and small arrays.

use crate::codec::{self, Filter};
use crate::dtype::Dtype;
use crate::h5::raw::{self, Layout};
use hdf5::types::{TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{Dataset, File, Group, Location, Result};
use std::borrow::Cow;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Largest chunk of a small array, in bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Compression of a small array: what ptypy takes for all it stores.
const ARRAY_FILTERS: &[Filter] = &[Filter::Deflate(4)];

/// Creates a file of the earliest format that holds what is in it; truncates an old one.
///
/// # Errors
/// The library's.
pub fn create_file(path: &Path) -> Result<File> {
    File::with_options().create(path)
}

/// Makes a file in memory that is never stored.
///
/// # Errors
/// The library's.
pub fn memory_file() -> Result<File> {
    // The library takes two files of one name for the same one, in memory too.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("memory-{}.h5", COUNT.fetch_add(1, Ordering::Relaxed));
    File::with_options().with_fapl(|p| p.core_filebacked(false)).create(name)
}

fn text(value: &str) -> Result<VarLenUnicode> {
    // A zero byte would end the text early in every reader.
    VarLenUnicode::from_str(&value.replace('\0', " "))
        .map_err(|e| hdf5::Error::from(format!("text {value:?} cannot be stored: {e}")))
}

/// Sets a text attribute (scalar, variable-length UTF-8).
///
/// # Errors
/// The library's.
pub fn set_attr(place: &Location, name: &str, value: &str) -> Result<()> {
    if place.attr(name).is_ok() {
        place.delete_attr(name)?;
    }
    place.new_attr::<VarLenUnicode>().create(name)?.write_scalar(&text(value)?)
}

/// Reads a text attribute; `None` if it is not there or no text.
pub fn text_attr(place: &Location, name: &str) -> Option<String> {
    if !place.attr_names().ok()?.iter().any(|n| n == name) {
        return None;
    }
    let attr = place.attr(name).ok()?;
    match attr.dtype().ok()?.to_descriptor().ok()? {
        TypeDescriptor::VarLenUnicode => {
            attr.read_scalar::<VarLenUnicode>().ok().map(|v| v.as_str().to_owned())
        }
        TypeDescriptor::VarLenAscii => {
            attr.read_scalar::<VarLenAscii>().ok().map(|v| v.as_str().to_owned())
        }
        _ => None,
    }
}

/// Stores a text as a 0-d dataset (variable-length UTF-8).
///
/// # Errors
/// The library's.
pub fn write_text(parent: &Group, name: &str, value: &str) -> Result<Dataset> {
    let dataset = parent.new_dataset::<VarLenUnicode>().create(name)?;
    dataset.write_scalar(&text(value)?)?;
    Ok(dataset)
}

/// Stores texts as a 1-d dataset (variable-length UTF-8).
///
/// # Errors
/// The library's.
pub fn write_texts<S: AsRef<str>>(parent: &Group, name: &str, values: &[S]) -> Result<Dataset> {
    let values = values.iter().map(|v| text(v.as_ref())).collect::<Result<Vec<_>>>()?;
    let dataset = parent.new_dataset::<VarLenUnicode>().shape(values.len()).create(name)?;
    if !values.is_empty() {
        dataset.write_raw(&values)?;
    }
    Ok(dataset)
}

/// Reads a dataset of one text, whatever its kind.
///
/// # Errors
/// The library's, and a dataset that is no text.
pub fn read_text(dataset: &Dataset) -> Result<String> {
    Ok(match dataset.dtype()?.to_descriptor()? {
        TypeDescriptor::VarLenUnicode => {
            first(dataset.read_raw::<VarLenUnicode>()?.iter().map(|t| t.as_str()))
        }
        TypeDescriptor::VarLenAscii => {
            first(dataset.read_raw::<VarLenAscii>()?.iter().map(|t| t.as_str()))
        }
        TypeDescriptor::FixedAscii(_) | TypeDescriptor::FixedUnicode(_) => {
            raw::read_fixed_text(dataset)?
        }
        other => return Err(format!("is {other}, not a text").into()),
    })
}

fn first<'a>(mut texts: impl Iterator<Item = &'a str>) -> String {
    texts.next().unwrap_or_default().to_owned()
}

/// Reads a 1-d dataset of texts.
///
/// # Errors
/// The library's.
pub fn read_texts(dataset: &Dataset) -> Result<Vec<String>> {
    if dataset.size() == 0 {
        return Ok(Vec::new());
    }
    Ok(dataset.read_raw::<VarLenUnicode>()?.iter().map(|t| t.as_str().to_owned()).collect())
}

/// Stores a scalar as a 0-d dataset; `bytes` holds one little-endian item.
///
/// # Errors
/// The library's.
pub fn write_scalar(parent: &Group, name: &str, dtype: Dtype, bytes: &[u8]) -> Result<Dataset> {
    let dataset = raw::create_dataset(parent, name, dtype, &[], Layout::Plain)?;
    raw::write_all(&dataset, dtype, bytes)?;
    Ok(dataset)
}

/// Stores an array with gzip 4, in chunks of at most 1 MiB; an empty one plainly.
///
/// # Errors
/// The library's.
pub fn write_array(
    parent: &Group,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
    bytes: &[u8],
) -> Result<Dataset> {
    if shape.iter().product::<usize>() == 0 {
        return raw::create_dataset(parent, name, dtype, shape, Layout::Plain);
    }
    let row = shape.iter().skip(1).product::<usize>() * dtype.size();
    let mut chunk = shape.to_vec();
    chunk[0] = (CHUNK_BYTES / row.max(1)).clamp(1, shape[0]);
    let layout = Layout::Chunked { chunk: &chunk, filters: ARRAY_FILTERS };
    let dataset = raw::create_dataset(parent, name, dtype, shape, layout)?;
    if bytes.len() != shape[0] * row {
        return Err(format!("{} bytes are not the {shape:?} of {dtype}", bytes.len()).into());
    }
    // The library would set up its encoder, a quarter of a megabyte, anew for each array; a
    // master has dozens of them and is written several times a second.
    let mut at = vec![0; shape.len()];
    let mut encoded = Vec::new();
    for rows in bytes.chunks((chunk[0] * row).max(1)) {
        let mut rows = Cow::Borrowed(rows);
        if rows.len() < chunk[0] * row {
            rows.to_mut().resize(chunk[0] * row, 0);
        }
        codec::encode(ARRAY_FILTERS, &rows, &mut encoded)
            .map_err(|e| hdf5::Error::from(e.to_string()))?;
        raw::write_chunk(&dataset, &at, 0, &encoded)?;
        at[0] += chunk[0];
    }
    Ok(dataset)
}

/// Copies rows of one dataset into another of the same frame form: chunks as they are stored where
/// both sides begin on a chunk, decoded and encoded again where they do not.
///
/// # Errors
/// The library's; among them a filter that it does not have, where rows must be decoded.
pub fn copy_rows(
    from: &Dataset,
    from_row: usize,
    count: usize,
    to: &Dataset,
    to_row: usize,
    dtype: Dtype,
) -> Result<()> {
    let (source, target) = (raw::chunk_extent(from), raw::chunk_extent(to));
    let batch = target.as_ref().map_or(1, |c| c[0]).max(1);
    let whole = |row: usize, n: usize, all: usize| n == batch || row + n == all;
    let aligned = source == target
        && source.is_some()
        && from_row.is_multiple_of(batch)
        && to_row.is_multiple_of(batch);
    let (from_all, to_all) = (from.shape()[0], to.shape()[0]);
    let mut done = 0;
    while done < count {
        let n = (count - done).min(batch);
        let (a, b) = (from_row + done, to_row + done);
        // The last chunk may be partly filled on both sides only if nothing else shares it.
        if aligned && whole(a, n, from_all) && (n == batch || b + n == to_all) {
            let mut offset = vec![0; from.ndim()];
            offset[0] = a;
            if let Some((mask, bytes)) = raw::read_chunk(from, &offset)? {
                offset[0] = b;
                raw::write_chunk(to, &offset, mask, &bytes)?;
            }
        } else {
            let rows = raw::read_rows(from, dtype, a, n)?;
            raw::write_rows(to, dtype, b, &rows)?;
        }
        done += n;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_copied_whether_or_not_chunks_meet() {
        let file = memory_file().unwrap();
        let layout = Layout::Chunked { chunk: &[3, 2], filters: &[Filter::Deflate(1)] };
        let from = raw::create_dataset(&file, "a", Dtype::U8, &[8, 2], layout).unwrap();
        let all: Vec<u8> = (0..16).collect();
        raw::write_all(&from, Dtype::U8, &all).unwrap();
        for (start, count, at) in [(0, 8, 0), (0, 8, 1), (1, 5, 3), (3, 5, 6), (6, 2, 0)] {
            let name = format!("b{start}{count}{at}");
            let to = raw::create_dataset(&file, &name, Dtype::U8, &[11, 2], layout).unwrap();
            copy_rows(&from, start, count, &to, at, Dtype::U8).unwrap();
            let mut expected = vec![0u8; 22];
            expected[2 * at..2 * (at + count)]
                .copy_from_slice(&all[2 * start..2 * (start + count)]);
            assert_eq!(raw::read_all(&to, Dtype::U8).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_chunk_longer_than_its_dataset_is_stored_as_it_is() {
        let file = memory_file().unwrap();
        let layout = Layout::Chunked { chunk: &[4, 2], filters: &[] };
        let data = raw::create_dataset(&file, "a", Dtype::U16, &[3, 2], layout).unwrap();
        raw::write_chunk(&data, &[0, 0], 0, &[1; 16]).unwrap();
        assert_eq!(raw::read_all(&data, Dtype::U16).unwrap(), [1; 12]);
        assert_eq!(raw::read_chunk(&data, &[0, 0]).unwrap(), Some((0, vec![1; 16])));
    }

    #[test]
    fn texts_come_back() {
        let file = memory_file().unwrap();
        write_texts(&file, "t", &["å", "", "b"]).unwrap();
        assert_eq!(read_texts(&file.dataset("t").unwrap()).unwrap(), ["å", "", "b"]);
        set_attr(&file, "type", "dict").unwrap();
        set_attr(&file, "type", "list").unwrap();
        assert_eq!(text_attr(&file, "type").as_deref(), Some("list"));
        assert_eq!(text_attr(&file, "none"), None);
    }
}
