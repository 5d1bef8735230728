//! Which dataset of an HDF5 file is what, by shape, name, unit and size of the numbers.

use ptystream_common::dtype::Dtype;
use ptystream_common::h5::survey::{Found, Survey};
use std::collections::BTreeMap;

/// Smallest extent of a frame.
const FRAME: usize = 8;
/// Steps between scan points that are plausible, metres.
const STEPS: [f64; 2] = [1e-8, 1e-3];
/// keV in a joule.
const KEV_PER_JOULE: f64 = 6.241_509_074_460_763e15;

/// A dataset, and what is thought of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Guess {
    /// Its key.
    pub key: String,
    /// Makes the wanted unit of its values; of a mask: negative if 0 is good.
    pub factor: f64,
    /// What was seen, for people.
    pub comment: String,
}

/// One axis of the positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its dataset.
    pub key: String,
    /// Its column, if the dataset holds both axes.
    pub column: Option<usize>,
    /// Makes metres of its values.
    pub factor: f64,
    /// Where the factor comes from.
    pub comment: String,
}

/// Both axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Axes {
    /// y.
    pub slow: Axis,
    /// x.
    pub fast: Axis,
}

/// What a file seems to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Guesses {
    /// The frames.
    pub frames: Guess,
    /// Positions that fit them.
    pub positions: Option<Axes>,
    /// Photon energy, factor to keV.
    pub energy: Option<Guess>,
    /// Distance to the detector, factor to metres.
    pub distance: Option<Guess>,
    /// Pixel size, factor to metres.
    pub psize: Option<Guess>,
    /// A mask.
    pub mask: Option<Guess>,
    /// A dark frame.
    pub dark: Option<Guess>,
    /// A flat frame.
    pub flat: Option<Guess>,
}

/// Reads the values of a small dataset.
pub type Values<'a> = &'a dyn Fn(&str) -> Option<Vec<f64>>;

/// Frames: their key, extent of the leading axes, and of a frame.
struct Frames {
    guess: Guess,
    lead: Vec<usize>,
    frame: [usize; 2],
}

