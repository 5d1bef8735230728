//! Normalisation by one value of each frame, such as the intensity of the incoming beam (I0).

use super::keys::{Keys, wrong};
use super::table;
use ptystream_common::frame::Array;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::SourceError;

/// How far from the mean a value may be, in standard deviations, before it is not used.
const SIGMA: f64 = 3.0;

/// `normalization.sigma`, of all sources.
pub(super) const SIGMA_DECL: ParamDecl = ParamDecl::new(
    "normalization.sigma",
    &[ParamType::Float],
    ParamDefault::Float(SIGMA),
    "Frames whose value is further from the mean than so many standard deviations are left as they are.",
)
.level(2);

/// `normalization.reference`, of all sources.
pub(super) const REFERENCE_DECL: ParamDecl = ParamDecl::new(
    "normalization.reference",
    &[ParamType::Str, ParamType::Float],
    ParamDefault::Str("scan"),
    "By what frames are multiplied: the mean over the scan (\"scan\"), that over the first chunk (\"first_chunk\"), or a value.",
)
.level(2);

/// `normalization.file`, where it may be of any kind.
const FILE_DECL: ParamDecl = ParamDecl::new(
    "normalization.file",
    &[ParamType::InputPath, ParamType::None],
    ParamDefault::None,
    "File with one value a frame (I0): each frame is divided by its own and multiplied by the reference.",
)
.doc("A .npy, an HDF5 file with `normalization.key`, or a text of columns with `normalization.column`.")
.level(1);

/// `normalization.key`, for files of any kind.
const KEY_DECL: ParamDecl = ParamDecl::new(
    "normalization.key",
    &[ParamType::Str, ParamType::None],
    ParamDefault::None,
    "Dataset of the values in an HDF5 file.",
)
.level(1);

/// `normalization.column`, for texts.
const COLUMN_DECL: ParamDecl = ParamDecl::new(
    "normalization.column",
    &[ParamType::Int],
    ParamDefault::Int(0),
    "Column of the values in a text, from 0 on.",
)
.limits(Some(0.0), None)
.level(1);

/// The parameters of sources whose values may be in files of any kind.
pub(super) const PARAMS: [ParamDecl; 5] =
    [FILE_DECL, KEY_DECL, COLUMN_DECL, SIGMA_DECL, REFERENCE_DECL];

/// What frames are multiplied by.
#[derive(Debug)]
pub(super) struct Scale {
    /// One factor a scan point; or, with `by_first_chunk`, the values themselves, NaN where they are not
    /// used.
    pub values: Array,
    /// Whether the reference is the mean over the first chunk, which the source does not know.
    pub by_first_chunk: bool,
    /// What a user should know.
    pub note: Option<String>,
}

/// Makes factors of the values of all scan points: reference over value.
///
/// # Errors
/// [`SourceError`] if a value is not above 0, naming its scan point.
///
/// # Source
/// ptypy `Hdf5Loader`: values that are `sigma` standard deviations off the mean are not used.
pub(super) fn scale(keys: Keys<'_>, values: &[f64], origin: &str) -> Result<Scale, SourceError> {
    if let Some(at) = values.iter().position(|v| !(v.is_finite() && *v > 0.0)) {
        return Err(SourceError::input(format!(
            "data.normalization: the value of scan point {at} in {origin} is {}; it must be above 0 \
             (framefilter leaves frames out)",
            values[at]
        )));
    }
    let count = values.len();
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count as f64;
    let sigma = keys.number("normalization.sigma")?.unwrap_or(SIGMA);
    let (reference, by_first_chunk) = match keys.text("normalization.reference") {
        Ok(Some("scan") | None) => (mean, false),
        Ok(Some("first_chunk")) => (mean, true),
        Ok(Some(other)) => {
            let text = format!("'{other}' is neither \"scan\", \"first_chunk\" nor a value");
            return Err(wrong("normalization.reference", text));
        }
        Err(_) => (keys.number("normalization.reference")?.unwrap_or(mean), false),
    };
    let used = |v: f64| (v - mean).abs() <= sigma * variance.sqrt();
    let factor = |&v: &f64| match (used(v), by_first_chunk) {
        (true, true) => v,
        (true, false) => reference / v,
        (false, true) => f64::NAN,
        (false, false) => 1.0,
    };
    let factors: Vec<f64> = values.iter().map(factor).collect();
    let left = values.iter().filter(|v| !used(**v)).count();
    let note = (left > 0).then(|| {
        format!("{left} frames are not normalised: their value in {origin} is too far off")
    });
    Ok(Scale { values: Array::from_items(&[count], &factors), by_first_chunk, note })
}

/// Reads the values of a file of any kind, if one is given, for a scan of so many frames.
///
/// # Errors
/// [`SourceError`] naming the file; also if there are fewer values than frames.
pub(super) fn of_file(keys: Keys<'_>, frames: usize) -> Result<Option<Scale>, SourceError> {
    let Some(path) = keys.input_path("normalization.file")? else {
        return match keys.has("normalization.key") {
            true => Err(wrong("normalization.file", "is needed with data.normalization.key")),
            false => Ok(None),
        };
    };
    let key = keys.text("normalization.key")?;
    let column = keys.count("normalization.column")?.unwrap_or(0);
    let values = table::column(&path, key, column)
        .map_err(|text| SourceError::input(format!("data.normalization.file: {text}")))?;
    let origin = format!("'{}'", path.display());
    match values.get(..frames) {
        Some(values) => scale(keys, values, &origin).map(Some),
        None => Err(SourceError::input(format!(
            "data.normalization.file: {origin} holds {} values; one for each of {frames} frames is \
             needed",
            values.len()
        ))),
    }
}
