//! A scan without the pipeline: package by package, in this process, as ptypy's `PtyScan.auto` gives
//! them.
//!
//! ```no_run
//! use ptystream::auto::{Auto, AutoScan};
//! use ptystream::config::{self, ConfigArgs};
//!
//! # fn main() -> Result<(), ptystream_common::error::Failure> {
//! let registry = ptystream_producer::source::builtin();
//! let args = ConfigArgs { file: Some("scan.toml".into()), ..ConfigArgs::default() };
//! let config = config::load(&args, &registry).map_err(|e| ptystream_common::error::Failure::from(&e))?;
//! let mut scan = AutoScan::open(&config, &registry)?;
//! while let Auto::Chunk(package) = scan.auto(80)? {
//!     for item in package.iterable() {
//!         println!("{} at {:?}: {:?}", item.index, item.position, item.data.shape);
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use crate::config::Config;
use bytes::Bytes;
use ptystream_common::codec::{self, Compression};
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::frame::{Array, FrameForm, Loaded};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{Announce, PreparedForm};
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::{Common, Registry, Source, SourceError};
use ptystream_common::value::Value;
use ptystream_producer::measure::Centers;
use ptystream_producer::scan::Scan;
use ptystream_worker::prepare::Preparer;
use std::collections::BTreeMap;

/// What [`AutoScan::auto`] returns.
#[derive(Clone, Debug, PartialEq)]
pub enum Auto {
    /// The next prepared frames.
    Chunk(Box<Package>),
    /// Fewer frames can be had than `data.min_frames` (or, where the centre is to be found, than the
    /// first chunk has): ask again later.
    Wait,
    /// No more will come.
    EndOfScan,
}

/// Prepared frames and what belongs to the scan.
#[derive(Clone, Debug, PartialEq)]
pub struct Package {
    /// What becomes `/meta` of a file: version, label, shape, psize, energy, center, distance,
    /// num_frames.
    pub common: Vec<(String, Value)>,
    /// The frames.
    pub chunk: Chunk,
}

/// The frames of a package.
#[derive(Clone, Debug, PartialEq)]
pub struct Chunk {
    /// Which scan points.
    pub indices: Vec<u64>,
    /// Those of them that this process has: all.
    pub indices_node: Vec<u64>,
    /// Number of the chunk, from 0.
    pub num: u64,
    /// Prepared frames, `[n, rows, cols]`.
    pub data: Array,
    /// Their weights, `[n, rows, cols]`; 0 is bad.
    pub weights: Array,
    /// Positions (y, x) in metres, one a frame, if there are any.
    pub positions: Option<Vec<[f64; 2]>>,
}

/// One frame of a package.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Which scan point.
    pub index: u64,
    /// The frame, `[rows, cols]`.
    pub data: Array,
    /// (y, x) in metres.
    pub position: Option<[f64; 2]>,
    /// Its weights, `[rows, cols]`.
    pub mask: Array,
}

impl Package {
    /// Walks through the frames.
    pub fn iterable(&self) -> impl Iterator<Item = Item> + '_ {
        let chunk = &self.chunk;
        chunk.indices.iter().enumerate().map(|(row, &index)| Item {
            index,
            data: row_of(&chunk.data, row),
            position: chunk.positions.as_ref().map(|all| all[row]),
            mask: row_of(&chunk.weights, row),
        })
    }
}

/// Returns one frame of a stack; nothing is copied.
fn row_of(stack: &Array, row: usize) -> Array {
    let shape = stack.shape[1..].to_vec();
    let bytes = shape.iter().product::<usize>() * stack.dtype.size();
    let data = stack.data.slice(row * bytes..(row + 1) * bytes);
    Array { dtype: stack.dtype, shape, data }
}

/// A scan that gives its frames on demand; nothing is written.
pub struct AutoScan {
    scan: Scan,
    source: Box<dyn Source>,
    common: Common,
    /// `None` until the centre is known.
    ready: Option<Ready>,
    next: u64,
    num: u64,
}

/// What is needed for preparing.
struct Ready {
    preparer: Preparer,
    form: PreparedForm,
    meta: Vec<(String, Value)>,
    /// The weights of a frame, where they are common to all.
    weights: Option<Bytes>,
}

impl AutoScan {
    /// Opens a scan; the pipeline's ways of storing (batch, compression) do not count.
    ///
    /// # Errors
    /// Everything that is wrong with source, positions, geometry or memory, and a live source:
    /// its frames are kept by the pipeline only.
    pub fn open(config: &Config, registry: &Registry) -> Result<Self, Failure> {
        Self::open_until(config, registry, &Shutdown::new())
    }

