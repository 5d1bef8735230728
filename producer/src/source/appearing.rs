//! Files that appear one by one, while a scan runs: how many of them are whole.
//!
//! A file that is there may still be being written. It is whole once it can be read; one that cannot, or that is
//! missing between others, is waited for as long as `late_secs`, and then its frames are gaps.

use super::keys::Keys;
use super::stamp::stamp;
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{Check, SourceError};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

const NUMBER: &[ParamType] = &[ParamType::Float];

/// The parameters.
pub(super) const PARAMS: [ParamDecl; 4] = [
    ParamDecl::new("live", &[ParamType::Bool], ParamDefault::Bool(false), "Whether files still appear, one by one, and are to be followed."),
    ParamDecl::new("wait_secs", NUMBER, ParamDefault::Float(3600.0), "With `live`: how long to wait for the first file.")
        .above(0.0).unit("s").level(1).bytes_unaffected(),
    ParamDecl::new("idle_secs", NUMBER, ParamDefault::Float(60.0), "With `live`: after so long without a new file none is to be expected.")
        .above(0.0).unit("s").level(1).bytes_unaffected(),
    ParamDecl::new("late_secs", NUMBER, ParamDefault::Float(10.0), "With `live`: how long a file that is missing between others, or cannot be read, is waited for.")
        .doc("Then its frames are gaps.").above(0.0).unit("s").level(1).bytes_unaffected(),
];

/// How often files are looked for.
const LOOK: Duration = Duration::from_millis(10);
/// How often it is looked whether later files are there than one that is missing.
const LOOK_AHEAD: Duration = Duration::from_millis(500);
/// How far that goes.
const AHEAD: usize = 64;
/// So many files are read to see whether they are whole before their frames are taken.
const AT_ONCE: usize = 8;
/// A file so much older than the newest one is not being written any more.
const SETTLED: Duration = Duration::from_secs(10);
/// A file of which nothing else tells that it is whole has rested for so long.
pub(super) const QUIET: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(50);

/// The files of a source, in their order.
pub(super) trait Files {
    /// Returns the name of file `n`; `None` if there will be none.
    fn path(&self, n: usize) -> Option<PathBuf>;

    /// Tells whether file `n`, which is there and has not changed for as long as `rested`, can be read; what
    /// was read stays at hand for its frames.
    fn is_whole(&mut self, n: usize, rested: Duration) -> bool;
}

/// How far files have appeared.
#[derive(Debug)]
pub(super) struct Appearing {
    there: usize,
    grown: Instant,
    looked: Option<Instant>,
    looked_ahead: Instant,
    idle: Duration,
    late: Duration,
    /// How files stand that are not counted yet, and since when.
    stand: BTreeMap<usize, (String, Instant)>,
    stood: Instant,
}

fn secs(keys: Keys<'_>, key: &str, default: f64) -> Result<Duration, SourceError> {
    let secs = keys.number(key)?.unwrap_or(default);
    Ok(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
}

/// Opens what `open` opens as soon as it can be opened; it returns why that is not yet so.
///
/// # Errors
/// What can only be wrong; what was missing to the end of `wait_secs`.
pub(super) fn wait<T>(
    keys: Keys<'_>,
    mut open: impl FnMut() -> Result<Result<T, String>, SourceError>,
) -> Result<T, SourceError> {
    let patience = secs(keys, "wait_secs", 3600.0)?;
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        let why = match open()? {
            Ok(opened) => return Ok(opened),
            Err(why) => why,
        };
        if begun.elapsed() > patience {
            return Err(SourceError::input(format!(
                "nothing has appeared within {} s (data.wait_secs): {why}",
                patience.as_secs_f64()
            )));
        }
        if why != said {
            tracing::info!("waiting for the scan's first file: {why}");
            said = why;
        }
        std::thread::sleep(TICK);
    }
}

/// Tells whether nobody writes the first file any more: the second one is there, or it rests.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<(PathBuf, String, Instant)>);

impl Rest {
    /// Says so while the first file may still be being written.
    pub(super) fn of(&mut self, first: PathBuf, second: Option<PathBuf>) -> Result<(), String> {
        let now = stamp(&first);
        let same = self.0.take().filter(|(path, stamp, _)| *path == first && *stamp == now);
        let since = same.map_or_else(Instant::now, |(_, _, since)| since);
        if second.is_some_and(|second| second.is_file()) || since.elapsed() >= QUIET {
            return Ok(());
        }
        let text = format!("'{}' may still be being written", first.display());
        self.0 = Some((first, now, since));
        Err(text)
    }
}

