//! Every golden case through the preparation, chunk by chunk, as it is and with
//! `compat = "ptypy"`. The names below are those of `docs/deviations.md`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use ptystream_common::codec::{Encoding, decode};
use ptystream_common::dtype::Dtype;
use ptystream_common::form::prepared_form;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame};
use ptystream_common::geometry::{Center, Geometry, Orientation, needs_auto_center};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{PreparePlan, PreparedForm, WeightsFrom};
use ptystream_common::params::Compat;
use ptystream_worker::{PrepareError, PreparedBatch, Preparer};
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{npy, sha256};

/// Returns the weights that all frames share, decoded: they are compressed whatever the data are.
fn common_weights(preparer: &mut Preparer) -> Vec<u8> {
    let stored = preparer.common_weights().unwrap().unwrap();
    let form = preparer.form().unwrap();
    let [rows, cols] = form.weights_shape;
    let len = form.batch as usize * rows * cols * form.weights.size();
    let mut out = Vec::new();
    decode(&form.weights_filters, &stored, len, &mut out).unwrap();
    out
}

/// Prepares frames of consecutive indices, as a ticket without gaps has them.
fn whole(preparer: &mut Preparer, frames: &[Loaded]) -> Result<PreparedBatch, PrepareError> {
    let first = frames.first().map_or(0, |f| f.index.0);
    preparer.prepare(IndexRange::new(first, frames.len() as u32), frames)
}

/// ptypy's result only with `compat = "ptypy"`; as it is, the flat divides in float.
const FLOAT_FLAT: [&str; 3] =
    ["corr_hdf5_dark_flat", "hdf5loader_dark_flat_mask", "hdf5loader_rebin_orient"];
/// ptypy's result only without `compat`: a `correct` of the user's own, which divides in float.
const OWN_CORRECT: [&str; 2] = ["corr_float_dark_flat", "corr_float_dark_flat_rebin"];
/// ptypy's result only with `compat = "ptypy"`; as it is, all stays masked.
const ALL_MASKED: [&str; 1] = ["rebin_2_allmasked"];
/// ptypy's result only with `compat = "ptypy"`; as it is, the mask is refused.
const MASK_SHAPE: [&str; 3] = ["weight2d_small", "weight2d_small_orient", "weight2d_small_noop"];
/// Never ptypy's result: it depends on the number of ranks.
const BY_RANK: [&str; 1] = ["rebin_2_permask_chunk8_mpi2"];
/// ptypy makes a file, we refuse.
const REFUSED: [&str; 2] = ["orient_bad_m1", "shape_zero"];
/// ptypy fails, and so do we, in a sentence.
const BOTH_REFUSE: [&str; 5] =
    ["center_fft", "center_zero", "orient_bad_8", "rebin_2_odd_shape", "rebin_5_incompatible"];
/// ptypy fails, we prepare: a frame without light does not count for the centre.
const ZERO_FRAME: &str = "center_auto_zeroframe";
/// ptypy fails; we refuse the mask, or crop it with `compat = "ptypy"`, as no centre is needed.
const MASK_SHAPE_MEASURED: &str = "center_auto_base_weight_misshape";
/// Not decided by the preparation: the parameter's type, the way of saving.
const ELSEWHERE: [&str; 2] = ["center_scalar", "save_merge"];

fn goldens() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/goldens");
    if !path.is_dir() {
        println!("skipped: ../shared is absent");
        return None;
    }
    Some(path)
}

