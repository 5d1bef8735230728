//! The built-in sources of raw frames.
//!
//! | module | source | ptypy's class |
//! |---|---|---|
//! | [`numpy`] | one `.npy` a frame, named in `positions.txt` | `NumpyScan` |
//! | [`hdf5`] | frames, positions and what belongs to them by keys of HDF5 files | `Hdf5Loader` |
//! | [`series`] | series of `.npy`, TIFF, EDF, CBF or HDF5 files, also while they appear | |
//! | [`detector`] | the stream of a detector, as it is taken | |
//! | [`ptyd`] | a `.ptyd`, prepared once more | `PtydScan` |
//! | [`python`] | a class of a Python module, `module:Class` | any |
//! | [`moonflower`] | a simulated scan | `MoonFlowerScan` |

mod appearing;
pub mod detector;
pub mod hdf5;
pub(crate) mod image;
pub(crate) mod keys;
pub mod moonflower;
mod normalization;
pub mod npy;
pub mod numpy;
mod piece;
mod position_file;
pub mod ptyd;
pub mod python;
pub mod series;
pub(crate) mod stamp;
mod table;
mod waiting;

use ptystream_common::source::Registry;
use std::sync::Arc;

/// Returns the registry of the built-in sources.
pub fn builtin() -> Registry {
    let mut registry = Registry::new();
    registry.add(numpy::kind());
    registry.add(ptyd::kind());
    for kind in hdf5::kinds().into_iter().chain(series::kinds()).chain(detector::kinds()) {
        registry.add(kind);
    }
    registry.add(moonflower::kind());
    registry.add_resolver(Arc::new(python::resolve));
    registry
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_and_aliases_are_found_and_declarations_are_whole() {
        let registry = builtin();
        for (name, alias) in [
            ("numpy", "NumpyScan"),
            ("hdf5", "hdf5loader"),
            ("swmr", "SwmrLoader"),
            ("ptyd", "PtydScan"),
            ("moonflower", "MoonFlowerScan"),
        ] {
            let kind = registry.find(alias).expect("known to ptypy's users");
            assert_eq!(kind.name, name);
            let names: HashSet<_> = kind.params.iter().map(|p| p.name).collect();
            assert_eq!(names.len(), kind.params.len(), "each once");
            assert!(kind.params.iter().all(|p| !p.help.is_empty() && !p.types.is_empty()));
        }
    }
}