fn last(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn lower(key: &str) -> String {
    last(key).to_lowercase()
}

impl Guesses {
    /// Looks through the datasets of a file.
    ///
    /// # Errors
    /// If nothing in it can be frames; the text says what there is.
    pub fn new(survey: &Survey, values: Values<'_>) -> Result<Self, String> {
        let all = &survey.datasets;
        let frames = frames(all).ok_or_else(|| {
            let names: Vec<String> =
                all.iter().take(8).map(|f| format!("{} {:?}", f.key, f.shape)).collect();
            let dead: Vec<String> = survey
                .dead
                .iter()
                .filter_map(|(key, file)| Some(format!("'{key}' leads to '{}'", file.as_ref()?)))
                .take(3)
                .collect();
            let dead = match dead.is_empty() {
                true => String::new(),
                false => format!("; links lead nowhere: {}", dead.join(", ")),
            };
            format!(
                "holds nothing that could be frames, a dataset (n, rows, cols) or (slow, fast, rows, \
                 cols); there is {}{dead}",
                names.join(", ")
            )
        })?;
        let image = |words: &[&str]| image(all, frames.frame, words);
        Ok(Self {
            positions: positions(all, &frames, values),
            energy: scalar(all, values, &["energy"], &["threshold", "resolution"], energy_factor),
            distance: scalar(all, values, &["distance"], &[], length_factor),
            psize: scalar(all, values, &["pixel_size", "psize", "pixelsize"], &[], length_factor),
            mask: image(&["mask"]).map(|found| mask(found, values)),
            dark: image(&["dark", "background"]).map(plain),
            flat: image(&["flat", "white"]).map(plain),
            frames: frames.guess,
        })
    }
}

fn plain(found: &Found) -> Guess {
    Guess { key: found.key.clone(), factor: 1.0, comment: String::new() }
}

/// Chooses what holds the most pixels.
fn frames(all: &[Found]) -> Option<Frames> {
    let mut candidates: Vec<(usize, Frames)> = Vec::new();
    let mut split: BTreeMap<(String, [usize; 2]), (usize, usize, Dtype)> = BTreeMap::new();
    for found in all {
        let Some(dtype) = found.dtype.filter(|d| *d != Dtype::Bool) else { continue };
        let (lead, frame) = match found.shape[..] {
            [n, rows, cols] => (vec![n], [rows, cols]),
            [slow, fast, rows, cols] => (vec![slow, fast], [rows, cols]),
            _ => continue,
        };
        let count: usize = lead.iter().product();
        if count == 0 || frame.iter().any(|&extent| extent < FRAME) {
            continue;
        }
        let stem = found.key.trim_end_matches(|c: char| c.is_ascii_digit());
        if lead.len() == 1 && stem.ends_with('_') && stem.len() + 3 < found.key.len() {
            let entry = split.entry((stem.to_owned(), frame)).or_insert((0, 0, dtype));
            entry.0 += count;
            entry.1 += 1;
            continue;
        }
        if count < 2 {
            continue;
        }
        let extent: Vec<String> = lead.iter().map(ToString::to_string).collect();
        let comment =
            format!("{} frames of {} x {} {dtype}", extent.join(" x "), frame[0], frame[1]);
        let guess = Guess { key: found.key.clone(), factor: 1.0, comment };
        candidates.push((count * frame[0] * frame[1], Frames { guess, lead, frame }));
    }
    for ((stem, frame), (count, parts, dtype)) in split {
        let comment =
            format!("{count} frames of {} x {} {dtype} in {parts} datasets", frame[0], frame[1]);
        let guess = Guess { key: format!("{stem}*"), factor: 1.0, comment };
        let size = count * frame[0] * frame[1];
        candidates.push((size, Frames { guess, lead: vec![count], frame }));
    }
    // One dataset may have several names: the shortest is the one that was made for people.
    candidates.sort_by_key(|(size, f)| (std::cmp::Reverse(*size), f.guess.key.len()));
    candidates.into_iter().next().map(|(_, frames)| frames)
}

fn image<'a>(all: &'a [Found], frame: [usize; 2], words: &[&str]) -> Option<&'a Found> {
    let fits = |f: &&Found| {
        let shape = match f.shape[..] {
            [1, rows, cols] | [rows, cols] => [rows, cols],
            _ => return false,
        };
        f.dtype.is_some() && shape == frame && words.iter().any(|w| lower(&f.key).contains(w))
    };
    all.iter().filter(fits).min_by_key(|f| f.key.len())
}

/// Most pixels of a detector are good: what most have is the good value.
fn mask(found: &Found, values: Values<'_>) -> Guess {
    let all = values(&found.key).unwrap_or_default();
    let zeros = all.iter().filter(|v| **v == 0.0).count();
    let inverted = 2 * zeros > all.len();
    let word = if inverted { "0 is good, as most pixels are" } else { "0 is bad" };
    let bad = if inverted { all.len() - zeros } else { zeros };
    let factor = if inverted { -1.0 } else { 1.0 };
    Guess { key: found.key.clone(), factor, comment: format!("{word}; {bad} bad pixels") }
}

/// Makes of a value and its unit the factor to the wanted unit, and why.
type Factor = fn(f64, Option<&str>) -> Option<(f64, String)>;

