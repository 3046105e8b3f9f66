//! Random trees, packed by GNU tar and bsdtar in all their formats, unpacked here, and compared in every attribute.

use std::{
    collections::BTreeMap,
    ffi::CString,
    os::{
        fd::AsFd,
        unix::{
            ffi::OsStrExt,
            fs::{FileExt, MetadataExt, PermissionsExt, lchown},
        },
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::{
    stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat},
    time::TimeSpec,
};
use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum What {
    File(Vec<u8>),
    Sparse(Vec<(u8, u16)>),
    Folder,
    SymLink(String),
    /// To the n-th file that was made.
    HardLink(usize),
    Fifo,
    Device,
}

#[derive(Debug, Clone)]
struct Node {
    path: Vec<String>,
    what: What,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    xattrs: Vec<(String, Vec<u8>)>,
    capability: bool,
}

fn node() -> impl Strategy<Value = Node> {
    let part = prop_oneof![
        4 => "[a-c]",
        1 => "[ -.0-~]{1,12}".prop_filter("a name", |s| s != "." && s != ".." && !s.starts_with(".wh.")),
        1 => "n{90,130}",
        1 => "[äß→]{1,3}",
    ];
    let what = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..1500).prop_map(What::File),
        1 => prop::collection::vec((0u8..200, 1u16..9000), 1..5).prop_map(What::Sparse),
        2 => Just(What::Folder),
        2 => "[a-c./ ]{1,20}|l{101,150}".prop_map(What::SymLink),
        2 => (0usize..10).prop_map(What::HardLink),
        1 => Just(What::Fifo),
        1 => Just(What::Device),
    ];
    let xattr = ("user\\.[a-z.]{1,5}", prop::collection::vec(any::<u8>(), 0..20));
    (
        prop::collection::vec(part, 1..4),
        what,
        0u32..0o10000,
        (prop_oneof![Just(0), 0u32..70000, Just(3_000_000_000)], 0u32..3_000_000),
        (0i64..4_000_000_000, 0i64..1_000_000_000),
        prop::collection::vec(xattr, 0..2),
        any::<bool>(),
    )
        .prop_map(|(path, what, mode, owner, mtime, xattrs, capability)| Node {
            path,
            what,
            mode,
            owner,
            mtime,
            xattrs,
            capability,
        })
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    let parent = std::fs::File::open(path.parent().expect("parent")).expect("open");
    let name = CString::new(name).expect("name");
    let last = path.file_name().expect("name").as_bytes();
    crisp_host::xattr::set_at(parent.as_fd(), last, &name, value).expect("xattr");
}

/// `VFS_CAP_REVISION_2` with `cap_net_bind_service`.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn build(root: &Path, nodes: &[Node]) {
    std::fs::create_dir(root).expect("root");
    let (mut files, mut made): (Vec<PathBuf>, Vec<(PathBuf, &Node)>) = (Vec::new(), Vec::new());
    for node in nodes {
        let path = node.path.iter().fold(root.to_owned(), |path, part| path.join(part));
        let parent = path.parent().expect("parent");
        // A name that is taken by something else: leave it out.
        if path.symlink_metadata().is_ok()
            || has_link(root, parent)
            || std::fs::create_dir_all(parent).is_err()
        {
            continue;
        }
        let done = match &node.what {
            What::File(content) => std::fs::write(&path, content).is_ok(),
            What::Sparse(runs) => {
                let file = std::fs::File::create(&path).expect("file");
                for (at, length) in runs {
                    file.write_all_at(&vec![*at; usize::from(*length)], u64::from(*at) * 65536)
                        .expect("write");
                }
                file.set_len(300 * 65536).is_ok()
            }
            What::Folder => std::fs::create_dir(&path).is_ok(),
            What::SymLink(target) => std::os::unix::fs::symlink(target, &path).is_ok(),
            What::HardLink(nth) => match files.get(*nth) {
                Some(target) => {
                    std::fs::hard_link(target, &path).expect("link");
                    false
                }
                None => false,
            },
            What::Fifo => mknod(&path, SFlag::S_IFIFO, Mode::S_IRUSR, 0).is_ok(),
            What::Device => {
                mknod(&path, SFlag::S_IFCHR, Mode::S_IRUSR, nix::sys::stat::makedev(5, 300)).is_ok()
            }
        };
        if done {
            if matches!(node.what, What::File(_) | What::Sparse(_)) {
                files.push(path.clone());
            }
            made.push((path, node));
        }
    }
    // From the inside out, because making things changes their folder's time.
    made.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
    for (path, node) in made {
        decorate(&path, node);
    }
}

