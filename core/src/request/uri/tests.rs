//! Tests of URIs: what each scheme accepts and refuses.

use super::*;
use proptest::prelude::*;

fn dataset(text: &str) -> Result<String, String> {
    let uri = StorageUri::parse(UriRole::Dataset, text, DATASET_SCHEMES);
    uri.map(|u| u.as_str().to_string())
        .map_err(|e| e.to_string())
}

fn checkpoint(text: &str) -> Result<String, String> {
    let uri = StorageUri::parse(UriRole::Checkpoint, text, CHECKPOINT_SCHEMES);
    uri.map(|u| u.as_str().to_string())
        .map_err(|e| e.to_string())
}

#[test]
fn every_supported_form_is_accepted() {
    for uri in [
        "s3://bucket",
        "s3://deepfinery-datasets/aml/v1/",
        "s3://alias-s3alias/dt=2025-01-01/a%20b.jsonl",
        "s3://name--use1-az4--x-s3/x",
        "gs://a_b.c/d",
        "abfss://data@acmestore.dfs.core.windows.net/sft/train.jsonl",
        "abfs://container/x",
        "az://container/x",
        "hf://datasets/org/name@main/file.jsonl",
        "hf://org/name",
        "pvc://claim/fx/train.jsonl",
        "pvc://claim.of.mine",
        "file:///data/x",
        "file://localhost/data/x",
        "hf://datasets/org/name@main",
        "https://example.org/x.jsonl",
        "https://example.org:8443/x.jsonl",
    ] {
        assert_eq!(dataset(uri).as_deref(), Ok(uri));
    }
}

#[test]
fn only_checkpoints_lose_their_trailing_slashes() {
    assert_eq!(
        checkpoint("s3://bucket/runs//").as_deref(),
        Ok("s3://bucket/runs")
    );
    assert_eq!(
        checkpoint("file:///tmp/runs/").as_deref(),
        Ok("file:///tmp/runs")
    );
    assert_eq!(dataset("s3://bucket/v1/").as_deref(), Ok("s3://bucket/v1/"));
}

#[test]
fn each_mistake_is_told_with_the_right_spelling() {
    let schemes = "s3, gs, abfss, abfs, az, pvc, file";
    let not_a_uri = format!("not a URI (expected scheme://...); accepted schemes: {schemes}");
    for text in [
        "/data/x", "data/x", "s3:/b", "s3//b", "bucket/x", "C:\\runs", "://x",
    ] {
        assert_eq!(checkpoint(text), Err(not_a_uri.clone()), "{text}");
    }
    let azure = "abfss://container@account.dfs.core.windows.net/...";
    let cases = [
        ("", "must not be empty"),
        ("gcs://b/x", "use gs:// instead of gcs://"),
        ("s3a://b/x", "use s3:// instead of s3a://"),
        ("S3://bucket/x", "use s3:// instead of S3://"),
        ("GCS://bucket/x", "use gs:// instead of GCS://"),
        (
            "HTTP://host/x",
            &format!("scheme HTTP:// is not supported; accepted schemes: {schemes}"),
        ),
        (
            "wasbs://c@a.blob.core.windows.net/x",
            &format!("use {azure} instead of wasbs://"),
        ),
        (
            "hdfs://x/y",
            &format!("scheme hdfs:// is not supported; accepted schemes: {schemes}"),
        ),
        (
            "hf://org/name",
            "hf:// is read-only; use a scheme that can be written, such as s3://",
        ),
        (
            "https://x/y",
            "https:// is read-only; use a scheme that can be written, such as s3://",
        ),
        (
            "https://bucket.s3.eu-west-1.amazonaws.com/runs",
            "https:// is read-only; use s3://bucket/runs instead",
        ),
        ("s3://key:secret@bucket/x", "must not contain credentials"),
        (
            "s3://bucket/x?X-Amz-Signature=1",
            "must not contain a signed URL",
        ),
        (
            "s3://bucket/x?y=1",
            "? and # are not allowed, because train.py would cut the path there; rename the \
             object or folder",
        ),
        (
            "s3://bucket?y=1",
            "? and # are not allowed, because train.py would cut the path there; rename the \
             object or folder",
        ),
        (
            "s3://bucket/a//b",
            "empty segments, . and .. are not allowed in a path",
        ),
        (
            "s3://bucket/../b",
            "empty segments, . and .. are not allowed in a path",
        ),
        (
            "s3://bucket/*.json",
            "'*' is not allowed in a path; rename the object or folder",
        ),
        (
            "s3://bucket/$(RANK)",
            "'$' is not allowed in a path; rename the object or folder",
        ),
        (
            "s3://bucket/a b",
            "white space and control characters are not allowed; rename the object, or use the \
             prefix above it (%20 is not decoded)",
        ),
        (
            "s3://ab/x",
            "malformed s3:// URI: the bucket name must have 3-63 characters",
        ),
        (
            "s3://Bucket/x",
            "malformed s3:// URI: the bucket name may only contain a-z, 0-9, '-' and '.'",
        ),
        (
            "s3://10.0.0.1/x",
            "malformed s3:// URI: the bucket name must not be an IP address",
        ),
        (
            "s3:///x",
            "malformed s3:// URI: the bucket name must have 3-63 characters",
        ),
        (
            "gs://google/x",
            "malformed gs:// URI: the bucket name must not start with goog or be an IP address",
        ),
        (
            "gs://a..b/x",
            "malformed gs:// URI: the bucket name must have 3-63 characters, or up to 222 with \
             single dots",
        ),
        (
            "abfss://container/x",
            "malformed abfss:// URI: expected container@account.dfs.core.windows.net",
        ),
        (
            "az://a--b/x",
            "malformed az:// URI: the container name must have 3-63 characters a-z, 0-9 and \
             single '-'",
        ),
        (
            "pvc:///x",
            "malformed pvc:// URI: the claim must be a DNS name: a-z, 0-9, '-' and '.'",
        ),
        (
            "file://host/x",
            "malformed file:// URI: expected an absolute path: file:///...",
        ),
        (
            "file:///",
            "malformed file:// URI: expected an absolute path: file:///...",
        ),
    ];
    for (text, error) in cases {
        assert_eq!(checkpoint(text), Err(error.to_string()), "{text}");
    }
}

