use super::*;
use crate::codec::{Compression, Encoding, Filter};
use crate::dtype::Dtype;
use crate::error::{Failure, Kind};
use crate::frame::{FrameForm, Region};
use crate::geometry::{Geometry, Orientation};
use crate::index::{Index, IndexRange, IndexSet};
use crate::message::*;
use crate::params::{Arithmetic, Compat, OutputDtype, PipelineParams, Save};
use crate::report::{ProducerPart, Tally};
use crate::source::SourceSpec;
use crate::value::{NumArray, Value};
use proptest::prelude::*;

fn stamp() -> Stamp {
    Stamp { run_id: 0xfeed_beef_0123_4567, epoch: 3 }
}

fn bytes(n: usize) -> Bytes {
    (0..n).map(|i| (i * 7) as u8).collect::<Vec<_>>().into()
}

fn plan() -> PreparePlan {
    PreparePlan {
        geometry: Some(Geometry {
            frame: [4, 5],
            roi: [4, 4],
            center: [2.0, 2.5],
            orientation: Orientation { transpose: true, flipud: false, fliplr: true },
            rebin: 2,
        }),
        corrected: true,
        weights: WeightsFrom::Scan(Dtype::Bool),
        valid_range: Some([0.0, 65534.0]),
        bad_values: vec![-1.0],
        compression: Compression::ShuffleGzip(4),
        batch: 3,
        frames_per_chunk: 10,
        checksums: true,
        source: Some(SourceSpec {
            name: "numpy".into(),
            data: Value::Map(vec![
                ("path".into(), Value::Str("scan".into())),
                ("shape".into(), Value::List(vec![Value::Int(4), Value::None])),
            ]),
            base: "/data".into(),
            given: vec!["path".into()],
            shutdown: Default::default(),
        }),
        workers_read: true,
        ..PreparePlan::plain(FrameForm { dtype: Dtype::U16, shape: [4, 5] })
    }
}

fn prepared() -> Prepared {
    Prepared {
        range: IndexRange::new(6, 2),
        positions: Some(vec![[1e-6, -2e-6], [f64::MAX, 0.1]]),
        max_valid: Some(vec![4, 4]),
        invalid: None,
        scalars: None,
        checksums: None,
        load_us: 17,
        prepare_us: 400,
    }
}

fn ticket() -> Ticket {
    Ticket {
        range: IndexRange::new(6, 2),
        task: Task::Prepare,
        gaps: vec![],
        positions: None,
        pixels: Some(Box::new(PixelsHead {
            frames: vec![
                (Encoding::Raw, 40),
                (Encoding::Filters(vec![Filter::Shuffle(2), Filter::Deflate(4)]), 11),
            ],
            region: Some(Region { first: [0, 1], shape: [4, 5] }),
            positions: Some(vec![[0.0, 1.0], [2.0, 3.0]]),
            weights: Some((Dtype::U8, [4, 5])),
            scale: None,
            scalars: None,
            checksums: None,
        })),
    }
}

fn announce() -> Announce {
    Announce {
        scan_key: "0011".into(),
        key_parts: [("rebin".to_owned(), "2".to_owned())].into(),
        num_frames: Some(100),
        frames_per_chunk: 10,
        form: PreparedForm {
            data: Dtype::F32,
            weights: Dtype::Bool,
            shape: [2, 2],
            weights_shape: [2, 2],
            batch: 3,
            data_filters: vec![Filter::Deflate(4)],
            weights_filters: vec![],
            common_weights: true,
        },
        positions: Some(Dtype::F64),
        meta: vec![("psize".into(), Value::Array(NumArray::f64s(&[1e-4, 1e-4])))],
        info: vec![("center".into(), Value::Str("fftshift".into())), ("n".into(), Value::None)],
        positions_scan: Some(NumArray {
            dtype: Dtype::F64,
            shape: vec![2, 2],
            items: vec![0.0, 1.0, 2.0, 3.0],
        }),
        dfile: Some("out.ptyd".into()),
        chunk_format: None,
        save: Some(Save::Link),
        pipeline: PipelineParams {
            batch: Some(3),
            dtype: OutputDtype::Float32,
            arithmetic: Arithmetic::Fast,
            compat: Compat::Ptypy,
            live: true,
            ..PipelineParams::default()
        },
        warnings: vec!["energy is ptypy's default".into()],
        origins: vec![("energy".into(), "7.2".into(), "default".into())],
        config: String::new(),
        per_frame: vec![],
    }
}

