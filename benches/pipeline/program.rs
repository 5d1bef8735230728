//! The program itself, as a user starts it.

use crate::scan::{Case, Folder};
use crate::usage::wait;
use crate::{Sample, Way, sample};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const PTYSTREAM: &str = env!("CARGO_BIN_EXE_ptystream");

/// Prepares so many frames.
pub fn measure(folder: &Folder, case: &Case, way: Way, frames: u64) -> Sample {
    folder.clear();
    let report = folder.root().join("report.json");
    let mut set = case.parameters(folder, frames);
    if way != Way::Run {
        set.push("data.load_parallel=None".to_owned());
    }
    let scan = folder.root().join("scan");
    let scan_args = |command: &mut Command| {
        command.arg(&scan).arg("--quiet").arg("--report").arg(&report);
        for assignment in &set {
            command.arg("--set").arg(assignment);
        }
    };
    let roles = match way {
        Way::Run => {
            let mut command = program("run");
            scan_args(command.args(["--threads", "2"]));
            vec![("run", wait(command.spawn().unwrap(), "run"))]
        }
        Way::Ipc | Way::Tcp => {
            let address = |name: &str| match way {
                Way::Tcp => "tcp://127.0.0.1:0".to_owned(),
                _ => format!("ipc://{}", folder.out().join(name).display()),
            };
            let mut command = program("producer");
            command.args(["--bind", &address("producer.ipc")]);
            scan_args(&mut command);
            let (producer, producer_address) = bound(command);
            let mut command = program("sink");
            command.args(["--bind", &address("sink.ipc"), "--producer", &producer_address]);
            let (sink, sink_address) = bound(command);
            let worker = || {
                let mut command = program("worker");
                command.args(["--producer", &producer_address, "--sink", &sink_address]);
                command.spawn().unwrap()
            };
            let (one, other) = (worker(), worker());
            vec![
                ("producer", wait(producer, "the producer")),
                ("workers", wait(one, "a worker").and(wait(other, "a worker"))),
                ("sink", wait(sink, "the sink")),
            ]
        }
    };
    let text = std::fs::read_to_string(&report).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["frames"]["received"], frames, "{text}");
    if std::env::var_os("PTYSTREAM_BENCH_REPORT").is_some() {
        eprintln!("{text}");
    }
    sample(frames, report["times"]["sink_secs"].as_f64().unwrap(), roles)
}

fn program(role: &str) -> Command {
    let mut command = Command::new(PTYSTREAM);
    command.arg(role).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Starts a role that binds; returns the address that it says on stderr.
fn bound(mut command: Command) -> (Child, String) {
    command.stderr(Stdio::piped()).env("PTYSTREAM_LOG", "info");
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    let address = loop {
        let line = lines.next().unwrap_or_else(|| panic!("it ended: {said}")).unwrap();
        if let Some((_, rest)) = line.split_once("address=\"") {
            break rest.split('"').next().unwrap_or_default().to_owned();
        }
        said += &line;
    };
    // Who stops reading would stop the role.
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok).filter(|l| l.contains("ERROR")) {
            eprintln!("{line}");
        }
    });
    (child, address)
}
