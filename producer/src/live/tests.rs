use super::*;
use crate::retain::Frames;
use ptystream_common::codec::Encoding;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm, RawFrame};
use ptystream_common::index::IndexRange;
use ptystream_common::message::Task;
use ptystream_common::params::{PipelineParams, Spool};
use std::sync::{Arc, Mutex};

/// A frame: so large that a megabyte, half of what may be given, has room for four.
const BYTES: u64 = 128 << 10;
const FORM: FrameForm = FrameForm { dtype: Dtype::U8, shape: [256, 512] };

/// What a test does to the detector meanwhile.
#[derive(Clone, Default)]
struct Script {
    come: u64,
    gone: u64,
    ended: bool,
    interrupted: bool,
    taken: Vec<u64>,
}

struct Detector(Arc<Mutex<Script>>);

impl Source for Detector {
    fn load_positions(&mut self) -> Result<Option<Array>, SourceError> {
        Ok(None)
    }

    fn check(&mut self, _: usize, _: usize, _: Option<usize>) -> Result<Check, SourceError> {
        let script = self.0.lock().unwrap();
        if script.interrupted {
            return Err(SourceError::Interrupted { frames: script.come, reason: "door".into() });
        }
        let end_of_scan = script.ended.then_some(true);
        Ok(Check { accessible: script.come as usize, end_of_scan })
    }

    fn load(&mut self, indices: &[Index]) -> Result<Vec<Loaded>, SourceError> {
        let mut script = self.0.lock().unwrap();
        let load = |&index: &Index| {
            if index.0 < script.gone {
                return Err(SourceError::Passed { index });
            }
            script.taken.push(index.0);
            let payload = vec![index.0 as u8; BYTES as usize].into();
            let frame = RawFrame::new(FORM, Encoding::Raw, payload);
            Ok(Loaded::plain(index, frame))
        };
        indices.iter().map(load).collect()
    }

    fn frame_form(&mut self) -> Result<FrameForm, SourceError> {
        Ok(FORM)
    }

    fn identity(&mut self) -> Result<Vec<(String, String)>, SourceError> {
        Ok(Vec::new())
    }
}

fn live(
    folder: &std::path::Path,
    spool: Spool,
    on_full: OnFull,
    script: &Arc<Mutex<Script>>,
) -> Live {
    let frames = Frames {
        scan_key: "0".repeat(32),
        dfile: Some(folder.join("a.ptyd")),
        bytes: BYTES,
        least: 2,
    };
    let pipeline = PipelineParams {
        spool,
        on_full,
        producer_memory_bytes: 8 * BYTES,
        spool_bytes: 8 * BYTES,
        ..PipelineParams::default()
    };
    let retention = Retention::open(&frames, &pipeline).unwrap();
    Live::new(
        Box::new(Detector(Arc::clone(script))),
        Common::default(),
        retention,
        Some(20),
        true,
        Watch::default(),
    )
}

fn script(come: u64, gone: u64) -> Arc<Mutex<Script>> {
    Arc::new(Mutex::new(Script { come, gone, ..Script::default() }))
}

fn serve(live: &mut Live, index: u64) -> Result<u8, String> {
    let range = IndexRange::new(index, 1);
    let ticket =
        Ticket { range, task: Task::Prepare, positions: None, gaps: Vec::new(), pixels: None };
    match live.serve(&ticket, (PeerId(0), Stamp::default())) {
        Ok((_, parts)) => Ok(parts[0][0]),
        Err(Done::Lost { frames, .. }) => Err(frames[0].1.clone()),
        Err(other) => panic!("{other:?}"),
    }
}

