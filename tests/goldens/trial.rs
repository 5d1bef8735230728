//! One run of a golden case, in this process or through three, and what came of it.

use crate::case::{self, Case};
use crate::roles::{self, Ended};
use crate::source;
use crate::verdict::{ABORTED, OTHER_NAMES, Trial, UNEVEN, Verdict, WARNINGS};
use ptystream::compare::{CompareOptions, Tolerance, compare};
use ptystream::config::{self, ConfigArgs, Surroundings};
use ptystream_common::error::Failure;
use ptystream_common::ptyd::master::links;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_common::report::report_name;
use ptystream_common::shutdown::Shutdown;
use std::path::Path;

/// Where a case runs.
#[derive(Clone, Copy, PartialEq)]
pub enum Way {
    /// All roles in this process.
    InProcess,
    /// Producer, worker and sink, each a process, over ipc.
    Processes,
    /// So many ranks of an MPI job, which share the frames as ptypy's do.
    #[cfg(feature = "mpi")]
    Ranks(usize),
}

/// Keys of `info` that are not ptypy's: our own name and paths, and keys that ptypy's base class
/// does not have.
const INFO_OURS: [&str; 4] = ["name", "dfile", "case", "propagation"];
/// Differences in `info` that are none of the value: the centre is always real, and a
/// configuration in JSON knows no tuples.
const INFO_TYPES: [&str; 2] =
    ["/info/center: float64 [2] | int64 [2]", "attribute 'type': arraylist | arraytuple"];

/// Runs a case and holds what came of it against the verdict.
pub fn run(case: &Case, trial: Trial, way: Way) -> Result<(), String> {
    let temp = tempfile::tempdir().map_err(|e| e.to_string())?;
    let [golden, ours] = ["golden", "ours"].map(|n| temp.path().join(n));
    std::fs::create_dir(&ours).map_err(|e| e.to_string())?;
    let dfile = case.json["pars"]["dfile"].as_str().expect("each case has a dfile");
    if let Some(parent) = Path::new(dfile).parent() {
        std::fs::create_dir_all(ours.join(parent)).map_err(|e| e.to_string())?;
    }
    let expected = match trial.verdict {
        Verdict::EqualTo(other) => case::find(other).unpack(&golden),
        _ => case.unpack(&golden),
    };
    if OTHER_NAMES[1] == case.name {
        // ptypy's links start at the folder in which it ran; HDF5 looks from the master's.
        let sub = expected.parent().expect("the file is in a folder");
        case::copy(sub, &sub.join("sub"));
    }
    let before = case.json["preexisting"] == true;
    let earlier = temp.path().join("earlier");
    if before {
        let path = case::find("base_noop").unpack(&earlier);
        std::fs::copy(path, ours.join(dfile)).map_err(|e| e.to_string())?;
    }
    let config = case.configure(temp.path(), trial.compat);
    let ended = match way {
        Way::InProcess => in_process(&config, &ours, dfile),
        Way::Processes => {
            through_processes(&config, &ours, matches!(trial.verdict, Verdict::Refused(..)))?
        }
        #[cfg(feature = "mpi")]
        Way::Ranks(ranks) => {
            let program = std::env::current_exe().map_err(|e| e.to_string())?;
            roles::ranks(&program, ranks, &config, &ours)?
        }
    };
    let written = ours.join(dfile);
    let merged = case.json["pars"]["save"] == "merge";
    let uneven = merged || UNEVEN.contains(&case.name.as_str());
    let exact = case.json["pars"]["rebin"].as_u64().unwrap_or(1) <= 6;
    let differing = |ended: &Ended| -> Result<Vec<String>, String> {
        let wanted = if ABORTED.contains(&case.name.as_str()) { 7 } else { 0 };
        if ended.code != wanted {
            return Err(format!("exit code {}, not {wanted}: {}", ended.code, ended.text));
        }
        differences(&written, &expected, uneven, exact)
    };
    match trial.verdict {
        Verdict::Equal | Verdict::EqualTo(_) => {
            let found = differing(&ended)?;
            if !found.is_empty() {
                return Err(format!("ours | ptypy's\n{}", found.join("\n")));
            }
            if matches!(trial.verdict, Verdict::Equal) && case.json["kind"] == "rawscan" {
                info(case, &written, &expected)?;
            }
            files(case, &ours, before)?;
        }
        Verdict::But(places) => {
            let found = differing(&ended)?;
            let under = |text: &str, place: &str| text.starts_with(place);
            let other = found.iter().find(|f| !places.iter().any(|p| under(f, p)));
            if let Some(other) = other {
                return Err(format!("ours | ptypy's\n{other}"));
            }
            if let Some(place) = places.iter().find(|p| !found.iter().any(|f| under(f, p))) {
                return Err(format!("{place} does not differ from ptypy's, but is listed to"));
            }
        }
        Verdict::Made(frames) => {
            if ended.code != 0 {
                return Err(format!("exit code {}: {}", ended.code, ended.text));
            }
            let file = PtydFile::open(&written).map_err(|e| e.to_string())?;
            let chunks = file.chunks().map_err(|e| e.to_string())?;
            let there: usize = chunks.iter().filter_map(|c| c.rows).sum();
            if there != frames {
                return Err(format!("{there} frames, not {frames}"));
            }
        }
        Verdict::Refused(code, words) => {
            if ended.code != code {
                return Err(format!("exit code {}, not {code}: {}", ended.code, ended.text));
            }
            if let Some(word) = words.iter().find(|w| !ended.text.contains(**w)) {
                return Err(format!("'{word}' is not in: {}", ended.text));
            }
            nothing(&ours)?;
        }
        Verdict::NoFile => {
            if ended.code != 0 {
                return Err(format!("exit code {}: {}", ended.code, ended.text));
            }
            nothing(&ours)?;
        }
    }
    let warned = WARNINGS.iter().find(|w| w.0 == case.name);
    if let (Way::InProcess, Some((_, words))) = (way, warned)
        && !ended.text.contains(words)
    {
        return Err(format!("no warning of '{words}' but: {}", ended.text));
    }
    if before {
        let [was, is] = [earlier.join(dfile), ours.join(format!("{dfile}.old"))]
            .map(|p| std::fs::read(&p).map_err(|e| format!("{}: {e}", p.display())));
        if was? != is? {
            return Err(format!("{dfile}.old is not the file that stood there before"));
        }
    }
    Ok(())
}

