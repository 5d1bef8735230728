//! `check` finds what is unlikely, and says nothing of what is not.

mod support;

use support::Desk;

const GIVEN: &str =
    "num_frames = 24\nraw_shape = 48\nshape = 32\ndfile = 'a.ptyd'\nsave = 'link'\n";

/// A scan of 24 points, `step` apart.
fn desk(step: f64, more: &str) -> Desk {
    let desk = Desk::new();
    let points: Vec<String> = (0..24)
        .map(|i| format!("[{:e}, {:e}]", f64::from(i / 6) * step, f64::from(i % 6) * step))
        .collect();
    let text = format!(
        "[data]\nname = 'moonflower'\n{GIVEN}positions_theory = [{}]\nenergy = 6.2\ndistance = 7.0\n\
         psize = 0.000172\n{more}",
        points.join(", ")
    );
    desk.write("scan.toml", &text);
    desk
}

#[test]
fn a_plausible_scan_is_described_and_drawn() {
    let desk = desk(1e-6, "");
    let said = desk.run("check scan.toml");
    said.must(0, &[]);
    for words in [
        "frames       24 frames of 48 x 48",
        "steps        neighbours are 1.0000 um apart",
        "overlap      one frame covers 8.1385 um of the sample, so neighbours overlap by 88 %",
        "energy       6.2  from: configuration",
        "scan.orientations.png",
        "plausible",
    ] {
        assert!(said.out.contains(words), "'{words}' is not in\n{}", said.out);
    }
    let png = std::fs::read(desk.at("scan.orientations.png")).expect("a picture");
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() > 2000);
    assert!(!desk.at("a.ptyd").exists(), "nothing is written");
    desk.run("check scan.toml --no-png").must(0, &[]);
}

#[test]
fn what_is_unlikely_is_a_warning_with_its_cure() {
    // Micrometres that pass for metres, steps too long, all in one place.
    for (step, words) in [
        (1.0, "neighbours are 1.000e0 m apart, which is unlikely"),
        (1e-12, "not metres"),
        (2e-5, "neighbours do not overlap"),
        (0.0, "all scan points are at the same place"),
    ] {
        let said = desk(step, "").run("check scan.toml --no-png");
        said.must(1, &[]);
        assert!(said.out.contains("WARNING") && said.out.contains(words), "{}", said.out);
    }
    let odd = |set: &str, words: &str| {
        let said = desk(1e-6, "").run(&format!("check scan.toml --no-png {set}"));
        said.must(1, &[]);
        assert!(said.out.contains(words), "'{words}' is not in\n{}", said.out);
    };
    odd("--set data.energy=6200", "6.2e3 keV is unlikely");
    odd("--set data.psize=172", "psize");
    odd("--set data.photons=0.001", "have no counts");
    // A file system without any room.
    odd("--set data.dfile=/proc/a.ptyd", "/proc/a.ptyd may need 0.1 MB uncompressed");
}

#[test]
fn what_is_impossible_is_an_error_as_for_run() {
    let desk = desk(1e-6, "");
    desk.run("check scan.toml --set data.rebin=5 --no-png").must(2, &["rebin"]);
    desk.run("check nothing.toml").must(2, &["nothing.toml"]);
    let mask = "--set data.name=numpy --set data.path=nowhere";
    desk.run(&format!("check scan.toml --no-png {mask}")).must(2, &["raw_shape"]);
    desk.run("check scan.toml --png nowhere/a.png").must(6, &["nowhere/a.png"]);
}
