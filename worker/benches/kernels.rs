//! Preparation of one 512 x 512 u16 frame against a copy of it, and the codecs.
//!
//! Types: u16 in; `exact` works in f64, `fast` in f32; data are stored uncompressed but where a
//! codec is measured by itself.

#![allow(clippy::unwrap_used, missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ptystream_common::codec::{Compression, Encoding, Filter, decode, encode};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::geometry::{Center, Geometry, Orientation};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{PreparePlan, WeightsFrom};
use ptystream_common::params::{Arithmetic, OutputDtype};
use ptystream_worker::{PrepareError, PreparedBatch, Preparer};
use std::collections::BTreeMap;
use std::hint::black_box;

/// Prepares frames of consecutive indices, as a ticket without gaps has them.
fn whole(preparer: &mut Preparer, frames: &[Loaded]) -> Result<PreparedBatch, PrepareError> {
    let first = frames.first().map_or(0, |f| f.index.0);
    preparer.prepare(IndexRange::new(first, frames.len() as u32), frames)
}

const N: usize = 512;

/// Counts like those of a diffraction pattern: bright in the middle, Poisson-like noise.
fn pattern(n: usize) -> Vec<u16> {
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    };
    let middle = n as f64 / 2.0;
    (0..n * n)
        .map(|i| {
            let (y, x) = ((i / n) as f64 - middle, (i % n) as f64 - middle);
            let mean = 2e4 / (1.0 + (y * y + x * x) / 60.0).powf(1.5);
            // A sum of uniforms is near enough to a normal deviate.
            let normal = (0..6).map(|_| random()).sum::<f64>() - 3.0;
            (mean + normal * 1.4 * mean.sqrt()).max(0.0).round() as u16
        })
        .collect()
}

fn loaded(pixels: &[u16]) -> Loaded {
    Loaded::plain(
        Index(0),
        RawFrame::new(
            FrameForm { dtype: Dtype::U16, shape: [N, N] },
            Encoding::Raw,
            Array::from_items(&[N, N], pixels).data,
        ),
    )
}

struct Job {
    shape: usize,
    rebin: usize,
    orientation: u8,
    corrected: bool,
    arithmetic: Arithmetic,
    dtype: OutputDtype,
}

fn preparer(job: &Job) -> Preparer {
    let geometry = Geometry::resolve(
        [N, N],
        Some([job.shape; 2]),
        Center::Fftshift,
        None,
        None,
        Orientation::from_number(job.orientation).unwrap(),
        job.rebin,
    )
    .unwrap();
    let plan = PreparePlan {
        geometry: Some(geometry),
        corrected: job.corrected,
        weights: WeightsFrom::Scan(Dtype::U8),
        dtype: job.dtype,
        arithmetic: job.arithmetic,
        frames_per_chunk: 40,
        ..PreparePlan::plain(FrameForm { dtype: Dtype::U16, shape: [N, N] })
    };
    let mask: Vec<u8> = (0..N * N).map(|i| u8::from(i % 97 != 0)).collect();
    let mut arrays = BTreeMap::from([("weight".to_owned(), Array::from_items(&[N, N], &mask))]);
    if job.corrected {
        let dark: Vec<u16> = (0..N * N).map(|i| (i % 5) as u16).collect();
        let flat: Vec<f32> = (0..N * N).map(|i| 1.0 + (i % 11) as f32 / 50.0).collect();
        arrays.insert("dark".to_owned(), Array::from_items(&[N, N], &dark));
        arrays.insert("flat".to_owned(), Array::from_items(&[N, N], &flat));
    }
    Preparer::new(&plan, &arrays).unwrap()
}

