//! The cores together, under whatever can happen: the real dispatcher, roster, assembler and
//! credit book around modelled workers, connections and a modelled disk.
//!
//! A schedule is a scan and a list of steps: messages are delivered in order within a connection
//! and in any order across connections; workers are slow, hang, die, leave and come back; frames
//! fail, hang or kill whoever reads them; connections break and lose what is under way; States are
//! lost, repeated and come late; results come twice; raw and prepared pixels come damaged; sink and
//! producer restart, the disk pauses.
//! Then faults stop, and the scan has to end within a bounded number of rounds.
//!
//! Invariants, checked at every step:
//! - each index is in the file once, as a frame or as a gap; durable is never taken back; what is
//!   visible is a prefix;
//! - nobody gets more tickets than it asked for, nor beyond durable + horizon, nor what is safe or
//!   a gap; no worker's queue is longer than its window;
//! - no piece has more than three holders; a suspect goes to a worker that holds nothing, and it
//!   gets nothing else;
//! - results in the sink's memory are at most its slots and one for each worker;
//! - received = kept + duplicates + out of range, and what came = received + stale; no index is
//!   kept twice;
//! - tickets: sent = settled + failed + lost + held;
//! - a frame is convicted only after three solo deaths, given up only after its time or eight
//!   damaged copies; what kills,
//!   hangs or fails is never a frame of the file, and where nothing else happened every other is.
//!
//! A hundred thousand schedules, and a fifth of them again where each worker has its part, always the
//! same; with `PTYSTREAM_SCHEDULES` so many others.

mod sink;
mod world;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};
use std::time::Duration;
use world::{GIVE_UP, Setup, World};

/// Rounds after which a scan without further faults must be done.
const ROUNDS: u32 = 6000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Frames(u8),
    Tick(u8),
    HearWorker(u8),
    HearProducer(u8),
    Work(u8),
    SinkHears(u8, bool),
    HearGrant(u8),
    DamageTicket(u8),
    DamageResult(u8),
    HearControl,
    SayState,
    HearSink(bool),
    OldState(u8),
    Write,
    Publish,
    Flush,
    Start(u8),
    Die(u8, u8),
    Leave(u8),
    Recover(u8),
    LinkBreaks(u8, u8),
    SinkStarts,
    SinkDies,
    Pause,
    ControlBreaks,
    ProducerRestarts,
    /// Everybody does what there is to do, once.
    Round,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop_oneof![
        2 => (1u8..8).prop_map(Frames),
        3 => (0u8..80).prop_map(Tick),
        6 => any::<u8>().prop_map(HearWorker),
        6 => any::<u8>().prop_map(HearProducer),
        8 => any::<u8>().prop_map(Work),
        6 => (any::<u8>(), prop::bool::weighted(0.1)).prop_map(|(w, t)| SinkHears(w, t)),
        4 => any::<u8>().prop_map(HearGrant),
        1 => any::<u8>().prop_map(DamageTicket),
        1 => any::<u8>().prop_map(DamageResult),
        4 => Just(HearControl),
        4 => Just(SayState),
        4 => prop::bool::weighted(0.2).prop_map(HearSink),
        1 => any::<u8>().prop_map(OldState),
        4 => Just(Write),
        2 => Just(Publish),
        1 => Just(Flush),
        2 => any::<u8>().prop_map(Start),
        3 => (any::<u8>(), 0u8..4).prop_map(|(w, n)| Die(w, n)),
        1 => any::<u8>().prop_map(Leave),
        1 => any::<u8>().prop_map(Recover),
        1 => (any::<u8>(), 0u8..4).prop_map(|(w, n)| LinkBreaks(w, n)),
        1 => Just(SinkStarts),
        1 => Just(SinkDies),
        1 => Just(Pause),
        1 => Just(ControlBreaks),
        1 => Just(ProducerRestarts),
        8 => Just(Round),
    ]
}

fn setup() -> impl Strategy<Value = Setup> {
    let sizes = (1u64..20, 1u32..7, 1u32..5, 1u32..4, 1usize..4, 1usize..5, 1usize..9);
    let few = |most: usize| prop_oneof![2 => Just(0), 1 => 0..=most];
    let frames = move |most| few(most).prop_flat_map(|n| btree_set(0u64..20, n));
    (sizes, any::<bool>(), frames(2), frames(1), frames(2)).prop_map(
        |((frames, per_chunk, batch, window, slots, workers, out), late, poison, hang, bad)| {
            Setup {
                frames,
                per_chunk,
                batch: batch.min(per_chunk),
                window,
                slots,
                workers,
                max_outstanding: if out == 8 { usize::MAX } else { out },
                late_length: late,
                poison,
                hang,
                bad,
                shared: false,
            }
        },
    )
}

