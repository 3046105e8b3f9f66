//! Commands that only print.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;

use crate::config::Config;

/// Writes to standard output. A reader that has gone (`| head`) is no error.
pub fn text(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

/// Versions of the program and of what it speaks.
pub fn version() -> String {
    format!("crisp {}\nCRI v1 (cri-api v0.37.2)\nlibcontainer 0.7\n", env!("CARGO_PKG_VERSION"))
}

/// What the host can do, as JSON.
pub fn host(config: &Config) -> anyhow::Result<()> {
    let host = crisp_host::probe::Host::probe(&config.root, &config.state);
    text(&format!("{}\n", serde_json::to_string_pretty(&host)?))
}

/// A completion script.
pub fn completion(shell: clap_complete::Shell, mut command: clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "crisp", &mut script);
    text(&String::from_utf8_lossy(&script))
}

/// Manual pages, `crisp.1`, `crisp-serve.1` and so on.
pub fn manual(folder: &Path, command: clap::Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
    clap_mangen::generate_to(command, folder).with_context(|| format!("write to {}", folder.display()))
}