/// Chooses a number, or a list of one value, by its name.
fn scalar(
    all: &[Found],
    values: Values<'_>,
    words: &[&str],
    not: &[&str],
    factor: Factor,
) -> Option<Guess> {
    let fits = |f: &&Found| {
        let name = lower(&f.key);
        f.dtype.is_some()
            && f.shape.len() <= 1
            && words.iter().any(|w| name.contains(w))
            && !not.iter().any(|w| name.contains(w))
    };
    let mut fitting: Vec<&Found> = all.iter().filter(fits).collect();
    fitting
        .sort_by_key(|f| (f.shape.iter().product::<usize>() > 1, last(&f.key).len(), f.key.len()));
    fitting.into_iter().find_map(|found| {
        let all = values(&found.key)?;
        let value = all.iter().copied().find(|v| v.is_finite() && *v > 0.0)?;
        let (factor, comment) = factor(value, found.units.as_deref())?;
        Some(Guess { key: found.key.clone(), factor, comment })
    })
}

/// Returns what makes keV of a value, and why.
fn energy_factor(value: f64, units: Option<&str>) -> Option<(f64, String)> {
    let (factor, why) = match units.map(|u| u.trim().to_lowercase()).as_deref() {
        Some("ev") => (1e-3, "eV"),
        Some("kev") => (1.0, "keV"),
        Some("j" | "joule" | "joules") => (KEV_PER_JOULE, "J"),
        _ => match value {
            v if (1e-18..1e-12).contains(&v) => (KEV_PER_JOULE, "J, by its size"),
            v if (100.0..300_000.0).contains(&v) => (1e-3, "eV, by its size"),
            v if (0.05..100.0).contains(&v) => (1.0, "keV, by its size"),
            _ => return None,
        },
    };
    Some((factor, format!("{:.6} keV; the file has {why}", value * factor)))
}

fn metres(units: &str) -> Option<f64> {
    Some(match units.trim().to_lowercase().as_str() {
        "m" | "metre" | "meter" | "metres" | "meters" => 1.0,
        "mm" | "millimetre" | "millimeter" => 1e-3,
        "um" | "µm" | "μm" | "micron" | "microns" | "micrometre" | "micrometer" => 1e-6,
        "nm" | "nanometre" | "nanometer" => 1e-9,
        "pm" => 1e-12,
        _ => return None,
    })
}

/// Writes a length.
fn length(metres: f64) -> String {
    match metres {
        v if v >= 1e-3 => {
            format!("{} m", format!("{v:.6}").trim_end_matches('0').trim_end_matches('.'))
        }
        v => {
            format!("{} um", format!("{:.6}", v * 1e6).trim_end_matches('0').trim_end_matches('.'))
        }
    }
}

/// Returns what makes metres of a length on the side of the detector, and why.
fn length_factor(value: f64, units: Option<&str>) -> Option<(f64, String)> {
    let (factor, why) = match units.and_then(metres) {
        Some(factor) => (factor, units.unwrap_or_default().to_owned()),
        None => (1.0, "no unit: taken as metres".to_owned()),
    };
    (value * factor < 1e3).then(|| (factor, format!("{}; {why}", length(value * factor))))
}