/// Lists what differs in chunks (bit-exact up to rebinning by 6) and meta (to 1e-14).
fn differences(
    ours: &Path,
    golden: &Path,
    ignore_chunking: bool,
    exact: bool,
) -> Result<Vec<String>, String> {
    let of = |chunks: bool, relative: f64| CompareOptions {
        tolerance: Tolerance { relative, absolute: 0.0 },
        ignore_chunking,
        chunks,
        meta: !chunks,
        info: false,
    };
    let chunks = of(true, if exact { 0.0 } else { 4.0 * f64::EPSILON });
    let mut found = Vec::new();
    for options in [chunks, of(false, 1e-14)] {
        let some = compare(ours, golden, &options).map_err(|e| e.to_string())?;
        found.extend(some.iter().map(ToString::to_string));
    }
    Ok(found)
}

/// Holds `info` against ptypy's, but for the keys that are ours.
fn info(case: &Case, ours: &Path, golden: &Path) -> Result<(), String> {
    if case.name == "no_eos_call" {
        // ptypy writes what came out into `info` only when it is asked once more at the end.
        return Ok(());
    }
    let options = CompareOptions {
        tolerance: Tolerance { relative: 1e-14, absolute: 0.0 },
        ignore_chunking: false,
        chunks: false,
        meta: false,
        info: true,
    };
    let found = compare(ours, golden, &options).map_err(|e| e.to_string())?;
    let key = |place: &str| -> String {
        place.trim_start_matches("/info/").split(['/', '[', ' ']).next().unwrap_or("").to_owned()
    };
    let other: Vec<String> = found
        .iter()
        .filter(|d| !INFO_OURS.contains(&key(&d.place).as_str()))
        .map(ToString::to_string)
        .filter(|text| !INFO_TYPES.iter().any(|known| text.ends_with(known)))
        .collect();
    if other.is_empty() { Ok(()) } else { Err(format!("ours | ptypy's\n{}", other.join("\n"))) }
}

