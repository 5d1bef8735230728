//! Keeps the fences between the crates standing, and the tree in order.
//!
//! Text-level checks of manifests and sources. Code below a `#[cfg(test)]` at the foot of a file
//! counts as test code and may use what dev-dependencies offer.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROLES: [&str; 3] = ["producer", "worker", "sink"];
const MEMBERS: [&str; 4] = ["common", "producer", "worker", "sink"];
const LONGEST_FILE: usize = 600;
const LONGEST_CONTENTS: usize = 120;

/// A file of the tree: its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Returns the lines of code outside comments and outside the tests at the foot.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .take_while(|(_, line)| line.trim_end() != "#[cfg(test)]")
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
            .map(|(number, line)| (number + 1, line))
    }

    fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|e| e == "rs")
    }

    fn under(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the tracked files that are text; without git, those of a walk through the tree.
fn tree() -> Vec<Source> {
    let root = root();
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(&root)
        .output();
    let mut paths: Vec<String> = match listed {
        Ok(out) if out.status.success() && !out.stdout.is_empty() => String::from_utf8(out.stdout)
            .expect("paths of the tree are UTF-8")
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
        _ => {
            let mut found = Vec::new();
            walk(&root, &root, &mut found);
            found
        }
    };
    paths.sort();
    let sources: Vec<Source> = paths
        .into_iter()
        .filter_map(|path| {
            let text = String::from_utf8(fs::read(root.join(&path)).ok()?).ok()?;
            Some(Source { path, text })
        })
        .collect();
    assert!(sources.iter().any(|s| s.path == "Cargo.toml"), "the tree was not found");
    sources
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree can be read").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["target", ".venv", "out", ".git"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() {
            walk(root, &path, found);
        } else if let Ok(inside) = path.strip_prefix(root) {
            found.push(inside.to_string_lossy().into_owned());
        }
    }
}

/// Tells whether `word` stands in `line` as a whole identifier.
fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(part)
            && !line[at + word.len()..].chars().next().is_some_and(part)
    })
}

/// Tells whether `line` uses the crate `name` by path.
fn uses_crate(line: &str, name: &str) -> bool {
    let import = line.trim_start();
    let import = import.strip_prefix("pub ").unwrap_or(import);
    let imported = import.strip_prefix("use ").or_else(|| import.strip_prefix("extern crate "));
    let named = |rest: &str| {
        rest.trim_start_matches("::").split([':', ';', ' ', '{']).next().is_some_and(|n| n == name)
    };
    imported.is_some_and(named)
        || line.match_indices(&format!("{name}::")).any(|(at, _)| {
            let before = line[..at].trim_end_matches("::");
            !before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
        })
}

/// Returns the names of a manifest's dependencies in the sections whose name `wanted` accepts.
fn dependencies(manifest: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            let section = section.trim_matches(['[', ']']);
            inside = wanted(section);
            if let Some((table, name)) = section.rsplit_once('.')
                && wanted(table)
            {
                names.push(name.to_owned());
            }
        } else if inside
            && !line.starts_with('#')
            && let Some((key, _)) = line.split_once(['=', '.'])
        {
            names.push(key.trim().trim_matches('"').to_owned());
        }
    }
    names
}

fn manifest(member: &str) -> String {
    fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a member has a manifest")
}

fn all_dependencies(section: &str) -> bool {
    section.ends_with("dependencies") && !section.starts_with("workspace")
}

fn build_dependencies(section: &str) -> bool {
    all_dependencies(section) && !section.ends_with("dev-dependencies")
}

fn refuse(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n  {}", offenders.join("\n  "));
}

/// Names every line of `sources` that uses one of the crates `names`.
fn users<'a>(sources: impl Iterator<Item = &'a Source>, names: &[&str]) -> Vec<String> {
    let mut offenders = Vec::new();
    for source in sources {
        for (number, line) in source.code() {
            for name in names.iter().filter(|name| uses_crate(line, name)) {
                offenders.push(format!("{}:{number} uses {name}", source.path));
            }
        }
    }
    offenders
}

