//! A scan whose HDF5 files are still being written (SWMR): how far it has come, and its positions.
//!
//! A frame is there once it and its position are: as far as datasets have grown, and, with live keys, as far as
//! their values are not zero any more.
//!
//! # Source
//! ptypy `experiment/swmr_loader.py`, `SwmrLoader`: parameters of the same names.

use super::super::keys::Keys;
use super::super::waiting::{self, Pace};
use super::Files;
use super::stack::Stack;
use ptystream_common::error::chain;
use ptystream_common::h5::read::{H5Dataset, ReadError};
use ptystream_common::source::{Check, SourceError};
use std::time::{Duration, Instant};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(10);
pub(super) const PARAMETER: &str = "data.intensities.key";
const LIVE: [(&str, &str); 3] =
    [("intensities", "live_key"), ("positions", "live_slow_key"), ("positions", "live_fast_key")];

/// Positions along one axis.
#[derive(Default)]
struct Axis {
    values: Vec<f64>,
    /// It is the axis of a grid, or one coordinate of each point.
    one_dimensional: bool,
    /// Others may follow.
    grows: bool,
}

/// See the module.
pub(super) struct Growth {
    axes: Option<[Axis; 2]>,
    /// Whether those are the axes of a grid: known once they have been read, or where their shapes are given.
    meshed: Option<bool>,
    there: usize,
    pace: Pace,
    looked: Option<Instant>,
    expected: Option<usize>,
}

fn failed(error: &ReadError) -> SourceError {
    SourceError::input(chain(error))
}

/// Opens a dataset as it is by now; `None` if its key is not given.
///
/// Nothing else may have it open: the library then keeps what it knows.
fn fresh(files: &mut Files, group: &str, name: &str) -> Result<Option<H5Dataset>, SourceError> {
    if !Keys(&files.spec).has(&format!("{group}.{name}")) {
        return Ok(None);
    }
    let Some(dataset) = files.dataset(group, name)? else { return Ok(None) };
    dataset.refreshed().map(Some).map_err(|e| failed(&e))
}

/// Counts the frames that a dataset has room for.
fn room(frames: &H5Dataset) -> usize {
    let shape = frames.shape();
    shape[..shape.len().saturating_sub(2)].iter().product()
}

fn axis(files: &mut Files, name: &str) -> Result<Option<Axis>, SourceError> {
    let Some(dataset) = fresh(files, "positions", &format!("{name}_key"))? else {
        return Ok(None);
    };
    let keys = Keys(&files.spec);
    let column = keys.count(&format!("positions.{name}_index"))?;
    let multiplier = keys.number(&format!("positions.{name}_multiplier"))?.unwrap_or(1.0);
    let array = dataset.read().map_err(|e| failed(&e))?;
    let columns = match column {
        Some(_) => array.shape.last().copied().unwrap_or(1).max(1),
        None => 1,
    };
    let values = array.to_f64().into_iter().skip(column.unwrap_or(0)).step_by(columns);
    Ok(Some(Axis {
        values: values.map(|v| v * multiplier).collect(),
        one_dimensional: column.is_none() && array.shape.len() == 1,
        grows: dataset.can_grow(),
    }))
}

impl Growth {
    /// Waits until the files are there and hold a frame.
    ///
    /// # Errors
    /// What is missing after `wait_secs`, and what cannot be right any more.
    pub(super) fn wait(files: &mut Files) -> Result<(Self, Stack), SourceError> {
        let spec = files.spec.clone();
        waiting::wait(Keys(&spec), || {
            // A file that was there may be replaced.
            files.open.clear();
            let tried = Self::open(files).and_then(|mut growth| {
                let frames = growth.look(files)?;
                Ok((growth, frames))
            });
            match tried {
                Ok((growth, frames)) if growth.there > 0 => {
                    Ok(Ok((growth, Stack::open(vec![frames], PARAMETER, None)?)))
                }
                Ok(_) => Ok(Err("no frame is complete".to_owned())),
                Err(error @ SourceError::Param { .. }) => Err(error),
                Err(error) => Ok(Err(error.to_string())),
            }
        })
    }

    fn open(files: &mut Files) -> Result<Self, SourceError> {
        let keys = Keys(&files.spec);
        let needed =
            |key: &str, text: &str| SourceError::Param { key: key.into(), text: text.into() };
        if !keys.has("intensities.key") {
            return Err(needed("intensities.key", "is needed: the dataset of the frames"));
        }
        let stream = keys.text("positions.kind")?.is_some_and(|kind| kind != "file");
        let both = keys.has("positions.slow_key") && keys.has("positions.fast_key");
        if !stream && !both && !keys.has("positions_theory") {
            let text = "is needed, and data.positions.fast_key: the datasets of the positions";
            return Err(needed("positions.slow_key", text));
        }
        let pace = Pace::new(keys)?;
        let live = LIVE.iter().any(|(group, name)| keys.has(&format!("{group}.{name}")));
        let shape = |d: Option<H5Dataset>| d.map(|d| d.shape().to_vec());
        let slow = shape(fresh(files, "positions", "slow_key_with_expected_shape")?);
        let fast = shape(fresh(files, "positions", "fast_key_with_expected_shape")?);
        let points = |shape: &[usize]| shape.iter().product::<usize>();
        let is_grid = matches!((&slow, &fast), (Some(s), Some(f)) if s.len() == 1 && s != f);
        let expected = match (&slow, &fast) {
            (Some(slow), Some(fast)) if is_grid => Some(points(slow) * points(fast)),
            (Some(one), _) | (_, Some(one)) => Some(points(one)),
            // Room is made beforehand where live keys say what of it is filled.
            (None, None) if live => {
                let frames = fresh(files, "intensities", "key")?;
                frames.filter(|f| !f.can_grow()).map(|f| room(&f))
            }
            (None, None) => None,
        };
        Ok(Self {
            axes: (!stream && both).then(Default::default),
            meshed: is_grid.then_some(true),
            there: 0,
            pace,
            looked: None,
            expected: expected.filter(|n| *n > 1),
        })
    }

