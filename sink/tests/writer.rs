//! The writer on recorded files: what is put in comes out, in every form, also after a crash.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support;

use bytes::Bytes;
use ptystream_common::codec::Filter;
use ptystream_common::index::IndexRange;
use ptystream_common::message::Aborted;
use ptystream_common::params::{OnGap, Save};
use ptystream_common::ptyd::read::{NodeKind, PtydFile};
use ptystream_common::ptyd::record::State;
use ptystream_common::ptyd::sums;
use ptystream_common::value::Value;
use ptystream_sink::SinkError;
use ptystream_sink::writer::{ChunkClose, Finish, Open, Writer};
use std::collections::BTreeMap;
use std::path::Path;
use support::{Scan, content, expected, names};

#[test]
fn all_forms_hold_what_was_put_in() {
    // 3 divides neither the chunk nor the scan; 4 divides the chunk.
    for (per_chunk, batch) in [(4, 4), (4, 1), (5, 3), (20, 4)] {
        for save in [Save::Link, Save::Append, Save::Merge] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("a.ptyd");
            let scan = Scan::new(path.clone(), save, 11, per_chunk, batch);
            let (_, finished) = scan.write();
            assert_eq!(content(&path), expected(&scan), "{save:?} {per_chunk} {batch}");
            let file = PtydFile::open(&path).unwrap();
            let meta: BTreeMap<_, _> = file.values("meta").unwrap().into_iter().collect();
            assert_eq!(meta["num_frames"], Value::Int(11));
            let chunks = if save == Save::Merge { 1 } else { scan.chunks() };
            assert_eq!(finished.report.chunks, chunks);
            assert_eq!(file.chunks().unwrap().len() as u64, chunks);
            let parts = if save == Save::Link { scan.chunks() as usize } else { 0 };
            // The file and its report.
            assert_eq!(names(folder.path()).len(), 2 + parts, "{:?}", names(folder.path()));
            assert_verified(&path, 11, per_chunk, batch, save);
        }
    }
}

/// Fails unless each storage chunk is compared with its checksum, and is as it was written.
fn assert_verified(path: &Path, frames: u64, per_chunk: u32, batch: u32, save: Save) {
    let chunks: Vec<u64> = match save {
        Save::Merge => vec![frames],
        _ => (0..frames)
            .step_by(per_chunk as usize)
            .map(|at| u64::from(per_chunk).min(frames - at))
            .collect(),
    };
    let batches: u64 = chunks.iter().map(|rows| rows.div_ceil(batch.into())).sum();
    let verified = sums::verify(path).unwrap();
    assert_eq!((verified.different, verified.unknown), (vec![], 0), "{save:?}");
    assert_eq!(verified.compared, 2 * batches, "{save:?}: data and weights");
}

#[test]
fn a_flipped_bit_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    for save in [Save::Link, Save::Append, Save::Merge] {
        let path = folder.path().join(format!("{save:?}.ptyd"));
        let scan = Scan::new(path.clone(), save, 12, 6, 2);
        scan.write();
        let holder = match save {
            Save::Link => folder.path().join(format!("{save:?}.ptyd.part001")),
            _ => path.clone(),
        };
        // Frame 8 begins the second storage chunk of part 1, or of chunk 1.
        let mut bytes = std::fs::read(&holder).unwrap();
        let frame = &scan.data[8];
        let at = bytes.windows(frame.len()).position(|w| w == frame).expect("stored as it is");
        bytes[at + 3] ^= 0x10;
        std::fs::write(&holder, bytes).unwrap();
        let found = sums::verify(&path).unwrap();
        assert_eq!(found.different.len(), 1, "{save:?}: {:?}", found.different);
        let one = &found.different[0];
        assert_eq!(one.file.file_name(), holder.file_name());
        assert_eq!(one.frames, Some((8, 9)), "{save:?}");
        assert!(one.text.starts_with("data of storage chunk"), "{}", one.text);
    }
}

#[test]
fn a_part_holds_nothing_but_datasets() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    Scan::new(path.clone(), Save::Link, 4, 2, 1).write();
    let nodes = PtydFile::open(&path).unwrap().tree().unwrap();
    let inside: Vec<_> = nodes.iter().filter(|n| n.path.starts_with("/chunks/1/")).collect();
    assert_eq!(inside.len(), 4);
    assert!(inside.iter().all(|n| matches!(n.kind, NodeKind::Dataset { .. })));
    let link = nodes.iter().find(|n| n.path == "/chunks/1").unwrap();
    assert_eq!(link.link.as_deref(), Some("a.ptyd.part001"));
}