#[test]
fn arrows_point_from_root_to_roles_to_common() {
    let mut offenders = Vec::new();
    for role in ROLES {
        let names = dependencies(&manifest(role), all_dependencies);
        assert!(names.iter().any(|n| n == "ptystream-common"), "{role}/Cargo.toml: none was found");
        for name in names {
            if name == "ptystream" || ROLES.iter().any(|r| name == format!("ptystream-{r}")) {
                offenders.push(format!("{role}/Cargo.toml depends on {name}"));
            }
        }
    }
    for name in dependencies(&manifest("common"), all_dependencies) {
        if name.starts_with("ptystream") {
            offenders.push(format!("common/Cargo.toml depends on {name}"));
        }
    }
    for source in tree().iter().filter(|s| s.is_rust()) {
        for member in MEMBERS.iter().filter(|m| source.under(&format!("{m}/"))) {
            let foreign = |r: &&&str| *r != member;
            for role in ROLES.iter().filter(foreign).map(|r| format!("ptystream_{r}")) {
                for (at, line) in source.text.lines().enumerate() {
                    if has_word(line, &role) && !line.trim_start().starts_with("//") {
                        offenders.push(format!("{}:{} names {role}", source.path, at + 1));
                    }
                }
            }
        }
    }
    refuse("roles do not know each other, and common knows no role", &offenders);
}

#[test]
fn what_is_hard_to_replace_has_one_home() {
    let homes: [(&[&str], &[&str], &[&str]); 7] = [
        (&["mpi"], &["common"], &["common/src/link/mpi"]),
        (&["zeromq"], &["common"], &["common/src/link/zmq"]),
        (&["hdf5", "hdf5_sys"], &["common"], &["common/src/h5", "common/src/ptyd"]),
        (&["blosc_src"], &["common"], &["common/src/codec/blosc.rs"]),
        (&["tiff"], &["producer"], &["producer/src/source/image/tif.rs"]),
        (&["minicbor"], &["producer"], &["producer/src/source/detector/"]),
        (&["clap"], &["."], &["src/"]),
    ];
    let tree = tree();
    for (crates, owners, folders) in homes {
        for member in MEMBERS.iter().chain(&["."]).filter(|m| !owners.contains(m)) {
            for name in dependencies(&manifest(member), build_dependencies) {
                let name = name.replace('-', "_");
                assert!(
                    !crates.contains(&name.as_str()),
                    "{member}/Cargo.toml depends on {name}, whose home is {folders:?}"
                );
            }
        }
        for owner in owners {
            let names = dependencies(&manifest(owner), build_dependencies);
            let is_first = |n: &String| n.replace('-', "_") == crates[0];
            assert!(names.iter().any(is_first), "{owner} does not depend on {crates:?}");
        }
        // Elsewhere the manifest is fence enough: a crate that is not a dependency cannot be used.
        let sources = owners.iter().map(|o| format!("{o}/src/").trim_start_matches("./").into());
        let sources: Vec<String> = sources.collect();
        let outside = tree
            .iter()
            .filter(|s| s.is_rust() && sources.iter().any(|folder| s.under(folder)))
            .filter(|s| !folders.iter().any(|folder| s.under(folder)));
        refuse(&format!("{crates:?} stay in {folders:?}"), &users(outside, crates));
    }
}

#[test]
fn cores_have_no_clock_no_socket_no_thread() {
    let cores = ["producer/src/dispatch", "sink/src/assemble", "common/src/ledger"];
    let tree = tree();
    let found: Vec<_> =
        tree.iter().filter(|s| s.is_rust() && cores.iter().any(|core| s.under(core))).collect();
    for (role, core) in [("producer", cores[0]), ("sink", cores[1])] {
        let runs = tree.iter().any(|s| s.path == format!("{role}/src/run.rs"));
        assert!(
            !runs || found.iter().any(|s| s.under(core)),
            "{role} has a run.rs but no {core}: if the core was renamed, name it here too"
        );
    }
    let forbidden =
        ["Instant", "SystemTime", "std::net", "std::thread", "std::fs", "crossbeam", "tokio"];
    let mut offenders = Vec::new();
    for core in found {
        for (number, line) in core.code() {
            for word in forbidden.iter().filter(|w| line.contains(**w)) {
                offenders.push(format!("{}:{number} uses {word}", core.path));
            }
        }
    }
    refuse("dispatch, ledger and assembly are told the time and what happened", &offenders);
}

