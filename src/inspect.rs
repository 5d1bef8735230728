//! Shows what a `.ptyd` file holds, and tells whether ptypy's `PtydScan` can read it.

use ptystream_common::dtype::Dtype;
use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::read::{ChunkRef, Node, NodeKind, PtydFile};
use ptystream_common::ptyd::record::State;
use ptystream_common::value::Value;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Items of an array that are shown.
const SHOWN: usize = 6;

/// Gaps that are listed.
const GAPS_SHOWN: usize = 20;

/// Whether `PtydScan` can read a file, and how it would get on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it cannot; empty if it can.
    pub faults: Vec<String>,
    /// What it does otherwise than one would think.
    pub remarks: Vec<String>,
}

/// Describes a file: its tree, what `PtydScan` makes of it, and its state.
///
/// # Errors
/// [`PtydError`] if the file is missing or no HDF5 file.
pub fn inspect(path: &Path) -> Result<String, PtydError> {
    let file = PtydFile::open(path)?;
    let nodes = file.tree()?;
    let mut text = format!("{}\n", path.display());
    let mut alike = Alike::default();
    for (node, hidden) in nodes.iter().zip(repeated(&nodes)) {
        if hidden {
            alike.add(node);
            continue;
        }
        alike.tell(&mut text);
        let depth = node.path.matches('/').count();
        let name = node.path.rsplit('/').next().unwrap_or_default();
        let _ = writeln!(text, "{}{name}: {}", "   ".repeat(depth), show(&file, node));
    }
    alike.tell(&mut text);
    let verdict = judge(&file, &nodes);
    text.push('\n');
    if verdict.faults.is_empty() {
        text.push_str("PtydScan can read it.\n");
    } else {
        text.push_str("PtydScan cannot read it:\n");
    }
    for fault in &verdict.faults {
        let _ = writeln!(text, "  - {fault}");
    }
    for remark in &verdict.remarks {
        let _ = writeln!(text, "  note: {remark}");
    }
    let _ = writeln!(text, "state: {}", state(&file));
    let gaps = file.record().map(|r| r.gaps).unwrap_or_default();
    for (range, why) in gaps.iter().take(GAPS_SHOWN) {
        let _ = writeln!(text, "  gap {range}: {why}");
    }
    if gaps.len() > GAPS_SHOWN {
        let more = gaps.len() - GAPS_SHOWN;
        let _ = writeln!(text, "  and {more} more, in /ptystream/gaps");
    }
    Ok(text)
}

/// Returns the chunk in or at which a node stands.
fn chunk_of(path: &str) -> Option<&str> {
    path.strip_prefix("/chunks/")?.split('/').next()
}

/// Tells of each node whether it is part of a chunk that looks as its predecessor does and has a
/// successor, one of several: a scan of a thousand chunks shows its first one and its last one.
fn repeated(nodes: &[Node]) -> Vec<bool> {
    let mut chunks: Vec<(&str, Vec<usize>)> = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let Some(name) = chunk_of(&node.path) else { continue };
        match chunks.last_mut() {
            Some((last, members)) if *last == name => members.push(i),
            _ => chunks.push((name, vec![i])),
        }
    }
    let look = |chunk: &(&str, Vec<usize>)| -> Vec<(String, NodeKind, Option<String>)> {
        let inside = |i: &usize| {
            let path = nodes[*i].path.replacen(&format!("/chunks/{}", chunk.0), "", 1);
            (path, nodes[*i].kind.clone(), nodes[*i].kind_attr.clone())
        };
        chunk.1.iter().map(inside).collect()
    };
    let alike: Vec<bool> = chunks.windows(3).map(|w| look(&w[0]) == look(&w[1])).collect();
    let mut hidden = vec![false; nodes.len()];
    for (at, three) in chunks.windows(3).enumerate() {
        // A single one takes no more room than the line that would stand for it is worth.
        let neighbour = alike.get(at + 1) == Some(&true) || at > 0 && alike[at - 1];
        if alike[at] && neighbour {
            three[1].1.iter().for_each(|&i| hidden[i] = true);
        }
    }
    hidden
}

/// Chunks that were not shown because they look as the one before them.
#[derive(Default)]
struct Alike {
    names: Vec<String>,
}

impl Alike {
    fn add(&mut self, node: &Node) {
        if let Some(name) = chunk_of(&node.path)
            && self.names.last().is_none_or(|last| last != name)
        {
            self.names.push(name.to_owned());
        }
    }

