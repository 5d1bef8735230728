//! What a preparer makes of invalid values, weights of frames, encodings and types.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use ptystream_common::codec::{Compression, Encoding, Filter, decode, encode};
use ptystream_common::dtype::Dtype;
use ptystream_common::form::region;
use ptystream_common::frame::{Array, FrameForm, Loaded, RawFrame, Region};
use ptystream_common::geometry::{Center, Geometry, Orientation};
use ptystream_common::index::{Index, IndexRange};
use ptystream_common::message::{PreparePlan, WeightsFrom};
use ptystream_common::params::{Arithmetic, Compat, OutputDtype};
use ptystream_worker::{PrepareError, PreparedBatch, Preparer};
use std::collections::BTreeMap;

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

fn frame(index: u64, array: &Array) -> Loaded {
    Loaded::plain(
        Index(index),
        RawFrame::new(
            FrameForm { dtype: array.dtype, shape: [array.shape[0], array.shape[1]] },
            Encoding::Raw,
            array.data.clone(),
        ),
    )
}

/// A plan that leaves whole frames as they are, but for `rebin` and `orientation`.
fn plan(array: &Array, rebin: usize, orientation: u8) -> PreparePlan {
    let form = FrameForm { dtype: array.dtype, shape: [array.shape[0], array.shape[1]] };
    let orientation = Orientation::from_number(orientation).unwrap();
    let geometry =
        Geometry::resolve(form.shape, None, Center::Fftshift, None, None, orientation, rebin);
    PreparePlan {
        geometry: Some(geometry.unwrap()),
        frames_per_chunk: 4,
        ..PreparePlan::plain(form)
    }
}

fn arrays(entries: &[(&str, &Array)]) -> BTreeMap<String, Array> {
    entries.iter().map(|(k, a)| ((*k).to_owned(), (*a).clone())).collect()
}

