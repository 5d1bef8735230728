//! Coloured pixels, and their PNG.

use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;

/// Colour where nothing is drawn.
const BACKGROUND: [u8; 3] = [250, 250, 250];
/// Colour of borders.
const FRAME: [u8; 3] = [90, 90, 90];

/// A picture that is being drawn.
pub(crate) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// Makes an empty one.
    pub fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: BACKGROUND.repeat(width * height) }
    }

    /// Colours a pixel; one outside is left out.
    pub fn put(&mut self, x: usize, y: usize, colour: [u8; 3]) {
        if x < self.width && y < self.height {
            let at = 3 * (y * self.width + x);
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Draws the border of a square panel of `size` pixels.
    pub fn border(&mut self, left: usize, top: usize, size: usize) {
        for i in 0..=size {
            for (x, y) in [(i, 0), (i, size), (0, i), (size, i)] {
                self.put(left + x, top + y, FRAME);
            }
        }
    }

    /// Draws an image `[rows, cols]`, logarithmic, nearest pixel, its aspect kept, with a border.
    pub fn heat(
        &mut self,
        left: usize,
        top: usize,
        size: usize,
        [rows, cols]: [usize; 2],
        image: &[f64],
    ) {
        let scale = size as f64 / rows.max(cols) as f64;
        let log = |v: f64| v.max(0.0).ln_1p();
        let high = image.iter().copied().map(log).fold(f64::MIN_POSITIVE, f64::max);
        for y in 0..size {
            for x in 0..size {
                let (row, col) = ((y as f64 / scale) as usize, (x as f64 / scale) as usize);
                if row < rows && col < cols {
                    self.put(left + x, top + y, ramp(log(image[row * cols + col]) / high));
                }
            }
        }
        self.border(left, top, size);
    }

    /// Writes the PNG.
    ///
    /// # Errors
    /// The system's, and the encoder's.
    pub fn save(&self, path: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        let file = BufWriter::new(File::create(path)?);
        let mut encoder = png::Encoder::new(file, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.pixels)?;
        Ok(writer.finish()?)
    }
}

/// Colours from dark violet through red to yellow white, for 0..=1.
pub(crate) fn ramp(value: f64) -> [u8; 3] {
    const STOPS: [[f64; 3]; 6] = [
        [6.0, 4.0, 30.0],
        [75.0, 12.0, 107.0],
        [165.0, 44.0, 96.0],
        [229.0, 92.0, 48.0],
        [251.0, 165.0, 10.0],
        [252.0, 255.0, 190.0],
    ];
    let at = if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 } * (STOPS.len() - 1) as f64;
    let low = (at as usize).min(STOPS.len() - 2);
    let t = at - low as f64;
    [0, 1, 2].map(|c| (STOPS[low][c] + t * (STOPS[low + 1][c] - STOPS[low][c])).round() as u8)
}