/// One message of every kind, with the parts it promises.
fn all() -> Vec<Message> {
    let range = IndexRange::new(6, 2);
    let failure = Failure::new(Kind::Input, "scan/ccd/0003.npy: no such file");
    let set: IndexSet = vec![(0, 3), (7, 8)].into();
    let heads = vec![
        ArrayHead { name: "dark".into(), dtype: Dtype::U16, shape: vec![4, 5], checksum: Some(1) },
        ArrayHead { name: "common.x".into(), dtype: Dtype::F64, shape: vec![], checksum: None },
    ];
    let report = SinkReport { gaps: vec![(range, "lost".into())], ..SinkReport::default() };
    let plain = [
        Body::Hello { role: Role::Worker, name: "host-1".into(), attempt: 2 },
        Body::Refused(failure.clone()),
        Body::Stop(failure.clone()),
        Body::Bye,
        Body::EndOfScan {
            expected: 10,
            gaps: set.clone(),
            aborted: Some(Aborted { reason: "disarmed".into(), announced: Some(12) }),
        },
        Body::Beat { every_ms: 1000 },
        Body::Reset,
        Body::Paused { reason: "disk full".into() },
        Body::Want { tickets: 8 },
        Body::Measured { range, centers: vec![None, Some([1.5, 2.5])] },
        Body::Broken(failure.clone()),
        Body::Failed { range, failure },
        Body::Damaged { range: Some(range) },
        Body::Damaged { range: None },
        Body::Grant { messages: 4 },
        Body::Announce(Box::new(announce())),
        Body::Opened { horizon: 80, durable: set.clone() },
        Body::State { watermark: 3, accepted: set },
        Body::Gap { range, reason: "lost".into(), positions: Some(vec![[0.0, 0.0]; 2]) },
        Body::Finished(Box::new(report)),
        Body::Report(Box::new(ProducerPart {
            workers: [(
                "host-1".to_owned(),
                Tally { sent: 3, settled: 2, lost: 1, ..Tally::default() },
            )]
            .into(),
            started: "2026-03-01T12:00:00Z".into(),
            ..ProducerPart::default()
        })),
    ];
    let mut all: Vec<_> = plain.into_iter().map(|b| Message::new(stamp(), b)).collect();
    let plan = Body::Plan { plan: Box::new(plan()), arrays: heads, answers: 2 };
    all.push(Message::with_parts(stamp(), plan, vec![bytes(40), bytes(8)]));
    all.push(Message::with_parts(stamp(), Body::Ticket(ticket()), vec![bytes(51), bytes(40)]));
    all.push(Message::with_parts(
        stamp(),
        Body::CommonWeights { checksum: Some(u32::MAX) },
        vec![bytes(9)],
    ));
    all.push(Message::with_parts(stamp(), Body::Prepared(prepared()), vec![bytes(9), bytes(4)]));
    all
}

#[test]
fn every_message_comes_back_as_it_was() {
    for message in all() {
        let parts = encode(&message).unwrap();
        assert_eq!(&parts[0][..6], b"PTYS\x06\x00");
        assert_eq!(decode(parts).unwrap(), message, "{}", name(&message.header.body));
    }
}

