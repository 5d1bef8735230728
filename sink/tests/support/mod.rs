//! A made-up scan, and the files that it makes.

// Each test file that includes this one uses a part of it.
#![allow(dead_code)]

use bytes::Bytes;
use ptystream_common::codec::Compression;
use ptystream_common::dtype::Dtype;
use ptystream_common::index::IndexRange;
use ptystream_common::message::{Announce, PreparedForm, SinkReport};
use ptystream_common::params::{PipelineParams, Save};
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::value::{NumArray, Value};
use ptystream_sink::SinkError;
use ptystream_sink::writer::{ChunkClose, Finish, Finished, Open, Publisher, Writer};
use std::path::{Path, PathBuf};

fn pipeline() -> PipelineParams {
    PipelineParams {
        compression: Compression::None,
        parts_linger_secs: 0.0,
        publish_interval_secs: 0.0,
        ..PipelineParams::default()
    }
}

/// A made-up scan whose pixels tell frame and place.
#[derive(Clone)]
pub struct Scan {
    pub announce: Announce,
    pub data: Vec<Vec<u8>>,
    pub weights: Vec<Vec<u8>>,
    pub positions: Vec<[f64; 2]>,
}

impl Scan {
    pub fn new(dfile: PathBuf, save: Save, frames: u64, per_chunk: u32, batch: u32) -> Self {
        let [h, w] = [2usize, 3usize];
        let pixel = |i: u64, p: usize| (i * 7 + p as u64) as u16;
        let data = (0..frames)
            .map(|i| (0..h * w).flat_map(|p| pixel(i, p).to_le_bytes()).collect())
            .collect();
        let weights = (0..frames)
            .map(|i| (0..h * w).map(|p| u8::from(p as u64 != i % 6)).collect())
            .collect();
        let positions: Vec<[f64; 2]> = (0..frames).map(|i| [i as f64, -(i as f64)]).collect();
        let announce = Announce {
            scan_key: "k1".into(),
            key_parts: [("data.rebin".to_owned(), "1".to_owned())].into(),
            num_frames: Some(frames),
            frames_per_chunk: per_chunk,
            form: PreparedForm {
                data: Dtype::U16,
                weights: Dtype::Bool,
                shape: [h, w],
                weights_shape: [h, w],
                batch,
                data_filters: vec![],
                weights_filters: vec![],
                common_weights: false,
            },
            positions: Some(Dtype::F64),
            meta: vec![
                ("version".into(), Value::Float(0.1)),
                ("num_frames".into(), Value::None),
                ("label".into(), Value::None),
                ("shape".into(), Value::Array(NumArray::i64s(&[2, 3]))),
                ("psize".into(), Value::Array(NumArray::f64s(&[1e-4, 1e-4]))),
                ("energy".into(), Value::Float(7.2)),
                ("distance".into(), Value::Float(7.19)),
                ("center".into(), Value::Array(NumArray::f64s(&[1.0, 1.5]))),
            ],
            info: vec![("rebin".into(), Value::Int(1))],
            positions_scan: None,
            dfile: Some(dfile),
            chunk_format: None,
            save: Some(save),
            pipeline: pipeline(),
            warnings: vec![],
            origins: vec![],
            config: String::new(),
            per_frame: vec![],
        };
        Self { announce, data, weights, positions }
    }

    pub fn frames(&self) -> u64 {
        self.data.len() as u64
    }

    pub fn chunks(&self) -> u64 {
        self.frames().div_ceil(u64::from(self.announce.frames_per_chunk))
    }

    pub fn chunk(&self, chunk: u64) -> (u64, u64) {
        let n = u64::from(self.announce.frames_per_chunk);
        (chunk * n, (chunk * n + n).min(self.frames()))
    }

    fn blob(&self, rows: &[Vec<u8>], filled: usize) -> Bytes {
        let mut bytes = rows.concat();
        bytes.resize(bytes.len() / rows.len() * filled, 0);
        bytes.into()
    }

    /// Puts a chunk's batches, the last one first.
    pub fn put_chunk(&self, writer: &mut Writer, chunk: u64) -> ChunkClose {
        self.try_put_chunk(writer, chunk).unwrap()
    }

    pub fn try_put_chunk(&self, writer: &mut Writer, chunk: u64) -> Result<ChunkClose, SinkError> {
        let (first, end) = self.chunk(chunk);
        self.try_put(writer, first, end)?;
        Ok(self.closing(first, end))
    }

    /// Puts the batches from `first` to `end`, both at the edge of a batch, the last one first.
    pub fn try_put(&self, writer: &mut Writer, first: u64, end: u64) -> Result<(), SinkError> {
        let batch = u64::from(self.announce.form.batch);
        let starts: Vec<u64> = (first..end).step_by(batch as usize).collect();
        for &start in starts.iter().rev() {
            let stop = (start + batch).min(end);
            let rows = start as usize..stop as usize;
            let range = IndexRange::new(start, (stop - start) as u32);
            let data = self.blob(&self.data[rows.clone()], batch as usize);
            let weights = (!self.announce.form.common_weights)
                .then(|| self.blob(&self.weights[rows], batch as usize));
            writer.put(range, data, weights, None)?;
        }
        Ok(())
    }

    /// What closes the chunk of these indices.
    pub fn closing(&self, first: u64, end: u64) -> ChunkClose {
        ChunkClose {
            indices: (first..end).collect(),
            positions: self
                .announce
                .positions
                .map(|_| self.positions[first as usize..end as usize].to_vec()),
            ..ChunkClose::default()
        }
    }

    pub fn open(&self) -> (Writer, Publisher) {
        match Writer::open(&self.announce).unwrap() {
            Open::Ready(writer, publisher) => (writer, *publisher),
            Open::AlreadyComplete(_) => panic!("the file is complete already"),
        }
    }

    pub fn finish(&self) -> Finish {
        Finish {
            num_frames: self.frames(),
            report: SinkReport { frames: self.frames(), ..SinkReport::default() },
            ..Finish::default()
        }
    }

    /// Writes what is not on disk yet, chunks in reverse order; returns how many were written.
    pub fn write(&self) -> (u64, Finished) {
        let (mut writer, mut publisher) = self.open();
        let mut written = 0;
        let todo = (0..self.chunks()).filter(|&c| !writer.durable().contains(self.chunk(c).0));
        for chunk in todo.collect::<Vec<_>>().into_iter().rev() {
            let close = self.put_chunk(&mut writer, chunk);
            let part = writer.close_chunk(chunk, &close).unwrap();
            publisher.publish(vec![part]).unwrap();
            written += 1;
        }
        (written, publisher.finish(&self.finish()).unwrap())
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Reads frames, weights, positions and indices in the order of chunks and rows.
pub fn content(path: &Path) -> [Vec<u8>; 4] {
    let file = PtydFile::open(path).unwrap();
    let mut all = [vec![], vec![], vec![], vec![]];
    for chunk in file.chunks().unwrap() {
        for (i, name) in ["data", "weights", "positions", "indices"].into_iter().enumerate() {
            all[i].extend_from_slice(
                &file.array(&format!("chunks/{}/{name}", chunk.name)).unwrap().data,
            );
        }
    }
    all
}

pub fn expected(scan: &Scan) -> [Vec<u8>; 4] {
    [
        scan.data.concat(),
        scan.weights.concat(),
        scan.positions.iter().flatten().flat_map(|v| v.to_le_bytes()).collect(),
        (0..scan.frames() as i64).flat_map(|i| i.to_le_bytes()).collect(),
    ]
}
