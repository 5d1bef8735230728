//! What lies in `deploy/` and `compose.yaml`, as far as it can be checked without the systems it is for.
#![allow(clippy::print_stdout, reason = "a skipped test says so there")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root(folder)).expect("the folder");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == ending));
    files.sort();
    assert!(!files.is_empty(), "{folder} has files that end in .{ending}");
    files
}

/// Runs a tool; says that the test is skipped where there is no such tool.
fn tool(name: &str, args: &[&str], files: &[PathBuf]) {
    match Command::new(name).args(args).args(files).output() {
        Err(error) => println!("skipped: {name} cannot be run: {error}"),
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
        }
    }
}

#[test]
fn scripts_pass_shellcheck() {
    let scripts =
        [files("deploy/slurm", "sbatch"), files("tests/tools", "sh"), files("tests/compose", "sh")];
    tool("shellcheck", &["--external-sources"], &scripts.concat());
}

#[test]
fn units_pass_systemds_check() {
    // It looks for the program, which is installed elsewhere than here.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let program = env!("CARGO_BIN_EXE_ptystream");
    let mut units = Vec::new();
    for unit in files("deploy/systemd", "service") {
        let text = std::fs::read_to_string(&unit).expect("a unit");
        assert!(text.contains("TimeoutStopSec=15"), "{}: more than --grace", unit.display());
        let name = unit.file_name().expect("a name").to_string_lossy().replace('@', "@test");
        let place = folder.path().join(name);
        std::fs::write(&place, text.replace("/usr/local/bin/ptystream", program)).expect("a copy");
        units.push(place);
    }
    tool("systemd-analyze", &["verify", "--man=no"], &units);
}

#[test]
fn what_the_files_type_is_understood() {
    // Every command of scripts, units and containers, with what only their systems know filled in.
    let texts = [files("deploy/slurm", "sbatch"), files("deploy/systemd", "service")]
        .concat()
        .iter()
        .map(|f| std::fs::read_to_string(f).expect("a file"))
        .collect::<String>();
    let mut seen = 0;
    for line in texts.lines().filter(|l| !l.trim_start().starts_with('#')) {
        let Some((_, words)) = line
            .split_once("\"$ptystream\" ")
            .or_else(|| line.split_once("/usr/local/bin/ptystream "))
        else {
            continue;
        };
        let words = words.split(['&', '|']).next().unwrap_or_default().replace(['"', '\''], "");
        let words = words
            .replace("$scan", "scan.toml")
            .replace("$meet", "meet")
            .replace("${SLURM_CPUS_PER_TASK:-1}", "1")
            .replace("$$(nproc)", "1");
        let args: Vec<&str> = words.split_whitespace().collect();
        // Help is printed only if all before it is understood.
        let output = Command::new(env!("CARGO_BIN_EXE_ptystream"))
            .args(&args)
            .arg("--threads-that-nobody-knows")
            .output()
            .expect("the program starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("threads-that-nobody-knows"), "{args:?}: {said}");
        assert_eq!(output.status.code(), Some(2), "{said}");
        seen += 1;
    }
    assert!(seen >= 7, "{seen} commands are known");
}

#[test]
fn services_of_compose_are_what_the_documentation_says() {
    let text = std::fs::read_to_string(root("compose.yaml")).expect("compose.yaml");
    let compose: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("it is YAML");
    for role in ["producer", "worker", "sink"] {
        let command = compose["services"][role]["command"].as_sequence().expect("a command");
        let words: Vec<&str> = command.iter().filter_map(|w| w.as_str()).collect();
        assert_eq!(words[0], role);
    }
    let role = &compose["x-role"];
    assert_eq!(role["restart"].as_str(), Some("on-failure"));
    assert_eq!(role["stop_grace_period"].as_str(), Some("15s"));
    let scan = root("examples/compose.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_ptystream"))
        .args(["config", &scan.display().to_string()])
        .output()
        .expect("the program starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
