//! The scan that is prepared: a hundred different frames, named over and over by `positions.txt`.

use npyz::WriterBuilder;
use ptystream::config::{self, ConfigArgs};
use ptystream_common::form::region;
use ptystream_common::frame::Region;
use ptystream_common::shutdown::Shutdown;
use ptystream_producer::scan::Scan;
use ptystream_worker::Preparer;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Pixels of a raw frame along an axis.
pub const N: usize = 512;
/// Bytes before the pixels of a frame's file.
pub const HEADER_BYTES: u64 = 128;
/// Different frames.
const FRAMES: u64 = 100;
/// Most scan points.
const POINTS: u64 = 40_000;
/// Most bytes of a prepared file.
const MOST_BYTES: u64 = 3 << 30;

/// One kind of preparation.
pub struct Case {
    /// Whether there are dark, flat and mask, and frames are rebinned by 2; else they are cropped.
    pub corrected: bool,
    pub arithmetic: &'static str,
    pub dtype: &'static str,
    pub compression: &'static str,
}

const fn case(corrected: bool, arithmetic: &'static str, compression: &'static str) -> Case {
    let dtype = match (corrected, arithmetic.len() == "fast".len()) {
        (false, _) => "uint16",
        (true, false) => "float64",
        (true, true) => "float32",
    };
    Case { corrected, arithmetic, dtype, compression }
}

pub static CASES: &[Case] = &[
    case(false, "exact", "none"),
    case(true, "exact", "none"),
    case(true, "fast", "none"),
    case(false, "exact", "gzip:1"),
    case(true, "exact", "gzip:1"),
    case(true, "fast", "gzip:1"),
];

impl Case {
    /// Names the case in a table.
    pub fn name(&self) -> String {
        let what = match self.corrected {
            true => format!("dark flat mask rebin 2, {}", self.arithmetic),
            false => "crop only".to_owned(),
        };
        format!("{what}, to {}, compression {}", self.dtype, self.compression)
    }

    /// Returns the bytes of a prepared frame, uncompressed.
    fn prepared_bytes(&self) -> u64 {
        let item = match self.dtype {
            "uint16" => 2,
            "float32" => 4,
            _ => 8,
        };
        256 * 256 * item
    }

    /// Returns the configuration's parameters for so many frames.
    pub fn parameters(&self, folder: &Folder, frames: u64) -> Vec<String> {
        let mut set = vec![
            "data.name=numpy".to_owned(),
            format!("data.path={}", folder.root().join("scan").display()),
            "data.auto_center=false".to_owned(),
            "data.center=fftshift".to_owned(),
            format!("data.num_frames={frames}"),
            format!("data.shape={}", if self.corrected { N } else { 256 }),
            format!("data.dfile={}", folder.out().join("scan.ptyd").display()),
            "data.save=link".to_owned(),
            format!("pipeline.arithmetic={}", self.arithmetic),
            format!("pipeline.dtype={}", self.dtype),
            format!("pipeline.compression={}", self.compression),
        ];
        if self.corrected {
            set.push("data.rebin=2".to_owned());
            for name in ["dark", "flat", "mask"] {
                let path = folder.root().join(format!("{name}.npy"));
                set.push(format!("data.{name}={}", path.display()));
            }
        }
        set
    }

    /// Opens the scan as the program does.
    fn open(&self, folder: &Folder) -> Scan {
        let registry = ptystream_producer::source::builtin();
        let args = ConfigArgs { set: self.parameters(folder, FRAMES), ..ConfigArgs::default() };
        let config = config::load(&args, &registry).expect("the parameters are complete");
        Scan::open(&config.data, &config.pipeline, &registry, &Shutdown::new())
            .expect("a readable scan")
    }

    /// Returns what is kept of a raw frame.
    pub fn kept(&self, folder: &Folder) -> Region {
        region(&self.open(folder).plan).expect("the centre is given")
    }

    /// Makes what prepares frames, exactly as the program does; returns also the batch.
    pub fn preparer(&self, folder: &Folder) -> (Preparer, u32) {
        let scan = self.open(folder);
        let named = scan.arrays.iter().map(|(head, data)| {
            let array = ptystream_common::frame::Array {
                dtype: head.dtype,
                shape: head.shape.clone(),
                data: data.clone(),
            };
            (head.name.clone(), array)
        });
        let preparer = Preparer::new(&scan.plan, &named.collect()).expect("a plan that fits");
        (preparer, scan.plan.batch)
    }
}

