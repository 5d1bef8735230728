//! Reads of HDF5 files that others wrote.
