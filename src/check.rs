//! `ptystream check`: whether a scan is plausible, before anything is written.
//!
//! What makes a scan impossible is an error, as for `run`. What is only unlikely is a warning: units of
//! positions, neighbours that do not overlap, values that nobody gave, a mask that leaves little, a
//! disk that will be full.

use crate::auto::{Auto, AutoScan};
use crate::canvas::Canvas;
use crate::config::Config;
use ptystream_common::disk::free_bytes;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::Array;
use ptystream_common::geometry::Orientation;
use ptystream_common::message::Announce;
use ptystream_common::params::Save;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_common::value::Value;
use std::path::{Path, PathBuf};

/// Steps between neighbours that are plausible, metres.
const STEPS: [f64; 2] = [1e-8, 1e-3];
/// Wavelength of a photon of 1 keV, metres.
const METRES_AT_1_KEV: f64 = 1.239_841_984e-9;
/// Frames of which the brightest is drawn.
const LOOKED_AT: usize = 8;
const PANEL: usize = 240;
const MARGIN: usize = 12;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Findings {
    /// Lines for people, warnings included.
    pub text: String,
    /// How many warnings.
    pub warnings: usize,
}

impl Findings {
    fn line(&mut self, name: &str, what: &str) {
        self.text.push_str(&format!("{name:<12} {what}\n"));
    }

    fn warn(&mut self, name: &str, what: &str) {
        self.warnings += 1;
        self.line(name, &format!("WARNING: {what}"));
    }
}

/// Looks at a scan; draws the eight orientations of one frame to `png`, if there is one.
///
/// # Errors
/// What makes the scan impossible, and a picture that cannot be written.
pub fn check(
    config: &Config,
    registry: &Registry,
    shutdown: &Shutdown,
    png: Option<&Path>,
) -> Result<Findings, Failure> {
    let mut found = Findings::default();
    let mut scan = AutoScan::open_until(config, registry, shutdown)?;
    let package = match scan.auto(LOOKED_AT)? {
        Auto::Chunk(package) => package,
        Auto::Wait | Auto::EndOfScan => {
            return Err(Failure::new(Kind::Input, "no frames can be had (yet)"));
        }
    };
    let announce = scan.announce()?;
    frames(&mut found, &announce, scan.frame_form(), &package.chunk.data);
    room(&mut found, config, &announce);
    let positions = scan.positions();
    geometry(&mut found, &announce);
    steps(&mut found, config, &announce, positions.as_deref());
    weights(&mut found, &package.chunk.weights);
    for warning in scan.warnings().iter().chain(&announce.warnings) {
        if !found.text.contains(warning.as_str()) {
            found.warn("note", warning);
        }
    }
    if let Some(png) = png {
        views(config, registry, png)?;
        found.line(
            "orientation",
            &format!(
                "{}: data.orientation 0 to 3 above, 4 to 7 below; compare with the live view of the \
                 detector",
                png.display()
            ),
        );
    }
    Ok(found)
}

fn frames(
    found: &mut Findings,
    announce: &Announce,
    raw: ptystream_common::frame::FrameForm,
    data: &Array,
) {
    let count = announce.num_frames.map_or("unknown number of".to_owned(), |n| n.to_string());
    let [rows, cols] = raw.shape;
    let [h, w] = announce.form.shape;
    found.line("frames", &format!("{count} frames of {rows} x {cols} {}", raw.dtype));
    found.line(
        "prepared",
        &format!("{h} x {w} {}, weights {}", announce.form.data, announce.form.weights),
    );
    let brightest = data.to_f64().into_iter().fold(f64::NEG_INFINITY, f64::max);
    if brightest <= 0.0 {
        found.warn(
            "counts",
            &format!(
                "the first {} prepared frames have no counts: is data.center or shape right?",
                data.shape[0]
            ),
        );
    }
}

/// Compares what the file may need with what the disk has.
fn room(found: &mut Findings, config: &Config, announce: &Announce) {
    let (Some(dfile), Some(save)) = (&config.data.dfile, config.data.save) else {
        found.line("file", "none (data.save is None)");
        return;
    };
    let Some(frames) = announce.num_frames else { return };
    // Common weights are compressed always; data may be.
    let once = frames * announce.form.frame_bytes();
    let times = if save == Save::Link { 1 } else { 2 };
    let most = once * times;
    let folder = std::path::absolute(dfile).unwrap_or_else(|_| dfile.clone());
    let there = folder.ancestors().skip(1).find(|f| f.is_dir()).map(Path::to_owned);
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    match there.as_deref().and_then(free_bytes) {
        None => found.warn("file", &format!("{}: its folder cannot be looked at", dfile.display())),
        Some(free) if free < most => found.warn(
            "disk",
            &format!(
                "{} may need {:.1} MB{} uncompressed, the disk has {:.1} MB",
                dfile.display(),
                megabytes(most),
                if times == 2 { ", parts and folded file," } else { "" },
                megabytes(free)
            ),
        ),
        Some(free) => found.line(
            "file",
            &format!(
                "{}: at most {:.1} MB; the disk has {:.1} MB",
                dfile.display(),
                megabytes(most),
                megabytes(free)
            ),
        ),
    }
}

