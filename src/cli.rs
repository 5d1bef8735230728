//! What can be typed.

mod instruments;

pub use instruments::{DetectorKind, PositionsKind, RecordArgs, ReplayArgs, SimulateArgs};

use crate::rendezvous::Place;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// Address where a producer is found unless it is told otherwise: this machine only.
pub const PRODUCER_ADDRESS: &str = "tcp://127.0.0.1:5710";
/// Address where a sink is found unless it is told otherwise: this machine only.
pub const SINK_ADDRESS: &str = "tcp://127.0.0.1:5711";

const AFTER_HELP: &str = "\
Exit codes:
  0  done                          5  complete, but with gaps (0 with --gaps-ok)
  1  something differs or is not   6  the output or its disk
     plausible (compare, check,
     inspect --checksums, chaos,
     health)
  2  usage or configuration        7  the scan was aborted
  3  raw data or positions         130, 143  ended by SIGINT, SIGTERM
  4  another role, or the way to it

Examples:
  ptystream run examples/moonflower.toml            simulate and prepare a scan
  ptystream init raw.h5                             write a scan.toml to begin with
  ptystream run FOLDER                              a folder with ccd/, positions.txt, geometry.txt
  ptystream run scan.toml --set data.rebin=2        change a parameter
  ptystream params moonflower --level 0             what can be set, and what it means
  ptystream inspect out.ptyd                        what is in a file, and whether ptypy reads it

Logs go to stderr (PTYSTREAM_LOG=debug for more), results to stdout.";

/// Prepares ptychography data: raw frames and positions in, a .ptyd out.
#[derive(Debug, Parser)]
#[command(name = "ptystream", version, about, after_help = AFTER_HELP, max_term_width = 100)]
pub struct Cli {
    /// Seconds that an orderly end may take after SIGINT or SIGTERM, before it is forced
    #[arg(
        long,
        global = true,
        default_value_t = 8.0,
        value_name = "SECONDS",
        env = "PTYSTREAM_GRACE",
        value_parser = seconds
    )]
    pub grace: f64,
    /// Interpreter that runs sources written in Python, where `data.name` is MODULE:CLASS
    #[arg(long, global = true, value_name = "PATH", env = "PTYSTREAM_PYTHON")]
    pub python: Option<PathBuf>,
    /// File that a role writes every few seconds, for `ptystream health`
    #[arg(long, global = true, value_name = "FILE", env = "PTYSTREAM_HEALTH")]
    pub health: Option<PathBuf>,
    /// Mode bits that written files and folders do not get, such as 0027 [default: the shell's]
    #[arg(long, global = true, value_name = "OCTAL", env = "PTYSTREAM_UMASK", value_parser = umask)]
    pub umask: Option<u32>,
    /// Group of written files and folders, by name or number; it must be one of yours
    #[arg(long, global = true, value_name = "GROUP", env = "PTYSTREAM_GROUP")]
    pub group: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Reads mode bits.
fn umask(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777)
        .ok_or_else(|| format!("'{text}' is no umask; give three octal digits, such as 027"))
}

