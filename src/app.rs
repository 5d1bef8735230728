//! From what was typed to what is done, and the exit code: the one place that decides it.

use crate::cli::{Cli, Command, Numbers, ScanArgs, TalkArgs};
use crate::config::{Config, ConfigArgs};
use crate::hooks::Hooks;
use crate::progress::{LogWriter, Show};
use crate::signals::{self, Caught};
use crate::{
    chaos, check, checksums, compare, config, health, init, inspect, local, memory, params_cmd,
    peek, picture, ranks, repair, replay, report, roles, runs, simulate,
};
use clap::Parser;
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::link::mpi::{Duty, World};
use ptystream_common::message::{SinkReport, is_wanted};
use ptystream_common::ptyd::PtydError;
use ptystream_common::report::ScanReport;
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::Registry;
use ptystream_producer::run::Progress;
use ptystream_producer::source::python::set_interpreter;
use std::ffi::CString;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

pub(crate) const OK: u8 = 0;
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
    if let Err(failure) = own(&cli) {
        eprintln!("ptystream: {failure}");
        return ExitCode::from(failure.kind.exit_code());
    }
    let role = match cli.command {
        Command::Run(_) => Some("run"),
        Command::Producer(_) => Some("producer"),
        Command::Worker(_) => Some("worker"),
        Command::Sink(_) => Some("sink"),
        _ => None,
    };
    let health = cli.health.clone().zip(role).map(|(file, role)| health::Writer::start(file, role));
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
    drop(health);
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

/// Sets whose the written files are, who may read them, and that file systems without locks do.
fn own(cli: &Cli) -> Result<(), Failure> {
    const LOCKING: &str = "HDF5_USE_FILE_LOCKING";
    if std::env::var_os(LOCKING).is_none() {
        // SAFETY: nothing else runs in this process yet.
        unsafe { std::env::set_var(LOCKING, "BEST_EFFORT") };
    }
    if let Some(mask) = cli.umask {
        // SAFETY: it only sets a number of the process.
        unsafe { libc::umask(mask as libc::mode_t) };
    }
    let Some(group) = &cli.group else { return Ok(()) };
    let refused = |text: String| Failure::new(Kind::Config, format!("--group {group}: {text}"));
    let id = match group.parse::<libc::gid_t>() {
        Ok(id) => id,
        Err(_) => {
            let unknown = || refused("the system knows no such group (`getent group`)".into());
            let name = CString::new(group.as_str()).map_err(|_| unknown())?;
            // SAFETY: the name ends with a zero; nothing else runs that could ask for a group.
            let entry = unsafe { libc::getgrnam(name.as_ptr()) };
            // SAFETY: it is null, or points to an entry until the next call.
            unsafe { entry.as_ref() }.ok_or_else(unknown)?.gr_gid
        }
    };
    // SAFETY: it only sets the group of the process.
    match unsafe { libc::setegid(id) } {
        0 => Ok(()),
        _ => Err(refused(format!(
            "{}; it must be one of yours (`id`)",
            std::io::Error::last_os_error()
        ))),
    }
}