/// Looks at the names of the files and at where links point.
fn files(case: &Case, ours: &Path, before: bool) -> Result<(), String> {
    let dfile = case.json["pars"]["dfile"].as_str().unwrap_or_default();
    let chunks = case.chunks().len();
    let linked = case.json["pars"]["save"] == "link";
    let chunks = if UNEVEN.contains(&case.name.as_str()) {
        let frames: usize = case.chunks().iter().sum();
        frames.div_ceil(case.json["frames"][0].as_u64().unwrap_or(1) as usize)
    } else {
        chunks
    };
    let ending = |k: usize| match OTHER_NAMES[0] == case.name {
        true => format!(".c{k:04}"),
        false => format!(".part{k:03}"),
    };
    let parts: Vec<String> =
        (0..if linked { chunks } else { 0 }).map(|k| format!("{dfile}{}", ending(k))).collect();
    let mut wanted = parts.clone();
    wanted.push(dfile.to_owned());
    if before {
        wanted.push(format!("{dfile}.old"));
    }
    wanted.sort();
    // What is ours beside what ptypy writes.
    let (reports, there): (Vec<String>, Vec<String>) =
        list(ours).into_iter().partition(|name| name.ends_with(".report.json"));
    if reports != [report_name(dfile)] {
        return Err(format!("reports are {reports:?}"));
    }
    if there != wanted {
        return Err(format!("files are {there:?}, not {wanted:?}"));
    }
    if !UNEVEN.contains(&case.name.as_str())
        && !OTHER_NAMES.contains(&case.name.as_str())
        && case.json["pars"]["save"] != "merge"
        && there != case.files()
    {
        return Err(format!("files are {there:?}, ptypy's {:?}", case.files()));
    }
    // Links are relative to the master, so that a folder can be moved.
    let bare =
        |name: &String| Path::new(name).file_name().map(|n| n.to_string_lossy().into_owned());
    let targets: Vec<String> = links(&ours.join(dfile))
        .map_err(|e| e.to_string())?
        .into_iter()
        .map(|(_, target)| target)
        .collect();
    let wanted: Vec<String> = parts.iter().filter_map(bare).collect();
    if targets != wanted {
        return Err(format!("links point to {targets:?}, not {wanted:?}"));
    }
    Ok(())
}

fn nothing(ours: &Path) -> Result<(), String> {
    let there = list(ours);
    if there.is_empty() { Ok(()) } else { Err(format!("there are files: {there:?}")) }
}

/// Lists the files below a folder, sorted.
fn list(folder: &Path) -> Vec<String> {
    fn walk(top: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, found);
            } else {
                found.push(path.strip_prefix(top).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}

fn in_process(config: &Path, folder: &Path, dfile: &str) -> Ended {
    let registry = source::registry();
    let dfile = folder.join(dfile);
    let args = ConfigArgs {
        file: Some(config.to_owned()),
        set: vec![format!("data.dfile={}", dfile.display())],
        ..ConfigArgs::default()
    };
    let around = Surroundings { folder: folder.to_owned(), variables: Vec::new() };
    let result =
        config::load_in(&args, &registry, &around).map_err(|e| Failure::from(&e)).and_then(
            |config| ptystream::local::run(&config, &registry, &Shutdown::new(), &mut |_| {}),
        );
    match result {
        Ok(report) => Ended {
            code: match report.aborted {
                Some(_) => 7,
                None if report.lost.is_empty() => 0,
                None => 5,
            },
            text: report.warnings.join("\n"),
        },
        Err(failure) => Ended { code: failure.kind.exit_code(), text: failure.text },
    }
}

/// Runs the roles of this very program; `alone`: the producer only, which is to end before it
/// needs another.
fn through_processes(config: &Path, folder: &Path, alone: bool) -> Result<Ended, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    roles::run(&program, &[config.as_os_str()], folder, alone)
}