#[test]
fn chunks_appear_in_order_and_only_when_their_turn_has_come() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    let (mut writer, mut publisher) = scan.open();
    let close = |writer: &mut Writer, chunk| {
        let close = scan.put_chunk(writer, chunk);
        writer.close_chunk(chunk, &close).unwrap()
    };
    let (one, two) = (close(&mut writer, 1), close(&mut writer, 2));
    assert!(publisher.publish(vec![two, one]).unwrap().is_empty());
    assert!(!path.exists());
    let zero = close(&mut writer, 0);
    assert!(publisher.publish(vec![zero]).unwrap().contains_all(0, 6));
    assert_eq!(content(&path), expected(&scan));
}

#[test]
fn chunks_that_close_before_they_are_full_hold_what_was_put_and_the_next_the_rest() {
    for (save, common) in
        [(Save::Link, false), (Save::Link, true), (Save::Append, false), (Save::Merge, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        let mut scan = Scan::new(path.clone(), save, 17, 12, 2);
        scan.announce.form.common_weights = common;
        scan.announce.pipeline.flush_after_secs = Some(0.0);
        let open = || {
            let (mut writer, publisher) = scan.open();
            if common {
                writer.common_weights(Bytes::from(vec![1u8; 12]));
            }
            (writer, publisher)
        };
        {
            let (mut writer, mut publisher) = open();
            // A part of the first batch came alone, and its other frame behind it.
            for rows in [0..1u64, 1..2] {
                let at = rows.start as usize;
                let data = [scan.data[at].clone(), vec![0; 12]].concat().into();
                let weights =
                    (!common).then(|| Bytes::from([scan.weights[at].clone(), vec![0; 6]].concat()));
                writer.put(IndexRange::new(rows.start, 1), data, weights, None).unwrap();
            }
            scan.try_put(&mut writer, 6, 10).unwrap();
            let first = writer.close_chunk(0, &scan.closing(0, 2)).unwrap();
            scan.try_put(&mut writer, 2, 6).unwrap();
            let second = writer.close_chunk(1, &scan.closing(2, 8)).unwrap();
            let durable = publisher.publish(vec![first, second]).unwrap();
            assert!(durable.contains_all(0, 8) && !durable.contains(8), "{save:?}");
            let again = scan.try_put(&mut writer, 6, 8).unwrap_err();
            assert!(again.to_string().contains("index 6 is on disk already"), "{again}");
        }
        // The next run goes on in the middle of a chunk.
        let (mut writer, mut publisher) = open();
        assert_eq!((writer.durable().first_missing(0), publisher.chunks()), (8, 2));
        for (chunk, (first, end)) in [(8, 12), (12, 14), (14, 17)].into_iter().enumerate() {
            scan.try_put(&mut writer, first, end).unwrap();
            let part = writer.close_chunk(2 + chunk as u64, &scan.closing(first, end)).unwrap();
            publisher.publish(vec![part]).unwrap();
        }
        let _ = publisher.finish(&scan.finish()).unwrap();
        let (mut all, mut wanted) = (content(&path), expected(&scan));
        if common {
            (all[1], wanted[1]) = (Vec::new(), Vec::new());
        }
        assert_eq!(all, wanted, "{save:?}");
        let verified = sums::verify(&path).unwrap();
        assert_eq!((verified.different, verified.unknown), (vec![], 0), "{save:?}");
        assert_eq!(verified.compared, 2 * 9, "{save:?}: data and weights");
        let rows: Vec<usize> = PtydFile::open(&path)
            .unwrap()
            .chunks()
            .unwrap()
            .iter()
            .map(|c| c.rows.unwrap())
            .collect();
        match save {
            Save::Merge => assert_eq!(rows, [17]),
            _ => assert_eq!(rows, [2, 6, 4, 2, 3]),
        }
        assert!(names(folder.path()).iter().all(|name| !name.contains("tmp")));
    }
}

#[test]
fn an_interrupted_run_goes_on_where_it_was() {
    for (save, live) in
        [(Save::Link, true), (Save::Append, false), (Save::Append, true), (Save::Merge, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        let mut scan = Scan::new(path.clone(), save, 11, 3, 2);
        scan.announce.pipeline.live = live;
        let stamp = {
            let (mut writer, mut publisher) = scan.open();
            for chunk in [0, 1] {
                let close = scan.put_chunk(&mut writer, chunk);
                publisher.publish(vec![writer.close_chunk(chunk, &close).unwrap()]).unwrap();
            }
            // Chunk 2 is closed but not published, chunk 3 not even closed.
            let close = scan.put_chunk(&mut writer, 2);
            let _lost = writer.close_chunk(2, &close).unwrap();
            scan.put_chunk(&mut writer, 3);
            writer.stamp()
        };
        assert_eq!(path.exists(), live, "{save:?}");
        let (writer, _publisher) = scan.open();
        assert_eq!(writer.stamp().run_id, stamp.run_id);
        assert_eq!(writer.stamp().epoch, stamp.epoch + 1);
        assert!(writer.durable().contains_all(0, 6) && writer.durable().len() == 6);
        drop((writer, _publisher));
        let (written, finished) = scan.write();
        assert_eq!((written, finished.report.epoch), (2, stamp.epoch + 2));
        assert_eq!(content(&path), expected(&scan), "{save:?}");
        if let Some(linger) = finished.linger {
            assert_eq!(linger.parts().len(), 4);
            linger.clear().unwrap();
        }
        let parts = if save == Save::Link { 4 } else { 0 };
        assert_eq!(names(folder.path()).len(), 2 + parts, "{:?}", names(folder.path()));
        assert_eq!(sums::verify(&path).unwrap().different, [], "{save:?}");
    }
}

#[test]
fn a_finished_scan_is_left_alone_unless_forced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let mut scan = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    let first = scan.write().1.report;
    let Open::AlreadyComplete(report) = Writer::open(&scan.announce).unwrap() else {
        panic!("was not recognised");
    };
    assert!(report.already_complete);
    assert_eq!((report.frames, report.run_id), (6, first.run_id));
    scan.announce.pipeline.force = true;
    let again = scan.write().1.report;
    assert_ne!(again.run_id, first.run_id);
    let old = folder.path().join("a.ptyd.old");
    assert_eq!(content(&old), expected(&scan));
}

#[test]
fn a_finished_scan_of_which_parts_were_deleted_is_completed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    scan.write();
    std::fs::remove_file(folder.path().join("a.ptyd.part001")).unwrap();
    assert_eq!(scan.write().0, 2);
    assert_eq!(content(&path), expected(&scan));
}

