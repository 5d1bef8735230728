//! What the producer does at the moment.

use crate::measure::Centers;

/// The stages of a scan, in their order.
#[derive(Debug)]
pub(crate) enum Phase {
    /// The centre is being measured.
    Measuring(Centers),
    /// The sink is to open the file.
    Opening,
    /// Tickets are being handed out.
    Running,
}

impl Phase {
    /// Says it in a word or two, for people who watch.
    pub(crate) fn word(
        &self,
        paused: bool,
        sink: bool,
        workers: bool,
        complete: bool,
    ) -> &'static str {
        match self {
            _ if paused => "paused: the sink's disk refuses",
            Self::Measuring(_) if !workers => "waiting for a worker",
            Self::Measuring(_) => "measuring the centre",
            Self::Opening if sink => "opening the file",
            Self::Opening => "waiting for the sink",
            Self::Running if complete => "finishing the file",
            Self::Running if !workers => "waiting for a worker",
            Self::Running => "preparing",
        }
    }
}
