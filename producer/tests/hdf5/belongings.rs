//! Masks, dark and flat, recorded geometry.

use super::*;

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
        put(f, "long", &[5, 4, 5], &[1.5f32; 100]);
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
