//! Folders and buckets: whole files or none, only where the operator allows it, and every refusal in words.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input must fail")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tracklayer_destination::warehouse::target::Bucket;
use tracklayer_destination::{Answer, Place};
use tracklayer_ids::Secret;
use tracklayer_lake::{Rules, Store, WriteError};

const LONG: Duration = Duration::from_secs(20);
const FOLDER: &str = "day=2026-11-29/event=order_completed";

fn below(root: &Path) -> Rules {
    Rules { root: Some(root.to_owned()), allow_private: false }
}

fn folder(path: &Path) -> Place {
    Place::Folder { path: path.to_owned() }
}

async fn refused(place: &Place, rules: &Rules) -> String {
    Store::open(place, rules).await.unwrap_err().to_string()
}

#[tokio::test]
async fn a_file_replaces_itself_and_leaves_nothing_beside_it() {
    let root = tempfile::tempdir().unwrap();
    let lake = root.path().join("lake");
    let store = Store::open(&folder(&lake), &below(root.path())).await.unwrap();
    // What a crash in the middle has left.
    std::fs::create_dir_all(lake.join("_incomplete")).unwrap();
    std::fs::write(lake.join("_incomplete/a.parquet.part#1"), "half").unwrap();
    std::fs::write(lake.join("_incomplete/b.parquet.part#1"), "somebody else's half").unwrap();
    for content in ["first", "second"] {
        let answer = store.write(FOLDER, "a.parquet", Bytes::from(content), LONG).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(std::fs::read_to_string(lake.join(FOLDER).join("a.parquet")).unwrap(), content);
    }
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names(&lake.join(FOLDER)), ["a.parquet"]);
    assert_eq!(names(&lake.join("_incomplete")), ["b.parquet.part#1"]);
}

#[tokio::test]
async fn a_folder_has_to_be_below_the_root_by_name_and_in_fact() {
    let root = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.path().join("link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("gone"), root.path().join("dangling")).unwrap();
    let rules = below(root.path());
    assert!(refused(&folder(outside.path()), &rules).await.contains("not below delivery's `warehouse_root`"));
    for below in ["link", "link/x", "link/x/y"] {
        assert!(refused(&folder(&root.path().join(below)), &rules).await.contains("by a link"), "{below}");
    }
    assert!(refused(&folder(&root.path().join("dangling/x")), &rules).await.contains("cannot be made"));
    let nowhere = Rules { root: None, allow_private: true };
    assert!(refused(&folder(root.path()), &nowhere).await.contains("sets delivery's `warehouse_root`"));
    let gone = below(&root.path().join("gone"));
    assert!(refused(&folder(&root.path().join("gone/x")), &gone).await.contains("mount or make it"));
    std::fs::write(root.path().join("file"), "").unwrap();
    assert!(refused(&folder(&root.path().join("file/x")), &rules).await.contains("cannot be made"));
    assert!(Store::open(&folder(&root.path().join("a/b")), &rules).await.is_ok());
    let made = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(made.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new(), "a refusal makes nothing");
}

#[tokio::test]
async fn what_the_operating_system_says_is_a_status() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&folder(root.path()), &below(root.path())).await.unwrap();
    // A file stands where a folder has to be made.
    std::fs::write(root.path().join("day=2026-11-29"), "").unwrap();
    let answer = store.write(FOLDER, "a.parquet", Bytes::from_static(b"x"), LONG).await.unwrap();
    assert!((400..600).contains(&answer.status), "{answer:?}");
    assert!(String::from_utf8(answer.body).unwrap().starts_with("<Code>"));
    assert!(!root.path().join("_incomplete/a.parquet.part#1").exists());
}

fn bucket(endpoint: &str) -> Place {
    Place::Bucket(Bucket {
        name: "lake".to_owned(),
        prefix: "events/shop".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        region: "eu-central-1".to_owned(),
        access_key_id: "AKIATEST".to_owned(),
        secret_access_key: Secret::new("s3cret".to_owned()),
        session_token: Some(Secret::new("t0ken".to_owned())),
    })
}

const PRIVATE: Rules = Rules { root: None, allow_private: true };

/// Takes one request, answers, and tells what it was asked. No answer: it hangs up.
async fn server(answer: Option<String>) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"content") {
            assert!(connection.read_buf(&mut read).await.unwrap() > 0);
        }
        if let Some(answer) = answer {
            connection.write_all(answer.as_bytes()).await.unwrap();
            connection.shutdown().await.unwrap();
        }
        String::from_utf8(read).unwrap()
    });
    (endpoint, served)
}

