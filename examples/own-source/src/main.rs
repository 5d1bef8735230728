//! The whole command line of ptystream, with a source of one's own beside the built-in ones.

mod my_scan;

fn main() -> std::process::ExitCode {
    let mut registry = ptystream::producer::source::builtin();
    registry.add(my_scan::kind());
    ptystream::main_with(registry)
}
