//! Files that ptypy wrote, written again by the writer from their own frames: every object is of
//! the same name, type, extent, value and attribute `type`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use bytes::Bytes;
use ptystream_common::codec::{Compression, Filter};
use ptystream_common::index::IndexRange;
use ptystream_common::message::{Announce, PreparedForm};
use ptystream_common::params::{PipelineParams, Save};
use ptystream_common::ptyd::read::{Node, NodeKind, PtydFile};
use ptystream_common::value::{NumArray, Value};
use ptystream_sink::writer::{ChunkClose, Finish, Open, Writer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const GOLDENS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/goldens/expected");

fn pipeline() -> PipelineParams {
    PipelineParams {
        compression: Compression::None,
        parts_linger_secs: 0.0,
        publish_interval_secs: 0.0,
        ..PipelineParams::default()
    }
}

/// Lays a recorded case out in `folder`, unpacked.
fn unpack(case: &Path, folder: &Path) -> Option<PathBuf> {
    for entry in std::fs::read_dir(case).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Ok(packed) = std::fs::read(&path) else { continue };
        let (name, bytes) = match name.strip_suffix(".gz") {
            Some(name) => {
                let size = u32::from_le_bytes(packed[packed.len() - 4..].try_into().unwrap());
                let mut bytes = vec![0; size as usize];
                libdeflater::Decompressor::new().gzip_decompress(&packed, &mut bytes).unwrap();
                (name.to_owned(), bytes)
            }
            None => (name, packed),
        };
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    Some(folder.join("out.ptyd")).filter(|p| p.is_file())
}

fn objects(file: &PtydFile) -> BTreeMap<String, Node> {
    let nodes = file.tree().unwrap().into_iter();
    let ptypys = nodes.filter(|n| !n.path.starts_with("/ptystream"));
    ptypys.map(|n| (n.path.clone(), n)).collect()
}

/// Writes the frames of `golden` again; `None` if there is nothing that the writer takes.
fn rewrite(golden: &PtydFile, to: &Path, save: Save) -> Option<()> {
    let chunks = golden.chunks().unwrap();
    let first = golden.array(&format!("chunks/{}/data", chunks.first()?.name)).ok()?;
    let weights = golden.array(&format!("chunks/{}/weights", chunks[0].name)).ok()?;
    let positions = golden.array(&format!("chunks/{}/positions", chunks[0].name)).ok();
    let per_chunk = chunks[0].rows?;
    let total: usize = chunks.iter().map(|c| c.rows.unwrap()).sum();
    let even = chunks.iter().rev().skip(1).all(|c| c.rows == Some(per_chunk));
    // A region of interest of no pixels is refused long before the writer.
    if !even || chunks.last()?.rows? > per_chunk || first.is_empty() {
        return None;
    }
    let meta = golden.values("meta").unwrap();
    let Some(&Value::Int(num_frames)) =
        meta.iter().find(|(k, _)| k == "num_frames").map(|(_, v)| v)
    else {
        return None;
    };
    let announce = Announce {
        scan_key: "k".into(),
        key_parts: BTreeMap::new(),
        num_frames: Some(total as u64),
        frames_per_chunk: per_chunk as u32,
        form: PreparedForm {
            data: first.dtype,
            weights: weights.dtype,
            shape: [first.shape[1], first.shape[2]],
            weights_shape: [weights.shape[1], weights.shape[2]],
            batch: 3,
            data_filters: vec![Filter::Deflate(4)],
            weights_filters: vec![],
            common_weights: false,
        },
        positions: positions.as_ref().map(|p| p.dtype),
        meta,
        info: golden.values("info").unwrap(),
        positions_scan: None,
        dfile: Some(to.to_owned()),
        chunk_format: None,
        save: Some(save),
        pipeline: pipeline(),
        warnings: vec![],
        origins: vec![],
        config: String::new(),
        per_frame: vec![],
    };
    let Open::Ready(mut writer, mut publisher) = Writer::open(&announce).unwrap() else {
        panic!("nothing was there before");
    };
    let mut packer = libdeflater::Compressor::new(libdeflater::CompressionLvl::default());
    for (k, chunk) in chunks.iter().enumerate() {
        let rows = chunk.rows.unwrap();
        let start = k * per_chunk;
        for at in (0..rows).step_by(3) {
            let n = 3.min(rows - at);
            let blob = |name: &str| {
                let array = golden.rows(&format!("chunks/{}/{name}", chunk.name), at, n).unwrap();
                let mut bytes = array.data.to_vec();
                bytes.resize(bytes.len() / n * 3, 0);
                bytes
            };
            let data = blob("data");
            let mut packed = vec![0; packer.zlib_compress_bound(data.len())];
            let size = packer.zlib_compress(&data, &mut packed).unwrap();
            packed.truncate(size);
            let range = IndexRange::new((start + at) as u64, n as u32);
            writer.put(range, packed.into(), Some(Bytes::from(blob("weights"))), None).unwrap();
        }
        let positions = positions.as_ref().map(|_| {
            let all = golden.array(&format!("chunks/{}/positions", chunk.name)).unwrap().to_f64();
            all.chunks_exact(2).map(|p| [p[0], p[1]]).collect()
        });
        let indices = (start as u64..(start + rows) as u64).collect();
        let close = ChunkClose { indices, positions, ..ChunkClose::default() };
        publisher.publish(vec![writer.close_chunk(k as u64, &close).unwrap()]).unwrap();
    }
    let end = Finish { num_frames: num_frames as u64, ..Finish::default() };
    let _ = publisher.finish(&end).unwrap();
    Some(())
}

fn same(golden: &PtydFile, ours: &PtydFile, name: &str) {
    let (a, b) = (objects(golden), objects(ours));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>(), "{name}");
    for (path, x) in &a {
        let y = &b[path];
        assert_eq!(x.kind, y.kind, "{name} {path}");
        // A tuple of Python comes back as a list: values know no tuples.
        let kind = x.kind_attr.as_deref().map(|k| if k == "arraytuple" { "arraylist" } else { k });
        if x.link.is_none() && y.link.is_none() {
            assert_eq!(kind, y.kind_attr.as_deref(), "{name} {path}");
        }
        match &x.kind {
            NodeKind::Dataset { pixel: Some(_), .. } => {
                let bytes = |f: &PtydFile| f.array(path).unwrap().data;
                assert!(bytes(golden) == bytes(ours), "{name} {path} differs");
            }
            NodeKind::Dataset { .. } => {
                assert_eq!(golden.text(path).unwrap(), ours.text(path).unwrap(), "{name} {path}");
            }
            _ => {}
        }
    }
}