fn kernels(c: &mut Criterion) {
    let pixels = pattern(N);
    let frame = loaded(&pixels);
    let mut group = c.benchmark_group("u16_512");
    group.throughput(Throughput::Bytes((N * N * 2) as u64));
    let mut copy = vec![0u8; N * N * 2];
    group.bench_function("memcpy_of_the_input", |b| {
        b.iter(|| black_box(&mut copy).copy_from_slice(black_box(&frame.frame.payload)));
    });
    // A pipeline never sees the same frame twice: here input comes from memory, not the cache.
    let many: Vec<[Loaded; 1]> = (0..64).map(|_| [loaded(&pixels)]).collect();
    let mut k = 0;
    group.bench_function("memcpy_of_the_input_of_64_frames", |b| {
        b.iter(|| {
            k = (k + 1) % many.len();
            black_box(&mut copy).copy_from_slice(black_box(&many[k][0].frame.payload));
        });
    });
    let mut of_many = preparer(&Job {
        shape: 512,
        rebin: 2,
        orientation: 0,
        corrected: true,
        arithmetic: Arithmetic::Fast,
        dtype: OutputDtype::Float32,
    });
    group.bench_function("fast_f32_dark_flat_rebin_2_of_64_frames", |b| {
        b.iter(|| {
            k = (k + 1) % many.len();
            whole(&mut of_many, black_box(&many[k])).unwrap()
        });
    });
    let (exact, fast) = (Arithmetic::Exact, Arithmetic::Fast);
    let (ptypy, single) = (OutputDtype::Ptypy, OutputDtype::Float32);
    for (name, shape, rebin, orientation, corrected, arithmetic, dtype) in [
        ("crop_256_u16", 256, 1, 0, false, exact, ptypy),
        ("exact_f64_dark_flat_rebin_2", 512, 2, 0, true, exact, ptypy),
        ("exact_f64_dark_flat_rebin_2_transposed", 512, 2, 4, true, exact, ptypy),
        ("fast_f32_dark_flat_rebin_2", 512, 2, 0, true, fast, single),
        ("fast_f32_dark_flat_rebin_2_flipped", 512, 2, 3, true, fast, single),
        ("fast_f32_dark_flat_rebin_2_transposed", 512, 2, 4, true, fast, single),
        ("fast_f32_dark_flat_crop_256", 256, 1, 0, true, fast, single),
        ("exact_f64_rebin_4", 512, 4, 0, false, exact, ptypy),
    ] {
        let job = Job { shape, rebin, orientation, corrected, arithmetic, dtype };
        let mut preparer = preparer(&job);
        let frames = [frame.clone()];
        group.bench_function(name, |b| {
            b.iter(|| whole(&mut preparer, black_box(&frames)).unwrap());
        });
    }
    group.finish();
}

fn codecs(c: &mut Criterion) {
    let pixels = pattern(N);
    let raw = Array::from_items(&[N, N], &pixels).data;
    let mut stored = Vec::new();
    let mut out = Vec::new();
    let mut group = c.benchmark_group("codec");
    for (name, filters) in [("bslz4", vec![Filter::Bslz4(2)]), ("gzip_4", vec![Filter::Deflate(4)])]
    {
        encode(&filters, &raw, &mut stored).unwrap();
        group.bench_function(format!("decode_{name}_u16_512"), |b| {
            b.iter(|| decode(&filters, black_box(&stored), raw.len(), &mut out).unwrap());
        });
    }
    let small = pattern(256);
    let rebinned: Vec<f64> = small.iter().map(|&v| f64::from(v) + f64::from(v % 4) / 4.0).collect();
    let single: Vec<f32> = rebinned.iter().map(|&v| (v / 1.037) as f32).collect();
    let divided: Vec<f64> = rebinned.iter().map(|&v| v / 1.037).collect();
    for (kind, array) in [
        ("u16", Array::from_items(&[256, 256], &small)),
        ("f64_quarters", Array::from_items(&[256, 256], &rebinned)),
        ("f64_flat", Array::from_items(&[256, 256], &divided)),
        ("f32_flat", Array::from_items(&[256, 256], &single)),
    ] {
        for (name, compression) in [
            ("gzip_1", Compression::Gzip(1)),
            ("gzip_4", Compression::Gzip(4)),
            ("shuffle_gzip_1", Compression::ShuffleGzip(1)),
            ("shuffle_gzip_4", Compression::ShuffleGzip(4)),
            ("bslz4", Compression::Bslz4),
        ] {
            let filters = compression.filters(array.dtype.size());
            encode(&filters, &array.data, &mut stored).unwrap();
            let percent = 100 * stored.len() / array.data.len();
            group.bench_function(format!("encode_{name}_{kind}_256_to_{percent}_percent"), |b| {
                b.iter(|| encode(&filters, black_box(&array.data), &mut stored).unwrap());
            });
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(800));
    targets = kernels, codecs
}
criterion_main!(benches);
