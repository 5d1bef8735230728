//! From checked trees to the typed structs, with the rules that need more than one declaration.

use super::check::ParamFault;
use super::read::{
    both, center, compression, count, misfit, number, numbers, orientation, part_ending, positions,
    range, text, word,
};
use super::tree::{declarations, default_tree};
use super::{
    Arithmetic, Compat, DataParams, Follow, LoadParallel, OnAbort, OnFull, OnGap, Sharing,
};
use super::{OutputDtype, Spool};
use super::{PIPELINE, PipelineParams};
use crate::codec::Compression;
use crate::geometry::Center;
use crate::shutdown::Shutdown;
use crate::source::SourceSpec;
use crate::value::Value;
use std::path::PathBuf;

impl DataParams {
    /// Makes the typed block from a tree in which every parameter stands and passed its own check.
    ///
    /// `rebin` of None becomes 1 in the tree too, as ptypy does; theoretical positions become an
    /// array there and decide `num_frames`.
    /// # Errors
    /// All faults at once: what [`super::ParamDecl::check`] cannot see.
    pub fn from_tree(
        name: &str,
        mut tree: Value,
        given: Vec<String>,
        base: PathBuf,
    ) -> Result<Self, Vec<ParamFault>> {
        let mut faults = Vec::new();
        let mut take = Reader { tree: &tree, faults: &mut faults };
        let positions_theory = take.with("positions_theory", positions);
        let chunk_format = take.with("chunk_format", part_ending);
        let is_given = |name: &str| given.iter().any(|g| g == name);
        let mut data = Self {
            name: name.to_owned(),
            dfile: take.with("dfile", |v| text(v).map(PathBuf::from)),
            chunk_format: chunk_format.filter(|_| is_given("chunk_format")),
            save: take.with("save", word),
            auto_center: take.with("auto_center", |v| v.as_bool().ok_or_else(misfit)),
            load_parallel: take.with("load_parallel", word).unwrap_or(LoadParallel::Producer),
            rebin: take.with("rebin", count).unwrap_or(1),
            orientation: take.with("orientation", orientation).unwrap_or_default(),
            min_frames: take.with("min_frames", count).unwrap_or(1),
            num_frames: take.with("num_frames", count),
            label: take.with("label", text),
            experiment_id: take.with("experimentID", text),
            version: take.with("version", number).unwrap_or_default(),
            shape: take.with("shape", |v| both(v, count)),
            center: take.with("center", center).unwrap_or(Center::None),
            psize: take.with("psize", |v| both(v, number)),
            distance: take.with("distance", number),
            energy: take.with("energy", number),
            propagation: take.with("propagation", text).unwrap_or_default(),
            add_poisson_noise: take
                .with("add_poisson_noise", |v| v.as_bool().ok_or_else(misfit))
                .unwrap_or_default(),
            positions_theory: None,
            tree: Value::None,
            given,
            base,
        };
        if let (Some(save), None) = (data.save, &data.dfile) {
            let word = format!("{save:?}").to_lowercase();
            faults.push(ParamFault::new(
                "save",
                format!("'{word}' needs a file to write; give data.dfile, or save = \"None\""),
            ));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        tree.set_at("rebin", Value::Int(data.rebin as i64));
        if let Some(positions) = positions_theory {
            data.num_frames = Some(positions.shape[0] as u64);
            tree.set_at("positions_theory", Value::Array(positions.clone()));
            data.positions_theory = Some(positions);
        }
        data.tree = tree;
        Ok(data)
    }

    /// Returns what the source is opened from.
    pub fn source_spec(&self) -> SourceSpec {
        SourceSpec {
            name: self.name.clone(),
            data: self.tree.clone(),
            base: self.base.clone(),
            given: self.given.clone(),
            shutdown: Shutdown::default(),
        }
    }

    /// Makes the block of ptypy's defaults for a source that declares no parameters.
    pub fn defaults(name: &str) -> Self {
        let mut tree = default_tree(&declarations(&[]));
        tree.set_at("name", Value::Str(name.to_owned()));
        Self::from_tree(name, tree, Vec::new(), PathBuf::new())
            .expect("a test checks every declared default")
    }
}

impl PipelineParams {
    /// Makes the typed block from a tree in which every parameter stands and passed its own check.
    ///
    /// # Errors
    /// All faults at once: what [`super::ParamDecl::check`] cannot see.
    pub fn from_tree(tree: &Value) -> Result<Self, Vec<ParamFault>> {
        let mut faults = Vec::new();
        let mut take = Reader { tree, faults: &mut faults };
        let pipeline = Self {
            frames_per_chunk: take.with("frames_per_chunk", count),
            batch: take.with("batch", count),
            compression: take.with("compression", compression).unwrap_or(Compression::None),
            dtype: take.with("dtype", word).unwrap_or(OutputDtype::Ptypy),
            arithmetic: take.with("arithmetic", word).unwrap_or(Arithmetic::Exact),
            compat: take.with("compat", word).unwrap_or(Compat::None),
            valid_range: take.with("valid_range", range),
            bad_values: take.with("bad_values", numbers).unwrap_or_default(),
            on_gap: take.with("on_gap", word).unwrap_or(OnGap::Fill),
            on_abort: take.with("on_abort", word).unwrap_or(OnAbort::Truncate),
            follow: take.with("follow", word).unwrap_or(Follow::Any),
            spool: take.with("spool", word).unwrap_or(Spool::Off),
            spool_folder: take.with("spool_folder", text).map(PathBuf::from),
            spool_bytes: take.with("spool_bytes", count).unwrap_or_default(),
            on_full: take.with("on_full", word).unwrap_or(OnFull::Wait),
            live: take.truth("live"),
            parts_linger_secs: take.with("parts_linger_secs", number).unwrap_or_default(),
            publish_interval_secs: take.with("publish_interval_secs", number).unwrap_or_default(),
            flush_after_secs: take.with("flush_after_secs", number),
            sink_memory_bytes: take.with("sink_memory_bytes", count).unwrap_or_default(),
            producer_memory_bytes: take.with("producer_memory_bytes", count).unwrap_or_default(),
            window: take.with("window", count).unwrap_or_default(),
            policy: take.with("policy", word).unwrap_or(Sharing::Dynamic),
            workers: take.with("workers", count),
            threads: take.with("threads", count),
            peer_timeout_secs: take.with("peer_timeout_secs", number).unwrap_or_default(),
            disk_wait_secs: take.with("disk_wait_secs", number).unwrap_or_default(),
            straggler_secs: take.with("straggler_secs", number).unwrap_or_default(),
            give_up_secs: take.with("give_up_secs", number).unwrap_or_default(),
            checksums: take.truth("checksums"),
            alignment: take.truth("alignment"),
            on_first_chunk: take.with("on_first_chunk", text),
            on_done: take.with("on_done", text),
            fresh: take.truth("fresh"),
            force: take.truth("force"),
        };
        if faults.is_empty() { Ok(pipeline) } else { Err(faults) }
    }
}

impl Default for PipelineParams {
    fn default() -> Self {
        Self::from_tree(&default_tree(PIPELINE)).expect("a test checks every declared default")
    }
}

/// Reads parameters out of a tree and collects the faults.
struct Reader<'a> {
    tree: &'a Value,
    faults: &'a mut Vec<ParamFault>,
}

