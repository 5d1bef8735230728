//! Whether gaps have a good reason, and nothing is missing at the end.

use super::*;

impl World {
    /// Checks that an index becomes a gap for a good reason.
    pub(super) fn judge(&mut self, index: u64, reason: &str) {
        if reason.contains("died") {
            let deaths = self.solo_deaths.get(&index).copied().unwrap_or(0);
            assert!(deaths >= 3, "{index} is convicted after {deaths} deaths");
            return;
        }
        if reason.contains("damaged") {
            let damages = self.damages.get(&index).copied().unwrap_or(0);
            assert!(damages >= 8, "{index} is given up after {damages} damaged copies");
            return;
        }
        assert!(reason.contains("did not finish"), "{reason}");
        let now = self.now;
        let mut holders = 0;
        for held in self.held.values_mut() {
            let at = held.ranges.iter().position(|(r, _)| r.contains(Index(index)));
            let Some(at) = at else { continue };
            holders += 1;
            assert!(
                now - held.ranges[at].1 >= GIVE_UP,
                "{index} is given up early: {reason}, {now:?}, {held:?} of {holders}"
            );
        }
        assert!(holders > 0 || self.gaps.keys().any(|g| g.abs_diff(index) < 8), "nobody held it");
        // Whoever stands still over it is relieved of everything.
        let stuck = |h: &Held| h.ranges.iter().any(|(r, _)| r.contains(Index(index)));
        for held in self.held.values_mut().filter(|h| stuck(h)) {
            held.ranges.retain(|(r, _)| r.contains(Index(index)));
        }
    }

    /// At the end: nothing is missing, and gaps have a reason. With `calm`, no other than that a
    /// frame cannot be had: no worker died or stood still but over a frame.
    pub fn check_end(&self, calm: bool) {
        assert!(self.dispatcher.is_complete(), "the producer knows of the end");
        for index in 0..self.setup.frames {
            let frame = self.file[&index];
            let must = self.setup.poison.contains(&index)
                || self.setup.hang.contains(&index)
                || self.setup.bad.contains(&index);
            let calm = calm && self.damages.get(&index).is_none_or(|&n| n < 8);
            assert!(!must || !frame, "{index} cannot be had and is in the file");
            // One frame that hangs takes its batch with it, and whoever it stops looks stuck.
            let calm = calm && self.setup.hang.is_empty();
            assert!(!calm || must || frame, "{index} can be had and is a gap");
        }
    }
}
