//! Archives that try to get out, to lie, or to take everything.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use proptest::prelude::*;

use super::*;

/// A folder with something beside it that must not change.
struct Cage {
    root: tempfile::TempDir,
}

impl Cage {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("folder");
        std::fs::create_dir(root.path().join("layer")).expect("folder");
        std::fs::write(root.path().join("outside"), "untouched").expect("file");
        Self { root }
    }

    fn layer(&self) -> std::path::PathBuf {
        self.root.path().join("layer")
    }

    fn fs(&self) -> std::path::PathBuf {
        self.layer().join("fs")
    }

    fn assert_whole(&self) {
        let mut names: Vec<_> = std::fs::read_dir(self.root.path())
            .expect("list")
            .map(|e| e.expect("entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["layer", "outside"], "something was made outside");
        assert_eq!(std::fs::read_to_string(self.root.path().join("outside")).expect("read"), "untouched");
        assert_eq!(std::fs::metadata(self.root.path().join("outside")).expect("stat").nlink(), 1);
        let mut inner: Vec<_> =
            std::fs::read_dir(self.layer()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        inner.sort();
        assert_eq!(inner, ["fs", "recipe"], "something was made beside the layer");
    }
}

fn try_archive(members: &[Vec<u8>]) -> (Cage, Result<Unpacked, String>) {
    let cage = Cage::new();
    let result =
        unpack_into(archive(members).as_slice(), &cage.layer()).map_err(|e| format!("{:?}: {e}", e.entry));
    cage.assert_whole();
    (cage, result)
}

#[test]
fn what_no_honest_archive_asks_is_refused() {
    let target = format!("/proc/{}/cwd", std::process::id());
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("leaves", vec![member(b"../outside", b'0', b"", b"x")]),
        ("leaves", vec![member(b"a/../../outside", b'0', b"", b"x")]),
        ("hard link", vec![member(b"a", b'1', b"../../outside", b"")]),
        ("hard link", vec![member(b"a", b'1', b"/etc/passwd", b"")]),
        ("hard link", vec![member(b"d", b'2', b"/etc", b""), member(b"a", b'1', b"d/passwd", b"")]),
        ("hard link to a folder", vec![member(b"d", b'5', b"", b""), member(b"a", b'1', b"d", b"")]),
        ("hard link to the root", vec![member(b"a", b'1', b"/", b"")]),
        (
            "circle",
            vec![
                member(b"a", b'2', b"b", b""),
                member(b"b", b'2', b"a", b""),
                member(b"a/x", b'0', b"", b""),
            ],
        ),
        ("nowhere", vec![member(b"a", b'2', b"/missing", b""), member(b"a/x", b'0', b"", b"")]),
        ("nowhere", vec![member(b"a", b'2', target.as_bytes(), b""), member(b"a/x", b'0', b"", b"")]),
        ("no folder", vec![member(b"a", b'0', b"", b"x"), member(b"a/x", b'0', b"", b"")]),
        ("no folder", vec![member(b"a", b'6', b"", b""), member(b"a/b/c", b'5', b"", b"")]),
        ("the root", vec![member(b"/", b'2', b"/etc", b"")]),
        ("the root", vec![member(b".", b'0', b"", b"x")]),
        ("of a parent", vec![member(b".wh...", b'0', b"", b"")]),
        ("of a parent", vec![member(b".wh..", b'0', b"", b"")]),
        ("of nothing", vec![member(b"a/.wh.", b'0', b"", b"")]),
        ("whiteout is used as a folder", vec![member(b".wh.a/b", b'0', b"", b"")]),
        ("without a target", vec![member(b"a", b'2', b"", b"")]),
        ("longer than 4095", vec![long_member(&[b'a'; 65536], b'0', b"", b"")]),
        ("too long", vec![long_member(&[b'a'; 300], b'0', b"", b"")]),
        ("too long", vec![long_member(b"a", b'2', &[b'a'; 65536], b"")]),
        ("unknown type", vec![member(b"a", b'Z', b"", b"")]),
        ("extended header of", vec![long_member(&vec![b'a'; 2 << 20], b'0', b"", b"")]),
        ("check sum", vec![vec![b'x'; 512]]),
        ("lone zero block", vec![vec![0; 512], member(b"a", b'0', b"", b"")]),
    ];
    for (needle, members) in cases {
        let (_, result) = try_archive(&members);
        let error = result.expect_err(needle);
        assert!(error.contains(needle), "{needle}: {error}");
    }
}

#[test]
fn links_resolve_within_the_layer() {
    let (cage, result) = try_archive(&[
        member(b"real", b'5', b"", b""),
        member(b"abs", b'2', b"/real", b""),
        member(b"up", b'2', b"../../../real", b""),
        member(b"abs/one", b'0', b"", b"1"),
        member(b"up/two", b'0', b"", b"2"),
        member(b"/absolute", b'0', b"", b"3"),
    ]);
    result.expect("unpack");
    for (name, content) in [("real/one", "1"), ("real/two", "2"), ("absolute", "3")] {
        assert_eq!(std::fs::read_to_string(cage.fs().join(name)).expect(name), content);
    }
}

#[test]
fn later_entries_replace_earlier_ones() {
    let kinds: [(u8, &[u8], &[u8]); 5] = [
        (b'0', b"", b"new"),
        (b'2', b"target", b""),
        (b'5', b"", b""),
        (b'6', b"", b""),
        (b'1', b"other", b""),
    ];
    for (first, first_link, _) in kinds {
        for (second, second_link, content) in kinds {
            let (cage, result) = try_archive(&[
                member(b"other", b'0', b"", b"other"),
                member(b"a", first, first_link, b""),
                member(b"a", second, second_link, content),
            ]);
            let unpacked = result.expect("unpack");
            let stat = std::fs::symlink_metadata(cage.fs().join("a")).expect("a");
            let right = match second {
                b'0' => stat.is_file() && stat.len() == 3,
                b'1' => stat.is_file() && stat.nlink() == 2,
                b'2' => stat.is_symlink(),
                b'5' => stat.is_dir(),
                _ => stat.file_type().is_fifo(),
            };
            assert!(right, "{} over {}", char::from(second), char::from(first));
            assert_eq!(std::fs::read_to_string(cage.fs().join("other")).expect("other"), "other");
            let kept = first == second && matches!(first, b'5' | b'1');
            assert_eq!(unpacked.recipe_is_whole, kept, "{} over {}", char::from(second), char::from(first));
        }
    }
    // A file over a full folder.
    let (cage, result) = try_archive(&[member(b"a/b/c", b'0', b"", b"x"), member(b"a", b'0', b"", b"new")]);
    result.expect("unpack");
    assert_eq!(std::fs::read_to_string(cage.fs().join("a")).expect("a"), "new");
}

#[test]
fn whiteouts() {
    let (cage, result) = try_archive(&[
        member(b"d/.wh.gone", b'0', b"", b""),
        member(b"d/.wh..wh..opq", b'0', b"", b""),
        member(b"d/.wh..wh.plnk/x", b'0', b"", b"aufs"),
        member(b".wh.back", b'0', b"", b""),
        member(b"back", b'5', b"", b""),
        member(b"here", b'0', b"", b"x"),
        member(b".wh.here", b'0', b"", b""),
    ]);
    result.expect("unpack");
    let gone = std::fs::symlink_metadata(cage.fs().join("d/gone")).expect("whiteout");
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let root = std::fs::File::open(cage.fs()).expect("root");
    let opaque = |name: &[u8]| {
        crisp_host::xattr::get_at(std::os::fd::AsFd::as_fd(&root), name, super::super::tree::OPAQUE)
            .expect("xattr")
    };
    assert_eq!(opaque(b"d"), Some(b"y".to_vec()));
    // Removed below and made anew here: the folder does not show what was below.
    assert_eq!(opaque(b"back"), Some(b"y".to_vec()));
    assert_eq!(std::fs::read_to_string(cage.fs().join("here")).expect("here"), "x");
    assert!(!cage.fs().join("d/.wh..wh.plnk").exists());
    let (_, result) = try_archive(&[member(b".wh..wh..opq", b'0', b"", b"")]);
    assert!(result.expect("unpack").opaque_root);
}

#[test]
fn overlayfs_attributes_cannot_be_smuggled_in() {
    let record = |key: &str, value: &str| {
        let rest = format!(" SCHILY.xattr.{key}={value}\n");
        let length = rest.len() + 2;
        format!("{length}{rest}")
    };
    let text = record("trusted.overlay.redirect", "/etc")
        + &record("user.overlay.opaque", "y")
        + &record("user.fine", "1");
    let (cage, result) =
        try_archive(&[member(b"pax", b'x', b"", text.as_bytes()), member(b"d", b'5', b"", b"")]);
    result.expect("unpack");
    let root = std::fs::File::open(cage.fs()).expect("root");
    let names = crisp_host::xattr::list_at(std::os::fd::AsFd::as_fd(&root), b"d").expect("list");
    assert_eq!(names, [c"user.fine".to_owned()]);
}

#[test]
fn implied_folders_are_reported() {
    let (_, result) = try_archive(&[
        member(b"a/b/c", b'0', b"", b""),
        member(b"a", b'5', b"", b""),
        member(b"x/y", b'5', b"", b""),
    ]);
    assert_eq!(result.expect("unpack").implied, [b"".to_vec(), b"a/b".to_vec(), b"x".to_vec()]);
}

#[test]
fn a_bomb_is_bounded() {
    let bytes = archive(&[member(b"big", b'0', b"", &vec![0; 64 << 20])]);
    let stream = gzip(&bytes);
    assert!(stream.len() < 1 << 20);
    let cage = Cage::new();
    let result = unpack_checked(&stream, &expected(&stream, &bytes), 8 << 20, &cage.layer());
    assert!(matches!(result, Err(ImageError::TooLarge { .. })), "{result:?}");
    // Sparse maps claim sizes that are not there: that costs nothing, and is possible.
    let mut huge = member(b"huge", b'S', b"", b"");
    huge[386..397].copy_from_slice(b"00000000000");
    huge[483..495].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    huge[148..156].copy_from_slice(b"        ");
    let sum: u32 = huge[..512].iter().map(|b| u32::from(*b)).sum();
    huge[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let (_, result) = try_archive(&[huge]);
    let error = result.expect_err("larger than any file system");
    assert!(error.contains("huge"), "{error}");
}

#[test]
fn truncated_anywhere_is_an_error() {
    let bytes = archive(&[
        member(b"d", b'5', b"", b""),
        long_member(&[b'n'; 150], b'0', b"", &[7; 700]),
        member(b"d/l", b'2', b"x", b""),
    ]);
    let whole = Cage::new();
    unpack_checked(&bytes, &expected(&bytes, &bytes), 1 << 30, &whole.layer()).expect("whole");
    let stream = gzip(&bytes);
    for (stream, step) in [(&bytes, 37), (&stream, 1)] {
        let wanted = expected(stream, &bytes);
        let unchecked = Expected { blob: None, ..wanted.clone() };
        for cut in (0..stream.len()).step_by(step) {
            let cage = Cage::new();
            let result = unpack_checked(&stream[..cut], &wanted, 1 << 30, &cage.layer());
            assert!(matches!(result, Err(ImageError::Damaged { .. })), "cut at {cut}: {result:?}");
            let cage = Cage::new();
            let result = unpack_checked(&stream[..cut], &unchecked, 1 << 30, &cage.layer());
            // What gzip adds at the end, the diff id does not cover.
            assert!(result.is_err() || cut + 8 >= stream.len(), "cut at {cut}");
        }
    }
}

#[test]
fn a_million_entries_are_bounded_by_configuration() {
    let many: Vec<Vec<u8>> = (0..2000).map(|n| member(format!("f{n}").as_bytes(), b'0', b"", b"")).collect();
    let bytes = archive(&many);
    let cage = Cage::new();
    let limits = StreamLimits { bytes: 1 << 30, entries: 1999 };
    let result = unpack_layer(bytes.as_slice(), &cage.layer(), &expected(&bytes, &bytes), limits);
    assert!(matches!(result, Err(ImageError::TooLarge { limit: 1999, .. })), "{result:?}");
}

/// Repeats a member for ever.
struct Endless {
    member: Vec<u8>,
    at: usize,
}

impl std::io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.member[self.at..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at = (self.at + count) % self.member.len();
        Ok(count)
    }
}

#[test]
fn what_is_kept_in_memory_is_bounded() {
    // A folder's attributes wait for the end of the archive.
    let value = "x".repeat(1_000_000);
    let mut record = format!("SCHILY.xattr.user.a={value}\n");
    record = format!("{} {record}", record.len() + 8);
    assert_eq!(record.split(' ').next().and_then(|n| n.parse().ok()), Some(record.len()));
    let one = [member(b"x", b'x', b"", record.as_bytes()), member(b"folder", b'5', b"", b"")].concat();
    // A single name stands for 500 folders that nobody counted.
    let deep = long_member(&[&b"a/".repeat(500)[..], b"a"].concat(), b'0', b"", b"");
    for (member, entries, says) in [(one, u64::MAX, "256 MiB"), (deep, 500, "more than 500 entries")] {
        let cage = Cage::new();
        let root = std::fs::File::open(cage.layer()).expect("folder").into();
        let input = std::io::BufReader::with_capacity(1 << 20, Endless { member, at: 0 });
        let recipe = Recipe::new(std::io::sink()).expect("recipe");
        let failed = unpack(input, root, recipe, Limits { entries }).expect_err("endless");
        assert!(failed.to_string().contains(says), "{failed}");
    }
}

#[test]
fn an_implied_folder_may_be_replaced() {
    let (_cage, result) =
        try_archive(&[member(b"a/b/c", b'0', b"", b""), member(b"a", b'2', b"elsewhere", b"")]);
    assert_eq!(result.expect("unpack").implied, [b"".to_vec()]);
}

fn arbitrary_member() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "..",
        ".",
        "",
        ".wh.a",
        ".wh..wh..opq",
        "outside",
        "layer",
        "fs",
    ]);
    let path = prop::collection::vec(part.clone(), 1..5).prop_map(|parts| parts.join("/"));
    let link = prop_oneof![
        path.clone(),
        Just("/".to_owned()),
        Just("/etc/passwd".to_owned()),
        Just("../outside".to_owned()),
        Just("../../outside".to_owned()),
        Just("/proc/self/root".to_owned()),
    ];
    let kind = prop::sample::select(b"01234567".to_vec());
    (path, kind, link, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(path, kind, link, content)| {
        let content = if matches!(kind, b'0' | b'7') { content } else { Vec::new() };
        member(path.as_bytes(), kind, link.as_bytes(), &content)
    })
}