    fn tell(&mut self, text: &mut String) {
        let _ = match self.names.as_slice() {
            [] => Ok(()),
            [first, .., last] => writeln!(text, "      {first} to {last}: the same"),
            [one] => writeln!(text, "      {one}: the same"),
        };
        self.names.clear();
    }
}

fn show(file: &PtydFile, node: &Node) -> String {
    let link = node.link.as_ref().map(|l| format!(" -> {l}")).unwrap_or_default();
    let kind = match &node.kind_attr {
        Some(kind) => kind.clone(),
        // What is ours has no need of ptypy's attribute.
        None if node.path.starts_with("/ptystream") => match node.kind {
            NodeKind::Dataset { .. } => "dataset".to_owned(),
            _ => "group".to_owned(),
        },
        None => "no type".to_owned(),
    };
    match &node.kind {
        NodeKind::Dead => format!("dead link{link}"),
        NodeKind::Group if node.path.starts_with("/chunks/") && node.link.is_some() => {
            format!("link{link}")
        }
        NodeKind::Group => format!("{kind}{link}"),
        NodeKind::Dataset { .. } if kind == "None" => "None".to_owned(),
        NodeKind::Dataset { dtype, pixel, shape } => {
            let value = match pixel {
                None => file.text(&node.path).map(|t| format!(" = '{}'", short(&t))),
                Some(_) => values(file, &node.path, shape),
            };
            let value = value.unwrap_or_default();
            match shape.as_slice() {
                [] => format!("{kind}, {dtype}{value}"),
                shape => format!("{kind}, {shape:?} {dtype}{value}"),
            }
        }
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Shows a scalar or a short array; of longer ones only what they are.
fn values(file: &PtydFile, path: &str, shape: &[usize]) -> Result<String, PtydError> {
    let size: usize = shape.iter().product();
    if shape.len() > 2 || size == 0 {
        return Ok(String::new());
    }
    let per_row = size / shape.first().copied().unwrap_or(1).max(1);
    let array = match shape {
        [] => file.array(path)?,
        _ => file.rows(path, 0, shape[0].min(SHOWN.div_ceil(per_row)))?,
    };
    let show = |v: &f64| match array.dtype {
        Dtype::Bool => (if *v != 0.0 { "True" } else { "False" }).to_owned(),
        d if d.is_float() && size > 2 => brief(*v),
        d if d.is_float() => format!("{v:?}"),
        _ => format!("{v}"),
    };
    let items: Vec<String> = array.to_f64().iter().take(SHOWN).map(show).collect();
    let more = if size > items.len() { ", ..." } else { "" };
    Ok(match shape {
        [] => format!(" = {}", items.concat()),
        _ => format!(" = [{}{more}]", items.join(", ")),
    })
}

/// Writes a number of many with six digits.
fn brief(v: f64) -> String {
    let rounded: f64 = format!("{v:.5e}").parse().unwrap_or(v);
    format!("{rounded:?}")
}

fn state(file: &PtydFile) -> String {
    let Some(record) = file.record() else {
        return "not known (not written by ptystream)".to_owned();
    };
    let rows: u64 = record.chunks.iter().map(|c| c.rows).sum();
    let run = format!(
        "{} chunks, {rows} frames, {} gaps, run {:016x}, epoch {}",
        record.chunks.len(),
        record.gaps.iter().map(|(r, _)| u64::from(r.count)).sum::<u64>(),
        record.identity.run_id,
        record.identity.epoch
    );
    match record.state {
        State::Complete => format!("complete: {run}"),
        State::Aborted => {
            let why = record.aborted.as_deref().unwrap_or("for a reason that is not known");
            format!("aborted: {run}; it ended early: {why}")
        }
        State::Writing => format!(
            "incomplete: {run}; being written, or interrupted (the same command goes on with it)"
        ),
    }
}

/// Applies the rules of ptypy's reader.
///
/// # Source
/// ptypy `core/data.py`, `PtydScan`.
fn judge(file: &PtydFile, nodes: &[Node]) -> Verdict {
    let mut verdict = Verdict::default();
    let by_path: BTreeMap<&str, &Node> = nodes.iter().map(|n| (n.path.as_str(), n)).collect();
    let rows = judge_chunks(file, &by_path, &mut verdict);
    judge_meta(file, &by_path, rows, &mut verdict);
    verdict
}

fn shape_of<'a>(nodes: &BTreeMap<&str, &'a Node>, path: &str) -> Option<&'a [usize]> {
    match &nodes.get(path)?.kind {
        NodeKind::Dataset { shape, .. } => Some(shape),
        _ => None,
    }
}