fn has_link(root: &Path, path: &Path) -> bool {
    path.ancestors()
        .take_while(|at| *at != root)
        .any(|at| at.symlink_metadata().is_ok_and(|stat| stat.is_symlink()))
}

fn decorate(path: &Path, node: &Node) {
    lchown(path, Some(node.owner.0), Some(node.owner.1)).expect("chown");
    if !matches!(node.what, What::SymLink(_)) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(node.mode)).expect("chmod");
    }
    if matches!(node.what, What::File(_) | What::Sparse(_) | What::Folder) {
        for (name, value) in &node.xattrs {
            set_xattr(path, name, value);
        }
        if node.capability && !matches!(node.what, What::Folder) {
            set_xattr(path, "security.capability", &CAPABILITY);
        }
    }
    let time = TimeSpec::new(node.mtime.0, node.mtime.1);
    utimensat(None, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("time");
}

/// Everything about a tree that an archive can keep.
fn describe(root: &Path, with_fractions: bool, with_xattrs: bool) -> BTreeMap<PathBuf, String> {
    let mut tree = BTreeMap::new();
    let mut links: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().expect("stat");
        let name = path.strip_prefix(root).expect("below").to_owned();
        let mut text = format!("{:o} {}:{} {}", stat.mode(), stat.uid(), stat.gid(), stat.mtime());
        if with_fractions {
            text += &format!(".{:09}", stat.mtime_nsec());
        }
        if stat.is_dir() {
            let mut inside: Vec<_> =
                std::fs::read_dir(&path).expect("list").map(|e| e.expect("entry").path()).collect();
            inside.sort();
            todo.extend(inside.into_iter().rev());
        } else if stat.is_symlink() {
            text += &format!(" -> {:?}", std::fs::read_link(&path).expect("link"));
        } else if stat.is_file() {
            let content = std::fs::read(&path).expect("read");
            text += &format!(" {} {}", stat.len(), Digest::of(&content));
            let first = links.entry(stat.ino()).or_insert_with(|| name.clone());
            text += &format!(" first {first:?} of {}", stat.nlink());
        } else {
            text += &format!(" device {}", stat.rdev());
        }
        if with_xattrs && !name.as_os_str().is_empty() {
            let parent = std::fs::File::open(path.parent().expect("parent")).expect("open");
            let last = path.file_name().expect("name").as_bytes();
            let mut names = crisp_host::xattr::list_at(parent.as_fd(), last).expect("list");
            names.sort();
            for key in names {
                let value = crisp_host::xattr::get_at(parent.as_fd(), last, &key).expect("get");
                text += &format!(" {key:?}={value:?}");
            }
        }
        tree.insert(name, text);
    }
    tree
}

/// Program, arguments, whether fractions of seconds and extended attributes are kept.
const PACKERS: [(&str, &[&str], bool, bool); 7] = [
    ("tar", &["--format=gnu", "--sparse"], false, false),
    ("tar", &["--format=posix", "--xattrs", "--xattrs-include=*"], true, true),
    (
        "tar",
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.0"],
        true,
        true,
    ),
    (
        "tar",
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=0.1"],
        true,
        true,
    ),
    (
        "tar",
        &["--format=posix", "--xattrs", "--xattrs-include=*", "--sparse", "--sparse-version=1.0"],
        true,
        true,
    ),
    ("bsdtar", &["--format=pax", "--xattrs", "--no-fflags", "--no-acls"], true, true),
    ("bsdtar", &["--format=gnutar"], false, false),
];