#[test]
fn a_dataset_on_the_web_has_a_host_and_no_secret() {
    for (text, error) in [
        ("https:///x", "malformed https:// URI: the host is missing"),
        (
            "https://$(HOST)/x",
            "malformed https:// URI: the host may only contain a-z, 0-9, '-' and '.', with an \
             optional port",
        ),
        ("https://token@host/x", "must not contain credentials"),
        (
            "https://host?y=1",
            "? and # are not allowed, because train.py would cut the path there; rename the \
             object or folder",
        ),
        ("https://host/x?sig=1", "must not contain a signed URL"),
        (
            "https://my.bucket.s3.amazonaws.com/a/b?X-Amz-Signature=1",
            "must not contain a signed URL; use s3://my.bucket/a/b instead",
        ),
        (
            "https://s3-us-west-2.amazonaws.com/bucket/a?X-Amz-Signature=1",
            "must not contain a signed URL; use s3://bucket/a instead",
        ),
        (
            "https://storage.googleapis.com/bucket/a?X-Goog-Signature=1",
            "must not contain a signed URL; use gs://bucket/a instead",
        ),
        (
            "https://acme.blob.core.windows.net/data/a?sig=1",
            "must not contain a signed URL; use abfss://data@acme.dfs.core.windows.net/a \
             instead",
        ),
        (
            "https://key:secret@bucket.s3.amazonaws.com/a?X-Amz-Signature=1",
            "must not contain a signed URL",
        ),
    ] {
        assert_eq!(dataset(text), Err(error.to_string()), "{text}");
    }
}

#[test]
fn a_repository_has_two_names() {
    let expected = "malformed hf:// URI: expected hf://datasets/org/name or hf://org/name";
    let long = format!("hf://datasets/{}/name", "o".repeat(97));
    for text in [
        "hf://name",
        "hf://datasets/name",
        "hf://datasets/name/",
        "hf://org/na+me",
        "hf://datasets/org/name@",
        "hf://datasets/org/@main",
        &long,
    ] {
        assert_eq!(dataset(text), Err(expected.to_string()), "{text}");
    }
}

#[test]
fn keys_leave_room_for_the_files_of_the_run() {
    let uri = |bytes| format!("s3://bucket/{}", "k".repeat(bytes));
    assert!(dataset(&uri(1024)).is_ok());
    assert!(dataset(&uri(1025)).is_err());
    assert!(checkpoint(&uri(768)).is_ok());
    assert!(checkpoint(&uri(769)).is_err());
}

#[test]
fn only_the_last_slash_of_a_dataset_is_a_mark() {
    let segment = "empty segments, . and .. are not allowed in a path";
    for text in ["s3://bucket//", "s3://bucket/a//", "pvc://claim//"] {
        assert_eq!(dataset(text), Err(segment.to_string()), "{text}");
    }
}

#[test]
fn the_operator_may_allow_less() {
    let allowed = [Scheme::S3, Scheme::File];
    let error = StorageUri::parse(UriRole::Dataset, "gs://bucket/x", &allowed).unwrap_err();
    let text = "scheme gs:// is not supported; accepted schemes: s3, file";
    assert_eq!(error.to_string(), text);
}

proptest! {
    #[test]
    fn nothing_that_is_written_makes_it_panic(text in r"(s3|pvc|file|az|abfss)?(://)?\PC{0,40}") {
        let _ = (dataset(&text), checkpoint(&text));
    }
}
