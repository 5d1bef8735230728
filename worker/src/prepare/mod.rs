//! Preparation: from raw frames to HDF5 chunks of data and weights.
//!
//! Life of a frame: decode, mark invalid pixels, then in one pass over the rows dark, flat, crop
//! or pad, flips, rebinning, the transpose, the stored type; the weights go the same way; the
//! batch is encoded.
//!
//! | module | what it holds |
//! |---|---|
//! | `data` | the pass over a frame's rows |
//! | `correct` | dark and flat |
//! | `invalid` | invalid raw values |
//! | `image`, `rebin` | where pixels go |
//! | `weights` | masks |
//! | `convert`, `pixel` | types |

pub(crate) mod convert;
pub(crate) mod correct;
pub(crate) mod data;
pub(crate) mod image;
pub(crate) mod invalid;
pub(crate) mod pixel;
pub(crate) mod rebin;
pub(crate) mod weights;

use crate::center::Measure;
use crate::error::PrepareError;
use crate::plan::{Layout, Recipe, ScanArrays, extent};
use crate::signals::Signals;
use bytes::Bytes;
use image::Pixels;
use pixel::with_type;
use ptystream_common::buffer::{Buffer, Pool};
use ptystream_common::codec::{self, Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, Loaded, Region};
use ptystream_common::geometry::GeometryError;
use ptystream_common::index::IndexRange;
use ptystream_common::message::{PreparePlan, PreparedForm, WeightsFrom};
use std::collections::BTreeMap;
use weights::Weights;

/// A prepared batch, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct PreparedBatch {
    /// One HDF5 chunk of `batch` frames; what no frame fills is zero.
    pub data: Bytes,
    /// The same of the weights, unless they are common to the scan.
    pub weights: Option<Bytes>,
    /// Good pixels in the best bin of each frame, where weights are the frames' own and rebinned.
    pub max_valid: Option<Vec<u32>>,
    /// Invalid raw pixels of each frame in the region of interest, where any value is invalid.
    pub invalid: Option<Vec<u32>>,
    /// What alignment is judged by, of each frame, where the plan wants it; NaN for a gap.
    pub signals: Option<Vec<[f64; 3]>>,
}

/// A batch whose frames are still to come.
#[derive(Debug)]
pub struct OpenBatch {
    range: IndexRange,
    data: Buffer,
    weights: Buffer,
    /// Rows that have a frame.
    filled: Vec<bool>,
    max_valid: Option<Vec<u32>>,
    invalid: Option<Vec<u32>>,
    signals: Option<Vec<[f64; 3]>>,
}

/// Prepares frames of one scan; holds the scan's arrays and memory that is reused.
///
/// # Source
/// ptypy `core/data.py`, `PtyScan.get_data_chunk`.
#[derive(Debug)]
pub struct Preparer {
    plan: PreparePlan,
    arrays: ScanArrays,
    recipe: Option<Recipe>,
    measure: Option<Measure>,
    signals: Signals,
    /// Weights of a frame where none come with it.
    weight: Array,
    decoded: Vec<u8>,
    bad: Vec<u8>,
    pool: Pool,
    data_scratch: data::DataScratch,
    weight_scratch: weights::WeightScratch,
}

impl Preparer {
    /// Checks `plan` against the scan's arrays `dark`, `flat` and `weight`; others are left alone.
    ///
    /// # Errors
    /// [`PrepareError`] if an array is missing or does not fit the frames.
    pub fn new(plan: &PreparePlan, arrays: &BTreeMap<String, Array>) -> Result<Self, PrepareError> {
        let arrays = ScanArrays::new(plan, arrays)?;
        let recipe = match &plan.geometry {
            Some(geometry) => Some(Recipe::new(plan, geometry, &arrays)?),
            None => None,
        };
        let weight = match &arrays.weight {
            Some(weight) => weight.clone(),
            None => {
                let [rows, cols] = plan.frame.shape;
                Array::from_items(&[rows, cols], &vec![1.0f64; rows * cols])
            }
        };
        let preparer = Self {
            plan: plan.clone(),
            arrays,
            recipe,
            measure: None,
            signals: Signals::default(),
            weight,
            decoded: Vec::new(),
            bad: Vec::new(),
            pool: Pool::default(),
            data_scratch: data::DataScratch::default(),
            weight_scratch: weights::WeightScratch::default(),
        };
        if let Some(recipe) = &preparer.recipe
            && !recipe.form.common_weights
        {
            preparer.same_extent(&preparer.weight)?;
        }
        Ok(preparer)
    }

