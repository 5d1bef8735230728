//! A real scan, against what ptypy makes of it.

use super::*;
use std::path::PathBuf;

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