/// Reads a time in seconds.
fn seconds(text: &str) -> Result<f64, String> {
    let secs: f64 = text.parse().map_err(|_| format!("'{text}' is no number of seconds"))?;
    match std::time::Duration::try_from_secs_f64(secs) {
        Ok(_) => Ok(secs),
        Err(_) => Err(format!("'{text}' is no time; give seconds, such as 8")),
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prepare a scan in this process: producer, workers and sink together
    Run(RunArgs),
    /// Hand out a scan's frames to workers (binds; workers and sink connect)
    Producer(ProducerArgs),
    /// Prepare frames (connects to producer and sink; any number of them)
    Worker(WorkerArgs),
    /// Write the file (binds for workers, connects to the producer)
    Sink(SinkArgs),
    /// Look into a file or a folder and write a configuration to begin with
    Init(InitArgs),
    /// Show the parameters that can be set
    Params(ParamsArgs),
    /// Print a preset, to be copied and changed, or the names of all
    Preset(PresetArgs),
    /// Show the effective configuration of a scan and where each value comes from
    Config(ConfigCmdArgs),
    /// Look whether a scan is plausible; exit code 1 if something is not
    Check(CheckArgs),
    /// Prepare the first frames of a scan and show what comes out; no file is written
    Peek(PeekArgs),
    /// Show what is in a .ptyd, and whether ptypy's PtydScan can read it
    Inspect(InspectArgs),
    /// Compare two .ptyd files; exit code 1 if they differ
    Compare(CompareArgs),
    /// Draw a .ptyd: the sum of its frames (log) and the map of its positions, as a PNG
    Picture(PictureArgs),
    /// Run scans under faults that follow from a seed, and compare what they leave
    Chaos(ChaosArgs),
    /// Record what instruments send into one file, until SIGTERM
    Record(RecordArgs),
    /// Send a recording again, as the instruments did, with faults on request
    Replay(ReplayArgs),
    /// Publish a scan as a detector and an instrument of positions would, for rehearsals
    Simulate(Box<SimulateArgs>),
    /// Tell whether a role lives, by the file of its --health; exit code 1 if it does not
    Health(HealthArgs),
}

/// Which scan, with which parameters.
#[derive(Args, Clone, Debug)]
pub struct ScanArgs {
    /// A configuration (.toml, .json, .yaml; a ptypy parameter file as it is), or a folder in the
    /// layout of ptypy's numpy tutorial
    pub scan: Option<PathBuf>,
    /// Prepare anew what a finished .ptyd was made of, in the place of a configuration
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scan", "name"])]
    pub from: Option<PathBuf>,
    /// A preset below the configuration: cxi, diamond-nexus, nanomax-contrast, dectris-master, or a
    /// file of your own
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Number of the scan, which {scan} and {scan:06} in paths and labels stand for; `run` takes
    /// several, such as 100-140, one after the other
    #[arg(long = "scan", value_name = "N[-M]", id = "numbers", value_parser = numbers)]
    pub numbers: Option<Numbers>,
    /// What {tag} in paths and labels stands for
    #[arg(long, value_name = "TEXT")]
    pub tag: Option<String>,
    /// Set a parameter; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Which scan of a ptypy parameter file with several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Prepare again what is finished already
    #[arg(long)]
    pub force: bool,
    /// Start anew where an unfinished file of other parameters stands in the way
    #[arg(long)]
    pub fresh: bool,
    /// What {file} and {stem} in paths and labels stand for.
    #[arg(skip)]
    pub file: Option<PathBuf>,
}

/// Scan after scan, as their files appear.
#[derive(Args, Clone, Debug)]
pub struct WatchArgs {
    /// Prepare each scan whose file appears in a folder, until SIGTERM: configurations, or, with a
    /// configuration given, raw files that {file} and {stem} stand for in it
    #[arg(long, value_name = "FOLDER")]
    pub watch: Option<PathBuf>,
    /// Which files, by their names [default: *.toml, or *.h5 with a configuration]
    #[arg(long = "match", value_name = "PATTERN", requires = "watch")]
    pub pattern: Option<String>,
    /// Seconds for which a file has not changed before it counts as whole
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS", requires = "watch", value_parser = seconds)]
    pub settle: f64,
}

/// Where roles meet.
#[derive(Args, Clone, Debug, Default)]
pub struct MeetArgs {
    /// Where roles tell each other their addresses: a folder that all see, or tcp://HOST:PORT of the
    /// producer's host, the same for all of them
    #[arg(long, value_name = "PLACE", env = "PTYSTREAM_RENDEZVOUS")]
    pub rendezvous: Vec<Place>,
    /// Name or address under which others reach this host [default: that of the default route]
    #[arg(long, value_name = "HOST", requires = "rendezvous")]
    pub advertise: Option<String>,
}

/// Numbers of scans, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The first.
    pub first: u64,
    /// The last, not less.
    pub last: u64,
}

/// Reads `12` or `100-140`.
fn numbers(text: &str) -> Result<Numbers, String> {
    let wrong = || format!("'{text}' is neither a number nor a range such as 100-140");
    let number = |word: &str| word.trim().parse::<u64>().map_err(|_| wrong());
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    match first <= last {
        true => Ok(Numbers { first, last }),
        false => Err(format!("'{text}' ends before it begins; write {last}-{first}")),
    }
}

/// How much is said.
#[derive(Args, Clone, Copy, Debug)]
pub struct TalkArgs {
    /// No progress, only warnings and the report
    #[arg(short, long)]
    pub quiet: bool,
}

