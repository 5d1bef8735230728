//! The producer.

pub mod source;