fn read_json(path: &Path) -> Json {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What comes out of a chunk.
struct Chunk {
    data: Vec<u8>,
    weights: Vec<u8>,
}

/// What comes out of a case.
struct Outcome {
    geometry: Geometry,
    form: PreparedForm,
    chunks: Vec<Chunk>,
}

/// Raw frames and arrays of a case.
struct Input {
    frames: Vec<Loaded>,
    weights: WeightsFrom,
    arrays: BTreeMap<String, Array>,
}

fn slices(a: &Array) -> Vec<Array> {
    let n = a.data.len() / a.shape[0];
    (0..a.shape[0])
        .map(|k| {
            Array::from_bytes(a.dtype, &a.shape[1..], a.data.slice(k * n..(k + 1) * n)).unwrap()
        })
        .collect()
}

fn frames_of(data: &[Array], weights: Option<&[Array]>) -> Vec<Loaded> {
    let frame = |(k, a): (usize, &Array)| {
        let form = FrameForm { dtype: a.dtype, shape: [a.shape[0], a.shape[1]] };
        let frame = RawFrame::new(form, Encoding::Raw, a.data.clone());
        let weights = weights.map(|w| w[k].clone());
        Loaded { weights, ..Loaded::plain(Index(k as u64), frame) }
    };
    data.iter().enumerate().map(frame).collect()
}

fn input(root: &Path, case: &Json) -> Input {
    let raw = &case["raw"];
    let load = |key: &str| {
        raw[key].as_str().map(|name| npy(&root.join("raw").join(format!("{name}.npy"))))
    };
    let mut data = slices(&load("data").unwrap());
    if let Some(k) = raw["zero_frame"].as_u64() {
        let zeros = vec![0; data[k as usize].data.len()];
        data[k as usize].data = zeros.into();
    }
    let frame = data[0].shape.clone();
    let mut weight = load("weight2d");
    if let (Some(w), Some(cut)) = (&weight, raw["weight2d_slice"].as_array()) {
        let at: Vec<usize> = cut.iter().map(|v| v.as_u64().unwrap() as usize).collect();
        let rows: Vec<u8> =
            (at[0]..at[1]).flat_map(|y| w.data[y * w.shape[1]..][at[2]..at[3]].to_vec()).collect();
        weight = Array::from_bytes(w.dtype, &[at[1] - at[0], at[3] - at[2]], rows.into());
    }
    if let Some(w) = weight.as_mut().filter(|_| raw["zero_weight"] == true) {
        w.data = vec![0; w.data.len()].into();
    }
    if raw["base_weight"] == true {
        // ptypy's own `load_weight`: ones of the region of interest.
        let n = case["pars"]["shape"].as_u64().unwrap() as usize;
        weight = Array::from_bytes(Dtype::Bool, &[n, n], vec![1; n * n].into());
    }
    if case["kind"] == "hdf5loader" && weight.is_none() {
        weight = Some(Array::from_items(&frame, &vec![1i64; frame[0] * frame[1]]));
    }
    let own = load("weights").map(|w| slices(&w));
    let mut arrays = BTreeMap::new();
    for key in ["dark", "flat"] {
        arrays.extend(load(key).map(|a| (key.to_owned(), a)));
    }
    let weights = match (&own, &weight) {
        (Some(own), _) => WeightsFrom::Frame(own[0].dtype),
        (None, Some(w)) => WeightsFrom::Scan(w.dtype),
        (None, None) => WeightsFrom::Ones,
    };
    arrays.extend(weight.map(|w| ("weight".to_owned(), w)));
    Input { frames: frames_of(&data, own.as_deref()), weights, arrays }
}

fn pair(v: &Json) -> Option<[f64; 2]> {
    match v {
        Json::Number(n) => Some([n.as_f64()?; 2]),
        Json::Array(a) => Some([a[0].as_f64()?, a[1].as_f64()?]),
        _ => None,
    }
}

fn orientation(v: &Json) -> Result<Orientation, String> {
    match v {
        Json::Null => Ok(Orientation::default()),
        Json::Array(a) => Ok(Orientation {
            transpose: a[0].as_bool().unwrap(),
            flipud: a[1].as_bool().unwrap(),
            fliplr: a[2].as_bool().unwrap(),
        }),
        n => u8::try_from(n.as_i64().unwrap())
            .ok()
            .and_then(Orientation::from_number)
            .ok_or(format!("orientation {n} is refused")),
    }
}

fn chunks_of(case: &Json) -> Vec<Vec<usize>> {
    let index = |v: &Json| v.as_u64().unwrap() as usize;
    case["result"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|m| m["indices"].as_array())
        .map(|all| all.iter().map(index).collect())
        .collect()
}

/// Does what producer, worker and sink do together, to one case.
fn run(root: &Path, case: &Json, compat: Compat) -> Result<Outcome, String> {
    let mut pars = case["pars"].clone();
    let source = case["raw"]["source"].as_str();
    let input = match source {
        None => input(root, case),
        Some(name) => {
            // A prepared file read again: its frames and weights, and its shape and centre where
            // the case gives none.
            let cases = read_json(&root.join("cases.json"));
            let first = cases["cases"].as_array().unwrap().iter().find(|c| c["name"] == name);
            let Outcome { form, chunks, geometry } = run(root, first.unwrap(), compat)?;
            for dropped in pars["drop"].as_array().cloned().unwrap_or_default() {
                match dropped.as_str().unwrap() {
                    "center" => pars["center"] = serde_json::json!(geometry.meta_center()),
                    key => pars[key] = Json::Null,
                }
            }
            let split = |dtype: Dtype, bytes: fn(&Chunk) -> &[u8]| -> Vec<Array> {
                let [h, w] = form.shape;
                let all = chunks.iter().flat_map(|c| bytes(c).chunks(h * w * dtype.size()));
                all.map(|b| Array::from_bytes(dtype, &[h, w], b.to_vec().into()).unwrap()).collect()
            };
            let weights = split(form.weights, |c| &c.weights);
            Input {
                frames: frames_of(&split(form.data, |c| &c.data), Some(&weights)),
                weights: WeightsFrom::Frame(form.weights),
                arrays: BTreeMap::new(),
            }
        }
    };
    let chunks = match chunks_of(case) {
        // ptypy failed before the first chunk.
        none if none.is_empty() => vec![(0..input.frames.len().min(4)).collect()],
        chunks => chunks,
    };
    let center = match &pars["center"] {
        Json::Null => Center::None,
        Json::String(s) if s == "fftshift" => Center::Fftshift,
        Json::String(s) if s == "geometric" => Center::Geometric,
        Json::String(s) if s == "fft" => Center::Fft,
        other => Center::At(pair(other).unwrap()),
    };
    let auto_center = pars["auto_center"].as_bool();
    let frame = input.frames[0].frame.form;
    let mut plan = PreparePlan {
        corrected: input.arrays.contains_key("dark") || input.arrays.contains_key("flat"),
        weights: input.weights,
        compat,
        frames_per_chunk: 4,
        ..PreparePlan::plain(frame)
    };
    let text = |e: &dyn std::error::Error| e.to_string();
    let mut auto = None;
    if needs_auto_center(center, auto_center) {
        let mut preparer = Preparer::new(&plan, &input.arrays).map_err(|e| text(&e))?;
        let mut centers = Vec::new();
        for &k in &chunks[0] {
            centers.extend(preparer.measure(&input.frames[k]).map_err(|e| text(&e))?);
        }
        let mean =
            |axis: usize| centers.iter().map(|c| c[axis]).sum::<f64>() / centers.len() as f64;
        auto = (!centers.is_empty()).then(|| [mean(0), mean(1)]);
    }
    let geometry = Geometry::resolve(
        frame.shape,
        pair(&pars["shape"]).map(|s| s.map(|v| v as usize)),
        center,
        auto_center,
        auto,
        orientation(&pars["orientation"])?,
        pars["rebin"].as_u64().unwrap_or(1) as usize,
    )
    .map_err(|e| text(&e))?;
    plan.geometry = Some(geometry.clone());
    let mut out = Vec::new();
    let mut form = None;
    for indices in &chunks {
        plan.batch = indices.len() as u32;
        let mut preparer = Preparer::new(&plan, &input.arrays).map_err(|e| text(&e))?;
        let frames: Vec<Loaded> = indices.iter().map(|&k| input.frames[k].clone()).collect();
        let batch = whole(&mut preparer, &frames).map_err(|e| text(&e))?;
        let mut weights = match batch.weights {
            Some(own) => own.to_vec(),
            None => common_weights(&mut preparer),
        };
        if let Some(valid) = &batch.max_valid {
            let best = valid.iter().max().unwrap();
            let n = weights.len() / valid.len();
            for (w, _) in weights.chunks_mut(n).zip(valid).filter(|(_, v)| *v < best) {
                w.fill(0);
            }
        }
        let f = preparer.form().unwrap().clone();
        let weight = input.arrays.get("weight").map(|w| (w.dtype, [w.shape[0], w.shape[1]]));
        assert_eq!(f, prepared_form(&plan, weight).unwrap());
        form = Some(f);
        out.push(Chunk { data: batch.data.to_vec(), weights });
    }
    Ok(Outcome { geometry, form: form.unwrap(), chunks: out })
}

/// Finds what differs from ptypy's file.
fn differences(root: &Path, case: &Json, outcome: &Outcome) -> Vec<String> {
    let name = case["name"].as_str().unwrap();
    let tree = read_json(&root.join("expected").join(name).join("tree.json"));
    let files = tree.as_object().unwrap();
    let mut found = Vec::new();
    let Some(master) = files.iter().find(|(_, t)| t["/meta"].is_object()).map(|(_, t)| t) else {
        return found;
    };
    let g = &outcome.geometry;
    let numbers = |at: &Json| -> Option<Vec<f64>> {
        at["value"].as_array().map(|v| v.iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect())
    };
    let mut near = |what: &str, at: &Json, got: &[f64]| {
        if let Some(expected) = numbers(at).filter(|e| e.len() == got.len()) {
            let same = got.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-14 * b.abs());
            if !same {
                found.push(format!("{what} is {got:?}, ptypy's {expected:?}"));
            }
        }
    };
    near("meta/center", &master["/meta/center"], &g.meta_center());
    near("meta/shape", &master["/meta/shape"], &g.meta_shape().map(|n| n as f64));
    if case["kind"] == "rawscan" {
        near("info/center", &master["/info/center"], &g.center);
        let psize = g.meta_psize(pair(&case["pars"]["psize"]));
        near("meta/psize", &master["/meta/psize"], &psize.unwrap());
    }
    for (k, chunk) in outcome.chunks.iter().enumerate() {
        for (part, bytes, dtype, shape) in [
            ("data", &chunk.data, outcome.form.data, outcome.form.shape),
            ("weights", &chunk.weights, outcome.form.weights, outcome.form.weights_shape),
        ] {
            let linked = format!(".part{k:03}");
            let of_link = files.iter().find(|(f, _)| f.ends_with(&linked)).map(|(_, t)| t);
            let inside = &master[&format!("/chunks/{k}/{part}")];
            let expected = match of_link {
                Some(t) if !inside.is_object() => &t[&format!("/{part}")],
                _ => inside,
            };
            if !expected.is_object() {
                continue;
            }
            let count = bytes.len() / (shape[0] * shape[1] * dtype.size());
            let got = (dtype.name(), serde_json::json!([count, shape[0], shape[1]]));
            if expected["dtype"] != got.0 || expected["shape"] != got.1 {
                let (d, s) = (&expected["dtype"], &expected["shape"]);
                found.push(format!("chunk {k} {part}: {} {}, ptypy's {d} {s}", got.0, got.1));
            } else if expected["sha256"] != sha256(bytes) {
                found.push(format!("chunk {k} {part}: other values"));
            } else {
                COMPARED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    found
}

static COMPARED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

#[test]
fn every_case_is_prepared_as_ptypy_does_but_for_the_listed_deviations() {
    let Some(root) = goldens() else { return };
    let cases = read_json(&root.join("cases.json"));
    let mut wrong = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if ELSEWHERE.contains(&name) {
            continue;
        }
        for compat in [Compat::None, Compat::Ptypy] {
            let imitated = compat == Compat::Ptypy;
            let refused = REFUSED.contains(&name)
                || BOTH_REFUSE.contains(&name)
                || (MASK_SHAPE.contains(&name) || name == MASK_SHAPE_MEASURED) && !imitated;
            let differs = match imitated {
                true => OWN_CORRECT.contains(&name),
                false => FLOAT_FLAT.contains(&name) || ALL_MASKED.contains(&name),
            } || BY_RANK.contains(&name);
            match run(&root, case, compat) {
                Err(_) if refused => {}
                Err(text) => wrong.push(format!("{name} {compat:?}: refused: {text}")),
                Ok(_) if refused => wrong.push(format!("{name} {compat:?}: not refused")),
                Ok(outcome) => {
                    let found = differences(&root, case, &outcome);
                    if found.is_empty() == differs {
                        wrong.push(format!("{name} {compat:?}: {found:?}"));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
    let compared = COMPARED.load(std::sync::atomic::Ordering::Relaxed);
    assert!(compared > 900, "only {compared} arrays were compared");
}

fn case(root: &Path, name: &str) -> Json {
    let cases = read_json(&root.join("cases.json"));
    cases["cases"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone()
}

#[test]
fn as_it_is_the_flat_divides_in_float() {
    let Some(root) = goldens() else { return };
    for name in FLOAT_FLAT {
        let outcome = run(&root, &case(&root, name), Compat::None).unwrap();
        assert_eq!(outcome.form.data, Dtype::F64, "{name}");
    }
    // The same frames with ptypy's float correction are a golden of their own.
    let own = run(&root, &case(&root, FLOAT_FLAT[0]), Compat::None).unwrap();
    assert_eq!(differences(&root, &case(&root, OWN_CORRECT[0]), &own), Vec::<String>::new());
}

#[test]
fn as_it_is_what_is_all_masked_stays_masked() {
    let Some(root) = goldens() else { return };
    let all = |compat| {
        let outcome = run(&root, &case(&root, ALL_MASKED[0]), compat).unwrap();
        outcome.chunks.into_iter().flat_map(|c| c.weights).collect::<Vec<_>>()
    };
    assert!(all(Compat::None).iter().all(|&w| w == 0));
    assert!(all(Compat::Ptypy).iter().all(|&w| w == 1));
}

#[test]
fn the_best_bin_of_a_chunk_does_not_depend_on_ranks() {
    let Some(root) = goldens() else { return };
    let outcome = run(&root, &case(&root, BY_RANK[0]), Compat::None).unwrap();
    let serial = case(&root, "rebin_2_permask_chunk8");
    assert_eq!(differences(&root, &serial, &outcome), Vec::<String>::new());
}

#[test]
fn a_frame_without_light_does_not_count_for_the_centre() {
    let Some(root) = goldens() else { return };
    let outcome = run(&root, &case(&root, ZERO_FRAME), Compat::None).unwrap();
    let [y, x] = outcome.geometry.center;
    assert!((10.0..30.0).contains(&y) && (10.0..30.0).contains(&x), "{y} {x}");
}

#[test]
fn a_mask_of_another_extent_is_refused_by_name() {
    let Some(root) = goldens() else { return };
    let text = run(&root, &case(&root, MASK_SHAPE[0]), Compat::None).err().unwrap();
    assert!(text.contains("mask is 30x30, frames are 40x36"), "{text}");
}

#[test]
fn sha256_is_that_of_the_standard() {
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b"abc"), abc);
}
