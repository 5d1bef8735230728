//! What a worker does with a ticket: gets its frames, measures or prepares them.

use crate::prepare::Preparer;
use bytes::Bytes;
use ptystream_common::checksum;
use ptystream_common::codec::Encoding;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::form::region;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{ArrayHead, PreparePlan, Prepared, Stamp, Ticket};
use ptystream_common::source::{Common, Registry, Source, Unloaded, load_each};
use std::collections::BTreeMap;

/// Frames that cannot be had, and why.
pub(super) type Failed = Vec<(Index, Failure)>;

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

    /// Gets a ticket's frames: from its parts, or from the source. Gaps have none.
    pub fn load(&mut self, ticket: &Ticket, parts: Vec<Bytes>) -> Result<Vec<Loaded>, Unloaded> {
        let wanted: Vec<Index> = ticket.range.iter().filter(|i| !ticket.gaps.contains(i)).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        match (&ticket.pixels, &mut self.source) {
            (Some(_), _) => Ok(self.unpack(ticket, &parts)),
            (None, Some(source)) => load_each(source.as_mut(), &self.common, &wanted),
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

    /// Prepares a batch; on an error, finds out which frames it is about.
    pub fn prepare(
        &mut self,
        ticket: &Ticket,
        loaded: &[Loaded],
    ) -> Result<(Prepared, Vec<Bytes>), Failed> {
        let range = ticket.range;
        let batch = match self.preparer.prepare(range, loaded) {
            Ok(batch) => batch,
            Err(first) => {
                let mut bad = Vec::new();
                for frame in loaded {
                    let one = IndexRange { first: frame.index, count: 1 };
                    if let Err(error) = self.preparer.prepare(one, std::slice::from_ref(frame)) {
                        bad.push((frame.index, prepare_failure(frame.index, &error)));
                    }
                }
                if bad.is_empty() {
                    bad.push((range.first, prepare_failure(range.first, &first)));
                }
                return Err(bad);
            }
        };
        let own = loaded.iter().any(|l| l.position.is_some());
        let positions = match own {
            true => Some(
                range
                    .iter()
                    .enumerate()
                    .map(|(row, index)| {
                        let nominal = ticket.positions.as_ref().and_then(|all| all.get(row));
                        let own = loaded.iter().find(|l| l.index == index);
                        own.and_then(|l| l.position).or(nominal.copied()).unwrap_or([f64::NAN; 2])
                    })
                    .collect(),
            ),
            false => ticket.positions.clone(),
        };
        let parts: Vec<Bytes> = [Some(batch.data), batch.weights].into_iter().flatten().collect();
        let head = Prepared {
            range,
            positions,
            max_valid: batch.max_valid,
            invalid: batch.invalid,
            scalars: crate::signals::scalars(range, loaded, batch.signals.as_deref()),
            checksums: self.plan.checksums.then(|| checksum::sums(&parts)),
            load_us: 0,
            prepare_us: 0,
        };
        Ok((head, parts))
    }

    /// Measures the centre of each frame.
    ///
    /// # Errors
    /// Which frames are damaged.
    pub fn measure(&mut self, loaded: &[Loaded]) -> Result<Vec<Option<[f64; 2]>>, Failed> {
        let mut centers = Vec::with_capacity(loaded.len());
        let mut bad = Vec::new();
        for frame in loaded {
            match self.preparer.measure(frame) {
                Ok(center) => centers.push(center),
                Err(error) => bad.push((frame.index, prepare_failure(frame.index, &error))),
            }
        }
        if bad.is_empty() { Ok(centers) } else { Err(bad) }
    }
}

fn prepare_failure(index: Index, error: &crate::error::PrepareError) -> Failure {
    let text = format!("frame {index}: {}", ptystream_common::error::chain(error));
    Failure::new(Kind::Input, text)
}
