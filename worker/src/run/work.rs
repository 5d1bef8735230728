//! What a worker does with a ticket: gets its frames, measures or prepares them.

use crate::prepare::Preparer;
use crate::signals::{Beside, scalars};
use bytes::Bytes;
use ptystream_common::checksum;
use ptystream_common::codec::Encoding;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::form::region;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::Index;
use ptystream_common::message::{ArrayHead, PreparePlan, Prepared, Stamp, Ticket};
use ptystream_common::source::{Common, Registry, Source, Unloaded, load_each};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Bytes of raw frames that are read before they are prepared, if a frame has less: about half of what
/// the processor keeps at hand.
const CACHED_BYTES: usize = 1 << 20;

/// How a worker prepares at the moment: made anew for each plan.
pub(super) struct Work {
    pub plan: PreparePlan,
    pub stamp: Stamp,
    preparer: Preparer,
    source: Option<Box<dyn Source>>,
    common: Common,
    /// The scan's weight, to be sent to the sink before the first result.
    pub common_weights: Option<Bytes>,
}

impl Work {
    /// Takes a plan and its arrays; opens the source where workers read.
    ///
    /// # Errors
    /// What is wrong with the source or the plan.
    pub fn new(
        plan: PreparePlan,
        stamp: Stamp,
        heads: Vec<ArrayHead>,
        parts: Vec<Bytes>,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let mut arrays = BTreeMap::new();
        let mut common = Common::default();
        for (head, data) in heads.into_iter().zip(parts) {
            let array = Array { dtype: head.dtype, shape: head.shape, data };
            match head.name.strip_prefix("common.") {
                Some(name) => {
                    common.other.insert(name.to_owned(), array);
                }
                None => {
                    arrays.insert(head.name, array);
                }
            }
        }
        let mut source = None;
        if let Some(spec) = &plan.source {
            let mut opened = registry.open(spec).map_err(|e| Failure::from(&e))?;
            if plan.load_common {
                let own = opened.load_common().map_err(|e| Failure::from(&e))?;
                let own_arrays = [("dark", own.dark), ("flat", own.flat), ("scale", own.scale)];
                for (name, array) in own_arrays {
                    if let Some(array) = array {
                        arrays.insert(name.to_owned(), array);
                    }
                }
                common.other.extend(own.other);
            }
            if let Some(region) = region(&plan) {
                opened.narrow(region);
            }
            source = plan.workers_read.then_some(opened);
        }
        let config = |e: crate::error::PrepareError| {
            Failure::new(Kind::Config, ptystream_common::error::chain(&e))
        };
        let mut preparer = Preparer::new(&plan, &arrays).map_err(config)?;
        // While the centre is being measured nothing goes to the sink.
        let common_weights = match plan.geometry {
            Some(_) => preparer.common_weights().map_err(config)?,
            None => None,
        };
        Ok(Self { plan, stamp, preparer, source, common, common_weights })
    }

    /// Gets frames of a ticket: from its parts, or from the source.
    fn load(
        &mut self,
        ticket: &Ticket,
        parts: &[Bytes],
        indices: &[Index],
    ) -> Result<Vec<Loaded>, Unloaded> {
        match (&ticket.pixels, &mut self.source) {
            (Some(_), _) => Ok(self.unpack(ticket, parts)),
            (None, Some(source)) => load_each(source.as_mut(), &self.common, indices),
            (None, None) => {
                let text = "the ticket has no pixels and the plan no source to read them from";
                let frame = (ticket.range.first, Failure::new(Kind::Peer, text));
                Err(Unloaded::Frames(vec![frame]))
            }
        }
    }

    fn unpack(&self, ticket: &Ticket, parts: &[Bytes]) -> Vec<Loaded> {
        let (Some(head), Some(pixels)) = (&ticket.pixels, parts.first()) else {
            return Vec::new();
        };
        let form: FrameForm = self.plan.frame;
        let mut at = 0;
        let mut weights_at = 0;
        let mut loaded = Vec::with_capacity(head.frames.len());
        for (row, (index, (encoding, length))) in ticket.range.iter().zip(&head.frames).enumerate()
        {
            if ticket.gaps.contains(&index) {
                continue;
            }
            let encoding: Encoding = encoding.clone();
            let payload = pixels.slice(at..at + *length as usize);
            at += *length as usize;
            let weights = head.weights.zip(parts.get(1)).map(|((dtype, shape), all)| {
                let bytes = shape[0] * shape[1] * dtype.size();
                let data = all.slice(weights_at..weights_at + bytes);
                weights_at += bytes;
                Array { dtype, shape: shape.to_vec(), data }
            });
            loaded.push(Loaded {
                index,
                frame: match (encoding, head.region) {
                    (Encoding::Raw, Some(region)) => RawFrame::part(form, region, payload),
                    (encoding, _) => RawFrame::new(form, encoding, payload),
                },
                position: head.positions.as_ref().and_then(|all| all.get(row)).copied(),
                weights,
                scale: head.scale.as_ref().and_then(|all| all.get(row)).copied(),
                scalars: head
                    .scalars
                    .as_ref()
                    .and_then(|all| all.get(row))
                    .cloned()
                    .unwrap_or_default(),
            });
        }
        loaded
    }