    /// Returns how many frames the scan will have, if something says so.
    pub(super) fn expected(&self) -> Option<usize> {
        self.expected
    }

    /// Tells whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.looked.is_none_or(|looked| looked.elapsed() >= LOOK)
    }

    /// Looks how far the scan has come; returns the frames as they are. Nobody may have them open.
    ///
    /// # Errors
    /// If a dataset cannot be read any more.
    pub(super) fn look(&mut self, files: &mut Files) -> Result<H5Dataset, SourceError> {
        self.looked = Some(Instant::now());
        let mut there = usize::MAX;
        for (group, name) in LIVE {
            if let Some(live) = fresh(files, group, name)? {
                let values = live.read().map_err(|e| failed(&e))?.to_f64();
                there = there.min(values.iter().position(|v| *v == 0.0).unwrap_or(values.len()));
            }
        }
        // What live keys say to be there was written before: so it is looked for afterwards.
        let frames = fresh(files, "intensities", "key")?;
        let frames = frames.ok_or_else(|| SourceError::input("the frames' dataset is gone"))?;
        there = there.min(room(&frames));
        if there > self.there
            && self.axes.is_some()
            && let (Some(slow), Some(fast)) = (axis(files, "slow")?, axis(files, "fast")?)
        {
            let axes = [slow, fast];
            let meshed = match self.meshed {
                Some(known) => known,
                None => {
                    let total = Keys(&files.spec).count("num_frames")?;
                    is_mesh(&axes, total.or(self.expected))
                }
            };
            self.meshed = Some(meshed);
            there = there.min(points(&axes, meshed));
            self.axes = Some(axes);
        }
        if there > self.there {
            self.there = there;
            self.pace.grew();
        }
        Ok(frames)
    }

    /// Answers [`ptystream_common::source::Source::check`], as [`Pace::check`].
    ///
    /// # Errors
    /// As that.
    pub(super) fn check(
        &self,
        frames: usize,
        start: usize,
        num_frames: Option<usize>,
    ) -> Result<Check, SourceError> {
        let wanted = num_frames.or(self.expected);
        self.pace.check(self.there, frames, start, wanted, "the file stopped growing at")
    }

    /// Tells whether positions are in the files.
    pub(super) fn has_positions(&self) -> bool {
        self.axes.is_some()
    }

    /// Returns the position of a frame.
    pub(super) fn position(&self, index: u64) -> Option<[f64; 2]> {
        let [slow, fast] = self.axes.as_ref()?;
        let at = usize::try_from(index).ok()?;
        if self.meshed == Some(true) {
            let columns = fast.values.len().max(1);
            return Some([*slow.values.get(at / columns)?, *fast.values.get(at % columns)?]);
        }
        Some([*slow.values.get(at)?, *fast.values.get(at)?])
    }
}

/// Tells two axes of a grid from the coordinates of a list of points, in a scan of `total` frames.
///
/// By how long they are, but not where both grow: one may have a point more than the other only because the
/// writer went on while they were read.
fn is_mesh([slow, fast]: &[Axis; 2], total: Option<usize>) -> bool {
    let differ = slow.values.len() != fast.values.len();
    let of_all = |axis: &Axis| total == Some(axis.values.len());
    let meshed = match (slow.grows, fast.grows) {
        (true, true) => false,
        (false, false) => differ,
        (true, false) => !of_all(fast),
        (false, true) => !of_all(slow),
    };
    slow.one_dimensional && fast.one_dimensional && meshed
}

fn points(axes: &[Axis; 2], meshed: bool) -> usize {
    let [slow, fast] = [axes[0].values.len(), axes[1].values.len()];
    if meshed { slow * fast } else { slow.min(fast) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_a_grid_are_told_from_lists_whose_lengths_differ_for_a_moment() {
        let axis = |n: usize, grows| Axis { values: vec![0.0; n], one_dimensional: true, grows };
        let mesh = |slow, fast, total| is_mesh(&[slow, fast], total);
        assert!(!mesh(axis(7, true), axis(8, true), Some(56)), "the writer was between the two");
        assert!(!mesh(axis(9, true), axis(8, true), None));
        assert!(mesh(axis(7, false), axis(8, false), None));
        assert!(!mesh(axis(8, false), axis(8, false), None));
        assert!(mesh(axis(3, true), axis(8, false), Some(40)), "a grid that grows by lines");
        assert!(!mesh(axis(3, true), axis(40, false), Some(40)), "one was written beforehand");
        assert!(!mesh(axis(40, false), axis(3, true), Some(40)));
        let column = Axis { one_dimensional: false, ..axis(7, false) };
        assert!(!mesh(column, axis(8, false), None));
        assert_eq!(points(&[axis(7, true), axis(8, true)], false), 7);
        assert_eq!(points(&[axis(7, true), axis(8, true)], true), 56);
    }
}