    /// Returns types and extents of what comes out; `None` while the centre is not known.
    pub fn form(&self) -> Option<&PreparedForm> {
        self.recipe.as_ref().map(|r| &r.form)
    }

    /// Prepares the weights that all frames share: one HDF5 chunk of `batch` equal weights.
    ///
    /// `None` if every frame has its own.
    /// # Errors
    /// [`GeometryError::NotResolved`] while the centre is not known.
    pub fn common_weights(&mut self) -> Result<Option<Bytes>, PrepareError> {
        let recipe = self.recipe.as_ref().ok_or(GeometryError::NotResolved)?;
        if !recipe.form.common_weights {
            return Ok(None);
        }
        let weight_extent = extent(&self.weight);
        // A plan without a geometry has no recipe, so this one has both.
        let geometry = self.plan.geometry.as_ref().ok_or(GeometryError::NotResolved)?;
        let other = weight_extent != self.plan.frame.shape;
        let layout = Layout::new(geometry, weight_extent, other);
        let bad = recipe.bad_flat.as_deref().filter(|_| !other);
        let form = &recipe.form;
        let n = layout.out_len() * form.weights.size();
        let mut out = Buffer::zeros(n * form.batch as usize);
        let w = Weights { bytes: &self.weight.data, dtype: self.weight.dtype, bad };
        store_weights(recipe, &layout, &w, &mut self.weight_scratch, &mut out, 0);
        let first = out.byte_slot(n, 0).to_vec();
        for k in 1..form.batch as usize {
            out.byte_slot(n, k).copy_from_slice(&first);
        }
        encoded(&form.weights_filters, out, &self.pool).map(Some)
    }

    /// Measures the centre of mass of a frame, corrected, over its good pixels.
    ///
    /// # Shapes and units
    /// (row, column) in raw pixels; `None` if the sum is zero or not finite.
    /// # Errors
    /// [`PrepareError`] if the frame does not fit its scan.
    pub fn measure(&mut self, frame: &Loaded) -> Result<Option<[f64; 2]>, PrepareError> {
        self.check(frame, Region::whole(self.plan.frame.shape))?;
        self.same_extent(&self.weight)?;
        decode(frame, Region::whole(self.plan.frame.shape), &mut self.decoded)?;
        if self.measure.is_none() {
            self.measure = Some(Measure::new(&self.plan, &self.arrays));
        }
        let masked = own_weights(frame, &self.arrays);
        let weight = masked.as_ref().or(frame.weights.as_ref()).unwrap_or(&self.weight);
        let raw = raw_pixels(frame, &self.decoded);
        Ok(self.measure.as_mut().and_then(|m| m.center(raw, weight)))
    }

    /// Prepares the frames of a batch; rows of `range` that have no frame become zeros.
    ///
    /// An invalid raw value becomes 0, before dark and flat, and so does its weight.
    /// # Errors
    /// [`PrepareError`], naming the frame where it is one frame's fault.
    pub fn prepare(
        &mut self,
        range: IndexRange,
        frames: &[Loaded],
    ) -> Result<PreparedBatch, PrepareError> {
        let mut batch = self.begin(range)?;
        for frame in frames {
            self.add(&mut batch, frame)?;
        }
        self.finish(batch)
    }

    /// Begins a batch whose frames come one by one.
    ///
    /// # Errors
    /// [`PrepareError::Batch`] if it has no frames or too many; [`GeometryError::NotResolved`] while the
    /// centre is not known.
    pub fn begin(&self, range: IndexRange) -> Result<OpenBatch, PrepareError> {
        let most = self.plan.batch;
        if range.count == 0 || range.count > most {
            return Err(PrepareError::Batch { got: range.count as usize, batch: most });
        }
        let recipe = self.recipe.as_ref().ok_or(GeometryError::NotResolved)?;
        let (form, rows) = (&recipe.form, range.count as usize);
        let n = recipe.layout.out_len() * most as usize;
        let own = !form.common_weights;
        Ok(OpenBatch {
            range,
            data: self.pool.take(n * form.data.size()),
            weights: match own {
                true => self.pool.take(n * form.weights.size()),
                false => Buffer::default(),
            },
            filled: vec![false; most as usize],
            max_valid: (own && recipe.layout.rebin > 1).then(|| vec![0; rows]),
            invalid: recipe.invalid.any().then(|| vec![0; rows]),
            signals: self.plan.signals.then(|| vec![[f64::NAN; 3]; rows]),
        })
    }