    /// As [`Self::open`]; `shutdown` ends the wait for a scan that has not begun.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_until(
        config: &Config,
        registry: &Registry,
        shutdown: &Shutdown,
    ) -> Result<Self, Failure> {
        let mut pipeline = config.pipeline.clone();
        pipeline.compression = Compression::None;
        let mut scan = Scan::open(&config.data, &pipeline, registry, shutdown)
            .map_err(|e| Failure::from(&e))?;
        let source = scan.source.take().filter(|s| !s.is_live()).ok_or_else(|| {
            let text = format!(
                "the source '{}' is live: its frames can be had through `ptystream run` only",
                config.data.name
            );
            Failure::new(Kind::Config, text)
        })?;
        scan.plan.batch = 1;
        let common = scan.common();
        Ok(Self { scan, source, common, ready: None, next: 0, num: 0 })
    }

    /// Returns things that a user should know, such as values that nobody gave.
    pub fn warnings(&self) -> &[String] {
        &self.scan.warnings
    }

    /// Returns type and extent of raw frames.
    pub fn frame_form(&self) -> FrameForm {
        self.scan.plan.frame
    }

    /// Returns the nominal positions (y, x) in metres, one a scan point, as far as they are known
    /// beforehand.
    pub fn positions(&self) -> Option<Vec<[f64; 2]>> {
        self.scan.positions_of(0..self.scan.num_frames?)
    }

    /// Returns what the pipeline's sink would be told of the scan.
    ///
    /// # Errors
    /// While the centre is not known: after the first package it is.
    pub fn announce(&self) -> Result<Announce, Failure> {
        self.scan.announce().map_err(|e| Failure::from(&e))
    }

    /// Prepares the next frames, at most `frames`.
    ///
    /// # Errors
    /// What cannot be read or prepared; the same frames are tried again by the next call.
    ///
    /// # Source
    /// ptypy `core/data.py`, `PtyScan.auto`: the same three answers. There the weights' mask rule
    /// after rebinning, too, goes by package.
    pub fn auto(&mut self, frames: usize) -> Result<Auto, Failure> {
        let first = self.scan.plan.frames_per_chunk as usize;
        if self.ready.is_none() {
            if self.scan.needs_center() {
                let all = self.scan.num_frames.map_or(first, |n| first.min(n as usize));
                let (there, ended) = self.look(0, first)?;
                if there < all && !ended {
                    return Ok(Auto::Wait);
                }
                if there == 0 {
                    return Ok(Auto::EndOfScan);
                }
                let center = self.measure(there)?;
                self.scan.set_center(Some(center)).map_err(|e| Failure::from(&e))?;
            }
            self.ready = Some(self.make_ready()?);
        }
        let (there, ended) = self.look(self.next, frames)?;
        let least = self.scan.min_frames().min(frames);
        if !ended && there < least.max(1) {
            return Ok(Auto::Wait);
        }
        if there == 0 {
            return Ok(Auto::EndOfScan);
        }
        let package = self.package(there)?;
        self.next += there as u64;
        self.num += 1;
        Ok(Auto::Chunk(Box::new(package)))
    }

    /// Tells how many frames can be had from `start` on, and whether those are the last.
    fn look(&mut self, start: u64, frames: usize) -> Result<(usize, bool), Failure> {
        let num_frames = self.scan.num_frames.map(|n| n as usize);
        let check = match self.source.check(frames, start as usize, num_frames) {
            Ok(check) => check,
            Err(SourceError::Interrupted { frames: came, .. }) => {
                let left = came.saturating_sub(start) as usize;
                return Ok((left.min(frames), left <= frames));
            }
            Err(error) => return Err(Failure::from(&error)),
        };
        let there = check.accessible.min(frames);
        let end = start as usize + there;
        let ended = check.end_of_scan == Some(true) || num_frames.is_some_and(|n| end >= n);
        Ok((there, ended))
    }

    fn load(&mut self, start: u64, frames: usize) -> Result<Vec<Loaded>, Failure> {
        let indices: Vec<Index> = (start..start + frames as u64).map(Index).collect();
        let loaded = self.source.load(&indices).map_err(|e| Failure::from(&e))?;
        loaded
            .into_iter()
            .map(|l| self.source.correct(l, &self.common).map_err(|e| Failure::from(&e)))
            .collect()
    }

    fn arrays(&self) -> BTreeMap<String, Array> {
        let array = |(head, data): &(ptystream_common::message::ArrayHead, Bytes)| {
            let array = Array { dtype: head.dtype, shape: head.shape.clone(), data: data.clone() };
            (head.name.clone(), array)
        };
        self.scan.arrays.iter().map(array).collect()
    }

    fn preparer(&self) -> Result<Preparer, Failure> {
        Preparer::new(&self.scan.plan, &self.arrays())
            .map_err(|e| Failure::new(Kind::Config, chain(&e)))
    }

    fn measure(&mut self, frames: usize) -> Result<[f64; 2], Failure> {
        let mut preparer = self.preparer()?;
        let mut centers = Centers::default();
        for loaded in self.load(0, frames)? {
            let index = loaded.index;
            let center = preparer.measure(&loaded).map_err(|e| of_frame(index, &e))?;
            centers.add(IndexRange { first: index, count: 1 }, vec![center]);
        }
        centers.mean().ok_or_else(|| {
            let text = "the automatic centre cannot be found: no frame of the first chunk has any \
                        counts; give data.center = [row, column]";
            Failure::new(Kind::Input, text)
        })
    }

    fn make_ready(&self) -> Result<Ready, Failure> {
        let announce = self.scan.announce().map_err(|e| Failure::from(&e))?;
        let mut preparer = self.preparer()?;
        let form = announce.form;
        let wrong = |e: String| Failure::new(Kind::Config, e);
        let blob = preparer.common_weights().map_err(|e| wrong(chain(&e)))?;
        let [rows, cols] = form.weights_shape;
        let weights = match blob {
            None => None,
            Some(blob) => {
                let mut plain = Vec::new();
                let expected = rows * cols * form.weights.size();
                codec::decode(&form.weights_filters, &blob, expected, &mut plain)
                    .map_err(|e| wrong(chain(&e)))?;
                Some(plain.into())
            }
        };
        let mut meta = announce.meta;
        let num_frames = self.scan.num_frames.map_or(Value::None, |n| Value::Int(n as i64));
        meta.push(("num_frames".to_owned(), num_frames));
        Ok(Ready { preparer, form, meta, weights })
    }

    fn package(&mut self, frames: usize) -> Result<Package, Failure> {
        let start = self.next;
        let loaded = self.load(start, frames)?;
        let nominal = self.scan.positions_of(start..start + frames as u64);
        let Some(ready) = &mut self.ready else {
            return Err(Failure::new(Kind::Config, "the centre is not known yet"));
        };
        let Ready { preparer, form, meta, weights: common } = ready;
        let (mut data, mut weights, mut best) = (Vec::new(), Vec::new(), Vec::new());
        let mut positions = Vec::new();
        for (row, frame) in loaded.iter().enumerate() {
            let range = IndexRange { first: frame.index, count: 1 };
            let batch = preparer
                .prepare(range, std::slice::from_ref(frame))
                .map_err(|e| of_frame(frame.index, &e))?;
            data.extend_from_slice(&batch.data);
            weights
                .extend_from_slice(batch.weights.as_ref().or(common.as_ref()).map_or(&[], |w| w));
            best.extend(batch.max_valid.iter().flatten().copied());
            positions.extend(frame.position.or(nominal.as_ref().map(|all| all[row])));
        }
        // Frames whose best bin has fewer good pixels than the package's best lose their weights.
        let most = best.iter().max().copied().unwrap_or(0);
        let [rows, cols] = form.weights_shape;
        let bytes = rows * cols * form.weights.size();
        for (row, _) in best.iter().enumerate().filter(|&(_, &n)| n < most) {
            weights[row * bytes..(row + 1) * bytes].fill(0);
        }
        let stack = |dtype: Dtype, [rows, cols]: [usize; 2], bytes: Vec<u8>| Array {
            dtype,
            shape: vec![loaded.len(), rows, cols],
            data: bytes.into(),
        };
        let indices: Vec<u64> = loaded.iter().map(|l| l.index.0).collect();
        Ok(Package {
            common: meta.clone(),
            chunk: Chunk {
                indices_node: indices.clone(),
                num: self.num,
                data: stack(form.data, form.shape, data),
                weights: stack(form.weights, form.weights_shape, weights),
                positions: (positions.len() == indices.len()).then_some(positions),
                indices,
            },
        })
    }
}

fn of_frame(index: Index, error: &ptystream_worker::PrepareError) -> Failure {
    Failure::new(Kind::Input, format!("frame {index}: {}", chain(error)))
}