fn check(nodes: &[Node]) {
    let root = tempfile::tempdir().expect("folder");
    let tree = root.path().join("tree");
    build(&tree, nodes);
    for (number, (program, arguments, with_fractions, with_xattrs)) in PACKERS.iter().enumerate() {
        let packed = root.path().join("packed.tar");
        let output = Command::new(program)
            .args(*arguments)
            .arg("-cf")
            .arg(&packed)
            .arg("-C")
            .arg(&tree)
            .arg(".")
            .output();
        let output = output.expect("packer");
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let layer = root.path().join(format!("layer-{number}"));
        std::fs::create_dir(&layer).expect("folder");
        let bytes = std::fs::read(&packed).expect("read");
        let unpacked = unpack_into(bytes.as_slice(), &layer)
            .unwrap_or_else(|e| panic!("{program} {arguments:?}: {:?}: {e}", e.entry));
        let before = describe(&tree, *with_fractions, *with_xattrs);
        let after = describe(&layer.join("fs"), *with_fractions, *with_xattrs);
        for (path, text) in &before {
            assert_eq!(Some(text), after.get(path), "{program} {arguments:?}: {path:?}");
        }
        assert_eq!(before.len(), after.len(), "{program} {arguments:?}");
        // And back: the recipe gives the very same archive, and finds nothing wrong.
        assert!(unpacked.recipe_is_whole);
        let checked =
            super::super::check_layer(&layer.join("fs"), &layer.join("recipe"), &Digest::of(&bytes));
        assert_eq!(checked, Ok(()), "{program} {arguments:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn other_tools_archives_come_out_as_they_went_in(nodes in prop::collection::vec(node(), 1..14)) {
        check(&nodes);
    }
}

#[test]
fn damage_is_found() {
    let root = tempfile::tempdir().expect("folder");
    let bytes = archive(&[
        member(b"d", b'5', b"", b""),
        member(b"d/file", b'0', b"", b"content"),
        member(b"d/link", b'2', b"target", b""),
    ]);
    let digest = Digest::of(&bytes);
    type Harm = fn(&Path);
    let damage: [(&str, Harm); 6] = [
        ("digest", |fs| std::fs::write(fs.join("d/file"), "CONTENT").expect("write")),
        ("too short", |fs| std::fs::write(fs.join("d/file"), "").expect("write")),
        ("d/file", |fs| std::fs::remove_file(fs.join("d/file")).expect("remove")),
        ("mode", |fs| {
            std::fs::set_permissions(fs.join("d"), std::fs::Permissions::from_mode(0o700)).expect("chmod")
        }),
        ("owner", |fs| lchown(fs.join("d/link"), Some(7), None).expect("chown")),
        ("target", |fs| {
            std::fs::remove_file(fs.join("d/link")).expect("remove");
            std::os::unix::fs::symlink("other", fs.join("d/link")).expect("link");
            let zero = TimeSpec::new(0, 0);
            utimensat(None, &fs.join("d/link"), &zero, &zero, UtimensatFlags::NoFollowSymlink).expect("time");
        }),
    ];
    for (number, (needle, harm)) in damage.into_iter().enumerate() {
        let layer = root.path().join(number.to_string());
        std::fs::create_dir(&layer).expect("folder");
        unpack_into(bytes.as_slice(), &layer).expect("unpack");
        let check = || super::super::check_layer(&layer.join("fs"), &layer.join("recipe"), &digest);
        assert_eq!(check(), Ok(()));
        harm(&layer.join("fs"));
        let why = check().expect_err(needle);
        assert!(why.contains(needle), "{needle}: {why}");
    }
}
