//! Writes a copy of a broken `.ptyd` file that ptypy's `PtydScan` can read.

use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::master::PlainWriter;
use ptystream_common::ptyd::read::{NodeKind, PtydFile};
use ptystream_common::value::{NumArray, Value};
use std::path::Path;

/// Writes a copy that `PtydScan` can read; returns what was changed.
///
/// Frames, positions and what else is sound stay as they are; links are followed, dead ones are
/// left out, chunks are numbered from 0 on.
/// # Errors
/// [`PtydError`] if there are no frames or no positions, if `to` exists, or if a file fails.
pub fn fix(from: &Path, to: &Path) -> Result<Vec<String>, PtydError> {
    let file = PtydFile::open(from)?;
    let mut done = Vec::new();
    let chunks = sound_chunks(&file, &mut done)?;
    let rows: usize = chunks.iter().map(|c| c.1).sum();
    let Some(frame) = chunks.first().and_then(|(name, _)| frame_shape(&file, name)) else {
        return Err(PtydError::content(from, "/chunks", "hold no frames; nothing can be repaired"));
    };
    if frame.contains(&0) {
        let text = "hold frames without pixels; nothing can be repaired";
        return Err(PtydError::content(from, "/chunks", text));
    }
    let info = file.values("info")?;
    let meta = repaired_meta(&file, &info, rows, frame, &mut done)?;
    // The repaired copy must not take the place of the broken one before it is whole.
    let mut writer = PlainWriter::create(to, &meta, &info)?;
    let mut first = 0;
    let written = chunks.iter().enumerate().try_for_each(|(n, (name, rows))| {
        let start = first;
        first += rows;
        copy_chunk(&file, n, start, (name, *rows), &mut writer, &mut done)
    });
    if let Err(error) = written.and_then(|()| writer.close()) {
        if let Err(left) = std::fs::remove_file(to) {
            tracing::warn!("{}: cannot delete the incomplete copy: {left}", to.display());
        }
        return Err(error);
    }
    Ok(done)
}

fn frame_shape(file: &PtydFile, chunk: &str) -> Option<[usize; 2]> {
    let shape = file.rows(&format!("chunks/{chunk}/data"), 0, 0).ok()?.shape;
    Some([shape[1], shape[2]])
}

/// Lists the chunks that hold frames, with the rows that all their datasets have.
fn sound_chunks(
    file: &PtydFile,
    done: &mut Vec<String>,
) -> Result<Vec<(String, usize)>, PtydError> {
    let mut sound = Vec::new();
    for chunk in file.chunks()? {
        let Some(rows) = chunk.rows.filter(|&n| n > 0) else {
            done.push(format!("left out chunk {}: it holds no frames", chunk.name));
            continue;
        };
        let positions = file.array(&format!("chunks/{}/positions", chunk.name));
        let least = positions.map_or(rows, |p| p.shape.first().map_or(rows, |&n| n.min(rows)));
        if least < rows {
            done.push(format!("cut chunk {} from {rows} to {least} frames", chunk.name));
        }
        sound.push((chunk.name, least));
    }
    Ok(sound)
}

fn repaired_meta(
    file: &PtydFile,
    info: &[(String, Value)],
    rows: usize,
    frame: [usize; 2],
    done: &mut Vec<String>,
) -> Result<Vec<(String, Value)>, PtydError> {
    let mut meta = Value::Map(file.values("meta")?);
    let frames = Value::Int(rows as i64);
    let shape = Value::Array(NumArray::i64s(&frame.map(|n| n as i64)));
    for (key, right) in [("num_frames", frames), ("shape", shape)] {
        if meta.get(key) != Some(&right) {
            done.push(format!("set /meta/{key} to {}", plain(&right)));
            meta.set_at(key, right);
        }
    }
    if let Some(Value::Array(center)) = meta.get("center")
        && !center.items.iter().zip(frame).all(|(&c, n)| 0.0 < c && c < n as f64)
    {
        let middle = NumArray::f64s(&frame.map(|n| ((n / 2) as f64).max(0.5)));
        done.push(format!("set /meta/center to {:?} (the middle: check it)", middle.items));
        meta.set_at("center", Value::Array(middle));
    }
    // ptypy's defaults.
    for (key, default) in [("energy", 7.2), ("distance", 7.19), ("psize", 172e-6)] {
        if meta.get(key).is_some_and(|v| !v.is_none()) {
            continue;
        }
        let recorded = info.iter().find(|(k, v)| k == key && !v.is_none()).map(|(_, v)| v.clone());
        let origin = if recorded.is_some() { "from /info" } else { "ptypy's default: check it" };
        let value = recorded.unwrap_or(Value::Float(default));
        done.push(format!("set /meta/{key} to {} ({origin})", plain(&value)));
        meta.set_at(key, value);
    }
    let untyped = file.tree()?.into_iter().filter(|n| {
        n.path.starts_with("/meta/") && n.kind_attr.is_none() && n.kind != NodeKind::Group
    });
    done.extend(untyped.map(|n| format!("added the attribute type to {}", n.path)));
    match meta {
        Value::Map(entries) => Ok(entries),
        _ => Ok(Vec::new()),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Array(a) => format!("{:?}", a.items),
        other => other.to_string(),
    }
}

