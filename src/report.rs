//! What is said at the end of a scan: for people on stdout, and as JSON on request.

use ptystream_producer::dispatch::{Counts, Tally};
use ptystream_producer::run::ProducerReport;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

const SHOWN_GAPS: usize = 10;

/// The report of one scan.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of the program.
    pub version: &'static str,
    /// The sink's part.
    pub sink: ptystream_common::message::SinkReport,
    /// Tickets handed out, repeats included.
    pub tickets: u64,
    /// Tickets handed out again.
    pub tickets_again: u64,
    /// What became of the tickets.
    pub dispatch: Counts,
    /// And of those of each worker, by its name.
    pub workers: BTreeMap<String, Tally>,
    /// Frames a second over the whole scan.
    pub frames_per_sec: f64,
    /// Seconds over the whole scan.
    pub elapsed_secs: f64,
    /// Where energy, distance, psize and centre came from: name, value, origin.
    pub origins: Vec<(String, String, String)>,
    /// Why the scan ended before its announced number of frames, if it did.
    pub aborted: Option<ptystream_common::message::Aborted>,
    /// Things that a user should know.
    pub warnings: Vec<String>,
}

impl From<ProducerReport> for Report {
    fn from(p: ProducerReport) -> Self {
        let fresh = p.sink.frames.saturating_sub(p.sink.resumed);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            tickets: p.counts.tickets.sent,
            tickets_again: p.counts.again,
            dispatch: p.counts,
            workers: p.workers,
            frames_per_sec: fresh as f64 / p.elapsed_secs.max(1e-9),
            elapsed_secs: p.elapsed_secs,
            origins: p.origins,
            aborted: p.aborted.or_else(|| p.sink.aborted.clone()),
            warnings: p.warnings,
            sink: p.sink,
        }
    }
}

/// Returns the unit of one of the origins' values.
fn unit(name: &str, value: &str) -> &'static str {
    match name {
        _ if value == "None" => "",
        "energy" => " keV",
        "distance" | "psize" => " m",
        "center" => " raw pixels",
        _ => "",
    }
}

impl Report {
    /// Tells whether frames are missing.
    pub fn has_gaps(&self) -> bool {
        !self.sink.gaps.is_empty()
    }

    /// Writes the report for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let s = &self.sink;
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<12} {value}");
        };
        match &s.file {
            Some(file) => line("file", file.display().to_string()),
            None => line("file", "none (data.save is None)".into()),
        }
        if s.already_complete {
            line("state", "complete already: nothing to do (--force prepares it again)".into());
            return out;
        }
        if let Some(aborted) = &self.aborted {
            line("aborted", aborted.reason.clone());
        }
        let resumed = match s.resumed {
            0 => String::new(),
            n => format!(", {n} of them from an earlier run"),
        };
        line("frames", format!("{}{resumed}", s.frames));
        let chunks = if s.chunks == 1 { "chunk" } else { "chunks" };
        line("written", format!("{} {chunks}, {:.1} MB", s.chunks, s.bytes as f64 / 1e6));
        line("time", format!("{:.2} s, {:.0} frames/s", self.elapsed_secs, self.frames_per_sec));
        let shares: Vec<String> =
            s.workers.iter().map(|(w, n)| format!("{w} {n} frames")).collect();
        line("workers", shares.join(", "));
        line(
            "",
            format!(
                "reading {:.2} s, preparing {:.2} s, all added up",
                s.load_secs, s.prepare_secs
            ),
        );
        line("sink", format!("writing {:.2} s, publishing {:.2} s", s.write_secs, s.publish_secs));
        if s.duplicates + s.stale + self.tickets_again > 0 {
            line(
                "repeats",
                format!(
                    "{} tickets sent again, {} frames came twice, {} were stale",
                    self.tickets_again, s.duplicates, s.stale
                ),
            );
        }
        let d = &self.dispatch;
        if d.doubled + d.suspects + d.given_up > 0 {
            line(
                "trouble",
                format!(
                    "{} tickets given to a second worker, {} held by workers that died; frames \
                     given up: {} after {} deaths of workers, {} for want of an answer",
                    d.doubled, d.suspects, d.convicted, d.solo_deaths, d.given_up
                ),
            );
        }
        if s.invalid_pixels > 0 {
            line("invalid", format!("{} raw pixels", s.invalid_pixels));
        }
        for (name, value, origin) in &self.origins {
            let value = format!("{value}{}", unit(name, value));
            line(name, format!("{value:<26} from: {origin}"));
        }
        if self.has_gaps() {
            let missing: u64 = s.gaps.iter().map(|(range, _)| u64::from(range.count)).sum();
            line("missing", format!("{missing} frames; they are in the file with weight 0"));
        }
        for (range, reason) in s.gaps.iter().take(SHOWN_GAPS) {
            line("gap", format!("{range}: {reason}"));
        }
        if s.gaps.len() > SHOWN_GAPS {
            let more = s.gaps.len() - SHOWN_GAPS;
            line("", format!("and {more} more gaps (--report FILE.json lists all)"));
        }
        for warning in &self.warnings {
            line("warning", warning.clone());
        }
        out
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// The file system's.
    pub fn write_json(&self, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(std::io::Error::other)?;
        std::fs::write(path, text + "\n")
    }
}
