//! What is seen while a scan runs: a bar on a terminal, plain lines elsewhere. All on stderr.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ptystream_producer::run::Progress;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how far a scan has come.
pub enum Show {
    /// Nothing.
    Quiet,
    /// A bar.
    Bar(ProgressBar),
    /// A line now and then.
    Lines {
        /// When the scan began.
        start: Instant,
        /// When the last line was written.
        last: Instant,
        /// The phase that it named.
        phase: &'static str,
    },
}

impl Show {
    /// Chooses by what stderr is.
    pub fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !std::io::stderr().is_terminal() {
            let now = Instant::now();
            return Self::Lines { start: now, last: now, phase: "" };
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:30} {pos}/{len} frames  {per_sec}  {eta} left  {msg}",
        ) {
            bar.set_style(style);
        }
        Self::Bar(bar)
    }

    /// Takes note of new figures.
    pub fn update(&mut self, p: &Progress) {
        let chunks = match p.frames_per_chunk {
            0 => 0,
            _ if p.total == Some(p.durable) => p.durable.div_ceil(p.frames_per_chunk),
            per_chunk => p.durable / per_chunk,
        };
        match self {
            Self::Quiet => {}
            Self::Bar(bar) => {
                if let Some(total) = p.total {
                    bar.set_length(total);
                }
                bar.set_position(p.accepted);
                bar.set_message(format!("{chunks} chunks  {} workers  {}", p.workers, p.phase));
            }
            Self::Lines { start, last, phase } => {
                if *phase == p.phase && last.elapsed() < LINE_EVERY {
                    return;
                }
                *phase = p.phase;
                *last = Instant::now();
                let total = p.total.map_or("?".into(), |n| n.to_string());
                let secs = start.elapsed().as_secs_f64();
                let rate = p.accepted as f64 / secs.max(1e-3);
                let left = match p.total {
                    Some(n) if rate > 0.0 => {
                        format!(", {:.0} s left", n.saturating_sub(p.accepted) as f64 / rate)
                    }
                    _ => String::new(),
                };
                eprintln!(
                    "{secs:7.1} s  {:<22} {}/{total} frames, {rate:.0}/s{left}, {chunks} chunks, \
                     {} workers",
                    p.phase, p.accepted, p.workers
                );
            }
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}
