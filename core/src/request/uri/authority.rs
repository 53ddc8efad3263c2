//! Whom a URI names before its path: buckets, containers, claims, hosts and repositories, by the
//! rules of each store.

use super::{Scheme, UriError, split};

/// Whether what stands before the first slash is a name that the store has.
pub(super) fn check_authority(scheme: Scheme, authority: &str) -> Result<(), UriError> {
    let rule = match scheme {
        Scheme::S3 => s3_bucket(authority),
        Scheme::Gs => gs_bucket(authority),
        Scheme::Abfss | Scheme::Abfs if authority.contains('@') => azure_account(authority),
        Scheme::Abfss => Some("expected container@account.dfs.core.windows.net"),
        Scheme::Abfs | Scheme::Az => azure_container(authority),
        Scheme::Pvc => (!crate::request::metadata::is_dns_subdomain(authority))
            .then_some("the claim must be a DNS name of a-z, 0-9, - and ."),
        Scheme::File => (!matches!(authority, "" | "localhost"))
            .then_some("expected an absolute path: file:///..."),
        Scheme::Https => https_host(authority),
        // Its first part is one of a repository's, see `check_repository`.
        Scheme::Hf => None,
    };
    match rule {
        Some(rule) => Err(UriError::Malformed { scheme, rule }),
        None => Ok(()),
    }
}

/// Rules for using a bucket; aliases of access points and directory buckets are legal to use.
fn s3_bucket(bucket: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) {
        return Some("the bucket must have 3 to 63 characters");
    }
    if !bucket.bytes().all(fits) {
        return Some("the bucket must be of a-z, 0-9, - and .");
    }
    if !has_alphanumeric_edges(bucket) || bucket.contains("..") || bucket.starts_with("xn--") {
        return Some(
            "the bucket must begin and end with a letter or digit, without .. and not xn--",
        );
    }
    is_ipv4(bucket).then_some("the bucket must not be an IP address")
}

fn gs_bucket(bucket: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let parts_fit = bucket.split('.').all(|part| (1..=63).contains(&part.len()));
    if !(3..=222).contains(&bucket.len()) || !parts_fit {
        return Some("the bucket must have 3 to 63 characters, or 222 with single dots");
    }
    if !bucket.bytes().all(fits) || !has_alphanumeric_edges(bucket) {
        return Some("the bucket must be of a-z, 0-9, -, _ and ., and end with a letter or digit");
    }
    (bucket.starts_with("goog") || is_ipv4(bucket))
        .then_some("the bucket must not begin with goog nor be an IP address")
}

fn https_host(authority: &str) -> Option<&'static str> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    if host.is_empty() {
        return Some("the host is missing");
    }
    let valid = host.bytes().all(fits) && port.is_none_or(|port| port.parse::<u16>().is_ok());
    (!valid).then_some("the host must be of a-z, 0-9, - and ., with or without a port")
}

fn azure_account(authority: &str) -> Option<&'static str> {
    let (container, host) = authority.split_once('@')?;
    let account = host.strip_suffix(".dfs.core.windows.net");
    let valid = account.is_some_and(|account| {
        (3..=24).contains(&account.len())
            && account
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    });
    match valid {
        true => azure_container(container),
        false => Some("expected container@account.dfs.core.windows.net"),
    }
}

fn azure_container(container: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let valid = (3..=63).contains(&container.len())
        && container.bytes().all(fits)
        && has_alphanumeric_edges(container)
        && !container.contains("--");
    (!valid).then_some("the container must be 3 to 63 of a-z, 0-9 and single -")
}

fn has_alphanumeric_edges(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last())
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

/// `datasets/org/name[@revision][/path]`, or Kubeflow's `org/name`. Names of one part resolve no
/// more (huggingface_hub 2).
pub(super) fn check_repository(scheme: Scheme, rest: &str) -> Result<(), UriError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let is_part = |part: &str| (1..=96).contains(&part.len()) && part.bytes().all(fits);
    let repository = rest.strip_prefix("datasets/").unwrap_or(rest);
    let (organisation, name) = split(repository);
    let name = split(name).0;
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision)),
        None => (name, None),
    };
    let valid = is_part(organisation) && is_part(name) && revision != Some("");
    match scheme == Scheme::Hf && !valid {
        true => Err(UriError::Malformed {
            scheme,
            rule: "expected hf://datasets/org/name or hf://org/name",
        }),
        false => Ok(()),
    }
}

/// How the pod reaches with its own identity what a web address of an object store names, without
/// the signature that the address may have.
pub(super) fn object_store_form(scheme: Scheme, rest: &str) -> Option<String> {
    if scheme != Scheme::Https {
        return None;
    }
    let (host, path) = split(rest.split(['?', '#']).next()?);
    if let Some(store) = host.strip_suffix(".amazonaws.com") {
        // `bucket.s3.region` or `s3.region/bucket`; the region may be missing or follow a dash.
        let (bucket, key) = match store.rsplit_once(".s3") {
            Some((bucket, _)) => (bucket, path),
            None if store.starts_with("s3") => split(path),
            None => return None,
        };
        let uri = format!("s3://{bucket}/{key}");
        return s3_bucket(bucket).is_none().then_some(uri);
    }
    if let Some(store) = host.strip_suffix("storage.googleapis.com") {
        let (bucket, key) = match store.strip_suffix('.') {
            Some(bucket) => (bucket, path),
            None => split(path),
        };
        let uri = format!("gs://{bucket}/{key}");
        return gs_bucket(bucket).is_none().then_some(uri);
    }
    let azure = [".blob.core.windows.net", ".dfs.core.windows.net"];
    let account = azure.iter().find_map(|domain| host.strip_suffix(domain))?;
    let (container, key) = split(path);
    let authority = format!("{container}@{account}.dfs.core.windows.net");
    let uri = format!("abfss://{authority}/{key}");
    azure_account(&authority).is_none().then_some(uri)
}