#[test]
fn another_scan_moves_the_finished_one_with_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let first = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    first.write();
    let mut second = Scan::new(path.clone(), Save::Link, 3, 2, 2);
    second.announce.scan_key = "k2".into();
    for _ in 0..2 {
        second.announce.pipeline.force = true;
        second.write();
    }
    // The first one was replaced in .old by the second one, parts and all.
    let mut all: Vec<String> = ["a.ptyd", "a.ptyd.old"]
        .iter()
        .flat_map(|file| {
            ["", ".part000", ".part001", ".report.json"].map(|end| format!("{file}{end}"))
        })
        .collect();
    all.sort();
    assert_eq!(names(folder.path()), all);
    assert_eq!(content(&folder.path().join("a.ptyd.old")), expected(&second));
    assert_eq!(content(&path), expected(&second));
}

#[test]
fn another_scan_is_refused_while_one_is_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Append, 6, 2, 2);
    {
        let (mut writer, mut publisher) = scan.open();
        let close = scan.put_chunk(&mut writer, 0);
        publisher.publish(vec![writer.close_chunk(0, &close).unwrap()]).unwrap();
    }
    let mut other = scan.clone();
    other.announce.scan_key = "k2".into();
    other.announce.key_parts = [("data.rebin".to_owned(), "2".to_owned())].into();
    let refused = Writer::open(&other.announce).unwrap_err();
    assert!(matches!(refused, SinkError::OtherScan { .. }));
    assert!(refused.to_string().contains("data.rebin (1 there, 2 here)"), "{refused}");
    other.announce.pipeline.fresh = true;
    assert_eq!(other.write().0, 3);
    assert_eq!(content(&path), expected(&other));
}

#[test]
fn parts_of_another_run_never_count() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    scan.write();
    std::fs::remove_file(&path).unwrap();
    let mut other = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    other.announce.scan_key = "k2".into();
    other.announce.pipeline.fresh = true;
    let (writer, publisher) = other.open();
    assert!(writer.durable().is_empty() && publisher.durable().is_empty());
    assert_eq!(names(folder.path()), ["a.ptyd.lock"]);
}

