//! Finding and executing the program.

use std::{
    ffi::{CString, OsStr},
    fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use crisp_model::process::Process;
use nix::{errno::Errno, unistd::execve};

use crate::process::{Failure, failed, invalid};

/// Where a program without a slash is looked for if the environment has no `PATH`.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn name(process: &Process) -> Result<&str, Failure> {
    match process.args.first() {
        Some(name) if !name.is_empty() => Ok(name),
        Some(_) => Err(invalid("program \"\"", "its name is empty")),
        None => Err(invalid("program", "there is none")),
    }
}

/// Every file that the first argument may mean.
fn candidates(process: &Process) -> Result<Vec<PathBuf>, Failure> {
    let name = name(process)?;
    let cwd = Path::new(if process.cwd.is_empty() { "/" } else { &process.cwd });
    if name.contains('/') {
        return Ok(vec![cwd.join(name)]);
    }
    // Of several entries of one name, most programs and the kernel's own users take the first.
    let path = process.env.iter().find_map(|entry| entry.strip_prefix(b"PATH=")).unwrap_or(PATH);
    Ok(path.split(|b| *b == b':').map(|dir| cwd.join(OsStr::from_bytes(dir)).join(name)).collect())
}

/// The first candidate that is a file which somebody may execute. Whether the user may is for execve to say.
pub(super) fn find(process: &Process) -> Result<PathBuf, Failure> {
    let mut reason = "no such file or directory, or not in PATH".to_owned();
    let single = name(process)?.contains('/');
    for candidate in candidates(process)? {
        match fs::metadata(&candidate) {
            Ok(found) if found.is_dir() => reason = "it is a directory".into(),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => reason = "permission denied".into(),
            Ok(_) => return Ok(candidate),
            Err(e) if single => reason = failure_text(&e),
            Err(_) => {}
        }
    }
    Err(invalid(format!("program {:?}", name(process)?), reason))
}

fn failure_text(error: &std::io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |raw| Errno::from_raw(raw).desc().to_lowercase())
}

/// Executes it; returns only on failure.
pub(super) fn execute(process: &Process, environment: &[CString]) -> Failure {
    match attempt(process, environment) {
        Ok(Errno::ENOENT | Errno::ENOTDIR) => match find(process) {
            // The file is there: its interpreter is not.
            Ok(file) => invalid(format!("program {}", file.display()), "its interpreter is missing"),
            Err(failure) => failure,
        },
        Ok(error) => invalid(
            format!("program {:?}", process.args.first().map_or("", String::as_str)),
            error.desc().to_lowercase(),
        ),
        Err(failure) => failure,
    }
}

fn attempt(process: &Process, environment: &[CString]) -> Result<Errno, Failure> {
    let args: Vec<CString> = process
        .args
        .iter()
        .map(|a| CString::new(a.as_bytes()))
        .collect::<Result<_, _>>()
        .map_err(failed("arguments"))?;
    let mut error = Errno::ENOENT;
    for file in candidates(process)? {
        let file = CString::new(file.into_os_string().into_vec()).map_err(failed("program"))?;
        match execve(&file, &args, environment) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(other) => error = other,
            Ok(never) => match never {},
        }
    }
    Ok(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(program: &str, path: Option<&str>) -> Process {
        Process {
            args: vec![program.into()],
            cwd: "/work".into(),
            env: path.map(|p| format!("PATH={p}").into_bytes()).into_iter().collect(),
            ..Process::default()
        }
    }

    #[test]
    fn what_a_name_may_mean() {
        let paths = |p: &Process| -> Vec<String> {
            candidates(p).unwrap().iter().map(|c| c.display().to_string()).collect()
        };
        assert_eq!(paths(&process("/bin/sh", Some("/x"))), ["/bin/sh"]);
        assert_eq!(paths(&process("./run", Some("/x"))), ["/work/./run"]);
        assert_eq!(paths(&process("sh", Some("/a:b:"))), ["/a/sh", "/work/b/sh", "/work/sh"]);
        assert_eq!(paths(&process("sh", None)).len(), 6);
    }

    #[test]
    fn failures_name_the_program() {
        for (program, path, part) in [
            ("/no/such", None, "no such file"),
            ("nosuch", Some("/bin"), "PATH"),
            ("/etc", None, "directory"),
            ("/etc/passwd", None, "permission denied"),
            ("", None, "empty"),
        ] {
            let Err(Failure::Invalid { object, reason }) = find(&process(program, path)) else {
                panic!("{program} was found");
            };
            assert!(object.contains(program) && reason.contains(part), "{object}: {reason}");
        }
    }
}