    /// Prepares one frame of a batch, as [`Self::prepare`].
    ///
    /// # Errors
    /// [`PrepareError`], naming the frame where it is one frame's fault; the batch goes on without it.
    pub fn add(&mut self, batch: &mut OpenBatch, frame: &Loaded) -> Result<(), PrepareError> {
        let recipe = self.recipe.as_ref().ok_or(GeometryError::NotResolved)?;
        if !batch.range.contains(frame.index) {
            let (got, batch) = (batch.range.count as usize + 1, self.plan.batch);
            return Err(PrepareError::Batch { got, batch });
        }
        self.check(frame, recipe.needed)?;
        let slot = (frame.index.0 - batch.range.first.0) as usize;
        decode(frame, recipe.needed, &mut self.decoded)?;
        let raw = raw_pixels(frame, &self.decoded);
        let dtype = frame.frame.form.dtype;
        let scale = match &self.arrays.scale {
            None => 1.0,
            Some(all) => *all
                .get(frame.index.0 as usize)
                .ok_or(PrepareError::ArrayMissing("scale of each frame"))?,
        };
        let scale = scale * frame.scale.unwrap_or(1.0);
        let bad = match &mut batch.invalid {
            Some(counts) => {
                counts[slot] = mark_invalid(recipe, dtype, raw, &mut self.bad);
                Some(&self.bad[..])
            }
            None => recipe.bad_flat.as_deref(),
        };
        if let Some(all) = &mut batch.signals {
            all[slot] = self.signals.of(&self.plan, recipe, &self.arrays, raw);
        }
        let (scratch, out) = (&mut self.data_scratch, &mut batch.data);
        data::prepare(recipe, dtype, raw, bad, scale, scratch, out, slot);
        if !recipe.form.common_weights {
            let masked = own_weights(frame, &self.arrays);
            let weight = masked.as_ref().or(frame.weights.as_ref()).unwrap_or(&self.weight);
            let w = Weights { bytes: &weight.data, dtype: weight.dtype, bad };
            let (scratch, out) = (&mut self.weight_scratch, &mut batch.weights);
            let best = store_weights(recipe, &recipe.layout, &w, scratch, out, slot);
            if let Some(all) = &mut batch.max_valid {
                all[slot] = best;
            }
        }
        batch.filled[slot] = true;
        Ok(())
    }

    /// Completes a batch: rows without a frame become zeros, and what is to be compressed is.
    ///
    /// # Errors
    /// [`PrepareError::Encode`].
    pub fn finish(&self, batch: OpenBatch) -> Result<PreparedBatch, PrepareError> {
        let OpenBatch { mut data, mut weights, filled, max_valid, invalid, signals, .. } = batch;
        let recipe = self.recipe.as_ref().ok_or(GeometryError::NotResolved)?;
        let (form, n) = (&recipe.form, recipe.layout.out_len());
        let own = !form.common_weights;
        for (slot, _) in filled.iter().enumerate().filter(|(_, filled)| !**filled) {
            data.byte_slot(n * form.data.size(), slot).fill(0);
            if own {
                weights.byte_slot(n * form.weights.size(), slot).fill(0);
            }
        }
        Ok(PreparedBatch {
            data: encoded(&form.data_filters, data, &self.pool)?,
            weights: match own {
                true => Some(encoded(&form.weights_filters, weights, &self.pool)?),
                false => None,
            },
            max_valid,
            invalid,
            signals,
        })
    }

