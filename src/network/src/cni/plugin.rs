//! One run of one plugin.
//!
//! CNI specification, section 3: parameters in the environment, configuration on standard input, the answer on
//! standard output. Each run is a process group of its own, so that what a plugin starts ends with it; it is killed
//! at its deadline, and when its caller goes away.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, Command},
};

use super::result::MAX_ANSWER;
use crate::{NetworkError, Verb};

/// Kept of what a plugin writes to standard error.
const MAX_COMPLAINT: usize = 16 << 10;
/// How much of it goes into an error.
const MAX_DETAIL: usize = 1024;

/// What a plugin is told in its environment.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    /// What it is to do.
    pub verb: Verb,
    /// `CNI_CONTAINERID`
    pub container: &'a str,
    /// `CNI_NETNS`; empty if it has gone.
    pub netns: &'a str,
    /// `CNI_IFNAME`
    pub interface: &'a str,
    /// `CNI_ARGS`
    pub args: &'a str,
    /// How long it may take.
    pub deadline: Duration,
}

/// The plugin's binary, in the first folder that has it.
pub(crate) fn find(plugin: &str, verb: Verb, folders: &[PathBuf]) -> Result<PathBuf, NetworkError> {
    let candidates = folders.iter().map(|folder| folder.join(plugin));
    candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| NetworkError::PluginMissing {
        plugin: plugin.to_owned(),
        verb,
        searched: folders.to_vec(),
    })
}

/// Ends the whole group, also when the future that waits for it is dropped.
struct Group {
    child: Child,
    id: Option<Pid>,
}

impl Group {
    fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            // It may have ended by itself.
            let _ = killpg(id, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A leader that was reaped has given its number back: the group may be somebody else's by now.
        if self.child.id().is_some() {
            self.kill();
        }
    }
}

async fn read_bounded(stream: Option<impl AsyncRead + Unpin>, max: usize, found: &mut Vec<u8>) {
    if let Some(mut stream) = stream {
        // A stream that breaks ends what there is to read; what is missing shows when it is parsed.
        let _ = (&mut stream).take(max as u64 + 1).read_to_end(found).await;
        // Let the plugin write on: a full pipe would stop it.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
}

/// The environment of a plugin: the daemon's search path and locale, and what the specification names.
fn command(binary: &Path, call: &Call<'_>, folders: &[PathBuf]) -> Command {
    let mut command = Command::new(binary);
    let path = std::env::join_paths(folders).unwrap_or_else(|_| OsString::new());
    command
        .env("CNI_COMMAND", call.verb.name())
        .env("CNI_PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for (name, value) in [
        ("CNI_CONTAINERID", call.container),
        ("CNI_NETNS", call.netns),
        ("CNI_IFNAME", call.interface),
        ("CNI_ARGS", call.args),
    ] {
        command.env(name, value);
    }
    command
}

/// Runs a plugin and returns what it wrote to standard output.
pub(crate) async fn run(
    plugin: &str,
    folders: &[PathBuf],
    call: &Call<'_>,
    config: &Value,
) -> Result<Vec<u8>, NetworkError> {
    let binary = find(plugin, call.verb, folders)?;
    let input =
        serde_json::to_vec(config).map_err(|e| NetworkError::host("write", "plugin configuration", e))?;
    let mut child = command(&binary, call, folders)
        .spawn()
        .map_err(|e| NetworkError::host("start CNI plugin", binary.display(), e))?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let id = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    let mut group = Group { child, id };
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A plugin need not read it.
            let _ = stdin.write_all(&input).await;
        }
    };
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let outcome = tokio::time::timeout(call.deadline, async {
        let answered = read_bounded(stdout, MAX_ANSWER, &mut answer);
        tokio::join!(answered, read_bounded(stderr, MAX_COMPLAINT, &mut complaint), feed);
        group.child.wait().await
    })
    .await;
    let details = detail(&complaint);
    match outcome {
        Err(_) => {
            group.kill();
            // Killed with SIGKILL: at most a moment, but a process in the kernel's hands may take for ever.
            let _ = tokio::time::timeout(Duration::from_secs(1), group.child.wait()).await;
            let (plugin, verb) = (plugin.to_owned(), call.verb);
            Err(NetworkError::PluginTimeout { plugin, verb, after: call.deadline, details })
        }
        Ok(Err(error)) => Err(NetworkError::host("wait for CNI plugin", plugin, error)),
        Ok(Ok(status)) if status.success() => Ok(answer),
        Ok(Ok(status)) => Err(refusal(plugin, call.verb, &answer, &details, &status.to_string())),
    }
}

fn detail(complaint: &[u8]) -> String {
    let text = String::from_utf8_lossy(complaint);
    let text = text.trim();
    let start = text.char_indices().rev().nth(MAX_DETAIL).map_or(0, |(at, _)| at);
    text[start..].to_owned()
}

/// CNI specification, section 5, "Error".
#[derive(Deserialize)]
struct Refusal {
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

fn refusal(plugin: &str, verb: Verb, answer: &[u8], complaint: &str, status: &str) -> NetworkError {
    let bound = |text: String| text.chars().take(MAX_DETAIL).collect::<String>();
    match serde_json::from_slice::<Refusal>(answer) {
        Ok(refusal) => NetworkError::Plugin {
            plugin: plugin.to_owned(),
            verb,
            code: refusal.code,
            message: bound(refusal.msg),
            details: if refusal.details.is_empty() { complaint.to_owned() } else { bound(refusal.details) },
        },
        Err(_) => {
            let said = if complaint.is_empty() { detail(answer) } else { complaint.to_owned() };
            let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
            NetworkError::PluginAnswer {
                plugin: plugin.to_owned(),
                verb,
                problem: format!("{status} without an error object: {said}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_plugin_and_verb() {
        let text = br#"{"cniVersion":"1.0.0","code":7,"msg":"bad","details":"very"}"#;
        let error = refusal("bridge", Verb::Add, text, "", "exit status: 1").to_string();
        assert_eq!(error, "CNI plugin bridge ADD: bad (code 7): very");
        let error = refusal("bridge", Verb::Del, b"", "panic: x", "exit status: 2").to_string();
        assert!(
            error.contains("bridge DEL") && error.contains("panic: x") && error.contains("exit status: 2")
        );
    }

    #[test]
    fn the_end_of_a_long_complaint_is_kept() {
        let long = format!("{}ÄÖÜ the end", "ä".repeat(5000));
        let kept = detail(long.as_bytes());
        assert!(kept.ends_with("the end") && kept.chars().count() <= MAX_DETAIL + 1);
    }
}
