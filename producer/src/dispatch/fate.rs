//! How tickets end: settled, failed, taken back; and when frames are given up.

use super::board::Piece;
use super::{Action, Dispatcher, Hold, Tally};
use ptystream_common::index::IndexRange;
use ptystream_common::link::PeerId;
use std::time::Duration;

/// So many workers die over a frame, one after the other, before it is a gap.
const DEATHS: usize = 3;
/// So often pixels come damaged before it is no chance any more.
const DAMAGES: u32 = 8;

/// What ends a ticket.
#[derive(Clone, Copy)]
enum End {
    Settled,
    Failed,
    Lost,
}

/// Tells whether a piece is to go frame by frame, or a single frame has had its deaths.
fn is_judged(piece: &Piece) -> bool {
    piece.deaths.len() >= if piece.range.count > 1 { 1 } else { DEATHS }
}

impl Dispatcher {
    /// Ends a hold that is no longer in its piece.
    fn end_hold(&mut self, first: u64, hold: Hold, how: End) {
        self.tally(&hold.name, |t: &mut Tally| {
            t.held -= 1;
            match how {
                End::Settled => t.settled += 1,
                End::Failed => t.failed += 1,
                End::Lost => t.lost += 1,
            }
        });
        match hold.left {
            Some(left) => {
                self.orphans.remove(&(left, first, hold.worker));
            }
            None => {
                if let Some(worker) = self.crew.workers.get_mut(&hold.worker) {
                    worker.relieve(hold.ticket, self.now);
                }
            }
        }
    }

    /// The sink holds a piece: all its holders are relieved, and a suspect is cleared.
    pub(super) fn settle(&mut self, first: u64) {
        let Some(piece) = self.board.remove(first) else { return };
        if let [hold] = &piece.holds[..] {
            self.remember(hold.sent);
            if hold.left.is_none() {
                self.heard(hold.worker);
            }
        }
        for hold in piece.holds {
            self.end_hold(first, hold, End::Settled);
        }
    }

    /// A frame of a piece is a gap: the rest goes out again.
    pub(super) fn fail(&mut self, first: u64) {
        let Some(mut piece) = self.board.remove(first) else { return };
        for hold in std::mem::take(&mut piece.holds) {
            self.end_hold(first, hold, End::Failed);
        }
        self.file(piece);
        self.put_back(first);
    }

    /// Takes a piece back from one holder.
    pub(super) fn lose(&mut self, first: u64, worker: PeerId) {
        let mut lost = None;
        let blocked = self.is_blocked(first);
        self.board.change(first, blocked, |piece| {
            let at = piece.holds.iter().position(|h| h.worker == worker);
            lost = at.map(|at| piece.holds.remove(at));
        });
        if let Some(hold) = lost {
            self.end_hold(first, hold, End::Lost);
        }
    }

    /// Takes a piece back from all its holders.
    pub(super) fn take_back_all(&mut self, first: u64) {
        let Some(mut piece) = self.board.remove(first) else { return };
        for hold in std::mem::take(&mut piece.holds) {
            self.end_hold(first, hold, End::Lost);
        }
        self.file(piece);
    }

    /// Pixels came damaged, raw ones at `worker`, or prepared ones at the sink (`None`): they go out
    /// again, until it has happened too often.
    pub(super) fn take_back_damaged(&mut self, range: IndexRange, worker: Option<PeerId>) {
        for first in self.board.touching(range.first.0, range.end()) {
            let held = |piece: &Piece| match worker {
                Some(worker) => piece.is_held_by(worker),
                None => !piece.holds.is_empty(),
            };
            // What nobody holds goes out again anyway.
            if !self.board.get(first).is_some_and(held) {
                continue;
            }
            self.counts.damaged += 1;
            let blocked = self.is_blocked(first);
            self.board.change(first, blocked, |piece| piece.damages += 1);
            match worker {
                Some(worker) => self.lose(first, worker),
                None => self.take_back_all(first),
            }
            match self.board.get(first) {
                Some(piece) if piece.damages >= DAMAGES && piece.holds.is_empty() => {
                    let (range, damages) = (piece.range, piece.damages);
                    self.board.remove(first);
                    let reason = format!(
                        "its pixels came damaged {damages} times on their way (checksums); look \
                         after network and memory"
                    );
                    self.make_gap(range, reason);
                }
                _ => self.put_back(first),
            }
        }
    }

    /// Takes back whatever a worker holds; nothing of it is suspect.
    pub(super) fn take_back(&mut self, worker: PeerId) {
        let held = self.crew.workers.get(&worker).map(|w| w.held.clone()).unwrap_or_default();
        for first in held.into_values() {
            self.lose(first, worker);
            self.put_back(first);
        }
    }