/// Returns the frames that the reader would find.
fn judge_chunks(file: &PtydFile, nodes: &BTreeMap<&str, &Node>, verdict: &mut Verdict) -> usize {
    let chunks = match file.chunks() {
        Ok(chunks) => chunks,
        Err(error) => {
            verdict.faults.push(error.to_string());
            return 0;
        }
    };
    let is_dead = |c: &ChunkRef| {
        nodes.get(format!("/chunks/{}", c.name).as_str()).is_none_or(|n| n.kind == NodeKind::Dead)
    };
    for dead in chunks.iter().filter(|c| is_dead(c)) {
        verdict.remarks.push(format!("/chunks/{} is a dead link: the reader skips it", dead.name));
    }
    let live: Vec<&ChunkRef> = chunks.iter().filter(|c| !is_dead(c)).collect();
    if !live.iter().any(|c| c.name == "0") {
        verdict.faults.push("/chunks/0 is missing: the file contains no data".to_owned());
    }
    let Some(first) = live.first() else { return 0 };
    let prefix = format!("/chunks/{}/", first.name);
    let members: Vec<&str> = nodes
        .keys()
        .filter_map(|p| p.strip_prefix(prefix.as_str()))
        .filter(|n| !n.contains('/'))
        .collect();
    for needed in ["data", "positions"] {
        if !members.contains(&needed) {
            verdict.faults.push(format!("{prefix}{needed} is missing"));
        }
    }
    let mut total = 0;
    for chunk in &live {
        let data = shape_of(nodes, &format!("/chunks/{}/data", chunk.name));
        for member in &members {
            let path = format!("/chunks/{}/{member}", chunk.name);
            let axes = shape_of(nodes, &format!("{prefix}{member}")).map(<[usize]>::len);
            match (nodes.get(path.as_str()), shape_of(nodes, &path)) {
                (None, _) => {
                    verdict.faults.push(format!("{path} is missing: the chunk is torn"));
                }
                (Some(_), None) => verdict
                    .faults
                    .push(format!("{path} is a group (a list of None?), where an array is needed")),
                (_, Some([])) => verdict.faults.push(format!("{path} is a scalar")),
                (_, Some(shape)) if axes.is_some_and(|n| n != shape.len()) => {
                    verdict
                        .faults
                        .push(format!("{path} has {} axes, in other chunks not", shape.len()));
                }
                (_, Some(shape)) if data.is_some_and(|d| d[0] != shape[0]) => {
                    verdict.faults.push(format!("{path} has {} rows, its data other", shape[0]));
                }
                (_, Some(shape)) if *member == "weights" && data.is_some_and(|d| d != shape) => {
                    let data = data.unwrap_or_default();
                    verdict.faults.push(format!("{path} is {shape:?}, its data {data:?}"));
                }
                _ => {}
            }
        }
        match data {
            Some(shape) if shape.len() == 3 => total += shape[0],
            _ => verdict.faults.push(format!("/chunks/{}/data is no stack of frames", chunk.name)),
        }
    }
    if !members.contains(&"weights") {
        verdict.remarks.push("there are no weights: the reader takes ones".to_owned());
    }
    total
}

