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
    }
}

fn sends(actions: &[Action]) -> Vec<(u64, IndexRange)> {
    actions.iter().map(|Action::Send { worker, range, .. }| (worker.0, *range)).collect()
}

#[test]
fn hands_out_nothing_before_the_file_is_open_nor_beyond_the_horizon() {
    let mut d = Dispatcher::new(cut(1, 4), Some(20));
    assert!(d.source_has(20, None).is_empty());
    assert!(d.want(PeerId(1), 100).is_empty());
    assert_eq!(d.opened(8, &IndexSet::new()).len(), 8);
    assert_eq!(d.state(4, &IndexSet::new()).len(), 4);
}

#[test]
fn a_lost_workers_tickets_go_to_another_lowest_first() {
    let mut d = Dispatcher::new(cut(2, 4), Some(8));
    d.source_has(8, None);
    d.opened(8, &IndexSet::new());
    assert_eq!(sends(&d.want(PeerId(1), 2)).len(), 2);
    assert!(d.worker_gone(PeerId(1)).is_empty());
    let again = sends(&d.want(PeerId(2), 3));
    let firsts: Vec<u64> = again.iter().map(|(_, r)| r.first.0).collect();
    assert_eq!(firsts, [0, 2, 4]);
    assert_eq!(d.counts(), Counts { sent: 5, again: 2 });
}

#[test]
fn a_gap_inside_a_batch_sends_the_rest_again() {
    let mut d = Dispatcher::new(cut(4, 4), Some(4));
    d.source_has(4, None);
    d.opened(8, &IndexSet::new());
    d.want(PeerId(1), 2);
    let (actions, new) = d.declare_gap(IndexRange::new(2, 1));
    assert_eq!(new, [Index(2)]);
    assert!(actions.is_empty(), "the sink does not know of the gap yet");
    let mut told = IndexSet::new();
    told.insert(2, 3);
    assert_eq!(
        d.state(0, &told),
        [Action::Send { worker: PeerId(1), range: IndexRange::new(0, 4), gaps: vec![Index(2)] }]
    );
    assert!(d.declare_gap(IndexRange::new(2, 1)).1.is_empty(), "declared once");
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
        for Action::Send { worker, range, gaps } in actions {
            let credit = self.credit.get_mut(&worker.0).unwrap();
            *credit -= 1;
            assert!(*credit >= 0, "more tickets than asked for");
            assert!(range.end() <= self.watermark + self.horizon, "beyond the horizon");
            assert!(range.end() <= self.n);
            assert_eq!(range.first.0 / self.fpc, (range.end() - 1) / self.fpc, "one chunk");
            assert!(
                range.iter().any(|i| !self.accepted.contains(&i.0)),
                "sent though safe: {range}"
            );
            let told: BTreeSet<u64> = gaps.iter().map(|i| i.0).collect();
            let real: BTreeSet<u64> =
                range.iter().map(|i| i.0).filter(|i| self.gaps.contains(i)).collect();
            assert_eq!(told, real);
            assert!(told.is_subset(&self.accepted), "sent before the sink held its gaps");
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
        let mut d = Dispatcher::new(cut(batch, fpc), Some(n));
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
            now += Duration::from_secs(1);
            match step {
                Step::Want(w, k) => {
                    let peer = peers[w as usize];
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
                    d.worker_left(PeerId(peer), now);
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
                    m.take(d.opened(horizon, &durable));
                    let set = m.accepted_set();
                    m.take(d.state(m.watermark, &set));
                }
                Step::Tick => { m.take(d.tick(now)); }
            }
            if d.is_complete() { break; }
            prop_assert!(turn < 6000, "the scan always ends");
        }
        prop_assert!((0..n).all(|i| m.accepted.contains(&i)));
    }
}
