//! Object stores and the web: what is put there comes back, and what goes wrong is told.

use std::{fs, os::unix::fs::symlink, path::Path};

use coracle_api::reason::Reason;
use coracle_artifacts::{ArtifactUri, Artifacts, Remote, content, remote::Error};
use futures::TryStreamExt;

use crate::s3::S3;

fn uri(text: &str) -> ArtifactUri {
    text.parse().expect("a URI")
}

fn store() -> (S3, Remote, tempfile::TempDir) {
    let store = S3::start();
    let remote = Remote::new(store.variables());
    (store, remote, tempfile::tempdir().expect("a folder"))
}

fn digest(path: &Path) -> Option<String> {
    Some(content::measure(path).expect("measurable")?.digest)
}

#[tokio::test]
async fn a_folder_comes_back_as_it_was() {
    let (store, remote, folder) = store();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("sub/deep")).expect("created");
    fs::write(from.join("a"), "1").expect("written");
    fs::write(from.join("sub/odd name #é+%20"), "22").expect("written");
    fs::write(from.join("sub/deep/empty"), "").expect("written");
    let place = uri("s3://bucket/root/model");

    assert_eq!(remote.put(&from, &place).await.expect("put"), 3);
    assert_eq!(
        store.keys(),
        [
            "root/model/a",
            "root/model/sub/deep/empty",
            "root/model/sub/odd name #é+%20"
        ]
    );
    let to = folder.path().join("new/to");
    assert_eq!(remote.get(&place, &to).await.expect("got"), 3);
    assert_eq!(digest(&from), digest(&to));

    let listed = remote.list(&place).await.expect("listed");
    let names: Vec<_> = listed.iter().map(|entry| (&*entry.name, entry.size)).collect();
    assert_eq!(
        names,
        [("a", 1), ("sub/deep/empty", 0), ("sub/odd name #é+%20", 2)]
    );
    assert!(remote.exists(&place).await.expect("known"));
    assert_eq!(remote.head(&place).await.expect("known"), None, "a folder");
}

#[tokio::test]
async fn a_large_file_goes_in_parts_and_comes_back_in_parts() {
    let (store, remote, folder) = store();
    let bytes: Vec<u8> = (0..20_000_001_u32).map(|number| (number % 251) as u8).collect();
    let from = folder.path().join("large");
    fs::write(&from, &bytes).expect("written");
    let place = uri("s3://bucket/large");

    remote.put(&from, &place).await.expect("put");
    assert!(
        store.object("large").expect("there") == bytes,
        "the parts are in order"
    );
    let parts = store
        .requests()
        .iter()
        .filter(|line| line.contains("partNumber"))
        .count();
    assert_eq!(parts, 3);
    let to = folder.path().join("back");
    remote.get(&place, &to).await.expect("got");
    assert!(fs::read(to).expect("readable") == bytes);
    let head = remote.head(&place).await.expect("known").expect("there");
    assert_eq!((head.size, head.etag.as_deref()), (20_000_001, Some("\"e\"")));
}

#[tokio::test]
async fn the_server_reads_stores_as_it_reads_its_own_folder() {
    let (store, remote, folder) = store();
    store.put("run/m/x/y", b"0123456789");
    store.put("run/m/z", b"1");
    let opened = remote
        .open(&uri("s3://bucket/run/m/x/y"), Some(2..5))
        .await
        .expect("opens");
    assert_eq!((opened.size, opened.range.clone()), (10, 2..5));
    let chunks: Vec<_> = opened.bytes.try_collect().await.expect("reads");
    assert_eq!(chunks.concat(), b"234");

    let artifacts = Artifacts::over(folder.path().join("artifacts"), remote).expect("usable");
    let place = uri("s3://bucket/run/m");
    let entries = artifacts.entries(&place).await.expect("lists");
    let entries: Vec<_> = entries.iter().map(|e| (&*e.name, e.is_folder, e.size)).collect();
    assert_eq!(entries, [("x", true, 0), ("z", false, 1)]);
    assert_eq!(
        artifacts.read(&place.join("x/y"), 4).await.expect("reads"),
        "0123"
    );
    assert_eq!(
        artifacts.read(&place.join("x/y"), 99).await.expect("reads"),
        "0123456789"
    );
    assert!(artifacts.exists(&place).await.expect("known"));
    assert!(!artifacts.exists(&place.join("none")).await.expect("known"));
}

