//! Pulls with credentials, and what an image's status says.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result, ensure};
use crisp_integration::client::{code, image_spec};
use crisp_proto::v1;
use tonic::Code;

use super::{place::Place, ports::in_network_of};

/// A registry that wants a name and a password: it looks at each request's head and hands it on to the open one.
fn guarded_registry(host: i32) -> Result<SocketAddr> {
    let listener = in_network_of(host, || Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        // Sockets that this thread makes are the bed's.
        in_network_of(host, move || {
            for client in listener.incoming().flatten() {
                std::thread::spawn(move || serve(client));
            }
            Ok(())
        })
    });
    Ok(address)
}

fn serve(client: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        head.push(line);
    }
    // user:secret
    let known = |line: &String| {
        line.to_ascii_lowercase().starts_with("authorization: basic ")
            && line.trim_end().ends_with("dXNlcjpzZWNyZXQ=")
    };
    let mut client = client;
    if !head.iter().any(known) {
        let answer = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"test\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        client.write_all(answer.as_bytes())?;
        return Ok(());
    }
    let mut registry = TcpStream::connect("127.0.0.1:5000")?;
    let kept = head.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head: String = kept.cloned().chain(["Connection: close\r\n\r\n".to_owned()]).collect();
    registry.write_all(head.as_bytes())?;
    std::io::copy(&mut registry, &mut client)?;
    client.shutdown(std::net::Shutdown::Both)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_open_a_registry_and_are_not_kept() -> Result<()> {
    let place = Place::new("auth").await?;
    let registry = guarded_registry(i32::try_from(place.bed.holder())?)?;
    let folder = place.bed.folder.join("certs.d").join(registry.to_string());
    fs::create_dir_all(&folder)?;
    let hosts = format!(
        "server = \"http://{registry}\"\n[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    );
    fs::write(folder.join("hosts.toml"), hosts)?;
    let name = format!("{registry}/library/changing:1");
    let pull = async |auth: Option<v1::AuthConfig>| -> Result<String> {
        let request = v1::PullImageRequest { image: image_spec(&name), auth, ..Default::default() };
        Ok(place.cri.images.clone().pull_image(request).await?.into_inner().image_ref)
    };
    let user = |password: &str| v1::AuthConfig {
        username: "user".into(),
        password: password.into(),
        ..Default::default()
    };
    for (what, auth) in [
        ("nothing", None),
        ("a wrong password", Some(user("wrong"))),
        (
            "another registry's",
            Some(v1::AuthConfig { server_address: "https://other.example".into(), ..user("secret") }),
        ),
    ] {
        let refused = pull(auth).await;
        ensure!(
            matches!(code(&refused), Some(Code::PermissionDenied | Code::Unauthenticated)),
            "{what}: {refused:?}"
        );
        let text = refused.err().map(|e| format!("{e:#}")).unwrap_or_default();
        ensure!(!text.contains("secret"), "{text}");
    }
    let id = pull(Some(user("secret"))).await?;
    ensure!(!id.is_empty());
    // As the kubelet's credentials may come: both words in one.
    let joined = v1::AuthConfig { auth: "dXNlcjpzZWNyZXQ=".into(), ..Default::default() };
    place.cri.images.clone().remove_image(v1::RemoveImageRequest { image: image_spec(&name) }).await?;
    ensure!(pull(Some(joined)).await? == id);
    place.cri.images.clone().remove_image(v1::RemoveImageRequest { image: image_spec(&name) }).await?;
    ensure!(pull(None).await.is_err(), "the credentials of an earlier pull were used");
    let log = fs::read_to_string(place.bed.folder.join("daemon.log"))?;
    ensure!(!log.contains("secret") && !log.contains("dXNlcjpzZWNyZXQ"), "credentials in the log");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_says_what_it_is() -> Result<()> {
    let place = Place::new("said").await?;
    let mut images = place.cri.images.clone();
    let user = "gcr.io/k8s-staging-cri-tools/test-image-user-uid:latest";
    let mut spec = image_spec(user).context("a name")?;
    spec.annotations = HashMap::from([("note".to_owned(), "of the pod".to_owned())]);
    spec.user_specified_image = user.into();
    let request = v1::PullImageRequest { image: Some(spec.clone()), ..Default::default() };
    let id = images.pull_image(request).await?.into_inner().image_ref;
    let request = v1::ImageStatusRequest { image: Some(spec), verbose: true };
    let answer = images.image_status(request).await?.into_inner();
    let image = answer.image.context("image")?;
    ensure!(
        (image.id.as_str(), image.uid.map(|uid| uid.value), image.pinned) == (id.as_str(), Some(1002), false),
        "{image:?}"
    );
    ensure!(image.repo_tags == [user] && image.repo_digests.len() == 1 && image.size > 0, "{image:?}");
    ensure!(answer.info.values().any(|text| text.contains("\"User\"")), "{:?}", answer.info);
    let request = v1::ImageStatusRequest { image: image_spec("docker.io/library/absent:1"), verbose: false };
    ensure!(images.image_status(request).await?.into_inner().image.is_none());

    let usage = images.image_fs_info(v1::ImageFsInfoRequest {}).await?.into_inner();
    for fs in usage.image_filesystems.iter().chain(&usage.container_filesystems) {
        ensure!(
            fs.timestamp > 0 && fs.fs_id.as_ref().is_some_and(|fs| fs.mountpoint.starts_with('/')),
            "{fs:?}"
        );
    }
    ensure!(usage.image_filesystems[0].used_bytes.is_some_and(|bytes| bytes.value > 0), "{usage:?}");
    Ok(())
}
