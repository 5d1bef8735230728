//! Packages of `auto` against the file that the pipeline writes.

mod support;

use ptystream::auto::{Auto, AutoScan, Package};
use ptystream::config::{self, ConfigArgs};
use ptystream_common::frame::Array;
use ptystream_common::ptyd::read::PtydFile;
use ptystream_producer::source::builtin;
use support::Desk;

/// Takes packages of `frames` frames until the scan ends.
fn packages(desk: &Desk, file: &str, set: &[&str], frames: usize) -> Vec<Package> {
    let registry = builtin();
    let args = ConfigArgs {
        file: Some(desk.at(file)),
        set: set.iter().map(|s| (*s).to_owned()).collect(),
        ..ConfigArgs::default()
    };
    let config = config::load(&args, &registry).expect("a configuration");
    let mut scan = AutoScan::open(&config, &registry).expect("a scan");
    let mut all = Vec::new();
    loop {
        match scan.auto(frames).expect("a package") {
            Auto::Chunk(package) => all.push(*package),
            Auto::Wait => panic!("everything is there"),
            Auto::EndOfScan => return all,
        }
    }
}

fn bits(array: &Array) -> Vec<u64> {
    array.to_f64().into_iter().map(f64::to_bits).collect()
}

#[test]
fn packages_are_the_chunks_of_the_file() {
    let desk = Desk::new();
    let own = "bad_values = [65535]";
    for (name, data, pipeline) in [
        ("plain", "shape = 32\norientation = 5", ""),
        ("centred", "shape = 32\nauto_center = true\nrebin = 2", ""),
        ("own", "shape = 32\nrebin = 2\nphotons = 1e8", own),
    ] {
        let pipeline = format!("batch = 3\n{pipeline}");
        desk.moonflower(name, 24, &format!("raw_shape = 48\ndtype = 'uint16'\n{data}"), &pipeline);
        desk.run(&format!("run {name}.toml --quiet --set data.save=link")).must(0, &[]);
        let file = PtydFile::open(&desk.at(&format!("{name}.ptyd"))).expect("a file");
        let all = packages(&desk, &format!("{name}.toml"), &[], 7);
        assert_eq!(all.len(), 4, "{name}: 7 + 7 + 7 + 3");
        for (n, Package { common, chunk }) in all.iter().enumerate() {
            assert_eq!(chunk.num, n as u64);
            let read = |what: &str| file.array(&format!("/chunks/{n}/{what}")).expect("an array");
            assert_eq!(chunk.data, read("data"), "{name}: data of chunk {n}");
            assert_eq!(chunk.weights, read("weights"), "{name}: weights of chunk {n}");
            let indices: Vec<f64> = chunk.indices.iter().map(|&i| i as f64).collect();
            assert_eq!(indices, read("indices").to_f64());
            let positions = chunk.positions.as_ref().expect("positions");
            let flat: Vec<f64> = positions.iter().flatten().copied().collect();
            let ours = Array::from_items(&[positions.len(), 2], &flat);
            assert_eq!(bits(&ours), bits(&read("positions")), "{name}: positions of chunk {n}");
            let mut meta = file.values("meta").expect("meta");
            let mut common = common.clone();
            meta.sort_by(|a, b| a.0.cmp(&b.0));
            common.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(common, meta, "{name}");
            let items: Vec<_> = all[n].iterable().collect();
            assert_eq!(items.len(), chunk.indices.len());
            let last = items.last().expect("a frame");
            let row = items.len() - 1;
            assert_eq!(last.data.data, {
                let bytes = last.data.data.len();
                chunk.data.data.slice(row * bytes..)
            });
            assert_eq!(last.position, Some(positions[row]));
        }
    }
}

#[test]
fn peek_shows_a_package_and_writes_nothing() {
    let desk = Desk::new();
    desk.moonflower("a", 24, "shape = 32\nraw_shape = 48", "");
    let said = desk.run("peek a.toml --frames 10 --set data.rebin=2");
    said.must(0, &[]);
    for words in [
        "* data             : [10x16x16 ",
        "* iterable           : list(10)",
        "* num_frames       : 24",
    ] {
        assert!(said.out.contains(words), "'{words}' is not in\n{}", said.out);
    }
    assert!(!desk.at("a.ptyd").exists());
    desk.run("peek a.toml --frames 0").must(2, &["1 or more"]);
    desk.run("peek a.toml --set data.rebin=5").must(2, &["rebin"]);
}
