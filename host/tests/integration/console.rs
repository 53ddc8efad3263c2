//! The web console: what is served, with which headers, and that all of it is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use sha2::{Digest, Sha256};
use tower::ServiceExt;

use crate::service::{Answer, Service};

/// Most bytes of the whole console as browsers get it, without the API reference.
const MAX_BYTES: usize = 250 * 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../console")
}

/// The paths of all files of the console, relative to its folder.
fn files() -> BTreeSet<String> {
    let mut folders = vec![folder()];
    let mut files = BTreeSet::new();
    while let Some(open) = folders.pop() {
        for entry in std::fs::read_dir(open).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let path = path.strip_prefix(folder()).unwrap();
                    files.insert(path.display().to_string());
                }
            }
        }
    }
    files
}

async fn browse(service: &Service, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = headers
        .iter()
        .fold(Request::get(path), |request, (name, value)| {
            request.header(*name, *value)
        });
    service.send(request.body(Body::empty()).unwrap()).await
}

/// The bytes of a file as a browser gets them.
async fn transferred(service: &Service, path: &str) -> usize {
    let request = Request::get(path).header("accept-encoding", "gzip, deflate, br, zstd");
    let request = request.body(Body::empty()).unwrap();
    let response = service.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
        .into_body()
        .collect()
        .await
        .unwrap()
        .to_bytes()
        .len()
}

#[tokio::test]
async fn browsers_get_the_console_and_programs_get_json() {
    let service = Service::with_token("secret").await;
    let accept = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let page = browse(&service, "/", &[("accept", accept)]).await;
    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    assert!(page.text.contains("console/app.js"));
    for accept in ["application/json", "*/*", "text/html;q=0"] {
        browse(&service, "/", &[("accept", accept)])
            .await
            .problem(404);
    }
    service.get("/").await.problem(404);
    service.get("/console/missing.js").await.problem(404);
    service.get("/console/../Cargo.toml").await.problem(404);
}

#[tokio::test]
async fn every_file_has_a_strict_policy_a_type_and_a_strong_tag_for_each_encoding() {
    let service = Service::start().await;
    for path in files() {
        let path = format!("/console/{path}");
        let file = browse(&service, &path, &[]).await;
        assert_eq!(file.status, 200, "{path}");
        let policy = file.header("content-security-policy");
        for part in [
            "default-src 'self'",
            "require-trusted-types-for 'script'",
            "frame-ancestors 'none'",
            "object-src 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert_eq!(file.header("cache-control"), "no-cache");
        let tag = file.header("etag");
        assert!(tag.starts_with('"'), "{path}: {tag}");
        let again = browse(&service, &path, &[("if-none-match", tag)]).await;
        assert_eq!(
            (again.status.as_u16(), again.text.len()),
            (304, 0),
            "{path}"
        );
        assert_eq!(again.header("etag"), tag);
        let media = file.header("content-type");
        let is_script = path.ends_with(".js") || path.ends_with(".mjs");
        assert_eq!(
            media.starts_with("text/javascript"),
            is_script,
            "{path}: {media}"
        );
    }
    let gzip = Request::get("/console/app.js").header("accept-encoding", "gzip");
    let gzip = gzip.body(Body::empty()).unwrap();
    let gzip = service.router.clone().oneshot(gzip).await.unwrap();
    let plain = browse(&service, "/console/app.js", &[]).await;
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    assert_ne!(gzip.headers()["etag"], plain.header("etag"));
    assert_eq!(plain.header("content-encoding"), "");
}

#[tokio::test]
async fn the_whole_console_is_at_most_250_kilobytes() {
    let service = Service::start().await;
    let mut bytes = 0;
    for path in files().iter().filter(|path| !path.contains("swagger-ui")) {
        bytes += transferred(&service, &format!("/console/{path}")).await;
    }
    println!("the console takes {bytes} bytes");
    assert!((1024..=MAX_BYTES).contains(&bytes), "{bytes}");
}

/// The paths in quotes after a word, such as `from "../lib/html.js"`.
fn quoted_after<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let parts = text.split(word).skip(1);
    parts.filter_map(|part| part.split('"').next()).collect()
}

#[test]
fn every_file_that_the_console_names_is_there_and_nothing_comes_from_elsewhere() {
    let files = files();
    let mut named = 0;
    for path in &files {
        let text = std::fs::read_to_string(folder().join(path)).unwrap();
        let base = Path::new(path).parent().unwrap();
        let own = !path.starts_with("vendor/");
        let words: &[&str] = match path.rsplit('.').next() {
            Some("js") => &["from \"", "import \"", "import(\""],
            Some("mjs") => &["from\""],
            Some("html") => &["href=\"", "src=\""],
            _ => &[],
        };
        let names = words.iter().flat_map(|word| quoted_after(&text, word));
        // Comments of minified files have the words, too.
        for name in names.filter(|name| !name.contains(char::is_whitespace)) {
            let page = if path == "index.html" { "" } else { "console" };
            let file = normal(&Path::new(page).join(base).join(name));
            let of_console = file.strip_prefix("console/");
            assert!(
                matches!(&*file, "" | "docs")
                    || of_console.is_some_and(|file| files.contains(file)),
                "{path}: {name}"
            );
            named += 1;
        }
        for forbidden in [
            "innerHTML",
            "document.write",
            "eval(",
            "http://",
            "https://",
            " style=",
        ] {
            let is_svg = path.ends_with(".svg");
            assert!(
                !own || is_svg || !text.contains(forbidden),
                "{path}: {forbidden}"
            );
        }
    }
    assert!(named > 50, "{named}");
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap().split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn vendored_files_are_those_of_the_table() {
    let table = std::fs::read_to_string(folder().join("vendor/README.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let mut listed = BTreeSet::from(["README.md".to_string()]);
    for row in rows {
        let cells: Vec<&str> = row
            .split('|')
            .map(|cell| cell.trim().trim_matches('`'))
            .collect();
        let (file, hash) = (cells[1], cells[5]);
        let bytes = std::fs::read(folder().join("vendor").join(file)).unwrap();
        let is = Sha256::digest(bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>();
        assert_eq!(is, hash, "{file}");
        listed.insert(file.to_string());
    }
    let files = files();
    let vendored = files.iter().filter_map(|path| path.strip_prefix("vendor/"));
    assert_eq!(
        vendored.map(str::to_string).collect::<BTreeSet<_>>(),
        listed
    );
}