fn start_logs(command: &Command) {
    use tracing_subscriber::EnvFilter;
    // What roles say to each other is of interest where they are apart.
    let level = match command {
        Command::Producer(_) | Command::Worker(_) | Command::Sink(_) => "warn,ptystream=info",
        Command::Run(args) if args.talk.quiet => "warn,ptystream::app=info",
        // What a scan waits for.
        _ => {
            "warn,ptystream::app=info,ptystream_producer::source=info,ptystream_producer::positions=info,\
             ptystream_common::link::zmq::stream=info"
        }
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
            runs::run(&args, registry, shutdown, &|config, progress| {
                master.run(config, registry, shutdown, progress)
            })
        }),
        Command::Run(args) => runs::run(&args, registry, shutdown, &|config, progress| {
            local::run(config, registry, shutdown, progress)
        }),
        Command::Producer(args) => {
            let known = args.bind.is_some() || !args.meet.rendezvous.is_empty();
            let work = |world: Option<&World>| {
                runs::produce(&args, registry, shutdown, &|config, progress| {
                    roles::producer(&args, config, world, registry, shutdown, progress)
                })
            };
            ranks::as_role(|_| Duty::Producer, known, &Shutdown::new(), work)
        }
        Command::Worker(args) => {
            let meets = !args.meet.rendezvous.is_empty();
            let known = meets || !args.producer.is_empty() || !args.sink.is_empty();
            let work = |world: Option<&World>| {
                let frames = roles::worker(&args, world, registry, shutdown)?;
                tracing::info!(frames, "worker done");
                Ok(OK)
            };
            ranks::as_role(|_| Duty::Worker, known, shutdown, work)
        }
        Command::Sink(args) => {
            let meets = !args.meet.rendezvous.is_empty();
            let known = meets || args.producer.is_some() || args.bind.is_some();
            if args.serve {
                let mut worst = OK;
                roles::serve_sink(&args, shutdown, |result| {
                    let code = result.map(|report| written(&report)).unwrap_or_else(|failure| {
                        tracing::error!("{failure}");
                        failure.kind.exit_code()
                    });
                    worst = worst.max(code);
                });
                return Ok(worst);
            }
            let work = |world: Option<&World>| Ok(written(&roles::sink(&args, world, shutdown)?));
            ranks::as_role(|_| Duty::Sink, known, shutdown, work)
        }
        Command::Record(args) => print(&replay::record(&args, shutdown)?),
        Command::Replay(args) => print(&replay::replay(&args, shutdown)?),
        Command::Simulate(args) => print(&simulate::simulate(&args, registry, shutdown)?),
        Command::Health(args) => {
            let (text, lives) = health::check(&args)?;
            print(&text)?;
            Ok(if lives { OK } else { DIFFERENT })
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
            let found =
                check::check(&config, registry, shutdown, (!args.no_png).then_some(png.as_path()))?;
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
            print(&peek::peek(&config, registry, shutdown, args.frames)?)
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

/// Tells that a sink is done; returns its exit code.
fn written(report: &SinkReport) -> u8 {
    tracing::info!(frames = report.frames, gaps = report.gaps.len(), "sink done");
    if report.gaps.iter().all(|(_, why)| is_wanted(why)) { OK } else { GAPS }
}

/// Loads the configuration of a scan.
///
/// # Errors
/// All its faults at once.
pub(crate) fn load(args: &ScanArgs, registry: &Registry) -> Result<Config, Failure> {
    if args.scan.is_none() && args.from.is_none() && args.preset.is_none() {
        let text = "no SCAN is given: a configuration (scan.toml), a folder in the layout of ptypy's numpy \
                    tutorial, --from FILE.ptyd, or --preset NAME; `ptystream init RAW` writes a \
                    configuration";
        return Err(Failure::new(Kind::Config, text));
    }
    configured(args, registry)
}

/// Loads what is given, be it a configuration or single parameters.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn configured(args: &ScanArgs, registry: &Registry) -> Result<Config, Failure> {
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
        watched: args.file.clone(),
        ..ConfigArgs::default()
    };
    let config = config::load(&args, registry).map_err(|e| Failure::from(&e))?;
    for note in &config.notes {
        tracing::info!("{note}");
    }
    Ok(config)
}

/// Runs a scan with progress and report.
pub(crate) fn scan(
    config: &Config,
    talk: TalkArgs,
    json: Option<&Path>,
    gaps_ok: bool,
    run: impl FnOnce(&Config, &mut dyn FnMut(&Progress)) -> Result<ScanReport, Failure>,
) -> Result<u8, Failure> {
    let mut show = Show::new(talk.quiet);
    let mut hooks = Hooks::new(&config.pipeline, config.data.dfile.as_deref());
    let result = run(config, &mut |progress| {
        if progress.durable > 0 {
            hooks.first_chunk();
        }
        show.update(progress);
    });
    show.end();
    hooks.done(&result);
    let report = result?;
    print(&report::text(&report))?;
    if let Some(path) = json {
        report::write_json(&report, path).map_err(|e| {
            Failure::new(Kind::Output, format!("cannot write the report {}: {e}", path.display()))
        })?;
    }
    Ok(match report.gaps() > 0 {
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
