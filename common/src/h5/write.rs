//! Writes of HDF5 files.