#[test]
fn payload_is_not_copied() {
    let all = all();
    let message = all.iter().find(|m| !m.parts.is_empty()).unwrap();
    let parts = encode(message).unwrap();
    assert_eq!(parts[1].as_ptr(), message.parts[0].as_ptr());
    let at = parts[1].as_ptr();
    assert_eq!(decode(parts).unwrap().parts[0].as_ptr(), at);
}

#[test]
fn names_on_the_wire_are_the_names_that_errors_use() {
    for message in all() {
        let head = encode(&message).unwrap().remove(0);
        let name = name(&message.header.body).as_bytes();
        assert!(head.windows(name.len()).any(|w| w == name), "{message:?}");
    }
}

#[test]
fn another_version_is_named_before_anything_else_is_read() {
    let mut head = encode(&all()[0]).unwrap()[0].to_vec();
    head[4..6].copy_from_slice(&7u16.to_le_bytes());
    head.truncate(8);
    let error = decode(vec![head.into(), bytes(3)]).unwrap_err();
    assert_eq!(error, WireError::Version { theirs: 7, ours: VERSION });
    assert_eq!(
        error.to_string(),
        "the peer speaks wire version 7, this program 6; use the same ptystream everywhere"
    );
}

#[test]
fn what_is_no_message_is_garbage() {
    let good = encode(&all()[0]).unwrap()[0].to_vec();
    let mut trailing = good.clone();
    trailing.push(0);
    let mut long = good.clone();
    long.resize(MAX_HEADER_BYTES + 1, 0xc0);
    let cases =
        [vec![], vec![0; 5], b"HTTP/1.1 200".to_vec(), b"PTYS\x06\0".to_vec(), trailing, long];
    for head in cases {
        let error = decode(vec![head.into()]).unwrap_err();
        assert!(matches!(error, WireError::Garbage(_)), "{error}");
    }
    assert!(matches!(decode(vec![]), Err(WireError::Garbage(_))));
}

#[test]
fn nesting_without_end_is_refused() {
    let mut head = b"PTYS\x06\x00".to_vec();
    head.extend(std::iter::repeat_n(0x91, 1 << 20));
    assert!(matches!(decode(vec![head.into()]), Err(WireError::Garbage(_))));

    let mut deep = Value::None;
    for _ in 0..400 {
        deep = Value::List(vec![deep]);
    }
    let mut announce = announce();
    announce.info.push(("deep".into(), deep));
    let mut head = b"PTYS\x06\x00".to_vec();
    let header = Header { stamp: stamp(), body: Body::Announce(Box::new(announce)) };
    rmp_serde::encode::write_named(&mut head, &header).unwrap();
    assert!(matches!(decode(vec![head.into()]), Err(WireError::Garbage(_))));
}