#[test]
fn files_of_ptypy_are_written_alike() {
    if !Path::new(GOLDENS).is_dir() {
        println!("skipped: ../shared is absent");
        return;
    }
    let mut count = 0;
    for case in std::fs::read_dir(GOLDENS).unwrap() {
        let case = case.unwrap().path();
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let Some(path) = unpack(&case, folder.path()) else { continue };
        let Ok(golden) = PtydFile::open(&path) else { continue };
        if golden.has("chunks/0/data") {
            for (save, file) in [(Save::Append, "append.ptyd"), (Save::Link, "link.ptyd")] {
                let to = folder.path().join(file);
                if rewrite(&golden, &to, save).is_some() {
                    same(&golden, &PtydFile::open(&to).unwrap(), &format!("{name} {file}"));
                    count += 1;
                }
            }
        }
    }
    assert!(count > 150, "only {count} files were written again");
}

#[test]
fn frames_of_ptypy_are_merged_in_order() {
    if !Path::new(GOLDENS).is_dir() {
        println!("skipped: ../shared is absent");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = unpack(&Path::new(GOLDENS).join("rebin_2"), folder.path()).unwrap();
    let golden = PtydFile::open(&path).unwrap();
    let to = folder.path().join("merge.ptyd");
    rewrite(&golden, &to, Save::Merge).unwrap();
    let merged = PtydFile::open(&to).unwrap();
    for name in ["data", "weights", "positions", "indices"] {
        let all: Vec<u8> = golden
            .chunks()
            .unwrap()
            .iter()
            .flat_map(|c| golden.array(&format!("chunks/{}/{name}", c.name)).unwrap().data)
            .collect();
        assert!(merged.array(&format!("chunks/0/{name}")).unwrap().data == all, "{name}");
    }
    assert_eq!(merged.chunks().unwrap().len(), 1);
    let shape = NumArray::i64s(&[24, 24]);
    let meta: BTreeMap<_, _> = merged.values("meta").unwrap().into_iter().collect();
    assert_eq!(meta["shape"], Value::Array(shape));
}