#[test]
fn modules_are_named_for_what_they_hold() {
    let mut offenders = Vec::new();
    for source in tree().iter().filter(|s| s.is_rust()) {
        for name in ["utils", "util", "helpers", "helper", "misc"] {
            let path = format!("/{}", source.path);
            if path.ends_with(&format!("/{name}.rs")) || path.contains(&format!("/{name}/")) {
                offenders.push(source.path.clone());
            }
            let declares = |line: &str| {
                let line = line.trim_start();
                line.starts_with(&format!("mod {name};"))
                    || (line.starts_with("pub") && line.ends_with(&format!(" mod {name};")))
                    || line.starts_with(&format!("mod {name} {{"))
            };
            if let Some(at) = source.text.lines().position(declares) {
                offenders.push(format!("{}:{}", source.path, at + 1));
            }
        }
    }
    refuse("a module's name says what is in it", &offenders);
}

#[test]
fn files_are_short() {
    let mut offenders = Vec::new();
    let mut seen = 0;
    for source in tree() {
        let extension = source.path.rsplit('.').next().unwrap_or_default();
        if !["rs", "py", "sh", "awk"].contains(&extension) && source.path != "Makefile" {
            continue;
        }
        seen += 1;
        let lines = source.text.lines().count();
        if lines > LONGEST_FILE {
            offenders.push(format!("{} has {lines}", source.path));
        }
    }
    assert!(seen > 20, "only {seen} source files were found");
    refuse(&format!("no file is longer than {LONGEST_FILE} lines"), &offenders);
}

#[test]
fn lib_rs_is_a_table_of_contents() {
    let allowed = ["//", "#", "mod ", "pub mod ", "pub(crate) mod ", "pub use ", "use ", "}"];
    let mut offenders = Vec::new();
    let libs: Vec<_> = tree().into_iter().filter(|s| s.path.ends_with("src/lib.rs")).collect();
    assert_eq!(libs.len(), 5, "the root and its four crates have a lib.rs each");
    for lib in libs {
        if lib.text.lines().count() > LONGEST_CONTENTS {
            offenders.push(format!("{} is longer than {LONGEST_CONTENTS} lines", lib.path));
        }
        let items = lib.text.lines().enumerate().filter(|(_, line)| {
            !line.is_empty()
                && !line.starts_with(' ')
                && !allowed.iter().any(|start| line.starts_with(start))
        });
        offenders.extend(items.map(|(at, line)| format!("{}:{}: {line}", lib.path, at + 1)));
    }
    refuse("lib.rs names modules and re-exports, and does nothing", &offenders);
}

#[test]
fn nothing_belongs_to_one_machine() {
    // Split, so that this file does not name what it forbids.
    let absolute = [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/tmp/ve", "nv"]];
    let anywhere = [["/tmp/bri", "ef"], [".lib", "rary/"], ["issues sh", "ow"]];
    let mut offenders = Vec::new();
    for source in tree() {
        for (at, line) in source.text.lines().enumerate() {
            let begins = |word: &str| {
                line.match_indices(word).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "_-.*}>~".contains(c))
                })
            };
            if absolute.iter().any(|word| begins(&word.concat()))
                || anywhere.iter().any(|word| line.contains(&word.concat()))
            {
                offenders.push(format!("{}:{}: {}", source.path, at + 1, line.trim()));
            }
            if source.path == "Cargo.lock"
                && line.starts_with("source = ")
                && !line.contains("github.com/rust-lang/crates.io-index")
            {
                offenders.push(format!("Cargo.lock:{}: {line}", at + 1));
            }
        }
    }
    refuse("no file names a place that exists on one machine only", &offenders);
}

#[test]
fn the_checks_see_what_they_look_for() {
    assert!(uses_crate("use zeromq::Socket;", "zeromq"));
    assert!(uses_crate("    let s = zeromq::DealerSocket::new();", "zeromq"));
    assert!(uses_crate("pub use ::hdf5::File;", "hdf5"));
    assert!(uses_crate("use hdf5;", "hdf5"));
    assert!(!uses_crate("use crate::source::hdf5::Loader;", "hdf5"));
    assert!(!uses_crate("let a = source::hdf5::open();", "hdf5"));
    assert!(!uses_crate("my_hdf5::open()", "hdf5"));
    let manifest = "[dependencies]\na.workspace = true\nb = \"1\"\n[dependencies.c]\nx = 1\n\
                    [dev-dependencies]\nd = \"1\"\n[target.'cfg(unix)'.dependencies]\ne = \"1\"\n";
    let mut names = dependencies(manifest, build_dependencies);
    names.retain(|n| n != "x");
    assert_eq!(names, ["a", "b", "c", "e"]);
    assert!(has_word("use ptystream_sink::run;", "ptystream_sink"));
    assert!(!has_word("let my_ptystream_sink = 1;", "ptystream_sink"));
}
