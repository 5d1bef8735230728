//! The golden cases: what went into ptypy and what came out, and the configuration that asks
//! ptystream for the same.

use ptystream_common::dtype::Dtype;
use ptystream_common::frame::Array;
use ptystream_common::ptyd::master::PlainWriter;
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A golden case of `cases.json`.
pub struct Case {
    /// Its name, also that of its folder below `expected`.
    pub name: String,
    /// Everything that is recorded of it.
    pub json: Json,
}

/// Returns the folder of the goldens; `None` if it is absent.
pub fn root() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/goldens");
    path.is_dir().then_some(path)
}

fn raw_path(name: &str) -> PathBuf {
    root().expect("goldens are there").join("raw").join(format!("{name}.npy"))
}

/// Returns all cases, in the order of the index; none where the goldens are absent.
pub fn all() -> &'static [Case] {
    static CASES: OnceLock<Vec<Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let Some(root) = root() else { return Vec::new() };
        let text = std::fs::read(root.join("cases.json")).unwrap();
        let index: Json = serde_json::from_slice(&text).unwrap();
        let cases = index["cases"].as_array().unwrap();
        let case =
            |c: &Json| Case { name: c["name"].as_str().unwrap().to_owned(), json: c.clone() };
        cases.iter().map(case).collect()
    })
}

/// Finds a case by its name.
pub fn find(name: &str) -> &'static Case {
    all().iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no golden case {name}"))
}

