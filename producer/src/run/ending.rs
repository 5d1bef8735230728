//! How a scan ends before its time: a source that has less than was announced, frames that are
//! lost, and what `pipeline.on_abort` makes of it.

use super::Producer;
use crate::peers::wait_for_goodbyes;
use crate::phase::Phase;
use crate::read::Lost;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::index::{IndexRange, IndexSet};
use ptystream_common::link::PeerId;
use ptystream_common::message::{Aborted, Body, SinkReport, Stamp, is_wanted};
use ptystream_common::params::{OnAbort, OnGap};
use ptystream_common::report::{ProducerPart, ScanReport, time_text};
use std::collections::BTreeMap;
use std::time::{Instant, SystemTime};

impl Producer<'_> {
    /// Indices below `available` have come; where the source has ended, no others will.
    ///
    /// `interrupted`: who or what ended the scan from outside.
    pub(super) fn came(
        &mut self,
        mut available: u64,
        interrupted: Option<&str>,
    ) -> Result<(), Failure> {
        if self.source_ended {
            available = self.on_end(available, interrupted)?;
        }
        let length = match self.phase {
            // Only the first chunk is measured; it may be shorter than was thought.
            Phase::Measuring(_) => Some(available).filter(|&n| {
                let first = u64::from(self.scan.plan.frames_per_chunk);
                self.source_ended && n < self.scan.num_frames.map_or(first, |all| first.min(all))
            }),
            _ => self.scan.num_frames.filter(|_| self.source_ended && self.kept.is_none()),
        };
        if self.scan.num_frames.is_some_and(|n| available >= n) {
            self.source_ended = true;
        }
        let actions = self.dispatcher.source_has(available, length);
        self.act(actions)?;
        self.measured()
    }

    /// The source has ended; returns how many indices are frames or gaps now.
    fn on_end(&mut self, available: u64, interrupted: Option<&str>) -> Result<u64, Failure> {
        let announced = self.scan.num_frames;
        let early = announced.map_or(interrupted.is_some(), |n| available < n);
        let what = {
            let why = match interrupted {
                Some(reason) => format!("the scan was interrupted ({reason})"),
                None => "the source ended".to_owned(),
            };
            match announced {
                Some(n) => format!("{why} after {available} of {n} frames"),
                None => format!("{why} after {available} frames"),
            }
        };
        if available == 0 {
            return Err(Failure::new(Kind::Aborted, format!("{what}: there is nothing to write")));
        }
        // While the centre is measured, the source is asked again afterwards.
        if matches!(self.phase, Phase::Measuring(_)) {
            return Ok(available);
        }
        if !early {
            self.scan.num_frames = announced.or(Some(available));
            return Ok(available);
        }
        if self.aborted.is_some() || self.kept.is_some() {
            return Ok(available);
        }
        let aborted = Aborted { reason: what.clone(), announced };
        match (self.pipeline.on_abort, announced) {
            (OnAbort::Keep, _) => {
                let text = format!(
                    "{what}; the file stays unfinished, as pipeline.on_abort says, and the same \
                     command goes on with it"
                );
                self.kept = Some((available, Failure::new(Kind::Aborted, text)));
                Ok(available)
            }
            (OnAbort::Fill, Some(n)) => {
                if self.pipeline.on_gap == OnGap::Fail {
                    return Err(Failure::new(Kind::Aborted, what));
                }
                self.note(format!("{what}: the rest are gaps"));
                self.aborted = Some(aborted);
                self.fill(available, n, &what)?;
                Ok(n)
            }
            (OnAbort::Truncate | OnAbort::Fill, _) => {
                self.note(format!("{what}: the file has {available}"));
                self.aborted = Some(aborted);
                self.scan.num_frames = Some(available);
                Ok(available)
            }
        }
    }

    /// Warns in the report too, whether or not the scan has been announced.
    fn note(&mut self, text: String) {
        self.warnings.push(text.clone());
        self.scan.warn(text);
    }

    /// Declares what never came as gaps.
    fn fill(&mut self, from: u64, to: u64, reason: &str) -> Result<(), Failure> {
        let chunk = u64::from(self.scan.plan.frames_per_chunk);
        let mut first = from;
        while first < to {
            // A message a chunk: the length of a range is limited, and its positions travel along.
            let end = (first / chunk + 1).saturating_mul(chunk).min(to);
            let range = IndexRange::new(first, (end - first) as u32);
            let (actions, _) = self.dispatcher.declare_gap(range);
            self.gaps.extend(range.iter().map(|i| (i.0, (reason.to_owned(), None))));
            if let (Phase::Running, Some(sink)) = (&self.phase, self.sink) {
                let positions = self.scan.positions_of(first..end);
                self.send(sink, Body::Gap { range, reason: reason.to_owned(), positions });
            }
            self.act(actions)?;
            first = end;
        }
        Ok(())
    }

    /// Ends a scan that is to stay unfinished, once its whole chunks are durable.
    pub(super) fn end_unfinished(&self) -> Result<(), Failure> {
        let Some((came, failure)) = &self.kept else { return Ok(()) };
        let chunk = u64::from(self.scan.plan.frames_per_chunk);
        match self.dispatcher.watermark() >= came / chunk * chunk {
            true => Err(failure.clone()),
            false => Ok(()),
        }
    }

    /// A ticket never went out: its worker still waits for one, and would ask for no other.
    pub(super) fn give_back(&mut self, (worker, stamp): (PeerId, Stamp)) -> Result<(), Failure> {
        if !self.workers.counts(worker, stamp) {
            return Ok(());
        }
        let actions = self.dispatcher.want(worker, 1);
        self.act(actions)
    }

    /// Declares frames as gaps that a live source has let go: nobody can be blamed for them, so
    /// they end the scan only where nothing else is left.
    pub(super) fn on_lost(&mut self, frames: Vec<Lost>) -> Result<(), Failure> {
        for (index, reason, position) in frames {
            let wanted = is_wanted(&reason);
            if self.pipeline.on_gap == OnGap::Fail && !wanted {
                return Err(Failure::new(Kind::Input, format!("frame {index}: {reason}")));
            }
            let (actions, new) = self.dispatcher.declare_gap(IndexRange { first: index, count: 1 });
            if !new.is_empty() {
                match wanted {
                    true => tracing::debug!(%index, "{reason}"),
                    false => tracing::warn!(%index, "frame becomes a gap: {reason}"),
                }
                self.gaps.insert(index.0, (reason.clone(), position));
                self.tell_gap(index, &reason, position);
            }
            let count = self.gaps.len() as u64;
            if self.scan.num_frames.is_some_and(|n| count >= n) {
                let text = format!("none of {count} frames could be had; the last one: {reason}");
                return Err(Failure::new(Kind::Input, text));
            }
            self.act(actions)?;
        }
        self.measured()
    }

    /// Tells everybody, waits for their goodbyes, and closes.
    pub(super) fn end(self, result: Result<SinkReport, Failure>) -> Result<ScanReport, Failure> {
        let expected = self.scan.num_frames.unwrap_or(0);
        let name = |peer| format!("worker {}", self.workers.name(peer).unwrap_or_default());
        let mut waiting: BTreeMap<PeerId, String> =
            self.workers.peers().into_iter().map(|peer| (peer, name(peer))).collect();
        waiting.extend(self.sink.map(|sink| (sink, "the sink".to_owned())));
        if result.is_ok() {
            // The sink has said that all is there, which is later than any state that it told.
            self.reader.latency.durable(u64::MAX, Instant::now());
        }
        let part = self.part();
        if let (Ok(report), Some(sink)) = (&result, self.sink)
            && !report.already_complete
        {
            self.send(sink, Body::Report(Box::new(part.clone())));
        }
        for &peer in waiting.keys() {
            let body = match &result {
                Ok(_) if Some(peer) == self.sink => Body::Bye,
                Ok(_) => Body::EndOfScan {
                    expected,
                    gaps: self.dispatcher.gaps().clone(),
                    aborted: self.aborted.clone(),
                },
                Err(failure) => Body::Stop(failure.clone()),
            };
            self.send(peer, body);
        }
        wait_for_goodbyes(&self.hub, waiting, |peer| {
            // Too late for this scan: told so, or it would wait for ever.
            self.send(
                peer,
                match &result {
                    Ok(_) => Body::EndOfScan { expected, gaps: IndexSet::new(), aborted: None },
                    Err(failure) => Body::Stop(failure.clone()),
                },
            );
        });
        self.hub.tx.close();
        let report = result.and_then(|sink| self.report(&sink, &part));
        if !self.reader.join(report.is_ok()) {
            tracing::error!("the producer's reading thread panicked");
        }
        report
    }

    /// What this side knows of the scan, for the report.
    fn part(&self) -> ProducerPart {
        ProducerPart {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dispatch: self.dispatcher.counts(),
            workers: self.dispatcher.by_worker().clone(),
            warnings: self.warnings.clone(),
            origins: self.origins.clone(),
            started: time_text(self.started),
            elapsed_secs: self.start.elapsed().as_secs_f64(),
            latency: self.reader.latency.report(),
        }
    }

    fn report(&self, sink: &SinkReport, part: &ProducerPart) -> Result<ScanReport, Failure> {
        let announce = self.scan.announce().map_err(|e| Failure::from(&e))?;
        Ok(ScanReport::new(&announce, sink, Some(part), SystemTime::now()))
    }

    /// Pixels came damaged, raw ones at a worker, or prepared ones at the sink: they go out again.
    pub(super) fn on_damaged(
        &mut self,
        range: IndexRange,
        worker: Option<PeerId>,
    ) -> Result<(), Failure> {
        let at = worker.and_then(|w| self.workers.name(w)).unwrap_or("the sink");
        tracing::warn!(%range, at, "pixels came damaged and are sent again");
        let actions = self.dispatcher.damaged(range, worker);
        self.act(actions)
    }
}
