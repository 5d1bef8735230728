//! From signals to an orderly end.
//!
//! | when | what |
//! |---|---|
//! | the first SIGINT or SIGTERM | fires the [`Shutdown`] trigger: roles finish what is begun and say what they wait for |
//! | the grace is over | the process ends, naming what it still waited for |
//! | a second signal | the process ends at once |
//!
//! The exit code is 128 + the signal's number in each case. What is on disk is whole at any time,
//! and the same command goes on from there.

use ptystream_common::shutdown::Shutdown;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// How often is said what is being waited for.
const REMIND: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(50);

/// Tells which signal came, if one did.
#[derive(Clone, Debug, Default)]
pub struct Caught(Arc<AtomicI32>);

impl Caught {
    /// Returns the exit code of a process that was ended by a signal.
    pub fn exit_code(&self) -> Option<u8> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(128 + signal as u8),
        }
    }
}

/// Starts to listen for signals; after `grace` an orderly end becomes a forced one.
///
/// # Errors
/// If the operating system refuses.
pub fn listen(shutdown: &Shutdown, grace: Duration) -> std::io::Result<Caught> {
    let caught = Caught::default();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let (state, shutdown) = (caught.clone(), shutdown.clone());
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in &mut signals {
            if state.0.swap(signal, Ordering::SeqCst) != 0 {
                tracing::error!("second signal: ending at once");
                std::process::exit(128 + signal);
            }
            tracing::warn!(
                "signal {signal}: finishing what is begun, for {} s at most; a second signal ends \
                 at once",
                grace.as_secs_f64()
            );
            shutdown.begin();
            let shutdown = shutdown.clone();
            let deadline = move || force(&shutdown, grace, signal);
            if let Err(error) = std::thread::Builder::new().name("deadline".into()).spawn(deadline)
            {
                tracing::error!("no thread for the deadline, so there is none: {error}");
            }
        }
    })?;
    Ok(caught)
}

/// Says what is waited for, and ends the process once the grace is over.
fn force(shutdown: &Shutdown, grace: Duration, signal: i32) {
    let begun = Instant::now();
    let mut said = begun;
    while begun.elapsed() < grace {
        std::thread::sleep(TICK.min(grace));
        let what = shutdown.waits_for();
        if said.elapsed() >= REMIND && !what.is_empty() {
            said = Instant::now();
            tracing::info!("still waiting: {what}");
        }
    }
    let what = shutdown.waits_for();
    let what = if what.is_empty() { "the role's threads".to_owned() } else { what };
    tracing::error!(
        "not ended within {} s, so it is ended now; it waited for: {what}",
        grace.as_secs_f64()
    );
    std::process::exit(128 + signal);
}
