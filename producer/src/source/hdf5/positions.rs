//! Positions out of two datasets.

use super::super::keys::{Keys, wrong};
use super::belongings::of_outer;
use super::order::Order;
use super::stack::Stack;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::chain;
use ptystream_common::frame::Array;
use ptystream_common::h5::read::H5Dataset;
use ptystream_common::source::SourceError;

/// One axis in metres.
struct Axis {
    shape: Vec<usize>,
    items: Vec<f64>,
    single: bool,
}

/// Reads both axes and joins them, one row (y, x) a frame.
///
/// # Errors
/// [`SourceError::Input`] if their shapes do not fit the frames, naming all three, or if a position
/// is not finite, naming its index; [`SourceError::Param`] for a column that is not there.
pub(super) fn load(
    keys: Keys<'_>,
    slow: &H5Dataset,
    fast: &H5Dataset,
    frames: &Stack,
    order: &Order,
    outer: Option<usize>,
) -> Result<Array, SourceError> {
    let of = |name: &str, dataset: &H5Dataset| axis(keys, name, dataset, outer, frames.len());
    let axes = [of("slow", slow)?, of("fast", fast)?];
    let single = axes.iter().all(|a| a.single);
    let frame_count = frames.len();
    let wanted = keys.count("num_frames")?;
    let points = join(&axes, &frames.lead());
    let names = || {
        format!("positions '{}' and '{}' of '{}'", slow.key(), fast.key(), slow.path().display())
    };
    let data =
        || format!("'{}' of '{}'", frames.dataset().key(), frames.dataset().path().display());
    let mut points = points.ok_or_else(|| {
        SourceError::input(format!(
            "{} have shapes {:?} and {:?}, which do not fit the {frame_count} frames of {} ({:?}); they must be as its leading axes, a list of as many points, or two 1-D axes to mesh",
            names(), axes[0].shape, axes[1].shape, data(), frames.shape()
        ))
    })?;
    if let Order::Chosen(chosen) = order {
        let there = points.len() as u64;
        if let Some(&beyond) = chosen.iter().find(|&&frame| frame >= there) {
            return Err(SourceError::input(format!(
                "{} are {there} points, but frame {beyond} of {} is chosen",
                names(),
                data()
            )));
        }
        points = chosen.iter().map(|&frame| points[frame as usize]).collect();
    }
    let frame_count = order.len(frame_count);
    let both = points.len().min(frame_count);
    if points.len() != frame_count {
        if wanted.is_none_or(|n| n > both) {
            return Err(SourceError::input(format!(
                "{} are {} points, but {} holds {frame_count} frames; set data.num_frames={both} to prepare the first {both}",
                names(),
                points.len(),
                data()
            )));
        }
        points.truncate(both);
    }
    let used = wanted.unwrap_or(both).min(both);
    if let Some(i) = points[..used].iter().position(|p| !(p[0].is_finite() && p[1].is_finite())) {
        let (dataset, value) =
            if points[i][0].is_finite() { (fast, points[i][1]) } else { (slow, points[i][0]) };
        return Err(SourceError::input(format!(
            "position {i} in '{}' of '{}' is {value}; every scan point needs a number in metres (data.num_frames={i} prepares those before it)",
            dataset.key(),
            dataset.path().display()
        )));
    }
    let shape = [points.len(), 2];
    Ok(if single {
        let items: Vec<f32> = points.iter().flatten().map(|&v| v as f32).collect();
        Array::from_items(&shape, &items)
    } else {
        Array::from_items(&shape, &points.concat())
    })
}

/// Returns the extents of the scan: rows and columns where positions and frames tell them, else one.
pub(super) fn grid(
    keys: Keys<'_>,
    slow: &H5Dataset,
    fast: &H5Dataset,
    frames: &Stack,
) -> Vec<usize> {
    let lead = frames.lead();
    if lead.len() == 2 {
        return lead;
    }
    let shape = |name: &str, dataset: &H5Dataset| {
        let mut shape = dataset.shape().to_vec();
        if matches!(keys.count(&format!("positions.{name}_index")), Ok(Some(_))) {
            shape.pop();
        }
        if shape.len() > 2 {
            shape.retain(|&e| e != 1);
        }
        shape
    };
    match (&shape("slow", slow)[..], &shape("fast", fast)[..]) {
        (&[a, b], &[c, d]) if [a, b] == [c, d] && a * b == frames.len() => vec![a, b],
        (&[rows], &[cols]) if rows != frames.len() && rows * cols == frames.len() => {
            vec![rows, cols]
        }
        _ => lead,
    }
}

fn axis(
    keys: Keys<'_>,
    name: &str,
    dataset: &H5Dataset,
    outer: Option<usize>,
    frames: usize,
) -> Result<Axis, SourceError> {
    let read = dataset
        .read()
        .map_err(|e| SourceError::input(format!("data.positions.{name}_key: {}", chain(&e))))?;
    let read = of_outer(&read, outer, frames);
    let multiplier = keys.number(&format!("positions.{name}_multiplier"))?.unwrap_or(1.0);
    let (mut shape, mut items) = (read.shape.clone(), read.to_f64());
    let index_key = format!("positions.{name}_index");
    if let Some(column) = keys.count(&index_key)? {
        let columns = shape.pop().filter(|&n| column < n).ok_or_else(|| {
            let (key, path) = (dataset.key(), dataset.path().display());
            wrong(
                &index_key,
                format!(
                    "{column} is no column of '{key}' in '{path}', whose shape is {:?}",
                    read.shape
                ),
            )
        })?;
        items = items.into_iter().skip(column).step_by(columns).collect();
    }
    if shape.len() > 2 {
        shape.retain(|&e| e != 1);
    }
    let single = read.dtype == Dtype::F32;
    for v in &mut items {
        *v = if single { f64::from(*v as f32 * multiplier as f32) } else { *v * multiplier };
    }
    Ok(Axis { shape, items, single })
}

/// Joins the axes in the order of the frames; `None` if their shapes fit nothing.
///
/// # Source
/// ptypy `Hdf5Loader.compute_scan_mapping_and_trajectory`: the shapes that it knows. Lists of
/// another length than the frames are joined too, for the caller to judge.
fn join([slow, fast]: &[Axis; 2], lead: &[usize]) -> Option<Vec<[f64; 2]>> {
    let pairs = || slow.items.iter().zip(&fast.items).map(|(&y, &x)| [y, x]).collect();
    let frames: usize = lead.iter().product();
    let lists = slow.shape == fast.shape && !slow.shape.is_empty();
    if lists && (slow.shape == lead || slow.items.len() == frames) {
        return Some(pairs());
    }
    if let ([rows], [cols]) = (&slow.shape[..], &fast.shape[..])
        && (lead == [*rows, *cols] || (lead.len() == 1 && rows * cols == frames))
    {
        let row = |&y: &f64| fast.items.iter().map(move |&x| [y, x]);
        return Some(slow.items.iter().flat_map(row).collect());
    }
    lists.then(pairs)
}