#[test]
fn a_header_too_long_is_not_sent() {
    let name = "x".repeat(MAX_HEADER_BYTES);
    let hello = Message::new(stamp(), Body::Hello { role: Role::Sink, name, attempt: 0 });
    let error = encode(&hello).unwrap_err();
    assert!(error.to_string().contains("hello cannot be sent"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_not_sent() {
    use std::os::unix::ffi::OsStrExt;
    let mut announce = announce();
    announce.dfile = Some(std::ffi::OsStr::from_bytes(b"\xff.ptyd").into());
    let message = Message::new(stamp(), Body::Announce(Box::new(announce)));
    assert!(matches!(encode(&message), Err(WireError::Unsendable { what: "announce", .. })));
}

/// Writes the header as another program might and decodes it with these parts.
fn sent_by_another(body: Body, parts: Vec<Bytes>) -> Result<Message, WireError> {
    let mut head = b"PTYS\x06\x00".to_vec();
    rmp_serde::encode::write_named(&mut head, &Header { stamp: stamp(), body }).unwrap();
    decode(std::iter::once(head.into()).chain(parts).collect())
}

#[test]
fn a_part_too_many_or_too_few_is_refused() {
    for message in all() {
        let body = message.header.body;
        let mut more = message.parts.clone();
        more.extend([bytes(1), bytes(1)]);
        let error = sent_by_another(body.clone(), more).unwrap_err();
        assert!(matches!(error, WireError::Parts { .. }), "{error}");
        if !message.parts.is_empty() {
            let error = sent_by_another(body, vec![]).unwrap_err();
            assert!(matches!(error, WireError::Parts { .. }), "{error}");
        }
    }
}

#[test]
fn headers_that_contradict_themselves_are_refused_by_name() {
    let cut = |parts: Vec<Bytes>| parts.iter().map(|p| p.slice(1..)).collect::<Vec<_>>();
    let mut positions = prepared();
    positions.positions = Some(vec![[0.0; 2]; 3]);
    let mut beyond = prepared();
    beyond.range.first = Index(u64::MAX);
    let mut batch = plan();
    batch.batch = 0;
    let mut huge = announce();
    huge.form.shape = [usize::MAX / 2, 3];
    let mut array = announce();
    array.info.push((
        "a".into(),
        Value::List(vec![Value::Array(NumArray {
            dtype: Dtype::U8,
            shape: vec![2, 2],
            items: vec![0.0; 3],
        })]),
    ));
    let dark = vec![ArrayHead {
        name: "dark".into(),
        dtype: Dtype::U16,
        shape: vec![4, 5],
        checksum: Some(1),
    }];
    let plan_body = |plan, arrays| Body::Plan { plan: Box::new(plan), arrays, answers: 0 };
    let mut endless = ticket();
    if let Some(pixels) = &mut endless.pixels {
        pixels.region = Some(Region { first: [0, usize::MAX], shape: [1, 1] });
    }
    let cases = [
        (Body::Ticket(endless), vec![bytes(51), bytes(40)], "is larger than any frame"),
        (
            plan_body(plan(), dark),
            cut(vec![bytes(40)]),
            "payload part 1 (dark) has 39 bytes, expected 40",
        ),
        (plan_body(batch, vec![]), vec![], "plan.batch is 0"),
        (Body::Ticket(ticket()), cut(vec![bytes(52), bytes(40)]), "(weights) has 39 bytes"),
        (Body::Ticket(ticket()), vec![bytes(50), bytes(40)], "(frames) has 50 bytes, expected 51"),
        (Body::Prepared(positions), vec![bytes(1)], "3 positions for 2 frames"),
        (Body::Prepared(beyond), vec![bytes(1)], "do not exist"),
        (Body::Announce(Box::new(huge)), vec![], "larger than any memory"),
        (Body::Announce(Box::new(array)), vec![], "a has 3 items"),
    ];
    for (body, parts, text) in cases {
        let error = sent_by_another(body, parts).unwrap_err();
        assert!(matches!(error, WireError::Parts { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

proptest! {
    #[test]
    fn truncated_headers_are_errors(pick in 0usize..18, cut in any::<prop::sample::Index>()) {
        let mut parts = encode(&all()[pick]).unwrap();
        let keep = cut.index(parts[0].len());
        parts[0].truncate(keep);
        prop_assert!(decode(parts).is_err());
    }

    #[test]
    fn flipped_bits_are_errors_or_other_messages(
        pick in 0usize..18,
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut parts = encode(&all()[pick]).unwrap();
        let mut head = parts[0].to_vec();
        for flip in flips {
            let bit = flip.index(head.len() * 8);
            head[bit / 8] ^= 1 << (bit % 8);
        }
        parts[0] = head.into();
        if let Ok(message) = decode(parts) {
            prop_assert!(encode(&message).is_ok(), "what decodes can be passed on");
        }
    }

    #[test]
    fn random_bytes_are_errors(bytes in prop::collection::vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        let mut head = if magic { b"PTYS\x06\x00".to_vec() } else { vec![] };
        head.extend(bytes);
        prop_assert!(decode(vec![head.into()]).is_err());
    }
}
