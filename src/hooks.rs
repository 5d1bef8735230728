//! `pipeline.on_first_chunk` and `on_done`: commands of the user's own, such as a batch job that
//! reconstructs, or an entry in the electronic logbook.
//!
//! A command runs by `sh -c` in the working folder of the role that reads the configuration. It never
//! keeps a scan waiting; the process stays until it has ended.

use ptystream_common::error::Failure;
use ptystream_common::h5;
use ptystream_common::params::PipelineParams;
use ptystream_common::report::ScanReport;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// The commands of one scan.
#[derive(Debug, Default)]
pub struct Hooks {
    first_chunk: Option<String>,
    done: Option<String>,
    file: Option<PathBuf>,
    running: Vec<JoinHandle<()>>,
}

impl Hooks {
    /// Takes the commands of a configuration; `file`: what the scan is written to.
    pub fn new(pipeline: &PipelineParams, file: Option<&Path>) -> Self {
        let file = file.map(|f| std::path::absolute(f).unwrap_or_else(|_| f.to_owned()));
        Self {
            first_chunk: pipeline.on_first_chunk.clone(),
            done: pipeline.on_done.clone(),
            file,
            running: Vec::new(),
        }
    }

    /// The first chunk can be read.
    pub fn first_chunk(&mut self) {
        if let Some(command) = self.first_chunk.take() {
            self.start("on_first_chunk", command, "running", 0);
        }
    }

    /// The scan has ended.
    pub fn done(&mut self, result: &Result<ScanReport, Failure>) {
        // A short scan may be over before anybody was told how far it is.
        if result.as_ref().is_ok_and(|report| report.chunks > 0) {
            self.first_chunk();
        }
        let Some(command) = self.done.take() else { return };
        let (status, gaps) = match result {
            Ok(report) => (report.state.as_str(), report.gaps()),
            Err(_) => ("failed", 0),
        };
        self.start("on_done", command, status, gaps);
    }

    fn start(&mut self, name: &'static str, command: String, status: &str, gaps: u64) {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", &command])
            .env("PTYSTREAM_FILE", self.file.as_deref().unwrap_or(Path::new("")))
            .env("PTYSTREAM_STATUS", status)
            .env("PTYSTREAM_GAPS", gaps.to_string())
            .stdin(Stdio::null());
        // Results of a scan go to stdout, what is said beside them to stderr.
        let stdout = std::io::stderr();
        shell.stdout(stdout_of(&stdout));
        match h5::spawn(&mut shell) {
            Err(error) => tracing::warn!("pipeline.{name} cannot be run: {error}"),
            Ok(mut child) => {
                let wait = move || match child.wait() {
                    Ok(status) if status.success() => {}
                    Ok(status) => tracing::warn!("pipeline.{name} ended with {status}: {command}"),
                    Err(error) => tracing::warn!("pipeline.{name}: {error}"),
                };
                match std::thread::Builder::new().name(name.into()).spawn(wait) {
                    Ok(thread) => self.running.push(thread),
                    Err(error) => tracing::warn!("pipeline.{name}: {error}"),
                }
            }
        }
    }
}

fn stdout_of(stderr: &std::io::Stderr) -> Stdio {
    use std::os::fd::AsFd;
    match stderr.as_fd().try_clone_to_owned() {
        Ok(fd) => Stdio::from(fd),
        Err(_) => Stdio::null(),
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        for thread in self.running.drain(..) {
            // What went wrong has been said.
            let _ = thread.join();
        }
    }
}
