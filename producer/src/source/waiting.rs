//! What sources share whose scan is still being written: the wait for its beginning, and when it has ended.

use super::keys::Keys;
use ptystream_common::source::{Check, SourceError};
use std::time::{Duration, Instant};

const TICK: Duration = Duration::from_millis(50);

/// Reads a number of seconds.
pub(super) fn secs(keys: Keys<'_>, key: &str, default: f64) -> Result<Duration, SourceError> {
    let secs = keys.number(key)?.unwrap_or(default);
    Ok(Duration::try_from_secs_f64(secs).unwrap_or(Duration::MAX))
}

/// Opens what `open` opens as soon as it can be opened; it returns why that is not yet so.
///
/// # Errors
/// What can only be wrong; what was missing to the end of `wait_secs`; if the role is to end.
pub(super) fn wait<T>(
    keys: Keys<'_>,
    mut open: impl FnMut() -> Result<Result<T, String>, SourceError>,
) -> Result<T, SourceError> {
    let patience = secs(keys, "wait_secs", 3600.0)?;
    let begun = Instant::now();
    let mut said = String::new();
    loop {
        keys.0.still_wanted()?;
        let why = match open()? {
            Ok(opened) => return Ok(opened),
            Err(why) => why,
        };
        if begun.elapsed() > patience {
            return Err(SourceError::input(format!(
                "nothing has come within {} s (data.wait_secs): {why}",
                patience.as_secs_f64()
            )));
        }
        if why != said {
            tracing::info!("waiting for the scan's first frame: {why}");
            said = why;
        }
        std::thread::sleep(TICK);
    }
}

/// When a scan last grew, and after how long without it has ended.
#[derive(Debug)]
pub(super) struct Pace {
    grown: Instant,
    idle: Duration,
}

impl Pace {
    pub(super) fn new(keys: Keys<'_>) -> Result<Self, SourceError> {
        Ok(Self { grown: Instant::now(), idle: secs(keys, "idle_secs", 60.0)? })
    }

    /// Something has come.
    pub(super) fn grew(&mut self) {
        self.grown = Instant::now();
    }

    /// Answers [`ptystream_common::source::Source::check`], where `there` frames have come and
    /// `wanted` are expected; `what` has happened if that is not so in the end.
    ///
    /// # Errors
    /// [`SourceError::Interrupted`] if fewer than are wanted have come, and nothing for too long.
    pub(super) fn check(
        &self,
        there: usize,
        frames: usize,
        start: usize,
        wanted: Option<usize>,
        what: &str,
    ) -> Result<Check, SourceError> {
        let whole = wanted.is_some_and(|n| there >= n);
        let check = Check::of(there, frames, start, wanted);
        if whole || self.grown.elapsed() <= self.idle {
            return Ok(Check { end_of_scan: Some(whole), ..check });
        }
        match wanted {
            Some(n) => Err(SourceError::Interrupted {
                frames: there as u64,
                reason: format!("{what} {there} of {n} frames (data.idle_secs)"),
            }),
            None => Ok(Check { end_of_scan: Some(true), ..check }),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_ends_when_it_is_whole_or_nothing_comes() {
        let mut pace = Pace { grown: Instant::now(), idle: Duration::from_secs(60) };
        let check = |pace: &Pace, wanted| pace.check(15, 9, 10, wanted, "it stopped at");
        assert_eq!(check(&pace, None).unwrap().accessible, 5);
        assert_eq!(check(&pace, Some(15)).unwrap().end_of_scan, Some(true));
        assert_eq!(check(&pace, Some(16)).unwrap().end_of_scan, Some(false));
        pace.grown = Instant::now().checked_sub(Duration::from_secs(61)).unwrap();
        assert_eq!(check(&pace, None).unwrap().end_of_scan, Some(true));
        let ended = check(&pace, Some(16)).unwrap_err();
        assert!(matches!(ended, SourceError::Interrupted { frames: 15, .. }), "{ended}");
        assert!(ended.to_string().contains("it stopped at 15 of 16 frames"), "{ended}");
    }
}
