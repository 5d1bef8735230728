//! How a scan is cut into tickets.

use super::Scan;
use crate::dispatch::{Cut, Policy};
use ptystream_common::params::{PipelineParams, Sharing};
use std::time::Duration;

/// How long tickets of a worker that said goodbye may take to be accepted.
const ORPHAN_GRACE: Duration = Duration::from_secs(5);

impl Scan {
    /// Tells how the scan is cut into tickets, and how many of them fit into the producer's memory.
    pub fn cut(&self, pipeline: &PipelineParams) -> Cut {
        let batch = self.plan.batch;
        let max_outstanding = match self.plan.workers_read {
            true => usize::MAX,
            false => {
                let bytes = self.plan.frame.bytes() as u64 * u64::from(batch);
                // The other half is for the frames that are kept.
                let budget = pipeline.producer_memory_bytes / if self.live { 2 } else { 1 };
                (budget / bytes.max(1)).max(1) as usize
            }
        };
        let frames_per_chunk = self.plan.frames_per_chunk;
        Cut {
            batch,
            frames_per_chunk,
            max_outstanding,
            orphan_grace: ORPHAN_GRACE,
            straggler: Duration::from_secs_f64(pipeline.straggler_secs),
            give_up: Duration::from_secs_f64(pipeline.give_up_secs),
            policy: match pipeline.policy {
                Sharing::Dynamic => Policy::Dynamic,
                Sharing::Static => Policy::Static {
                    workers: pipeline.workers.unwrap_or(1),
                    patience: Duration::try_from_secs_f64(pipeline.peer_timeout_secs)
                        .unwrap_or(Duration::MAX),
                },
            },
        }
    }
}