    fn check(&self, frame: &Loaded, needed: Region) -> Result<(), PrepareError> {
        let (index, expected, got) = (frame.index, self.plan.frame, frame.frame.form);
        if got != expected {
            return Err(PrepareError::FrameForm { index, expected, got });
        }
        let there = frame.frame.region;
        if !Region::whole(expected.shape).contains(there) || !there.contains(needed) {
            return Err(PrepareError::Region { index, needed, there });
        }
        match (self.plan.weights, &frame.weights) {
            (WeightsFrom::Frame(dtype), Some(w)) => {
                if w.dtype != dtype || w.shape != expected.shape {
                    return Err(PrepareError::WeightsForm {
                        index,
                        dtype,
                        shape: expected.shape,
                        got_dtype: w.dtype,
                        got: w.shape.clone(),
                    });
                }
                Ok(())
            }
            (WeightsFrom::Frame(_), None) => Err(PrepareError::Weights { index, missing: true }),
            (_, Some(_)) => Err(PrepareError::Weights { index, missing: false }),
            (_, None) => Ok(()),
        }
    }

    fn same_extent(&self, weight: &Array) -> Result<(), PrepareError> {
        let (weight, frame) = (extent(weight), self.plan.frame.shape);
        match weight == frame {
            true => Ok(()),
            false => Err(GeometryError::WeightShape { weight, frame }.into()),
        }
    }
}

/// Decodes a frame that is encoded into `out`, as far as a region of it is needed; checks the length.
fn decode(frame: &Loaded, needed: Region, out: &mut Vec<u8>) -> Result<(), PrepareError> {
    let (index, raw) = (frame.index, &frame.frame);
    let expected = raw.bytes();
    match &raw.encoding {
        Encoding::Raw if raw.payload.len() == expected => Ok(()),
        Encoding::Raw => Err(PrepareError::FrameLength { index, expected, got: raw.payload.len() }),
        Encoding::Filters(filters) => {
            // What is encoded is a whole frame.
            let row = raw.form.shape[1] * raw.form.dtype.size();
            let rows = needed.first[0]..needed.first[0] + needed.shape[0];
            codec::decode_part(
                filters,
                &raw.payload,
                expected,
                &(rows.start * row..rows.end * row),
                out,
            )
            .map_err(|source| PrepareError::Decode { index, source })
        }
    }
}

/// Returns a frame's own weights joined with the scan's mask; `None` if there is nothing to join.
fn own_weights(frame: &Loaded, arrays: &ScanArrays) -> Option<Array> {
    Some(frame.weights.as_ref()?.masked(arrays.mask.as_ref()?))
}

/// Returns a frame's pixels after [`decode`].
fn raw_pixels<'a>(frame: &'a Loaded, decoded: &'a [u8]) -> Pixels<'a> {
    let bytes = match frame.frame.encoding {
        Encoding::Raw => &frame.frame.payload,
        Encoding::Filters(_) => decoded,
    };
    Pixels { bytes, region: frame.frame.region }
}

/// Marks invalid pixels of the part that is kept, pixels of a useless flat included; returns how
/// many raw values are invalid.
fn mark_invalid(recipe: &Recipe, dtype: Dtype, raw: Pixels<'_>, bad: &mut Vec<u8>) -> u32 {
    let layout = &recipe.layout;
    bad.resize(layout.rows.len * layout.cols.len, 0);
    with_type!(dtype, T => {
        for (y, row) in bad.chunks_exact_mut(layout.cols.len.max(1)).enumerate() {
            recipe.invalid.mark::<T>(layout.bytes_of::<T>(raw, y), row);
        }
    });
    let count = bad.iter().map(|&b| u32::from(b)).sum();
    if let Some(flat) = &recipe.bad_flat {
        bad.iter_mut().zip(flat).for_each(|(b, f)| *b |= f);
    }
    count
}

fn store_weights(
    recipe: &Recipe,
    layout: &Layout,
    weights: &Weights<'_>,
    scratch: &mut weights::WeightScratch,
    out: &mut Buffer,
    slot: usize,
) -> u32 {
    if layout.rebin > 1 {
        return weights::rebin(layout, weights, recipe.compat, scratch, out, slot);
    }
    weights::place(layout, weights, recipe.form.weights, scratch, out, slot);
    0
}

fn encoded(filters: &[Filter], raw: Buffer, pool: &Pool) -> Result<Bytes, PrepareError> {
    if filters.is_empty() {
        return Ok(pool.lend(raw));
    }
    let mut out = Vec::new();
    let done = codec::encode(filters, raw.as_ref(), &mut out).map_err(PrepareError::Encode);
    pool.give(raw);
    done.map(|()| out.into())
}