fn geometry(found: &mut Findings, announce: &Announce) {
    for (name, value, origin) in &announce.origins {
        let line = format!("{value}  from: {origin}");
        match origin.as_str() {
            "ptypy's default" => {
                found.warn(
                    name,
                    &format!("{line}: give data.{name}, or nobody can reconstruct this"),
                );
            }
            _ => found.line(name, &line),
        }
    }
    for (name, low, high, unit) in
        [("energy", 0.05, 200.0, "keV"), ("distance", 1e-3, 100.0, "m"), ("psize", 1e-7, 1e-2, "m")]
    {
        if let Some(value) = number(announce, name).filter(|v| !(low..=high).contains(v)) {
            found.warn(
                name,
                &format!("{value:e} {unit} is unlikely: is its unit or multiplier right?"),
            );
        }
    }
}

/// Returns a number of the file's `meta`; of a pair the first.
fn number(announce: &Announce, name: &str) -> Option<f64> {
    match &announce.meta.iter().find(|(key, _)| key == name)?.1 {
        Value::Float(v) => Some(*v),
        Value::Int(v) => Some(*v as f64),
        Value::Array(a) => a.items.first().copied(),
        _ => None,
    }
}

/// Looks at the steps between neighbours.
fn steps(
    found: &mut Findings,
    config: &Config,
    announce: &Announce,
    positions: Option<&[[f64; 2]]>,
) {
    let Some(positions) = positions else {
        found.line("positions", "come with the frames, or there are none");
        return;
    };
    let span = |axis: usize| {
        let values = positions.iter().map(|p| p[axis]);
        values.clone().fold(f64::MIN, f64::max) - values.fold(f64::MAX, f64::min)
    };
    let um = |v: f64| v * 1e6;
    found.line(
        "positions",
        &format!("{} over {:.4} x {:.4} um (y, x)", positions.len(), um(span(0)), um(span(1))),
    );
    let Some(step) = nearest(positions) else {
        if positions.len() > 1 {
            found.warn("positions", "all scan points are at the same place");
        }
        return;
    };
    if !(STEPS[0]..=STEPS[1]).contains(&step) {
        let hint = if step > STEPS[1] { "micrometres or millimetres" } else { "not metres" };
        found.warn(
            "steps",
            &format!(
                "neighbours are {step:.3e} m apart, which is unlikely (10 nm to 1 mm is usual): are \
                 positions in {hint}? Multipliers make metres of them"
            ),
        );
        return;
    }
    found.line("steps", &format!("neighbours are {:.4} um apart", um(step)));
    let (Some(energy), Some(distance), Some(psize)) =
        (number(announce, "energy"), number(announce, "distance"), number(announce, "psize"))
    else {
        return;
    };
    if config.data.propagation != "farfield" {
        return;
    }
    // What the reconstruction sees of the sample at one scan point.
    let seen = METRES_AT_1_KEV / energy * distance / psize;
    let overlap = 100.0 * (1.0 - step / seen);
    let covers = format!("one frame covers {:.4} um of the sample", um(seen));
    // How much is needed depends on the beam, which nobody has told.
    if overlap <= 0.0 {
        let what = "neighbours do not overlap; are positions, distance and psize right?";
        found.warn("overlap", &format!("{covers}: {what}"));
    } else {
        let what = format!("so neighbours overlap by {overlap:.0} % of that at most");
        found.line("overlap", &format!("{covers}, {what}"));
    }
}

/// Returns the middle of the distances to the nearest other point; `None` if all are the same.
fn nearest(positions: &[[f64; 2]]) -> Option<f64> {
    // Of many points some are enough.
    let stride = positions.len().div_ceil(300).max(1);
    let mut distances: Vec<f64> = positions
        .iter()
        .step_by(stride)
        .filter_map(|a| {
            positions
                .iter()
                .map(|b| (a[0] - b[0]).hypot(a[1] - b[1]))
                .filter(|d| *d > 0.0)
                .min_by(f64::total_cmp)
        })
        .collect();
    distances.sort_by(f64::total_cmp);
    distances.get(distances.len() / 2).copied()
}

