//! Runs the real program in a folder of its own, and waits for what it does.
#![allow(clippy::print_stdout, reason = "a skipped test says so there")]
#![allow(dead_code, reason = "each test program uses a part")]

use ptystream::compare::{CompareOptions, compare};
use ptystream_common::h5;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// After this a test gives up; nothing takes nearly as long on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(240);
const TICK: Duration = Duration::from_millis(10);

/// A temporary folder in which commands run.
pub struct Desk {
    folder: tempfile::TempDir,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A command that is running.
pub struct Role {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Desk {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).expect("a file of the test");
    }

    /// Returns an ipc address in the folder.
    pub fn ipc(&self, name: &str) -> String {
        format!("ipc://{}", self.at(name).display())
    }

    /// Writes `name`.toml: a simulated scan that is written to `name`.ptyd.
    ///
    /// `data` and `pipeline`: further lines of the two blocks.
    pub fn moonflower(&self, name: &str, frames: u32, data: &str, pipeline: &str) {
        let text = format!(
            "[data]\nname = 'moonflower'\nnum_frames = {frames}\nrepeat = 6\nseed = 3\n\
             energy = 6.2\ndistance = 7.0\npsize = 0.000172\ndfile = '{name}.ptyd'\n{data}\n\
             [pipeline]\nframes_per_chunk = 7\n{pipeline}\n"
        );
        self.write(&format!("{name}.toml"), &text);
    }

    /// Runs a command to its end; words are separated by blanks.
    pub fn run(&self, line: &str) -> Said {
        self.start("run", line).end()
    }

    /// Starts a command; what it says goes to files called after `name`.
    pub fn start(&self, name: &str, line: &str) -> Role {
        self.start_within(&[], name, line)
    }

    /// Starts a command by way of another, such as `ip netns exec NAME`, which it replaces.
    pub fn start_within(&self, by: &[&str], name: &str, line: &str) -> Role {
        let (out, err) = (self.at(&format!("{name}.stdout")), self.at(&format!("{name}.stderr")));
        let mut words = by.iter().copied().chain([env!("CARGO_BIN_EXE_ptystream")]);
        let mut command = Command::new(words.next().expect("the program itself, at least"));
        command
            .args(words)
            .args(line.split_whitespace())
            .current_dir(self.path())
            .env_remove("PTYSTREAM_LOG")
            .stdin(Stdio::null())
            .stdout(File::create(&out).expect("a file for stdout"))
            .stderr(File::create(&err).expect("a file for stderr"));
        // Other tests of the same program have files open.
        let child = h5::spawn(&mut command).expect("the program starts");
        Role { child, out, err }
    }

    /// Starts producer and sink over ipc, and `names` of workers.
    pub fn roles(&self, scan: &str, names: &[&str]) -> (Role, Vec<Role>, Role) {
        let (p, s) = (self.ipc("p"), self.ipc("s"));
        let producer = self.start(
            "producer",
            &format!("producer {scan}.toml --bind {p} --quiet --report {scan}.json"),
        );
        let sink = self.start("sink", &format!("sink --producer {p} --bind {s}"));
        (producer, names.iter().map(|name| self.worker(name)).collect(), sink)
    }

    /// Starts a worker over ipc.
    pub fn worker(&self, name: &str) -> Role {
        let (p, s) = (self.ipc("p"), self.ipc("s"));
        self.start(name, &format!("worker --producer {p} --sink {s} --name {name}"))
    }

    /// Waits until a file is there.
    pub fn wait_for(&self, name: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.at(name).exists() {
            assert!(Instant::now() < deadline, "'{name}' never came");
            std::thread::sleep(TICK);
        }
    }

    /// Reads the report that `--report` wrote.
    pub fn report(&self, name: &str) -> serde_json::Value {
        let text = std::fs::read_to_string(self.at(name)).expect("a report");
        serde_json::from_str(&text).expect("a report is JSON")
    }

    /// Fails unless two files are equal to the bit, in the same chunks.
    pub fn assert_equal(&self, a: &str, b: &str) {
        let differences = compare(&self.at(a), &self.at(b), &CompareOptions::default())
            .unwrap_or_else(|e| panic!("{a}, {b}: {e}"));
        let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
        assert!(lines.is_empty(), "{a} and {b} differ:\n{}", lines.join("\n"));
    }

    /// Lists the names in the folder that begin with `start`.
    pub fn names(&self, start: &str) -> Vec<String> {
        let all = std::fs::read_dir(self.path()).expect("the folder");
        let mut names: Vec<String> = all
            .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
            .filter(|n| n.starts_with(start))
            .collect();
        names.sort();
        names
    }
}

impl Said {
    /// Fails unless the exit code is `code` and stderr holds each of `words`.
    #[track_caller]
    pub fn must(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "stderr does not say '{word}': {}", self.err);
        }
    }
}

impl Role {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what has been said on stderr so far.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// Tells whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be asked").is_none()
    }

    /// Waits until stderr holds `words`.
    pub fn wait_said(&mut self, words: &str) {
        self.wait(&format!("never said '{words}'"), |said| said.contains(words));
    }

    fn wait(&mut self, or: &str, until: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(&self.said()) {
            assert!(self.is_running(), "ended; {or}: {}", self.said());
            assert!(Instant::now() < deadline, "{or}: {}", self.said());
            std::thread::sleep(TICK);
        }
    }

    /// Waits until so many workers have joined a producer.
    ///
    /// A test that needs them all starts the sink after this: a short scan may be over before the last has come.
    pub fn wait_joined(&mut self, workers: usize) {
        let joined = |said: &str| said.matches("worker joined").count() >= workers;
        self.wait(&format!("{workers} workers never joined"), joined);
    }

    /// Waits until a role that binds says where; returns the address.
    pub fn address(&mut self) -> String {
        self.wait_said("ready address=\"");
        let said = self.said();
        let rest = said.split("ready address=\"").nth(1).expect("it was said");
        rest.split('"').next().expect("a first piece").to_owned()
    }

    /// Sends a signal: `TERM`, `INT`, `KILL`.
    pub fn signal(&self, name: &str) {
        let sent =
            Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill starts").success(), "the process was gone before SIG{name}");
    }

    /// Waits for the end.
    pub fn end(mut self) -> Said {
        let deadline = Instant::now() + PATIENCE;
        while self.is_running() {
            assert!(Instant::now() < deadline, "does not end: {}", self.said());
            std::thread::sleep(TICK);
        }
        let code = self.child.wait().expect("it has ended").code().unwrap_or(-1);
        let out = std::fs::read_to_string(&self.out).unwrap_or_default();
        Said { code, out, err: self.said() }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Only a test that fails leaves one running.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Returns an address of this machine that nobody uses.
pub fn free(host: &str) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind((host, 0)).expect("a port");
    listener.local_addr().expect("its address")
}

/// Runs a script with the Python of the tests; `None`, and why on stdout, if there is none.
pub fn python(script: &str, args: &[&str]) -> Option<String> {
    let Ok(python) = std::env::var("PTYSTREAM_PYTHON") else {
        println!("skipped: PTYSTREAM_PYTHON names no Python");
        return None;
    };
    let done = Command::new(python).arg("-c").arg(script).args(args).output();
    let done = done.expect("Python starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}
