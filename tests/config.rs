//! Configuration: layers, origins, faults, and ptypy's parameter files.

use ptystream::config::{
    Config, ConfigArgs, ConfigError, ConfigErrors, Origin, Surroundings, load, load_in,
    load_pipeline,
};
use ptystream_common::codec::Compression;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::geometry::Center;
use ptystream_common::params::ParamDefault as D;
use ptystream_common::params::ParamType as T;
use ptystream_common::params::{DataParams, LoadParallel, ParamDecl, PipelineParams, Save};
use ptystream_common::source::{Registry, SourceError, SourceKind};
use ptystream_common::value::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NUMPY: &[ParamDecl] =
    &[ParamDecl::new("path", &[T::InputPath], D::None, "Folder in the tutorial layout.")];

const FILE: &[T] = &[T::InputPath, T::None];
const TEXT: &[T] = &[T::Str, T::None];

const HDF5: &[ParamDecl] = &[
    ParamDecl::new("intensities", &[T::Group], D::None, "The frames."),
    ParamDecl::new("intensities.file", FILE, D::None, "File of the frames."),
    ParamDecl::new("intensities.key", TEXT, D::None, "Dataset of the frames."),
    ParamDecl::new("positions.file", FILE, D::None, "File of the positions."),
    ParamDecl::new("positions.slow_key", TEXT, D::None, "Dataset of the slow axis."),
    ParamDecl::new("positions.slow_index", &[T::Int, T::None], D::None, "Column."),
    ParamDecl::new("positions.slow_multiplier", &[T::Float], D::Float(1.0), "To metres."),
    ParamDecl::new("positions.fast_key", TEXT, D::None, "Dataset of the fast axis."),
    ParamDecl::new("positions.fast_index", &[T::Int, T::None], D::None, "Column."),
    ParamDecl::new("positions.fast_multiplier", &[T::Float], D::Float(1.0), "To metres."),
    ParamDecl::new("mask.file", FILE, D::None, "File of the mask."),
    ParamDecl::new("mask.key", TEXT, D::None, "Dataset of the mask."),
    ParamDecl::new("mask.invert", &[T::Bool], D::Bool(false), "Whether 0 is good."),
    ParamDecl::new("recorded_energy.file", FILE, D::None, "File."),
    ParamDecl::new("recorded_energy.key", TEXT, D::None, "Dataset."),
    ParamDecl::new("recorded_energy.multiplier", &[T::Float], D::Float(1.0), "To keV."),
    ParamDecl::new("recorded_distance.file", FILE, D::None, "File."),
    ParamDecl::new("recorded_distance.key", TEXT, D::None, "Dataset."),
    ParamDecl::new("recorded_distance.multiplier", &[T::Float], D::Float(1.0), "To metres."),
    ParamDecl::new("recorded_psize.file", FILE, D::None, "File."),
    ParamDecl::new("recorded_psize.key", TEXT, D::None, "Dataset."),
    ParamDecl::new("recorded_psize.multiplier", &[T::Float], D::Float(1.0), "To metres."),
];

const MOONFLOWER: &[ParamDecl] = &[
    ParamDecl::new("num_frames", &[T::Int], D::Int(100), "How many frames are simulated."),
    ParamDecl::new("density", &[T::Float], D::Float(0.2), "Step in probe diameters.").level(1),
];

fn registry() -> Registry {
    let mut registry = Registry::new();
    for (name, aliases, params) in [
        ("numpy", &["NumpyScan"][..], NUMPY),
        ("hdf5", &["Hdf5Loader"][..], HDF5),
        ("moonflower", &["MoonFlowerScan"][..], MOONFLOWER),
    ] {
        let open = Arc::new(|_: &_| Err(SourceError::input("a test never opens a source")));
        registry.add(SourceKind { name, aliases, help: "A source of this test.", params, open });
    }
    registry
}