fn no_file_is_left_open(before: usize) {
    let now = std::fs::read_dir("/proc/self/fd").expect("fds").count();
    assert!(now < before + 200, "{before} descriptors before, {now} now");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_gets_out(members in prop::collection::vec(arbitrary_member(), 1..12)) {
        let before = std::fs::read_dir("/proc/self/fd").expect("fds").count();
        let (cage, result) = try_archive(&members);
        no_file_is_left_open(before);
        // A recipe that claims to be whole is.
        if result.is_ok_and(|unpacked| unpacked.recipe_is_whole) {
            rebuilt_is(&cage.layer(), &archive(&members));
        }
    }

    #[test]
    fn noise_never_panics(
        members in prop::collection::vec(arbitrary_member(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = archive(&members);
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let cage = Cage::new();
        let _ = unpack_into(bytes.as_slice(), &cage.layer());
        cage.assert_whole();
    }
}

fn rebuilt_is(layer: &Path, archive: &[u8]) {
    use std::io::Read;
    let mut bytes = Vec::new();
    let rebuilt = super::super::Rebuilt::open(&layer.join("fs"), &layer.join("recipe"));
    rebuilt.expect("recipe").read_to_end(&mut bytes).expect("rebuild");
    assert!(bytes == archive, "the archive that was rebuilt differs");
}