fn judge_meta(file: &PtydFile, nodes: &BTreeMap<&str, &Node>, rows: usize, verdict: &mut Verdict) {
    let meta: BTreeMap<String, Value> = match file.values("meta") {
        Ok(values) => values.into_iter().collect(),
        Err(error) => {
            verdict.faults.push(error.to_string());
            return;
        }
    };
    for key in ["num_frames", "energy", "distance", "psize"] {
        match meta.get(key) {
            None => verdict.faults.push(format!("/meta/{key} is missing")),
            Some(Value::None) => verdict.faults.push(format!("/meta/{key} is None")),
            _ => {}
        }
    }
    for (key, value) in &meta {
        let kind = nodes.get(format!("/meta/{key}").as_str()).and_then(|n| n.kind_attr.as_deref());
        let scalar = matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_));
        if scalar && kind != Some("scalar") {
            verdict.faults.push(format!(
                "/meta/{key} lacks the attribute type = scalar: its log fails on it"
            ));
        }
    }
    match meta.get("num_frames").and_then(Value::as_f64) {
        Some(n) if n > rows as f64 => {
            let text = format!("/meta/num_frames is {n}, there are {rows} frames");
            if file.record().is_some_and(|r| r.state == State::Writing) {
                verdict.remarks.push(format!("{text}: the reader waits for the rest"));
            } else {
                verdict.faults.push(format!("{text}: it would wait for ever"));
            }
        }
        Some(n) if n < rows as f64 => verdict.remarks.push(format!(
            "/meta/num_frames is {n}, there are {rows} frames: the reader delivers them all"
        )),
        _ => {}
    }
    let frame = nodes.iter().find_map(|(path, node)| match &node.kind {
        NodeKind::Dataset { shape, .. } if path.ends_with("/data") && shape.len() == 3 => {
            Some(shape[1..].to_vec())
        }
        _ => None,
    });
    let shape = match meta.get("shape") {
        Some(Value::Array(a)) => Some(a.items.iter().map(|&v| v as usize).collect::<Vec<_>>()),
        _ => None,
    };
    if let Some(frame) = &frame {
        judge_center(&meta, frame, verdict);
    }
    match (shape, frame) {
        (None, Some(_)) => verdict.remarks.push(
            "/meta/shape is missing: the reader crops or pads the frames to 256 x 256".to_owned(),
        ),
        (Some(shape), Some(frame)) if shape != frame => verdict.remarks.push(format!(
            "/meta/shape is {shape:?}, frames are {frame:?}: the reader crops or pads them"
        )),
        _ => {}
    }
}

/// Applies the rule that the optical axis goes through the frame; without one it is the middle.
fn judge_center(meta: &BTreeMap<String, Value>, frame: &[usize], verdict: &mut Verdict) {
    if frame.contains(&0) {
        verdict.faults.push(format!("frames of {frame:?} have no pixels"));
        return;
    }
    let Some(Value::Array(center)) = meta.get("center") else { return };
    let inside = center.items.iter().zip(frame).all(|(&c, &n)| 0.0 < c && c < n as f64);
    if !inside {
        let text = format!("/meta/center is {:?}, outside frames of {frame:?}", center.items);
        verdict.faults.push(text);
    }
}