/// When a connection counts as dead.
#[derive(Args, Clone, Copy, Debug)]
pub struct LinkArgs {
    /// Seconds of silence after which a role is taken for dead; a message must travel within them,
    /// so more on slow networks
    #[arg(
        long,
        env = "PTYSTREAM_DEAD_AFTER",
        default_value = "10",
        value_name = "SECONDS",
        value_parser = dead_after
    )]
    pub dead_after: Duration,
}

/// Reads a time that is neither nothing nor endless.
fn dead_after(text: &str) -> Result<Duration, String> {
    let seconds = text.trim().parse().ok().filter(|&seconds: &f64| seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "give seconds, more than 0, such as 10".into())
}

/// `ptystream run`
#[derive(Args, Debug)]
pub struct RunArgs {
    /// Which scan.
    #[command(flatten)]
    pub scan: ScanArgs,
    /// Scan after scan.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Worker threads [default: as many as cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Exit code 0 though frames are missing
    #[arg(long)]
    pub gaps_ok: bool,
    /// How much is said.
    #[command(flatten)]
    pub talk: TalkArgs,
}

/// `ptystream producer`
#[derive(Args, Debug)]
pub struct ProducerArgs {
    /// Which scan.
    #[command(flatten)]
    pub scan: ScanArgs,
    /// Address to bind: tcp://HOST:PORT or ipc:///PATH; workers and sink connect to it [default:
    /// tcp://127.0.0.1:5710; under mpirun, none: the ranks talk over MPI]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// Scan after scan.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// Where roles meet.
    #[command(flatten)]
    pub meet: MeetArgs,
    /// When a connection counts as dead.
    #[command(flatten)]
    pub link: LinkArgs,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Exit code 0 though frames are missing
    #[arg(long)]
    pub gaps_ok: bool,
    /// How much is said.
    #[command(flatten)]
    pub talk: TalkArgs,
}

/// `ptystream worker`
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// The producer's address; may be repeated, with as many sinks: whichever has work is served
    /// [default: tcp://127.0.0.1:5710; under mpirun, the rank that is one]
    #[arg(long, value_name = "ADDRESS")]
    pub producer: Vec<String>,
    /// The sink's address [default: tcp://127.0.0.1:5711; under mpirun, the rank that is one]
    #[arg(long, value_name = "ADDRESS")]
    pub sink: Vec<String>,
    /// Where roles meet.
    #[command(flatten)]
    pub meet: MeetArgs,
    /// Work on one scan after the other, until SIGTERM
    #[arg(long)]
    pub serve: bool,
    /// Workers in this process, each a thread with its own connections
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub threads: usize,
    /// Tickets that each holds at most
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub window: u32,
    /// Seconds to wait for a role that is not there
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub peer_timeout: f64,
    /// Name in logs and reports [default: host and process number]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// When a connection counts as dead.
    #[command(flatten)]
    pub link: LinkArgs,
}

/// `ptystream sink`
#[derive(Args, Debug)]
pub struct SinkArgs {
    /// The producer's address [default: tcp://127.0.0.1:5710; under mpirun, the rank that is one]
    #[arg(long, value_name = "ADDRESS")]
    pub producer: Option<String>,
    /// Address to bind: tcp://HOST:PORT or ipc:///PATH; workers connect to it [default:
    /// tcp://127.0.0.1:5711; under mpirun, none: the ranks talk over MPI]
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// Where roles meet.
    #[command(flatten)]
    pub meet: MeetArgs,
    /// Write one scan after the other, until SIGTERM
    #[arg(long)]
    pub serve: bool,
    /// When a connection counts as dead.
    #[command(flatten)]
    pub link: LinkArgs,
    /// Folder to which a relative data.dfile refers [default: the working folder]
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<PathBuf>,
    /// Seconds to wait for a role that is not there
    #[arg(long, default_value_t = 60.0, value_name = "SECONDS")]
    pub peer_timeout: f64,
}

/// `ptystream health`
#[derive(Args, Debug)]
pub struct HealthArgs {
    /// The file that the role writes
    #[arg(id = "written", value_name = "FILE", env = "PTYSTREAM_HEALTH")]
    pub file: Option<PathBuf>,
    /// Seconds after which a role that has not moved is taken for dead
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS", value_parser = seconds)]
    pub max_age: f64,
}

