//! The built-in sources of raw frames.
//!
//! | module | source | ptypy's class |
//! |---|---|---|
//! | [`numpy`] | one `.npy` a frame, named in `positions.txt` | `NumpyScan` |
//! | [`hdf5`] | frames, positions and what belongs to them by keys of HDF5 files | `Hdf5Loader` |
//! | [`moonflower`] | a simulated scan | `MoonFlowerScan` |

pub mod hdf5;
mod keys;
pub mod moonflower;
pub mod npy;
pub mod numpy;
mod stamp;

use ptystream_common::source::Registry;

/// Returns the registry of the built-in sources.
pub fn builtin() -> Registry {
    let mut registry = Registry::new();
    registry.add(numpy::kind());
    registry.add(hdf5::kind());
    registry.add(moonflower::kind());
    registry
}
