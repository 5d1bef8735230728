//! Follows a `.ptyd` while it grows, as ptypy's `PtydScan` does.
//!
//! | what ptypy does | here |
//! |---|---|
//! | chunk 0 has to be there when it opens the file | [`Follower::attach`] |
//! | `meta/num_frames` is read once | [`Follower::attach`] |
//! | the file is opened anew at each look | [`Follower::look`] |
//! | links that lead nowhere are left out, frames are numbered by (chunk, row) | [`Follower::look`] |
//! | the scan ends when `num_frames` frames were read | [`Follower::look`] |
//!
//! One thing ptypy does not do: the run id is compared before and after each look, and a file that
//! has become another one ends it.

use ptystream_common::ptyd::PtydError;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::value::Value;
use std::path::{Path, PathBuf};

/// Frames that are asked for at a time.
const FRAMES: usize = 10;
const ITEMS: [&str; 3] = ["data", "weights", "positions"];

/// What a frame is in the file: the bytes of its data, weights and position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Vec<u8>);

/// How a look ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Nothing new, or some frames.
    More,
    /// All frames have been read.
    End,
    /// The file is gone or belongs to another run.
    Over,
}

/// A reader that is attached to a file.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// The run that it follows; 0: a file without one.
    pub run_id: u64,
    /// How many frames there will be.
    pub num_frames: usize,
    /// What it got, in the order in which it got it.
    pub frames: Vec<Frame>,
}

fn run_id(path: &Path) -> Result<u64, PtydError> {
    Ok(PtydFile::open(path)?.record().map_or(0, |r| r.identity.run_id))
}

impl Follower {
    /// Attaches to a file that is there.
    ///
    /// # Errors
    /// [`PtydError`] if there is no chunk 0 in it, or no number of frames.
    pub fn attach(path: &Path) -> Result<Self, PtydError> {
        let file = PtydFile::open(path)?;
        if !file.has("chunks/0") {
            return Err(PtydError::content(path, "/chunks/0", "is not there, but the file is"));
        }
        let meta = file.values("meta")?;
        let num_frames = meta.iter().find(|(name, _)| name == "num_frames").map(|(_, v)| v);
        let Some(Value::Int(num_frames)) = num_frames else {
            return Err(PtydError::content(path, "/meta/num_frames", "is no number"));
        };
        let run_id = file.record().map_or(0, |r| r.identity.run_id);
        let num_frames = usize::try_from(*num_frames).unwrap_or(0);
        Ok(Self { path: path.to_owned(), run_id, num_frames, frames: Vec::new() })
    }

    /// Looks once; takes what is new.
    ///
    /// # Errors
    /// [`PtydError`] if something cannot be read although the file is still that of the run.
    pub fn look(&mut self) -> Result<Look, PtydError> {
        let mut new = Vec::new();
        let read = self.read(&mut new);
        // What was read counts only if the file is still the same.
        if run_id(&self.path).ok() != Some(self.run_id) {
            return Ok(Look::Over);
        }
        let look = read?;
        self.frames.extend(new);
        Ok(look)
    }

    fn read(&self, new: &mut Vec<Frame>) -> Result<Look, PtydError> {
        let rows = rows(&PtydFile::open(&self.path)?)?;
        let start = self.frames.len();
        let accessible = FRAMES.min(rows.len().saturating_sub(start));
        if accessible == 0 {
            return Ok(if start >= self.num_frames { Look::End } else { Look::More });
        }
        // ptypy opens the file a second time to load what it has counted.
        let file = PtydFile::open(&self.path)?;
        for (chunk, row) in &rows[start..start + accessible] {
            new.push(frame(&file, chunk, *row)?);
        }
        Ok(Look::More)
    }
}

/// Lists all frames as names of chunks and rows in them.
fn rows(file: &PtydFile) -> Result<Vec<(String, usize)>, PtydError> {
    let mut rows = Vec::new();
    for chunk in file.chunks()? {
        rows.extend((0..chunk.rows.unwrap_or(0)).map(|row| (chunk.name.clone(), row)));
    }
    Ok(rows)
}

fn frame(file: &PtydFile, chunk: &str, row: usize) -> Result<Frame, PtydError> {
    let mut bytes = Vec::new();
    for item in ITEMS {
        let array = file.rows(&format!("chunks/{chunk}/{item}"), row, 1)?;
        bytes.extend(format!("{item} {} {:?}", array.dtype, array.shape).bytes());
        bytes.extend_from_slice(&array.data);
    }
    Ok(Frame(bytes))
}

/// Reads all frames of a file, by (chunk, row).
///
/// # Errors
/// [`PtydError`] if something cannot be read.
pub fn frames(path: &Path) -> Result<Vec<Frame>, PtydError> {
    let file = PtydFile::open(path)?;
    rows(&file)?.iter().map(|(chunk, row)| frame(&file, chunk, *row)).collect()
}

/// Lists the indices that a file names, by (chunk, row).
///
/// # Errors
/// [`PtydError`] if something cannot be read.
pub fn indices(path: &Path) -> Result<Vec<u64>, PtydError> {
    let file = PtydFile::open(path)?;
    let mut indices = Vec::new();
    for chunk in file.chunks()? {
        let array = file.array(&format!("chunks/{}/indices", chunk.name))?;
        indices.extend(array.to_f64().iter().map(|i| *i as u64));
    }
    Ok(indices)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use ptystream_common::frame::Array;
    use ptystream_common::ptyd::master::PlainWriter;

    fn write(path: &Path, chunks: &[usize], promised: i64) {
        let meta = vec![("num_frames".to_owned(), Value::Int(promised))];
        let _ = std::fs::remove_file(path);
        let mut writer = PlainWriter::create(path, &meta, &[]).unwrap();
        let mut at = 0;
        for &rows in chunks {
            let data: Vec<u16> = (at..at + rows).map(|i| i as u16).collect();
            let data = Array::from_items(&[rows, 1, 1], &data);
            let positions = Array::from_items(&[rows, 2], &vec![1e-6; 2 * rows]);
            writer.add(&[("data", &data), ("weights", &data), ("positions", &positions)]).unwrap();
            at += rows;
        }
        writer.close().unwrap();
    }

    #[test]
    fn frames_come_once_and_the_end_is_what_was_promised() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        write(&path, &[12], 20);
        let mut follower = Follower::attach(&path).unwrap();
        assert_eq!(follower.look().unwrap(), Look::More);
        assert_eq!(follower.look().unwrap(), Look::More);
        assert_eq!(follower.look().unwrap(), Look::More);
        assert_eq!(follower.frames.len(), 12);
        write(&path, &[12, 8], 20);
        assert_eq!(follower.look().unwrap(), Look::More);
        assert_eq!(follower.look().unwrap(), Look::End);
        assert_eq!(follower.frames, frames(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(follower.look().unwrap(), Look::Over);
    }

    #[test]
    fn a_file_without_chunk_0_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        write(&path, &[], 20);
        let error = Follower::attach(&path).unwrap_err().to_string();
        assert!(error.contains("/chunks/0"), "{error}");
    }
}
