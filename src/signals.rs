//! From signals to an orderly end.
//!
//! The first SIGINT or SIGTERM fires the [`Shutdown`] trigger; a second one ends the process at
//! once. Either way the exit code is 128 + the signal's number.

use ptystream_common::shutdown::Shutdown;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

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

/// Starts to listen for signals.
///
/// # Errors
/// If the operating system refuses.
pub fn listen(shutdown: &Shutdown) -> std::io::Result<Caught> {
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
                "signal {signal}: finishing what is begun; a second signal ends at once"
            );
            shutdown.begin();
        }
    })?;
    Ok(caught)
}
