//! The dispatcher against a simple model: a sink that keeps sets, workers that hold lists.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn cut(batch: u32, fpc: u32) -> Cut {
    Cut {
        batch,
        frames_per_chunk: fpc,
        max_outstanding: usize::MAX,
        orphan_grace: Duration::from_secs(5),
        straggler: Duration::from_secs(5),
        give_up: Duration::from_secs(300),
        policy: Policy::Dynamic,
    }
}

fn sends(actions: &[Action]) -> Vec<(u64, IndexRange)> {
    let send = |action: &Action| match action {
        Action::Send { worker, range } => Some((worker.0, *range)),
        Action::Gap { .. } => None,
    };
    actions.iter().filter_map(send).collect()
}

fn gaps(actions: &[Action]) -> Vec<(IndexRange, &str)> {
    let gap = |action| match action {
        &Action::Gap { range, ref reason } => Some((range, reason.as_str())),
        Action::Send { .. } => None,
    };
    actions.iter().filter_map(gap).collect()
}

fn set(ranges: &[(u64, u64)]) -> IndexSet {
    ranges.to_vec().into()
}

fn secs(secs: u64) -> Now {
    Duration::from_secs(secs)
}

/// A dispatcher of `n` frames that is open, and workers 1, 2, ... that have asked for nothing.
fn ready(cut: Cut, n: u64, workers: u64) -> Dispatcher {
    let mut d = Dispatcher::new(cut, Some(n));
    d.source_has(n, None);
    d.opened(n, &IndexSet::new());
    for worker in 1..=workers {
        d.worker_joined(PeerId(worker), &format!("w{worker}"));
    }
    d
}

fn one(first: u64) -> IndexRange {
    IndexRange::new(first, 1)
}

#[test]
fn hands_out_nothing_before_the_file_is_open_nor_beyond_the_horizon() {
    let mut d = Dispatcher::new(cut(1, 4), Some(20));
    d.worker_joined(PeerId(1), "w1");
    assert!(d.source_has(20, None).is_empty());
    assert!(d.want(PeerId(1), 100).is_empty());
    assert!(d.opened(8, &IndexSet::new()).is_empty(), "what was asked for before is void");
    assert_eq!(d.want(PeerId(1), 100).len(), 8);
    assert_eq!(d.state(4, &IndexSet::new()).len(), 4);
}

#[test]
fn what_comes_damaged_goes_out_again_and_not_for_ever() {
    let mut d = ready(cut(2, 4), 4, 1);
    let (worker, range) = (PeerId(1), IndexRange::new(0, 2));
    assert_eq!(sends(&d.want(worker, 1)), [(1, range)]);
    for time in 1..8 {
        // Raw pixels at the worker, prepared ones at the sink.
        let at = (time % 2 == 1).then_some(worker);
        assert!(d.damaged(range, at).is_empty(), "the worker has not asked for more");
        assert!(d.damaged(range, at).is_empty(), "nobody holds it: said once more it is no news");
        assert_eq!(sends(&d.want(worker, 1)), [(1, range)], "again, after time {time}");
    }
    let actions = d.damaged(range, None);
    assert!(
        matches!(&gaps(&actions)[..], [(r, why)] if *r == range && why.contains("damaged 8 times"))
    );
    assert_eq!((d.counts().damaged, d.counts().again, d.counts().frames_again), (8, 7, 14));
    let tally = d.counts().tickets;
    assert_eq!((tally.sent, tally.lost, tally.held), (8, 8, 0));
    assert_eq!(sends(&d.want(worker, 1)), [(1, IndexRange::new(2, 2))], "the rest goes on");
}

fn static_cut(batch: u32, fpc: u32, workers: usize) -> Cut {
    let policy = Policy::Static { workers, patience: Duration::from_secs(60) };
    Cut { policy, ..cut(batch, fpc) }
}