#[tokio::test]
async fn deleting_takes_the_folder_and_nothing_beside_it_and_may_be_repeated() {
    let (store, remote, _folder) = store();
    for key in ["run/m/a", "run/m/b/c", "run/m2", "run/model"] {
        store.put(key, b"x");
    }
    let place = uri("s3://bucket/run/m");
    assert_eq!(remote.delete(&place).await.expect("deletes"), 2);
    assert_eq!(store.keys(), ["run/m2", "run/model"]);
    assert_eq!(remote.delete(&place).await.expect("deletes"), 0);
    assert_eq!(
        remote.delete(&uri("s3://bucket/run/m2")).await.expect("deletes"),
        1
    );
    let error = remote
        .delete(&uri("s3://bucket"))
        .await
        .expect_err("a whole bucket");
    assert!(error.to_string().contains("whole bucket"), "{error}");
}

#[tokio::test]
async fn a_store_that_stumbles_is_asked_again() {
    let (store, remote, folder) = store();
    store.put("a", b"1");
    store.fail(&[503, 500]);
    remote
        .get(&uri("s3://bucket/a"), &folder.path().join("a"))
        .await
        .expect("got");
}

#[tokio::test]
async fn what_goes_wrong_is_told_with_what_to_do() {
    let (store, remote, folder) = store();
    let to = folder.path().join("to");
    let get = async |remote: &Remote, text: &str| remote.get(&uri(text), &to).await.expect_err("must fail");

    let error = get(&remote, "s3://bucket/none").await;
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
    assert_eq!(error.reason(), Reason::InputArtifactUnavailable);
    let error = get(&remote, "s3://other/none").await;
    assert_eq!(error.reason(), Reason::StorageUnavailable);
    assert_eq!(
        error.to_string(),
        "cannot use `s3://other/none`: there is no bucket `other`"
    );

    store.make_private();
    let stranger = Remote::new([("AWS_ENDPOINT_URL".to_owned(), store.url.clone())]);
    let error = get(&stranger, "s3://bucket/none").await.to_string();
    assert!(
        error.contains("does not let us in without credentials") && error.contains("AWS_ACCESS_KEY_ID"),
        "{error}"
    );
    let error = get(&stranger, "gs://bucket/none").await.to_string();
    assert!(!error.contains("AWS_"), "{error}");
    let error = get(&Remote::new([]), "minio://bucket/x").await.to_string();
    assert!(error.contains("AWS_ENDPOINT_URL"), "{error}");
    let error = get(&remote, "oci://bucket/x").await;
    assert_eq!(error.reason(), Reason::NotSupported);
    let error = remote
        .put(Path::new("/etc/hostname"), &uri("http://h/x"))
        .await
        .expect_err("the web");
    assert!(error.to_string().contains("not written"), "{error}");
}

#[tokio::test]
async fn a_link_out_of_a_folder_is_not_sent() {
    let (store, remote, folder) = store();
    let from = folder.path().join("from");
    fs::create_dir_all(from.join("in")).expect("created");
    fs::write(from.join("in/file"), "1").expect("written");
    symlink("in", from.join("alias")).expect("linked");
    remote.put(&from, &uri("s3://bucket/good")).await.expect("put");
    assert_eq!(store.keys(), ["good/alias/file", "good/in/file"]);

    symlink("/etc/passwd", from.join("secret")).expect("linked");
    let error = remote
        .put(&from, &uri("s3://bucket/bad"))
        .await
        .expect_err("leads out");
    assert_eq!(error.reason(), Reason::OutputOutsideFolder);
    assert!(error.to_string().contains("/secret`"), "{error}");
    assert!(!store.keys().iter().any(|key| key.starts_with("bad")));
}

#[tokio::test]
async fn the_web_is_read() {
    let (store, remote, folder) = store();
    store.put("data.csv", b"a,b");
    let address = format!("{}/bucket/data.csv", store.url);
    let to = folder.path().join("data.csv");
    assert_eq!(remote.get(&uri(&address), &to).await.expect("got"), 3);
    assert_eq!(fs::read(&to).expect("readable"), b"a,b");
    let head = remote.head(&uri(&address)).await.expect("known").expect("there");
    assert_eq!(head.size, 3);
    let opened = remote.open(&uri(&address), Some(1..3)).await.expect("opens");
    assert_eq!((opened.size, opened.range.clone()), (3, 1..3));
    let missing = uri(&format!("{address}x"));
    assert!(matches!(
        remote.get(&missing, &to).await,
        Err(Error::NotFound { .. })
    ));
}
