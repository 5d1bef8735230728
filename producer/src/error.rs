//! What can go wrong in the producer.

use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::geometry::GeometryError;
use ptystream_common::source::SourceError;
use std::time::Duration;

/// An error of the producer; ends the scan.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum ProducerError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Region of interest, centre, orientation or rebinning do not fit the frames.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// Parameters that contradict each other or the scan.
    #[error("{0}")]
    Config(String),
    /// The link, another role, or what it reported.
    #[error("{0}")]
    Failure(#[from] Failure),
    /// A thread of the producer ended by a panic.
    #[error("the producer's {0} thread panicked")]
    Panic(&'static str),
}

impl From<&ProducerError> for Failure {
    fn from(error: &ProducerError) -> Self {
        match error {
            ProducerError::Source(e) => e.into(),
            ProducerError::Geometry(_) | ProducerError::Config(_) => {
                Self::new(Kind::Config, chain(error))
            }
            ProducerError::Failure(f) => f.clone(),
            ProducerError::Panic(_) => Self::new(Kind::Aborted, chain(error)),
        }
    }
}

/// Makes the failure of a role that never came; `command` starts one.
pub(crate) fn missing(what: &str, command: &str, address: &str, waited: Duration) -> Failure {
    let secs = waited.as_secs_f64();
    Failure::new(
        Kind::Peer,
        format!(
            "no {what} at {address} for {secs} s; start one with `{command} {address}`, or wait \
             longer with --set pipeline.peer_timeout_secs=..."
        ),
    )
}

/// Adds to the failure that no sink came back that only its last step is missing.
pub(crate) fn unfinished(failure: Failure) -> Failure {
    let text = format!(
        "every frame is on disk, but the sink left before it finished the file; the same commands \
         do so ({failure})"
    );
    Failure::new(failure.kind, text)
}

/// Makes the failure of a scan whose workers all stand still.
pub(crate) fn stuck(waited: Duration) -> Failure {
    let secs = waited.as_secs_f64();
    Failure::new(
        Kind::Peer,
        format!(
            "all workers stand still and have said nothing for {secs} s; look at what they read \
             from, and restart them; the same command goes on from what is on disk"
        ),
    )
}
