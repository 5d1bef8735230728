//! What is seen while a scan runs: a bar on a terminal, plain lines elsewhere. All on stderr.
//!
//! Logs go through [`LogWriter`], so that a line of theirs stands above the bar, not in it.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use ptystream_producer::run::Progress;
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// The terminal's bars; hidden where stderr is no terminal.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10)));

/// Writes logs to stderr, with the bar out of the way.
#[derive(Clone, Copy, Debug)]
pub struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write_all(bytes)).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows how far a scan has come.
pub enum Show {
    /// Nothing.
    Quiet,
    /// A bar.
    Bar(Box<ProgressBar>, Pace),
    /// A line now and then.
    Lines {
        /// Frames a second.
        pace: Pace,
        /// When the last line was written.
        last: Instant,
        /// The phase that it named.
        phase: String,
    },
}

/// Frames a second since the first one of this run; earlier runs' frames do not count.
pub struct Pace {
    start: Instant,
    first: Option<(Instant, u64)>,
}

impl Pace {
    fn new() -> Self {
        Self { start: Instant::now(), first: None }
    }

    /// Says how fast it goes and how long it will take; empty as long as nobody knows.
    fn text(&mut self, p: &Progress) -> String {
        if p.phase != "preparing" {
            return String::new();
        }
        let (since, before) = *self.first.get_or_insert((Instant::now(), p.accepted));
        let done = p.accepted.saturating_sub(before);
        if done == 0 {
            return String::new();
        }
        let rate = done as f64 / since.elapsed().as_secs_f64().max(1e-3);
        let left = p.total.map(|n| n.saturating_sub(p.accepted) as f64 / rate);
        let left = left.map_or_else(String::new, |secs| format!(", {} left", duration(secs)));
        format!("{}/s{left}", figure(rate))
    }
}

/// Writes a rate with as many digits as it deserves.
fn figure(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn duration(secs: f64) -> String {
    let secs = secs.ceil() as u64;
    match (secs / 3600, secs / 60 % 60, secs % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

impl Show {
    /// Chooses by what stderr is.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        let pace = Pace::new();
        if !io::stderr().is_terminal() {
            return Self::Lines { last: pace.start, pace, phase: String::new() };
        }
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} frames, {wide_msg}") {
            bar.set_style(style);
        }
        Self::Bar(Box::new(BARS.add(bar)), pace)
    }

    /// Takes note of new figures.
    pub fn update(&mut self, p: &Progress) {
        let chunks = match p.frames_per_chunk {
            0 => 0,
            _ if p.total == Some(p.durable) => p.durable.div_ceil(p.frames_per_chunk),
            per_chunk => p.durable / per_chunk,
        };
        let tail = |pace: String| {
            let pace = if pace.is_empty() { pace } else { format!("{pace}, ") };
            let workers = count(p.workers as u64, "worker");
            format!("{pace}{}, {workers}", count(chunks, "chunk"))
        };
        match self {
            Self::Quiet => {}
            Self::Bar(bar, pace) => {
                if let Some(total) = p.total {
                    bar.set_length(total);
                }
                bar.set_position(p.accepted);
                bar.set_message(format!("{}: {}", p.phase, tail(pace.text(p))));
            }
            Self::Lines { pace, last, phase } => {
                let text = pace.text(p);
                if *phase == p.phase && last.elapsed() < LINE_EVERY {
                    return;
                }
                *phase = p.phase.to_string();
                *last = Instant::now();
                let total = p.total.map_or("?".into(), |n| n.to_string());
                let secs = pace.start.elapsed().as_secs_f64();
                eprintln!(
                    "{secs:7.1} s  {}: {}/{total} frames, {}",
                    p.phase,
                    p.accepted,
                    tail(text)
                );
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Self::Bar(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_do() {
        assert_eq!(duration(0.2), "1 s");
        assert_eq!(duration(65.0), "1 min 05 s");
        assert_eq!(duration(7260.0), "2 h 01 min");
    }

    #[test]
    fn frames_of_an_earlier_run_do_not_make_it_fast() {
        let mut pace = Pace::new();
        let mut p = Progress {
            phase: "preparing".into(),
            accepted: 90,
            total: Some(100),
            ..Progress::default()
        };
        assert_eq!(pace.text(&p), "");
        p.accepted = 95;
        assert!(pace.text(&p).contains("/s, "));
        p.phase = "finishing the file".into();
        assert_eq!(pace.text(&p), "");
    }
}
