//! The processes of a scan: started, struck, started again, and judged by how they end.

use super::plan::Role;
use ptystream_common::h5;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long it takes somebody to start a role again that has ended.
const AWAY: Duration = Duration::from_millis(250);

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with an exit code.
    Code(i32),
    /// By a signal that it did not catch.
    Signal(i32),
}

impl From<ExitStatus> for Ended {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

/// One role of the scan, through all its lives.
#[derive(Debug)]
pub struct Actor {
    /// Which.
    pub role: Role,
    program: PathBuf,
    words: Vec<String>,
    folder: PathBuf,
    lives: usize,
    child: Option<Child>,
    /// When it was last started.
    pub started: Instant,
    /// How its last life ended, and when.
    pub ended: Option<(Ended, Instant)>,
    /// When it is to be started again.
    pub due: Option<Instant>,
    /// The signal that was sent to end this life.
    pub struck: Option<i32>,
    /// How long it stays away after its next end.
    pub away: Duration,
    /// Until when it is stopped.
    pub stopped_until: Option<Instant>,
}

impl Actor {
    /// Prepares a role: `program` with `words`, in `folder`, due at once.
    pub fn new(role: Role, program: &Path, words: Vec<String>, folder: &Path) -> Self {
        let now = Instant::now();
        Self {
            role,
            program: program.to_owned(),
            words,
            folder: folder.to_owned(),
            lives: 0,
            child: None,
            started: now,
            ended: None,
            due: Some(now),
            struck: None,
            away: AWAY,
            stopped_until: None,
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.{}.log", self.role, self.lives))
    }

    /// Starts it.
    ///
    /// # Errors
    /// The system's.
    pub fn start(&mut self) -> io::Result<()> {
        self.lives += 1;
        let log = File::create(self.log())?;
        let mut command = Command::new(&self.program);
        #[cfg(target_os = "linux")]
        end_with_parent(&mut command);
        command
            .args(&self.words)
            .current_dir(&self.folder)
            .env_remove("PTYSTREAM_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = h5::spawn(&mut command)?;
        self.child = Some(child);
        self.started = Instant::now();
        (self.due, self.struck, self.stopped_until) = (None, None, None);
        self.away = AWAY;
        Ok(())
    }

    /// Tells whether it runs.
    pub fn is_running(&self) -> bool {
        self.child.is_some()
    }

    /// Tells whether its last life ended well.
    pub fn is_done(&self) -> bool {
        self.child.is_none() && self.ended.is_some_and(|(how, _)| how == Ended::Code(0))
    }

    /// Returns what it has said in this life.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: i32) {
        if let Some(pid) = self.child.as_ref().and_then(|c| libc::pid_t::try_from(c.id()).ok()) {
            // SAFETY: the process is a child that has not been waited for, so that its number
            // cannot be another's.
            let _ = unsafe { libc::kill(pid, signal) };
        }
    }

    /// Sends a signal that ends it; it is to be away for a time.
    pub fn strike(&mut self, signal: i32, away: Duration) {
        if !self.is_running() {
            return;
        }
        self.wake();
        self.struck = Some(signal);
        self.away = away;
        self.signal(signal);
    }

    /// Stops it for a time.
    pub fn stop(&mut self, time: Duration) {
        if self.is_running() {
            self.signal(libc::SIGSTOP);
            let until = Instant::now() + time;
            self.stopped_until = Some(self.stopped_until.map_or(until, |at| at.max(until)));
        }
    }

    /// Lets it go on, if it is stopped.
    pub fn wake(&mut self) {
        if self.stopped_until.take().is_some() {
            self.signal(libc::SIGCONT);
        }
    }

    /// Lets it go on when its time is over.
    pub fn wake_in_time(&mut self) {
        if self.stopped_until.is_some_and(|at| Instant::now() >= at) {
            self.wake();
        }
    }

    /// Looks whether it has ended since the last look.
    ///
    /// # Errors
    /// The system's.
    pub fn reap(&mut self) -> io::Result<Option<Ended>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let Some(status) = child.try_wait()? else { return Ok(None) };
        self.child = None;
        let ended = Ended::from(status);
        self.ended = Some((ended, Instant::now()));
        self.stopped_until = None;
        Ok(Some(ended))
    }

    /// Judges an end. `told_to_end`: producer or sink were told to end, which they tell the others; `begun_full`:
    /// a sink was started on a full disk.
    ///
    /// # Errors
    /// Why it should not have ended so.
    pub fn judge(&self, ended: Ended, told_to_end: bool, begun_full: bool) -> Result<(), String> {
        let fine = match ended {
            Ended::Code(0) => true,
            // SIGTERM too, where it comes before the process listens for it.
            Ended::Signal(signal) => self.struck == Some(signal),
            Ended::Code(143) => self.struck == Some(libc::SIGTERM),
            // The scan was ended by a role that had been told to.
            Ended::Code(7) => told_to_end,
            // There is no scan yet that could wait for room.
            Ended::Code(6) => begun_full && self.said().contains("its disk is full"),
            // A sink that comes back before the producer knows that the old one is gone.
            Ended::Code(4) => self.role == Role::Sink && self.said().contains("has a sink already"),
            Ended::Code(_) => false,
        };
        let how = match ended {
            Ended::Code(code) => format!("with exit code {code}"),
            Ended::Signal(signal) => format!("by signal {signal}"),
        };
        let said = self.said();
        let last = said.lines().last().unwrap_or("nothing");
        if fine { Ok(()) } else { Err(format!("{} ended {how}, saying: {last}", self.role)) }
    }
}

/// Makes a process end with the thread that starts it, whatever ends that.
#[cfg(target_os = "linux")]
fn end_with_parent(command: &mut Command) {
    let ask = || {
        // SAFETY: a plain system call without pointers, allowed between fork and exec.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `ask` allocates nothing and takes no lock.
    unsafe { command.pre_exec(ask) };
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // It may have ended just now.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
