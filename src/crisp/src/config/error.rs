//! What is wrong with a configuration. All of these end the program with exit code 64 before anything is started.

use std::{io, path::PathBuf};

use super::load::Origin;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("read {}: {source}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file is not TOML.
    #[error("{}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// Nobody knows this key.
    #[error("{origin}: unknown key {key:?}; `crisp config --defaults` lists all keys")]
    UnknownKey {
        /// Who set it.
        origin: Origin,
        /// Dotted path.
        key: String,
    },
    /// The value is not one for this key.
    #[error("{origin}: {key}: {reason}")]
    Value {
        /// Who set it.
        origin: Origin,
        /// Dotted path.
        key: String,
        /// What is wrong.
        reason: String,
    },
}
