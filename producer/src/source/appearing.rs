//! Files that appear one by one, while a scan runs: how many of them are whole.
//!
//! A file that is there may still be being written. It is whole once it can be read; one that cannot, or that is
//! missing between others, is waited for as long as `late_secs`, and then its frames are gaps.

use super::keys::Keys;
use super::stamp::stamp;
use super::waiting::{Pace, secs};
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{Check, SourceError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    pace: Pace,
    looked: Option<Instant>,
    looked_ahead: Instant,
    late: Duration,
    /// Files that are not counted yet.
    stand: BTreeMap<usize, Stand>,
    stood: Instant,
}

/// How a file stands, and since when it has.
#[derive(Debug, Default)]
struct Stand(Option<(String, Instant)>);

impl Stand {
    /// It stands like this now; returns for how long it has.
    fn rested(&mut self, now: String) -> Duration {
        match &self.0 {
            Some((before, since)) if *before == now => since.elapsed(),
            _ => {
                self.0 = Some((now, Instant::now()));
                Duration::ZERO
            }
        }
    }
}

/// Tells whether nobody writes the first file any more: the second one is there, or it rests.
#[derive(Debug, Default)]
pub(super) struct Rest(Stand);

impl Rest {
    /// Says so while the first file may still be being written.
    pub(super) fn of(&mut self, first: &Path, second: Option<PathBuf>) -> Result<(), String> {
        let rested = self.0.rested(format!("{} {}", first.display(), stamp(first)));
        if second.is_some_and(|second| second.is_file()) || rested >= QUIET {
            return Ok(());
        }
        Err(format!("'{}' may still be being written", first.display()))
    }
}

impl Appearing {
    pub(super) fn new(keys: Keys<'_>) -> Result<Self, SourceError> {
        Ok(Self {
            there: 0,
            pace: Pace::new(keys)?,
            looked: None,
            looked_ahead: Instant::now(),
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
        self.stand.entry(n).or_default().rested(now)
    }

    fn step(&mut self) {
        self.there += 1;
        self.stand = self.stand.split_off(&self.there);
        self.pace.grew();
    }

    /// Answers [`ptystream_common::source::Source::check`], as [`Pace::check`].
    ///
    /// # Errors
    /// As that.
    pub(super) fn check(
        &self,
        there: usize,
        frames: usize,
        start: usize,
        wanted: Option<usize>,
    ) -> Result<Check, SourceError> {
        self.pace.check(there, frames, start, wanted, "no more files appeared after")
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
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
    pub(super) fn of(first: &Path) -> Option<Self> {
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
    use ptystream_common::source::SourceSpec;
    use ptystream_common::value::Value;

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
        let spec = SourceSpec {
            name: "npy".into(),
            data: Value::Map(vec![("late_secs".into(), Value::Float(late.as_secs_f64()))]),
            base: PathBuf::new(),
            given: vec![],
            shutdown: Default::default(),
        };
        let mut all = Appearing::new(Keys(&spec)).unwrap();
        assert_eq!(look(&mut all, &mut files), 0);
        (0..10).for_each(|n| write(n, "whole"));
        assert_eq!(look(&mut all, &mut files), AT_ONCE, "no more are read at once");
        assert_eq!(look(&mut all, &mut files), 10);
        write(10, "who");
        write(12, "whole");
        assert_eq!(look(&mut all, &mut files), 10);
        let long_ago = |all: &mut Appearing| {
            let next = all.there;
            all.stand.get_mut(&next).unwrap().0.as_mut().unwrap().1 = past(late);
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
    }
}
