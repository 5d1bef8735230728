//! A detector's stream into a file: frames a second against the floor of the same work, and latency at a steady rate.
//!
//! `ptystream simulate` sends SIMPLON frames of 512 x 512 u16, bitshuffle-LZ4, over ipc and tcp, with and without
//! positions to be joined; `ptystream run` with two workers crops them to 256 x 256 and writes. The floor decodes the
//! same frames, prepares them by the same kernel and writes them, in two threads with nothing around. Floor and
//! program take turns, and the ratio is that of their medians. Neither compresses; the simulated detector has its share
//! of the same cores. Then frames of 256 x 256 come at 1 kHz, with `publish_interval_secs = 0.02`.
//!
//! ```text
//! cargo bench --bench live
//! PTYSTREAM_BENCH_SECS=3         how long the floor works in each round
//! PTYSTREAM_BENCH_ROUNDS=7       how often
//! PTYSTREAM_BENCH_STEADY=60      seconds at a steady rate
//! PTYSTREAM_BENCH_FOLDER=/dev/shm
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use bytes::Bytes;
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::geometry::{Center, Geometry, Orientation};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::PreparePlan;
use ptystream_common::source::SourceSpec;
use ptystream_common::value::Value;
use ptystream_producer::source::detector::sends::Series;
use ptystream_worker::Preparer;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const N: usize = 512;
const ROI: usize = 256;
/// Frames that differ; they repeat.
const DIFFERENT: u64 = 50;
const CHUNK: f64 = 40.0;
const HZ: f64 = 1000.0;
/// Photons of a frame: what a detector's compression meets in far fields.
const PHOTONS: f64 = 1e6;

fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The frames that are sent, as they travel.
fn frames() -> Vec<Bytes> {
    let number = |v: f64| Value::Float(v);
    let data = Value::Map(vec![
        ("num_frames".into(), Value::Int(DIFFERENT as i64)),
        ("shape".into(), Value::Int(N as i64)),
        ("dtype".into(), Value::Str("uint16".into())),
        ("photons".into(), number(PHOTONS)),
    ]);
    let (name, base) = ("moonflower".to_owned(), Path::new("/").to_owned());
    let spec = SourceSpec { name, data, base, given: vec![], shutdown: Default::default() };
    let mut source = ptystream_producer::source::builtin().open(&spec).unwrap();
    let series = Series {
        number: 1,
        frames: DIFFERENT,
        shape: [N, N],
        dtype: Dtype::U16,
        energy: 7.0,
        distance: 7.0,
        psize: [1e-4; 2],
        period: 1e-3,
        compressed: true,
    };
    let mut one = |i| {
        let raw = source.load(&[Index(i)]).unwrap().remove(0).frame;
        let array = Array { dtype: Dtype::U16, shape: vec![N, N], data: raw.payload };
        series.encode(&array).unwrap()
    };
    (0..DIFFERENT).map(&mut one).collect()
}

fn preparer() -> Preparer {
    let geometry = Geometry::resolve(
        [N, N],
        Some([ROI; 2]),
        Center::Fftshift,
        Some(false),
        None,
        Orientation::from_number(0).unwrap(),
        1,
    );
    let plan = PreparePlan {
        geometry: Some(geometry.unwrap()),
        frames_per_chunk: CHUNK as u32,
        ..PreparePlan::plain(FrameForm { dtype: Dtype::U16, shape: [N, N] })
    };
    Preparer::new(&plan, &BTreeMap::new()).unwrap()
}