/// A folder with configuration files, which is also the working folder's parent.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("a file in a temporary folder");
        path
    }

    fn around(&self) -> Surroundings {
        Surroundings { folder: self.path().join("cwd"), variables: Vec::new() }
    }

    fn load(&self, text: &str, set: &[&str]) -> Result<Config, ConfigErrors> {
        let args = ConfigArgs { file: Some(self.write("c.toml", text)), ..sets(set) };
        load_in(&args, &registry(), &self.around())
    }

    /// Loads a faulty configuration and returns the faults' texts without the folder's name.
    fn faults(&self, text: &str, set: &[&str]) -> Vec<String> {
        let errors = self.load(text, set).expect_err("faults");
        let folder = format!("{}/", self.path().display());
        errors.0.iter().map(|e| e.to_string().replace(&folder, "")).collect()
    }
}

fn sets(set: &[&str]) -> ConfigArgs {
    ConfigArgs { set: set.iter().map(|&s| s.to_owned()).collect(), ..ConfigArgs::default() }
}

fn flags(set: &[&str]) -> Result<Config, ConfigErrors> {
    let around = Surroundings { folder: "/cwd".into(), variables: Vec::new() };
    load_in(&sets(set), &registry(), &around)
}

fn one_fault(set: &[&str]) -> String {
    let mut all = vec!["data.name=numpy"];
    all.extend(set);
    flags(&all).expect_err("a fault").to_string()
}

#[test]
fn without_anything_but_a_name_all_is_default() {
    let config = flags(&["data.name=numpy"]).expect("a configuration");
    let mut expected = DataParams::defaults("numpy");
    expected.tree.set_at("path", Value::None);
    expected.given = vec!["name".into()];
    expected.base = "/cwd".into();
    assert_eq!(config.data, expected);
    assert_eq!(config.pipeline, PipelineParams::default());
    assert_eq!(config.origin("data.energy"), Some(&Origin::Default));
    assert_eq!(config.origin("data.name"), Some(&Origin::Set));
    assert!(config.notes.is_empty());
}

#[test]
fn higher_layers_win_and_every_value_knows_its_origin() {
    let desk = Desk::new();
    let file = desk.write(
        "c.toml",
        "[data]\nname = 'hdf5'\nrebin = 2\nenergy = 6.2\ndistance = 2\nexperimentID = 'a'\n\
         mask.file = 'm.h5'\nintensities.file = 'i.h5'\n[pipeline]\nwindow = 3\n",
    );
    let args = ConfigArgs {
        file: Some(file.clone()),
        env: true,
        ..sets(&["data.energy=9", "pipeline.on_gap=fail", "data.intensities.key=entry/data"])
    };
    let variables = [
        ("PTYSTREAM_DATA__ENERGY", "8.0"),
        ("PTYSTREAM_DATA__DISTANCE", "3.5"),
        ("PTYSTREAM_DATA__EXPERIMENTID", "007"),
        ("PTYSTREAM_DATA__MASK__FILE", "new.h5"),
        ("PTYSTREAM_LOG", "debug"),
    ];
    let around = Surroundings {
        variables: variables.map(|(k, v)| (k.to_owned(), v.to_owned())).to_vec(),
        ..desk.around()
    };
    let config = load_in(&args, &registry(), &around).expect("a configuration");
    let data = &config.data;
    assert_eq!((data.rebin, data.energy, data.distance), (2, Some(9.0), Some(3.5)));
    assert_eq!(data.experiment_id.as_deref(), Some("007"));
    assert_eq!(config.pipeline.window, 3);
    for (key, origin) in [
        ("data.rebin", Origin::File(file.clone())),
        ("data.energy", Origin::Set),
        ("data.distance", Origin::Env("PTYSTREAM_DATA__DISTANCE".into())),
        ("data.psize", Origin::Default),
        ("pipeline.window", Origin::File(file)),
        ("pipeline.on_gap", Origin::Set),
    ] {
        assert_eq!(config.origin(key), Some(&origin), "{key}");
    }
    let given = ["name", "rebin", "experimentID", "distance", "energy"];
    let of_source = ["intensities.file", "intensities.key", "mask.file"];
    assert_eq!(data.given, [&given[..], &of_source[..]].concat());
    assert!(data.is_given("energy") && !data.is_given("psize"));

    let without = load_in(&ConfigArgs { env: false, ..args }, &registry(), &around);
    assert_eq!(without.expect("a configuration").data.distance, Some(2.0));
    let spec = config.data.source_spec();
    assert_eq!(spec.base, desk.path());
    assert_eq!(spec.path("i.h5"), desk.path().join("i.h5"));
    let of_env = desk.path().join("cwd/new.h5").to_string_lossy().into_owned();
    assert_eq!(spec.data.at("mask.file"), Some(&Value::Str(of_env)));
}

