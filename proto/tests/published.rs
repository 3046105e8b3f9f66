//! Our `api.proto` and the published one say the same: packages, services, messages, fields, numbers, types, options.
//!
//! The published file comes with the Go module k8s.io/cri-api, which the Go toolchain fetches (or has in its cache)
//! and whose checksum it verifies. It is read here and nowhere else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use prost_types::FileDescriptorSet;
use protox::{Compiler, prost_reflect::prost::Message};

const MODULE: &str = "k8s.io/cri-api@v0.37.2";
const FILE: &str = "api.proto";

fn ours() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("runtime/v1")
}

/// The folder of the published file.
fn published() -> PathBuf {
    let folder = std::env::temp_dir();
    let output = Command::new("go").args(["mod", "download", "-json", MODULE]).current_dir(folder).output();
    let output = output.unwrap_or_else(|error| {
        panic!("the Go toolchain is needed to fetch {MODULE}, and `go` cannot be run: {error}")
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "fetch {MODULE}: {text}{}", String::from_utf8_lossy(&output.stderr));
    // `"Dir": "/…",`: one field of a flat object, each on a line of its own.
    let value = text.lines().find_map(|line| line.trim().strip_prefix(r#""Dir": ""#)?.strip_suffix(r#"","#));
    let module = value.unwrap_or_else(|| panic!("`go mod download -json` names no Dir: {text}"));
    Path::new(module).join("pkg/apis/runtime/v1")
}

/// The encoded descriptors, with every option and without comments and positions.
///
/// The encoded form is what is compared: prost's own types do not know all options (`debug_redact`) and drop them.
fn descriptors(folder: &Path) -> Vec<u8> {
    let compiled = Compiler::new([folder]).map(|mut compiler| {
        compiler.include_source_info(false);
        compiler.open_file(FILE).map(|compiler| compiler.encode_file_descriptor_set())
    });
    match compiled {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) | Err(error) => panic!("compile {FILE} in {}: {error:?}", folder.display()),
    }
}

/// The lines in which two descriptor sets differ, for people.
fn difference(ours: &[u8], published: &[u8]) -> String {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let set = FileDescriptorSet::decode(bytes).expect("descriptor set");
        format!("{set:#?}").lines().map(str::to_owned).collect()
    };
    let (ours, published) = (lines(ours), lines(published));
    let at = ours.iter().zip(&published).position(|(a, b)| a != b);
    let Some(at) = at else {
        return "in an option that prost does not know, or at the end of the file".to_owned();
    };
    let around = |lines: &[String]| lines[at.saturating_sub(12)..(at + 4).min(lines.len())].join("\n");
    format!("ours:\n{}\n\npublished:\n{}", around(&ours), around(&published))
}

#[test]
fn our_api_is_the_published_one() {
    let (ours, published) = (descriptors(&ours()), descriptors(&published()));
    assert!(ours == published, "the descriptors differ, {}", difference(&ours, &published));
}

#[test]
fn all_rpcs_are_there() {
    let set = FileDescriptorSet::decode(descriptors(&ours()).as_slice()).expect("descriptor set");
    let methods: usize = set.file[0].service.iter().map(|service| service.method.len()).sum();
    assert_eq!(methods, 43);
}

/// The comparison notices what would be easy to lose.
#[test]
fn a_lost_option_or_field_is_noticed() {
    let text = std::fs::read_to_string(ours().join(FILE)).expect("api.proto");
    let folder = std::env::temp_dir().join(format!("crisp-proto-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("folder");
    let changed = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        std::fs::write(folder.join(FILE), text.replacen(from, to, 1)).expect("write");
        descriptors(&folder) != descriptors(&ours())
    };
    let noticed = [
        changed("string password = 2 [debug_redact = true];", "string password = 2;"),
        changed("string seccomp_profile_path = 7 [deprecated=true];", "string seccomp_profile_path = 7;"),
        changed("bytes value = 2;", "string value = 2;"),
        changed("string image_ref = 20;", "string image_ref = 21;"),
    ];
    // A comment is no difference.
    let comment = changed("syntax =", "// More words.\nsyntax =");
    std::fs::remove_dir_all(&folder).expect("remove");
    assert_eq!(noticed, [true; 4]);
    assert!(!comment);
}
