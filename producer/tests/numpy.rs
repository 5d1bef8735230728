//! The tutorial layout, as a new user would get it wrong.
#![allow(clippy::unwrap_used)]

use npyz::WriterBuilder;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::{Array, Region};
use ptystream_common::index::Index;
use ptystream_common::source::{Source, SourceError, SourceSpec};
use ptystream_common::value::Value;
use ptystream_producer::source::builtin;
use std::path::Path;

fn spec(folder: &Path, keys: &[(&str, Value)]) -> SourceSpec {
    let mut data = Value::Map(Vec::new());
    data.set_at("path", Value::Str(folder.display().to_string()));
    for (key, value) in keys {
        data.set_at(key, value.clone());
    }
    SourceSpec {
        name: "NumpyScan".into(),
        data,
        base: "/".into(),
        given: vec![],
        shutdown: Default::default(),
    }
}

fn open(folder: &Path, keys: &[(&str, Value)]) -> Result<Box<dyn Source>, SourceError> {
    builtin().open(&spec(folder, keys))
}

fn save<T: npyz::Serialize + npyz::AutoSerialize>(path: &Path, shape: &[u64], items: Vec<T>) {
    let mut out = Vec::new();
    let mut writer =
        npyz::WriteOptions::new().default_dtype().shape(shape).writer(&mut out).begin_nd().unwrap();
    writer.extend(items).unwrap();
    writer.finish().unwrap();
    std::fs::write(path, out).unwrap();
}

fn pixels(i: u16) -> Vec<u16> {
    (0..12).map(|k| 100 * i + k).collect()
}

/// Five frames of 3 × 4.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("ccd")).unwrap();
    let mut lines = String::from("# file y x\n");
    for i in 0..5u16 {
        // The names run against the numbers: the name in the line counts.
        let name = format!("ccd/diffraction_{:04}.npy", 9 - i);
        save(&dir.path().join(&name), &[3, 4], pixels(i));
        lines += &format!("{name} {i}e-6 -{i}.5e-6\n");
    }
    std::fs::write(dir.path().join("positions.txt"), lines).unwrap();
    std::fs::write(
        dir.path().join("geometry.txt"),
        "distance 7.0\nenergy 8.5\npsize 5.5e-05\nshape 4\n",
    )
    .unwrap();
    dir
}

fn put(dir: &tempfile::TempDir, file: &str, text: &str) {
    std::fs::write(dir.path().join(file), text).unwrap();
}

fn input_error(result: Result<impl Sized, SourceError>) -> String {
    let failure = Failure::from(&result.err().expect("bad input is refused"));
    assert_eq!(failure.kind, Kind::Input, "{}", failure.text);
    failure.text
}

#[test]
fn a_folder_reads_whole() {
    let dir = folder();
    let mut source = open(dir.path(), &[]).unwrap();
    let positions = source.load_positions().unwrap().unwrap();
    let want: Vec<f64> =
        vec![0.0, -0.5e-6, 1e-6, -1.5e-6, 2e-6, -2.5e-6, 3e-6, -3.5e-6, 4e-6, -4.5e-6];
    assert_eq!(positions, Array::from_items(&[5, 2], &want));
    assert_eq!(source.num_frames().unwrap(), Some(5));
    let form = source.frame_form().unwrap();
    assert_eq!((form.dtype, form.shape), (Dtype::U16, [3, 4]));
    assert_eq!(source.check(10, 3, None).unwrap().accessible, 2);
    let loaded = source.load(&[Index(4), Index(1)]).unwrap();
    for (frame, i) in loaded.iter().zip([4, 1]) {
        assert_eq!(frame.index, Index(i));
        assert_eq!(frame.frame.encoding, Encoding::Raw);
        assert_eq!(frame.frame.payload, Array::from_items(&[12], &pixels(i as u16)).data);
    }
    let recorded = source.recorded().unwrap();
    assert_eq!(recorded.energy.unwrap().0, 8.5);
    assert_eq!(recorded.distance.unwrap().0, 7.0);
    let (psize, origin) = recorded.psize.unwrap();
    assert_eq!(psize, [5.5e-5; 2]);
    assert!(origin.ends_with("geometry.txt:3"), "{origin}");
    let warnings = source.warnings();
    assert!(
        warnings.iter().any(|w| w.contains("shape [4, 4], the frames have [3, 4]")),
        "{warnings:?}"
    );
}

