//! Whether a header agrees with itself and with its payload.

use super::{WireError, name};
use crate::dtype::Dtype;
use crate::index::IndexRange;
use crate::message::{Body, Header, PreparedForm, Ticket};
use crate::value::{NumArray, Value};
use bytes::Bytes;

/// Checks counts, lengths and extents of a message.
///
/// # Errors
/// [`WireError::Parts`] with what differs.
pub(super) fn message(header: &Header, parts: &[Bytes]) -> Result<(), WireError> {
    let what = name(&header.body);
    body(&header.body, parts).map_err(|text| WireError::Parts { what, text })
}

fn body(body: &Body, parts: &[Bytes]) -> Result<(), String> {
    match body {
        Body::Plan { plan, arrays, .. } => {
            extent("plan.frame", plan.frame.dtype, &plan.frame.shape)?;
            at_least_one("plan.batch", plan.batch)?;
            at_least_one("plan.frames_per_chunk", plan.frames_per_chunk)?;
            number_of_parts(parts, arrays.len())?;
            for (i, array) in arrays.iter().enumerate() {
                let expected = extent(&array.name, array.dtype, &array.shape)?;
                part_length(parts, i, expected, &array.name)?;
            }
            Ok(())
        }
        Body::Ticket(t) => ticket(t, parts),
        Body::Measured { range, centers } => {
            no_parts(parts)?;
            frames_of(range)?;
            one_each(range, "centers", Some(centers.len()))
        }
        Body::Failed { range, .. } => {
            no_parts(parts)?;
            frames_of(range)
        }
        Body::Damaged { range } => {
            no_parts(parts)?;
            range.iter().try_for_each(frames_of)
        }
        Body::CommonWeights { .. } => number_of_parts(parts, 1),
        Body::Prepared(p) => {
            frames_of(&p.range)?;
            one_each(&p.range, "positions", p.positions.as_ref().map(Vec::len))?;
            one_each(&p.range, "max_valid", p.max_valid.as_ref().map(Vec::len))?;
            one_each(&p.range, "invalid", p.invalid.as_ref().map(Vec::len))?;
            one_each(&p.range, "scalars", p.scalars.as_ref().map(Vec::len))?;
            match parts.len() {
                1 | 2 => one_a_part(p.checksums.as_deref(), parts),
                n => Err(format!("{n} payload parts, expected 1 or 2")),
            }
        }
        Body::Announce(a) => {
            no_parts(parts)?;
            at_least_one("frames_per_chunk", a.frames_per_chunk)?;
            form(&a.form)?;
            if let Some(positions) = &a.positions_scan {
                num_array("positions_scan", positions)?;
            }
            a.meta.iter().chain(&a.info).try_for_each(|(key, v)| value(key, v))
        }
        Body::Gap { range, positions, .. } => {
            no_parts(parts)?;
            frames_of(range)?;
            one_each(range, "positions", positions.as_ref().map(Vec::len))
        }
        Body::Finished(report) => {
            no_parts(parts)?;
            report.gaps.iter().try_for_each(|(range, _)| frames_of(range))
        }
        Body::Hello { .. }
        | Body::Refused(_)
        | Body::Stop(_)
        | Body::Broken(_)
        | Body::Bye
        | Body::Beat { .. }
        | Body::Reset
        | Body::Paused { .. }
        | Body::Report(_)
        | Body::EndOfScan { .. }
        | Body::Want { .. }
        | Body::Grant { .. }
        | Body::Opened { .. }
        | Body::State { .. } => no_parts(parts),
    }
}

