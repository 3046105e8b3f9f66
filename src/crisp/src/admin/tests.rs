use crisp_image::ImageStoreConfig;

use super::*;

/// A daemon's admin socket on an empty store, as far as these tests need one.
async fn daemon(folder: &Path) -> ImageStore {
    let config = ImageStoreConfig {
        root: folder.join("images"),
        containers_root: folder.join("containers"),
        certs_dirs: vec![folder.join("certs")],
        ..ImageStoreConfig::default()
    };
    let (store, _) = ImageStore::open(config).await.expect("store");
    let listener = UnixListener::bind(socket(folder)).expect("bind");
    tokio::spawn(serve(listener, store.clone()));
    store
}

async fn asked(folder: &Path, request: Request, input: Option<Vec<u8>>) -> (Result<String, String>, Vec<u8>) {
    let folder = folder.to_owned();
    let task = tokio::task::spawn_blocking(move || {
        let mut output = Vec::new();
        let mut input = input.map(io::Cursor::new);
        let input = input.as_mut().map(|input| input as &mut dyn Read);
        let answer = ask(&folder, &request, input, &mut output).expect("answer").expect("a daemon");
        (answer, output)
    });
    task.await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_are_answered() {
    let folder = tempfile::tempdir().expect("folder");
    let _store = daemon(folder.path()).await;
    let (answer, _) = asked(folder.path(), Request::Verify { repair: false }, None).await;
    assert!(answer.expect("nothing is damaged").starts_with("0 layers"));
    let (answer, data) = asked(folder.path(), Request::Export { images: vec!["nothing".into()] }, None).await;
    assert!(answer.is_err_and(|error| error.contains("not found")));
    assert!(data.is_empty());
    let (answer, _) = asked(folder.path(), Request::Why { image: "NOT A NAME".into() }, None).await;
    assert!(answer.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_that_is_none_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("folder");
    let store = daemon(folder.path()).await;
    for archive in [Vec::new(), b"no archive".to_vec(), vec![7; 3 << 20]] {
        let (answer, _) = asked(folder.path(), Request::Import { name: None }, Some(archive)).await;
        assert!(answer.is_err(), "{answer:?}");
    }
    assert!(store.list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rude_clients_do_not_stop_the_others() {
    let folder = tempfile::tempdir().expect("folder");
    let _store = daemon(folder.path()).await;
    for rude in [
        &b""[..],
        b"nonsense\n",
        b"{\"import\":{\"name\":null}}\n\x05\0\0\0ab",
        b"{\"import\":{}}\n\xff\xff\xff\xff",
    ] {
        let mut stream = UnixStream::connect(socket(folder.path())).expect("connect");
        stream.write_all(rude).expect("sent");
    }
    let (answer, _) = asked(folder.path(), Request::Verify { repair: false }, None).await;
    assert!(answer.is_ok());
}

#[test]
fn no_daemon_is_no_error() {
    let folder = tempfile::tempdir().expect("folder");
    let nobody = ask(folder.path(), &Request::Verify { repair: false }, None, &mut Vec::new());
    assert!(matches!(nobody, Ok(None)));
}
