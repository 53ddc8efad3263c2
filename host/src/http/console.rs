//! The web console: `/` for browsers, and the files under `/console/`, which this program carries.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use axum::extract::{Path, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use include_dir::{Dir, include_dir};
use sha2::{Digest, Sha256};

use super::problem::Problem;

static FOLDER: Dir = include_dir!("$CARGO_MANIFEST_DIR/../console");
static FILES: LazyLock<BTreeMap<String, File>> = LazyLock::new(files);

/// The page that loads the rest.
const PAGE: &str = "index.html";
/// Everything comes from this service, and no text becomes a script or a style. Stylesheets may contain images.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'; object-src 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

/// A file of the console.
struct File {
    media: &'static str,
    plain: Form,
    /// Where it is smaller.
    gzip: LazyLock<Option<Form>, Box<dyn FnOnce() -> Option<Form> + Send>>,
}

/// A file in one encoding. Each has a tag of its own, since the bytes differ.
struct Form {
    bytes: Bytes,
    tag: String,
}

/// An answer whose encoding was chosen already: no layer compresses it.
#[derive(Clone, Copy)]
pub(super) struct Encoded;

/// `GET /`: the console for browsers; programs get what any unknown path gives.
pub(super) async fn page(request: Request) -> Response {
    match accepts(request.headers(), &header::ACCEPT, "text/html") {
        true => served(PAGE, request.headers()),
        false => missing(&request),
    }
}

/// `GET /console/{path}`.
pub(super) async fn file(Path(path): Path<String>, request: Request) -> Response {
    match FILES.contains_key(&path) {
        true => served(&path, request.headers()),
        false => missing(&request),
    }
}

fn missing(request: &Request) -> Response {
    Problem::no_such_route(request.method(), request.uri().path()).into_response()
}

fn served(path: &str, headers: &HeaderMap) -> Response {
    let Some(file) = FILES.get(path) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let gzip = match accepts(headers, &header::ACCEPT_ENCODING, "gzip") {
        true => file.gzip.as_ref(),
        false => None,
    };
    let form = gzip.unwrap_or(&file.plain);
    let mut response = match accepts(headers, &header::IF_NONE_MATCH, &form.tag) {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => ([(header::CONTENT_TYPE, file.media)], form.bytes.clone()).into_response(),
    };
    response.extensions_mut().insert(Encoded);
    let answer = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        answer.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::CACHE_CONTROL, "no-cache");
    set(header::REFERRER_POLICY, "no-referrer");
    set(
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    );
    set(header::VARY, "accept, accept-encoding");
    if gzip.is_some() {
        set(header::CONTENT_ENCODING, "gzip");
    }
    if let Ok(tag) = HeaderValue::from_str(&form.tag) {
        answer.insert(header::ETAG, tag);
    }
    response
}

/// Whether a header with a list names a value, with a weight other than 0.
fn accepts(headers: &HeaderMap, name: &HeaderName, value: &str) -> bool {
    let lists = headers.get_all(name).iter();
    let mut items = lists
        .filter_map(|list| list.to_str().ok())
        .flat_map(|list| list.split(','));
    items.any(|item| {
        let (named, parameters) = item.split_once(';').unwrap_or((item, ""));
        let is_refused = matches!(parameters.trim(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000");
        named.trim().trim_start_matches("W/") == value && !is_refused
    })
}

fn files() -> BTreeMap<String, File> {
    let mut folders = vec![&FOLDER];
    let mut files = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        folders.extend(folder.dirs());
        for file in folder.files() {
            let path = file.path().display().to_string();
            let served = File::of(&path, file.contents());
            files.insert(path, served);
        }
    }
    files
}

impl File {
    fn of(path: &str, bytes: &'static [u8]) -> Self {
        let gzip = move || {
            let gzip = compressed(bytes).filter(|gzip| gzip.len() < bytes.len())?;
            Some(Form::of(gzip.into()))
        };
        Self {
            media: media(path),
            plain: Form::of(Bytes::from_static(bytes)),
            gzip: LazyLock::new(Box::new(gzip)),
        }
    }
}

impl Form {
    fn of(bytes: Bytes) -> Self {
        let hash = Sha256::digest(&bytes);
        let hash: String = hash[..12]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let tag = format!("\"{hash}\"");
        Self { bytes, tag }
    }
}

fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

fn media(path: &str) -> &'static str {
    match path.rsplit('.').next().unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}
