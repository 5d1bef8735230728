//! Scans one after the other: several numbers, every outer index, each file that appears.

use crate::app::{OK, load, scan};
use crate::cli::{Numbers, ProducerArgs, RunArgs, ScanArgs, WatchArgs};
use crate::config::Config;
use crate::watch::Watch;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::source::hdf5::outer_extent;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// How one scan is prepared, telling how far it is.
pub(crate) type Prepare<'a> =
    dyn Fn(&Config, &mut dyn FnMut(&Progress)) -> Result<ScanReport, Failure> + 'a;

/// Prepares one scan, or several one after the other: each has its file and report, and the highest
/// exit code is that of all.
///
/// # Errors
/// What ended the one scan, or is wrong with all.
pub(crate) fn run(
    args: &RunArgs,
    registry: &Registry,
    shutdown: &Shutdown,
    prepare: &Prepare<'_>,
) -> Result<u8, Failure> {
    let mut set = args.scan.set.clone();
    if let Some(threads) = args.threads {
        set.push(format!("pipeline.threads={threads}"));
    }
    let each = |config: &Config| {
        let json = args.report.as_deref();
        scan(config, args.talk, json, args.gaps_ok, |config, progress| prepare(config, progress))
    };
    let one = |scan_args: &ScanArgs, config: &Config| {
        match config.data.tree.at("outer_index").and_then(|v| v.as_str()) {
            Some(_) => outer(args, scan_args, config, registry, shutdown, &each),
            None => each(config),
        }
        .inspect_err(|_| tracing::debug!(scan = ?scan_args.numbers, "ended by a failure"))
    };
    let scan_args = ScanArgs { set, ..args.scan.clone() };
    if args.watch.watch.is_some() {
        return watched(&args.watch, &scan_args, args.report.as_deref(), shutdown, &|scan_args| {
            one(scan_args, &load(scan_args, registry)?)
        });
    }
    let Some(Numbers { first, last }) = scan_args.numbers.filter(|n| n.first < n.last) else {
        return one(&scan_args, &load(&scan_args, registry)?);
    };
    if args.report.is_some() {
        let text = "--report names one file, and --scan several scans: each would replace the report \
                    of the one before; the reports beside the files are complete";
        return Err(Failure::new(Kind::Config, text));
    }
    let (mut worst, mut files) = (OK, BTreeMap::new());
    for number in first..=last {
        let scan_args = ScanArgs {
            numbers: Some(Numbers { first: number, last: number }),
            ..scan_args.clone()
        };
        let config = load(&scan_args, registry)?;
        if let Some(file) = &config.data.dfile
            && let Some(before) = files.insert(file.clone(), number)
        {
            let text = format!(
                "scans {before} and {number} would both be written to {}; put {{scan}} into \
                 data.dfile",
                file.display()
            );
            return Err(Failure::new(Kind::Config, text));
        }
        eprintln!("scan {number}");
        let code = match one(&scan_args, &config) {
            Ok(code) => code,
            Err(failure) => {
                eprintln!("ptystream: scan {number}: {failure}");
                failure.kind.exit_code()
            }
        };
        worst = worst.max(code);
        if shutdown.is_begun() {
            break;
        }
    }
    Ok(worst)
}

/// Prepares every part of a scan with an outer axis, each into a file of its own.
fn outer(
    args: &RunArgs,
    scan_args: &ScanArgs,
    config: &Config,
    registry: &Registry,
    shutdown: &Shutdown,
    each: &dyn Fn(&Config) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    if args.report.is_some() {
        let text = "--report names one file, and data.outer_index = \"all\" prepares several; the reports \
                    beside the files are complete";
        return Err(Failure::new(Kind::Config, text));
    }
    let parts = outer_extent(&config.data.source_spec()).map_err(|e| Failure::from(&e))?;
    let mut worst = OK;
    for part in 0..parts {
        let mut scan_args = scan_args.clone();
        scan_args.set.push(format!("data.outer_index={part}"));
        if let Some(file) = &config.data.dfile {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let ending = file.extension().map(|e| format!(".{}", e.to_string_lossy()));
            let name = format!("{stem}_outer{part:03}{}", ending.unwrap_or_default());
            // It is filled in already, and braces that are left are meant.
            let path = file.with_file_name(name).display().to_string();
            let path = path.replace('{', "{{").replace('}', "}}");
            scan_args.set.push(format!("data.dfile={path}"));
        }
        eprintln!("outer index {part} of {parts}");
        let code = load(&scan_args, registry).and_then(|config| each(&config));
        worst = worst.max(code.unwrap_or_else(|failure| {
            eprintln!("ptystream: outer index {part}: {failure}");
            failure.kind.exit_code()
        }));
        if shutdown.is_begun() {
            break;
        }
    }
    Ok(worst)
}

/// Hands out one scan, or each whose file appears.
///
/// # Errors
/// As [`run`].
pub(crate) fn produce(
    args: &ProducerArgs,
    registry: &Registry,
    shutdown: &Shutdown,
    prepare: &Prepare<'_>,
) -> Result<u8, Failure> {
    let json = args.report.as_deref();
    let one = |scan_args: &ScanArgs| {
        let config = load(scan_args, registry)?;
        scan(&config, args.talk, json, args.gaps_ok, |config, progress| prepare(config, progress))
    };
    match args.watch.watch {
        Some(_) => watched(&args.watch, &args.scan, json, shutdown, &one),
        None => one(&args.scan),
    }
}

/// Prepares each scan whose file appears, until the end is asked for.
fn watched(
    args: &WatchArgs,
    scan_args: &ScanArgs,
    json: Option<&Path>,
    shutdown: &Shutdown,
    one: &dyn Fn(&ScanArgs) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    if json.is_some() || scan_args.numbers.is_some() {
        let text = "--watch prepares many scans, --report and --scan name one; the reports beside the \
                    files are complete";
        return Err(Failure::new(Kind::Config, text));
    }
    let folder = args.watch.as_deref().unwrap_or(Path::new("."));
    // A configuration says what is to be made of raw files; without one the files say it.
    let raw = scan_args.scan.is_some() || scan_args.preset.is_some() || scan_args.from.is_some();
    let pattern = args.pattern.as_deref().unwrap_or(if raw { "*.h5" } else { "*.toml" });
    let settle = Duration::from_secs_f64(args.settle);
    let mut watch = Watch::new(folder, pattern, settle)?;
    let mut worst = OK;
    while let Some(path) = watch.next(shutdown) {
        eprintln!("{}", path.display());
        let whole = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let mut scan_args = ScanArgs { file: Some(whole), ..scan_args.clone() };
        if !raw {
            scan_args.scan = Some(path.clone());
        }
        let code = one(&scan_args).unwrap_or_else(|failure| {
            eprintln!("ptystream: {}: {failure}", path.display());
            failure.kind.exit_code()
        });
        worst = worst.max(code);
        // A scan that was ended by a signal is gone on with at the next start.
        if !shutdown.is_begun() || code == OK {
            watch.done(&path, code);
        }
    }
    Ok(worst)
}
