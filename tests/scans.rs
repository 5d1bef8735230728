//! Numbered scans, tags, and files that tell what they were made of.

mod support;

use ptystream_common::ptyd::read::PtydFile;
use support::Desk;

fn desk() -> Desk {
    let desk = Desk::new();
    let text = "[data]\nname = 'moonflower'\nnum_frames = 10\nraw_shape = 40\nshape = 32\n\
                label = 'Au{tag}'\ndfile = 'out/{label}_{scan:04}.ptyd'\nsave = 'append'\n";
    desk.write("scan.toml", text);
    desk
}

#[test]
fn each_of_several_scans_has_its_file_and_the_worst_code_counts() {
    let desk = desk();
    let said = desk.run("run scan.toml --quiet --scan 8-10 --tag x --set data.seed=7");
    said.must(0, &["scan 8", "scan 10"]);
    for name in ["out/Aux_0008.ptyd", "out/Aux_0009.ptyd", "out/Aux_0010.ptyd"] {
        let file = PtydFile::open(&desk.at(name)).expect("a file");
        let label = file.values("meta").expect("meta").into_iter().find(|(k, _)| k == "label");
        assert_eq!(label.map(|(_, v)| v.to_string()).as_deref(), Some("'Aux'"));
    }
    // One of them is in the way of its file: the others are prepared all the same.
    std::fs::create_dir(desk.at("out/Auy_0002.ptyd")).expect("a folder");
    let said = desk.run("run scan.toml --quiet --scan 1-3 --tag y");
    said.must(2, &["scan 2: ", "Auy_0002.ptyd"]);
    assert!(desk.at("out/Auy_0001.ptyd").is_file() && desk.at("out/Auy_0003.ptyd").is_file());
}

#[test]
fn what_is_missing_or_would_be_overwritten_is_said_first() {
    let desk = desk();
    desk.run("run scan.toml --tag x").must(2, &["data.dfile", "'{scan:04}' needs --scan"]);
    desk.run("run scan.toml --scan 1").must(2, &["data.label", "'{tag}' needs --tag"]);
    let fixed = "--scan 1-2 --tag x --set data.dfile=out/a.ptyd --quiet";
    let said = desk.run(&format!("run scan.toml {fixed}"));
    said.must(2, &["scans 1 and 2 would both be written", "put {scan} into"]);
    desk.run("peek scan.toml --tag x --scan 1-2").must(2, &["only `run` takes several"]);
    desk.run("run scan.toml --tag x --scan 1-2 --report r.json").must(2, &["--report names one"]);
    desk.run("run scan.toml --tag x --scan 2-1").must(2, &["write 1-2"]);
    desk.run("run").must(2, &["SCAN"]);
}

#[test]
fn a_file_is_prepared_anew_from_what_it_says_of_itself() {
    let desk = desk();
    desk.run("run scan.toml --quiet --scan 5 --tag x --set data.rebin=2").must(0, &[]);
    // The configuration is gone, and the working folder is another one.
    std::fs::remove_file(desk.at("scan.toml")).expect("the configuration");
    desk.run("run --from out/Aux_0005.ptyd --quiet --set data.dfile=again.ptyd").must(0, &[]);
    desk.assert_equal("out/Aux_0005.ptyd", "again.ptyd");
    let more = "--set data.rebin=1 --set data.dfile=full.ptyd";
    desk.run(&format!("run --from out/Aux_0005.ptyd --quiet {more}")).must(0, &[]);
    let shape = |name: &str| {
        PtydFile::open(&desk.at(name)).and_then(|f| f.array("/chunks/0/data")).expect("data").shape
    };
    assert_eq!((shape("again.ptyd"), shape("full.ptyd")), (vec![10, 16, 16], vec![10, 32, 32]));
    // The very same, under the same name: there is nothing to do.
    let said = desk.run("run --from out/Aux_0005.ptyd");
    said.must(0, &[]);
    assert!(said.out.contains("complete already"), "{}", said.out);
    desk.write("no.ptyd", "nothing");
    desk.run("run --from no.ptyd").must(2, &["no.ptyd"]);
    desk.run("run --from out/Aux_0005.ptyd scan.toml").must(2, &["cannot be used with"]);
}
