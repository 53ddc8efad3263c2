//! Credentials for registries, and where they may be sent.
//!
//! A password is sent only to its registry, over TLS, or without TLS only on this machine. A
//! registry may refer clients to a token server. That server gets the password only if it belongs
//! to the registry by its name, or if the operator allows it.

use docker_credential::CredentialRetrievalError::{
    ConfigNotFound, HelperCommunicationError, HelperFailure, MalformedHelperResponse,
    NoCredentialConfigured,
};
use docker_credential::{DockerCredential, get_credential};
use oci_client::Reference;
use reqwest::Url;
use tracing::warn;

use super::super::super::SourceError;
use crate::secrets;

/// The operator's user name and password for a registry. They take precedence over `docker login`.
const USER: &str = "TRAINER_REGISTRY_USER";
const PASSWORD: &str = "TRAINER_REGISTRY_PASSWORD";
/// The registry that they are for: a host, optionally with a port.
const HOST: &str = "TRAINER_REGISTRY_HOST";
/// A token server that may receive passwords, in addition to those that belong to a registry by
/// name.
const TOKEN_HOST: &str = "TRAINER_REGISTRY_TOKEN_HOST";
/// Docker's name for the credentials of `docker.io`.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The number of registries in the operator's sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registries {
    One,
    Several,
}

/// A user name and password.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

/// The login for a registry, if there is one.
pub(super) fn login(reference: &Reference, registries: Registries) -> Option<Login> {
    let login = (secrets::variable(USER), secrets::variable(PASSWORD));
    if let (Some(user), Some(password)) = login {
        let host = secrets::variable(HOST);
        if is_for(host.as_deref(), reference, registries) {
            return Some(Login { user, password });
        }
        if host.is_none() {
            warn!(
                "{USER} is not sent to any registry, because there are several; set {HOST} to one \
                 of them"
            );
        }
    }
    login_of_docker(reference)
}

/// Whether the operator's login is for a registry. Without a host it applies if the sources use
/// only one registry.
fn is_for(host: Option<&str>, reference: &Reference, registries: Registries) -> bool {
    match host {
        Some(host) => {
            let names = [reference.registry(), reference.resolve_registry()];
            names.iter().any(|name| name.eq_ignore_ascii_case(host))
        }
        None => registries == Registries::One,
    }
}

fn login_of_docker(reference: &Reference) -> Option<Login> {
    let registry = match reference.resolve_registry() {
        "index.docker.io" => DOCKER_HUB,
        registry => registry,
    };
    // Not the error's text: it contains the output of a helper, which may include a password.
    let why = match get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            return Some(Login { user, password });
        }
        Err(NoCredentialConfigured | ConfigNotFound) => return None,
        Ok(DockerCredential::IdentityToken(_)) => "identity tokens are not supported",
        Err(HelperCommunicationError | MalformedHelperResponse | HelperFailure { .. }) => {
            "the credential helper failed"
        }
        Err(_) => "cannot read docker's config.json",
    };
    warn!(registry, why, "accessing the registry anonymously");
    None
}

/// The URL of a registry. A registry on this machine is used without TLS, like docker does.
pub(super) fn address(reference: &Reference) -> Result<Url, SourceError> {
    let registry = reference.resolve_registry();
    let wrong = |_| SourceError::Registry(format!("{registry} is not a valid registry name"));
    let address = Url::parse(&format!("https://{registry}/v2/")).map_err(wrong)?;
    match is_this_machine(&address) {
        true => Url::parse(&format!("http://{registry}/v2/")).map_err(wrong),
        false => Ok(address),
    }
}

/// Whether an address is local: its host is `localhost` or a loopback address.
pub(super) fn is_this_machine(address: &Url) -> bool {
    let host = address.host_str().unwrap_or_default();
    let ip = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |ip: std::net::IpAddr| ip.is_loopback();
    host == "localhost" || ip.parse().is_ok_and(is_loopback)
}

/// Checks that a registry's token server may be contacted, with the password if there is one.
///
/// # Errors
///
/// Why it may not be contacted.
pub(super) fn check_token_server(
    server: &Url,
    registry: &Url,
    login: Option<&Login>,
) -> Result<(), SourceError> {
    let configured = std::env::var(TOKEN_HOST).ok();
    let is_secure = server.scheme() == "https"
        || (server.scheme() == "http" && is_this_machine(server) && is_this_machine(registry));
    let name = authority(server);
    if !is_secure {
        let why = format!("its token server {name} does not use https");
        return Err(SourceError::Registry(why));
    }
    let is_named = configured.is_some_and(|host| host.eq_ignore_ascii_case(&name));
    if login.is_none() || is_named || belongs(server, registry) {
        return Ok(());
    }
    Err(SourceError::Registry(format!(
        "it requests the password for another host, {name}; if that is intended, set \
         {TOKEN_HOST}={name}"
    )))
}