fn ready(live: &mut Live) -> u64 {
    match live.news() {
        Some(Done::Checked { start: 0, check }) => check.accessible as u64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn frames_are_taken_unasked_and_kept_until_they_are_durable() {
    let temp = tempfile::tempdir().unwrap();
    let script = script(3, 0);
    let mut live = live(temp.path(), Spool::Off, OnFull::Wait, &script);
    live.take().unwrap();
    assert_eq!(script.lock().unwrap().taken, [0, 1, 2]);
    assert_eq!(ready(&mut live), 3);
    assert!(live.news().is_none(), "said once");
    // Twice the same: as after the death of a worker.
    assert_eq!([serve(&mut live, 1), serve(&mut live, 1)], [Ok(1), Ok(1)]);
    live.retention.durable(2);
    assert!(serve(&mut live, 1).unwrap_err().contains("once it was durable"));
    assert_eq!(serve(&mut live, 2), Ok(2));
}

#[test]
fn a_full_memory_makes_the_source_wait_and_names_what_it_let_go() {
    let temp = tempfile::tempdir().unwrap();
    let script = script(8, 0);
    let mut live = live(temp.path(), Spool::Off, OnFull::Wait, &script);
    live.take().unwrap();
    live.take().unwrap();
    assert_eq!(script.lock().unwrap().taken, [0, 1, 2, 3, 4], "four and one in hand");
    assert_eq!(ready(&mut live), 4);
    script.lock().unwrap().gone = 7;
    live.retention.durable(4);
    live.take().unwrap();
    assert_eq!(script.lock().unwrap().taken, [0, 1, 2, 3, 4, 7], "the one in hand is kept");
    assert_eq!(serve(&mut live, 4), Ok(4));
    assert_eq!(serve(&mut live, 6), Err("passed while memory and spool were full".into()));
    assert_eq!(serve(&mut live, 7), Ok(7));
}

#[test]
fn without_room_frames_are_dropped_or_the_scan_ends_as_wished() {
    let temp = tempfile::tempdir().unwrap();
    let mut dropping = live(temp.path(), Spool::Off, OnFull::Drop, &script(6, 0));
    dropping.take().unwrap();
    assert_eq!(ready(&mut dropping), 6);
    assert_eq!(serve(&mut dropping, 3), Ok(3));
    assert_eq!(serve(&mut dropping, 4), Err("no room: memory and spool are full".into()));
    let mut failing = live(temp.path(), Spool::Off, OnFull::Fail, &script(6, 0));
    let failure = failing.take().unwrap_err();
    assert_eq!(failure.kind, Kind::Aborted);
    assert!(failure.text.starts_with("frame 4: no room"), "{failure}");
}

#[test]
fn the_spool_takes_what_memory_cannot_and_goes_with_the_scan() {
    let temp = tempfile::tempdir().unwrap();
    let mut live = live(temp.path(), Spool::Overflow, OnFull::Fail, &script(9, 0));
    live.take().unwrap();
    for k in 0..9 {
        assert_eq!(serve(&mut live, k), Ok(k as u8));
    }
    live.retention.finish();
    assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
}

#[test]
fn a_producer_that_starts_again_has_what_was_spooled_and_lists_what_passed() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = live(temp.path(), Spool::Always, OnFull::Wait, &script(4, 0));
    first.take().unwrap();
    assert_eq!(ready(&mut first), 4);
    // Killed: nothing is tidied up. Meanwhile 4 and 5 pass.
    drop(first);
    let script = script(7, 6);
    let mut again = live(temp.path(), Spool::Always, OnFull::Wait, &script);
    again.take().unwrap();
    assert_eq!(script.lock().unwrap().taken, [6]);
    assert_eq!(ready(&mut again), 7);
    assert_eq!(serve(&mut again, 3), Ok(3));
    for k in [4, 5] {
        assert_eq!(serve(&mut again, k), Err("passed while the producer was down".into()));
    }
    assert_eq!(serve(&mut again, 6), Ok(6));
}

#[test]
fn a_spool_that_cannot_be_written_counts_as_full() {
    let temp = tempfile::tempdir().unwrap();
    let mut live = live(temp.path(), Spool::Always, OnFull::Drop, &script(2, 0));
    // Its first segment cannot be made where a folder of that name stands.
    std::fs::create_dir(temp.path().join("a.ptyd.spool.000000")).unwrap();
    live.take().unwrap();
    assert_eq!(serve(&mut live, 0), Err("no room: memory and spool are full".into()));
}

#[test]
fn the_end_and_an_interruption_are_told_once_all_that_came_is_ready() {
    let temp = tempfile::tempdir().unwrap();
    let script = script(3, 0);
    let mut live = live(temp.path(), Spool::Off, OnFull::Wait, &script);
    script.lock().unwrap().ended = true;
    live.take().unwrap();
    let Some(Done::Checked { check, .. }) = live.news() else { panic!("no news") };
    assert_eq!(check, Check { accessible: 3, end_of_scan: Some(true) });
    live.end = None;
    script.lock().unwrap().interrupted = true;
    live.take().unwrap();
    live.told = None;
    match live.news() {
        Some(Done::Interrupted { available: 3, reason }) => assert_eq!(reason, "door"),
        other => panic!("{other:?}"),
    }
}
