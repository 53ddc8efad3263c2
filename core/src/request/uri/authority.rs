//! Checks the authority of a URI: buckets, containers, claims, hosts and repositories, by the rules
//! of each store.

use super::{Scheme, UriError, split};

/// Checks the part before the first slash.
pub(super) fn check_authority(scheme: Scheme, authority: &str) -> Result<(), UriError> {
    let rule = match scheme {
        Scheme::S3 => s3_bucket(authority),
        Scheme::Gs => gs_bucket(authority),
        Scheme::Abfss | Scheme::Abfs if authority.contains('@') => azure_account(authority),
        Scheme::Abfss => Some("expected container@account.dfs.core.windows.net"),
        Scheme::Abfs | Scheme::Az => azure_container(authority),
        Scheme::Pvc => (!crate::metadata::is_dns_subdomain(authority))
            .then_some("the claim must be a DNS name: a-z, 0-9, '-' and '.'"),
        Scheme::File => (!matches!(authority, "" | "localhost"))
            .then_some("expected an absolute path: file:///..."),
        Scheme::Https => https_host(authority),
        // The first part belongs to the name of a repository, see `check_repository`.
        Scheme::Hf => None,
    };
    match rule {
        Some(rule) => Err(UriError::Malformed { scheme, rule }),
        None => Ok(()),
    }
}

/// The rules for using a bucket, which also allow aliases of access points and directory buckets.
fn s3_bucket(bucket: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !(3..=63).contains(&bucket.len()) {
        return Some("the bucket name must have 3-63 characters");
    }
    if !bucket.bytes().all(fits) {
        return Some("the bucket name may only contain a-z, 0-9, '-' and '.'");
    }
    if !has_alphanumeric_edges(bucket) || bucket.contains("..") || bucket.starts_with("xn--") {
        return Some(
            "the bucket name must start and end with a letter or digit, and must not contain .. or \
             start with xn--",
        );
    }
    is_ipv4(bucket).then_some("the bucket name must not be an IP address")
}

fn gs_bucket(bucket: &str) -> Option<&'static str> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b);
    let parts_fit = bucket.split('.').all(|part| (1..=63).contains(&part.len()));
    if !(3..=222).contains(&bucket.len()) || !parts_fit {
        return Some("the bucket name must have 3-63 characters, or up to 222 with single dots");
    }
    if !bucket.bytes().all(fits) || !has_alphanumeric_edges(bucket) {
        return Some(
            "the bucket name may only contain a-z, 0-9, '-', '_' and '.', and must start and end \
             with a letter or digit",
        );
    }
    (bucket.starts_with("goog") || is_ipv4(bucket))
        .then_some("the bucket name must not start with goog or be an IP address")
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
    (!valid).then_some("the host may only contain a-z, 0-9, '-' and '.', with an optional port")
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
    (!valid).then_some("the container name must have 3-63 characters a-z, 0-9 and single '-'")
}

fn has_alphanumeric_edges(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    edge(text.bytes().next()) && edge(text.bytes().last())
}

fn is_ipv4(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok()
}

/// `datasets/org/name[@revision][/path]`, or Kubeflow's `org/name`. Names with only one part no
/// longer resolve (huggingface_hub 2).
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

/// Converts the web address of an object store to the URI by which a pod reaches the object with
/// its own identity. A signature in the address is dropped.
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
