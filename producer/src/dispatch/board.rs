//! The pieces of a scan that are under way, and in which list each of them stands.
//!
//! A piece is a run of indices of one batch that are neither safe nor gaps: a ticket's frames.
//! Pieces are disjoint. Where a piece stands follows from what is known of it, see [`Board::file`].

use super::Now;
use ptystream_common::index::IndexRange;
use ptystream_common::link::PeerId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// So many workers hold a piece at most.
pub(super) const MOST_HOLDERS: usize = 3;

/// A worker's hold on a piece.
#[derive(Clone, Debug)]
pub(super) struct Hold {
    pub(super) worker: PeerId,
    pub(super) name: Arc<str>,
    /// The ticket's number, in the order of sending.
    pub(super) ticket: u64,
    pub(super) sent: Now,
    /// When the worker said goodbye.
    pub(super) left: Option<Now>,
}

/// A run of indices to be prepared.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) range: IndexRange,
    pub(super) holds: Vec<Hold>,
    /// Whether it has been handed out before.
    pub(super) again: bool,
    /// Whether a worker died that held it: it then goes out alone.
    pub(super) suspect: bool,
    /// Names of the workers that died while they held nothing else.
    pub(super) deaths: Vec<Arc<str>>,
    /// How often its pixels came damaged.
    pub(super) damages: u32,
}

impl Piece {
    pub(super) fn new(range: IndexRange) -> Self {
        Self {
            range,
            holds: Vec::new(),
            again: false,
            suspect: false,
            deaths: Vec::new(),
            damages: 0,
        }
    }

    pub(super) fn is_held_by(&self, worker: PeerId) -> bool {
        self.holds.iter().any(|h| h.worker == worker)
    }

    fn last_sent(&self) -> Now {
        self.holds.iter().map(|h| h.sent).max().unwrap_or_default()
    }
}

/// All pieces, by their first index.
#[derive(Debug, Default)]
pub(super) struct Board {
    pieces: BTreeMap<u64, Piece>,
    /// Held by nobody, to go out.
    pub(super) queue: BTreeSet<u64>,
    /// Held by nobody, to go out alone.
    pub(super) suspects: BTreeSet<u64>,
    /// Held by nobody; the sink does not hold the gaps of its batch yet.
    pub(super) blocked: BTreeSet<u64>,
    /// Held, and to be given to one more.
    pub(super) late: BTreeSet<u64>,
    /// Held by less than the most, by the time of the last sending.
    by_age: BTreeSet<(Now, u64)>,
    out: usize,
}

impl Board {
    /// Returns how many pieces are held.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    pub(super) fn get(&self, first: u64) -> Option<&Piece> {
        self.pieces.get(&first)
    }

    /// Walks through the pieces in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.values()
    }

    /// Changes a piece and files it anew; `blocked`: see [`Self::blocked`].
    pub(super) fn change(&mut self, first: u64, blocked: bool, how: impl FnOnce(&mut Piece)) {
        if let Some(mut piece) = self.remove(first) {
            how(&mut piece);
            self.file(piece, blocked);
        }
    }

    /// Takes a piece in, in the list that it belongs to.
    pub(super) fn file(&mut self, piece: Piece, blocked: bool) {
        let first = piece.range.first.0;
        match piece.holds.len() {
            0 if blocked => self.blocked.insert(first),
            0 if piece.suspect => self.suspects.insert(first),
            0 => self.queue.insert(first),
            held => {
                self.out += 1;
                held < MOST_HOLDERS && self.by_age.insert((piece.last_sent(), first))
            }
        };
        self.pieces.insert(first, piece);
    }

    /// Takes a piece out.
    pub(super) fn remove(&mut self, first: u64) -> Option<Piece> {
        let piece = self.pieces.remove(&first)?;
        match piece.holds.is_empty() {
            true => {
                let lists = [&mut self.queue, &mut self.suspects, &mut self.blocked];
                lists.into_iter().any(|list| list.remove(&first));
            }
            false => {
                self.out -= 1;
                self.by_age.remove(&(piece.last_sent(), first));
                self.late.remove(&first);
            }
        }
        Some(piece)
    }

    /// Returns the first indices of the pieces that share an index with `[start, end)`.
    pub(super) fn touching(&self, start: u64, end: u64) -> Vec<u64> {
        let before = self.pieces.range(..start).next_back().filter(|(_, p)| p.range.end() > start);
        let inside = self.pieces.range(start..end.max(start));
        before.into_iter().chain(inside).map(|(&first, _)| first).collect()
    }

    /// Marks as late what was last sent at `before` or earlier.
    pub(super) fn find_late(&mut self, before: Now) {
        while let Some(&(sent, first)) = self.by_age.first() {
            if sent > before {
                return;
            }
            self.by_age.pop_first();
            self.late.insert(first);
        }
    }

    /// Returns when the piece that nobody else was given for longest was sent.
    pub(super) fn oldest(&self) -> Option<Now> {
        self.by_age.first().map(|&(sent, _)| sent)
    }
}
