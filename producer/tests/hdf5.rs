//! Frames and positions out of HDF5 files, and what a new user would get wrong.
#![allow(clippy::unwrap_used)]

use hdf5::File;
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::Array;
use ptystream_common::index::Index;
use ptystream_common::source::{Source, SourceError, SourceSpec};
use ptystream_common::value::Value;
use ptystream_producer::source::builtin;
use std::path::{Path, PathBuf};

type Keys<'a> = &'a [(&'a str, Value)];

fn text(v: &str) -> Value {
    Value::Str(v.into())
}

fn open(folder: &Path, keys: Keys) -> Result<Box<dyn Source>, SourceError> {
    let mut data = Value::Map(Vec::new());
    let usual = [
        ("intensities.file", text("in.h5")),
        ("intensities.key", text("data")),
        ("positions.slow_key", text("y")),
        ("positions.fast_key", text("x")),
    ];
    for (key, value) in usual.iter().chain(keys) {
        data.set_at(key, value.clone());
    }
    builtin().open(&SourceSpec { name: "Hdf5Loader".into(), data, base: folder.to_owned() })
}

fn input_error(result: Result<impl Sized, SourceError>) -> String {
    let failure = Failure::from(&result.err().expect("bad input is refused"));
    assert_eq!(failure.kind, Kind::Input, "{}", failure.text);
    failure.text
}

fn pixels(n: usize) -> Vec<u16> {
    (0..n as u32).map(|v| (v * 7 % 1000) as u16).collect()
}

fn put<T: hdf5::H5Type>(file: &File, key: &str, shape: &[usize], items: &[T]) {
    file.new_dataset::<T>().shape(shape).create(key).unwrap().write_raw(items).unwrap();
}

/// Six frames of 4 × 5 with positions, and whatever `more` adds.
fn scan(more: impl FnOnce(&File)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("in.h5")).unwrap();
    put(&file, "data", &[6, 4, 5], &pixels(120));
    put(&file, "y", &[6], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    put(&file, "x", &[6], &[0.5, 1.5, 2.5, 3.5, 4.5, 5.5]);
    more(&file);
    file.close().unwrap();
    dir
}

fn frame(k: usize) -> Array {
    Array::from_items(&[20], &pixels(120)[20 * k..20 * k + 20])
}

fn load_one(source: &mut dyn Source, k: usize) -> (Encoding, bytes::Bytes) {
    let loaded = source.load(&[Index(k as u64)]).unwrap().remove(0);
    assert_eq!(loaded.index, Index(k as u64));
    (loaded.frame.encoding, loaded.frame.payload)
}

#[test]
fn contiguous_frames_read_from_the_file() {
    let dir = scan(|_| ());
    let mut source = open(dir.path(), &[]).unwrap();
    let form = source.frame_form().unwrap();
    assert_eq!((form.dtype, form.shape), (Dtype::U16, [4, 5]));
    assert_eq!(source.num_frames().unwrap(), Some(6));
    assert_eq!(source.check(4, 4, None).unwrap().accessible, 2);
    for k in [5, 0, 3] {
        assert_eq!(load_one(&mut *source, k), (Encoding::Raw, frame(k).data));
    }
    let weight = source.load_weight().unwrap().unwrap();
    assert_eq!(weight, Array::from_items(&[4, 5], &[1i64; 20]), "int64 ones without a mask");
    let text = input_error(source.load(&[Index(6)]));
    assert!(
        text.contains("frame 6") && text.contains("holds only 6 frames; set data.num_frames=6"),
        "{text}"
    );
}

#[test]
fn chunks_of_one_frame_travel_as_they_are_stored() {
    let dir = scan(|f| {
        let new = || f.new_dataset::<u16>().shape((6, 4, 5)).chunk((1, 4, 5));
        new().shuffle().deflate(2).create("gzip").unwrap().write_raw(&pixels(120)).unwrap();
        new().create("none").unwrap().write_raw(&pixels(120)).unwrap();
        new().deflate(1).create("partly").unwrap();
        let block = ndarray::Array3::from_elem((1, 4, 5), 9u16);
        f.dataset("partly").unwrap().write_slice(&block, (2..3, .., ..)).unwrap();
    });
    let mut source = open(dir.path(), &[("intensities.key", text("gzip"))]).unwrap();
    let (encoding, payload) = load_one(&mut *source, 4);
    assert_eq!(encoding, Encoding::Filters(vec![Filter::Shuffle(2), Filter::Deflate(2)]));
    assert_ne!(payload, frame(4).data);
    let mut source = open(dir.path(), &[("intensities.key", text("none"))]).unwrap();
    assert_eq!(load_one(&mut *source, 4), (Encoding::Raw, frame(4).data));
    let mut source = open(dir.path(), &[("intensities.key", text("partly"))]).unwrap();
    assert_eq!(load_one(&mut *source, 2).0, Encoding::Filters(vec![Filter::Deflate(1)]));
    assert_eq!(load_one(&mut *source, 1), (Encoding::Raw, vec![0; 40].into()), "never written");
}

#[test]
fn other_chunks_are_decoded_by_the_library() {
    let dir = scan(|f| {
        for (key, chunk) in [("several", (4, 4, 5)), ("cut", (1, 2, 3)), ("both", (2, 3, 5))] {
            let d = f
                .new_dataset::<u16>()
                .shape((6, 4, 5))
                .chunk(chunk)
                .deflate(1)
                .create(key)
                .unwrap();
            d.write_raw(&pixels(120)).unwrap();
        }
        let raster = f
            .new_dataset::<u16>()
            .shape((2, 3, 4, 5))
            .chunk((2, 2, 4, 5))
            .create("raster")
            .unwrap();
        raster.write_raw(&pixels(120)).unwrap();
    });
    for key in ["several", "cut", "both", "raster"] {
        let mut source = open(dir.path(), &[("intensities.key", text(key))]).unwrap();
        for k in [0, 1, 5, 4, 3, 2] {
            assert_eq!(load_one(&mut *source, k), (Encoding::Raw, frame(k).data), "{key} {k}");
        }
    }
}

#[test]
fn positions_of_every_shape_follow_the_frames() {
    let ys = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0];
    let xs = [5.0, 6.0, 7.0, 5.0, 6.0, 7.0];
    let want: Vec<f64> = ys.iter().zip(xs).flat_map(|(y, x)| [y * 2.0, x * 3.0]).collect();
    let dir = scan(|f| {
        put(f, "raster", &[2, 3, 4, 5], &pixels(120));
        put(f, "y1", &[2], &[0.0, 1.0]);
        put(f, "x1", &[3], &[5i16, 6, 7]);
        put(f, "y2", &[2, 3], &ys);
        put(f, "x2", &[2, 3], &xs);
        put(f, "y3", &[6], &ys);
        put(f, "x3", &[1, 6, 1], &xs);
        let all: Vec<f64> = xs.iter().zip(ys).flat_map(|(&x, y)| [x, y, -1.0]).collect();
        put(f, "xyz", &[6, 3], &all);
    });
    for (data, y, x, index) in [
        ("data", "y1", "x1", false),
        ("data", "y2", "x2", false),
        ("data", "y3", "y3", false),
        ("data", "xyz", "xyz", true),
        ("raster", "y1", "x1", false),
        ("raster", "y2", "x2", false),
        ("raster", "xyz", "xyz", true),
    ] {
        let mut keys = vec![
            ("intensities.key", text(data)),
            ("positions.slow_key", text(y)),
            ("positions.fast_key", text(x)),
            ("positions.slow_multiplier", Value::Float(2.0)),
            ("positions.fast_multiplier", Value::Float(3.0)),
        ];
        if index {
            keys.extend([
                ("positions.slow_index", Value::Int(1)),
                ("positions.fast_index", Value::Int(0)),
            ]);
        }
        let positions = open(dir.path(), &keys).unwrap().load_positions().unwrap().unwrap();
        assert_eq!((positions.dtype, &positions.shape[..]), (Dtype::F64, &[6, 2][..]));
        if (y, x) == ("y3", "y3") {
            let same: Vec<f64> = ys.iter().flat_map(|v| [v * 2.0, v * 3.0]).collect();
            assert_eq!(positions.to_f64(), same);
        } else {
            assert_eq!(positions.to_f64(), want, "{data} {y} {x}");
        }
    }
    let error = open(
        dir.path(),
        &[("positions.slow_key", text("xyz")), ("positions.slow_index", Value::Int(3))],
    )
    .unwrap()
    .load_positions()
    .unwrap_err();
    assert_eq!(Failure::from(&error).kind, Kind::Config);
    assert!(error.to_string().contains("positions.slow_index: 3 is no column of 'xyz'"), "{error}");
}

#[test]
fn single_precision_positions_stay_single() {
    let dir = scan(|f| {
        put(f, "ys", &[6], &[0.1f32; 6]);
        put(f, "xs", &[6], &[0.7f32; 6]);
    });
    let micro = Value::Float(1e-6);
    let keys = [
        ("positions.slow_key", text("ys")),
        ("positions.fast_key", text("xs")),
        ("positions.slow_multiplier", micro.clone()),
        ("positions.fast_multiplier", micro),
    ];
    let positions = open(dir.path(), &keys).unwrap().load_positions().unwrap().unwrap();
    assert_eq!(positions, Array::from_items(&[6, 2], &[0.1f32 * 1e-6, 0.7 * 1e-6].repeat(6)));
    let mixed = open(dir.path(), &[("positions.slow_key", text("ys"))]).unwrap().load_positions();
    assert_eq!(mixed.unwrap().unwrap().dtype, Dtype::F64);
}

#[test]
fn positions_and_frames_that_do_not_fit_say_both_numbers() {
    let dir = scan(|f| {
        put(f, "y9", &[9], &[0.0; 9]);
        put(f, "x9", &[9], &[0.0; 9]);
        put(f, "y4", &[4], &[0.0; 4]);
        put(f, "ynan", &[6], &[0.0, 1.0, f64::NAN, 3.0, 4.0, 5.0]);
    });
    let long = [("positions.slow_key", text("y9")), ("positions.fast_key", text("x9"))];
    let text_of = |keys: Keys| input_error(open(dir.path(), keys).unwrap().load_positions());
    let error = text_of(&long);
    assert!(
        error.contains("are 9 points, but 'data' of '") && error.contains("holds 6 frames"),
        "{error}"
    );
    assert!(error.contains("data.num_frames=6"), "{error}");
    let cured = [&long[..], &[("num_frames", Value::Int(6))]].concat();
    let positions = open(dir.path(), &cured).unwrap().load_positions().unwrap().unwrap();
    assert_eq!(positions.shape, [6, 2]);
    let short = [("positions.slow_key", text("y4")), ("positions.fast_key", text("y4"))];
    let error = text_of(&short);
    assert!(error.contains("are 4 points") && error.contains("data.num_frames=4"), "{error}");
    let error = text_of(&[("positions.slow_key", text("y4"))]);
    assert!(
        error.contains("shapes [4] and [6]") && error.contains("do not fit the 6 frames"),
        "{error}"
    );

    let nan = [("positions.slow_key", text("ynan"))];
    let error = text_of(&nan);
    assert!(error.contains("position 2 in 'ynan' of '") && error.contains("is NaN"), "{error}");
    let two = [&nan[..], &[("num_frames", Value::Int(2))]].concat();
    assert!(open(dir.path(), &two).unwrap().load_positions().is_ok());
}

#[test]
fn masks_become_weights_of_their_own_type() {
    let dir = scan(|f| {
        let mut bits = [0u32; 20];
        bits[3] = 1;
        bits[7] = 0x200;
        put(f, "cxi", &[4, 5], &bits);
        put(f, "flags", &[4, 5], &[true; 20]);
        put(f, "real", &[1, 4, 5], &[0.25f64; 20]);
        put(f, "own", &[6, 4, 5], &(0..120).map(|i| (i % 3 > 0) as u8).collect::<Vec<_>>());
        put(f, "odd", &[5, 4], &[1u8; 20]);
    });
    let weight = |key: &str, invert: bool| {
        let keys = [("mask.key", text(key)), ("mask.invert", Value::Bool(invert))];
        let mut source = open(dir.path(), &keys).unwrap();
        (source.load_weight().unwrap(), source.warnings())
    };
    let (cxi, notes) = weight("cxi", true);
    let mut good = [1u32; 20];
    (good[3], good[7]) = (0, 0);
    assert_eq!(cxi.unwrap(), Array::from_items(&[4, 5], &good), "bits above 1 stay bad");
    assert!(notes[0].contains("values above 1"), "{notes:?}");
    let (upside_down, notes) = weight("cxi", false);
    assert_eq!(upside_down.unwrap().dtype, Dtype::U32);
    assert!(notes[0].contains("leaves 2 of 20 pixels; is data.mask.invert right?"), "{notes:?}");
    assert_eq!(weight("flags", false).0.unwrap().dtype, Dtype::Bool);
    assert_eq!(weight("flags", true).0.unwrap(), Array::from_items(&[4, 5], &[0i64; 20]));
    assert_eq!(weight("real", true).0.unwrap(), Array::from_items(&[4, 5], &[0.75f64; 20]));

    let keys = [("mask.key", text("own"))];
    let mut source = open(dir.path(), &keys).unwrap();
    assert_eq!(source.load_weight().unwrap(), None);
    let loaded = source.load(&[Index(2)]).unwrap().remove(0);
    let own: Vec<u8> = (40..60).map(|i| (i % 3 > 0) as u8).collect();
    assert_eq!(loaded.weights.unwrap(), Array::from_items(&[4, 5], &own));
    let error = input_error(open(dir.path(), &[("mask.key", text("odd"))]));
    assert!(
        error.contains("'odd' in '")
            && error.contains("[5, 4]; the frame's [4, 5] or all frames' [6, 4, 5]"),
        "{error}"
    );
}

#[test]
fn dark_and_flat_are_read_and_must_fit() {
    let dir = scan(|f| {
        put(f, "dark", &[1, 4, 5], &[3u16; 20]);
        put(f, "flat", &[4, 5], &[1.5f32; 20]);
        put(f, "long", &[6, 4, 5], &[1.5f32; 120]);
    });
    let keys = [("darkfield.key", text("dark")), ("flatfield.key", text("flat"))];
    let common = open(dir.path(), &keys).unwrap().load_common().unwrap();
    assert_eq!(common.dark.unwrap(), Array::from_items(&[4, 5], &[3u16; 20]));
    assert_eq!(common.flat.unwrap(), Array::from_items(&[4, 5], &[1.5f32; 20]));
    let error =
        input_error(open(dir.path(), &[("flatfield.key", text("long"))]).unwrap().load_common());
    assert!(
        error.contains("data.flatfield.key: 'long'")
            && error.contains("the frame's [4, 5] is needed"),
        "{error}"
    );
}

#[test]
fn recorded_geometry_is_scaled_in_the_type_of_its_dataset() {
    let dir = scan(|f| {
        put(f, "ev", &[1], &[8500.0f32]);
        put(f, "mm", &[], &[1120.0f32]);
        put(f, "um", &[2], &[55.0, 75.0]);
        put(f, "many", &[3], &[1.0; 3]);
    });
    let keys = [
        ("recorded_energy.key", text("ev")),
        ("recorded_energy.multiplier", Value::Float(1e-3)),
        ("recorded_energy.offset", Value::Float(0.25)),
        ("recorded_distance.key", text("mm")),
        ("recorded_distance.multiplier", Value::Float(1e-3)),
        ("recorded_psize.key", text("um")),
        ("recorded_psize.multiplier", Value::Float(1e-6)),
    ];
    let mut source = open(dir.path(), &keys).unwrap();
    let recorded = source.recorded().unwrap();
    let (energy, origin) = recorded.energy.unwrap();
    assert_eq!(energy, 8500.0 * 1e-3 + 0.25);
    assert!(origin.starts_with("'ev' in '"), "{origin}");
    assert_eq!(recorded.distance.unwrap().0, f64::from(1120.0f32 * 1e-3f32));
    assert_eq!(recorded.psize.unwrap().0, [55.0 * 1e-6, 75.0 * 1e-6]);
    assert!(source.warnings().is_empty());

    let mut source = open(dir.path(), &[("recorded_energy.key", text("ev"))]).unwrap();
    source.recorded().unwrap();
    assert!(source.warnings()[0].contains("energy of 8.5e3 keV"));
    let error = input_error(
        open(dir.path(), &[("recorded_distance.key", text("many"))]).unwrap().recorded(),
    );
    assert!(
        error.contains("'many' in '") && error.contains("shape [3]; one value is needed"),
        "{error}"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let dir = scan(|f| {
        put(f, "flat_frame", &[4, 5], &[0u16; 20]);
        put(f, "wide", &[2, 4, 5], &[0u64; 40]);
        put(f, "flags", &[6, 4, 5], &[true; 120]);
        put(f, "empty", &[0, 4, 5], &[] as &[u16]);
    });
    for (key, value, words) in [
        ("intensities.file", "gone.h5", "data.intensities.file: '{}/gone.h5' is missing"),
        (
            "intensities.key",
            "dat",
            "data.intensities.key: no dataset 'dat' in '{}/in.h5'; there is 'data'",
        ),
        ("intensities.key", "flat_frame", "has rank 2 (shape [4, 5]); frames are 3-D"),
        ("intensities.key", "wide", "'wide' in '{}/in.h5' holds items of type uint64"),
        ("intensities.key", "flags", "'flags' in '{}/in.h5' holds bool"),
        ("intensities.key", "empty", "is empty (shape [0, 4, 5])"),
    ] {
        let error = input_error(open(dir.path(), &[(key, text(value))]));
        let words = words.replace("{}", &dir.path().display().to_string());
        assert!(error.contains(&words), "{error}");
    }
    std::fs::write(dir.path().join("text.h5"), "frames").unwrap();
    let error = input_error(open(dir.path(), &[("intensities.file", text("text.h5"))]));
    assert!(error.ends_with("text.h5' is not an HDF5 file"), "{error}");
    let error = input_error(
        open(dir.path(), &[("positions.fast_key", text("z"))]).unwrap().load_positions(),
    );
    assert!(error.contains("data.positions.fast_key: no dataset 'z'"), "{error}");

    for (key, words) in [
        ("positions.slow_key", "data.positions.slow_key: is needed"),
        ("positions.fast_key", "data.positions.fast_key: is needed"),
    ] {
        let error = open(dir.path(), &[(key, Value::None)]).unwrap().load_positions().unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
    }
    let error = open(dir.path(), &[("mask.file", text("in.h5"))]).err().unwrap().to_string();
    assert!(error.starts_with("data.mask.key: is needed with data.mask.file"), "{error}");
    let theory = [
        ("positions.slow_key", Value::None),
        ("positions.fast_key", Value::None),
        ("positions_theory", Value::List(vec![])),
    ];
    assert_eq!(open(dir.path(), &theory).unwrap().load_positions().unwrap(), None);
}

#[test]
fn a_virtual_dataset_without_its_source_is_refused() {
    let dir = scan(|f| {
        let builder = f.new_dataset::<u16>().shape((6, 4, 5));
        builder
            .virtual_map("frames.h5", "data", (6, 4, 5), .., (6, 4, 5), ..)
            .create("all")
            .unwrap();
    });
    let keys = [("intensities.key", text("all"))];
    let error = input_error(open(dir.path(), &keys));
    assert!(
        error.contains("the file 'frames.h5', which is missing: it would read as zeros"),
        "{error}"
    );
    let source = File::create(dir.path().join("frames.h5")).unwrap();
    put(&source, "data", &[6, 4, 5], &pixels(120));
    source.close().unwrap();
    let mut source = open(dir.path(), &keys).unwrap();
    assert_eq!(load_one(&mut *source, 2), (Encoding::Raw, frame(2).data));
    let identity = source.identity().unwrap();
    assert!(identity.iter().any(|(name, _)| name.ends_with("frames.h5")), "{identity:?}");
}

#[test]
fn identity_holds_files_and_shapes() {
    let dir = scan(|_| ());
    let one = open(dir.path(), &[]).unwrap().identity().unwrap();
    assert_eq!(one, open(dir.path(), &[]).unwrap().identity().unwrap());
    assert_eq!(one[0], ("frames".into(), "uint16 [6, 4, 5]".into()));
    let path = dir.path().join("in.h5");
    std::fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let two = open(dir.path(), &[]).unwrap().identity().unwrap();
    let changed: Vec<_> = one.iter().zip(&two).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0.0, path.display().to_string());
}

/// The real scan of `../shared/real`, by the keys that its ptypy parameter file has.
fn petra() -> Option<PathBuf> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/real"));
    if folder.is_dir() {
        return Some(folder.to_owned());
    }
    println!("skipped: ../shared is absent");
    None
}