fn copy_chunk(
    file: &PtydFile,
    number: usize,
    first: usize,
    (name, rows): (&str, usize),
    writer: &mut PlainWriter,
    done: &mut Vec<String>,
) -> Result<(), PtydError> {
    if name != number.to_string() {
        done.push(format!("renamed chunk {name} to {number}"));
    }
    let data = file.rows(&format!("chunks/{name}/data"), 0, rows)?;
    let frame = [data.shape[1], data.shape[2]];
    let indices = match file.array(&format!("chunks/{name}/indices")) {
        Ok(indices) if indices.shape.first().is_some_and(|&n| n >= rows) => {
            file.rows(&format!("chunks/{name}/indices"), 0, rows)?
        }
        _ => {
            done.push(format!("numbered the indices of chunk {name}"));
            let all: Vec<i64> = (first..first + rows).map(|i| i as i64).collect();
            Array::from_items(&[rows], &all)
        }
    };
    let stored = file.array(&format!("chunks/{name}/weights"));
    let weights = match stored {
        Ok(w) if w.shape.len() == 3 && w.shape[0] >= rows && w.shape[1..] == frame => {
            file.rows(&format!("chunks/{name}/weights"), 0, rows)?
        }
        Ok(w) if w.shape == frame => {
            done.push(format!("repeated the 2-d weight of chunk {name} for every frame"));
            repeated(&w, rows)
        }
        _ => match file.array("meta/weight2d") {
            Ok(w) if w.shape == frame => {
                done.push(format!("stored /meta/weight2d for every frame of chunk {name}"));
                repeated(&w, rows)
            }
            _ => {
                done.push(format!("set the weights of chunk {name} to one"));
                repeated(&ones(frame), rows)
            }
        },
    };
    let positions = positions(file, name, rows, &indices, done)?;
    writer.add(&[
        ("data", &data),
        ("weights", &weights),
        ("positions", &positions),
        ("indices", &indices),
    ])
}

fn ones(frame: [usize; 2]) -> Array {
    let data = vec![1u8; frame[0] * frame[1]];
    Array { dtype: Dtype::Bool, shape: frame.to_vec(), data: data.into() }
}

fn repeated(frame: &Array, rows: usize) -> Array {
    let shape = std::iter::once(rows).chain(frame.shape.iter().copied()).collect();
    Array { dtype: frame.dtype, shape, data: frame.data.repeat(rows).into() }
}

/// Reads the positions of a chunk, or takes those of the scan at its indices.
fn positions(
    file: &PtydFile,
    name: &str,
    rows: usize,
    indices: &Array,
    done: &mut Vec<String>,
) -> Result<Array, PtydError> {
    let path = format!("chunks/{name}/positions");
    if let Some(found) = file.rows(&path, 0, rows).ok().filter(|p| p.shape.len() == 2) {
        return Ok(found);
    }
    for scan in ["info/positions_theory", "info/positions_scan"] {
        let Ok(all) = file.array(scan) else { continue };
        let row = |i: f64| {
            let width = 2 * all.dtype.size();
            all.data.get(i as usize * width..(i as usize + 1) * width)
        };
        let picked: Option<Vec<&[u8]>> = indices.to_f64().into_iter().map(row).collect();
        if let Some(picked) = picked.filter(|_| all.shape.len() == 2 && all.shape[1] == 2) {
            done.push(format!("took the positions of chunk {name} from /{scan}"));
            let data = picked.concat().into();
            return Ok(Array { dtype: all.dtype, shape: vec![rows, 2], data });
        }
    }
    let text = "holds no positions, and /info has none; they cannot be made up: prepare the scan again with positions";
    Err(PtydError::content(file.path(), format!("/{path}"), text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::inspect::{Verdict, verdict};

    #[test]
    fn weights_are_made_up_and_torn_rows_cut() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let mut writer = PlainWriter::create(&from, &[], &[]).unwrap();
        let data = Array::from_items(&[3, 1, 2], &[1u16, 2, 3, 4, 5, 6]);
        let positions = Array::from_items(&[2, 2], &[0.0, 1.0, 2.0, 3.0]);
        writer.add(&[("data", &data), ("positions", &positions)]).unwrap();
        writer.close().unwrap();
        assert!(!verdict(&from).unwrap().faults.is_empty());
        let done = fix(&from, &to).unwrap();
        assert!(done.contains(&"cut chunk 0 from 3 to 2 frames".to_owned()), "{done:?}");
        assert!(done.contains(&"set the weights of chunk 0 to one".to_owned()), "{done:?}");
        assert_eq!(verdict(&to).unwrap(), Verdict::default());
        let file = PtydFile::open(&to).unwrap();
        assert_eq!(file.array("chunks/0/weights").unwrap().data, [1u8; 4][..]);
        assert_eq!(file.array("chunks/0/indices").unwrap().to_f64(), [0.0, 1.0]);
    }
}
