//! A `.ptyd` at a glance: the sum of its frames (log) beside the map of its positions, as a PNG.
//!
//! ```text
//! ┌──────────────┐ ┌──────────────┐
//! │ log(1 + sum) │ │ scan points: │   the map has equal scales, y downwards as in the file's
//! │              │ │ path, first, │   (y, x); colour runs from the first point (dark) to the
//! │              │ │ last         │   last (bright); points of frames without weight are red
//! └──────────────┘ └──────────────┘
//! ```

use crate::canvas::{Canvas, ramp};
use ptystream_common::error::Kind;
use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::read::PtydFile;
use std::path::{Path, PathBuf};

const PANEL: usize = 480;
const MARGIN: usize = 16;
const WIDTH: usize = 2 * PANEL + 3 * MARGIN;
const HEIGHT: usize = PANEL + 2 * MARGIN;
const PATH: [u8; 3] = [200, 200, 200];
const NO_WEIGHT: [u8; 3] = [220, 30, 30];

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum PictureError {
    /// The file cannot be read.
    #[error(transparent)]
    Read(#[from] PtydError),
    /// The file has no frames to sum up.
    #[error("{}: holds no frames", .0.display())]
    Empty(PathBuf),
    /// The picture cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// The picture.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PictureError {
    /// Returns what the failure is about.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Read(_) | Self::Empty(_) => Kind::Input,
            Self::Write { .. } => Kind::Output,
        }
    }
}

/// What is drawn.
struct Content {
    shape: [usize; 2],
    sum: Vec<f64>,
    positions: Vec<[f64; 2]>,
    has_weight: Vec<bool>,
}

/// Draws a file; returns what there is to see, for people.
///
/// # Errors
/// If the file cannot be read or the picture not be written.
pub fn draw(file: &Path, png: &Path) -> Result<String, PictureError> {
    let content = read(file)?;
    let mut canvas = Canvas::new(WIDTH, HEIGHT);
    canvas.heat(MARGIN, MARGIN, PANEL, content.shape, &content.sum);
    map(&mut canvas, 2 * MARGIN + PANEL, MARGIN, &content);
    let saved = canvas.save(png);
    saved.map_err(|source| PictureError::Write { path: png.to_owned(), source })?;
    Ok(legend(png, &content))
}

/// Says what there is to see.
fn legend(png: &Path, content: &Content) -> String {
    let [rows, cols] = content.shape;
    let mut text = format!(
        "{}\n  left   the sum of {} frames of {rows} x {cols} pixels, logarithmic\n",
        png.display(),
        content.has_weight.len()
    );
    let finite: Vec<_> = content.positions.iter().filter(|p| is_finite(p)).collect();
    if finite.is_empty() {
        return text + "  right  nothing: the file holds no positions\n";
    }
    let span = |axis: usize| {
        let values = finite.iter().map(|p| p[axis]);
        let low = values.clone().fold(f64::MAX, f64::min);
        1e6 * (values.fold(f64::MIN, f64::max) - low)
    };
    text += &format!(
        "  right  {} scan points over {:.3} x {:.3} um (y downwards, x to the right), from the first \
         (dark) to the last (bright)\n",
        finite.len(),
        span(0),
        span(1)
    );
    match content.has_weight.iter().filter(|has| !**has).count() {
        0 => text,
        n => text + &format!("         {n} of them red: their frames have weight 0\n"),
    }
}

fn is_finite(position: &[f64; 2]) -> bool {
    position.iter().all(|v| v.is_finite())
}

fn read(path: &Path) -> Result<Content, PictureError> {
    let file = PtydFile::open(path)?;
    let mut content =
        Content { shape: [0; 2], sum: Vec::new(), positions: Vec::new(), has_weight: Vec::new() };
    for chunk in file.chunks()? {
        let Some(rows) = chunk.rows else { continue };
        let name = |what: &str| format!("chunks/{}/{what}", chunk.name);
        for row in 0..rows {
            let data = file.rows(&name("data"), row, 1)?;
            let shape = [data.shape[1], data.shape[2]];
            if content.sum.is_empty() {
                content.shape = shape;
                content.sum = vec![0.0; shape[0] * shape[1]];
            } else if content.shape != shape {
                continue;
            }
            let weights = match file.has(&name("weights")) {
                true => Some(file.rows(&name("weights"), row, 1)?.to_f64()),
                false => None,
            };
            let good =
                |i: usize| weights.as_ref().is_none_or(|w| w.get(i).is_some_and(|w| *w > 0.0));
            let mut any = false;
            for (i, value) in data.to_f64().into_iter().enumerate() {
                if good(i) {
                    any = true;
                    content.sum[i] += value;
                }
            }
            content.has_weight.push(any);
        }
        if file.has(&name("positions"))
            && let Ok(positions) = file.array(&name("positions"))
            && positions.shape.len() == 2
            && positions.shape[1] == 2
        {
            content.positions.extend(positions.to_f64().chunks_exact(2).map(|p| [p[0], p[1]]));
        }
    }
    if content.sum.is_empty() {
        return Err(PictureError::Empty(path.to_owned()));
    }
    Ok(content)
}

/// Draws the scan points, joined in their order.
fn map(canvas: &mut Canvas, left: usize, top: usize, content: &Content) {
    canvas.border(left, top, PANEL);
    let finite: Vec<[f64; 2]> = content.positions.iter().copied().filter(is_finite).collect();
    let range = |axis: usize| {
        let values = finite.iter().map(|p| p[axis]);
        (values.clone().fold(f64::MAX, f64::min), values.fold(f64::MIN, f64::max))
    };
    let ((y0, y1), (x0, x1)) = (range(0), range(1));
    let span = (y1 - y0).max(x1 - x0).max(f64::MIN_POSITIVE);
    let room = (PANEL - 2 * MARGIN) as f64;
    let place = |p: &[f64; 2]| {
        let along = |v: f64, low: f64, high: f64| (v - (low + high) / 2.0) / span + 0.5;
        (
            (left + MARGIN) as f64 + along(p[1], x0, x1) * room,
            (top + MARGIN) as f64 + along(p[0], y0, y1) * room,
        )
    };
    for pair in finite.windows(2) {
        let ((ax, ay), (bx, by)) = (place(&pair[0]), place(&pair[1]));
        let steps = (ax - bx).abs().max((ay - by).abs()).ceil().max(1.0);
        for i in 0..=steps as usize {
            let t = i as f64 / steps;
            canvas.put((ax + t * (bx - ax)) as usize, (ay + t * (by - ay)) as usize, PATH);
        }
    }
    let last = finite.len().max(2) - 1;
    for (i, p) in finite.iter().enumerate() {
        let (x, y) = place(p);
        let colour = match content.has_weight.get(i) {
            Some(false) => NO_WEIGHT,
            _ => ramp(0.15 + 0.75 * i as f64 / last as f64),
        };
        for dy in 0..5 {
            for dx in 0..5 {
                if (dx, dy) != (0, 0)
                    && (dx, dy) != (4, 4)
                    && (dx, dy) != (0, 4)
                    && (dx, dy) != (4, 0)
                {
                    canvas.put(
                        (x as usize + dx).saturating_sub(2),
                        (y as usize + dy).saturating_sub(2),
                        colour,
                    );
                }
            }
        }
    }
}
