//! Which frames of the file make the scan, and in which order.
//!
//! | step | parameter | keeps |
//! |---|---|---|
//! | 1 | `positions.bounding_box.{slow,fast}_axis_bounds` | a part of the grid: from a lower bound on, or `[low, high)` |
//! | 2 | `positions.skip` | every so many points along each axis |
//! | 3 | `framefilter.key` | frames whose value is above 0 |
//! | 4 | `frameorder.indices` | these of what is left, in this order |
//!
//! # Source
//! ptypy `experiment/hdf5_loader.py`: parameters of the same names.

use super::super::keys::{Keys, wrong};
use super::stack::Stack;
use ptystream_common::error::chain;
use ptystream_common::h5::read::H5Dataset;
use ptystream_common::source::SourceError;
use ptystream_common::value::Value;

/// Scan points and their frames in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// All, as they lie in the file.
    All,
    /// For each scan point its frame.
    Chosen(Vec<u64>),
}

impl Order {
    /// Chooses frames by the scan's parameters; `grid`: extents of the scan, one or two.
    ///
    /// # Errors
    /// [`SourceError::Param`] for bounds, orders and filters that do not fit, naming both sides.
    pub fn new(
        keys: Keys<'_>,
        grid: &[usize],
        filter: Option<&H5Dataset>,
        frames: &Stack,
    ) -> Result<Self, SourceError> {
        let n = frames.len();
        let bounds = [
            bounds(keys, "positions.bounding_box.slow_axis_bounds")?,
            bounds(keys, "positions.bounding_box.fast_axis_bounds")?,
        ];
        let skip = keys.count("positions.skip")?.unwrap_or(1).max(1);
        let order = keys.0.data.at("frameorder.indices").filter(|v| !v.is_none());
        if bounds == [None, None] && skip == 1 && filter.is_none() && order.is_none() {
            return Ok(Self::All);
        }
        let mut chosen = within(grid, bounds, skip)?;
        chosen.retain(|&frame| frame < n as u64);
        if let Some(filter) = filter {
            let values = filter
                .read()
                .map_err(|e| SourceError::input(format!("data.framefilter.key: {}", chain(&e))))?
                .to_f64();
            if values.len() != n {
                let text = format!(
                    "'{}' has shape {:?}, which is not one value for each of {n} frames",
                    filter.key(),
                    filter.shape()
                );
                return Err(wrong("framefilter.key", text));
            }
            chosen.retain(|&frame| values[frame as usize] > 0.0);
        }
        if let Some(order) = order {
            chosen = reordered(&chosen, order)?;
        }
        if chosen.is_empty() {
            return Err(SourceError::input(
                "no frame is left: look at data.positions.bounding_box, framefilter and frameorder",
            ));
        }
        Ok(Self::Chosen(chosen))
    }

    /// Returns how many scan points there are in a file of `frames`.
    pub fn len(&self, frames: usize) -> usize {
        match self {
            Self::All => frames,
            Self::Chosen(chosen) => chosen.len(),
        }
    }

    /// Returns the frame of a scan point; one beyond the end is the file's to complain about.
    pub fn frame(&self, point: u64) -> u64 {
        match self {
            Self::All => point,
            Self::Chosen(chosen) => chosen.get(point as usize).copied().unwrap_or(u64::MAX),
        }
    }
}

/// An axis's bounds, `[low, high)`; no upper bound: to its end.
type Bounds = Option<(usize, Option<usize>)>;

fn bounds(keys: Keys<'_>, key: &str) -> Result<Bounds, SourceError> {
    let Some(value) = keys.0.data.at(key).filter(|v| !v.is_none()) else { return Ok(None) };
    let number = |v: &Value| v.as_i64().and_then(|v| usize::try_from(v).ok());
    let items = match value {
        Value::List(items) => items.iter().map(number).collect::<Option<Vec<_>>>(),
        Value::Array(a) if a.items.iter().all(|v| *v >= 0.0 && v.fract() == 0.0) => {
            Some(a.items.iter().map(|v| *v as usize).collect())
        }
        single => number(single).map(|low| vec![low]),
    };
    match items.as_deref() {
        Some(&[low]) => Ok(Some((low, None))),
        Some(&[low, high]) if low < high => Ok(Some((low, Some(high)))),
        _ => Err(wrong(
            key,
            format!("{value} is neither a lower bound nor [low, high], indices of 0 or more"),
        )),
    }
}

