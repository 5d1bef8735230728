//! The link where the program is built without MPI: whoever needs it is told how to get it.

use super::Duty;
use crate::error::{Failure, Kind};
use crate::link::{Hub, Link, Spoke};
use crate::shutdown::Shutdown;
use bytes::Bytes;
use crossbeam_channel::Receiver;
use std::convert::Infallible;

fn missing() -> Failure {
    let text = "several processes of this program were started together, and it is built without \
                MPI; build it with `cargo build --release --features mpi` (Debian: libopenmpi-dev, \
                openmpi-bin, libclang-dev), or start roles with the addresses of the others \
                (--producer tcp://HOST:PORT --sink tcp://HOST:PORT)";
    Failure::new(Kind::Config, text)
}

/// MPI, which is not built in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mpi;

impl Link for Mpi {
    fn hub(&self, _address: &str) -> Result<Hub, Failure> {
        Err(missing())
    }

    fn spoke(&self, _address: &str) -> Result<Spoke, Failure> {
        Err(missing())
    }
}

/// A world, which cannot be joined.
#[derive(Debug)]
pub struct World {
    never: Infallible,
}

impl World {
    /// Says how to build with MPI.
    ///
    /// # Errors
    /// Always.
    pub fn join(_duty: fn(u32) -> Duty, _ending: Shutdown) -> Result<Self, Failure> {
        Err(missing())
    }

    /// Returns the number of this rank.
    pub fn rank(&self) -> u32 {
        match self.never {}
    }

    /// Returns what each rank does.
    pub fn duties(&self) -> &[Duty] {
        match self.never {}
    }

    /// Returns how many ranks have a duty.
    pub fn count(&self, _has: impl Fn(Duty) -> bool) -> usize {
        match self.never {}
    }

    /// Returns the address of a hub on the first rank that `has` the duty.
    pub fn address(&self, _has: impl Fn(Duty) -> bool, _name: &str) -> Option<String> {
        match self.never {}
    }

    /// Tells all other ranks something.
    pub fn tell(&self, _word: Bytes) {
        match self.never {}
    }

    /// Returns what the rank that leads tells; ends when it does.
    pub fn words(&self) -> &Receiver<Bytes> {
        match self.never {}
    }

    /// Ends together with all other ranks.
    pub fn leave(self, _code: u8) {
        match self.never {}
    }
}
