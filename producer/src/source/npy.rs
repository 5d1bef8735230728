//! Reads of `.npy` files into arrays.
//!
//! C-ordered little-endian files are one read without a copy; Fortran order and big-endian items
//! are converted. What is no plain array of a pixel type is refused.

use super::piece::read_at;
use bytes::Bytes;
use npyz::{DType, Endianness, NpyHeader, Order, TypeChar};
use ptystream_common::buffer::Pool;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Why a `.npy` file cannot be read.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum NpyError {
    /// The file cannot be opened or read.
    #[error("'{}' cannot be read", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The header is none.
    #[error("'{}' is not a .npy file; save it with numpy.save", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Items are no pixels.
    #[error("'{}' holds {what}; save it as an array of integers up to 32 bit, int64, float32 or float64", path.display())]
    Items {
        /// Which file.
        path: PathBuf,
        /// What it holds.
        what: String,
    },
    /// The file ends too early.
    #[error("'{}' is truncated: shape {shape:?} of {dtype} needs {needed} bytes, {found} are there; copy the file again", path.display())]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// As the header says.
        shape: Vec<usize>,
        /// As the header says.
        dtype: Dtype,
        /// Bytes of the whole file.
        needed: usize,
        /// Bytes that are there.
        found: usize,
    },
}

#[derive(Clone)]
struct Layout {
    dtype: Dtype,
    shape: Vec<usize>,
    swapped: bool,
    fortran: bool,
}

impl Layout {
    /// Returns where the items end that begin at `start`.
    fn end(&self, start: usize) -> usize {
        let bytes = self.shape.iter().try_fold(self.dtype.size(), |n, &e| n.checked_mul(e));
        bytes.and_then(|n| n.checked_add(start)).unwrap_or(usize::MAX)
    }

    /// Tells whether these are images of `form` whose rows lie one after the other as they are needed.
    fn is_plain(&self, form: FrameForm) -> bool {
        let in_order = !self.fortran && (!self.swapped || self.dtype.size() == 1);
        in_order && self.dtype == form.dtype && self.shape == form.shape
    }
}

/// Reads `.npy` files; remembers the last header, since those of one scan are alike.
#[derive(Default)]
pub struct NpyReader {
    last: Option<(Vec<u8>, Layout)>,
    pool: Pool,
}