fn f64s(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn invalid_values_lose_their_weight_before_dark_and_flat() {
    let raw = Array::from_items(&[2, 2], &[5u16, 65535, 7, 900]);
    let dark = Array::from_items(&[2, 2], &[1u16; 4]);
    let mut p = plan(&raw, 1, 0);
    (p.corrected, p.bad_values, p.valid_range) = (true, vec![65535.0], Some([0.0, 800.0]));
    let mut preparer = Preparer::new(&p, &arrays(&[("dark", &dark)])).unwrap();
    assert_eq!(preparer.common_weights().unwrap(), None);
    let batch = whole(&mut preparer, &[frame(0, &raw)]).unwrap();
    assert_eq!(f64s(&batch.data), [4.0, 0.0, 6.0, 0.0]);
    assert_eq!(f64s(&batch.weights.unwrap()), [1.0, 0.0, 1.0, 0.0]);
    assert_eq!(batch.invalid, Some(vec![2]));
    assert_eq!(batch.max_valid, None);
}

#[test]
fn a_useless_flat_masks_its_pixel_but_not_for_ptypy() {
    let raw = Array::from_items(&[2, 2], &[5u16, 6, 7, 8]);
    let flat = Array::from_items(&[2, 2], &[1.0f32, 0.0, f32::NAN, 2.0]);
    let mut p = plan(&raw, 1, 0);
    p.corrected = true;
    let mut preparer = Preparer::new(&p, &arrays(&[("flat", &flat)])).unwrap();
    assert_eq!(f64s(&common_weights(&mut preparer)), [1.0, 0.0, 0.0, 1.0]);
    assert_eq!(f64s(&whole(&mut preparer, &[frame(0, &raw)]).unwrap().data), [5.0, 0.0, 0.0, 4.0]);
    p.compat = Compat::Ptypy;
    let mut preparer = Preparer::new(&p, &arrays(&[("flat", &flat)])).unwrap();
    assert_eq!(f64s(&common_weights(&mut preparer)), [1.0; 4]);
}

#[test]
fn the_best_bin_is_reported_for_weights_of_frames() {
    let raw = Array::from_items(&[4, 4], &[1u8; 16]);
    let mut p = plan(&raw, 2, 4);
    (p.weights, p.batch) = (WeightsFrom::Frame(Dtype::U8), 3);
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    let with = |index, weights: [u8; 16]| Loaded {
        weights: Some(Array::from_items(&[4, 4], &weights)),
        ..frame(index, &raw)
    };
    // Upper right bin clean, or only three good pixels in the lower left one, or nothing.
    let a = [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let b = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1];
    let batch = whole(&mut preparer, &[with(0, a), with(1, b), with(2, [0; 16])]).unwrap();
    assert_eq!(batch.max_valid, Some(vec![4, 3, 0]));
    // Transposed: rows become columns.
    assert_eq!(&batch.weights.unwrap()[..], [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(f64s(&batch.data), [1.0; 12]);
    let missing = whole(&mut preparer, &[frame(7, &raw)]).unwrap_err();
    assert_eq!(missing, PrepareError::Weights { index: Index(7), missing: true });
}

#[test]
fn a_row_without_a_frame_becomes_zeros() {
    let raw = Array::from_items(&[2, 2], &[1u16, 2, 3, 4]);
    let mut p = plan(&raw, 1, 0);
    p.batch = 3;
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    whole(&mut preparer, &[frame(0, &raw), frame(1, &raw), frame(2, &raw)]).unwrap();
    let got = preparer.prepare(IndexRange::new(6, 3), &[frame(6, &raw), frame(8, &raw)]).unwrap();
    let raw = &raw.data[..];
    assert_eq!(got.data[..], [raw, &[0; 8], raw].concat());
    assert!(preparer.prepare(IndexRange::new(6, 3), &[]).is_ok_and(|b| b.data[..] == [0; 24]));
}

#[test]
fn a_short_batch_is_padded_with_zeros_and_common_weights_are_repeated() {
    let raw = Array::from_items(&[2, 2], &[1u16, 2, 3, 4]);
    let mut p = plan(&raw, 1, 0);
    (p.batch, p.compression) = (3, Compression::ShuffleGzip(1));
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    // A full batch before it leaves its pixels in the memory that is used again.
    whole(&mut preparer, &[frame(0, &raw), frame(1, &raw), frame(2, &raw)]).unwrap();
    let batch = whole(&mut preparer, &[frame(0, &raw)]).unwrap();
    let form = preparer.form().unwrap().clone();
    let mut out = Vec::new();
    decode(&form.data_filters, &batch.data, 24, &mut out).unwrap();
    assert_eq!(out[..8], raw.data[..]);
    assert_eq!(out[8..], [0; 16]);
    let weights = preparer.common_weights().unwrap().unwrap();
    decode(&form.weights_filters, &weights, 96, &mut out).unwrap();
    assert_eq!(f64s(&out), [1.0; 12]);
    let four = vec![frame(0, &raw); 4];
    assert_eq!(whole(&mut preparer, &four).unwrap_err(), PrepareError::Batch { got: 4, batch: 3 });
}

#[test]
fn encoded_and_unaligned_frames_are_read() {
    let raw = Array::from_items(&[16, 16], &(0..256).map(|i| i * 3).collect::<Vec<u16>>());
    let mut preparer = Preparer::new(&plan(&raw, 2, 5), &BTreeMap::new()).unwrap();
    let plain = whole(&mut preparer, &[frame(0, &raw)]).unwrap();
    let mut coded = frame(0, &raw);
    let filters = vec![Filter::Bslz4(2)];
    let mut stored = Vec::new();
    encode(&filters, &raw.data, &mut stored).unwrap();
    coded.frame.payload = stored.clone().into();
    coded.frame.encoding = Encoding::Filters(filters);
    assert_eq!(whole(&mut preparer, &[coded.clone()]).unwrap(), plain);
    let mut shifted = frame(0, &raw);
    let bytes: Vec<u8> = [0].into_iter().chain(raw.data.iter().copied()).collect();
    shifted.frame.payload = bytes::Bytes::from(bytes).slice(1..);
    assert_eq!(whole(&mut preparer, &[shifted]).unwrap(), plain);
    coded.frame.payload = stored[..stored.len() / 2].to_vec().into();
    let error = whole(&mut preparer, &[coded]).unwrap_err();
    assert!(error.is_of_frame() && matches!(error, PrepareError::Decode { .. }), "{error}");
}

#[test]
fn an_encoded_frame_is_decoded_where_it_is_needed() {
    let (rows, cols) = (200usize, 100usize);
    let raw = Array::from_items(&[rows, cols], &(0..20_000).map(|i| i as u16).collect::<Vec<_>>());
    let mut p = plan(&raw, 1, 0);
    let size = Some([50; 2]);
    let o = Orientation::from_number(3).unwrap();
    for center in [[30.0, 30.0], [100.0, 50.0], [199.0, 99.0]] {
        let at = Center::At(center);
        p.geometry = Some(Geometry::resolve([rows, cols], size, at, None, None, o, 1).unwrap());
        let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
        let plain = whole(&mut preparer, &[frame(0, &raw)]).unwrap();
        for filters in [vec![Filter::Bslz4(2)], vec![Filter::Shuffle(2), Filter::Lz4]] {
            let mut stored = Vec::new();
            encode(&filters, &raw.data, &mut stored).unwrap();
            let mut coded = frame(0, &raw);
            coded.frame.payload = stored.into();
            coded.frame.encoding = Encoding::Filters(filters);
            assert_eq!(whole(&mut preparer, &[coded]).unwrap(), plain, "{center:?}");
        }
    }
}

#[test]
fn arrays_and_frames_that_do_not_fit_are_refused() {
    let raw = Array::from_items(&[4, 4], &[1u16; 16]);
    let mut p = plan(&raw, 1, 0);
    let small = Array::from_items(&[3, 4], &[1.0f32; 12]);
    p.corrected = true;
    assert_eq!(
        Preparer::new(&p, &arrays(&[("flat", &small)])).unwrap_err(),
        PrepareError::ArrayShape { name: "flat", got: vec![3, 4], frame: [4, 4] }
    );
    assert!(matches!(
        Preparer::new(&p, &BTreeMap::new()).unwrap_err(),
        PrepareError::ArrayMissing(_)
    ));
    p.corrected = false;
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    let other = frame(3, &Array::from_items(&[4, 4], &[1u8; 16]));
    let text = whole(&mut preparer, &[other]).unwrap_err().to_string();
    assert!(text.contains("frame 3 is 4x4 uint8, the scan's frames are 4x4 uint16"), "{text}");
    let mut short = frame(4, &raw);
    short.frame.payload = short.frame.payload.slice(1..);
    let error = whole(&mut preparer, &[short]).unwrap_err();
    assert_eq!(error, PrepareError::FrameLength { index: Index(4), expected: 32, got: 31 });
}

#[test]
fn a_centre_is_measured_without_a_geometry_and_over_good_pixels() {
    let mut pixels = [0u16; 20];
    (pixels[7], pixels[13], pixels[0]) = (10, 30, 65535);
    let raw = Array::from_items(&[4, 5], &pixels);
    let mut p = plan(&raw, 1, 0);
    (p.geometry, p.bad_values) = (None, vec![65535.0]);
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    assert!(preparer.form().is_none());
    assert_eq!(preparer.measure(&frame(0, &raw)).unwrap(), Some([1.75, 2.75]));
    let dark = Array::from_items(&[4, 5], &[0u16; 20]);
    assert_eq!(preparer.measure(&frame(0, &dark)).unwrap(), None);
    assert!(whole(&mut preparer, &[frame(0, &raw)]).is_err());
}

#[test]
fn the_stored_type_can_be_chosen() {
    let raw = Array::from_items(&[2, 2], &[1u16, 2, 2, 2]);
    let mut p = plan(&raw, 2, 0);
    for (dtype, bytes) in [
        (OutputDtype::Ptypy, 1.75f64.to_le_bytes().to_vec()),
        (OutputDtype::Float32, 1.75f32.to_le_bytes().to_vec()),
        (OutputDtype::Uint16, 2u16.to_le_bytes().to_vec()),
        (OutputDtype::Int32, 2i32.to_le_bytes().to_vec()),
    ] {
        p.dtype = dtype;
        let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
        assert_eq!(whole(&mut preparer, &[frame(0, &raw)]).unwrap().data[..], bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn fast_is_within_a_millionth_of_exact(
        seed in any::<u32>(), rebin in 1usize..5, orientation in 0u8..8, wide in any::<bool>(),
        dark in any::<bool>(), flat in any::<bool>(),
    ) {
        let n = 12usize;
        let random = |k: usize| (k as u32 + 1).wrapping_mul(2654435761).wrapping_add(seed) >> 7;
        let raw = if wide {
            Array::from_items(&[n, n], &(0..n * n).map(random).collect::<Vec<_>>())
        } else {
            Array::from_items(&[n, n], &(0..n * n).map(|k| random(k) as u16).collect::<Vec<_>>())
        };
        let d = Array::from_items(&[n, n], &(0..n * n).map(|k| (k % 60) as u16).collect::<Vec<_>>());
        let f = (0..n * n).map(|k| 0.5 + (k % 19) as f32 / 17.0).collect::<Vec<_>>();
        let f = Array::from_items(&[n, n], &f);
        let mut p = plan(&raw, rebin, orientation);
        p.corrected = dark || flat;
        p.dtype = OutputDtype::Float64;
        let mut given = BTreeMap::new();
        if dark { given.insert("dark".to_owned(), d); }
        if flat { given.insert("flat".to_owned(), f); }
        let exact = whole(&mut Preparer::new(&p, &given).unwrap(), &[frame(0, &raw)]).unwrap();
        p.arithmetic = Arithmetic::Fast;
        let fast = whole(&mut Preparer::new(&p, &given).unwrap(), &[frame(0, &raw)]).unwrap();
        for (a, b) in f64s(&fast.data).into_iter().zip(f64s(&exact.data)) {
            prop_assert!((a - b).abs() <= 1e-6 * b.abs(), "{} {}", a, b);
        }
    }
}

/// Cuts a region out of a frame.
fn part(frame: &Loaded, region: Region) -> Loaded {
    let payload: Vec<u8> = frame.frame.rows_of(region).unwrap().flatten().copied().collect();
    Loaded { frame: RawFrame::part(frame.frame.form, region, payload.into()), ..frame.clone() }
}

proptest! {
    #[test]
    fn of_a_frame_no_more_is_needed_than_the_region_that_is_kept(
        seed in any::<u32>(), roi in 1usize..14, center in (0.1f64..9.9, 0.1f64..7.9),
        rebin in 1usize..4, orientation in 0u8..8, more in prop::array::uniform4(0usize..3),
        dark in any::<bool>(), fast in any::<bool>(), invalid in any::<bool>(),
    ) {
        let (rows, cols) = (10usize, 8usize);
        let random = |k: usize| ((k as u32 + 1).wrapping_mul(2654435761).wrapping_add(seed) >> 20) as u16;
        let raw = Array::from_items(&[rows, cols], &(0..rows * cols).map(random).collect::<Vec<_>>());
        let form = FrameForm { dtype: raw.dtype, shape: [rows, cols] };
        let o = Orientation::from_number(orientation).unwrap();
        let shape = Some([roi * rebin; 2]);
        let center = Center::At([center.0, center.1]);
        let geometry = Geometry::resolve(form.shape, shape, center, None, None, o, rebin).unwrap();
        let mut given = BTreeMap::new();
        if dark {
            let dark = (0..rows * cols).map(|k| (k % 7) as u16).collect::<Vec<_>>();
            given.insert("dark".to_owned(), Array::from_items(&[rows, cols], &dark));
        }
        let plan = PreparePlan {
            geometry: Some(geometry),
            frames_per_chunk: 4,
            corrected: dark,
            arithmetic: if fast { Arithmetic::Fast } else { Arithmetic::Exact },
            valid_range: invalid.then_some([10.0, 4000.0]),
            signals: true,
            ..PreparePlan::plain(form)
        };
        let needed = region(&plan).unwrap();
        // A source may deliver more than is needed.
        let first = [0, 1].map(|a| needed.first[a] - more[a].min(needed.first[a]));
        let end = [0, 1].map(|a| {
            let end = needed.first[a] + needed.shape[a];
            end + more[2 + a].min(form.shape[a] - end)
        });
        let there = Region { first, shape: [end[0] - first[0], end[1] - first[1]] };
        let mut preparer = Preparer::new(&plan, &given).unwrap();
        let frame = frame(0, &raw);
        let all = whole(&mut preparer, std::slice::from_ref(&frame)).unwrap();
        for region in [needed, there] {
            let got = whole(&mut preparer, &[part(&frame, region)]).unwrap();
            prop_assert_eq!((&got.data, &got.weights), (&all.data, &all.weights));
            prop_assert_eq!((&got.max_valid, &got.invalid), (&all.max_valid, &all.invalid));
            prop_assert_eq!(format!("{:?}", got.signals), format!("{:?}", all.signals));
        }
    }
}

#[test]
fn a_frame_of_which_needed_pixels_are_missing_is_refused() {
    let raw = Array::from_items(&[4, 4], &(0..16u16).collect::<Vec<_>>());
    let mut p = plan(&raw, 1, 0);
    let frame = frame(3, &raw);
    let rows = Region { first: [1, 0], shape: [3, 4] };
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    let error = whole(&mut preparer, &[part(&frame, rows)]).unwrap_err();
    let text = error.to_string();
    assert!(
        error.is_of_frame() && text.starts_with("frame 3 came as 3x4 pixels from (1, 0)"),
        "{text}"
    );
    let mut outside = part(&frame, rows);
    outside.frame.region = Region { first: [0, 0], shape: [5, 4] };
    assert!(matches!(whole(&mut preparer, &[outside]), Err(PrepareError::Region { .. })));
    let mut short = part(&frame, rows);
    short.frame.region = Region::whole([4, 4]);
    let error = whole(&mut preparer, &[short]).unwrap_err();
    assert_eq!(error, PrepareError::FrameLength { index: Index(3), expected: 32, got: 24 });
    p.geometry = None;
    let mut preparer = Preparer::new(&p, &BTreeMap::new()).unwrap();
    assert!(matches!(preparer.measure(&part(&frame, rows)), Err(PrepareError::Region { .. })));
}
