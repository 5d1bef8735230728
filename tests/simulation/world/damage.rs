//! Pixels that come damaged: whoever takes them tells the producer, and they go out again.

use super::*;

impl World {
    /// The next ticket of a worker is damaged on its way.
    pub fn ticket_is_damaged(&mut self, at: usize) {
        let half = self.setup.window.div_ceil(2);
        let worker = &mut self.workers[at];
        if !worker.alive || worker.hung || worker.finished.is_some() {
            return;
        }
        let Some((stamp, range)) = worker.tickets.pop_front() else { return };
        worker.to_producer.push_back((worker.at_producer, ToProducer::Damaged(stamp, range)));
        worker.ticket_done(half);
    }

    /// What a worker sends next to the sink is damaged on its way.
    pub fn result_is_damaged(&mut self, at: usize) {
        let Some((peer, ToSink::Prepared(stamp, range))) =
            self.workers[at].to_sink.front().cloned()
        else {
            return;
        };
        let Some(sink) = &mut self.sink else { return };
        self.workers[at].to_sink.pop_front();
        if sink.hear_damaged(peer, stamp) {
            self.told.push_back(Told::Damaged(stamp, range));
        }
        self.grant();
    }

    pub fn worker_says_damaged(&mut self, peer: u64, stamp: Stamp, range: IndexRange) {
        if self.roster.counts(PeerId(peer), stamp) {
            self.count_damage(range);
            if let Some(held) = self.held.get_mut(&peer) {
                held.ranges.retain(|(r, _)| !meet(*r, range));
            }
            let actions = self.dispatcher.damaged(range, Some(PeerId(peer)));
            self.act(actions);
        }
    }

    pub fn sink_says_damaged(&mut self, stamp: Stamp, range: IndexRange) {
        if self.roster.is_current(stamp) {
            self.count_damage(range);
            for held in self.held.values_mut() {
                held.ranges.retain(|(r, _)| !meet(*r, range));
            }
            let actions = self.dispatcher.damaged(range, None);
            self.act(actions);
        }
    }

    fn count_damage(&mut self, range: IndexRange) {
        for index in range.iter() {
            *self.damages.entry(index.0).or_default() += 1;
        }
    }
}

fn meet(a: IndexRange, b: IndexRange) -> bool {
    a.first.0 < b.end() && b.first.0 < a.end()
}