impl Appearing {
    pub(super) fn new(keys: Keys<'_>) -> Result<Self, SourceError> {
        Ok(Self {
            there: 0,
            grown: Instant::now(),
            looked: None,
            looked_ahead: Instant::now(),
            idle: secs(keys, "idle_secs", 60.0)?,
            late: secs(keys, "late_secs", 10.0)?,
            stand: BTreeMap::new(),
            stood: Instant::now(),
        })
    }

    /// Returns how many files are there, from the first one on.
    pub(super) fn there(&self) -> usize {
        self.there
    }

    /// Looks for files, unless it has just been done.
    pub(super) fn look(&mut self, files: &mut dyn Files) {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        self.looked = Some(Instant::now());
        let modified = |files: &dyn Files, n| modified(&files.path(n)?);
        let (mut end, mut newest) = (self.there, SystemTime::UNIX_EPOCH);
        while let Some(time) = modified(files, end) {
            (end, newest) = (end + 1, newest.max(time));
        }
        if self.stood.elapsed() >= TICK {
            self.stood = Instant::now();
            for n in self.there..end.min(self.there + AHEAD) {
                self.rested(files, n);
            }
        }
        let mut tried = 0;
        while self.there < end && tried < AT_ONCE {
            let Some(time) = modified(files, self.there) else { return };
            let is_old = newest.duration_since(time).is_ok_and(|age| age > SETTLED);
            if !is_old {
                tried += 1;
                let rested = self.rested(files, self.there);
                if !files.is_whole(self.there, rested) && rested < self.late {
                    return;
                }
            }
            self.step();
        }
        if self.there == end && self.looked_ahead.elapsed() >= LOOK_AHEAD {
            self.looked_ahead = Instant::now();
            let is_there = |n| files.path(n).is_some_and(|path| path.is_file());
            if !(end + 1..=end + AHEAD).any(is_there) {
                self.stand.clear();
            } else if self.rested(files, end) >= self.late {
                self.step();
            }
        }
    }