/// Whether a token server belongs to a registry by its name: it is the same host, or one is a
/// subdomain of the other, like `gitlab.com` and `registry.gitlab.com`.
fn belongs(server: &Url, registry: &Url) -> bool {
    if server.scheme() != "https" {
        return authority(server) == authority(registry);
    }
    let (server, registry) = (
        server.host_str().unwrap_or_default(),
        registry.host_str().unwrap_or_default(),
    );
    let docker_hub = ("auth.docker.io", "index.docker.io");
    server == registry
        || (server, registry) == docker_hub
        || is_beneath(server, registry)
        || is_beneath(registry, server)
}

fn is_beneath(host: &str, domain: &str) -> bool {
    let above = host.strip_suffix(domain);
    domain.contains('.') && above.is_some_and(|labels| labels.ends_with('.'))
}

/// Host and optional port.
fn authority(address: &Url) -> String {
    let host = address.host_str().unwrap_or_default();
    match address.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address_of(registry: &str) -> String {
        let reference: Reference = format!("{registry}/team/meta:1").parse().unwrap();
        address(&reference).unwrap().to_string()
    }

    #[test]
    fn only_loopback_addresses_and_localhost_are_used_without_tls() {
        for registry in [
            "127.0.0.1:5000",
            "127.8.8.8:5000",
            "localhost:5000",
            "localhost",
        ] {
            assert!(address_of(registry).starts_with("http://"), "{registry}");
        }
        for registry in [
            "127.evil.test",
            "127.0.0.1.evil.test",
            "127.0.0.1.evil.test:5000",
            "localhost.evil.test",
            "evil.localhost",
            "registry.example.com",
            "10.0.0.1:5000",
            "0.0.0.0:5000",
        ] {
            assert!(address_of(registry).starts_with("https://"), "{registry}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_never_used_without_tls(name in "(127|localhost|0)(\\.[0-9a-z]{1,5}){0,4}\\.[a-z]{2,5}") {
            prop_assert!(address_of(&name).starts_with("https://"));
        }
    }

    #[test]
    fn a_token_server_gets_a_password_when_it_belongs_to_the_registry() {
        let login = Login {
            user: "team".to_string(),
            password: "secret".to_string(),
        };
        let check = |server: &str, registry: &str| {
            let (server, registry) = (Url::parse(server).unwrap(), Url::parse(registry).unwrap());
            check_token_server(&server, &registry, Some(&login)).is_ok()
        };
        for (server, registry) in [
            ("https://ghcr.io/token", "https://ghcr.io/v2/"),
            (
                "https://gitlab.com/jwt/auth",
                "https://registry.gitlab.com/v2/",
            ),
            (
                "https://auth.docker.io/token",
                "https://index.docker.io/v2/",
            ),
            (
                "https://git.example.com/jwt/auth",
                "https://git.example.com:5050/v2/",
            ),
            ("http://127.0.0.1:5000/token", "http://127.0.0.1:5000/v2/"),
        ] {
            assert!(check(server, registry), "{server} for {registry}");
        }
        for (server, registry) in [
            ("https://evil.test/token", "https://ghcr.io/v2/"),
            ("https://evilghcr.io/token", "https://ghcr.io/v2/"),
            ("https://ghcr.io.evil.test/token", "https://ghcr.io/v2/"),
            ("https://io/token", "https://ghcr.io/v2/"),
            (
                "https://evil.example.com/token",
                "https://registry.example.com/v2/",
            ),
            ("http://ghcr.io/token", "https://ghcr.io/v2/"),
            ("http://127.0.0.1:1/token", "https://ghcr.io/v2/"),
            ("http://127.0.0.1:5001/token", "http://127.0.0.1:5000/v2/"),
            ("http://localhost:5000/token", "http://127.0.0.1:5000/v2/"),
            ("ftp://ghcr.io/token", "https://ghcr.io/v2/"),
        ] {
            assert!(!check(server, registry), "{server} for {registry}");
        }
    }

    #[test]
    fn the_operators_login_is_for_the_registry_that_is_named() {
        let reference: Reference = "registry.example.com/team/meta:1".parse().unwrap();
        let one = Registries::One;
        assert!(is_for(
            Some("registry.example.com"),
            &reference,
            Registries::Several
        ));
        for other in ["example.com", "registry.example.com:5000", "evil.test"] {
            assert!(!is_for(Some(other), &reference, one), "{other}");
        }
        assert!(is_for(None, &reference, one));
        assert!(!is_for(None, &reference, Registries::Several));
    }
}