#[test]
fn all_faults_are_reported_at_once() {
    let desk = Desk::new();
    let text = "[data]\nname = 'hdf5'\nrebinn = 2\ncenter = 64\nintensities = { kye = 'x' }\n\
                [pipelin]\nwindow = 3\n";
    let faults = desk.faults(text, &["data.orientation=8"]);
    assert_eq!(
        faults,
        [
            "file c.toml: unknown key 'pipelin'; did you mean 'pipeline'?",
            "file c.toml: unknown key 'data.rebinn'; did you mean 'data.rebin'?",
            "file c.toml: unknown key 'data.intensities.kye'; did you mean 'data.intensities.key'?",
            "--set: data.orientation: 8 is too high; an integer from 0 to 7, a list of three truth \
             values or None is taken: give 0 to 7 or three booleans (transpose, flipud, fliplr)",
            "file c.toml: data.center: 64 does not fit; one of fftshift, geometric, fft, a pair of \
             numbers or None is taken: give (row, column), such as [64, 64]",
        ]
    );
    let errors = desk.load(text, &[]).expect_err("faults");
    assert!(errors.to_string().starts_with("4 faults in the configuration:\n  file "));
    assert_eq!(Failure::from(&errors).kind, Kind::Config);
}

#[test]
fn an_overridden_fault_does_not_count() {
    let desk = Desk::new();
    let config = desk.load("[data]\nname = 'numpy'\nrebin = 99\n", &["data.rebin=3"]);
    assert_eq!(config.expect("a configuration").data.rebin, 3);
}

#[test]
fn each_kind_of_bad_value_has_its_text() {
    for (set, expected) in [
        ("data.rebin=0", "data.rebin: 0 is too low; an integer from 1 to 32 or None"),
        ("data.rebin=two", "data.rebin: 'two' does not fit"),
        ("data.shape=[0, 3]", "data.shape: 0 is too low"),
        ("data.shape=[1, 2, 3]", "give one number, (rows, columns), or None"),
        ("data.orientation=-1", "data.orientation: -1 is too low"),
        ("data.min_frames=None", "data.min_frames: None does not fit"),
        ("data.num_frames=0", "data.num_frames: 0 is too low"),
        ("data.energy=-1", "data.energy: -1 is too low; a number above 0 or None"),
        ("data.psize=[1e-4]", "data.psize: [0.0001] does not fit"),
        ("data.center=middle", "data.center: 'middle' does not fit; one of fftshift"),
        ("data.auto_center=maybe", "data.auto_center: 'maybe' does not fit; true or false"),
        ("data.load_parallel=dat", "did you mean 'data'"),
        ("data.save=append", "data.save: 'append' needs a file to write; give data.dfile"),
        ("data.chunk_format=.c", "data.chunk_format: '.c' has not exactly one place"),
        ("data.positions_theory=[[1, 2], 3]", "item 1 is 3, not a pair"),
        ("data.label=[1]", "data.label: [1] does not fit"),
        ("pipeline.compression=gzip:0", "pipeline.compression: 'gzip:0' is not known"),
        ("pipeline.valid_range=[9, 1]", "pipeline.valid_range: 9 is above 1"),
        ("pipeline.bad_values=[\"x\"]", "pipeline.bad_values: 'x' is not a finite number"),
        ("pipeline.window=0", "pipeline.window: 0 is too low; an integer from 1 to 1024"),
        ("pipeline=3", "--set: unknown key 'pipeline'"),
        ("rebin=2", "--set: unknown key 'rebin'; did you mean 'data.rebin'?"),
        ("data.intensities.file=a", "it belongs to the source 'hdf5', see data.name"),
        ("data.wavelength=1", "unknown key 'data.wavelength'; `ptystream params` lists all keys"),
        ("data.rebin", "--set data.rebin: no equals sign"),
    ] {
        let text = one_fault(&[set]);
        assert!(text.contains(expected), "{set}: {text}");
    }
}