#[test]
fn a_second_writer_is_refused_and_a_lost_lock_ends_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Link, 2, 2, 2);
    let (mut writer, mut publisher) = scan.open();
    assert!(matches!(Writer::open(&scan.announce), Err(SinkError::Locked { .. })));
    let close = scan.put_chunk(&mut writer, 0);
    let part = writer.close_chunk(0, &close).unwrap();
    std::fs::remove_file(folder.path().join("a.ptyd.lock")).unwrap();
    assert!(matches!(publisher.publish(vec![part]), Err(SinkError::LockLost { .. })));
    assert!(!path.exists());
}

#[test]
fn a_file_of_somebody_else_moves_to_old() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    std::fs::write(&path, "somebody's").unwrap();
    Scan::new(path, Save::Append, 2, 2, 2).write();
    assert_eq!(std::fs::read(folder.path().join("a.ptyd.old")).unwrap(), b"somebody's");
}

#[test]
fn gaps_are_listed_in_the_file_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let scan = Scan::new(path.clone(), Save::Append, 4, 2, 1);
    let gap = vec![(IndexRange::new(1, 1), "frame 1 was lost".to_owned())];
    {
        let (mut writer, mut publisher) = scan.open();
        let rows = |i: usize| Bytes::from(scan.data[i].clone());
        let weights = Bytes::from(scan.weights[0].clone());
        writer.put(IndexRange::new(0, 1), rows(0), Some(weights), None).unwrap();
        let close = ChunkClose {
            indices: vec![0, 1],
            positions: Some(scan.positions[..2].to_vec()),
            gaps: vec![1],
            reasons: gap.clone(),
            ..ChunkClose::default()
        };
        publisher.publish(vec![writer.close_chunk(0, &close).unwrap()]).unwrap();
    }
    let report = scan.write().1.report;
    assert_eq!(report.gaps, gap);
    assert_eq!(PtydFile::open(&path).unwrap().record().unwrap().gaps, gap);
    let [data, weights, ..] = content(&path);
    assert_eq!(data[12..24], [0; 12]);
    assert_eq!(weights[6..12], [0; 6]);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_output_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "").unwrap();
    let scan = Scan::new(folder.path().join("f/a.ptyd"), Save::Link, 2, 2, 2);
    let error = Writer::open(&scan.announce).unwrap_err();
    assert!(matches!(&error, SinkError::File { .. }));
    assert_eq!(error.kind(), ptystream_common::error::Kind::Output);
}

#[test]
fn weights_that_all_frames_share_are_needed_before_a_chunk_closes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let mut scan = Scan::new(path.clone(), Save::Append, 5, 3, 2);
    scan.announce.form.common_weights = true;
    scan.announce.form.weights_filters = vec![Filter::Shuffle(1)];
    let (mut writer, mut publisher) = scan.open();
    let close = scan.put_chunk(&mut writer, 0);
    assert!(!writer.has_weights());
    let missing = writer.close_chunk(0, &close).unwrap_err();
    assert!(missing.to_string().contains("weights are missing"), "{missing}");
    writer.common_weights(Bytes::from(vec![1u8; 12]));
    for chunk in 0..2 {
        let close = scan.put_chunk(&mut writer, chunk);
        publisher.publish(vec![writer.close_chunk(chunk, &close).unwrap()]).unwrap();
    }
    let _ = publisher.finish(&scan.finish()).unwrap();
    assert_eq!(content(&path)[1], vec![1u8; 30]);
}

fn meta_frames(path: &std::path::Path) -> Value {
    let meta: BTreeMap<_, _> =
        PtydFile::open(path).unwrap().values("meta").unwrap().into_iter().collect();
    meta["num_frames"].clone()
}