/// Everybody does what there is to do.
fn round(world: &mut World) {
    for at in 0..world.workers.len() {
        while !world.workers[at].to_producer.is_empty() {
            world.hear_worker(at);
        }
        for _ in 0..4 {
            world.hear_producer(at);
        }
        while !world.workers[at].from_sink.is_empty() {
            world.hear_grant(at);
        }
        world.work(at);
        world.work(at);
        while !world.workers[at].to_sink.is_empty() {
            world.sink_hears(at, false);
        }
    }
    for _ in 0..4 {
        world.hear_control();
        world.write();
        world.publish();
    }
    world.say_state();
    while !world.told.is_empty() {
        world.hear_sink(false);
    }
}

fn run(setup: Setup, steps: Vec<Step>) {
    let mut world = World::new(setup);
    let pick = |n: u8| usize::from(n) % world.workers.len();
    let workers: Vec<usize> = (0..=255).map(pick).collect();
    let w = |n: u8| workers[usize::from(n)];
    let calm = !steps.iter().any(|s| matches!(s, Step::Die(..)));
    for step in steps {
        match step {
            Step::Frames(n) => world.frames_come(n.into()),
            Step::Tick(n) => world.tick(Duration::from_millis(u64::from(n) * 100)),
            Step::HearWorker(n) => world.hear_worker(w(n)),
            Step::HearProducer(n) => world.hear_producer(w(n)),
            Step::Work(n) => world.work(w(n)),
            Step::SinkHears(n, twice) => world.sink_hears(w(n), twice),
            Step::HearGrant(n) => world.hear_grant(w(n)),
            Step::DamageTicket(n) => world.ticket_is_damaged(w(n)),
            Step::DamageResult(n) => world.result_is_damaged(w(n)),
            Step::HearControl => world.hear_control(),
            Step::SayState => world.say_state(),
            Step::HearSink(lost) => world.hear_sink(lost),
            Step::OldState(n) => world.hear_old_state(n.into()),
            Step::Write => world.write(),
            Step::Publish => world.publish(),
            Step::Flush => world.flush(),
            Step::Start(n) => world.worker_starts(w(n)),
            Step::Die(n, lost) => world.worker_dies(w(n), lost.into()),
            Step::Leave(n) => world.worker_leaves(w(n)),
            Step::Recover(n) => world.workers[w(n)].hung = false,
            Step::LinkBreaks(n, lost) => world.sink_link_breaks(w(n), lost.into()),
            Step::SinkStarts => world.sink_starts(),
            Step::SinkDies => world.sink_dies(),
            Step::Pause => world.sink_pauses(),
            Step::ControlBreaks => world.control_breaks(),
            Step::ProducerRestarts => world.producer_restarts(),
            Step::Round => {
                world.sink_starts();
                (0..world.workers.len()).for_each(|at| world.worker_starts(at));
                round(&mut world);
            }
        }
    }
    let calm = calm && world.now < GIVE_UP;
    // No more faults but those that the frames bring.
    for _ in 0..ROUNDS {
        if world.durable() == world.setup.frames && world.dispatcher.is_complete() {
            return world.check_end(calm);
        }
        world.sink_starts();
        for at in 0..world.workers.len() {
            // Where all hang, the scan ends by a time-out and somebody restarts the workers.
            if world.dispatcher.all_stuck() {
                world.worker_dies(at, 0);
            }
            world.worker_starts(at);
        }
        world.frames_come(1);
        world.tick(Duration::from_secs(1));
        round(&mut world);
    }
    panic!("the scan does not end: {world:#?}");
}

/// Runs schedules: so many by default, or as many as the environment says.
fn every_index_arrives_once(default: u32, shared: bool) {
    let wanted = std::env::var("PTYSTREAM_SCHEDULES").ok();
    let cases =
        wanted.as_ref().map_or(default, |n| n.parse().expect("PTYSTREAM_SCHEDULES is a number"));
    let seeds = FileFailurePersistence::WithSource("regressions");
    let config = Config {
        cases,
        failure_persistence: Some(Box::new(seeds)),
        source_file: Some(file!()),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let schedule = (setup(), vec(step(), 0..90));
    // The tests always run the same schedules; a campaign runs others each time.
    let mut runner = match wanted {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    let result = runner.run(&schedule, |(setup, steps)| {
        run(Setup { shared, ..setup }, steps);
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn every_index_arrives_once_whatever_happens() {
    every_index_arrives_once(100_000, false);
}

#[test]
fn every_index_arrives_once_where_each_worker_has_its_part() {
    every_index_arrives_once(20_000, true);
}
