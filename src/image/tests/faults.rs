//! Registries and networks that fail in every way they do.

mod support;

use std::{path::Path, time::Duration};

use crisp_image::{Credentials, ImageError, ImageStore};
use support::{
    config, fake,
    fake::{Fake, Fault},
    open, reply, serve,
};

/// Nothing is stored and nothing half-made is left.
fn assert_clean(root: &Path, store: &ImageStore) {
    assert!(store.list().is_empty());
    assert_eq!((store.usage().bytes, store.usage().inodes), (0, 0));
    for name in ["tmp", "layers"] {
        assert_eq!(std::fs::read_dir(root.join("images").join(name)).expect(name).count(), 0, "{name}");
    }
}

fn mirror(root: &Path, registry: &str, mirrors: &[String], more: &str) {
    let folder = root.join("certs.d").join(registry);
    std::fs::create_dir_all(&folder).expect("folder");
    let hosts: String =
        mirrors.iter().map(|mirror| format!("[host.\"http://{mirror}\"]\n{more}\n")).collect();
    std::fs::write(folder.join("hosts.toml"), hosts).expect("hosts.toml");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_can_mend() {
    let layer = fake::layer("file", 300_000);
    let cases = [
        (
            "broken connections",
            vec![Fault::BreakAfter(100_000), Fault::BreakAfter(0), Fault::BreakAfter(90_000)],
        ),
        (
            "no ranges",
            vec![
                Fault::BreakAfter(1000),
                Fault::NoRangeBreakAfter(200_000),
                Fault::NoRangeBreakAfter(300_000),
            ],
        ),
        (
            "overload",
            vec![Fault::Status("503 Service Unavailable", ""), Fault::Status("502 Bad Gateway", "")],
        ),
        ("too many requests", vec![Fault::Status("429 Too Many Requests", "retry-after: 1\r\n")]),
        ("wrong bytes once", vec![Fault::WrongBytes]),
        ("slow trickle", vec![Fault::Trickle(50)]),
    ];
    for (name, faults) in cases {
        let registry = Fake::start();
        let id = registry.add("image", std::slice::from_ref(&layer));
        let ranges =
            faults.iter().filter(|fault| matches!(fault, Fault::BreakAfter(count) if *count > 0)).count();
        let polite = faults.iter().any(|fault| matches!(fault, Fault::Status(_, wait) if !wait.is_empty()));
        registry.fail(&layer.1, faults);
        let root = tempfile::tempdir().expect("folder");
        let store = open(root.path()).await;
        let start = std::time::Instant::now();
        let image = store.pull(&format!("{}/image", registry.address()), None).await.expect(name);
        assert_eq!(image.id, id.to_string(), "{name}");
        assert!(store.verify(false).await.expect("verify").damaged.is_empty(), "{name}");
        let resumed = registry.asked(&layer.1).iter().filter(|seen| seen.header("range").is_some()).count();
        assert!(resumed >= ranges, "{name}: {resumed} resumed");
        assert!(!polite || start.elapsed() >= Duration::from_secs(1), "Retry-After was not waited for");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_retry_cannot_mend() {
    let layer = fake::layer("file", 50_000);
    let down = || vec![Fault::Status("500 Internal Server Error", ""); 20];
    for (name, faults, needle) in [
        ("down", down(), "500"),
        ("always wrong", vec![Fault::WrongBytes; 20], "digest"),
        ("too long", vec![Fault::TooLong; 20], "longer"),
        ("gone", vec![Fault::Status("404 Not Found", ""); 20], "404"),
        ("forbidden", vec![Fault::Status("403 Forbidden", ""); 20], "403"),
        ("breaks at once", vec![Fault::BreakAfter(0); 20], "at byte 0 of"),
        (
            "busy for an hour",
            vec![Fault::Status("429 Too Many Requests", "retry-after: 3600\r\n"); 20],
            "3600",
        ),
    ] {
        let registry = Fake::start();
        registry.add("image", std::slice::from_ref(&layer));
        registry.fail(&layer.1, faults);
        let root = tempfile::tempdir().expect("folder");
        let store = open(root.path()).await;
        let error =
            store.pull(&format!("{}/image", registry.address()), None).await.expect_err(name).to_string();
        assert!(error.contains(needle), "{name}: {error}");
        assert_clean(root.path(), &store);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stall_says_where() {
    let layer = fake::layer("file", 50_000);
    let registry = Fake::start();
    registry.add("image", std::slice::from_ref(&layer));
    registry.fail(&layer.1, vec![Fault::StallAfter(12_345)]);
    let root = tempfile::tempdir().expect("folder");
    let settings = crisp_image::ImageStoreConfig {
        pull_progress_timeout: Duration::from_millis(300),
        ..config(root.path())
    };
    let (store, _) = ImageStore::open(settings).await.expect("open");
    match store.pull(&format!("{}/image", registry.address()), None).await {
        Err(ImageError::Stalled { byte, size, host, .. }) => {
            assert_eq!((byte, size, host), (12_345, layer.1.len() as u64, registry.address()));
        }
        other => panic!("{other:?}"),
    }
    assert_clean(root.path(), &store);
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_in_order_and_a_corrupt_one_is_left() {
    let layer = fake::layer("file", 50_000);
    let (dead, corrupt, origin) = (support::free_port(), Fake::start(), Fake::start());
    for registry in [&corrupt, &origin] {
        registry.add("image", std::slice::from_ref(&layer));
    }
    corrupt.fail(&layer.1, vec![Fault::WrongBytes; 20]);
    let root = tempfile::tempdir().expect("folder");
    mirror(root.path(), &origin.address(), &[format!("127.0.0.1:{dead}"), corrupt.address()], "");
    let store = open(root.path()).await;
    let name = format!("{}/image", origin.address());
    store.pull(&name, None).await.expect("pull");
    assert_eq!(corrupt.asked(&layer.1).len(), 1);
    assert_eq!(origin.asked(&layer.1).len(), 1);
    assert!(corrupt.seen()[0].path.ends_with(&format!("?ns={}", origin.address().replace(':', "%3A"))));
    let why = store.why(&name, None).await.expect("why");
    assert_eq!(why.len(), 3);
    assert!(why[0].answer.is_err() && why[1].answer.is_ok() && why[2].answer.is_ok(), "{why:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_stay_with_their_host() {
    let layer = fake::layer("file", 5_000);
    let (origin, stranger, other) = (Fake::start(), Fake::start(), Fake::start());
    for registry in [&origin, &stranger, &other] {
        registry.add("image", std::slice::from_ref(&layer));
    }
    // u:p
    origin.demand("Basic dTpw", "Basic realm=\"x\"");
    stranger.demand("Basic never", "Basic realm=\"phishing\"");
    let location =
        format!("http://localhost:{}/v2/image/blobs/{}", other.port, crisp_image::Digest::of(&layer.1));
    origin.fail(&layer.1, vec![Fault::Redirect(location)]);
    let root = tempfile::tempdir().expect("folder");
    mirror(
        root.path(),
        &origin.address(),
        &[stranger.address()],
        "[host.\"http://X\".header]\n".replace('X', &stranger.address()).as_str(),
    );
    let store = open(root.path()).await;
    let name = format!("{}/image", origin.address());
    let credentials = Credentials { username: "u".into(), password: "p".into(), ..Credentials::default() };
    store.pull(&name, Some(credentials.clone())).await.expect("pull");
    assert!(stranger.seen().iter().all(|seen| seen.header("authorization").is_none()), "sent to a mirror");
    assert_eq!(other.asked(&layer.1).len(), 1);
    assert!(other.seen().iter().all(|seen| seen.header("authorization").is_none()), "sent along a redirect");
    let wrong = Credentials { password: "q".into(), ..credentials };
    let error = store.pull(&name, Some(wrong)).await;
    assert!(matches!(error, Err(ImageError::Denied { .. })), "{error:?}");
    let error = store.pull(&name, None).await;
    assert!(matches!(error, Err(ImageError::Denied { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_once_and_used() {
    let layer = fake::layer("file", 5_000);
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = std::sync::Arc::clone(&asked);
    let issuer = serve(move |request, headers, stream| {
        log.lock().expect("log").push((request.to_owned(), headers.to_vec()));
        let basic = headers.iter().any(|line| line.eq_ignore_ascii_case("authorization: Basic dTpw"));
        match basic || request.starts_with("POST") {
            true => reply(stream, "200 OK", "", br#"{"token":"good","expires_in":300}"#),
            false => reply(stream, "401 Unauthorized", "", b""),
        }
    });
    let registry = Fake::start();
    registry.add("team/image", std::slice::from_ref(&layer));
    let challenge = format!(
        "Bearer realm=\"http://127.0.0.1:{issuer}/token\",service=\"reg\",scope=\"repository:team/image:pull\""
    );
    registry.demand("Bearer good", &challenge);
    let name = format!("{}/team/image", registry.address());
    let basic = Credentials { username: "u".into(), password: "p".into(), ..Credentials::default() };
    let identity = Credentials { identity_token: "refresh".into(), ..Credentials::default() };
    for credentials in [basic, identity] {
        let root = tempfile::tempdir().expect("folder");
        let store = open(root.path()).await;
        store.pull(&name, Some(credentials)).await.expect("pull");
        let asked = std::mem::take(&mut *asked.lock().expect("log"));
        assert_eq!(asked.len(), 1, "{asked:?}");
        let get = "GET /token?service=reg&scope=repository%3Ateam%2Fimage%3Apull ";
        assert!(asked[0].0.starts_with(get) || asked[0].0.starts_with("POST /token "), "{asked:?}");
    }
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let token = Credentials { registry_token: "good".into(), ..Credentials::default() };
    store.pull(&name, Some(token)).await.expect("registry token");
    let refused = store.pull(&name, None).await;
    assert!(matches!(refused, Err(ImageError::Denied { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_download_for_all_and_none_for_nobody() {
    let shared = fake::layer("shared", 400_000);
    let registry = Fake::start();
    registry.add("one", &[shared.clone(), fake::layer("one", 1000)]);
    registry.add("two", &[shared.clone(), fake::layer("two", 1000)]);
    registry.fail(&shared.1, vec![Fault::Trickle(300)]);
    let root = tempfile::tempdir().expect("folder");
    let store = open(root.path()).await;
    let (one, two) = (format!("{}/one", registry.address()), format!("{}/two", registry.address()));
    let pulls = futures::future::join_all([&one, &two, &one, &two].map(|name| store.pull(name, None))).await;
    assert!(pulls.iter().all(Result::is_ok), "{pulls:?}");
    assert_eq!(registry.asked(&shared.1).len(), 1);
    drop(pulls);
    store.remove(&one).await.expect("remove");
    assert!(store.verify(false).await.expect("verify").damaged.is_empty());
    store.remove(&two).await.expect("remove");
    assert_clean(root.path(), &store);

    // Cancelled: the connection ends, and nothing stays.
    registry.fail(&shared.1, vec![Fault::StallAfter(1000)]);
    let pulling = tokio::spawn({
        let (store, one) = (store.clone(), one.clone());
        async move { store.pull(&one, None).await.map(drop) }
    });
    while store.progress().iter().all(|pull| pull.bytes().0 < 1000) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let text = store.progress()[0].to_string();
    assert!(text.contains("at 1000 of"), "{text}");
    pulling.abort();
    assert!(pulling.await.expect_err("aborted").is_cancelled());
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while std::fs::read_dir(root.path().join("images/tmp")).expect("tmp").count() > 0 {
        assert!(std::time::Instant::now() < until, "the staging folder stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(store.progress().is_empty());
    assert_clean(root.path(), &store);
}
