//! TIFF files of one or several pages of grey pixels.

use ptystream_common::frame::Array;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::{ColorType, TiffError};

/// The pages of a file, read in any order; the next one is cheap.
pub struct Pages {
    path: PathBuf,
    decoder: Decoder<BufReader<File>>,
}

impl Pages {
    /// Opens a file.
    ///
    /// # Errors
    /// A text that names the file.
    pub fn open(path: &Path) -> Result<Self, String> {
        let file =
            File::open(path).map_err(|e| format!("'{}' cannot be read: {e}", path.display()))?;
        let decoder = Decoder::new(BufReader::new(file)).map_err(|e| fail(path, &e))?;
        Ok(Self { path: path.to_owned(), decoder: decoder.with_limits(Limits::default()) })
    }

    /// Counts the pages.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn count(&mut self) -> Result<usize, String> {
        self.seek(0)?;
        let mut n = 1;
        while self.decoder.more_images() {
            self.decoder.next_image().map_err(|e| fail(&self.path, &e))?;
            n += 1;
        }
        Ok(n)
    }

    fn seek(&mut self, page: usize) -> Result<(), String> {
        self.decoder.seek_to_image(page).map_err(|e| fail(&self.path, &e))
    }

    /// Reads a page.
    ///
    /// # Shapes
    /// `(rows, cols)`.
    /// # Errors
    /// As [`Self::open`]; also for colours, and for types that are no pixels.
    pub fn read(&mut self, page: usize) -> Result<Array, String> {
        self.seek(page)?;
        let (cols, rows) = self.decoder.dimensions().map_err(|e| fail(&self.path, &e))?;
        let color = self.decoder.colortype().map_err(|e| fail(&self.path, &e))?;
        let other = |what: String| {
            format!(
                "'{}' holds {what}; grey pixels of 8, 16, 32 or 64 bits are needed",
                self.path.display()
            )
        };
        if !matches!(color, ColorType::Gray(8 | 16 | 32 | 64)) {
            return Err(other(format!("{color:?}")));
        }
        let shape = [rows as usize, cols as usize];
        let image = self.decoder.read_image().map_err(|e| fail(&self.path, &e))?;
        Ok(match image {
            DecodingResult::U8(items) => Array::from_items(&shape, &items),
            DecodingResult::U16(items) => Array::from_items(&shape, &items),
            DecodingResult::U32(items) => Array::from_items(&shape, &items),
            DecodingResult::I8(items) => Array::from_items(&shape, &items),
            DecodingResult::I16(items) => Array::from_items(&shape, &items),
            DecodingResult::I32(items) => Array::from_items(&shape, &items),
            DecodingResult::I64(items) => Array::from_items(&shape, &items),
            DecodingResult::F32(items) => Array::from_items(&shape, &items),
            DecodingResult::F64(items) => Array::from_items(&shape, &items),
            _ => return Err(other("items of another type".into())),
        })
    }

    /// Reads all pages: an image, or a stack.
    ///
    /// # Errors
    /// As [`Self::read`]; also if pages are not alike.
    pub fn all(&mut self) -> Result<Array, String> {
        let n = self.count()?;
        let pages = (0..n).map(|page| self.read(page)).collect::<Result<Vec<_>, _>>()?;
        super::stacked(&pages, &self.path)
    }
}

fn fail(path: &Path, error: &TiffError) -> String {
    format!("'{}' cannot be decoded as TIFF: {error}", path.display())
}