#[test]
fn each_worker_gets_its_part_of_each_chunk() {
    // Chunks of 10, 10 and 5 frames on two ranks: (5, 5), (5, 5), (2, 3).
    let mut d = ready(static_cut(4, 10, 2), 25, 1);
    assert!(d.want(PeerId(1), 100).is_empty(), "it waits for the other");
    let sent = sends(&d.worker_joined(PeerId(2), "w2"));
    let runs = |pairs: &[(u64, u32)]| -> Vec<IndexRange> {
        pairs.iter().map(|&(first, n)| IndexRange::new(first, n)).collect()
    };
    let of = |sent: &[(u64, IndexRange)]| sent.iter().map(|s| s.1).collect::<Vec<_>>();
    // Batches of four within a chunk, cut where the part ends.
    assert_eq!(of(&sent), runs(&[(0, 4), (4, 1), (10, 4), (14, 1), (20, 2)]));
    let rest = sends(&d.want(PeerId(2), 100));
    assert_eq!(of(&rest), runs(&[(5, 3), (8, 2), (15, 3), (18, 2), (22, 2), (24, 1)]));
}

#[test]
fn what_belongs_to_a_worker_that_is_gone_goes_to_who_is_there() {
    let mut d = ready(static_cut(2, 8, 2), 16, 2);
    assert_eq!(sends(&d.want(PeerId(1), 1)), [(1, IndexRange::new(0, 2))]);
    d.worker_gone(PeerId(2));
    let sent = sends(&d.want(PeerId(1), 100));
    assert_eq!(sent.len(), 7, "{sent:?}");
    assert!(d.all_sent());
}

#[test]
fn who_comes_back_has_its_part_again() {
    let mut d = ready(static_cut(2, 8, 2), 16, 2);
    d.worker_gone(PeerId(2));
    d.worker_joined(PeerId(3), "w2");
    let sent = sends(&d.want(PeerId(1), 100));
    assert!(sent.iter().all(|(_, range)| range.first.0 % 8 < 4), "{sent:?}");
    assert_eq!(sends(&d.want(PeerId(3), 100)).len(), 4);
}

#[test]
fn a_dead_workers_tickets_go_to_others_one_by_one() {
    let mut d = ready(cut(2, 4), 8, 3);
    assert_eq!(sends(&d.want(PeerId(1), 2)).len(), 2);
    assert!(d.worker_gone(PeerId(1)).is_empty());
    assert_eq!(sends(&d.want(PeerId(2), 3)), [(2, IndexRange::new(0, 2))], "alone");
    assert_eq!(sends(&d.want(PeerId(3), 3)), [(3, IndexRange::new(2, 2))], "alone");
    // Who is done with a suspect goes on as usual.
    let rest = sends(&d.state(0, &set(&[(0, 2)])));
    assert_eq!(rest, [(2, IndexRange::new(4, 2)), (2, IndexRange::new(6, 2))]);
    let counts = d.counts();
    assert_eq!((counts.suspects, counts.again, counts.solo_deaths), (2, 2, 0));
    let tally = Tally { sent: 6, settled: 1, failed: 0, lost: 2, held: 3 };
    assert_eq!(counts.tickets, tally);
    assert_eq!(d.by_worker()["w1"], Tally { sent: 2, lost: 2, ..Tally::default() });
}

#[test]
fn a_worker_that_begins_anew_makes_no_suspects() {
    let mut d = ready(cut(1, 4), 4, 1);
    d.want(PeerId(1), 2);
    d.worker_joined(PeerId(1), "w1");
    assert_eq!(sends(&d.want(PeerId(1), 3)), [(1, one(0)), (1, one(1)), (1, one(2))]);
    assert_eq!(d.counts().suspects, 0);
}

#[test]
fn a_busy_worker_is_kept_free_for_a_suspect() {
    let mut d = ready(cut(1, 8), 8, 2);
    d.want(PeerId(1), 1);
    d.want(PeerId(2), 2);
    d.worker_gone(PeerId(1));
    assert!(d.want(PeerId(2), 4).is_empty(), "it is to become idle");
    assert!(d.state(0, &set(&[(1, 2)])).is_empty());
    assert_eq!(sends(&d.state(0, &set(&[(1, 3)]))), [(2, one(0))]);
}

