use proptest::prelude::*;

use super::*;

fn accounts() -> Accounts {
    Accounts {
        passwd: Some(
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\ndefault-user:x:1000:1000::/home/d:\n\
             www-data:x:33:34::/var/www:"
                .into(),
        ),
        group: Some(
            "root:x:0:\nstaff:x:50:\ngroup-defined-in-image:x:50000:default-user\nwww-data:x:34:".into(),
        ),
    }
}

fn resolve(image_user: &str, change: impl FnOnce(&mut SecurityContext)) -> Result<ContainerUser, SpecError> {
    let mut security = SecurityContext::default();
    change(&mut security);
    let image = ImageConfig { user: image_user.into(), ..Default::default() };
    user(&security, &image, &accounts())
}

#[test]
fn users_of_images() {
    for (text, uid, gid, home) in [
        ("", 0, 0, Some("/root")),
        ("0", 0, 0, Some("/root")),
        ("1002", 1002, 0, None),
        ("1000", 1000, 1000, Some("/home/d")),
        ("www-data", 33, 34, Some("/var/www")),
        ("1003:1004", 1003, 1004, None),
        ("www-data:1004", 33, 1004, Some("/var/www")),
        ("1003:staff", 1003, 50, None),
        (":staff", 0, 50, Some("/root")),
        ("nobody:", 65534, 65534, Some("/")),
    ] {
        let user = resolve(text, |_| {}).unwrap();
        assert_eq!((user.uid, user.gid, user.home.as_deref()), (uid, gid, home), "{text}");
        assert_eq!(user.supplemental[0], gid, "{text}");
    }
}

#[test]
fn a_name_that_is_not_in_the_image_is_named() {
    for (text, object) in [
        ("ghost", "user \"ghost\""),
        ("0:ghosts", "group \"ghosts\""),
        ("4294967295", "user \"4294967295\""),
        ("-1", "user \"-1\""),
    ] {
        match resolve(text, |_| {}) {
            Err(SpecError::NotFound { field, object: found, .. }) => {
                assert_eq!((field.as_str(), found.as_str()), ("image.config.User", object));
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let error = resolve("", |s| s.run_as_username = Some("ghost".into())).unwrap_err();
    assert_eq!(error.field(), "config.linux.security_context.run_as_username");
}

#[test]
fn the_request_wins_over_the_image() {
    let user = resolve("1003:1004", |s| s.run_as_user = Some(1000)).unwrap();
    assert_eq!((user.uid, user.gid), (1000, 1000));
    let user = resolve("", |s| {
        s.run_as_username = Some("nobody".into());
        s.run_as_group = Some(7);
    })
    .unwrap();
    assert_eq!((user.uid, user.gid, user.supplemental), (65534, 7, vec![7]));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let error = resolve("1000", |s| s.run_as_group = Some(7)).unwrap_err();
    assert_eq!(error.field(), "config.linux.security_context.run_as_group");
    let error = resolve("", |s| {
        s.run_as_user = Some(1);
        s.run_as_username = Some("nobody".into());
    })
    .unwrap_err();
    assert_eq!(error.field(), "config.linux.security_context.run_as_username");
}

#[test]
fn groups_merge_or_not() {
    let merged = resolve("", |s| {
        s.run_as_user = Some(1000);
        s.supplemental_groups = vec![1234, 1234];
    });
    assert_eq!(merged.unwrap().supplemental, [1000, 1234, 50000]);
    let strict = resolve("", |s| {
        s.run_as_user = Some(1000);
        s.supplemental_groups = vec![1234];
        s.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
    });
    assert_eq!(strict.unwrap().supplemental, [1000, 1234]);
    // The image's groups are the user's, whatever primary group was asked for.
    let other = resolve("", |s| {
        s.run_as_user = Some(1000);
        s.run_as_group = Some(3000);
        s.supplemental_groups = vec![4000];
    });
    assert_eq!(other.unwrap().supplemental, [3000, 4000, 50000]);
}

#[test]
fn an_image_without_account_files_has_numbers_only() {
    let image = ImageConfig { user: "12:13".into(), ..Default::default() };
    let found = user(&SecurityContext::default(), &image, &Accounts::default()).unwrap();
    assert_eq!((found.uid, found.gid, found.home), (12, 13, None));
}

proptest! {
    #[test]
    fn any_account_files_and_users_are_survived(passwd in ".{0,400}", group in ".{0,400}", text in ".{0,40}") {
        let accounts = Accounts { passwd: Some(passwd), group: Some(group) };
        let image = ImageConfig { user: text, ..Default::default() };
        if let Ok(found) = user(&SecurityContext::default(), &image, &accounts) {
            prop_assert!(found.supplemental.contains(&found.gid));
            prop_assert!(found.uid != u32::MAX && found.gid != u32::MAX);
        }
    }

    #[test]
    fn numbers_stand_for_themselves(uid in 0..u32::MAX, gid in 0..u32::MAX) {
        let image = ImageConfig { user: format!("{uid}:{gid}"), ..Default::default() };
        let found = user(&SecurityContext::default(), &image, &accounts()).unwrap();
        prop_assert_eq!((found.uid, found.gid), (uid, gid));
    }
}
