//! Producer, worker and sink, each a process, over ipc.

use crate::ROLE;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How a run ended.
pub struct Ended {
    /// The exit code.
    pub code: u8,
    /// The failure, or warnings.
    pub text: String,
}

/// A role that does not outlive its test.
struct Role {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Role {
    fn start(
        program: &Path,
        name: &'static str,
        folder: &Path,
        args: &[&OsStr],
    ) -> Result<Self, String> {
        let log = folder.with_file_name(format!("{name}.log"));
        let file = std::fs::File::create(&log).map_err(|e| e.to_string())?;
        let child = Command::new(program)
            .env(ROLE, "1")
            .arg(name)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { name, child, log })
    }

    fn wait(&mut self, deadline: Instant) -> Result<u8, String> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(|e| e.to_string())? {
                return Ok(status.code().map_or(255, |c| c as u8));
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not end:\n{}", self.name, self.said()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prepares `scan` in `folder` over the ranks of an MPI job.
#[cfg(feature = "mpi")]
pub fn ranks(program: &Path, ranks: usize, scan: &Path, folder: &Path) -> Result<Ended, String> {
    let output = Command::new("mpirun")
        .env(ROLE, "1")
        .envs(crate::mpirun::ENVIRONMENT)
        .args(["-n", &ranks.to_string()])
        .arg(program)
        .args(["run", "--quiet", "--set", "pipeline.policy=static"])
        .arg(scan)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("mpirun: {e}"))?;
    Ok(Ended {
        code: output.status.code().map_or(255, |c| c as u8),
        text: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Runs the three roles in `folder`, over ipc, the producer with `scan` as its arguments; `alone`:
/// the producer only.
pub fn run(program: &Path, scan: &[&OsStr], folder: &Path, alone: bool) -> Result<Ended, String> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let at = |name: &str| format!("ipc://{}", folder.with_file_name(name).display());
    let (tickets, results) = (at("p"), at("s"));
    let start = |name, args: &[&str]| {
        let mut args: Vec<&OsStr> = args.iter().map(OsStr::new).collect();
        if name == "producer" {
            args.extend(scan);
        }
        Role::start(program, name, folder, &args)
    };
    let mut started = vec![start("producer", &["--quiet", "--bind", &tickets])?];
    if !alone {
        started.push(start("sink", &["--producer", &tickets, "--bind", &results])?);
        started.push(start("worker", &["--producer", &tickets, "--sink", &results])?);
    }
    let mut ended = Ended { code: 0, text: String::new() };
    for role in &mut started {
        let code = role.wait(deadline)?;
        if code != 0 {
            ended.code = code;
            ended.text = format!("{} ended with {code}: {}", role.name, role.said());
            // The others would only wait for it.
            break;
        }
    }
    Ok(ended)
}