/// Chooses positions that fit the frames.
fn positions(all: &[Found], frames: &Frames, values: Values<'_>) -> Option<Axes> {
    let count: usize = frames.lead.iter().product();
    let numeric = |f: &&Found| f.dtype.is_some_and(|d| d != Dtype::Bool);
    let mut both: Vec<&Found> = all
        .iter()
        .filter(numeric)
        .filter(|f| {
            let columns = f.shape.last().copied().unwrap_or(0);
            let rows: usize = f.shape.iter().rev().skip(1).product();
            f.shape.len() >= 2 && rows == count && (columns == 2 || columns == 3)
        })
        .filter(|f| {
            ["pos", "trans", "coord", "scan", "xy"].iter().any(|w| lower(&f.key).contains(w))
        })
        .collect();
    both.sort_by_key(|f| f.key.len());
    if let Some(found) = both.first() {
        let columns = found.shape.last().copied().unwrap_or(2);
        // CXI has (x, y, z); two columns are (y, x), as in ptypy.
        let (slow, fast) = if columns == 3 { (1, 0) } else { (0, 1) };
        let items = values(&found.key)?;
        let column = |c: usize| items.iter().skip(c).step_by(columns).copied().collect::<Vec<_>>();
        let (factor, comment) =
            position_factor(found.units.as_deref(), &[column(slow), column(fast)]);
        let axis = |column| Axis {
            key: found.key.clone(),
            column: Some(column),
            factor,
            comment: comment.clone(),
        };
        return Some(Axes { slow: axis(slow), fast: axis(fast) });
    }
    let fits = |f: &Found| {
        let items: usize = f.shape.iter().product();
        let mesh = frames.lead.len() == 2 && f.shape.len() == 1 && frames.lead.contains(&items);
        (1..=2).contains(&f.shape.len()) && (items == count || mesh)
    };
    let known: BTreeMap<&str, &Found> =
        all.iter().filter(numeric).filter(|f| fits(f)).map(|f| (f.key.as_str(), f)).collect();
    let mut pairs: Vec<(usize, &Found, &Found)> = Vec::new();
    for (key, slow) in &known {
        for (y, x) in [("y", "x"), ("Y", "X"), ("slow", "fast")] {
            let (place, name) = key.rsplit_once('/').map_or(("", *key), |(p, n)| (p, n));
            for (at, _) in name.match_indices(y) {
                let other = format!("{}{x}{}", &name[..at], &name[at + y.len()..]);
                let other = if place.is_empty() { other } else { format!("{place}/{other}") };
                let Some(fast) = known.get(other.as_str()) else { continue };
                if ["pixel", "center", "size"].iter().any(|w| name.to_lowercase().contains(w)) {
                    continue;
                }
                pairs.push((key.len(), slow, fast));
            }
        }
    }
    pairs.sort_by_key(|(length, ..)| *length);
    let (_, slow, fast) = pairs.first()?;
    let (ys, xs) = (values(&slow.key)?, values(&fast.key)?);
    let (factor, comment) =
        position_factor(slow.units.as_deref().or(fast.units.as_deref()), &[ys, xs]);
    let axis = |found: &Found| Axis {
        key: found.key.clone(),
        column: None,
        factor,
        comment: comment.clone(),
    };
    Some(Axes { slow: axis(slow), fast: axis(fast) })
}

/// Returns the middle of the steps between neighbours that differ; `None` if all are equal.
pub(crate) fn usual_step(axes: &[Vec<f64>]) -> Option<f64> {
    let mut steps: Vec<f64> = axes
        .iter()
        .flat_map(|axis| axis.windows(2).map(|w| (w[1] - w[0]).abs()))
        .filter(|s| *s > 0.0 && s.is_finite())
        .collect();
    steps.sort_by(f64::total_cmp);
    steps.get(steps.len() / 2).copied()
}