#[test]
fn a_role_without_data_loads_only_its_pipeline() {
    let desk = Desk::new();
    let text = "[data]\nnonsense = 1\n[pipeline]\nthreads = 2\n";
    let file = Some(desk.write("c.toml", text));
    let args = ConfigArgs { file, ..sets(&["pipeline.window=4"]) };
    let pipeline = load_pipeline(&args).expect("a pipeline");
    let expected = PipelineParams { threads: Some(2), window: 4, ..PipelineParams::default() };
    assert_eq!(pipeline, expected);
    let text = load_pipeline(&sets(&["pipeline.windw=4"])).expect_err("a fault").to_string();
    assert_eq!(text, "--set: unknown key 'pipeline.windw'; did you mean 'pipeline.window'?");
}

#[test]
fn a_source_must_be_named_and_known() {
    let text = flags(&[]).expect_err("a fault").to_string();
    assert!(text.starts_with("data.name is missing"), "{text}");
    assert!(text.contains("give one of numpy, hdf5, moonflower"), "{text}");
    let errors = flags(&["data.name=hdf", "data.intensities.file=a", "data.rebinn=1"]);
    let faults = errors.expect_err("faults").0;
    let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "--set: data.name: no source 'hdf' is known, did you mean 'hdf5'?; give one of numpy, \
             hdf5, moonflower",
            "--set: unknown key 'data.rebinn'; did you mean 'data.rebin'?",
        ]
    );
    assert!(matches!(faults[1], ConfigError::Unknown { .. }));
}

#[test]
fn toml_json_and_yaml_of_the_same_thing_are_equal() {
    let desk = Desk::new();
    let files = [
        desk.write(
            "c.toml",
            "[data]\nname = 'Hdf5Loader'\nshape = [128, 64]\ncenter = 'None'\npsize = 1e-4\n\
             energy = 'none'\norientation = [true, false, true]\nlabel = 'a'\ndfile = 'o.ptyd'\n\
             load_parallel = 'None'\n[data.intensities]\nfile = 'a.h5'\nkey = 'd'\n\
             [pipeline]\ncompression = 'none'\nbad_values = [65535, -1]\nlive = true\n",
        ),
        desk.write(
            "c.json",
            r#"{"data": {"name": "Hdf5Loader", "shape": [128, 64], "center": null, "psize": 1e-4,
                "energy": null, "orientation": [true, false, true], "label": "a",
                "dfile": "o.ptyd", "load_parallel": null,
                "intensities": {"file": "a.h5", "key": "d"}},
                "pipeline": {"compression": "none", "bad_values": [65535, -1], "live": true}}"#,
        ),
        desk.write(
            "c.yaml",
            "data:\n  name: Hdf5Loader\n  shape: [128, 64]\n  center: null\n  psize: 1.0e-4\n\
             \x20 energy: None\n  orientation: [true, false, true]\n  label: a\n  dfile: o.ptyd\n\
             \x20 load_parallel: ~\n  intensities:\n    file: a.h5\n    key: d\n\
             pipeline:\n  compression: none\n  bad_values: [65535, -1]\n  live: true\n",
        ),
    ];
    let [toml, json, yaml] = files.map(|file| {
        let args = ConfigArgs { file: Some(file), ..ConfigArgs::default() };
        load_in(&args, &registry(), &desk.around()).expect("a configuration")
    });
    assert_eq!((&toml.data, &toml.pipeline), (&json.data, &json.pipeline));
    assert_eq!((&toml.data, &toml.pipeline), (&yaml.data, &yaml.pipeline));
    assert_eq!(toml.data.name, "hdf5");
    assert_eq!(toml.data.tree.get("name"), Some(&Value::Str("Hdf5Loader".into())));
    assert_eq!(toml.data.shape, Some([128, 64]));
    assert_eq!((toml.data.center, toml.data.energy), (Center::None, None));
    assert!(toml.data.is_given("energy"));
    assert_eq!(toml.data.load_parallel, LoadParallel::Producer);
    assert_eq!(toml.data.save, Some(Save::Append));
    assert_eq!(toml.pipeline.compression, Compression::None);
    assert_eq!(toml.pipeline.bad_values, [65535.0, -1.0]);
}