/// Reads an array of `raw`.
pub fn npy(name: &str) -> Array {
    let path = raw_path(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = npyz::NpyFile::new(&bytes[..]).unwrap();
    assert_eq!(file.order(), npyz::Order::C, "{name}");
    let shape: Vec<usize> = file.shape().iter().map(|&n| n as usize).collect();
    let descr = file.dtype().descr();
    macro_rules! items {
        ($t:ty) => {
            Array::from_items(&shape, &file.into_vec::<$t>().unwrap())
        };
    }
    match descr.trim_matches('\'') {
        "|b1" => {
            let bytes: Vec<u8> =
                file.into_vec::<bool>().unwrap().into_iter().map(u8::from).collect();
            Array::from_bytes(Dtype::Bool, &shape, bytes.into()).unwrap()
        }
        "|u1" => items!(u8),
        "|i1" => items!(i8),
        "<u2" => items!(u16),
        "<i2" => items!(i16),
        "<u4" => items!(u32),
        "<i4" => items!(i32),
        "<i8" => items!(i64),
        "<f4" => items!(f32),
        "<f8" => items!(f64),
        other => panic!("{name}: type {other}"),
    }
}

/// Cuts an array along its first axis.
pub fn slices(a: &Array) -> Vec<Array> {
    let n = a.data.len() / a.shape[0];
    let one =
        |k: usize| Array::from_bytes(a.dtype, &a.shape[1..], a.data.slice(k * n..(k + 1) * n));
    (0..a.shape[0]).map(|k| one(k).unwrap()).collect()
}

impl Case {
    /// Returns the array that `raw` names under `key`.
    pub fn raw(&self, key: &str) -> Option<Array> {
        self.json["raw"][key].as_str().map(npy)
    }

    /// Tells whether a flag of `raw` is set.
    pub fn flag(&self, key: &str) -> bool {
        self.json["raw"][key] == true
    }

    /// Returns the rows of ptypy's chunks.
    pub fn chunks(&self) -> Vec<usize> {
        let messages = self.json["result"]["messages"].as_array().unwrap();
        messages.iter().filter_map(|m| m["indices"].as_array()).map(Vec::len).collect()
    }

    /// Returns the names of the files that ptypy left, without `.gz`, sorted.
    pub fn files(&self) -> Vec<String> {
        let names = self.json["files"].as_array().unwrap();
        let plain = |f: &Json| f.as_str().unwrap().trim_end_matches(".gz").to_owned();
        let mut names: Vec<String> = names.iter().map(plain).collect();
        names.sort();
        names
    }

    /// Puts ptypy's files into `folder`, unpacked, and returns the path of the `.ptyd`.
    pub fn unpack(&self, folder: &Path) -> PathBuf {
        let from = root().expect("goldens are there").join("expected").join(&self.name);
        copy(&from, folder);
        folder.join(self.json["pars"]["dfile"].as_str().unwrap())
    }

    /// Writes the configuration of this case, and its input where that is a file, into `folder`.
    pub fn configure(&self, folder: &Path, compat: bool) -> PathBuf {
        let mut data = self.json["pars"].clone();
        if let Some(text) = data["positions_theory"].as_str() {
            data["positions_theory"] = theory(text);
        }
        if self.json["kind"] == "hdf5loader" {
            let file = self.write_hdf5(folder);
            let keyed = |name: &str| json!({ "file": file, "key": format!("chunks/0/{name}") });
            data["name"] = json!("Hdf5Loader");
            data["intensities"] = keyed("data");
            data["positions"] =
                json!({ "file": file, "slow_key": "chunks/0/y", "fast_key": "chunks/0/x" });
            for (ours, key) in [("mask", "weight2d"), ("darkfield", "dark"), ("flatfield", "flat")]
            {
                if self.json["raw"][key].is_string() {
                    data[ours] = keyed(key);
                }
            }
        } else if self.json["kind"] == "ptydscan" {
            let from = self.json["raw"]["source"].as_str().unwrap();
            let folder = folder.join("source");
            std::fs::create_dir_all(&folder).unwrap();
            data["name"] = json!("PtydScan");
            data["source"] = json!(find(from).unpack(&folder));
            let block = data.as_object_mut().unwrap();
            for key in block.remove("drop").iter().filter_map(Json::as_array).flatten() {
                block.remove(key.as_str().unwrap());
            }
        } else {
            data["name"] = json!("golden");
            data["case"] = json!(self.name);
        }
        let mut pipeline =
            json!({ "frames_per_chunk": self.json["frames"][0], "compression": "gzip:4" });
        if compat {
            pipeline["compat"] = json!("ptypy");
        }
        let path = folder.join("config.json");
        let tree = json!({ "data": data, "pipeline": pipeline });
        std::fs::write(&path, serde_json::to_vec_pretty(&tree).unwrap()).unwrap();
        path
    }

    fn write_hdf5(&self, folder: &Path) -> PathBuf {
        let path = folder.join("writing.h5");
        let mut arrays: Vec<(&str, Array)> = Vec::new();
        for key in ["data", "weight2d", "dark", "flat"] {
            arrays.extend(self.raw(key).map(|a| (key, a)));
        }
        let positions = self.raw("positions").unwrap();
        let column = |k: usize| -> Array {
            let items: Vec<f64> = positions.to_f64().chunks(2).map(|p| p[k]).collect();
            Array::from_items(&[items.len()], &items)
        };
        arrays.extend([("y", column(0)), ("x", column(1))]);
        let arrays: Vec<(&str, &Array)> = arrays.iter().map(|(name, a)| (*name, a)).collect();
        let mut writer = PlainWriter::create(&path, &[], &[]).unwrap();
        writer.add(&arrays).unwrap();
        writer.close().unwrap();
        // A copy: a process that another test starts at this moment inherits the written file
        // as HDF5 opened it, with its lock.
        let copy = folder.join("input.h5");
        std::fs::copy(&path, &copy).unwrap();
        copy
    }
}

/// Makes the positions of `@a_pos[:6]*2`: the first six rows of `a_pos`, doubled.
fn theory(text: &str) -> Json {
    let (name, rest) = text.trim_start_matches('@').split_once(['[', '*']).unwrap();
    let rows =
        rest.strip_prefix(':').and_then(|r| r.split_once(']')).map(|(n, _)| n.parse().unwrap());
    assert!(text.ends_with("*2"), "{text}");
    let items = npy(name).to_f64();
    let pairs = items.chunks(2).map(|p| json!([2.0 * p[0], 2.0 * p[1]]));
    Json::Array(pairs.take(rows.unwrap_or(usize::MAX)).collect())
}

/// Copies a folder, unpacking what is packed and leaving out what is JSON.
pub fn copy(from: &Path, to: &Path) {
    let paths: Vec<PathBuf> =
        std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).collect();
    std::fs::create_dir_all(to).unwrap();
    for path in paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if let Some(name) = name.strip_suffix(".gz") {
            std::fs::write(to.join(name), gunzip(&std::fs::read(&path).unwrap())).unwrap();
        } else if !name.ends_with(".json") {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    // The last four bytes of a gzip member are the size of what is in it.
    let size = u32::from_le_bytes(packed[packed.len() - 4..].try_into().unwrap());
    let mut plain = vec![0; size as usize];
    libdeflater::Decompressor::new().gzip_decompress(packed, &mut plain).unwrap();
    plain
}
