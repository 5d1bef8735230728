//! Arguments of what stands in for instruments: `record`, `replay`, `simulate`.

use super::{ScanArgs, seconds};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// `ptystream record`
#[derive(Args, Debug)]
pub struct RecordArgs {
    /// Where the instruments send: tcp://HOST:PORT of a PUSH socket, sub+tcp://HOST:PORT of a PUB socket,
    /// panda+tcp://HOST:PORT of a PandA's data port
    #[arg(required = true, value_name = "ADDRESS")]
    pub addresses: Vec<String>,
    /// The file that is written
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Seconds after which it ends
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub secs: Option<f64>,
    /// Messages after which it ends
    #[arg(long, value_name = "N")]
    pub messages: Option<u64>,
}

/// `ptystream replay`
#[derive(Args, Debug)]
pub struct ReplayArgs {
    /// A recording: of `ptystream record`, a .zmqdump or a .cbors
    pub file: PathBuf,
    /// Address to bind, one for each stream of the recording, in its order
    #[arg(long, required = true, value_name = "ADDRESS")]
    pub bind: Vec<String>,
    /// How many times as fast as it was recorded; 0: as fast as it is taken
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", value_parser = seconds)]
    pub speed: f64,
    /// Publish to all (PUB), though the recording does not say so
    #[arg(long)]
    pub publish: bool,
    /// Leave out every so many messages
    #[arg(long, value_name = "N")]
    pub drop: Option<u64>,
    /// Send every so many messages twice
    #[arg(long, value_name = "N")]
    pub duplicate: Option<u64>,
    /// Send every so many messages after the next one
    #[arg(long, value_name = "N")]
    pub reorder: Option<u64>,
    /// Cut the longest part of every so many messages in half
    #[arg(long, value_name = "N")]
    pub truncate: Option<u64>,
}

/// Protocol of a simulated detector
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum DetectorKind {
    /// Dectris SIMPLON, version 1
    Simplon,
    /// Dectris stream2
    Stream2,
}

impl From<DetectorKind> for ptystream_producer::source::detector::sends::As {
    fn from(kind: DetectorKind) -> Self {
        match kind {
            DetectorKind::Simplon => Self::Simplon,
            DetectorKind::Stream2 => Self::Stream2,
        }
    }
}

/// Protocol of simulated positions
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum PositionsKind {
    /// Pickled dicts over PUB: sy, sx in micrometres, index
    Contrast,
    /// A data port over TCP: Y.VAL, X.VAL in micrometres, INDEX.OUT
    Panda,
}

impl From<PositionsKind> for ptystream_producer::positions::sends::As {
    fn from(kind: PositionsKind) -> Self {
        match kind {
            PositionsKind::Contrast => Self::Contrast,
            PositionsKind::Panda => Self::Panda,
        }
    }
}

/// `ptystream simulate`
#[derive(Args, Debug)]
pub struct SimulateArgs {
    /// The scan that is sent; none: a simulated one
    #[command(flatten)]
    pub scan: ScanArgs,
    /// As which detector
    #[arg(long = "as", value_name = "PROTOCOL")]
    pub detector: DetectorKind,
    /// Address that the detector binds
    #[arg(long, default_value = "tcp://127.0.0.1:9999", value_name = "ADDRESS")]
    pub bind: String,
    /// As which instrument positions are sent; none are otherwise
    #[arg(long, value_name = "PROTOCOL")]
    pub positions: Option<PositionsKind>,
    /// Address that the positions bind
    #[arg(long, default_value = "tcp://127.0.0.1:5556", value_name = "ADDRESS")]
    pub positions_bind: String,
    /// Frames a second; 0: as fast as they are taken
    #[arg(long, default_value_t = 0.0, value_name = "HZ", value_parser = seconds)]
    pub rate: f64,
    /// Frames of the series, which begins anew where the scan has fewer
    #[arg(long, value_name = "N")]
    pub frames: Option<u64>,
    /// Send only the first so many frames of the scan, again and again
    #[arg(long, value_name = "N")]
    pub repeat: Option<u64>,
    /// Send pixels as they are, not bitshuffle-LZ4
    #[arg(long)]
    pub uncompressed: bool,
    /// Number of the series
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub series: u64,
    /// Leave out every so many frames
    #[arg(long, value_name = "N")]
    pub lose: Option<u64>,
    /// Send the position of so many points later with each frame
    #[arg(long, default_value_t = 0, value_name = "N", allow_hyphen_values = true)]
    pub shift: i64,
}