    /// Returns for how long file `n` has stood like this: as it is, or missing.
    fn rested(&mut self, files: &dyn Files, n: usize) -> Duration {
        let now = files.path(n).map(|path| stamp(&path)).unwrap_or_default();
        match self.stand.get(&n) {
            Some((before, since)) if *before == now => since.elapsed(),
            _ => {
                self.stand.insert(n, (now, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn step(&mut self) {
        self.there += 1;
        self.stand = self.stand.split_off(&self.there);
        self.grown = Instant::now();
    }

    /// Answers [`ptystream_common::source::Source::check`], where `there` frames have come and
    /// `wanted` are expected.
    ///
    /// # Errors
    /// [`SourceError::Interrupted`] if fewer than are wanted have come, and no file for too long.
    pub(super) fn check(
        &self,
        there: usize,
        frames: usize,
        start: usize,
        wanted: Option<usize>,
    ) -> Result<Check, SourceError> {
        let whole = wanted.is_some_and(|n| there >= n);
        let check = Check::of(there, frames, start, wanted);
        if whole || self.grown.elapsed() <= self.idle {
            return Ok(Check { end_of_scan: Some(whole), ..check });
        }
        match wanted {
            Some(n) => Err(SourceError::Interrupted {
                frames: there as u64,
                reason: format!(
                    "no more files appeared after {there} of {n} frames (data.idle_secs)"
                ),
            }),
            None => Ok(Check { end_of_scan: Some(true), ..check }),
        }
    }
}

fn modified(path: &std::path::Path) -> Option<SystemTime> {
    let meta = std::fs::metadata(path).ok()?;
    meta.is_file().then(|| meta.modified().unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Names that count on: `frame_0007.tif`, `frame_0008.tif`, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Numbered {
    before: PathBuf,
    /// The number of the first one.
    first: u64,
    width: usize,
    after: String,
}

impl Numbered {
    /// Takes a name apart at the last number before its ending; `None` if it has none.
    pub(super) fn of(first: &std::path::Path) -> Option<Self> {
        let name = first.file_name()?.to_str()?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let end = stem.rfind(|c: char| c.is_ascii_digit())? + 1;
        let start = stem[..end]
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(0, |at| at + stem[at..].chars().next().map_or(1, char::len_utf8));
        Some(Self {
            before: first.with_file_name(&name[..start]),
            first: name[start..end].parse().ok()?,
            width: end - start,
            after: name[end..].to_owned(),
        })
    }

    /// Returns the name of the `n`th file.
    pub(super) fn path(&self, n: usize) -> PathBuf {
        self.with(self.first.saturating_add(n as u64))
    }

    /// Returns the name before the first one, if there can be one.
    pub(super) fn before_first(&self) -> Option<PathBuf> {
        Some(self.with(self.first.checked_sub(1)?))
    }

    fn with(&self, number: u64) -> PathBuf {
        let mut name = self.before.clone().into_os_string();
        name.push(format!("{number:0width$}{}", self.after, width = self.width));
        name.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn names_count_on_by_their_last_number() {
        let path = |first: &str, n| Numbered::of(Path::new(first)).unwrap().path(n);
        assert_eq!(path("a/scan12_f009.tif", 1), Path::new("a/scan12_f010.tif"));
        assert_eq!(path("b.9.edf", 2), Path::new("b.11.edf"));
        assert_eq!(path("5.cbf", 0), Path::new("5.cbf"));
        assert_eq!(path("µ99_x.npy", 1), Path::new("µ100_x.npy"));
        assert_eq!(Numbered::of(Path::new("frame.tif2")), None);
        let one = Numbered::of(Path::new("f_0001.tif")).unwrap();
        assert_eq!(one.before_first(), Some("f_0000.tif".into()));
        assert_eq!(Numbered::of(Path::new("f_0.tif")).unwrap().before_first(), None);
    }

    /// Files of which those are whole that say so.
    struct Written(Numbered);

    impl Files for Written {
        fn path(&self, n: usize) -> Option<PathBuf> {
            Some(self.0.path(n))
        }

        fn is_whole(&mut self, n: usize, _: Duration) -> bool {
            std::fs::read(self.0.path(n)).unwrap() == b"whole"
        }
    }

    #[test]
    fn files_count_in_a_row_and_when_they_are_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = Written(Numbered::of(&folder.path().join("f_000.x")).unwrap());
        let write = |n: usize, text: &str| {
            std::fs::write(folder.path().join(format!("f_{n:03}.x")), text).unwrap();
        };
        let past = |by: Duration| Instant::now().checked_sub(by).unwrap();
        let look = |appearing: &mut Appearing, files: &mut Written| {
            appearing.looked = None;
            appearing.looked_ahead = past(LOOK_AHEAD);
            appearing.look(files);
            appearing.there()
        };
        let late = Duration::from_secs(5);
        let mut all = Appearing {
            there: 0,
            grown: Instant::now(),
            looked: None,
            looked_ahead: Instant::now(),
            idle: Duration::from_secs(60),
            late,
            stand: BTreeMap::new(),
            stood: Instant::now(),
        };
        assert_eq!(look(&mut all, &mut files), 0);
        (0..10).for_each(|n| write(n, "whole"));
        assert_eq!(look(&mut all, &mut files), AT_ONCE, "no more are read at once");
        assert_eq!(look(&mut all, &mut files), 10);
        write(10, "who");
        write(12, "whole");
        assert_eq!(look(&mut all, &mut files), 10);
        let long_ago = |all: &mut Appearing| {
            let next = all.there;
            all.stand.get_mut(&next).unwrap().1 = past(late);
        };
        long_ago(&mut all);
        write(10, "whole");
        assert_eq!(look(&mut all, &mut files), 11, "it became whole");
        assert_eq!(look(&mut all, &mut files), 11, "11 is missing");
        long_ago(&mut all);
        assert_eq!(look(&mut all, &mut files), 12, "and is waited for no longer");
        assert_eq!(look(&mut all, &mut files), 13);
        // One that is never whole does not hold up those behind it for ever.
        write(13, "who");
        write(14, "whole");
        assert_eq!(look(&mut all, &mut files), 13);
        long_ago(&mut all);
        assert_eq!(look(&mut all, &mut files), 15);
        assert_eq!(all.check(15, 9, 10, None).unwrap().accessible, 5);
        assert_eq!(all.check(15, 9, 10, Some(15)).unwrap().end_of_scan, Some(true));
        all.grown = past(Duration::from_secs(61));
        assert_eq!(all.check(15, 9, 10, None).unwrap().end_of_scan, Some(true));
        let ended = all.check(15, 9, 10, Some(16)).unwrap_err();
        assert!(matches!(ended, SourceError::Interrupted { frames: 15, .. }), "{ended}");
    }
}
