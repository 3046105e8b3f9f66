//! The environment, completed by `HOME`.

use std::{
    ffi::CString,
    fs::File,
    io::{Read, Result},
    os::unix::fs::OpenOptionsExt,
};

use crisp_model::process::Process;

/// More of `/etc/passwd` is not read: it is the container's file and may be of any size.
const PASSWD: u64 = 1 << 20;

/// The environment as C strings; entries with a NUL, which no program could have been given, are left out. `HOME` is added
/// from `/etc/passwd` of the container, or `/`.
pub(super) fn complete(process: &Process) -> Vec<CString> {
    let mut environment: Vec<CString> =
        process.env.iter().filter_map(|entry| CString::new(entry.as_slice()).ok()).collect();
    if !process.env.iter().any(|entry| entry.starts_with(b"HOME=")) {
        let passwd = read().unwrap_or_default();
        let home = find(&passwd, process.uid).unwrap_or("/");
        environment.extend(CString::new(format!("HOME={home}")));
    }
    environment
}

fn read() -> Result<String> {
    // Whatever else than a file lies there must not stop us.
    let file =
        File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC).open("/etc/passwd")?;
    let mut text = Vec::new();
    if file.metadata()?.is_file() {
        file.take(PASSWD).read_to_end(&mut text)?;
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn find(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let number = fields.nth(2)?.parse::<u32>().ok()?;
        let home = fields.nth(2)?;
        (number == uid && !home.is_empty()).then_some(home)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_home_of_a_user() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nnobody:x:65534:65534::/:\nme:x:7:7:::/bin/sh\n";
        for (uid, expected) in [(0, Some("/root")), (65534, Some("/")), (7, None), (8, None)] {
            assert_eq!(find(passwd, uid), expected, "{uid}");
        }
    }

    #[test]
    fn a_given_home_is_kept_and_duplicates_too() {
        let env = vec![b"HOME=/x".to_vec(), b"A=1".to_vec(), b"A=2".to_vec(), b"N=\0".to_vec()];
        let process = Process { env, ..Process::default() };
        let texts: Vec<_> = complete(&process).iter().map(|e| e.to_string_lossy().into_owned()).collect();
        assert_eq!(texts, ["HOME=/x", "A=1", "A=2"]);
    }
}