/// Tells whether `PtydScan` can read a file.
///
/// # Errors
/// [`PtydError`] if the file is missing or no HDF5 file.
pub fn verdict(path: &Path) -> Result<Verdict, PtydError> {
    let file = PtydFile::open(path)?;
    let nodes = file.tree()?;
    Ok(judge(&file, &nodes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::compare::{CompareOptions, compare};
    use crate::repair::fix;
    use ptystream_common::frame::Array;
    use ptystream_common::ptyd::master::PlainWriter;

    const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/goldens/expected");

    fn meta(num_frames: i64) -> Vec<(String, Value)> {
        let pair = |v: f64| Value::Array(ptystream_common::value::NumArray::f64s(&[v, v]));
        let shape = Value::Array(ptystream_common::value::NumArray::i64s(&[1, 2]));
        vec![
            ("num_frames".into(), Value::Int(num_frames)),
            ("energy".into(), Value::Float(7.2)),
            ("distance".into(), Value::Float(7.19)),
            ("psize".into(), pair(1e-4)),
            ("shape".into(), shape),
        ]
    }

    fn write(path: &Path, meta: &[(String, Value)], info: &[(String, Value)], names: &[&str]) {
        let mut writer = PlainWriter::create(path, meta, info).unwrap();
        let ones = vec![1u8; 6].into();
        let weights = Array { dtype: Dtype::Bool, shape: vec![3, 1, 2], data: ones };
        let arrays = [
            ("data", Array::from_items(&[3, 1, 2], &[1u16, 2, 3, 4, 5, 6])),
            ("weights", weights),
            ("positions", Array::from_items(&[3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            ("indices", Array::from_items(&[3], &[0i64, 1, 2])),
        ];
        let kept: Vec<(&str, &Array)> =
            arrays.iter().filter(|(n, _)| names.contains(n)).map(|(n, a)| (*n, a)).collect();
        writer.add(&kept).unwrap();
        writer.close().unwrap();
    }

    #[test]
    fn chunks_that_look_alike_are_summed_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut writer = PlainWriter::create(&path, &meta(14), &[]).unwrap();
        for rows in [3, 3, 3, 3, 2] {
            let data = Array::from_items(&[rows, 1, 2], &vec![1u16; 2 * rows]);
            let places = Array::from_items(&[rows, 2], &vec![0.123456789; 2 * rows]);
            writer.add(&[("data", &data), ("positions", &places)]).unwrap();
        }
        writer.close().unwrap();
        let text = inspect(&path).unwrap();
        let at = |line: &str| text.lines().position(|l| l.trim_start().starts_with(line));
        assert!(at("0: dict") < at("1 to 3: the same"), "{text}");
        assert!(at("1 to 3: the same") < at("4: dict"), "{text}");
        assert!(at("2: dict").is_none() && text.contains("= [0.123457, "), "{text}");
    }

    const ALL: [&str; 4] = ["data", "weights", "positions", "indices"];

    #[test]
    fn a_sound_file_is_shown_and_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        write(&path, &meta(3), &[], &ALL);
        let text = inspect(&path).unwrap();
        for line in [
            "   chunks: dict",
            "         data: array, [3, 1, 2] uint16",
            "      energy: scalar, float64 = 7.2",
            "      psize: array, [2] float64 = [0.0001, 0.0001]",
            "         indices: arraylist, [3] int64 = [0, 1, 2]",
            "PtydScan can read it.",
        ] {
            assert!(text.lines().any(|l| l == line), "'{line}' is not in\n{text}");
        }
        assert_eq!(verdict(&path).unwrap(), Verdict::default());
    }

    #[test]
    fn each_fault_is_named_and_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let positions = vec![(
            "positions_scan".to_owned(),
            Value::Array(ptystream_common::value::NumArray {
                dtype: Dtype::F64,
                shape: vec![3, 2],
                items: vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
            }),
        )];
        let none = |key: &str| {
            let mut meta = meta(3);
            meta.retain(|(k, _)| k != key);
            meta.push((key.to_owned(), Value::None));
            meta
        };
        let cases = [
            ("long", meta(7), &ALL[..], "/meta/num_frames is 7, there are 3 frames"),
            ("none", none("num_frames"), &ALL, "/meta/num_frames is None"),
            ("energy", none("energy"), &ALL, "/meta/energy is None"),
            ("places", meta(3), &ALL[..2], "/chunks/0/positions is missing"),
        ];
        let sound = folder.path().join("sound");
        write(&sound, &meta(3), &positions, &ALL);
        for (name, meta, names, fault) in cases {
            let (path, fixed) =
                (folder.path().join(name), folder.path().join("fixed").with_extension(name));
            write(&path, &meta, &positions, names);
            let faults = verdict(&path).unwrap().faults;
            assert!(faults.iter().any(|f| f.starts_with(fault)), "{name}: {faults:?}");
            assert!(inspect(&path).unwrap().contains("PtydScan cannot read it"));
            assert!(!fix(&path, &fixed).unwrap().is_empty());
            assert_eq!(verdict(&fixed).unwrap().faults, [""; 0]);
            let options = CompareOptions { info: true, ..CompareOptions::default() };
            assert_eq!(compare(&sound, &fixed, &options).unwrap(), [], "{name}");
        }
    }

    #[test]
    fn a_centre_outside_of_the_frames_becomes_their_middle() {
        let folder = tempfile::tempdir().unwrap();
        let (path, fixed) = (folder.path().join("a"), folder.path().join("b"));
        let mut outside = meta(3);
        let center = ptystream_common::value::NumArray::f64s(&[-1.0, 1.0]);
        outside.push(("center".into(), Value::Array(center)));
        write(&path, &outside, &[], &ALL);
        let faults = verdict(&path).unwrap().faults;
        assert_eq!(faults, ["/meta/center is [-1.0, 1.0], outside frames of [1, 2]"]);
        assert_eq!(fix(&path, &fixed).unwrap().len(), 1);
        assert_eq!(verdict(&fixed).unwrap(), Verdict::default());
    }

    #[test]
    fn a_file_without_frames_is_not_repaired() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        PlainWriter::create(&path, &meta(3), &[]).unwrap().close().unwrap();
        assert!(verdict(&path).unwrap().faults[0].contains("contains no data"));
        let to = folder.path().join("b");
        assert!(fix(&path, &to).unwrap_err().to_string().contains("hold no frames"));
        assert!(!to.exists());
    }

    #[test]
    fn a_file_of_links_of_ptypy_can_be_read() {
        let path = Path::new(GOLDENS).join("save_link/out.ptyd");
        if !path.is_file() {
            println!("skipped: ../shared is absent");
            return;
        }
        assert_eq!(verdict(&path).unwrap(), Verdict::default());
        let text = inspect(&path).unwrap();
        assert!(text.contains("link -> out.ptyd.part001"), "{text}");
        assert_eq!(compare(&path, &path, &CompareOptions::default()).unwrap(), []);
    }
}
