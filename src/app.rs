//! From what was typed to what is done, and the exit code: the one place that decides it.

use crate::cli::{Cli, Command, Numbers, RunArgs, ScanArgs, TalkArgs};
use crate::config::{Config, ConfigArgs};
use crate::progress::{LogWriter, Show};
use crate::signals::{self, Caught};
use crate::{
    chaos, check, checksums, compare, config, init, inspect, local, memory, params_cmd, peek,
    picture, ranks, repair, report, roles,
};
use clap::Parser;
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::link::mpi::Duty;
use ptystream_common::ptyd::PtydError;
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::source::hdf5::outer_extent;
use ptystream_producer::source::python::set_interpreter;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

const OK: u8 = 0;
const DIFFERENT: u8 = 1;
const USAGE: u8 = 2;
const GAPS: u8 = 5;
const ABORTED: u8 = Kind::Aborted.exit_code();

/// Runs the whole command line over the sources of `registry`.
pub fn main_with(registry: Registry) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { OK };
            // Nothing can be done where even help cannot be printed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    start_logs(&cli.command);
    if let Some(python) = cli.python.as_ref().filter(|p| !p.as_os_str().is_empty()) {
        set_interpreter(python);
    }
    memory::keep_frames();
    let shutdown = Shutdown::new();
    let caught = match signals::listen(&shutdown, Duration::from_secs_f64(cli.grace)) {
        Ok(caught) => caught,
        Err(error) => {
            tracing::warn!("signals cannot be caught, so they end the process at once: {error}");
            Caught::default()
        }
    };
    let result = dispatch(cli.command, &registry, &shutdown);
    let code = match (result, caught.exit_code()) {
        (Ok(code), None) => code,
        (Ok(OK), Some(_)) => OK,
        (Ok(_), Some(signal)) => signal,
        (Err(failure), signal) => {
            eprintln!("ptystream: {failure}");
            signal.unwrap_or(failure.kind.exit_code())
        }
    };
    ExitCode::from(code)
}

fn start_logs(command: &Command) {
    use tracing_subscriber::EnvFilter;
    // What roles say to each other is of interest where they are apart.
    let level = match command {
        Command::Producer(_) | Command::Worker(_) | Command::Sink(_) => "warn,ptystream=info",
        _ => "warn,ptystream::app=info",
    };
    let filter = EnvFilter::try_from_env("PTYSTREAM_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    if logs.try_init().is_err() {
        eprintln!("ptystream: logs go where the program around has sent them");
    }
}

fn dispatch(command: Command, registry: &Registry, shutdown: &Shutdown) -> Result<u8, Failure> {
    match command {
        Command::Run(args) if ranks::are_several() => ranks::run(registry, |master| {
            run(&args, registry, shutdown, &|config, progress| {
                master.run(config, registry, shutdown, progress)
            })
        }),
        Command::Run(args) => run(&args, registry, shutdown, &|config, progress| {
            local::run(config, registry, shutdown, progress)
        }),
        Command::Producer(args) => {
            let (bind, dead_after) = (args.bind.as_deref(), args.link.dead_after);
            ranks::as_role(
                |_| Duty::Producer,
                bind.is_some(),
                &Shutdown::new(),
                |world| {
                    let config = load(&args.scan, registry)?;
                    scan(
                        &config,
                        args.talk,
                        args.report.as_deref(),
                        args.gaps_ok,
                        |config, progress| {
                            roles::producer(
                                config, bind, world, dead_after, registry, shutdown, progress,
                            )
                        },
                    )
                },
            )
        }
        Command::Worker(args) => {
            let given = args.producer.is_some() || args.sink.is_some();
            ranks::as_role(
                |_| Duty::Worker,
                given,
                shutdown,
                |world| {
                    let frames = roles::worker(&args, world, registry, shutdown)?;
                    tracing::info!(frames, "worker done");
                    Ok(OK)
                },
            )
        }
        Command::Sink(args) => {
            let given = args.producer.is_some() || args.bind.is_some();
            ranks::as_role(
                |_| Duty::Sink,
                given,
                shutdown,
                |world| {
                    let report = roles::sink(&args, world, shutdown)?;
                    tracing::info!(frames = report.frames, gaps = report.gaps.len(), "sink done");
                    Ok(if report.gaps.is_empty() { OK } else { GAPS })
                },
            )
        }
        Command::Init(args) => print(&init::init(&args.what, &args.out)?),
        Command::Params(args) if args.schema => {
            let schema = serde_json::to_string_pretty(&params_cmd::json_schema(registry))
                .map_err(|e| Failure::new(Kind::Config, e.to_string()))?;
            print(&schema)
        }
        Command::Params(args) => {
            let text = params_cmd::describe(registry, args.name.as_deref(), args.level)
                .map_err(|e| Failure::new(Kind::Config, e.to_string()))?;
            print(&text)
        }
        Command::Preset(args) => {
            let names = || config::presets::ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>();
            match args.name.as_deref() {
                None => print(&names().join("\n")),
                Some(name) => {
                    let text = config::presets::text(name);
                    print(text.map_err(|text| Failure::new(Kind::Config, text))?)
                }
            }
        }
        Command::Config(args) => print(&load(&args.scan, registry)?.show()),
        Command::Check(args) => {
            let config = load(&args.scan, registry)?;
            let png = args.png.unwrap_or_else(|| check::picture_of(args.scan.scan.as_deref()));
            let found = check::check(&config, registry, (!args.no_png).then_some(png.as_path()))?;
            let last = match found.warnings {
                0 => "plausible".to_owned(),
                1 => "1 warning".to_owned(),
                n => format!("{n} warnings"),
            };
            print(&format!("{}{last}", found.text))
                .map(|_| if found.warnings == 0 { OK } else { DIFFERENT })
        }
        Command::Peek(args) => {
            let config = load(&args.scan, registry)?;
            print(&peek::peek(&config, registry, args.frames)?)
        }
        Command::Inspect(args) if args.checksums => {
            let (text, well) =
                checksums::check(&args.file).map_err(|e| Failure::new(Kind::Input, chain(&e)))?;
            print(&text).map(|_| if well { OK } else { DIFFERENT })
        }
        Command::Inspect(args) => {
            let Some(copy) = &args.fix else {
                let text = inspect::inspect(&args.file);
                return print(&text.map_err(|e| Failure::new(Kind::Input, chain(&e)))?);
            };
            if copy.exists() {
                let text = format!("{}: the file exists; name another", copy.display());
                return Err(Failure::new(Kind::Config, text));
            }
            let done = repair::fix(&args.file, copy).map_err(|e| {
                let (PtydError::Hdf5 { file, .. } | PtydError::Content { file, .. }) = &e;
                let kind = if file == copy { Kind::Output } else { Kind::Input };
                Failure::new(kind, chain(&e))
            })?;
            let mut text = format!("wrote {}", copy.display());
            for change in &done {
                text += &format!("\n  {change}");
            }
            if done.is_empty() {
                text += ", all in one file; there was nothing to repair";
            }
            print(&text)
        }
        Command::Compare(args) => {
            let options = compare::CompareOptions {
                tolerance: compare::Tolerance { relative: args.tolerance, absolute: 0.0 },
                ignore_chunking: args.ignore_chunking,
                info: args.info,
                ..compare::CompareOptions::default()
            };
            let differences = compare::compare(&args.a, &args.b, &options)
                .map_err(|e| Failure::new(Kind::Input, chain(&e)))?;
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            match lines.len() {
                0 => print("equal"),
                _ => print(&lines.join("\n")).map(|_| DIFFERENT),
            }
        }
        Command::Chaos(args) => {
            let mut say = |line: &str| print(line).map(|_| ());
            chaos::run(&args, shutdown, &mut say).map(|well| if well { OK } else { DIFFERENT })
        }
        Command::Picture(args) => {
            let legend = picture::draw(&args.file, &args.png)
                .map_err(|e| Failure::new(e.kind(), chain(&e)))?;
            print(&legend)
        }
    }
}