#[test]
fn poison_is_narrowed_down_to_its_frame() {
    let mut d = ready(cut(2, 2), 2, 4);
    d.want(PeerId(1), 1);
    d.worker_gone(PeerId(1));
    assert_eq!(sends(&d.want(PeerId(2), 1)), [(2, IndexRange::new(0, 2))]);
    d.worker_gone(PeerId(2));
    assert_eq!(sends(&d.want(PeerId(3), 2)), [(3, one(0))], "frame by frame");
    assert_eq!(sends(&d.state(0, &set(&[(0, 1)]))), [(3, one(1))]);
    d.worker_gone(PeerId(3));
    d.want(PeerId(4), 1);
    let actions = d.worker_gone(PeerId(4));
    assert_eq!(
        gaps(&actions),
        [(one(1), "3 workers died over it, one after the other: w2, w3, w4")]
    );
    assert_eq!((d.counts().solo_deaths, d.counts().convicted), (3, 1));
}

#[test]
fn a_straggler_goes_to_a_second_and_third_worker_and_the_first_result_relieves_all() {
    let mut d = ready(cut(1, 9), 9, 4);
    d.want(PeerId(1), 1);
    assert!(d.tick(secs(4)).is_empty());
    d.want(PeerId(2), 1);
    assert_eq!(d.outstanding(), 2);
    d.tick(secs(5));
    assert_eq!(sends(&d.want(PeerId(2), 1)), [(2, one(0))], "before anything new");
    d.tick(secs(10));
    assert_eq!(sends(&d.want(PeerId(3), 1)), [(3, one(0))], "and to a third");
    d.tick(secs(20));
    assert_eq!(sends(&d.want(PeerId(4), 2)), [(4, one(1)), (4, one(2))], "not to a fourth");
    d.state(0, &set(&[(0, 1)]));
    assert_eq!(d.counts().doubled, 3);
    assert_eq!(d.counts().tickets.settled, 3);
    assert_eq!(d.by_worker()["w1"].held, 0);
}

#[test]
fn what_all_stand_still_over_becomes_a_gap_but_a_slow_worker_is_let_be() {
    let mut d = ready(cut(1, 9), 9, 1);
    d.want(PeerId(1), 3);
    // Slow: one ticket in 200 s; its third was sent 600 s ago.
    for at in [200, 400] {
        assert!(d.tick(secs(at)).is_empty());
        d.state(0, &set(&[(0, at / 200)]));
    }
    let usual = secs(400) * 10;
    assert!(d.tick(secs(400) + usual).is_empty());
    let actions = d.tick(secs(401) + usual);
    let why = "1 worker did not finish it in 4000 s: w1, and there is no other";
    assert_eq!(gaps(&actions), [(one(2), why)]);
    assert!(d.all_stuck());
    d.heard(PeerId(1));
    assert!(!d.all_stuck());
}

#[test]
fn three_workers_that_hang_over_a_frame_are_enough() {
    let mut d = ready(cut(1, 9), 9, 4);
    for (at, worker) in [(0, 1), (5, 2), (10, 3)] {
        d.tick(secs(at));
        assert_eq!(sends(&d.want(PeerId(worker), 1)), [(worker, one(0))]);
    }
    assert!(d.tick(secs(310)).is_empty(), "the third has had it for 300 s only");
    let actions = d.tick(secs(311));
    assert_eq!(gaps(&actions), [(one(0), "3 workers did not finish it in 300 s: w1, w2, w3")]);
    assert_eq!(d.counts().given_up, 1);
    assert!(d.want(PeerId(4), 1).len() == 1 && !d.all_stuck());
}