/// A folder in memory with the scan; removed at the end.
pub struct Folder {
    root: PathBuf,
    own: bool,
}

impl Folder {
    /// Writes the scan.
    pub fn make() -> Self {
        let base = std::env::var("PTYSTREAM_BENCH_FOLDER").unwrap_or_else(|_| "/dev/shm".into());
        let root = Path::new(&base).join(format!("ptystream-bench-{}", std::process::id()));
        let folder = Self { root, own: true };
        let scan = folder.root.join("scan");
        fs::create_dir_all(scan.join("ccd")).unwrap();
        let mut random = Random(1);
        for k in 0..FRAMES {
            let shift = (k % 10) as f64 - 5.0;
            write_npy(&scan.join(frame_name(k)), &pattern(&mut random, shift));
        }
        folder.set_points(FRAMES);
        fs::write(scan.join("geometry.txt"), "energy 6.2\ndistance 7\npsize 1e-4\n").unwrap();
        let all = 0..N * N;
        let dark: Vec<u16> = all.clone().map(|i| (i % 5) as u16).collect();
        write_npy(&folder.root.join("dark.npy"), &dark);
        let flat: Vec<f32> = all.clone().map(|i| 1.0 + (i % 11) as f32 / 50.0).collect();
        write_npy(&folder.root.join("flat.npy"), &flat);
        let mask: Vec<u8> = all.map(|i| u8::from(i % 97 != 0)).collect();
        write_npy(&folder.root.join("mask.npy"), &mask);
        folder
    }

    /// Makes the scan as long as that.
    pub fn set_points(&self, frames: u64) {
        let line = |k: u64| {
            let (y, x) = ((k / 200) as f64 * 1e-7, (k % 200) as f64 * 1e-7);
            format!("{} {y:e} {x:e}\n", frame_name(k))
        };
        let lines: String = (0..frames).map(line).collect();
        fs::write(self.root.join("scan/positions.txt"), lines).unwrap();
    }

    /// Takes the folder of another process.
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), own: false }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder of what is written.
    pub fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    /// Empties the folder of what is written.
    pub fn clear(&self) {
        if self.out().exists() {
            fs::remove_dir_all(self.out()).unwrap();
        }
        fs::create_dir_all(self.out()).unwrap();
    }

    /// Returns the file of a frame.
    pub fn frame(&self, index: u64) -> PathBuf {
        self.root.join("scan").join(frame_name(index))
    }

    /// Limits a number of frames to what the scan and the memory have room for.
    pub fn at_most(&self, case: &Case, frames: u64) -> u64 {
        frames.clamp(400, POINTS.min(MOST_BYTES / case.prepared_bytes()))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.own
            && let Err(error) = fs::remove_dir_all(&self.root)
        {
            eprintln!("{} is left: {error}", self.root.display());
        }
    }
}

fn frame_name(index: u64) -> String {
    format!("ccd/frame_{:03}.npy", index % FRAMES)
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// Counts like those of a diffraction pattern: bright in the middle, Poisson noise.
fn pattern(random: &mut Random, shift: f64) -> Vec<u16> {
    let middle = N as f64 / 2.0 + shift;
    let count = |i: usize| {
        let (y, x) = ((i / N) as f64 - middle, (i % N) as f64 - middle);
        let mean = 2e4 / (1.0 + (y * y + x * x) / 60.0).powf(1.5);
        if mean > 30.0 {
            // A sum of uniforms is near enough to a normal deviate.
            let normal = (0..6).map(|_| random.next()).sum::<f64>() - 3.0;
            return (mean + normal * 1.4 * mean.sqrt()).max(0.0).round() as u16;
        }
        let (limit, mut product, mut k) = ((-mean).exp(), random.next(), 0);
        while product > limit {
            product *= random.next();
            k += 1;
        }
        k
    };
    (0..N * N).map(count).collect()
}

fn write_npy<T: npyz::AutoSerialize + Copy>(path: &Path, pixels: &[T]) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    let mut writer = npyz::WriteOptions::new()
        .default_dtype()
        .shape(&[N as u64, N as u64])
        .writer(&mut file)
        .begin_nd()
        .unwrap();
    writer.extend(pixels.iter().copied()).unwrap();
    writer.finish().unwrap();
    file.flush().unwrap();
}
