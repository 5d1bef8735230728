//! Frames and positions out of HDF5 files, and what a new user would get wrong.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod belongings;
mod positions;
mod real;

use hdf5::File;
use ptystream_common::codec::{Encoding, Filter};
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::{Array, RawFrame, Region};
use ptystream_common::index::Index;
use ptystream_common::source::{Source, SourceError, SourceSpec};
use ptystream_common::value::Value;
use ptystream_producer::source::builtin;
use std::path::Path;

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
    builtin().open(&SourceSpec {
        name: "Hdf5Loader".into(),
        data,
        base: folder.to_owned(),
        given: vec![],
        shutdown: Default::default(),
    })
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
fn no_more_is_read_than_is_needed() {
    let more = |file: &File| {
        let new = || file.new_dataset::<u16>().shape((6, 4, 5));
        let parts = new().chunk((2, 2, 3)).create("parts").unwrap();
        parts.write_raw(&pixels(120)).unwrap();
        let whole = new().chunk((1, 4, 5)).deflate(1).create("whole").unwrap();
        whole.write_raw(&pixels(120)).unwrap();
        put(file, "grid", &[2, 3, 4, 5], &pixels(120));
    };
    let dir = scan(more);
    let needed = Region { first: [1, 2], shape: [2, 3] };
    for (key, there) in [
        ("data", needed.full_rows(5)),
        ("grid", needed.full_rows(5)),
        ("parts", needed),
        ("whole", Region::whole([4, 5])),
    ] {
        let mut source = open(dir.path(), &[("intensities.key", text(key))]).unwrap();
        source.narrow(needed);
        for k in [0, 5, 2, 3] {
            let frame = source.load(&[Index(k)]).unwrap().remove(0).frame;
            assert_eq!(frame.region, there, "{key}");
            if frame.encoding == Encoding::Raw {
                let got: Vec<u8> = frame.rows_of(needed).unwrap().flatten().copied().collect();
                let whole = RawFrame::new(frame.form, Encoding::Raw, self::frame(k as usize).data);
                let want: Vec<u8> = whole.rows_of(needed).unwrap().flatten().copied().collect();
                assert_eq!(got, want, "{key}, frame {k}");
            }
        }
        source.narrow(Region { first: [4, 0], shape: [0, 5] });
        assert_eq!(source.load(&[Index(1)]).unwrap().len(), 1, "{key}");
    }
}

#[test]
fn a_padded_frame_is_read_whole() {
    let dir = scan(|_| ());
    let padding = Value::List(vec![Value::Int(1); 4]);
    let mut source = open(dir.path(), &[("padding", padding)]).unwrap();
    let whole = source.load(&[Index(2)]).unwrap().remove(0).frame;
    source.narrow(Region { first: [2, 2], shape: [1, 1] });
    let frame = source.load(&[Index(2)]).unwrap().remove(0).frame;
    assert_eq!((frame.form.shape, &frame), ([6, 7], &whole));
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