async fn put(endpoint: &str, timeout: Duration) -> Result<Answer, WriteError> {
    let store = Store::open(&bucket(endpoint), &PRIVATE).await.unwrap();
    store.write(FOLDER, "a.parquet", Bytes::from_static(b"content"), timeout).await
}

#[tokio::test]
async fn a_file_is_one_signed_put_by_the_connections_own_key() {
    let ok = "HTTP/1.1 200 OK\r\netag: \"e\"\r\ncontent-length: 0\r\n\r\n";
    let (endpoint, served) = server(Some(ok.to_owned())).await;
    assert_eq!(put(&endpoint, LONG).await.unwrap().status, 200);
    let asked = served.await.unwrap();
    let line = asked.lines().next().unwrap().replace("%3D", "=");
    assert_eq!(line, format!("PUT /lake/events/shop/{FOLDER}/a.parquet HTTP/1.1"));
    let head = asked.to_lowercase();
    assert!(head.contains("authorization: aws4-hmac-sha256 credential=akiatest/"), "{head}");
    assert!(head.contains("/eu-central-1/s3/aws4_request"), "{head}");
    assert!(head.contains("x-amz-security-token: t0ken"), "{head}");
    assert!(!head.contains("s3cret"));
}

#[tokio::test]
async fn what_a_bucket_says_is_handed_on_as_it_came() {
    for (status, code) in
        [(403, "AccessDenied"), (404, "NoSuchBucket"), (503, "SlowDown"), (500, "InternalError")]
    {
        let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        let answer = format!(
            "HTTP/1.1 {status} No\r\nretry-after: 7\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let (endpoint, served) = server(Some(answer)).await;
        let answer = put(&endpoint, LONG).await.unwrap();
        served.await.unwrap();
        assert_eq!((answer.status, String::from_utf8(answer.body.clone()).unwrap()), (status, body));
        assert_eq!(answer.retry_after(), Some(Duration::from_secs(7)), "asked once, not again and again");
    }
}

#[tokio::test]
async fn without_an_answer_it_is_told_whether_anything_was_written() {
    let (endpoint, served) = server(None).await;
    let unknown = put(&endpoint, LONG).await.unwrap_err();
    served.await.unwrap();
    assert!(matches!(unknown, WriteError::Unknown(_)), "{unknown:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let late = put(&endpoint, Duration::from_millis(200)).await.unwrap_err();
    assert!(matches!(late, WriteError::Unknown(_)), "it was connected to: {late:?}");
    drop(listener);
    let refused = put(&endpoint, LONG).await.unwrap_err();
    assert!(matches!(refused, WriteError::NotWritten(_)), "{refused:?}");
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
}

#[tokio::test]
async fn no_bucket_leads_into_the_private_network_unless_the_operator_says_so() {
    let rules = Rules::default();
    for endpoint in ["http://127.0.0.1:9000", "http://[::1]:9000", "http://169.254.169.254"] {
        assert!(refused(&bucket(endpoint), &rules).await.contains("allow_private_addresses"), "{endpoint}");
    }
    // A name is looked at when it is resolved.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let store = Store::open(&bucket(&format!("http://localhost:{port}")), &rules).await.unwrap();
    let written = store.write(FOLDER, "a.parquet", Bytes::from_static(b"content"), LONG).await;
    assert!(
        matches!(&written, Err(WriteError::NotWritten(why)) if why.contains("private address")),
        "{written:?}"
    );
}

#[tokio::test]
async fn a_file_can_be_read_again_no_further_than_is_asked_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(&folder(&root.path().join("lake")), &below(root.path())).await.unwrap();
    store.write("_verify", "a.txt", Bytes::from("12345"), LONG).await.unwrap();
    let read = async |most: usize| store.read("_verify", "a.txt", most, LONG).await.unwrap();
    assert_eq!((read(5).await.status, read(5).await.body), (200, b"12345".to_vec()));
    assert_eq!(read(2).await.body, b"123", "one byte more than asked tells that there is more");
    assert_eq!(store.remove("_verify", "a.txt", LONG).await.unwrap().status, 200);
    assert_eq!(read(5).await.status, 404);
    assert_eq!(store.remove("_verify", "a.txt", LONG).await.unwrap().status, 404);
}