/// `ptystream init`
#[derive(Args, Debug)]
pub struct InitArgs {
    /// An HDF5 file, or a folder with one, or one in the layout of ptypy's numpy tutorial
    pub what: PathBuf,
    /// The configuration to write
    #[arg(long, default_value = "scan.toml", value_name = "FILE")]
    pub out: PathBuf,
}

/// `ptystream params`
#[derive(Args, Debug)]
pub struct ParamsArgs {
    /// A parameter, a block (data, pipeline) or a source
    pub name: Option<String>,
    /// Up to which user level: 0 everybody, 1 intermediate, 2 expert
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u8).range(..=2))]
    pub level: u8,
    /// Print a JSON schema instead, for editors
    #[arg(long)]
    pub schema: bool,
}

/// `ptystream preset`
#[derive(Args, Debug)]
pub struct PresetArgs {
    /// Which one; none: lists them
    pub name: Option<String>,
}

/// `ptystream config`
#[derive(Args, Debug)]
pub struct ConfigCmdArgs {
    /// Which scan.
    #[command(flatten)]
    pub scan: ScanArgs,
}

/// `ptystream check`
#[derive(Args, Debug)]
pub struct CheckArgs {
    /// Which scan.
    #[command(flatten)]
    pub scan: ScanArgs,
    /// Where one frame in all eight orientations is drawn [default: SCAN.orientations.png]
    #[arg(long, value_name = "FILE")]
    pub png: Option<PathBuf>,
    /// Draw nothing
    #[arg(long, conflicts_with = "png")]
    pub no_png: bool,
}

/// `ptystream peek`
#[derive(Args, Debug)]
pub struct PeekArgs {
    /// Which scan.
    #[command(flatten)]
    pub scan: ScanArgs,
    /// Frames of the package
    #[arg(long, default_value_t = 80, value_name = "N", value_parser = at_least_one)]
    pub frames: usize,
}

/// Reads a number that is not 0.
fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("give a number of 1 or more".into()),
        Ok(n) => Ok(n),
    }
}

/// `ptystream inspect`
#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The file
    pub file: PathBuf,
    /// Write a copy that PtydScan can read
    #[arg(long, value_name = "COPY")]
    pub fix: Option<PathBuf>,
    /// Compare what is stored with the checksums in the file, parts included; exit code 1 if it
    /// differs
    #[arg(long, conflicts_with = "fix")]
    pub checksums: bool,
}

/// `ptystream compare`
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// One file
    pub a: PathBuf,
    /// The other
    pub b: PathBuf,
    /// Values may differ by this, relative to the larger (0: not at all)
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub tolerance: f64,
    /// Frames may be cut into chunks in another way
    #[arg(long)]
    pub ignore_chunking: bool,
    /// Compare the parameters in info too
    #[arg(long)]
    pub info: bool,
}

/// `ptystream picture`
#[derive(Args, Debug)]
pub struct PictureArgs {
    /// The file
    pub file: PathBuf,
    /// The PNG to write
    pub png: PathBuf,
}

/// `ptystream chaos`
#[derive(Args, Debug)]
pub struct ChaosArgs {
    /// Number of seeds
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub first_seed: u64,
    /// Seeds at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub jobs: usize,
    /// Kinds of fault, such as kill,reset [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub faults: Vec<crate::chaos::faults::Kind>,
    /// Where the folders of the seeds stand [default: a temporary folder]
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
    /// Keep the folders of seeds that went well, too
    #[arg(long)]
    pub keep: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_are_numbers_or_ranges_of_them() {
        assert_eq!(numbers("12"), Ok(Numbers { first: 12, last: 12 }));
        assert_eq!(numbers("100-140"), Ok(Numbers { first: 100, last: 140 }));
        assert!(numbers("5-2").is_err_and(|e| e.contains("write 2-5")));
        for bad in ["", "a", "1-", "-1", "1-2-3", "1.5"] {
            assert!(numbers(bad).is_err_and(|e| e.contains("100-140")), "{bad}");
        }
    }

    #[test]
    fn a_time_of_silence_is_more_than_nothing_and_ends() {
        assert_eq!(dead_after("0.3"), Ok(Duration::from_millis(300)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "1e-300", "", "10s"] {
            assert!(dead_after(bad).is_err(), "{bad}");
        }
    }
}