#[test]
fn gaps_are_left_out_where_that_is_wanted() {
    for save in [Save::Link, Save::Append, Save::Merge] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        let mut scan = Scan::new(path.clone(), save, 9, 3, 2);
        scan.announce.pipeline.on_gap = OnGap::Skip;
        let why = |first, count| vec![(IndexRange::new(first, count), "lost".to_owned())];
        {
            let (mut writer, mut publisher) = scan.open();
            // Frame 1 is a gap in a batch, chunk 1 is nothing but gaps.
            let close =
                ChunkClose { gaps: vec![1], reasons: why(1, 1), ..scan.put_chunk(&mut writer, 0) };
            publisher.publish(vec![writer.close_chunk(0, &close).unwrap()]).unwrap();
            let close = ChunkClose {
                indices: vec![3, 4, 5],
                positions: Some(scan.positions[3..6].to_vec()),
                gaps: vec![3, 4, 5],
                reasons: why(3, 3),
                ..ChunkClose::default()
            };
            publisher.publish(vec![writer.close_chunk(1, &close).unwrap()]).unwrap();
        }
        assert_eq!(scan.write().0, 1, "what was left out is not asked for again");
        let [data, weights, positions, indices] = content(&path);
        let rows = [0usize, 2, 6, 7, 8];
        let kept = |all: &[Vec<u8>]| rows.iter().flat_map(|&i| all[i].clone()).collect::<Vec<u8>>();
        assert_eq!((data, weights), (kept(&scan.data), kept(&scan.weights)), "{save:?}");
        assert_eq!(positions.len(), 16 * rows.len());
        let want: Vec<u8> = rows.iter().flat_map(|&i| (i as i64).to_le_bytes()).collect();
        assert_eq!(indices, want);
        assert_eq!(meta_frames(&path), Value::Int(5));
        let record = PtydFile::open(&path).unwrap().record().unwrap();
        assert_eq!(record.gaps, [why(1, 1), why(3, 3)].concat());
    }
}

#[test]
fn a_scan_that_was_cut_short_goes_on_only_where_there_is_more() {
    for save in [Save::Link, Save::Append] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.ptyd");
        let scan = Scan::new(path.clone(), save, 9, 3, 2);
        let short = Scan::new(path.clone(), save, 5, 3, 2);
        let aborted = Aborted { reason: "the beam was lost".into(), announced: Some(9) };
        {
            let (mut writer, mut publisher) = scan.open();
            for chunk in [0, 1] {
                let close = short.put_chunk(&mut writer, chunk);
                publisher.publish(vec![writer.close_chunk(chunk, &close).unwrap()]).unwrap();
            }
            let end = Finish { aborted: Some(aborted.clone()), ..short.finish() };
            assert_eq!(publisher.finish(&end).unwrap().report.aborted, Some(aborted.clone()));
        }
        let record = PtydFile::open(&path).unwrap().record().unwrap();
        assert_eq!((record.state, record.aborted), (State::Aborted, Some(aborted.reason.clone())));
        assert_eq!(meta_frames(&path), Value::Int(5));
        assert_eq!(content(&path), expected(&short));
        // The source has no more than what is there: left alone.
        assert!(matches!(Writer::open(&short.announce).unwrap(), Open::AlreadyComplete(_)));
        // It has: chunk 1 ended early and is written again; a folded file is kept as `.old`.
        assert_eq!(scan.write().0, if save == Save::Link { 2 } else { 3 });
        assert_eq!(content(&path), expected(&scan));
        let old = folder.path().join("a.ptyd.old");
        assert_eq!(old.exists(), save == Save::Append);
        if save == Save::Append {
            assert_eq!(content(&old), expected(&short));
        }
    }
}

#[test]
fn a_file_is_opened_anew_without_letting_go_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptyd");
    let mut scan = Scan::new(path.clone(), Save::Link, 6, 2, 2);
    // Neither may apply to what this very scan has written.
    (scan.announce.pipeline.fresh, scan.announce.pipeline.force) = (true, true);
    let (mut writer, mut publisher) = scan.open();
    let close = scan.put_chunk(&mut writer, 0);
    publisher.publish(vec![writer.close_chunk(0, &close).unwrap()]).unwrap();
    let (hold, stamp) = (writer.hold(), writer.stamp());
    drop((writer, publisher));
    assert!(matches!(Writer::open(&scan.announce), Err(SinkError::Locked { .. })));
    hold.probe(1).unwrap();
    assert!(matches!(hold.probe(u64::MAX), Err(SinkError::DiskFull { .. })));
    let Open::Ready(writer, _) = hold.reopen(&scan.announce).unwrap() else {
        panic!("is not done")
    };
    assert_eq!((writer.stamp().run_id, writer.stamp().epoch), (stamp.run_id, stamp.epoch + 1));
    assert!(writer.durable().contains_all(0, 2));
    assert_eq!(names(folder.path()), ["a.ptyd", "a.ptyd.lock", "a.ptyd.part000"]);
    std::fs::remove_file(folder.path().join("a.ptyd.lock")).unwrap();
    assert!(matches!(hold.reopen(&scan.announce), Err(SinkError::LockLost { .. })));
}