#[test]
fn a_gap_inside_a_batch_sends_the_rest_again() {
    let mut d = ready(cut(4, 4), 4, 1);
    d.want(PeerId(1), 3);
    let (actions, new) = d.declare_gap(one(2));
    assert_eq!(new, [Index(2)]);
    assert!(actions.is_empty(), "the sink does not know of the gap yet");
    let rest = sends(&d.state(0, &set(&[(2, 3)])));
    assert_eq!(rest, [(1, IndexRange::new(0, 2)), (1, one(3))], "no ticket names a gap");
    assert!(d.declare_gap(one(2)).1.is_empty(), "declared once");
    assert!(!d.has_frames());
}

#[test]
fn the_same_sink_that_comes_back_costs_no_ticket() {
    let mut d = ready(cut(1, 4), 4, 1);
    d.want(PeerId(1), 2);
    d.sink_lost();
    assert!(d.want(PeerId(1), 2).is_empty());
    let actions = d.reopened(4, &IndexSet::new());
    assert_eq!(sends(&actions), [(1, one(2)), (1, one(3))]);
    assert_eq!(d.counts().again, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Want(u8, u8),
    Deliver(u8),
    Publish,
    Die(u8),
    Leave(u8),
    Fail(u8),
    SinkRestart,
    Tick,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..4, 1u8..4).prop_map(|(w, n)| Step::Want(w, n)),
        6 => any::<u8>().prop_map(Step::Deliver),
        2 => Just(Step::Publish),
        1 => (0u8..4).prop_map(Step::Die),
        1 => (0u8..4).prop_map(Step::Leave),
        1 => any::<u8>().prop_map(Step::Fail),
        1 => Just(Step::SinkRestart),
        1 => Just(Step::Tick),
    ]
}

/// A sink that keeps sets, workers that hold lists: the simple model.
struct Model {
    n: u64,
    fpc: u64,
    horizon: u64,
    accepted: BTreeSet<u64>,
    watermark: u64,
    gaps: BTreeSet<u64>,
    credit: HashMap<u64, i64>,
    held: Vec<(u64, IndexRange)>,
}