/// Lists the frames of a part of the grid.
fn within(grid: &[usize], bounds: [Bounds; 2], skip: usize) -> Result<Vec<u64>, SourceError> {
    let axis = |extent: usize, bounds: Bounds, name: &str| {
        let (low, high) = bounds.unwrap_or((0, None));
        let high = high.unwrap_or(extent);
        match low < extent && high <= extent {
            true => Ok((low..high).step_by(skip)),
            false => Err(wrong(
                &format!("positions.bounding_box.{name}_axis_bounds"),
                format!("[{low}, {high}) is not within the axis of {extent} points"),
            )),
        }
    };
    match (grid, bounds) {
        (&[slow, fast], [of_slow, of_fast]) => {
            let columns: Vec<usize> = axis(fast, of_fast, "fast")?.collect();
            Ok(axis(slow, of_slow, "slow")?
                .flat_map(|row| columns.iter().map(move |column| (row * fast + column) as u64))
                .collect())
        }
        (_, [_, Some(_)]) => Err(wrong(
            "positions.bounding_box.fast_axis_bounds",
            "is given, but the positions are a list without rows; give slow_axis_bounds, which then \
             counts along the list",
        )),
        (list, [bounds, None]) => {
            let all = list.iter().product();
            Ok(axis(all, bounds, "slow")?.map(|frame| frame as u64).collect())
        }
    }
}

fn reordered(chosen: &[u64], order: &Value) -> Result<Vec<u64>, SourceError> {
    let fail = |text: String| wrong("frameorder.indices", text);
    let items: Vec<f64> = match order {
        Value::Array(a) => a.items.clone(),
        Value::List(items) => items
            .iter()
            .map(|v| v.as_f64().ok_or_else(|| fail(format!("{v} is no index"))))
            .collect::<Result<_, _>>()?,
        other => return Err(fail(format!("{other} is no list of indices"))),
    };
    items
        .into_iter()
        .map(|v| {
            let known = (v >= 0.0 && v.fract() == 0.0).then_some(v as usize);
            known.and_then(|at| chosen.get(at).copied()).ok_or_else(|| {
                fail(format!("{v} is none of the {} frames that are left", chosen.len()))
            })
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_grid_is_chosen_row_by_row() {
        let all = within(&[3, 4], [None, None], 1).unwrap();
        assert_eq!(all, (0..12).collect::<Vec<_>>());
        let part = within(&[3, 4], [Some((1, None)), Some((1, Some(3)))], 1).unwrap();
        assert_eq!(part, [5, 6, 9, 10]);
        assert_eq!(within(&[3, 4], [None, None], 2).unwrap(), [0, 2, 8, 10]);
        assert_eq!(within(&[7], [Some((2, Some(6))), None], 2).unwrap(), [2, 4]);
        for (grid, bounds, words) in [
            (&[3, 4][..], [Some((3, None)), None], "within the axis of 3"),
            (&[3, 4], [None, Some((0, Some(5)))], "within the axis of 4"),
            (&[12], [None, Some((0, None))], "without rows"),
        ] {
            let error = within(grid, bounds, 1).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_order_chooses_among_what_is_left() {
        let list = |items: &[i64]| Value::List(items.iter().map(|&v| Value::Int(v)).collect());
        assert_eq!(reordered(&[5, 7, 9], &list(&[2, 0, 0])).unwrap(), [9, 5, 5]);
        let error = reordered(&[5, 7, 9], &list(&[3])).unwrap_err().to_string();
        assert!(error.contains("none of the 3 frames"), "{error}");
    }
}
