//! `init` looks, and what it writes runs without editing.

mod support;

use ptystream_common::h5::{raw, write};
use ptystream_common::ptyd::read::PtydFile;
use std::path::Path;
use support::Desk;

const PETRA: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/real/PETRAIII_P25_Near_Field_Ptycho.cxi");

fn put<T: ptystream_common::dtype::Pixel>(
    place: &ptystream_common::h5::Group,
    name: &str,
    shape: &[usize],
    items: &[T],
) {
    let bytes = ptystream_common::frame::Array::from_items(shape, items).data;
    let layout = raw::Layout::Plain;
    let dataset = raw::create_dataset(place, name, T::DTYPE, shape, layout).expect("a dataset");
    raw::write_all(&dataset, T::DTYPE, &bytes).expect("values");
}

fn frames(count: usize) -> Vec<u16> {
    (0..count * 24 * 24).map(|p| (p % 97 + p / 576) as u16).collect()
}

/// A file like those of a synchrotron's NeXus writer: motors in millimetres, energy in eV.
fn nexus(path: &Path) {
    let file = write::create_file(path).expect("a file");
    let data = file.create_group("entry").and_then(|e| e.create_group("data")).expect("groups");
    put(&data, "data", &[12, 24, 24], &frames(12));
    let at = |f: fn(usize) -> f64| (0..12).map(f).collect::<Vec<f64>>();
    put(&data, "y", &[12], &at(|i| (i / 4) as f64 * 0.001));
    put(&data, "x", &[12], &at(|i| (i % 4) as f64 * 0.001));
    for name in ["y", "x"] {
        let motor = data.dataset(name).expect("a motor");
        write::set_attr(&motor, "units", "mm").expect("an attribute");
    }
    let beam =
        file.create_group("entry/instrument").and_then(|i| i.create_group("beam")).expect("groups");
    put(&beam, "incident_energy", &[1], &[9800.0f64]);
    put(&data, "pixel_mask", &[24, 24], &vec![0u32; 576]);
    drop((data, beam));
    file.close().expect("a file");
}

/// A detector's master file with two files of frames beside it.
fn filewriter(folder: &Path) {
    let master = write::create_file(&folder.join("run_master.h5")).expect("a file");
    let data = master.create_group("entry").and_then(|e| e.create_group("data")).expect("groups");
    for (n, (from, count)) in [(0, 7), (7, 5)].into_iter().enumerate() {
        let name = format!("run_data_{:06}.h5", n + 1);
        let part = write::create_file(&folder.join(&name)).expect("a file");
        let inner =
            part.create_group("entry").and_then(|e| e.create_group("data")).expect("groups");
        put(&inner, "data", &[count, 24, 24], &frames(12)[from * 576..(from + count) * 576]);
        drop(inner);
        part.close().expect("a file");
        data.link_external(&name, "/entry/data/data", &format!("data_{:06}", n + 1))
            .expect("a link");
    }
    let at = |f: fn(usize) -> f64| (0..12).map(f).collect::<Vec<f64>>();
    put(&data, "samy", &[12], &at(|i| (i / 4) as f64));
    put(&data, "samx", &[12], &at(|i| (i % 4) as f64));
    drop(data);
    master.close().expect("a file");
}

fn shape(desk: &Desk, name: &str) -> Vec<usize> {
    PtydFile::open(&desk.at(name)).and_then(|f| f.array("/chunks/0/data")).expect("data").shape
}

#[test]
fn a_nexus_file_is_understood_and_runs() {
    let desk = Desk::new();
    nexus(&desk.at("raw.nxs"));
    let said = desk.run("init raw.nxs");
    said.must(0, &[]);
    for words in ["12 frames of 24 x 24 uint16", "entry/data/y: the file says mm", "9.800000 keV"] {
        assert!(said.out.contains(words), "'{words}' is not in\n{}", said.out);
    }
    desk.run("run scan.toml --quiet").must(0, &[]);
    assert_eq!(shape(&desk, "raw.ptyd"), [12, 24, 24]);
    let file = PtydFile::open(&desk.at("raw.ptyd")).expect("a file");
    let positions = file.array("/chunks/0/positions").expect("positions").to_f64();
    assert_eq!(positions[22..], [2e-6, 3e-6].map(|v: f64| v), "metres, (y, x)");
    desk.run("init raw.nxs").must(2, &["scan.toml: exists", "--out"]);
}

