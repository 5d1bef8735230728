//! What is said at the end of a scan: for people on stdout, and as JSON on request.

use ptystream_common::index::IndexRange;
use ptystream_common::report::{ScanReport, report_name};
use std::fmt::Write as _;
use std::path::Path;

const SHOWN_GAPS: usize = 10;

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

/// Writes a report for people.
pub fn text(report: &ScanReport) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<12} {value}");
    };
    match &report.file {
        Some(file) => line("file", file.display().to_string()),
        None => line("file", "none (data.save is None)".into()),
    }
    if report.already_complete {
        line("state", "complete already: nothing to do (--force prepares it again)".into());
        return out;
    }
    if let Some(aborted) = &report.aborted {
        line("aborted", aborted.reason.clone());
    }
    let (frames, times) = (&report.frames, &report.times);
    let resumed = match frames.resumed {
        0 => String::new(),
        n => format!(", {n} of them from an earlier run"),
    };
    line("frames", format!("{}{resumed}", frames.expected));
    let chunks = if report.chunks == 1 { "chunk" } else { "chunks" };
    let megabytes = report.bytes as f64 / 1e6;
    line("written", format!("{} {chunks}, {megabytes:.1} MB", report.chunks));
    let (secs, rate) = (times.elapsed_secs, times.frames_per_sec);
    line("time", format!("{secs:.2} s, {rate:.0} frames/s"));
    let worked = report.workers.iter().map(|w| &w.share).filter(|w| w.frames > 0);
    let shares: Vec<String> = worked.map(|w| format!("{} {} frames", w.name, w.frames)).collect();
    line("workers", shares.join(", "));
    let (load, prepare) = (times.load_secs, times.prepare_secs);
    line("", format!("reading {load:.2} s, preparing {prepare:.2} s, all added up"));
    let (write, publish) = (times.write_secs, times.publish_secs);
    line("sink", format!("writing {write:.2} s, publishing {publish:.2} s"));
    let again = report.dispatch.map_or(0, |d| d.again);
    if frames.duplicated + frames.stale + again > 0 {
        line(
            "repeats",
            format!(
                "{again} tickets sent again, {} frames came twice, {} were stale",
                frames.duplicated, frames.stale
            ),
        );
    }
    let d = report.dispatch.unwrap_or_default();
    if d.doubled + d.suspects + d.given_up > 0 {
        line(
            "trouble",
            format!(
                "{} tickets given to a second worker, {} held by workers that died; frames given \
                 up: {} after {} deaths of workers, {} for want of an answer",
                d.doubled, d.suspects, d.convicted, d.solo_deaths, d.given_up
            ),
        );
    }
    if d.damaged > 0 {
        line("damaged", format!("{} tickets came damaged and were sent again", d.damaged));
    }
    if frames.mismatched > 0 {
        let text = "frames whose second copy differs from the first: a worker is broken, or of \
                    another build";
        line("mismatched", format!("{} {text}", frames.mismatched));
    }
    if report.invalid_pixels > 0 {
        line("invalid", format!("{} raw pixels", report.invalid_pixels));
    }
    if let Some(alignment) = &report.alignment {
        line("alignment", alignment.to_string());
    }
    if let Some(latency) = &report.latency {
        let ms = |secs: f64| secs * 1e3;
        let (p50, p99, max) = (ms(latency.p50_secs), ms(latency.p99_secs), ms(latency.max_secs));
        line(
            "latency",
            format!("{p50:.0} ms half, {p99:.0} ms 99 %, {max:.0} ms all, until visible"),
        );
    }
    for origin in &report.origins {
        let value = format!("{}{}", origin.value, unit(&origin.name, &origin.value));
        line(&origin.name, format!("{value:<26} from: {}", origin.origin));
    }
    if frames.lost > 0 {
        line("missing", format!("{} frames; they are in the file with weight 0", frames.lost));
    }
    for lost in report.lost.iter().take(SHOWN_GAPS) {
        line("gap", format!("{}: {}", span(lost.first, lost.count), lost.reason));
    }
    if report.lost.len() > SHOWN_GAPS {
        let more = report.lost.len() - SHOWN_GAPS;
        line("", format!("and {more} more gaps, in the report"));
    }
    for warning in &report.warnings {
        line("warning", warning.clone());
    }
    if let Some(file) = &report.file {
        line("report", report_name(&file.display().to_string()));
    }
    out
}

fn span(first: u64, count: u64) -> IndexRange {
    IndexRange::new(first, u32::try_from(count).unwrap_or(u32::MAX))
}

/// Writes a report as JSON.
///
/// # Errors
/// The file system's.
pub fn write_json(report: &ScanReport, path: &Path) -> std::io::Result<()> {
    std::fs::write(path, report.json().map_err(std::io::Error::other)?)
}