#[test]
fn what_is_merged_cannot_be_followed() {
    let merge = ["data.dfile=out.ptyd", "data.save=merge", "pipeline.live=true"];
    let text = one_fault(&merge);
    assert!(text.starts_with("--set: pipeline.live: true does not go with data.save"), "{text}");
    assert!(text.contains("give data.save = \"append\" or \"link\""), "{text}");
    assert!(flags(&["data.name=numpy", merge[0], merge[1]]).is_ok());
}

#[test]
fn save_follows_from_dfile() {
    let config = flags(&["data.name=numpy", "data.dfile=out.ptyd"]).expect("a configuration");
    assert_eq!(config.data.save, Some(Save::Append));
    assert_eq!(config.data.dfile, Some("out.ptyd".into()));
    assert!(!config.data.is_given("save") && !config.pipeline.live);
    assert_eq!(config.notes, ["data.dfile is given and data.save is not: save = \"append\""]);

    let around = Surroundings::default();
    let live =
        ConfigArgs { live_default: true, ..sets(&["data.name=numpy", "data.dfile=out.ptyd"]) };
    let config = load_in(&live, &registry(), &around).expect("a configuration");
    assert_eq!((config.data.save, config.pipeline.live), (Some(Save::Link), true));

    let none = ["data.name=numpy", "data.dfile=out.ptyd", "data.save=None"];
    let config = flags(&none).expect("a configuration");
    assert_eq!((config.data.save, config.notes.len()), (None, 0));
}

#[test]
fn a_folder_is_a_numpy_scan() {
    let desk = Desk::new();
    let args = ConfigArgs { file: Some(desk.path().to_owned()), ..sets(&["data.rebin=2"]) };
    let config = load_in(&args, &registry(), &desk.around()).expect("a configuration");
    let path = desk.path().to_string_lossy().into_owned();
    assert_eq!(config.data.name, "numpy");
    assert_eq!(config.data.tree.get("path"), Some(&Value::Str(path)));
    assert_eq!(config.origin("data.path"), Some(&Origin::Folder(desk.path().to_owned())));
    let name = desk.path().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(config.data.dfile, Some(format!("{name}.ptyd").into()), "named after the folder");
    assert_eq!(config.data.save, Some(Save::Append));
    let nothing = ConfigArgs { set: vec!["data.dfile=None".into()], ..args };
    let config = load_in(&nothing, &registry(), &desk.around()).expect("a configuration");
    assert_eq!((config.data.dfile, config.data.save), (None, None));
}

#[test]
fn a_source_may_have_other_defaults() {
    let config = flags(&["data.name=MoonFlowerScan"]).expect("a configuration");
    assert_eq!(config.data.num_frames, Some(100));
    assert!(!config.data.is_given("num_frames"));
    assert_eq!(config.data.tree.get("density"), Some(&Value::Float(0.2)));
}