#[test]
fn frames_that_are_split_over_files_follow_each_other() {
    let desk = Desk::new();
    std::fs::create_dir(desk.at("raw")).expect("a folder");
    filewriter(&desk.at("raw"));
    let said = desk.run("init raw --out split.toml");
    said.must(0, &[]);
    assert!(said.out.contains("entry/data/data_*: 12 frames of 24 x 24 uint16 in 2 datasets"));
    desk.run("run split.toml --quiet").must(0, &[]);
    let file = PtydFile::open(&desk.at("run_master.ptyd")).expect("a file");
    let data = file.array("/chunks/0/data").expect("data");
    let wanted: Vec<f64> = frames(12).into_iter().map(f64::from).collect();
    assert_eq!(data.to_f64(), wanted, "in the order of the files");
    // Workers that read themselves find the same.
    let other = "--set data.load_parallel=None --set data.dfile=other.ptyd";
    desk.run(&format!("run split.toml --quiet {other}")).must(0, &[]);
    desk.assert_equal("run_master.ptyd", "other.ptyd");
    // One of the files is gone: it is named before anything is written.
    std::fs::remove_file(desk.at("raw/run_data_000002.h5")).expect("a file");
    let gone = "--set data.dfile=gone.ptyd";
    desk.run(&format!("run split.toml --quiet {gone}")).must(3, &["data_000002"]);
    assert!(!desk.at("gone.ptyd").exists());
}

#[test]
#[allow(clippy::print_stdout, reason = "what was skipped is counted by `make test`")]
fn the_real_scan_is_understood_and_equals_ptypys() {
    let desk = Desk::new();
    if !Path::new(PETRA).is_file() {
        println!("skipped: ../shared is absent");
        return;
    }
    desk.run(&format!("init {PETRA}")).must(0, &[]);
    let set = "--set data.auto_center=false --set data.center=None --set data.dfile=petra.ptyd";
    desk.run(&format!("run scan.toml --quiet {set}")).must(0, &[]);
    let wanted = PETRA.replace("PETRAIII_P25_Near_Field_Ptycho.cxi", "petra_p25_full.ptyd");
    desk.run(&format!("compare petra.ptyd {wanted}")).must(0, &[]);
    desk.run("run scan.toml --quiet").must(0, &[]);
}

#[test]
fn a_folder_of_the_tutorial_and_what_is_no_scan() {
    let desk = Desk::new();
    std::fs::create_dir_all(desk.at("raw/ccd")).expect("a folder");
    desk.run("init raw").must(3, &["no scan is found", "positions.txt"]);
    desk.run("init nothing.h5").must(3, &["nothing.h5"]);
    desk.write("text.h5", "not HDF5");
    desk.run("init text.h5").must(3, &["text.h5"]);
    for name in ["a.h5", "b.h5"] {
        nexus(&desk.at("raw").join(name));
    }
    desk.run("init raw").must(3, &["2 files could be the scan (a.h5, b.h5)"]);
    let header = "{'descr': '<u2', 'fortran_order': False, 'shape': (24, 24), }";
    let mut positions = String::new();
    for k in 0..4 {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        bytes.extend(format!("{header:<117}\n").as_bytes());
        bytes.extend(frames(4)[k * 576..(k + 1) * 576].iter().flat_map(|v| v.to_le_bytes()));
        std::fs::write(desk.at(&format!("raw/ccd/{k}.npy")), bytes).expect("a frame");
        positions += &format!("ccd/{k}.npy {k}e-6 0\n");
    }
    std::fs::write(desk.at("raw/positions.txt"), positions).expect("positions");
    let said = desk.run("init raw");
    said.must(0, &[]);
    assert!(said.out.contains("positions.txt: 4 scan points"), "{}", said.out);
    desk.run("run scan.toml --quiet").must(0, &[]);
    assert_eq!(shape(&desk, "raw.ptyd"), [4, 24, 24]);
}
