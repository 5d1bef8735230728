//! From a plan to types and extents of what is stored.
