//! Compares two `.ptyd` files: names, types, extents, values, and the attribute `type`.
//!
//! How a file is stored (compression, chunks, one file or many) never matters, nor does what is
//! not ptypy's: `/ptystream`, the times at the root. `/info` is compared on request.

use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::read::{ChunkRef, Node, NodeKind, PtydFile};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

/// Rows that are read at a time.
const ROWS: usize = 16;

/// How far numbers may be apart; zero is exact but for the sign of zero.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Times the larger of the two.
    pub relative: f64,
    /// In the unit of what is compared.
    pub absolute: f64,
}

/// What to compare, and how strictly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompareOptions {
    /// Numbers `a` and `b` are equal if |a - b| ≤ absolute + relative · max(|a|, |b|).
    pub tolerance: Tolerance,
    /// Whether frames are compared in the order of chunks and rows, however they are cut.
    pub ignore_chunking: bool,
    /// Whether `/chunks` is compared.
    pub chunks: bool,
    /// Whether `/meta` is compared.
    pub meta: bool,
    /// Whether `/info` is compared.
    pub info: bool,
}

impl Default for CompareOptions {
    /// Chunks and meta, bit-exact.
    fn default() -> Self {
        Self {
            tolerance: Tolerance::default(),
            ignore_chunking: false,
            chunks: true,
            meta: true,
            info: false,
        }
    }
}

/// One thing in which the files differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: the object, and the item inside it.
    pub place: String,
    /// What the first file has.
    pub a: String,
    /// What the second file has.
    pub b: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} | {}", self.place, self.a, self.b)
    }
}

fn difference(place: &str, a: impl fmt::Display, b: impl fmt::Display) -> Difference {
    Difference { place: place.to_owned(), a: a.to_string(), b: b.to_string() }
}

/// Lists the differences of two files, one an object, the first item that differs of each.
///
/// # Errors
/// [`PtydError`] if one of the files cannot be read.
pub fn compare(a: &Path, b: &Path, options: &CompareOptions) -> Result<Vec<Difference>, PtydError> {
    let (a, b) = (PtydFile::open(a)?, PtydFile::open(b)?);
    let mut found = Vec::new();
    let merged = options.chunks && options.ignore_chunking;
    let (nodes_a, nodes_b) = (wanted(&a, options, merged)?, wanted(&b, options, merged)?);
    let names: BTreeSet<&String> = nodes_a.keys().chain(nodes_b.keys()).collect();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_cached_key(|n| natural(n));
    for name in names {
        match (nodes_a.get(name), nodes_b.get(name)) {
            (Some(x), Some(y)) => found.extend(objects(&a, &b, x, y, options.tolerance)?),
            (x, _) => {
                let inside = |n: &Difference| name.starts_with(&format!("{}/", n.place));
                // A missing group is said once, not again for all that would be in it.
                if !found.iter().any(inside) {
                    let (here, gone) = ("is there", "is missing");
                    let (x, y) = if x.is_some() { (here, gone) } else { (gone, here) };
                    found.push(difference(name, x, y));
                }
            }
        }
    }
    if merged {
        found.extend(frames(&a, &b, options.tolerance)?);
    }
    Ok(found)
}

/// Makes a key by which numbers in a name sort as numbers.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('/').map(|part| (part.parse().unwrap_or(0), part.to_owned())).collect()
}

fn wanted(
    file: &PtydFile,
    options: &CompareOptions,
    merged: bool,
) -> Result<BTreeMap<String, Node>, PtydError> {
    let is_wanted = |path: &str| {
        let mut parts = path.split('/').skip(1);
        match parts.next() {
            Some("chunks") => options.chunks && (!merged || parts.next().is_none()),
            Some("meta") => options.meta,
            Some("info") => options.info,
            Some("ptystream") => false,
            _ => true,
        }
    };
    let nodes = file.tree()?.into_iter().filter(|n| is_wanted(&n.path));
    Ok(nodes.map(|n| (n.path.clone(), n)).collect())
}

fn describe(node: &Node) -> String {
    match &node.kind {
        NodeKind::Group => "a group".to_owned(),
        NodeKind::Dataset { dtype, shape, .. } => format!("{dtype} {shape:?}"),
        NodeKind::Dead => {
            format!("a dead link to {}", node.link.as_deref().unwrap_or("another place"))
        }
    }
}