/// How one scan is prepared, telling how far it is.
type Prepare<'a> = dyn Fn(&Config, &mut dyn FnMut(&Progress)) -> Result<ScanReport, Failure> + 'a;

/// Prepares one scan, or several one after the other: each has its file and report, and the highest
/// exit code is that of all.
fn run(
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
    let parts = outer_extent(&config.source_spec()).map_err(|e| Failure::from(&e))?;
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

fn load(args: &ScanArgs, registry: &Registry) -> Result<Config, Failure> {
    let mut set = args.set.clone();
    if args.force {
        set.push("pipeline.force=true".into());
    }
    if args.fresh {
        set.push("pipeline.fresh=true".into());
    }
    let number = match args.numbers {
        Some(Numbers { first, last }) if first != last => {
            let text = "only `run` takes several scans; give --scan one number";
            return Err(Failure::new(Kind::Config, text));
        }
        numbers => numbers.map(|n| n.first),
    };
    let args = ConfigArgs {
        file: args.scan.clone(),
        set,
        env: true,
        scan: args.name.clone(),
        preset: args.preset.clone(),
        from: args.from.clone(),
        number,
        tag: args.tag.clone(),
        ..ConfigArgs::default()
    };
    let config = config::load(&args, registry).map_err(|e| Failure::from(&e))?;
    for note in &config.notes {
        tracing::info!("{note}");
    }
    Ok(config)
}

/// Runs a scan with progress and report.
fn scan(
    config: &Config,
    talk: TalkArgs,
    json: Option<&Path>,
    gaps_ok: bool,
    run: impl FnOnce(&Config, &mut dyn FnMut(&Progress)) -> Result<ScanReport, Failure>,
) -> Result<u8, Failure> {
    let mut show = Show::new(talk.quiet);
    let result = run(config, &mut |progress| show.update(progress));
    show.end();
    let report = result?;
    print(&report::text(&report))?;
    if let Some(path) = json {
        report::write_json(&report, path).map_err(|e| {
            Failure::new(Kind::Output, format!("cannot write the report {}: {e}", path.display()))
        })?;
    }
    Ok(match report.frames.lost > 0 {
        _ if report.aborted.is_some() => ABORTED,
        true if !gaps_ok => GAPS,
        _ => OK,
    })
}

/// Prints a result; a reader that has gone away (`| head`) is no error.
fn print(text: &str) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(out, "{text}{end}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::Output, format!("cannot write to stdout: {e}")))
        }
        _ => Ok(OK),
    }
}