fn weights(found: &mut Findings, weights: &Array) {
    let all = weights.to_f64();
    let good = all.iter().filter(|w| **w > 0.0).count();
    let percent = 100.0 * good as f64 / all.len().max(1) as f64;
    let line = format!("{percent:.2} % of the prepared pixels are good");
    if percent < 50.0 {
        found.warn("mask", &format!("{line}: is the mask inverted (mask.invert)?"));
    } else {
        found.line("mask", &line);
    }
}

/// Draws a frame in each of the eight orientations.
fn views(config: &Config, registry: &Registry, png: &Path) -> Result<(), Failure> {
    let mut plain = config.clone();
    plain.data.orientation = Orientation::default();
    let mut scan = AutoScan::open(&plain, registry)?;
    let Auto::Chunk(package) = scan.auto(LOOKED_AT)? else {
        return Err(Failure::new(Kind::Input, "no frames can be had (yet)"));
    };
    let sum = |frame: &Array| frame.to_f64().iter().sum::<f64>();
    let frame = package
        .iterable()
        .map(|item| item.data)
        .max_by(|a, b| sum(a).total_cmp(&sum(b)))
        .ok_or_else(|| Failure::new(Kind::Input, "the scan has no frames"))?;
    let (image, shape) = (frame.to_f64(), [frame.shape[0], frame.shape[1]]);
    let mut canvas = Canvas::new(4 * PANEL + 5 * MARGIN, 2 * PANEL + 3 * MARGIN);
    for number in 0..8u8 {
        let Some(orientation) = Orientation::from_number(number) else { continue };
        let (view, shape) = turned(&image, shape, orientation);
        let (column, row) = (usize::from(number) % 4, usize::from(number) / 4);
        let place = |n: usize| MARGIN + n * (PANEL + MARGIN);
        canvas.heat(place(column), place(row), PANEL, shape, &view);
    }
    canvas.save(png).map_err(|e| {
        Failure::new(Kind::Output, format!("{}: cannot be written: {e}", png.display()))
    })
}

/// Turns an image as the preparation does: transposed, then its rows, then its columns reversed.
fn turned(image: &[f64], [rows, cols]: [usize; 2], how: Orientation) -> (Vec<f64>, [usize; 2]) {
    let [h, w] = if how.transpose { [cols, rows] } else { [rows, cols] };
    let mut out = Vec::with_capacity(image.len());
    for y in 0..h {
        for x in 0..w {
            let row = if how.flipud { h - 1 - y } else { y };
            let col = if how.fliplr { w - 1 - x } else { x };
            let (row, col) = if how.transpose { (col, row) } else { (row, col) };
            out.push(image[row * cols + col]);
        }
    }
    (out, [h, w])
}

/// Returns the name of the picture of a configuration's orientations.
pub fn picture_of(config: Option<&Path>) -> PathBuf {
    let stem = config.and_then(Path::file_stem).map(|s| s.to_string_lossy().into_owned());
    PathBuf::from(format!("{}.orientations.png", stem.unwrap_or_else(|| "scan".to_owned())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{ConfigArgs, load};

    #[test]
    fn an_image_is_turned_as_frames_are_prepared() {
        let registry = ptystream_producer::source::builtin();
        let prepared = |orientation: u8| {
            let set = [
                "data.name=moonflower".to_owned(),
                "data.num_frames=2".to_owned(),
                "data.raw_shape=40".to_owned(),
                "data.shape=[32,24]".to_owned(),
                format!("data.orientation={orientation}"),
            ];
            let args = ConfigArgs { set: set.to_vec(), ..ConfigArgs::default() };
            let config = load(&args, &registry).unwrap();
            let mut scan = AutoScan::open(&config, &registry).unwrap();
            let Auto::Chunk(package) = scan.auto(1).unwrap() else { panic!("no frame") };
            let frame = package.iterable().next().unwrap().data;
            (frame.to_f64(), [frame.shape[0], frame.shape[1]])
        };
        let (plain, shape) = prepared(0);
        for number in 0..8 {
            let how = Orientation::from_number(number).unwrap();
            assert_eq!(turned(&plain, shape, how), prepared(number), "orientation {number}");
        }
    }

    #[test]
    fn the_nearest_neighbours_count() {
        let grid: Vec<[f64; 2]> =
            (0..20).map(|i| [f64::from(i / 5) * 3.0, f64::from(i % 5)]).collect();
        assert_eq!(nearest(&grid), Some(1.0));
        assert_eq!(nearest(&[[1.0, 1.0]; 3]), None);
    }
}