#[test]
fn dark_and_flat_come_from_files() {
    let dir = folder();
    for (name, value) in [("dark", 2u8), ("flat", 3)] {
        save(&dir.path().join(format!("{name}.npy")), &[3, 4], vec![value; 12]);
    }
    save(&dir.path().join("small.npy"), &[3, 3], vec![0u8; 9]);
    let path = |name: &str| Value::Str(dir.path().join(name).display().to_string());
    let keys = [("dark", path("dark.npy")), ("flat", path("flat.npy"))];
    let mut source = open(dir.path(), &keys).unwrap();
    let common = source.load_common().unwrap();
    assert_eq!(common.dark.unwrap(), Array::from_items(&[3, 4], &[2u8; 12]));
    assert_eq!(common.flat.unwrap(), Array::from_items(&[3, 4], &[3u8; 12]));

    let text = input_error(open(dir.path(), &[("flat", path("small.npy"))]).unwrap().load_common());
    assert!(text.contains("data.flat: "), "{text}");
    assert!(text.contains("small.npy' has shape [3, 3], the frames have [3, 4]"), "{text}");
    let text = input_error(open(dir.path(), &[("dark", path("gone.npy"))]).unwrap().load_common());
    assert!(text.contains("data.dark") && text.contains("gone.npy"), "{text}");
}

#[test]
fn positions_that_are_not_understood_name_file_and_line() {
    let dir = folder();
    for (line, words) in [
        ("ccd/diffraction_0009.npy 1e-6 left", "positions.txt:2': x 'left' is not a number"),
        ("ccd/diffraction_0009.npy nan 1e-6", "positions.txt:2': y 'nan' is not finite"),
        ("ccd/diffraction_0009.npy 0 inf", "positions.txt:2': x 'inf' is not finite"),
        ("ccd/diffraction_0009.npy 1e-6", "positions.txt:2': 2 columns where `file y x`"),
        ("1 2 3 4", "positions.txt:2': 4 columns"),
    ] {
        put(&dir, "positions.txt", &format!("# file y x\n{line}\n"));
        let text = input_error(open(dir.path(), &[]));
        assert!(text.contains(words), "{text}");
    }
    put(&dir, "positions.txt", "\n");
    assert!(input_error(open(dir.path(), &[])).contains("nothing to prepare"));
    std::fs::remove_file(dir.path().join("positions.txt")).unwrap();
    assert!(input_error(open(dir.path(), &[])).contains("positions.txt' is missing"));
}

#[test]
fn too_few_lines_and_missing_frames_are_told_before_the_first_frame() {
    let dir = folder();
    let text =
        input_error(open(dir.path(), &[("num_frames", Value::Int(8))]).unwrap().load_positions());
    assert!(text.contains("5 scan points, but data.num_frames asks for 8"), "{text}");
    assert!(text.contains("data.num_frames=5"), "{text}");

    std::fs::remove_file(dir.path().join("ccd/diffraction_0006.npy")).unwrap();
    let text = input_error(open(dir.path(), &[]).unwrap().load_positions());
    assert!(
        text.contains("positions.txt:5': the frame 'ccd/diffraction_0006.npy' is missing (1 of 5"),
        "{text}"
    );
    let three = open(dir.path(), &[("num_frames", Value::Int(3))]).unwrap().load_positions();
    assert!(three.is_ok(), "the frames that are asked for are there");
    let text = input_error(open(dir.path(), &[]).unwrap().load(&[Index(3)]));
    assert!(text.contains("frame 3") && text.contains("0006.npy' is missing (line 5 of"), "{text}");

    put(&dir, "positions.txt", "ccd/diffraction_0009.npy 0 0\n");
    let mut source = open(dir.path(), &[]).unwrap();
    source.load_positions().unwrap();
    let warnings = source.warnings();
    assert!(
        warnings[0].contains("holds 3 .npy files that positions.txt does not name"),
        "{warnings:?}"
    );
}

