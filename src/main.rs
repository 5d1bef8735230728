//! The program `ptystream`.
fn main() {}