#[test]
fn theoretical_positions_override_num_frames() {
    let set = ["data.name=numpy", "data.num_frames=9", "data.positions_theory=[[0, 1], [2, 3.5]]"];
    let config = flags(&set).expect("a configuration");
    assert_eq!(config.data.num_frames, Some(2));
    assert_eq!(config.data.tree.get("num_frames"), Some(&Value::Int(9)));
    assert!(config.notes[0].contains("data.num_frames = 9 is not used"), "{:?}", config.notes);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let desk = Desk::new();
    for (name, text, expected) in [
        ("a.h5", "x", "a.h5: not a configuration; it must end in .toml, .json or .yaml"),
        ("a.toml", "[data]\nrebin = = 2\n", "a.toml: not TOML: line 2, column 9: "),
        ("a.json", "{\"data\": }", "a.json: not JSON: "),
        ("a.yaml", "data: [", "a.yaml: not YAML: "),
        ("b.json", "[1]", "b.json: the file holds no blocks"),
        ("c.json", "{\"data\": 3}", "c.json: data: 3 stands where a group is; give "),
        ("c.yaml", "", "data.name is missing"),
    ] {
        let args = ConfigArgs { file: Some(desk.write(name, text)), ..ConfigArgs::default() };
        let error = load_in(&args, &registry(), &desk.around()).expect_err("a fault").to_string();
        assert!(error.contains(expected), "{name}: {error}");
    }
    let args = ConfigArgs { file: Some("no/such.toml".into()), ..ConfigArgs::default() };
    let error = load(&args, &registry()).expect_err("a fault").to_string();
    assert!(error.starts_with("no/such.toml: the configuration cannot be read: No such file"));
    let args = ConfigArgs { file: Some("no_such".into()), ..ConfigArgs::default() };
    let error = load(&args, &registry()).expect_err("a fault").to_string();
    assert_eq!(error, "no_such: no such file or folder; check the path");
}

#[test]
fn a_ptypy_file_is_taken_as_it_is() {
    let desk = Desk::new();
    let text = r#"{"verbose_level": 3, "io": {"home": "/x"}, "engines": {}, "pipeline": {"window": 2},
        "scans": {"a": {"name": "Full", "data": {"name": "NumpyScan", "path": "raw", "rebin": null}},
                  "b": {"data": {"name": "NumpyScan", "path": "raw2"}}}}"#;
    let file = desk.write("p.json", text);
    let load = |scan: Option<&str>| {
        let scan = scan.map(str::to_owned);
        let args = ConfigArgs { file: Some(file.clone()), scan, ..ConfigArgs::default() };
        load_in(&args, &registry(), &desk.around())
    };
    let config = load(Some("a")).expect("a configuration");
    assert_eq!(config.scan.as_deref(), Some("a"));
    assert_eq!((config.data.name.as_str(), config.pipeline.window), ("numpy", 2));
    assert_eq!(config.notes.len(), 1);
    assert!(
        config.notes[0].ends_with("not used here: verbose_level, io, engines, scans.a.name"),
        "{:?}",
        config.notes
    );
    let text = load(None).expect_err("a fault").to_string();
    assert!(text.contains("p.json: there are scans a, b; choose one with --scan"), "{text}");
    let text = load(Some("c")).expect_err("a fault").to_string();
    assert!(text.contains("scans.c is not there; choose one of a, b with --scan"), "{text}");
    let typo =
        desk.write("t.json", r#"{"scans": {"a": {"data": {"name": "numpy"}}}, "pipelin": {}}"#);
    let args = ConfigArgs { file: Some(typo), ..ConfigArgs::default() };
    let text = load_in(&args, &registry(), &desk.around()).expect_err("a fault").to_string();
    assert!(text.contains("did you mean 'pipeline'?"), "{text}");
}