#[test]
fn a_damaged_frame_names_file_and_index_and_spares_the_others() {
    let dir = folder();
    let path = dir.path().join("ccd/diffraction_0007.npy");
    let whole = std::fs::read(&path).unwrap();
    let object =
        b"\x93NUMPY\x01\x00\x39\x00{'descr': '|O', 'fortran_order': False, 'shape': (2,), } \n..";
    let damages: [(&str, &dyn Fn()); 5] = [
        ("truncated", &|| std::fs::write(&path, &whole[..whole.len() - 3]).unwrap()),
        ("pickled Python objects", &|| std::fs::write(&path, object).unwrap()),
        ("not a .npy file", &|| std::fs::write(&path, b"").unwrap()),
        ("uint16 [4, 3], but the scan's first frame is uint16 [3, 4]", &|| {
            save(&path, &[4, 3], pixels(2))
        }),
        ("float32 [3, 4], but the scan's first frame is uint16 [3, 4]", &|| {
            save(&path, &[3, 4], vec![0f32; 12])
        }),
    ];
    for (words, damage) in damages {
        damage();
        let mut source = open(dir.path(), &[]).unwrap();
        source.load_positions().unwrap();
        assert_eq!(source.load(&[Index(0), Index(1), Index(3)]).unwrap().len(), 3);
        let error = source.load(&[Index(2)]).unwrap_err();
        assert!(matches!(error, SourceError::Frame { index: Index(2), .. }), "{error}");
        let text = input_error(Err::<(), _>(error));
        assert!(text.contains("diffraction_0007.npy") && text.contains(words), "{text}");
    }
}

#[test]
fn a_first_frame_that_is_none_ends_the_scan() {
    let dir = folder();
    let path = dir.path().join("ccd/diffraction_0009.npy");
    save(&path, &[2, 3, 4], vec![0u16; 24]);
    let text = input_error(open(dir.path(), &[]).unwrap().frame_form());
    assert!(text.contains("0009.npy' is uint16 [2, 3, 4]; a frame is a 2-D array"), "{text}");
}

#[test]
fn identity_changes_with_a_frame_and_geometry_faults_name_the_line() {
    let dir = folder();
    let one = open(dir.path(), &[]).unwrap().identity().unwrap();
    assert_eq!(one, open(dir.path(), &[]).unwrap().identity().unwrap());
    let path = dir.path().join("ccd/diffraction_0008.npy");
    std::fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let two = open(dir.path(), &[]).unwrap().identity().unwrap();
    let changed: Vec<_> = one.iter().zip(&two).filter(|(a, b)| a != b).collect();
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].0.0, "ccd/diffraction_0008.npy");

    put(&dir, "geometry.txt", "energy 8.5\ndistance far\n");
    let text = input_error(open(dir.path(), &[]).unwrap().recorded());
    assert!(text.contains("geometry.txt:2': distance 'far' is not a number"), "{text}");
    put(&dir, "geometry.txt", "energy -1\n");
    let text = input_error(open(dir.path(), &[]).unwrap().recorded());
    assert!(text.contains("geometry.txt:1'"), "{text}");
}

#[test]
fn the_folder_is_asked_for_by_its_parameter() {
    let spec = SourceSpec {
        name: "numpy".into(),
        data: Value::Map(vec![]),
        base: "/".into(),
        given: vec![],
        shutdown: Default::default(),
    };
    let failure = Failure::from(&builtin().open(&spec).err().unwrap());
    assert_eq!(failure.kind, Kind::Config);
    assert!(failure.text.starts_with("data.path: is needed"), "{}", failure.text);
}

#[test]
fn no_more_rows_are_read_than_are_needed() {
    let dir = folder();
    let mut source = open(dir.path(), &[]).unwrap();
    let needed = Region { first: [1, 2], shape: [2, 1] };
    source.frame_form().unwrap();
    source.narrow(needed);
    for k in 0..5 {
        let frame = source.load(&[Index(k)]).unwrap().remove(0).frame;
        assert_eq!(frame.region, needed.full_rows(4));
        assert_eq!(frame.payload, Array::from_items(&[8], &pixels(k as u16)[4..]).data);
    }
    // One that differs is not taken for rows of another.
    save(&dir.path().join("ccd/diffraction_0007.npy"), &[2, 4], vec![0u16; 8]);
    for _ in 0..2 {
        let text = Failure::from(&source.load(&[Index(2)]).unwrap_err()).text;
        assert!(
            text.contains("uint16 [2, 4], but the scan's first frame is uint16 [3, 4]"),
            "{text}"
        );
    }
    let file = dir.path().join("ccd/diffraction_0006.npy");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let text = Failure::from(&source.load(&[Index(3)]).unwrap_err()).text;
    assert!(text.contains("diffraction_0006.npy' is truncated"), "{text}");
    assert_eq!(source.load(&[Index(4)]).unwrap().len(), 1);
}