impl NpyReader {
    /// Reads some rows of an image of `form`; `None` if it is another one or not in C order, or if its header
    /// is not that of the last file that was read whole.
    ///
    /// # Errors
    /// [`NpyError`], naming the file.
    pub fn read_rows(
        &mut self,
        path: &Path,
        form: FrameForm,
        rows: &Range<usize>,
    ) -> Result<Option<Array>, NpyError> {
        let known = self.last.as_ref().filter(|(_, layout)| layout.is_plain(form));
        let Some((text, layout)) = known.filter(|_| rows.end <= form.shape[0]) else {
            return Ok(None);
        };
        let end = layout.end(text.len()) as u64;
        let io = |source| NpyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        let mut header = vec![0; text.len()];
        let is_like_the_last =
            found >= end && file.read_exact_at(&mut header, 0).is_ok_and(|()| header == *text);
        if !is_like_the_last {
            return Ok(None);
        }
        let row = form.shape[1] * form.dtype.size();
        let start = (text.len() + rows.start * row) as u64;
        let data = read_at(&file, start, rows.len() * row, &self.pool).map_err(io)?;
        let shape = vec![rows.len(), form.shape[1]];
        Ok(Some(Array { dtype: form.dtype, shape, data }))
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// [`NpyError`], naming the file.
    pub fn read(&mut self, path: &Path) -> Result<Array, NpyError> {
        let io = |source| NpyError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        let length = usize::try_from(file.metadata().map_err(io)?.len()).unwrap_or(usize::MAX);
        let bytes = read_at(&file, 0, length, &self.pool).map_err(io)?;
        let known = self.last.take().filter(|(text, _)| bytes.starts_with(text));
        let (text, layout) = match known {
            Some(known) => known,
            None => {
                let mut rest = &bytes[..];
                let head = NpyHeader::from_reader(&mut rest)
                    .map_err(|source| NpyError::Header { path: path.to_owned(), source })?;
                let text = bytes[..bytes.len() - rest.len()].to_vec();
                (
                    text,
                    layout(&head)
                        .map_err(|what| NpyError::Items { path: path.to_owned(), what })?,
                )
            }
        };
        let start = text.len();
        let found = bytes.len();
        let needed = layout.end(start);
        if found < needed {
            let Layout { dtype, shape, .. } = layout;
            return Err(NpyError::Truncated { path: path.to_owned(), shape, dtype, needed, found });
        }
        let array = convert(bytes, start..needed, &layout);
        self.last = Some((text, layout));
        Ok(array)
    }
}

fn layout(head: &NpyHeader) -> Result<Layout, String> {
    if head.uses_pickled_array() {
        return Err("pickled Python objects".into());
    }
    let DType::Plain(item) = head.dtype() else {
        return Err(format!("a structured array ({})", head.dtype().descr()));
    };
    let dtype = match (item.type_char(), item.size_field()) {
        (TypeChar::Bool, 1) => Dtype::Bool,
        (TypeChar::Uint, 1) => Dtype::U8,
        (TypeChar::Uint, 2) => Dtype::U16,
        (TypeChar::Uint, 4) => Dtype::U32,
        (TypeChar::Int, 1) => Dtype::I8,
        (TypeChar::Int, 2) => Dtype::I16,
        (TypeChar::Int, 4) => Dtype::I32,
        (TypeChar::Int, 8) => Dtype::I64,
        (TypeChar::Float, 4) => Dtype::F32,
        (TypeChar::Float, 8) => Dtype::F64,
        _ => return Err(format!("items of type '{item}'")),
    };
    let shape = head.shape().iter().map(|&e| usize::try_from(e).unwrap_or(usize::MAX)).collect();
    Ok(Layout {
        dtype,
        shape,
        swapped: item.endianness() == Endianness::Big,
        fortran: head.order() == Order::Fortran,
    })
}

fn convert(bytes: Bytes, place: Range<usize>, layout: &Layout) -> Array {
    let Layout { dtype, shape, swapped, fortran } = layout;
    let size = dtype.size();
    let mut data = bytes.slice(place);
    if *swapped && size > 1 {
        let mut items = data.to_vec();
        items.chunks_exact_mut(size).for_each(<[u8]>::reverse);
        data = items.into();
    }
    if *fortran && shape.len() > 1 {
        data = c_order(&data, shape, size).into();
    }
    Array { dtype: *dtype, shape: shape.clone(), data }
}

/// Copies items from Fortran to C order.
fn c_order(items: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.len());
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = size;
    for extent in shape {
        strides.push(stride);
        stride *= extent;
    }
    let mut at = vec![0usize; shape.len()];
    let mut offset = 0;
    for _ in 0..items.len() / size {
        out.extend_from_slice(&items[offset..offset + size]);
        for axis in (0..shape.len()).rev() {
            at[axis] += 1;
            offset += strides[axis];
            if at[axis] < shape[axis] {
                break;
            }
            offset -= at[axis] * strides[axis];
            at[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use npyz::WriterBuilder;

    fn file(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    fn npy(descr: &str, order: Order, shape: &[u64], items: &[i32]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = npyz::WriteOptions::new()
            .dtype(DType::Plain(descr.parse().unwrap()))
            .order(order)
            .shape(shape)
            .writer(&mut out)
            .begin_nd()
            .unwrap();
        writer.extend(items.iter().copied()).unwrap();
        writer.finish().unwrap();
        out
    }

    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        let mut out = b"\x93NUMPY\x01\x00".to_vec();
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    #[test]
    fn fortran_order_and_big_endian_read_as_c_order_little_endian() {
        let want = Array::from_items(&[2, 3], &[1i32, 2, 3, 4, 5, 6]);
        for (descr, order, items) in [
            ("<i4", Order::C, [1, 2, 3, 4, 5, 6]),
            (">i4", Order::C, [1, 2, 3, 4, 5, 6]),
            ("<i4", Order::Fortran, [1, 4, 2, 5, 3, 6]),
            (">i4", Order::Fortran, [1, 4, 2, 5, 3, 6]),
        ] {
            let (_dir, path) = file("a.npy", &npy(descr, order, &[2, 3], &items));
            let mut reader = NpyReader::default();
            assert_eq!(reader.read(&path).unwrap(), want, "{descr} {order:?}");
            assert_eq!(reader.read(&path).unwrap(), want, "{descr} {order:?} by the known header");
        }
    }

    #[test]
    fn fortran_order_of_three_axes_reads_as_numpy_does() {
        let c: Vec<i32> = (0..24).collect();
        let mut f = Vec::new();
        for k in 0..4 {
            for j in 0..3 {
                for i in 0..2 {
                    f.push(c[(i * 3 + j) * 4 + k]);
                }
            }
        }
        let (_dir, path) = file("a.npy", &npy("<i4", Order::Fortran, &[2, 3, 4], &f));
        let got = NpyReader::default().read(&path).unwrap();
        assert_eq!(got, Array::from_items(&[2, 3, 4], &c));
    }

    #[test]
    fn rows_are_read_alone_where_they_lie_one_after_the_other() {
        let items = [1, 2, 3, 4, 5, 6];
        let good = npy("<i4", Order::C, &[3, 2], &items);
        let (_dir, path) = file("a.npy", &good);
        let rows = |reader: &mut NpyReader, rows| {
            let form = FrameForm { dtype: Dtype::I32, shape: [3, 2] };
            reader.read_rows(&path, form, &rows)
        };
        let mut reader = NpyReader::default();
        assert_eq!(rows(&mut reader, 1..3).unwrap(), None, "nothing is known yet");
        reader.read(&path).unwrap();
        let two = Array::from_items(&[2, 2], &[3, 4, 5, 6]);
        assert_eq!(rows(&mut reader, 1..3).unwrap(), Some(two));
        assert_eq!(rows(&mut reader, 2..4).unwrap(), None, "there are no such rows");
        let fortran = npy("<i4", Order::Fortran, &[3, 2], &[1, 3, 5, 2, 4, 6]);
        let smaller = npy("<i4", Order::C, &[2, 2], &items[..4]);
        for other in [fortran, smaller, npy(">i4", Order::C, &[3, 2], &items), good[..90].to_vec()]
        {
            std::fs::write(&path, other).unwrap();
            assert_eq!(rows(&mut reader, 1..3).unwrap(), None, "another header");
            assert!(reader.read(&path).is_err() || rows(&mut reader, 1..2).unwrap().is_none());
        }
        std::fs::write(&path, &good).unwrap();
        reader.read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(rows(&mut reader, 0..1).unwrap(), None, "it is truncated");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(rows(&mut reader, 0..1), Err(NpyError::Io { .. })));
    }

    #[test]
    fn what_is_no_array_of_pixels_is_refused_by_name() {
        let whole = npy("<i4", Order::C, &[2, 3], &[0; 6]);
        let object =
            with_header("{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n", b"x");
        let fields = with_header(
            "{'descr': [('a', '<i4'), ('b', '<f8')], 'fortran_order': False, 'shape': (2,), }\n",
            &[0; 24],
        );
        let wide =
            with_header("{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }\n", &[0; 8]);
        let huge = with_header(
            "{'descr': '<u2', 'fortran_order': False, 'shape': (4294967296, 1048576), }\n",
            &[0; 8],
        );
        for (bytes, words) in [
            (&whole[..whole.len() - 1], "truncated: shape [2, 3] of int32 needs 152 bytes, 151"),
            (&whole[..20], "not a .npy file"),
            (b"PNG and so on, not an array", "not a .npy file"),
            (&object, "pickled Python objects"),
            (&fields, "structured array"),
            (&wide, "items of type '<u8'"),
            (&huge, "truncated"),
        ] {
            let (_dir, path) = file("bad.npy", bytes);
            let text = NpyReader::default().read(&path).unwrap_err().to_string();
            assert!(text.contains("bad.npy"), "{text}");
            assert!(text.contains(words), "{text}");
        }
        let gone = NpyReader::default().read(Path::new("nowhere/a.npy")).unwrap_err();
        assert_eq!(gone.to_string(), "'nowhere/a.npy' cannot be read");
    }
}