#[test]
fn a_real_ptypy_file_loads() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/real"));
    if !folder.exists() {
        eprintln!("skipped: ../shared is absent");
        return;
    }
    let file = folder.join("petra_p25_full.json");
    let args = ConfigArgs { file: Some(file), ..sets(&["data.dfile=here.ptyd"]) };
    let config = load(&args, &registry()).expect("a configuration");
    let data = &config.data;
    assert_eq!((data.name.as_str(), config.scan.as_deref()), ("hdf5", Some("petra")));
    assert_eq!((data.shape, data.center, data.auto_center), (None, Center::None, Some(false)));
    assert_eq!(
        (data.dfile.as_deref(), data.save),
        (Some(Path::new("here.ptyd")), Some(Save::Append))
    );
    assert!(!data.is_given("energy") && data.energy == Some(7.2));
    assert_eq!(data.tree.at("mask.invert"), Some(&Value::Bool(true)));
    assert_eq!(data.tree.at("recorded_energy.multiplier"), Some(&Value::Float(6241509074460763.0)));
    let spec = config.data.source_spec();
    let raw = spec.data.at("intensities.file").and_then(Value::as_str).map(|p| spec.path(p));
    assert!(raw.is_some_and(|p| p.is_file()));
}

#[test]
fn the_effective_tree_shows_origins_and_loads_again() {
    let desk = Desk::new();
    let text = "[data]\nname = 'hdf5'\ncenter = [3, 4.5]\nlabel = 'a \"b\"'\nmask.invert = true\n\
                positions_theory = [[1e-6, 2], [3, 4]]\n[pipeline]\nvalid_range = [0, 100]\n";
    let config = desk.load(text, &["data.energy=None"]).expect("a configuration");
    let shown = config.show();
    let line = |key: &str| {
        let start = format!("{key} = ");
        shown.lines().find(|l| l.trim_start_matches("# ").starts_with(&start)).unwrap_or_default()
    };
    assert!(line("energy").ends_with("# --set") && line("energy").contains("\"None\""), "{shown}");
    assert!(line("rebin").starts_with("# rebin = \"None\" "), "{shown}");
    assert!(line("rebin").ends_with("# default"), "{shown}");
    assert!(line("mask.invert").contains("true") && line("mask.invert").ends_with("c.toml"));
    let again = desk.load(&shown, &[]).expect("the effective tree");
    assert_eq!(again.data, config.data);
    assert_eq!(again.pipeline, config.pipeline);
}

#[test]
fn presets_are_known_and_lie_below_everything_else() {
    let desk = Desk::new();
    let builtin = ptystream_producer::source::builtin();
    let load = |args: &ConfigArgs| load_in(args, &builtin, &desk.around());
    for (name, text) in ptystream::config::presets::ALL {
        let file = desk.write(
            "c.toml",
            &format!("preset = '{name}'\n[data]\nintensities.file = 'a.h5'\nshape = 64\n"),
        );
        let config = load(&ConfigArgs { file: Some(file), ..sets(&[]) }).expect(name);
        assert_eq!(config.data.name, "hdf5");
        let origin = config.origin("data.intensities.key").expect("a key").to_string();
        assert_eq!(origin, format!("preset {name}"), "{text}");
        assert_eq!(config.data.shape, Some([64, 64]), "the file has the better of the preset");
    }
    let args = ConfigArgs { preset: Some("cxl".into()), ..sets(&[]) };
    let error = load(&args).expect_err("no such preset").to_string();
    assert!(error.contains("did you mean 'cxi'?"), "{error}");
    let own = desk.write("own.toml", "[data]\nname = 'moonflower'\nnum_frames = 7\n");
    let args = ConfigArgs { preset: Some(own.display().to_string()), ..sets(&[]) };
    assert_eq!(load(&args).expect("a file is a preset too").data.num_frames, Some(7));
    let ring = desk.write("ring.toml", "preset = 'cxi'\n[data]\nname = 'moonflower'\n");
    let args = ConfigArgs { preset: Some(ring.display().to_string()), ..sets(&[]) };
    assert!(load(&args).expect_err("a ring").to_string().contains("names a preset itself"));
}
