//! The template of `examples/own-source`, which docs/writing-a-source.md explains: its loader makes the
//! very file that the built-in source makes, and every line of the page's code stands in it.

#[path = "../examples/own-source/src/my_scan.rs"]
mod my_scan;
mod support;

use ptystream::auto::{Auto, AutoScan};
use ptystream::common::shutdown::Shutdown;
use ptystream::config::{self, Config, ConfigArgs};
use ptystream::{local, producer};
use std::fmt::Write as _;
use support::Desk;

/// Writes a scan in the tutorial's layout.
fn folder(desk: &Desk) {
    std::fs::create_dir_all(desk.at("raw/ccd")).expect("a folder");
    let mut positions = String::new();
    for k in 0..12u16 {
        let frame: Vec<u16> = (0..24 * 20).map(|p| p * 3 % 101 + 7 * k).collect();
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let head = "{'descr': '<u2', 'fortran_order': False, 'shape': (24, 20), }";
        bytes.extend(format!("{head:<117}\n").as_bytes());
        bytes.extend(frame.iter().flat_map(|v| v.to_le_bytes()));
        let name = format!("ccd/diffraction_{k:04}.npy");
        std::fs::write(desk.at("raw").join(&name), bytes).expect("a frame");
        let _ = writeln!(positions, "{name} {}e-6 -{}e-6", k, 2 * k);
    }
    std::fs::write(desk.at("raw/positions.txt"), positions).expect("a list");
    let geometry = "distance 2.5\nenergy 8.0\npsize 5.5e-5\nshape 16\n";
    std::fs::write(desk.at("raw/geometry.txt"), geometry).expect("a geometry");
}

fn load(desk: &Desk, set: &[String]) -> Config {
    let mut registry = producer::source::builtin();
    registry.add(my_scan::kind());
    let args = ConfigArgs { set: set.to_vec(), ..ConfigArgs::default() };
    let around = config::Surroundings { folder: desk.at(""), variables: Vec::new() };
    config::load_in(&args, &registry, &around).expect("a configuration")
}

fn settings(name: &str, path: &str, dfile: &str) -> Vec<String> {
    [
        &format!("data.name={name}"),
        path,
        &format!("data.dfile={dfile}"),
        "data.shape=16",
        "data.rebin=2",
        "data.save=append",
        "pipeline.frames_per_chunk=5",
    ]
    .map(ToOwned::to_owned)
    .to_vec()
}

#[test]
fn the_tutorials_source_makes_the_file_of_the_built_in_one() {
    let desk = Desk::new();
    folder(&desk);
    let mut registry = producer::source::builtin();
    registry.add(my_scan::kind());
    // Workers read too: they open the source by its name.
    for parallel in ["None", "data"] {
        let base = format!("data.base_path={}", desk.at("raw").display());
        let mut own = settings("MyNumpyScan", &base, &desk.at("own.ptyd").display().to_string());
        own.push(format!("data.load_parallel={parallel}"));
        own.push("pipeline.force=true".to_owned());
        let config = load(&desk, &own);
        let report = local::run(&config, &registry, &Shutdown::new(), &mut |_| {}).expect("a file");
        assert_eq!(report.frames.written, 12);
        let origins: Vec<&str> = report.origins.iter().map(|o| o.origin.as_str()).collect();
        assert!(origins[0].ends_with("geometry.txt"), "{origins:?}");
    }
    let path = format!("data.path={}", desk.at("raw").display());
    let mut builtin = settings("numpy", &path, &desk.at("builtin.ptyd").display().to_string());
    builtin.push("data.auto_center=false".to_owned());
    let config = load(&desk, &builtin);
    local::run(&config, &registry, &Shutdown::new(), &mut |_| {}).expect("a file");
    desk.assert_equal("builtin.ptyd", "own.ptyd");

    // Without the pipeline, as the page ends.
    let base = format!("data.base_path={}", desk.at("raw").display());
    let config = load(&desk, &settings("my_numpy", &base, "unused.ptyd"));
    let mut scan = AutoScan::open(&config, &registry).expect("a scan");
    let mut counts = Vec::new();
    while let Auto::Chunk(package) = scan.auto(5).expect("a package") {
        counts.push(package.iterable().count());
    }
    assert_eq!(counts, [5, 5, 2]);
}

#[test]
fn its_own_parameters_are_checked_like_ours() {
    let mut registry = producer::source::builtin();
    registry.add(my_scan::kind());
    let set = ["data.name=my_numpy", "data.base_pth=x"].map(ToOwned::to_owned).to_vec();
    let args = ConfigArgs { set, ..ConfigArgs::default() };
    let error = config::load(&args, &registry).expect_err("an unknown key");
    assert!(error.to_string().contains("base_path"), "{error}");
    // An inherited default that the source declares anew.
    let desk = Desk::new();
    let config = load(&desk, &["data.name=my_numpy".to_owned()]);
    let entry = config.entries.iter().find(|e| e.key == "data.auto_center").expect("a value");
    assert_eq!(entry.value, ptystream::common::value::Value::Bool(false));
}

#[test]
fn the_code_of_the_page_is_that_of_the_template() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| std::fs::read_to_string(format!("{root}/{path}")).expect("a file");
    let page = read("docs/writing-a-source.md");
    let code =
        read("examples/own-source/src/my_scan.rs") + &read("examples/own-source/src/main.rs");
    let mut blocks = 0;
    for block in page.split("```rust\n").skip(1) {
        let block = block.split("```").next().unwrap_or_default().trim();
        assert!(code.contains(block), "this stands in the page only:\n{block}");
        blocks += 1;
    }
    assert!(blocks >= 6, "{blocks} blocks");
}
