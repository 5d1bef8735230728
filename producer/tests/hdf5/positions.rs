//! Positions of every shape, and those that do not fit.

use super::*;

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
