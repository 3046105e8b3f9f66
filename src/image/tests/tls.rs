//! Debian's docker-registry behind TLS and passwords.

mod support;

use std::path::Path;

use crisp_image::{Credentials, ImageError, ImageStore};
use support::{Registry, make_image, open};

/// `user` with the password `password`, as `htpasswd -B` writes it; known to everybody, for a registry that lives for a test.
const HTPASSWD: &str = "user:$2y$05$M/4HmjFVXqTofTgHpDuUMuLhHsnrKUkJ4VYwNHI7fJULgAq9lTVHS\n";

struct Authority {
    certificate: String,
    key: String,
    issuer: String,
}

/// An authority, and a certificate for 127.0.0.1 that it signed.
fn certificates() -> Authority {
    let authority_key = rcgen::KeyPair::generate().expect("key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&authority_key).expect("authority");
    let issuer = rcgen::Issuer::new(parameters, authority_key);
    let key = rcgen::KeyPair::generate().expect("key");
    let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let certificate = server.signed_by(&key, &issuer).expect("certificate");
    Authority { certificate: certificate.pem(), key: key.serialize_pem(), issuer: authority.pem() }
}

fn write(path: &Path, text: &str) -> String {
    std::fs::create_dir_all(path.parent().expect("folder")).expect("folder");
    std::fs::write(path, text).expect("file");
    path.display().to_string()
}

async fn pull(store: &ImageStore, name: &str, password: &str) -> Result<(), ImageError> {
    let credentials =
        Credentials { username: "user".into(), password: password.into(), ..Credentials::default() };
    store.pull(name, Some(credentials)).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_with_its_own_authority_and_passwords() {
    let root = tempfile::tempdir().expect("folder");
    let tls = certificates();
    let folder = root.path().join("tls");
    let certificate = write(&folder.join("server.pem"), &tls.certificate);
    let key = write(&folder.join("server.key"), &tls.key);
    let htpasswd = write(&folder.join("htpasswd"), HTPASSWD);
    let registry = Registry::start(&format!(
        "  tls: {{certificate: {certificate}, key: {key}}}\nauth:\n  htpasswd: {{realm: test, path: {htpasswd}}}\n"
    ));
    let tree = root.path().join("tree");
    write(&tree.join("file"), "content");
    let layout = make_image(root.path(), &[&tree]);
    registry.push(&layout, "latest", "secret/image:1", &["--dest-creds", "user:password"]);
    let name = format!("{}/secret/image:1", registry.address());

    let store = open(root.path()).await;
    let hosts = root.path().join("certs.d").join(registry.address());
    write(&hosts.join("hosts.toml"), &format!("server = \"https://{}\"\n", registry.address()));
    let error = pull(&store, &name, "password").await.expect_err("unknown authority").to_string();
    assert!(error.contains("certificate"), "{error}");
    // The file is read again at each pull.
    write(&hosts.join("ca.pem"), &tls.issuer);
    write(
        &hosts.join("hosts.toml"),
        &format!("server = \"https://{}\"\nca = \"ca.pem\"\n", registry.address()),
    );
    let refused = pull(&store, &name, "wrong").await;
    assert!(matches!(refused, Err(ImageError::Denied { .. })), "{refused:?}");
    let refused = store.pull(&name, None).await;
    assert!(matches!(refused, Err(ImageError::Denied { .. })), "{refused:?}");
    pull(&store, &name, "password").await.expect("pull");
    let why = store.why(&name, None).await.expect("why");
    assert!(
        why[0].tls.contains("ca.pem") && why[0].credentials == "none" && why[0].answer.is_err(),
        "{why:?}"
    );

    // Docker's way, and no check at all.
    store.remove(&name).await.expect("remove");
    std::fs::remove_file(hosts.join("hosts.toml")).expect("remove");
    std::fs::rename(hosts.join("ca.pem"), hosts.join("ca.crt")).expect("rename");
    pull(&store, &name, "password").await.expect("docker's certificates");
    write(
        &hosts.join("hosts.toml"),
        &format!("server = \"https://{}\"\nskip_verify = true\n", registry.address()),
    );
    store.remove(&name).await.expect("remove");
    pull(&store, &name, "password").await.expect("skip_verify");
    // From Docker's configuration.
    let config = write(
        &root.path().join("config.json"),
        &format!(r#"{{"auths":{{"{}":{{"auth":"dXNlcjpwYXNzd29yZA=="}}}}}}"#, registry.address()),
    );
    drop(store);
    let settings =
        crisp_image::ImageStoreConfig { docker_config: Some(config.into()), ..support::config(root.path()) };
    let (store, _) = ImageStore::open(settings).await.expect("open");
    store.remove(&name).await.expect("remove");
    store.pull(&name, None).await.expect("docker's credentials");
}