    /// A worker has died: what it held is suspect.
    pub(super) fn died(&mut self, worker: PeerId) {
        let Some(dead) = self.crew.workers.get(&worker) else { return };
        let (alone, name, held) = (dead.alone, dead.name.clone(), dead.held.clone());
        for first in held.into_values() {
            self.lose(first, worker);
            let mut new = false;
            let blocked = self.is_blocked(first);
            self.board.change(first, blocked, |piece| {
                new = !piece.suspect;
                piece.suspect = true;
                if alone {
                    piece.deaths.push(name.clone());
                }
            });
            self.counts.suspects += u64::from(new);
            self.counts.solo_deaths += u64::from(alone);
            // Another holder may hang, and would keep the verdict waiting for ever.
            if self.board.get(first).is_some_and(is_judged) {
                self.take_back_all(first);
            }
            self.put_back(first);
        }
        self.crew.leave(worker);
    }

    /// Files a piece that nobody holds anew, as far as it is still to be had: a suspect over which
    /// a worker died alone goes frame by frame, and is a gap when three died over the same frame.
    pub(super) fn put_back(&mut self, first: u64) {
        if self.board.get(first).is_none_or(|p| !p.holds.is_empty()) {
            return;
        }
        let Some(piece) = self.board.remove(first) else { return };
        let single = piece.range.count > 1 && is_judged(&piece);
        if !single && is_judged(&piece) {
            let names = piece.deaths.join(", ");
            let dead = piece.deaths.len();
            let reason = format!("{dead} workers died over it, one after the other: {names}");
            self.counts.convicted += 1;
            self.make_gap(piece.range, reason);
            return;
        }
        for run in self.missing(piece.range) {
            // One death over all of them tells against each, further ones at the same time do not.
            let deaths = piece.deaths.iter().take(if single { 1 } else { DEATHS });
            let (deaths, width) = (deaths.cloned().collect(), if single { 1 } else { run.count });
            let part = Piece { holds: Vec::new(), range: run, deaths, ..piece.clone() };
            for at in (run.first.0..run.end()).step_by(width as usize) {
                self.file(Piece { range: IndexRange::new(at, width), ..part.clone() });
            }
        }
    }

    /// Frames that nobody holds become gaps.
    fn make_gap(&mut self, range: IndexRange, reason: String) {
        for run in self.missing(range) {
            self.gaps.insert_range(run);
            self.actions.push(Action::Gap { range: run, reason: reason.clone() });
        }
    }

    /// Gives up what three workers, or all that there are, stand still over, so that the scan
    /// always ends; and workers that stand still over nothing.
    ///
    /// A worker does one ticket after the other. So time counts from when it came to its present
    /// one, and a slow worker that goes on is never taken for a hung one.
    pub(super) fn give_up(&mut self) {
        let (now, least) = (self.now, self.cut.give_up);
        if !self.crew.workers.values().any(|w| w.is_overdue(now, least)) {
            return;
        }
        let limit = self.patience(least);
        let mut fronts = Vec::new();
        for worker in self.crew.workers.values_mut().filter(|w| w.is_overdue(now, limit)) {
            match worker.held.values().next() {
                Some(&first) => fronts.push(first),
                None => worker.stuck = true,
            }
        }
        fronts.sort_unstable();
        fronts.dedup();
        for first in fronts {
            self.give_up_piece(first, limit);
        }
    }

    fn give_up_piece(&mut self, first: u64, limit: Duration) {
        let now = self.now;
        let Some(piece) = self.board.get(first) else { return };
        let overdue = |w: &PeerId| {
            self.crew.workers.get(w).is_some_and(|w| w.stuck || w.is_overdue(now, limit))
        };
        let holders: Vec<PeerId> = piece.holds.iter().map(|h| h.worker).collect();
        let long = piece.holds.iter().all(|h| now.saturating_sub(h.sent) > limit);
        // A piece whose holder has left is taken back soon.
        if holders.is_empty() || !long || !holders.iter().all(overdue) {
            return;
        }
        let others = self.crew.workers.keys().any(|w| !holders.contains(w) && !overdue(w));
        if holders.len() < super::board::MOST_HOLDERS && others {
            return;
        }
        let range = piece.range;
        let names: Vec<&str> = piece.holds.iter().map(|h| &*h.name).collect();
        let (count, plural) = (names.len(), if names.len() == 1 { "" } else { "s" });
        let alone = match names.len() < super::board::MOST_HOLDERS {
            true => ", and there is no other",
            false => "",
        };
        let reason = format!(
            "{count} worker{plural} did not finish it in {} s: {}{alone}",
            limit.as_secs_f64().round(),
            names.join(", ")
        );
        self.counts.given_up += self.missing(range).iter().map(|r| u64::from(r.count)).sum::<u64>();
        self.take_back_all(first);
        self.board.remove(first);
        self.make_gap(range, reason);
        for worker in holders {
            self.take_back(worker);
            if let Some(worker) = self.crew.workers.get_mut(&worker) {
                worker.stuck = true;
            }
        }
    }
}
