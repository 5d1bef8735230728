//! `--health FILE` and `ptystream health`: whether a role lives, for those who would start it again.
//!
//! A role writes a small JSON file every few seconds, whole at any time, and removes it when it ends. It
//! lives if the file is fresh and each of its loops has turned lately; while a scan is being opened, or
//! none is under way, there are no loops.

use crate::cli::HealthArgs;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::loops;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EVERY: Duration = Duration::from_secs(2);

/// What the file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Health {
    /// `producer`, `worker`, `sink` or `run`.
    role: String,
    pid: u32,
    /// Seconds since 1970.
    written: f64,
    loops: Vec<Loop>,
}

/// A loop of the role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Loop {
    name: String,
    /// Seconds since its last turn.
    silent: f64,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

/// Writes the file until it is dropped.
#[derive(Debug)]
pub struct Writer {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins; a file that cannot be written is said once.
    pub fn start(path: PathBuf, role: &'static str) -> Self {
        let (stop, stopped) = channel();
        let work = move || {
            let mut said = false;
            loop {
                if let Err(error) = write(&path, role) {
                    if !said {
                        tracing::warn!("--health {}: {error}", path.display());
                    }
                    said = true;
                }
                match stopped.recv_timeout(EVERY) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            // It may never have been written.
            let _ = std::fs::remove_file(&path);
        };
        let thread = std::thread::Builder::new().name("health".into()).spawn(work);
        let thread = thread.inspect_err(|e| tracing::warn!("--health: {e}")).ok();
        Self { stop: Some(stop), thread }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn write(path: &Path, role: &str) -> std::io::Result<()> {
    let loops = loops::alive()
        .into_iter()
        .map(|l| Loop { name: l.name, silent: l.ago.as_secs_f64() })
        .collect();
    let health = Health { role: role.into(), pid: std::process::id(), written: now(), loops };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    std::fs::write(&temporary, serde_json::to_vec(&health)?)?;
    std::fs::rename(&temporary, path)
}

/// Says how a role is, and whether it lives.
///
/// # Errors
/// If no file is named.
pub fn check(args: &HealthArgs) -> Result<(String, bool), Failure> {
    let path = args.file.as_deref().ok_or_else(|| {
        let text =
            "give the file that the role writes (--health FILE), or set PTYSTREAM_HEALTH for both";
        Failure::new(Kind::Config, text)
    })?;
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) => return Ok((format!("no role writes {}: {e}", path.display()), false)),
    };
    Ok(match serde_json::from_slice::<Health>(&bytes) {
        Ok(health) => judge(&health, now(), args.max_age),
        Err(e) => (format!("{} was not written by a role: {e}", path.display()), false),
    })
}

fn judge(health: &Health, now: f64, most: f64) -> (String, bool) {
    let Health { role, pid, written, loops } = health;
    let who = format!("{role} (process {pid})");
    let age = now - written;
    if age > most {
        return (format!("{who} has written nothing for {age:.0} s"), false);
    }
    let slowest = loops.iter().max_by(|a, b| a.silent.total_cmp(&b.silent));
    match slowest {
        None => (format!("{who} lives; no scan is under way"), true),
        Some(one) if one.silent > most => {
            (format!("{who}: {} has not turned for {:.0} s", one.name, one.silent), false)
        }
        Some(_) => (format!("{who} lives"), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_lives_if_it_writes_and_its_loops_turn() {
        let of = |silent: &[f64]| Health {
            role: "sink".into(),
            pid: 7,
            written: 100.0,
            loops: silent.iter().map(|&silent| Loop { name: "sink".into(), silent }).collect(),
        };
        assert_eq!(judge(&of(&[0.1]), 103.0, 30.0), ("sink (process 7) lives".into(), true));
        assert!(judge(&of(&[]), 103.0, 30.0).1);
        let (text, lives) = judge(&of(&[0.1, 44.0]), 103.0, 30.0);
        assert!(!lives && text.contains("not turned for 44 s"), "{text}");
        let (text, lives) = judge(&of(&[0.1]), 150.0, 30.0);
        assert!(!lives && text.contains("nothing for 50 s"), "{text}");
    }

    #[test]
    fn the_file_goes_with_its_role() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("health.json");
        let args = HealthArgs { file: Some(path.clone()), max_age: 30.0 };
        assert!(!check(&args).expect("a file is named").1);
        let writer = Writer::start(path.clone(), "worker");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !path.exists() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (text, lives) = check(&args).expect("a file is named");
        assert!(lives, "{text}");
        drop(writer);
        assert!(!path.exists());
        std::fs::write(&path, "other").expect("a file");
        assert!(!check(&args).expect("a file is named").1);
        assert!(check(&HealthArgs { file: None, max_age: 30.0 }).is_err());
    }
}
