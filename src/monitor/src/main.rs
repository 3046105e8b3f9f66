//! `crisp-monitor DIR SANDBOX`, one process a pod, started by the daemon with its listening socket as standard input.
//!
//! It is the parent of the pod's processes: it reaps them, keeps their exit codes, holds their standard streams and writes their
//! logs, and it outlives the daemon. One thread, no runtime; what is slow or changes the process is done in forked workers.
//! Errors are lines on standard error, which the daemon has opened as `DIR/monitor.log`.

mod process;

use std::{path::PathBuf, process::ExitCode};

use crisp_model::SandboxId;

#[global_allocator]
static MEMORY: crisp_host::allocator::Workers = crisp_host::allocator::Workers::new();

fn arguments() -> Result<(PathBuf, SandboxId), String> {
    let mut args = std::env::args_os().skip(1);
    let (Some(dir), Some(sandbox), None) = (args.next(), args.next(), args.next()) else {
        return Err("usage: crisp-monitor DIR SANDBOX (the daemon starts it)".into());
    };
    let dir = PathBuf::from(dir);
    if !dir.is_absolute() {
        return Err(format!("{}: not an absolute path", dir.display()));
    }
    let sandbox = sandbox.to_string_lossy().parse::<SandboxId>().map_err(|e| e.to_string())?;
    Ok((dir, sandbox))
}

fn main() -> ExitCode {
    let run = arguments()
        .and_then(|(dir, sandbox)| process::run(dir, sandbox).map_err(|e| format!("the monitor ends: {e}")));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
