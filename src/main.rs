//! The program `ptystream`.

fn main() -> std::process::ExitCode {
    ptystream::app::main_with(ptystream_producer::source::builtin())
}