#[test]
fn the_petra_scan_reads_whole() {
    let Some(folder) = petra() else { return };
    let translation = "entry_1/sample_1/geometry_1/translation";
    let detector = |key: &str| text(&format!("entry_1/instrument_1/detector_1/{key}"));
    let keys = [
        ("intensities.file", text("PETRAIII_P25_Near_Field_Ptycho.cxi")),
        ("intensities.key", text("entry_1/data_1/data")),
        ("positions.slow_key", text(translation)),
        ("positions.slow_index", Value::Int(1)),
        ("positions.fast_key", text(translation)),
        ("positions.fast_index", Value::Int(0)),
        ("mask.key", detector("mask")),
        ("mask.invert", Value::Bool(true)),
        ("recorded_energy.key", text("entry_1/instrument_1/source_1/energy")),
        ("recorded_energy.multiplier", Value::Float(6241509074460763.0)),
        ("recorded_distance.key", detector("distance")),
        ("recorded_psize.key", detector("x_pixel_size")),
    ];
    let mut source = open(&folder, &keys).unwrap();
    let form = source.frame_form().unwrap();
    assert_eq!((form.dtype, form.shape), (Dtype::I32, [100, 100]));
    let indices: Vec<Index> = (0..200).map(Index).collect();
    let mut sum = 0i64;
    for loaded in source.load(&indices).unwrap() {
        assert_eq!(loaded.frame.encoding, Encoding::Raw);
        let chunks = loaded.frame.payload.chunks_exact(4);
        sum += chunks.map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]]))).sum::<i64>();
    }
    assert_eq!(sum, 1_933_520_759);
    let positions = source.load_positions().unwrap().unwrap();
    assert_eq!((positions.dtype, &positions.shape[..]), (Dtype::F32, &[200, 2][..]));
    let weight = source.load_weight().unwrap().unwrap();
    assert_eq!(weight.dtype, Dtype::U32);
    assert_eq!(weight.to_f64().iter().sum::<f64>(), 9995.0);
    let recorded = source.recorded().unwrap();
    assert_eq!(recorded.energy.unwrap().0, 12.658020650393528);
    assert_eq!(recorded.distance.unwrap().0, 1.1200000047683716);
    assert_eq!(recorded.psize.unwrap().0, [5.500000042957254e-05; 2]);

    let made = File::open(folder.join("petra_p25_full.ptyd")).unwrap();
    for chunk in 0..5 {
        let stored = made.dataset(&format!("chunks/{chunk}/positions")).unwrap();
        let stored: Vec<f32> = stored.read_raw().unwrap();
        assert_eq!(
            Array::from_items(&[80], &stored).data,
            positions.data.slice(chunk * 320..(chunk + 1) * 320)
        );
    }
    let stored: Vec<u32> = made.dataset("chunks/0/weights").unwrap().read_raw().unwrap();
    assert_eq!(Array::from_items(&[100, 100], &stored[..10_000]), weight);
}
