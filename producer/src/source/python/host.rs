//! A Python interpreter that runs a source, and what is said to it.
//!
//! Messages go through its stdin and stdout: a length (4 bytes, little-endian), as many bytes of JSON, and
//! the bytes of the arrays that the JSON names. `python/src/ptystream/host.py` is the other side. Whatever
//! the source prints goes to our stderr.

use bytes::Bytes;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::h5;
use ptystream_common::shutdown::Shutdown;
use serde_json::{Value as Json, json};
use std::ffi::OsString;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Time that an interpreter has to end when it is not needed any more.
const GRACE: Duration = Duration::from_secs(2);
/// How often is looked whether a question is still of interest.
const TICK: Duration = Duration::from_millis(50);
/// Largest header: no scan's positions travel in one.
const MOST: u32 = 256 << 20;

static INTERPRETER: OnceLock<OsString> = OnceLock::new();

/// Names the interpreter that runs Python sources from now on; the first call counts.
pub fn set_interpreter(path: impl Into<OsString>) {
    INTERPRETER.get_or_init(|| path.into());
}

fn interpreter() -> OsString {
    let from_environment = || std::env::var_os("PTYSTREAM_PYTHON").filter(|v| !v.is_empty());
    INTERPRETER.get().cloned().or_else(from_environment).unwrap_or_else(|| "python3".into())
}

/// What a host has to say against a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum HostError {
    /// The interpreter cannot be started.
    #[error("cannot start '{}': {source}; name another by --python or PTYSTREAM_PYTHON", name.display())]
    Start {
        /// What was started.
        name: OsString,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It has ended, or what it said makes no sense.
    #[error("the Python interpreter '{}' has ended ({text}){hint}", name.display())]
    Gone {
        /// Which one.
        name: OsString,
        /// What was noticed.
        text: String,
        /// What may help.
        hint: &'static str,
    },
    /// A hook raised an exception.
    #[error("{text}{}", if traceback.is_empty() { String::new() } else { format!("\n{}", traceback.trim_end()) })]
    Raised {
        /// Type and text.
        text: String,
        /// As Python writes it; empty where only a frame is bad.
        traceback: String,
        /// Whether only the frame is bad.
        frame: bool,
        /// The scan was ended from outside after so many frames.
        interrupted: Option<u64>,
    },
}

/// A running interpreter.
#[derive(Debug)]
pub(super) struct Host {
    name: OsString,
    child: Child,
    to: Option<BufWriter<ChildStdin>>,
    from: BufReader<ChildStdout>,
    answered: bool,
}

impl Host {
    /// Starts an interpreter that finds modules in `base` and the working folder.
    pub fn start(base: &Path) -> Result<Self, HostError> {
        let name = interpreter();
        let mut command = Command::new(&name);
        command.args(["-u", "-m", "ptystream.host"]).arg(base);
        if let Ok(here) = std::env::current_dir() {
            command.arg(here);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = |source| HostError::Start { name: name.clone(), source };
        let mut child = h5::spawn(&mut command).map_err(start)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(start(std::io::Error::other("it has no pipes")));
        };
        let (to, from) = (Some(BufWriter::new(to)), BufReader::with_capacity(1 << 16, from));
        Ok(Self { name, child, to, from, answered: false })
    }

    /// Asks for something; returns the answer and its arrays.
    pub fn ask(&mut self, op: &str, mut request: Json) -> Result<(Json, Vec<Array>), HostError> {
        request["op"] = json!(op);
        let done = talk(self.to.as_mut(), &mut self.from, &request);
        self.heard(done)
    }

    /// As [`Self::ask`], of what may wait for long: the interpreter is ended once `shutdown` is begun.
    pub fn ask_until(
        &mut self,
        op: &str,
        mut request: Json,
        shutdown: &Shutdown,
    ) -> Result<(Json, Vec<Array>), HostError> {
        request["op"] = json!(op);
        let Self { child, to, from, .. } = self;
        let over = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            let guard = scope.spawn(|| {
                while !over.load(Ordering::Acquire) {
                    if shutdown.is_begun() {
                        // It has ended by itself where that fails.
                        let _ = child.kill();
                        return;
                    }
                    std::thread::park_timeout(TICK);
                }
            });
            let done = talk(to.as_mut(), from, &request);
            over.store(true, Ordering::Release);
            guard.thread().unpark();
            done
        });
        self.heard(done)
    }

    fn heard(
        &mut self,
        done: std::io::Result<(Json, Vec<Array>)>,
    ) -> Result<(Json, Vec<Array>), HostError> {
        let (answer, arrays) = done.map_err(|e| self.gone(&e.to_string()))?;
        self.answered = true;
        match answer.get("error").and_then(Json::as_str) {
            None => Ok((answer, arrays)),
            Some(text) => Err(HostError::Raised {
                text: text.to_owned(),
                traceback: answer["traceback"].as_str().unwrap_or_default().to_owned(),
                frame: answer["frame"] == json!(true),
                interrupted: answer["interrupted"].as_u64(),
            }),
        }
    }

    fn gone(&mut self, text: &str) -> HostError {
        let hint = match self.answered {
            true => "",
            false => {
                "; install the package of the folder python/ into it (pip install ./python), or name \
                 another interpreter by --python or PTYSTREAM_PYTHON"
            }
        };
        let ended = self.child.try_wait().ok().flatten().map(|status| status.to_string());
        let text = ended.unwrap_or_else(|| text.to_owned());
        HostError::Gone { name: self.name.clone(), text, hint }
    }
}

/// Says something and reads the answer and its arrays.
fn talk(
    to: Option<&mut BufWriter<ChildStdin>>,
    from: &mut BufReader<ChildStdout>,
    request: &Json,
) -> std::io::Result<(Json, Vec<Array>)> {
    let wrong = |text: &str| std::io::Error::other(text.to_owned());
    let text = serde_json::to_vec(request)?;
    let to = to.ok_or_else(|| wrong("closed"))?;
    to.write_all(&(text.len() as u32).to_le_bytes())?;
    to.write_all(&text)?;
    to.flush()?;
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MOST {
        return Err(wrong("an answer that is none"));
    }
    let mut text = vec![0; length as usize];
    from.read_exact(&mut text)?;
    let answer: Json = serde_json::from_slice(&text)?;
    let mut arrays = Vec::new();
    for head in answer["arrays"].as_array().into_iter().flatten() {
        let name = head["dtype"].as_str().unwrap_or_default();
        let dtype = Dtype::from_name(name)
            .ok_or_else(|| wrong(&format!("an array of {name}, which is no pixel type")))?;
        let shape: Option<Vec<usize>> = head["shape"]
            .as_array()
            .and_then(|all| all.iter().map(|n| n.as_u64().map(|n| n as usize)).collect());
        let shape = shape.ok_or_else(|| wrong("an array without a shape"))?;
        let bytes = shape.iter().try_fold(dtype.size(), |n, &e| n.checked_mul(e));
        let mut data = vec![0; bytes.ok_or_else(|| wrong("an array larger than memory"))?];
        from.read_exact(&mut data)?;
        arrays.push(Array { dtype, shape, data: Bytes::from(data) });
    }
    Ok((answer, arrays))
}

impl Drop for Host {
    /// Ends the interpreter and waits for it.
    fn drop(&mut self) {
        self.to = None;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        // It hangs in a hook.
        if self.child.kill().is_ok() && self.child.wait().is_err() {
            tracing::debug!("an interpreter that was killed cannot be waited for");
        }
    }
}
