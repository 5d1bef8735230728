//! The `.ptyd` format: encoding of values, schema, reader.
