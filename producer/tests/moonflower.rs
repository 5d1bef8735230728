//! The simulated scan: the same bytes whoever asks, in whatever order.
#![allow(clippy::unwrap_used)]

use ptystream_common::dtype::Dtype;
use ptystream_common::index::Index;
use ptystream_common::source::{Source, SourceError, SourceSpec};
use ptystream_common::value::Value;
use ptystream_producer::source::builtin;

fn open(keys: &[(&str, Value)]) -> Result<Box<dyn Source>, SourceError> {
    let mut data = Value::Map(Vec::new());
    for (key, value) in [("num_frames", Value::Int(20)), ("shape", Value::Int(32))] {
        data.set_at(key, value);
    }
    for (key, value) in keys {
        data.set_at(key, value.clone());
    }
    builtin().open(&SourceSpec {
        name: "MoonFlowerScan".into(),
        data,
        base: "/".into(),
        given: vec![],
        shutdown: Default::default(),
    })
}

fn frames(source: &mut dyn Source, indices: &[u64]) -> Vec<bytes::Bytes> {
    let indices: Vec<Index> = indices.iter().copied().map(Index).collect();
    source.load(&indices).unwrap().into_iter().map(|l| l.frame.payload).collect()
}

#[test]
fn a_frame_depends_on_parameters_and_index_alone() {
    let forward = frames(&mut *open(&[]).unwrap(), &[0, 1, 2, 3]);
    let mut backward = frames(&mut *open(&[]).unwrap(), &[3, 2, 1, 0]);
    backward.reverse();
    assert_eq!(forward, backward);
    assert_ne!(forward[0], forward[1]);
    assert_ne!(forward, frames(&mut *open(&[("seed", Value::Int(1))]).unwrap(), &[0, 1, 2, 3]));
    let quiet = [("add_poisson_noise", Value::Bool(false))];
    assert_ne!(forward, frames(&mut *open(&quiet).unwrap(), &[0, 1, 2, 3]));
}

#[test]
fn repeated_frames_are_one_buffer_and_positions_go_on() {
    let mut source = open(&[("repeat", Value::Int(3)), ("raw_shape", Value::Int(40))]).unwrap();
    let got = frames(&mut *source, &[1, 4, 7, 2]);
    assert_eq!(got[0].as_ptr(), got[1].as_ptr(), "no copy");
    assert_eq!(got[0], got[2]);
    assert_ne!(got[0], got[3]);
    assert_eq!(got[0].len(), 40 * 40 * 4);
    let all = frames(&mut *open(&[("raw_shape", Value::Int(40))]).unwrap(), &[1]);
    assert_eq!(got[0], all[0], "as without repeating");
    let positions = source.load_positions().unwrap().unwrap();
    assert_eq!(positions.shape, [20, 2]);
    let places = positions.to_f64();
    assert_ne!(places[2..4], places[8..10]);
}

#[test]
fn neighbouring_frames_overlap() {
    for model in ["round", "raster"] {
        let mut source = open(&[("model", Value::Str(model.into()))]).unwrap();
        let places = source.load_positions().unwrap().unwrap().to_f64();
        // 12398.4 / 7.2 eV·Å·keV gives 1.722 Å; probe = 0.35 of the field of view.
        let field = 1.722e-10 * 7.19 / 0.000172;
        let diameter = 0.35 * field;
        for (i, a) in places.chunks(2).enumerate() {
            let near = places.chunks(2).enumerate().filter(|(j, _)| *j != i);
            let near = near.map(|(_, b)| (a[0] - b[0]).hypot(a[1] - b[1])).fold(f64::MAX, f64::min);
            assert!(near > 0.1 * diameter && near < 0.3 * diameter, "{model} {i}: {near}");
        }
    }
}

#[test]
fn pixel_types_photons_and_geometry_are_as_asked_for() {
    let keys = [
        ("dtype", Value::Str("uint16".into())),
        ("photons", Value::Float(1e5)),
        ("psf", Value::Float(0.8)),
        ("shape", Value::List(vec![Value::Int(24), Value::Int(40)])),
        ("energy", Value::Float(9.0)),
    ];
    let mut source = open(&keys).unwrap();
    let form = source.frame_form().unwrap();
    assert_eq!((form.dtype, form.shape), (Dtype::U16, [24, 40]));
    let frame = &frames(&mut *source, &[5])[0];
    let sum: u64 = frame.chunks(2).map(|b| u64::from(u16::from_le_bytes([b[0], b[1]]))).sum();
    assert!((20_000..100_000).contains(&sum), "{sum} of 1e5 photons behind an absorbing object");
    assert_eq!(source.recorded().unwrap().energy.unwrap().0, 9.0);
    assert!(source.warnings().is_empty());

    let keys = [("dtype", Value::Str("uint8".into())), ("photons", Value::Float(1e8))];
    let mut source = open(&keys).unwrap();
    frames(&mut *source, &[0]);
    assert!(source.warnings()[0].contains("saturate; lower data.photons"));
}

#[test]
fn wrong_parameters_are_named() {
    for (key, value, words) in [
        ("model", Value::Str("spiral".into()), "data.model: 'spiral' is neither"),
        ("dtype", Value::Str("uint64".into()), "data.dtype: 'uint64' is no pixel type"),
        ("photons", Value::Float(-1.0), "data.photons: -1 is not above 0"),
        ("raw_shape", Value::Int(4), "data.raw_shape: 4×4 pixels"),
        ("density", Value::Str("dense".into()), "data.density: 'dense' is not a finite number"),
        ("seed", Value::Int(-3), "data.seed: -3 is not an integer of 0 or more"),
    ] {
        let text = open(&[(key, value)]).err().expect("refused").to_string();
        assert!(text.starts_with(words), "{text}");
    }
    let text = open(&[]).unwrap().load(&[Index(20)]).unwrap_err().to_string();
    assert!(text.contains("frame 20: the simulated scan has 20 frames"), "{text}");
}

#[test]
fn identity_follows_the_parameters() {
    let one = open(&[]).unwrap().identity().unwrap();
    assert_eq!(one, open(&[]).unwrap().identity().unwrap());
    for (key, value) in [
        ("seed", Value::Int(5)),
        ("density", Value::Float(0.3)),
        ("photons", Value::Float(3e6)),
        ("repeat", Value::Int(2)),
        ("num_frames", Value::Int(21)),
    ] {
        assert_ne!(one, open(&[(key, value)]).unwrap().identity().unwrap(), "{key}");
    }
}
