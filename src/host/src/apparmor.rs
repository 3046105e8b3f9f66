//! AppArmor profiles: loading one, and whether one is loaded.
//!
//! The kernel takes compiled profiles only, and the compiler is the distribution's `apparmor_parser`, which every host with profiles has.
//! A profile stays loaded until the machine goes down; loading it again replaces it, also for running processes.

use std::{
    fs,
    io::{self, Write},
    process::{Command, Stdio},
};

/// All profiles of the caller's policy namespace, one a line: `NAME (MODE)`.
const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Where distributions put it; a daemon's `PATH` may lack the second.
const PARSERS: [&str; 3] = ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// Loads the profiles of this text, in place of those of the same names. Blocks for some 50 ms.
pub fn load(text: &str) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "apparmor_parser is not installed");
    let parser = PARSERS.into_iter().find(|path| fs::metadata(path).is_ok()).ok_or_else(missing)?;
    // Its cache of compiled profiles is keyed by files, and this is none.
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{parser}: {}: {}", output.status, words.trim())))
}

/// Whether a profile of this name is loaded. Names of other namespaces and stacks are left to the kernel: true.
pub fn is_loaded(name: &str) -> io::Result<bool> {
    if name.starts_with(':') || name.contains("//&") {
        return Ok(true);
    }
    Ok(named(&fs::read_to_string(PROFILES)?, name))
}

fn named(profiles: &str, name: &str) -> bool {
    profiles.lines().any(|line| line.rsplit_once(" (").is_some_and(|(profile, _)| profile == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_whole() {
        let list = "crisp-default (enforce)\n/usr/sbin/x y (complain)\nman_filter (a) (unconfined)\n";
        for (name, loaded) in [
            ("crisp-default", true),
            ("crisp", false),
            ("crisp-default (enforce)", false),
            ("/usr/sbin/x y", true),
            ("man_filter (a)", true),
            ("", false),
        ] {
            assert_eq!(named(list, name), loaded, "{name}");
        }
        assert!(is_loaded(":ns:profile").unwrap() && is_loaded("a//&b").unwrap());
    }
}