fn ticket(t: &Ticket, parts: &[Bytes]) -> Result<(), String> {
    frames_of(&t.range)?;
    one_each(&t.range, "positions", t.positions.as_ref().map(Vec::len))?;
    let Some(pixels) = &t.pixels else { return no_parts(parts) };
    one_each(&t.range, "pixels.frames", Some(pixels.frames.len()))?;
    one_each(&t.range, "pixels.positions", pixels.positions.as_ref().map(Vec::len))?;
    one_each(&t.range, "pixels.scale", pixels.scale.as_ref().map(Vec::len))?;
    one_each(&t.range, "pixels.scalars", pixels.scalars.as_ref().map(Vec::len))?;
    number_of_parts(parts, 1 + usize::from(pixels.weights.is_some()))?;
    let bytes: u64 = pixels.frames.iter().map(|&(_, bytes)| u64::from(bytes)).sum();
    part_length(parts, 0, bytes, "frames")?;
    if let Some(region) = pixels.region {
        let end = [0, 1].map(|axis| region.first[axis].checked_add(region.shape[axis]));
        if end.contains(&None) || region.pixels().is_none() {
            return Err(format!("pixels.region {region:?} is larger than any frame"));
        }
    }
    one_a_part(pixels.checksums.as_deref(), parts)?;
    if let Some((dtype, shape)) = pixels.weights {
        // A row without a frame has no weights either.
        let count = t.range.iter().filter(|i| !t.gaps.contains(i)).count();
        let bytes = extent("pixels.weights", dtype, &[count, shape[0], shape[1]])?;
        part_length(parts, 1, bytes, "weights")?;
    }
    Ok(())
}

fn form(form: &PreparedForm) -> Result<(), String> {
    at_least_one("form.batch", form.batch)?;
    let batch = form.batch as usize;
    for (dtype, [rows, cols]) in [(form.data, form.shape), (form.weights, form.weights_shape)] {
        extent("form", dtype, &[batch, rows, cols])?;
    }
    // Data and weights of a frame are added up with the extent of the data.
    extent("form", Dtype::F64, &[2, form.shape[0], form.shape[1]]).map(drop)
}

fn value(key: &str, v: &Value) -> Result<(), String> {
    match v {
        Value::Array(a) => num_array(key, a),
        Value::List(items) => items.iter().try_for_each(|item| value(key, item)),
        Value::Map(entries) => entries.iter().try_for_each(|(k, item)| value(k, item)),
        Value::None | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Str(_) => Ok(()),
    }
}

fn num_array(key: &str, a: &NumArray) -> Result<(), String> {
    let bytes = extent(key, a.dtype, &a.shape)?;
    let items = a.items.len() as u64;
    if bytes == items * a.dtype.size() as u64 {
        return Ok(());
    }
    Err(format!("{key} has {items} items, which do not fill its shape {:?}", a.shape))
}

/// Returns the bytes of an array that fits into an address space.
fn extent(key: &str, dtype: Dtype, shape: &[usize]) -> Result<u64, String> {
    shape
        .iter()
        .try_fold(dtype.size(), |n, &axis| n.checked_mul(axis))
        .filter(|&n| isize::try_from(n).is_ok())
        .map(|n| n as u64)
        .ok_or_else(|| format!("{key} of shape {shape:?} is larger than any memory"))
}

fn frames_of(range: &IndexRange) -> Result<(), String> {
    match range.first.0.checked_add(u64::from(range.count)) {
        Some(_) => Ok(()),
        None => Err(format!("{} frames from index {} on do not exist", range.count, range.first)),
    }
}

fn one_each(range: &IndexRange, key: &str, items: Option<usize>) -> Result<(), String> {
    match items {
        Some(n) if n as u64 != u64::from(range.count) => {
            Err(format!("{n} {key} for {} frames", range.count))
        }
        _ => Ok(()),
    }
}

fn at_least_one(key: &str, n: u32) -> Result<(), String> {
    if n == 0 { Err(format!("{key} is 0, it must be at least 1")) } else { Ok(()) }
}

fn one_a_part(checksums: Option<&[u32]>, parts: &[Bytes]) -> Result<(), String> {
    match checksums {
        Some(all) if all.len() != parts.len() => {
            Err(format!("{} checksums for {} payload parts", all.len(), parts.len()))
        }
        _ => Ok(()),
    }
}

fn no_parts(parts: &[Bytes]) -> Result<(), String> {
    number_of_parts(parts, 0)
}

fn number_of_parts(parts: &[Bytes], expected: usize) -> Result<(), String> {
    match parts.len() {
        n if n == expected => Ok(()),
        n => Err(format!("{n} payload parts, expected {expected}")),
    }
}

fn part_length(parts: &[Bytes], i: usize, expected: u64, key: &str) -> Result<(), String> {
    match parts[i].len() as u64 {
        n if n == expected => Ok(()),
        n => Err(format!("payload part {} ({key}) has {n} bytes, expected {expected}", i + 1)),
    }
}
