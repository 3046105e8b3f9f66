//! The daemon and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    crisp::cli::run(std::env::args_os())
}