/// Returns what makes metres of positions, and why.
fn position_factor(units: Option<&str>, axes: &[Vec<f64>]) -> (f64, String) {
    if let Some(factor) = units.and_then(metres) {
        return (factor, format!("the file says {}", units.unwrap_or_default()));
    }
    let Some(step) = usual_step(axes) else {
        return (1.0, "no unit, and all equal: taken as metres".to_owned());
    };
    // Micrometres before millimetres: nobody scans in steps of half a millimetre.
    for (factor, name) in
        [(1.0, "metres"), (1e-6, "micrometres"), (1e-3, "millimetres"), (1e-9, "nanometres")]
    {
        if (STEPS[0]..=STEPS[1]).contains(&(step * factor)) {
            return (factor, format!("no unit: {name}, by steps of {step:.3e}"));
        }
    }
    (1.0, format!("no unit, and steps of {step:.3e} fit none: taken as metres; correct it"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn found(key: &str, dtype: Dtype, shape: &[usize], units: Option<&str>) -> Found {
        let (key, units) = (key.to_owned(), units.map(str::to_owned));
        Found { key, dtype: Some(dtype), shape: shape.to_vec(), units }
    }

    fn guess(datasets: Vec<Found>, values: &[(&str, Vec<f64>)]) -> Result<Guesses, String> {
        let values: BTreeMap<String, Vec<f64>> =
            values.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        Guesses::new(&Survey { datasets, dead: vec![] }, &|key| values.get(key).cloned())
    }

    #[test]
    fn a_cxi_file_is_understood() {
        let grid: Vec<f64> = (0..20).flat_map(|i| [f64::from(i) * 1e-6, 0.0, 1.0]).collect();
        let got = guess(
            vec![
                found("entry_1/data_1/data", Dtype::I32, &[20, 64, 64], None),
                found("entry_1/instrument_1/detector_1/data", Dtype::I32, &[20, 64, 64], None),
                found("entry_1/instrument_1/detector_1/mask", Dtype::U32, &[64, 64], None),
                found("entry_1/instrument_1/source_1/energy", Dtype::F32, &[], None),
                found("entry_1/sample_1/geometry_1/translation", Dtype::F32, &[20, 3], None),
                found("entry_1/instrument_1/detector_1/x_pixel_size", Dtype::F32, &[], Some("m")),
            ],
            &[
                ("entry_1/instrument_1/detector_1/mask", vec![0.0; 4096]),
                ("entry_1/instrument_1/source_1/energy", vec![1.6e-15]),
                ("entry_1/sample_1/geometry_1/translation", grid),
                ("entry_1/instrument_1/detector_1/x_pixel_size", vec![5.5e-5]),
            ],
        )
        .unwrap();
        assert_eq!(got.frames.key, "entry_1/data_1/data");
        let p = got.positions.unwrap();
        assert_eq!((p.slow.column, p.fast.column, p.slow.factor), (Some(1), Some(0), 1.0));
        assert_eq!(got.energy.unwrap().factor, KEV_PER_JOULE);
        assert!(got.mask.unwrap().factor < 0.0, "0 is good");
        assert_eq!(got.psize.unwrap().factor, 1.0);
    }

    #[test]
    fn split_files_and_motors_without_units_are_understood() {
        let y: Vec<f64> = (0..20).map(|i| f64::from(i / 5) * 0.5).collect();
        let x: Vec<f64> = (0..20).map(|i| f64::from(i % 5) * 0.5).collect();
        let got = guess(
            vec![
                found("entry/data/data_000001", Dtype::U32, &[12, 64, 48], None),
                found("entry/data/data_000002", Dtype::U32, &[8, 64, 48], None),
                found("entry/instrument/beam/incident_energy", Dtype::F64, &[], Some("eV")),
                found("entry/measurement/samy", Dtype::F64, &[20], None),
                found("entry/measurement/samx", Dtype::F64, &[20], None),
                found("entry/instrument/detector/threshold_energy", Dtype::F64, &[], Some("eV")),
            ],
            &[
                ("entry/measurement/samy", y),
                ("entry/measurement/samx", x),
                ("entry/instrument/beam/incident_energy", vec![6200.0]),
            ],
        )
        .unwrap();
        assert_eq!(got.frames.key, "entry/data/data_*");
        assert_eq!(got.frames.comment, "20 frames of 64 x 48 uint32 in 2 datasets");
        let p = got.positions.unwrap();
        assert_eq!(
            (p.slow.key.as_str(), p.fast.key.as_str()),
            ("entry/measurement/samy", "entry/measurement/samx")
        );
        assert_eq!(p.fast.factor, 1e-6);
        assert_eq!(got.energy.unwrap().factor, 1e-3);
        assert_eq!((got.distance, got.mask), (None, None));
    }

    #[test]
    fn a_file_without_frames_is_named_by_what_it_holds() {
        let error = guess(vec![found("a/b", Dtype::F64, &[3], None)], &[]).unwrap_err();
        assert!(
            error.contains("nothing that could be frames") && error.contains("a/b [3]"),
            "{error}"
        );
    }
}