impl Model {
    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            let (worker, range) = match action {
                Action::Send { worker, range } => (worker, range),
                Action::Gap { range, .. } => {
                    self.gaps.extend(range.iter().map(|i| i.0));
                    self.accepted.extend(range.iter().map(|i| i.0));
                    continue;
                }
            };
            let credit = self.credit.get_mut(&worker.0).unwrap();
            *credit -= 1;
            assert!(*credit >= 0, "more tickets than asked for");
            assert!(range.end() <= self.watermark + self.horizon, "beyond the horizon");
            assert!(range.end() <= self.n);
            assert_eq!(range.first.0 / self.fpc, (range.end() - 1) / self.fpc, "one chunk");
            let free = |i: u64| !self.accepted.contains(&i) && !self.gaps.contains(&i);
            assert!(range.iter().all(|i| free(i.0)), "sent though safe or a gap: {range}");
            assert!(
                !self.held.iter().any(|(w, r)| *r == range && self.credit.contains_key(w)),
                "held twice by living workers: {range}"
            );
            self.held.push((worker.0, range));
        }
    }

    fn accepted_set(&self) -> IndexSet {
        let mut set = IndexSet::new();
        for &i in &self.accepted {
            set.insert(i, i + 1);
        }
        set
    }

    /// Picks a ticket of a worker that is there: after its goodbye nobody hears its failures, and
    /// what it held may be with another.
    fn pick_living(&self, pick: u8) -> Option<usize> {
        let holds = |at: &usize| self.credit.contains_key(&self.held[*at].0);
        let living: Vec<usize> = (0..self.held.len()).filter(holds).collect();
        living.get(usize::from(pick).checked_rem(living.len())?).copied()
    }

    /// Whole chunks from the front become durable.
    fn publish(&mut self) {
        loop {
            let end = (self.watermark + self.fpc).min(self.n);
            let whole = (self.watermark..end).all(|i| self.accepted.contains(&i));
            if self.watermark >= self.n || !whole {
                return;
            }
            self.watermark = end;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_index_arrives_whatever_happens(
        n in 1u64..40, fpc in 1u32..9, batch in 1u32..5, chunks in 2u64..4,
        steps in proptest::collection::vec(step(), 0..150),
    ) {
        let batch = batch.min(fpc);
        let horizon = chunks * u64::from(fpc);
        // No copies: they are the simulation's.
        let cut = Cut { straggler: Duration::MAX, give_up: Duration::MAX, ..cut(batch, fpc) };
        let mut d = Dispatcher::new(cut, Some(n));
        let mut m = Model { n, fpc: u64::from(fpc), horizon, accepted: BTreeSet::new(),
            watermark: 0, gaps: BTreeSet::new(), credit: HashMap::new(), held: Vec::new() };
        let mut peers: Vec<u64> = (0..4).collect();
        let mut fresh = 4;
        let mut now = Duration::ZERO;
        m.take(d.source_has(n, None));
        m.take(d.opened(horizon, &IndexSet::new()));
        let finish = (0..).map(|i| match i % 7 {
            0..=2 => Step::Want((i % 4) as u8, 2), 3 | 4 => Step::Deliver(i as u8),
            5 => Step::Publish, _ => Step::Tick });
        for (turn, step) in steps.into_iter().chain(finish).enumerate() {
            now += Duration::from_millis(10);
            m.take(d.tick(now));
            match step {
                Step::Want(w, k) => {
                    let peer = peers[w as usize];
                    if !m.credit.contains_key(&peer) {
                        m.take(d.worker_joined(PeerId(peer), &format!("w{w}")));
                    }
                    *m.credit.entry(peer).or_default() += i64::from(k);
                    m.take(d.want(PeerId(peer), u32::from(k)));
                }
                Step::Deliver(pick) => if !m.held.is_empty() {
                    let (_, range) = m.held.remove(pick as usize % m.held.len());
                    for i in range.iter() { m.accepted.insert(i.0); }
                    let set = m.accepted_set();
                    m.take(d.state(m.watermark, &set));
                },
                Step::Publish => {
                    m.publish();
                    let set = m.accepted_set();
                    m.take(d.state(m.watermark, &set));
                }
                Step::Die(w) => {
                    let peer = std::mem::replace(&mut peers[w as usize], fresh);
                    fresh += 1;
                    m.held.retain(|(p, _)| *p != peer);
                    m.credit.remove(&peer);
                    m.take(d.worker_gone(PeerId(peer)));
                }
                Step::Leave(w) => {
                    // Says goodbye; its results are on their way and may still arrive.
                    let peer = std::mem::replace(&mut peers[w as usize], fresh);
                    fresh += 1;
                    m.credit.remove(&peer);
                    d.worker_left(PeerId(peer));
                }
                Step::Fail(pick) => if let Some(at) = m.pick_living(pick) && m.gaps.len() < 5 {
                    let (_, range) = m.held.remove(at);
                    let bad = IndexRange::new(range.first.0, 1);
                    if !m.accepted.contains(&bad.first.0) { m.gaps.insert(bad.first.0); }
                    let (actions, new) = d.declare_gap(bad);
                    m.take(actions);
                    for i in new { m.accepted.insert(i.0); }
                    let set = m.accepted_set();
                    m.take(d.state(m.watermark, &set));
                },
                Step::SinkRestart => {
                    // Only what is durable survives; the producer declares its gaps again.
                    d.sink_lost();
                    let mut durable = IndexSet::new();
                    durable.insert(0, m.watermark);
                    m.accepted.retain(|i| *i < m.watermark || m.gaps.contains(i));
                    m.held.clear();
                    m.credit.values_mut().for_each(|credit| *credit = 0);
                    m.take(d.opened(horizon, &durable));
                    let set = m.accepted_set();
                    m.take(d.state(m.watermark, &set));
                }
                Step::Tick => now += Duration::from_secs(1),
            }
            let t = d.counts().tickets;
            prop_assert_eq!(t.sent, t.settled + t.failed + t.lost + t.held);
            if d.is_complete() { break; }
            prop_assert!(turn < 6000, "the scan always ends");
        }
        prop_assert!((0..n).all(|i| m.accepted.contains(&i)));
    }
}