fn objects(
    a: &PtydFile,
    b: &PtydFile,
    x: &Node,
    y: &Node,
    tolerance: Tolerance,
) -> Result<Option<Difference>, PtydError> {
    let path = &x.path;
    let both_dead = x.kind == NodeKind::Dead && y.kind == NodeKind::Dead;
    if x.kind != y.kind || both_dead {
        return Ok(Some(difference(path, describe(x), describe(y))));
    }
    // A part's root has no `type`, the group that it becomes in one file has.
    let linked = x.link.is_some() || y.link.is_some();
    if x.kind_attr != y.kind_attr && !linked {
        let show = |k: &Option<String>| k.clone().unwrap_or_else(|| "not set".to_owned());
        let place = format!("{path} attribute 'type'");
        return Ok(Some(difference(&place, show(&x.kind_attr), show(&y.kind_attr))));
    }
    let NodeKind::Dataset { dtype, pixel, shape } = &x.kind else { return Ok(None) };
    if pixel.is_none() {
        if dtype != "str" || shape.iter().product::<usize>() != 1 {
            return Ok(None);
        }
        let (s, t) = (a.text(path)?, b.text(path)?);
        return Ok((s != t).then(|| difference(path, format!("'{s}'"), format!("'{t}'"))));
    }
    if shape.is_empty() {
        return Ok(arrays(path, 0, &a.array(path)?, &b.array(path)?, tolerance));
    }
    let mut at = 0;
    while at < shape[0] {
        let n = ROWS.min(shape[0] - at);
        let (s, t) = (a.rows(path, at, n)?, b.rows(path, at, n)?);
        if let Some(found) = arrays(path, at, &s, &t, tolerance) {
            return Ok(Some(found));
        }
        at += n;
    }
    Ok(None)
}

/// Finds the first item that differs; `first` is the row of the arrays' first entry.
fn arrays(
    path: &str,
    first: usize,
    a: &Array,
    b: &Array,
    tolerance: Tolerance,
) -> Option<Difference> {
    if a.data == b.data {
        return None;
    }
    let (x, y) = (a.to_f64(), b.to_f64());
    let size = a.dtype.size();
    let differs = |i: usize| {
        let (s, t) = (x[i], y[i]);
        if s.is_nan() || t.is_nan() {
            return s.is_nan() != t.is_nan();
        }
        // Beyond 2^53 two integers may be one float.
        if a.dtype == Dtype::I64 && tolerance == Tolerance::default() {
            return a.data[i * size..][..size] != b.data[i * size..][..size];
        }
        s != t && (s - t).abs() > tolerance.absolute + tolerance.relative * s.abs().max(t.abs())
    };
    let at = (0..x.len()).find(|&i| differs(i))?;
    let mut place = vec![0; a.shape.len()];
    let mut rest = at;
    for axis in (0..a.shape.len()).rev() {
        place[axis] = rest % a.shape[axis].max(1);
        rest /= a.shape[axis].max(1);
    }
    if let Some(row) = place.first_mut() {
        *row += first;
    }
    let place = if place.is_empty() { path.to_owned() } else { format!("{path}{place:?}") };
    Some(difference(&place, number(a.dtype, x[at]), number(b.dtype, y[at])))
}

fn number(dtype: Dtype, value: f64) -> String {
    match dtype {
        Dtype::Bool => (value != 0.0).to_string(),
        d if d.is_float() => format!("{value:?}"),
        _ => format!("{value}"),
    }
}

/// The rows of one dataset over all chunks.
struct Rows<'a> {
    file: &'a PtydFile,
    chunks: Vec<(String, usize)>,
    name: &'a str,
}

impl<'a> Rows<'a> {
    fn new(file: &'a PtydFile, chunks: &[ChunkRef], name: &'a str) -> Self {
        let chunks = chunks.iter().map(|c| (c.name.clone(), c.rows.unwrap_or(0))).collect();
        Self { file, chunks, name }
    }

    fn total(&self) -> usize {
        self.chunks.iter().map(|c| c.1).sum()
    }

    /// Finds the chunk and the row in it of a row of all.
    fn locate(&self, row: usize) -> (String, usize) {
        let mut left = row;
        for (chunk, rows) in &self.chunks {
            if left < *rows {
                return (format!("chunks/{chunk}/{}", self.name), left);
            }
            left -= rows;
        }
        (String::new(), left)
    }

    /// Returns how many rows from `row` on stand in the same chunk.
    fn run(&self, row: usize) -> usize {
        let mut end = 0;
        for (_, rows) in &self.chunks {
            end += rows;
            if row < end {
                return end - row;
            }
        }
        0
    }