    /// Gets and prepares a ticket's frames, so many at a time that they stay in the processor's cache.
    ///
    /// # Errors
    /// All frames that cannot be had or prepared, or the scan.
    pub fn prepare(
        &mut self,
        ticket: &Ticket,
        parts: &[Bytes],
    ) -> Result<(Prepared, Vec<Bytes>), Unloaded> {
        let range = ticket.range;
        let of_batch =
            |error| Unloaded::Frames(vec![(range.first, prepare_failure(range.first, &error))]);
        let mut batch = self.preparer.begin(range).map_err(of_batch)?;
        let wanted = wanted(ticket);
        let at_once = match ticket.pixels {
            Some(_) => wanted.len().max(1),
            None => (CACHED_BYTES / self.plan.frame.bytes().max(1)).max(1),
        };
        let (mut beside, mut bad) = (Vec::with_capacity(wanted.len()), Vec::new());
        let (mut load, mut prepare) = (Duration::ZERO, Duration::ZERO);
        for indices in wanted.chunks(at_once) {
            let begun = Instant::now();
            let loaded = match self.load(ticket, parts, indices) {
                Ok(loaded) => loaded,
                Err(Unloaded::Frames(frames)) => {
                    bad.extend(frames);
                    continue;
                }
                Err(scan) => return Err(scan),
            };
            let loaded_at = Instant::now();
            load += loaded_at - begun;
            for frame in loaded {
                if let Err(error) = self.preparer.add(&mut batch, &frame) {
                    bad.push((frame.index, prepare_failure(frame.index, &error)));
                }
                let Loaded { index, position, scalars, .. } = frame;
                beside.push(Beside { index, position, scalars });
            }
            prepare += loaded_at.elapsed();
        }
        if !bad.is_empty() {
            return Err(Unloaded::Frames(bad));
        }
        let begun = Instant::now();
        let batch = self.preparer.finish(batch).map_err(of_batch)?;
        let parts: Vec<Bytes> = [Some(batch.data), batch.weights].into_iter().flatten().collect();
        let mut head = Prepared {
            range,
            positions: positions(ticket, &beside),
            max_valid: batch.max_valid,
            invalid: batch.invalid,
            scalars: scalars(range, &beside, batch.signals.as_deref()),
            checksums: self.plan.checksums.then(|| checksum::sums(&parts)),
            load_us: load.as_micros() as u32,
            prepare_us: 0,
        };
        head.prepare_us = (prepare + begun.elapsed()).as_micros() as u32;
        Ok((head, parts))
    }

    /// Gets a ticket's frames and measures the centre of each.
    ///
    /// # Errors
    /// All frames that cannot be had or measured, or the scan.
    pub fn measure(
        &mut self,
        ticket: &Ticket,
        parts: &[Bytes],
    ) -> Result<Vec<Option<[f64; 2]>>, Unloaded> {
        let wanted = wanted(ticket);
        let loaded = match wanted.is_empty() {
            true => Vec::new(),
            false => self.load(ticket, parts, &wanted)?,
        };
        let mut centers = Vec::with_capacity(loaded.len());
        let mut bad = Vec::new();
        for frame in &loaded {
            match self.preparer.measure(frame) {
                Ok(center) => centers.push(center),
                Err(error) => bad.push((frame.index, prepare_failure(frame.index, &error))),
            }
        }
        if bad.is_empty() { Ok(centers) } else { Err(Unloaded::Frames(bad)) }
    }
}

/// Returns the indices of which frames are to come.
fn wanted(ticket: &Ticket) -> Vec<Index> {
    ticket.range.iter().filter(|i| !ticket.gaps.contains(i)).collect()
}

/// Returns one position an index: the frame's own, or what the ticket says.
fn positions(ticket: &Ticket, beside: &[Beside]) -> Option<Vec<[f64; 2]>> {
    if beside.iter().all(|frame| frame.position.is_none()) {
        return ticket.positions.clone();
    }
    let of = |(row, index): (usize, Index)| {
        let nominal = ticket.positions.as_ref().and_then(|all| all.get(row));
        let own = beside.iter().find(|frame| frame.index == index);
        own.and_then(|frame| frame.position).or(nominal.copied()).unwrap_or([f64::NAN; 2])
    };
    Some(ticket.range.iter().enumerate().map(of).collect())
}

fn prepare_failure(index: Index, error: &crate::error::PrepareError) -> Failure {
    let text = format!("frame {index}: {}", ptystream_common::error::chain(error));
    Failure::new(Kind::Input, text)
}
