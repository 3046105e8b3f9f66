//! Who the container runs as.
//!
//! A request's `run_as_user` or `run_as_username` wins over the image's `User`; names are looked up in the image's
//! own account files. The primary group is always among the supplementary groups as well: a process that is in no
//! supplementary group could use files that are meant to be closed to its group.

use crisp_model::{
    image::ImageConfig,
    security::{SecurityContext, SupplementalGroupsPolicy},
};

use crate::{
    accounts::{self, Group, User, parse_group, parse_passwd},
    error::SpecError,
    input::Accounts,
};

const FIELD: &str = "config.linux.security_context";

/// Ids of a container's first process, as `ContainerStatus.user` reports them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerUser {
    /// User id inside the container.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one first.
    pub supplemental: Vec<u32>,
    /// Home directory by the image's `/etc/passwd`; `None`: the user has no line there.
    pub home: Option<String>,
}

/// The account files, parsed.
struct Tables<'a> {
    users: Vec<User<'a>>,
    groups: Vec<Group<'a>>,
}

impl<'a> Tables<'a> {
    fn parse(accounts: &'a Accounts) -> Result<Self, SpecError> {
        let wrong = |error: accounts::AccountsError| SpecError::invalid("image", error.to_string());
        Ok(Tables {
            users: parse_passwd(accounts.passwd.as_deref().unwrap_or("")).map_err(wrong)?,
            groups: parse_group(accounts.group.as_deref().unwrap_or("")).map_err(wrong)?,
        })
    }

    fn by_name(&self, name: &str) -> Option<&User<'a>> {
        self.users.iter().find(|user| user.name == name)
    }

    fn by_uid(&self, uid: u32) -> Option<&User<'a>> {
        self.users.iter().find(|user| user.uid == uid)
    }

    fn group(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|group| group.name == name).map(|group| group.gid)
    }

    fn memberships<'b>(&'b self, name: &'b str) -> impl Iterator<Item = u32> + 'b {
        self.groups.iter().filter(move |group| group.members.contains(&name)).map(|group| group.gid)
    }
}

/// A numeric id; what does not fit (or is signed) is a name.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // (uid_t)-1 means "leave unchanged" to the kernel.
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

/// What the user part says: an id, and the account it belongs to if the image knows one.
struct Who {
    uid: u32,
    gid: u32,
    name: Option<String>,
    home: Option<String>,
}

fn known(user: &User<'_>) -> Who {
    let home = (!user.home.is_empty()).then(|| user.home.to_owned());
    Who { uid: user.uid, gid: user.gid, name: Some(user.name.to_owned()), home }
}

fn by_id(tables: &Tables<'_>, uid: u32) -> Who {
    tables.by_uid(uid).map_or(Who { uid, gid: 0, name: None, home: None }, known)
}

fn by_text(tables: &Tables<'_>, field: &str, text: &str) -> Result<Who, SpecError> {
    if let Some(uid) = number(text) {
        return Ok(by_id(tables, uid));
    }
    tables.by_name(text).map(known).ok_or_else(|| {
        SpecError::not_found(
            field,
            format!("user {text:?}"),
            "add it to the image's /etc/passwd or use a number",
        )
    })
}

fn image_user(tables: &Tables<'_>, image: &ImageConfig) -> Result<Who, SpecError> {
    let field = "image.config.User";
    let (user, group) = match image.user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image.user.as_str(), None),
    };
    let mut who = if user.is_empty() { by_id(tables, 0) } else { by_text(tables, field, user)? };
    if let Some(group) = group.filter(|group| !group.is_empty()) {
        who.gid = match number(group).or_else(|| tables.group(group)) {
            Some(gid) => gid,
            None => {
                let reason = "add it to the image's /etc/group or use a number";
                return Err(SpecError::not_found(field, format!("group {group:?}"), reason));
            }
        };
    }
    Ok(who)
}

fn requested(tables: &Tables<'_>, security: &SecurityContext, image: &ImageConfig) -> Result<Who, SpecError> {
    let who = match (security.run_as_user, security.run_as_username.as_deref()) {
        (Some(_), Some(_)) => {
            let reason = "only one of run_as_user and run_as_username may be set";
            return Err(SpecError::invalid(format!("{FIELD}.run_as_username"), reason));
        }
        (Some(uid), None) => Some(by_id(tables, uid)),
        (None, Some(name)) => Some(by_text(tables, &format!("{FIELD}.run_as_username"), name)?),
        (None, None) => None,
    };
    match (who, security.run_as_group) {
        (Some(who), Some(gid)) => Ok(Who { gid, ..who }),
        (Some(who), None) => Ok(who),
        (None, Some(_)) => {
            let reason = "a group needs a user: set run_as_user or run_as_username too";
            Err(SpecError::invalid(format!("{FIELD}.run_as_group"), reason))
        }
        (None, None) => image_user(tables, image),
    }
}

/// Resolves user and groups of a container (CRI `LinuxContainerSecurityContext`, KEP-3619 for the groups).
pub fn user(
    security: &SecurityContext,
    image: &ImageConfig,
    accounts: &Accounts,
) -> Result<ContainerUser, SpecError> {
    let tables = Tables::parse(accounts)?;
    let who = requested(&tables, security, image)?;
    let mut supplemental = vec![who.gid];
    let mut add = |gid| {
        if !supplemental.contains(&gid) {
            supplemental.push(gid);
        }
    };
    security.supplemental_groups.iter().copied().for_each(&mut add);
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge
        && let Some(name) = &who.name
    {
        tables.memberships(name).for_each(&mut add);
    }
    // NGROUPS_MAX of the kernel: setgroups(2) would refuse more at the start, without saying what to do.
    if supplemental.len() > 65536 {
        let reason = format!("{} groups; the kernel allows 65536", supplemental.len());
        return Err(SpecError::invalid(format!("{FIELD}.supplemental_groups"), reason));
    }
    Ok(ContainerUser { uid: who.uid, gid: who.gid, supplemental, home: who.home })
}

#[cfg(test)]
mod tests;