/// Decodes, prepares and writes for a while; returns frames a second.
fn floor(folder: &Path, pixels: &[Bytes], secs: f64) -> f64 {
    let path = folder.join("floor.bin");
    let file = File::create(&path).unwrap();
    let next = AtomicU64::new(0);
    let begun = Instant::now();
    let work = || {
        let mut preparer = preparer();
        while begun.elapsed().as_secs_f64() < secs {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let form = FrameForm { dtype: Dtype::U16, shape: [N, N] };
            let payload = pixels[(index % DIFFERENT) as usize].clone();
            let encoding = Encoding::Filters(vec![Filter::Bslz4(2)]);
            let frame = Loaded::plain(Index(index), RawFrame::new(form, encoding, payload));
            let batch = preparer.prepare(IndexRange::new(index, 1), &[frame]).unwrap();
            // Memory takes no more than so much.
            file.write_all_at(&batch.data, index % 4000 * batch.data.len() as u64).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let rate = next.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    std::fs::remove_file(&path).unwrap();
    rate
}

struct Simulated {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
}

impl Simulated {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ptystream"));
        command.current_dir(folder).args(["simulate", "--as", "simplon"]).args(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Self { child, lines }
    }

    fn bound(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim().strip_prefix("bound ").unwrap_or_else(|| panic!("{line}")).to_owned()
    }

    fn end(self) -> String {
        let out = self.child.wait_with_output().unwrap();
        assert!(out.status.success());
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }
}

/// Runs a scan from a simulated detector; returns its report.
fn program(
    folder: &Path,
    tcp: bool,
    join: bool,
    frames: u64,
    size: usize,
    rate: f64,
) -> (Json, String) {
    // At full speed as by default; to be seen soon, a master as often as there is a chunk.
    let publish = if rate > 0.0 { 0.02 } else { 0.2 };
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
    let place = |name: &str| match tcp {
        true => "tcp://127.0.0.1:0".to_owned(),
        false => format!("ipc://{}/{name}", folder.display()),
    };
    let (bind, second) = (place("d"), place("p"));
    let (frames_text, repeat) = (frames.to_string(), DIFFERENT.to_string());
    let (shape, rate) = (format!("data.shape={size}"), rate.to_string());
    let photons = format!("data.photons={PHOTONS}");
    let num = format!("data.num_frames={frames}");
    let mut args = vec!["--bind", &bind, "--frames", &frames_text, "--repeat", &repeat];
    args.extend(["--rate", &rate, "--set", &shape, "--set", &photons, "--set", &num]);
    if join {
        args.extend(["--positions", "contrast", "--positions-bind", &second]);
    }
    let mut simulated = Simulated::start(folder, &args);
    let address = simulated.bound();
    let mut data = json!({
        "name": "simplon", "address": address, "shape": ROI.min(size), "auto_center": false,
        "dfile": "out.ptyd", "save": "link", "num_frames": frames,
    });
    if join {
        data["positions"] = json!({
            "kind": "contrast", "address": simulated.bound(), "slow": "sy", "fast": "sx",
            "index": "index", "unit": "um",
        });
    } else {
        let points: Vec<[f64; 2]> = (0..frames).map(|i| [i as f64 * 1e-9, 0.0]).collect();
        data["positions_theory"] = json!(points);
    }
    let config = json!({"data": data, "pipeline": {
        "threads": 2, "compression": "none", "publish_interval_secs": publish,
    }});
    std::fs::write(folder.join("scan.json"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptystream"));
    command.current_dir(folder).args(["run", "scan.json", "--quiet", "--report", "report.json"]);
    let done = command.stdout(Stdio::null()).status().unwrap();
    assert!(done.success(), "{done}");
    let report = std::fs::read_to_string(folder.join("report.json")).unwrap();
    (serde_json::from_str(&report).unwrap(), simulated.end())
}

fn rate_of(report: &Json) -> f64 {
    report["frames"]["written"].as_f64().unwrap() / report["times"]["sink_secs"].as_f64().unwrap()
}

fn main() {
    let secs = number("PTYSTREAM_BENCH_SECS", 3.0);
    let rounds = number("PTYSTREAM_BENCH_ROUNDS", 7.0) as usize;
    let root = std::env::var("PTYSTREAM_BENCH_FOLDER").unwrap_or_else(|_| "/dev/shm".into());
    let folder = tempfile::tempdir_in(root).unwrap();
    let pixels = frames();
    let bytes = pixels.iter().map(Bytes::len).sum::<usize>() / pixels.len();
    println!(
        "{} cores, 2 workers, {rounds} rounds; SIMPLON u16 {N}², bslz4 ({bytes} bytes a frame) -> {ROI}²",
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    let count = (floor(folder.path(), &pixels, 1.0) * secs).min(8000.0) as u64;
    for tcp in [false, true] {
        let (mut floors, mut plain, mut joined) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            floors.push(floor(folder.path(), &pixels, secs));
            plain.push(rate_of(&program(folder.path(), tcp, false, count, N, 0.0).0));
            joined.push(rate_of(&program(folder.path(), tcp, true, count, N, 0.0).0));
        }
        let (floor, plain, joined) = (median(floors), median(plain), median(joined));
        println!(
            "{:<4}{plain:>8.0} frames/s, floor {floor:>6.0}, ratio {:.2}; with positions joined {joined:>6.0} \
             frames/s, the join costs {:.1} %",
            if tcp { "tcp" } else { "ipc" },
            plain / floor,
            100.0 * (1.0 - joined / plain)
        );
    }
    let steady = number("PTYSTREAM_BENCH_STEADY", 60.0);
    let (report, sent) = program(folder.path(), false, true, (steady * HZ) as u64, 256, HZ);
    let ms = |key: &str| 1e3 * report["latency"][key].as_f64().unwrap();
    let bound = 1e3 * 2.0 * CHUNK / HZ + 100.0;
    println!("steady: 256² at {HZ} Hz for {steady} s: {sent}");
    println!(
        "        {} frames written, {} lost; latency until visible: p50 {:.0} ms, p99 {:.0} ms (two chunks and \
         100 ms: {bound:.0} ms), max {:.0} ms",
        report["frames"]["written"],
        report["frames"]["lost"],
        ms("p50_secs"),
        ms("p99_secs"),
        ms("max_secs")
    );
}