impl Reader<'_> {
    /// Reads one parameter; `None` stands for None in the tree and for a fault.
    fn with<T>(&mut self, key: &str, read: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.tree.at(key).filter(|v| !v.is_none())?;
        match read(value) {
            Ok(value) => Some(value),
            Err(text) => {
                self.faults.push(ParamFault::new(key, text));
                None
            }
        }
    }

    fn truth(&mut self, key: &str) -> bool {
        self.with(key, |v| v.as_bool().ok_or_else(misfit)).unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::geometry::Orientation;

    fn data_with(key: &str, value: Value) -> Result<DataParams, Vec<ParamFault>> {
        let mut tree = default_tree(&declarations(&[]));
        tree.set_at(key, value);
        DataParams::from_tree("numpy", tree, vec![key.to_owned()], PathBuf::new())
    }

    fn pipeline_with(key: &str, value: Value) -> Result<PipelineParams, Vec<ParamFault>> {
        let mut tree = default_tree(PIPELINE);
        tree.set_at(key, value);
        PipelineParams::from_tree(&tree)
    }

    fn text_of<T>(result: Result<T, Vec<ParamFault>>) -> String {
        result.err().unwrap().remove(0).to_string()
    }

    fn str(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    #[test]
    fn data_defaults_are_those_of_ptypy() {
        let data = DataParams::defaults("numpy");
        let expected = DataParams {
            name: "numpy".into(),
            dfile: None,
            chunk_format: None,
            save: None,
            auto_center: None,
            load_parallel: LoadParallel::Data,
            rebin: 1,
            orientation: Orientation::default(),
            min_frames: 1,
            positions_theory: None,
            num_frames: None,
            label: None,
            experiment_id: None,
            version: 0.1,
            shape: Some([256, 256]),
            center: Center::Fftshift,
            psize: Some([0.000172, 0.000172]),
            distance: Some(7.19),
            energy: Some(7.2),
            propagation: "farfield".into(),
            add_poisson_noise: false,
            tree: data.tree.clone(),
            given: vec![],
            base: PathBuf::new(),
        };
        assert_eq!(data, expected);
        assert_eq!(data.tree.get("rebin"), Some(&Value::Int(1)));
        assert_eq!(data.tree.get("chunk_format"), Some(&str(".chunk%02d")));
    }

    #[test]
    fn pipeline_defaults() {
        let expected = PipelineParams {
            frames_per_chunk: None,
            batch: None,
            compression: Compression::Gzip(1),
            dtype: OutputDtype::Ptypy,
            arithmetic: Arithmetic::Exact,
            compat: Compat::None,
            valid_range: None,
            bad_values: vec![],
            on_gap: OnGap::Fill,
            on_abort: OnAbort::Truncate,
            follow: Follow::Any,
            spool: Spool::Off,
            spool_folder: None,
            spool_bytes: 64 << 30,
            on_full: OnFull::Wait,
            live: false,
            parts_linger_secs: 10.0,
            publish_interval_secs: 0.2,
            flush_after_secs: None,
            sink_memory_bytes: 1 << 30,
            producer_memory_bytes: 1 << 30,
            window: 8,
            policy: Sharing::Dynamic,
            workers: None,
            threads: None,
            peer_timeout_secs: 60.0,
            disk_wait_secs: 600.0,
            straggler_secs: 5.0,
            give_up_secs: 300.0,
            checksums: true,
            alignment: true,
            on_first_chunk: None,
            on_done: None,
            fresh: false,
            force: false,
        };
        assert_eq!(PipelineParams::default(), expected);
    }

    #[test]
    fn values_become_types() {
        let triple = Value::List(vec![Value::Bool(true), Value::Bool(false), Value::Bool(true)]);
        let turned = Orientation { transpose: true, flipud: false, fliplr: true };
        assert_eq!(data_with("orientation", triple).unwrap().orientation, turned);
        assert_eq!(data_with("orientation", Value::Int(5)).unwrap().orientation, turned);
        let pair = Value::List(vec![Value::Int(3), Value::Float(4.5)]);
        assert_eq!(data_with("center", pair.clone()).unwrap().center, Center::At([3.0, 4.5]));
        assert_eq!(data_with("center", str("geometric")).unwrap().center, Center::Geometric);
        assert_eq!(data_with("center", Value::None).unwrap().center, Center::None);
        assert_eq!(data_with("psize", pair).unwrap().psize, Some([3.0, 4.5]));
        assert_eq!(
            data_with("load_parallel", Value::None).unwrap().load_parallel,
            LoadParallel::Producer
        );
        let format = data_with("chunk_format", str(".c%04d")).unwrap();
        assert_eq!(format.chunk_format.as_deref(), Some(".c%04d"));
        for (word, compression) in [
            ("none", Compression::None),
            ("gzip", Compression::Gzip(4)),
            ("gzip:9", Compression::Gzip(9)),
            ("shuffle-gzip:2", Compression::ShuffleGzip(2)),
            ("bslz4", Compression::Bslz4),
        ] {
            assert_eq!(pipeline_with("compression", str(word)).unwrap().compression, compression);
        }
        assert_eq!(pipeline_with("dtype", str("uint16")).unwrap().dtype, OutputDtype::Uint16);
    }

    #[test]
    fn theoretical_positions_decide_the_number_of_frames() {
        let row = |y, x| Value::List(vec![Value::Float(y), Value::Int(x)]);
        let data =
            data_with("positions_theory", Value::List(vec![row(1e-6, 0), row(2e-6, 3)])).unwrap();
        let positions = data.positions_theory.unwrap();
        assert_eq!((positions.shape, positions.items), (vec![2, 2], vec![1e-6, 0.0, 2e-6, 3.0]));
        assert_eq!(data.num_frames, Some(2));
        let fault =
            text_of(data_with("positions_theory", Value::List(vec![row(1.0, 2), str("x")])));
        assert_eq!(
            fault,
            "positions_theory: item 1 is 'x', not a pair; give pairs (y, x) in metres"
        );
        let fault = text_of(data_with("positions_theory", Value::List(vec![])));
        assert!(fault.contains("the list is empty"));
    }

    #[test]
    fn faults_name_the_cure() {
        let fault = text_of(data_with("save", str("link")));
        assert_eq!(
            fault,
            "save: 'link' needs a file to write; give data.dfile, or save = \"None\""
        );
        for ending in [".c", ".%d%d", ".%s", "/p%d"] {
            let fault = text_of(data_with("chunk_format", str(ending)));
            assert!(fault.contains("give an ending with one %d"), "{fault}");
        }
        let backwards = Value::List(vec![Value::Int(5), Value::Int(1)]);
        assert!(text_of(pipeline_with("valid_range", backwards)).contains("5 is above 1"));
        let nan = Value::List(vec![Value::Int(1), Value::Float(f64::NAN)]);
        assert!(text_of(pipeline_with("bad_values", nan)).contains("not a finite number"));
    }
}
