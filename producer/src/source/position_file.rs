//! Positions of all frames in a file beside them: a `.npy`, a text of columns, an HDF5 file.

use super::keys::{Keys, wrong};
use super::table;
use ptystream_common::frame::Array;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{SourceError, SourceSpec};
use std::path::PathBuf;

const PATH: &[ParamType] = &[ParamType::InputPath, ParamType::None];
const TEXT: &[ParamType] = &[ParamType::Str, ParamType::None];

/// The parameters that say where positions are.
pub(super) const PARAMS: [ParamDecl; 7] = [
    ParamDecl::new("positions.file", PATH, ParamDefault::None, "File with the positions of all frames.")
    .doc("A .npy of shape (n, 2), a text of columns, or an HDF5 file with `positions.slow_key` and `positions.fast_key`."),
    ParamDecl::new(
    "positions.slow_key",
    TEXT,
    ParamDefault::None,
    "Dataset of the positions along the slow axis (y), in an HDF5 file.",
),
    ParamDecl::new(
    "positions.fast_key",
    TEXT,
    ParamDefault::None,
    "Dataset of the positions along the fast axis (x), in an HDF5 file.",
),
    ParamDecl::new(
    "positions.slow_index",
    &[ParamType::Int],
    ParamDefault::Int(0),
    "Column of the slow positions (y).",
)
.limits(Some(0.0), None)
.level(1),
    ParamDecl::new(
    "positions.fast_index",
    &[ParamType::Int],
    ParamDefault::Int(1),
    "Column of the fast positions (x); of datasets of their own, their first one.",
)
.limits(Some(0.0), None)
.level(1),
    ParamDecl::new(
    "positions.slow_multiplier",
    &[ParamType::Float],
    ParamDefault::Float(1.0),
    "Makes metres of the slow positions.",
),
    ParamDecl::new(
    "positions.fast_multiplier",
    &[ParamType::Float],
    ParamDefault::Float(1.0),
    "Makes metres of the fast positions.",
),
];

/// Reads the positions of all frames as [`load`] does, in the unit and along the axes that are given.
///
/// # Errors
/// As [`load`], and for a unit or an axis that is none.
pub(super) fn load_placed(spec: &SourceSpec) -> Result<Option<Array>, SourceError> {
    let axes = crate::positions::axes(Keys(spec))?;
    let Some(array) = load(spec)? else { return Ok(None) };
    let yx = array.to_f64();
    let placed: Vec<f64> = yx.chunks_exact(2).flat_map(|p| axes.place([p[0], p[1]])).collect();
    Ok(Some(Array::from_items(&array.shape, &placed)))
}

/// Returns which file holds the positions; `None` if they come as a stream, or only theoretical ones are given.
///
/// # Errors
/// If nothing of that is given.
pub(super) fn named(keys: Keys<'_>) -> Result<Option<PathBuf>, SourceError> {
    let path = keys.input_path("positions.file")?;
    let stream = keys.text("positions.kind")?.is_some_and(|kind| kind != "file");
    match path {
        None if !stream && !keys.has("positions_theory") => Err(wrong(
            "positions.file",
            "is needed: a .npy, a text of columns or an HDF5 file (or data.positions_theory)",
        )),
        path => Ok(path),
    }
}

/// Reads the positions of all frames, `float64`; `None` if only theoretical ones are given.
///
/// # Errors
/// [`SourceError`] naming the file, or what is not given.
pub(super) fn load(spec: &SourceSpec) -> Result<Option<Array>, SourceError> {
    let keys = Keys(spec);
    let Some(path) = named(keys)? else { return Ok(None) };
    let axis = |name: &str, of_own: bool| -> Result<Vec<f64>, SourceError> {
        let key = keys.text(&format!("positions.{name}_key"))?;
        let column = keys.count(&format!("positions.{name}_index"))?.unwrap_or(0);
        let given = spec.given.contains(&format!("positions.{name}_index"));
        let column = if of_own && !given { 0 } else { column };
        let values = table::column(&path, key, column)
            .map_err(|text| SourceError::input(format!("data.positions.file: {text}")))?;
        let factor = keys.number(&format!("positions.{name}_multiplier"))?.unwrap_or(1.0);
        Ok(values.into_iter().map(|v| v * factor).collect())
    };
    let of_own = keys.text("positions.slow_key")? != keys.text("positions.fast_key")?;
    let (slow, fast) = (axis("slow", of_own)?, axis("fast", of_own)?);
    if slow.len() != fast.len() {
        return Err(SourceError::input(format!(
            "data.positions.file: '{}' holds {} slow and {} fast positions",
            path.display(),
            slow.len(),
            fast.len()
        )));
    }
    let items: Vec<f64> = slow.iter().zip(&fast).flat_map(|(&y, &x)| [y, x]).collect();
    Ok(Some(Array::from_items(&[slow.len(), 2], &items)))
}
