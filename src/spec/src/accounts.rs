//! The image's `passwd` and `group` files (`passwd(5)`, `group(5)`).
//!
//! The files come out of an image, so they are untrusted: sizes are bounded, and a line that is not understood is
//! skipped, as libc does.

/// Longest account file that is read, bytes. Images with ten thousand accounts stay below it.
pub const MAX_FILE: usize = 4 << 20;

/// Most members of groups that are looked at; keeps a hostile file from costing memory.
const MAX_MEMBERS: usize = 1 << 16;

/// Why an account file is not looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} has {length} bytes; at most {MAX_FILE} are read")]
pub struct AccountsError {
    /// `/etc/passwd` or `/etc/group`.
    pub file: &'static str,
    /// Its length, bytes.
    pub length: usize,
}

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User<'a> {
    /// Login name.
    pub name: &'a str,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory; may be empty.
    pub home: &'a str,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group<'a> {
    /// Name.
    pub name: &'a str,
    /// Group id.
    pub gid: u32,
    /// Login names of its members.
    pub members: Vec<&'a str>,
}

fn lines<'a>(file: &'static str, text: &'a str) -> Result<impl Iterator<Item = &'a str>, AccountsError> {
    if text.len() > MAX_FILE {
        return Err(AccountsError { file, length: text.len() });
    }
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')))
}

/// An id; -1 means "leave it as it is" to the kernel and is none.
fn id(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// The users of a `passwd(5)` text, in its order.
pub fn parse_passwd(text: &str) -> Result<Vec<User<'_>>, AccountsError> {
    let user = |line| {
        let mut fields = str::split(line, ':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let uid = id(fields.next()?)?;
        let gid = id(fields.next()?)?;
        let home = fields.nth(1).unwrap_or("");
        Some(User { name, uid, gid, home })
    };
    Ok(lines("/etc/passwd", text)?.filter_map(user).collect())
}

/// The groups of a `group(5)` text, in its order.
pub fn parse_group(text: &str) -> Result<Vec<Group<'_>>, AccountsError> {
    let mut left = MAX_MEMBERS;
    let group = |line| {
        let mut fields = str::split(line, ':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = id(fields.next()?)?;
        let members = fields.next().unwrap_or("").split(',').filter(|m| !m.is_empty()).take(left);
        let members: Vec<&str> = members.collect();
        left -= members.len();
        Some(Group { name, gid, members })
    };
    Ok(lines("/etc/group", text)?.filter_map(group).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_read_and_nonsense_is_skipped() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# comment\n\nshort:x:1\n:x:1:1::/:\nbig:x:4294967296:0::/:\n\
                    nohome:x:7:8\nwww-data:x:33:33:www:/var/www:/usr/sbin/nologin";
        let users = parse_passwd(text).unwrap();
        assert_eq!(
            users,
            [
                User { name: "root", uid: 0, gid: 0, home: "/root" },
                User { name: "nohome", uid: 7, gid: 8, home: "" },
                User { name: "www-data", uid: 33, gid: 33, home: "/var/www" },
            ]
        );
    }

    #[test]
    fn groups_are_read_with_their_members() {
        let groups = parse_group("a:x:1:\nb:x:2:u,v\nbad:x:minus:u\nc:x:3").unwrap();
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[1], Group { name: "b", gid: 2, members: vec!["u", "v"] });
        assert_eq!(groups[2], Group { name: "c", gid: 3, members: vec![] });
    }

    #[test]
    fn a_huge_file_is_refused() {
        let text = "x".repeat(MAX_FILE + 1);
        assert_eq!(parse_group(&text), Err(AccountsError { file: "/etc/group", length: MAX_FILE + 1 }));
    }
}
