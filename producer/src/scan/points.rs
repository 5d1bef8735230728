//! Which scan points there are: positions, their number, and what is seen on the first frame.

use crate::error::ProducerError;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::index::Index;
use ptystream_common::params::{Compat, DataParams};
use ptystream_common::source::Source;

/// How many frames are tried before the scan is given up as unreadable.
const FIRST_FRAMES: u64 = 10;

/// Positions of all scan points, (y, x) in metres.
pub(super) struct Positions {
    pub dtype: Dtype,
    pub yx: Vec<[f64; 2]>,
    pub theory: bool,
}

/// Theory before recorded positions; both checked.
pub(super) fn choose_positions(
    data: &DataParams,
    scan: Option<Array>,
    compat: Compat,
) -> Result<Option<Positions>, ProducerError> {
    let from = |shape: &[usize], dtype, items: Vec<f64>, theory: bool| {
        let name = if theory { "data.positions_theory" } else { "the source's positions" };
        if shape.len() != 2 || shape[1] != 2 {
            return Err(ProducerError::Config(format!(
                "{name} have the shape {shape:?}; they must be (number of frames, 2), each (y, x)"
            )));
        }
        let yx: Vec<[f64; 2]> = items.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
        if compat == Compat::None
            && let Some(bad) = yx.iter().position(|p| !p[0].is_finite() || !p[1].is_finite())
        {
            return Err(ProducerError::Config(format!(
                "{name} hold {:?} at index {bad}; correct that line or end the scan before it \
                 with data.num_frames = {bad}",
                yx[bad]
            )));
        }
        Ok(Some(Positions { dtype, yx, theory }))
    };
    if let Some(theory) = &data.positions_theory {
        return from(&theory.shape, theory.dtype, theory.items.clone(), true);
    }
    match scan {
        Some(array) => from(&array.shape, array.dtype, array.to_f64(), false),
        None => Ok(None),
    }
}

/// ptypy's rule for the number of scan points (PtyScan.initialize), and what the source can give.
pub(super) fn count_frames(
    data: &DataParams,
    positions: Option<&Positions>,
    held: Option<u64>,
    warnings: &mut Vec<String>,
) -> Result<Option<u64>, ProducerError> {
    let count = match positions {
        Some(p) if p.theory => Some(p.yx.len() as u64),
        Some(p) => {
            let there = p.yx.len() as u64;
            match data.num_frames {
                Some(wanted) if wanted > there => {
                    warnings.push(format!(
                        "data.num_frames = {wanted}, but there are {there} positions: \
                         {there} frames are prepared"
                    ));
                    Some(there)
                }
                Some(wanted) => Some(wanted),
                None => Some(there),
            }
        }
        None => data.num_frames.or(held),
    };
    match (count, held) {
        (Some(count), Some(held)) if held < count => Err(ProducerError::Config(format!(
            "the scan has {count} points, but the source holds {held} frames; to prepare those, \
             set data.num_frames = {held}"
        ))),
        (Some(count), Some(held)) if held > count && data.num_frames.is_none() => {
            warnings.push(format!(
                "the source holds {held} frames, the scan has {count} points: the last {} frames \
                 are left out",
                held - count
            ));
            Ok(Some(count))
        }
        _ => Ok(count),
    }
}

/// Loads the first frame that can be had: what comes with frames is seen on it.
pub(super) fn first_frame(
    source: &mut dyn Source,
    num_frames: Option<u64>,
) -> Result<ptystream_common::frame::Loaded, ProducerError> {
    let mut last = None;
    for index in 0..num_frames.unwrap_or(1).min(FIRST_FRAMES) {
        match source.load(&[Index(index)]) {
            Ok(mut loaded) if !loaded.is_empty() => return Ok(loaded.swap_remove(0)),
            Ok(_) => {}
            Err(error) => last = last.or(Some(error)),
        }
    }
    Err(last.map_or_else(
        || ProducerError::Config("the source gave no frame for the first indices".into()),
        ProducerError::from,
    ))
}