    fn read(&self, row: usize, count: usize) -> Result<Array, PtydError> {
        let (path, row) = self.locate(row);
        self.file.rows(&path, row, count)
    }
}

/// Compares frames in the order of chunks and rows.
fn frames(a: &PtydFile, b: &PtydFile, tolerance: Tolerance) -> Result<Vec<Difference>, PtydError> {
    let (chunks_a, chunks_b) = (a.chunks()?, b.chunks()?);
    let mut found = Vec::new();
    for name in ["data", "weights", "positions", "indices"] {
        let (x, y) = (Rows::new(a, &chunks_a, name), Rows::new(b, &chunks_b, name));
        if x.total() != y.total() {
            let text = |n| format!("{n} frames");
            return Ok(vec![difference("/chunks", text(x.total()), text(y.total()))]);
        }
        let has = |r: &Rows<'_>| r.chunks.is_empty() || r.file.has(&r.locate(0).0);
        if !has(&x) || !has(&y) {
            if has(&x) != has(&y) {
                let text = |h| if h { "is there" } else { "is missing" };
                found.push(difference(&format!("/chunks/*/{name}"), text(has(&x)), text(has(&y))));
            }
            continue;
        }
        let mut at = 0;
        while at < x.total() {
            let n = ROWS.min(x.run(at)).min(y.run(at));
            let (s, t) = (x.read(at, n)?, y.read(at, n)?);
            let place = format!("frames {name}");
            let form = |v: &Array| format!("{} {:?}", v.dtype, &v.shape[1..]);
            let differing = if (s.dtype, &s.shape) == (t.dtype, &t.shape) {
                arrays(&place, at, &s, &t, tolerance)
            } else {
                Some(difference(&place, form(&s), form(&t)))
            };
            if let Some(differing) = differing {
                found.push(differing);
                break;
            }
            at += n;
        }
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ptystream_common::ptyd::master::PlainWriter;
    use ptystream_common::value::Value;

    fn write(path: &Path, cuts: &[usize], change: Option<usize>, energy: f64) {
        let meta = vec![("energy".to_owned(), Value::Float(energy))];
        let mut writer = PlainWriter::create(path, &meta, &[]).unwrap();
        let mut at = 0;
        for &rows in cuts {
            let value = |i: usize| i as u16 + u16::from(change == Some(i)) * 100;
            let data: Vec<u16> = (at * 4..(at + rows) * 4).map(value).collect();
            let data = Array::from_items(&[rows, 2, 2], &data);
            let positions = Array::from_items(&[rows, 2], &vec![1e-6; 2 * rows]);
            writer.add(&[("data", &data), ("positions", &positions)]).unwrap();
            at += rows;
        }
        writer.close().unwrap();
    }

    fn texts(a: &Path, b: &Path, options: &CompareOptions) -> Vec<String> {
        compare(a, b, options).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_first_item_that_differs_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        write(&a, &[20, 5], None, 7.2);
        write(&b, &[20, 5], Some(4 * 18 + 3), 7.2 + 1e-9);
        let mut options = CompareOptions::default();
        assert_eq!(texts(&a, &a, &options), [""; 0]);
        assert_eq!(
            texts(&a, &b, &options),
            ["/chunks/0/data[18, 1, 1]: 75 | 175", "/meta/energy: 7.2 | 7.200000001"]
        );
        options.tolerance.relative = 1e-6;
        options.chunks = false;
        assert_eq!(texts(&a, &b, &options), [""; 0]);
    }

    #[test]
    fn chunking_may_differ_where_it_is_said_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = |n: &str| folder.path().join(n);
        write(&path("a"), &[20, 5], None, 7.2);
        write(&path("b"), &[7, 7, 7, 4], None, 7.2);
        write(&path("c"), &[7, 18], Some(4 * 9), 7.2);
        let mut options = CompareOptions::default();
        let strict = texts(&path("a"), &path("b"), &options);
        assert_eq!(strict[0], "/chunks/0/data: uint16 [20, 2, 2] | uint16 [7, 2, 2]");
        assert_eq!(strict.last().unwrap(), "/chunks/3: is missing | is there");
        options.ignore_chunking = true;
        assert_eq!(texts(&path("a"), &path("b"), &options), [""; 0]);
        assert_eq!(texts(&path("b"), &path("c"), &options), ["frames data[9, 0, 0]: 36 | 136"]);
    }
}
