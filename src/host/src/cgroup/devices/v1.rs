//! The controller of version 1: one line a write, in order.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
};

use super::{CgroupError, CgroupFs, DeviceKind, DeviceRule};

pub(super) fn restrict(fs: &CgroupFs, cgroup: &str, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    let setting = || "device rules".to_owned();
    let dir = fs
        .path("devices", cgroup)?
        .ok_or_else(|| CgroupError::NoController { controller: "devices", setting: setting() })?;
    let open = |name: &str| {
        let path = dir.join(name);
        let opened = OpenOptions::new().write(true).open(&path);
        opened.map(|file| (file, path.clone())).map_err(|source| CgroupError::host("open", &path, source))
    };
    let (mut allow, mut deny) = (open("devices.allow")?, open("devices.deny")?);
    for rule in rules {
        write(if rule.allow { &mut allow } else { &mut deny }, &line(rule))?;
    }
    Ok(())
}

fn write((file, path): &mut (File, impl AsRef<Path>), line: &str) -> Result<(), CgroupError> {
    // The kernel takes a line whole or not at all.
    file.write_all(line.as_bytes()).map_err(|source| CgroupError::Refused {
        file: path.as_ref().to_owned(),
        value: line.to_owned(),
        hint: "; the parent cgroup may not use it either".to_owned(),
        source,
    })
}

/// As the kernel reads it (`devices.rst`).
fn line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        // Stands for all devices and all kinds of access, whatever follows.
        DeviceKind::All => return "a".to_owned(),
        DeviceKind::Block => 'b',
        DeviceKind::Char => 'c',
    };
    let number = |number: Option<i64>| number.filter(|n| *n >= 0).map_or("*".to_owned(), |n| n.to_string());
    let access = if rule.access.is_empty() { "rwm" } else { &rule.access };
    format!("{kind} {}:{} {access}", number(rule.major), number(rule.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_the_kernel_reads_them() {
        let rule = |kind, major, minor, access: &str| DeviceRule {
            allow: true,
            kind,
            major,
            minor,
            access: access.to_owned(),
        };
        for (rule, expected) in [
            (rule(DeviceKind::All, None, None, "rwm"), "a"),
            (rule(DeviceKind::Char, Some(1), Some(3), "rw"), "c 1:3 rw"),
            (rule(DeviceKind::Block, Some(8), None, ""), "b 8:* rwm"),
            (rule(DeviceKind::Char, Some(-1), Some(-1), "m"), "c *:* m"),
        ] {
            assert_eq!(line(&rule), expected);
        }
    }
}
