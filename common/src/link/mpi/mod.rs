//! MPI: the only place that knows the crate `mpi`, and only if the feature of that name is on.
//!
//! Processes that `mpirun` or `srun` has started together form a *world*; each is a *rank*. Addresses
//! are `mpi://RANK/NAME`: a hub is opened on the rank of its address, a spoke anywhere. One thread of
//! each rank talks to MPI (`engine`); who is connected to whom is kept by a state machine
//! (`switch`). A rank that dies takes the whole world with it, so nothing is missed here and no
//! beats are needed; a rank that hangs is found by the dispatcher, as a straggler.
//!
//! Without the feature, [`World::join`] says how to build with it; nothing else is different.

#[cfg(not(feature = "mpi"))]
mod disabled;
#[cfg(feature = "mpi")]
mod enabled;
#[cfg(feature = "mpi")]
mod engine;
#[cfg(feature = "mpi")]
mod packet;
#[cfg(feature = "mpi")]
mod switch;

#[cfg(not(feature = "mpi"))]
pub use disabled::{Mpi, World};
#[cfg(feature = "mpi")]
pub use enabled::{Mpi, World};

/// What a rank does for a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Producer and sink in one process.
    Master,
    /// Hands out.
    Producer,
    /// Prepares.
    Worker,
    /// Writes.
    Sink,
}

impl Duty {
    /// Tells whether the others end when this rank does.
    pub fn leads(self) -> bool {
        matches!(self, Self::Master | Self::Producer)
    }

    /// Tells whether this rank writes the file.
    pub fn writes(self) -> bool {
        matches!(self, Self::Master | Self::Sink)
    }

    #[cfg(feature = "mpi")]
    fn to_byte(self) -> u8 {
        self as u8
    }

    #[cfg(feature = "mpi")]
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Master, Self::Producer, Self::Worker, Self::Sink]
            .into_iter()
            .find(|d| *d as u8 == byte)
    }
}

/// What a rank finds when it has joined.
#[cfg(feature = "mpi")]
#[derive(Debug)]
struct Joined {
    rank: switch::Rank,
    duties: Vec<Duty>,
}

/// A rank is ready to end.
#[cfg(feature = "mpi")]
struct Leave {
    code: u8,
    done: Option<crossbeam_channel::Sender<()>>,
}

/// Returns how many processes were started together with this one, as the starter's environment tells;
/// `None` if it was started alone.
///
/// # Source
/// Open MPI sets `OMPI_COMM_WORLD_SIZE`, MPICH and Slurm's PMI-1 and PMI-2 set `PMI_SIZE`; Slurm's PMIx
/// sets `PMIX_RANK` and leaves the number to `SLURM_NTASKS`.
pub fn launched() -> Option<usize> {
    launched_by(|name| std::env::var(name).ok())
}

fn launched_by(var: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let number = |name| var(name).and_then(|text| text.parse().ok());
    number("OMPI_COMM_WORLD_SIZE")
        .or_else(|| number("PMI_SIZE"))
        .or_else(|| var("PMIX_RANK").and_then(|_| number("SLURM_NTASKS")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starters_are_told_by_what_they_set() {
        let env = |set: &'static [(&str, &str)]| {
            launched_by(move |name| {
                set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(env(&[("OMPI_COMM_WORLD_SIZE", "4")]), Some(4));
        assert_eq!(env(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")]), Some(2));
        assert_eq!(env(&[("PMIX_RANK", "1"), ("SLURM_NTASKS", "3")]), Some(3));
        assert_eq!(env(&[("SLURM_NTASKS", "3")]), None, "a batch script's own commands");
        assert_eq!(env(&[]), None);
    }
}
