//! Downloads from a registry. All responses are limited in size, redirects are limited and never
//! leave TLS, and passwords are only sent where [`super::login`] allows it.
//!
//! oci-client reads responses of any size, so it is only used for uploads.

use std::time::Duration;

use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use http::{StatusCode, header};
use oci_client::Reference;
use oci_client::manifest::OCI_IMAGE_MEDIA_TYPE;
use oci_client::secrets::RegistryAuth;
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, Url};
use serde::Deserialize;

use super::super::super::{SourceError, error_chain};
use super::login::{Login, address, check_token_server, is_this_machine};

/// The maximum size of a manifest, as in the distribution specification.
pub(super) const MOST_MANIFEST_BYTES: usize = 4 << 20;
/// The maximum size of a token server's response.
const MOST_TOKEN_BYTES: usize = 64 << 10;
/// The maximum number of redirects per request: to a blob store, and within it.
const MOST_REDIRECTS: usize = 5;
/// Timeouts for connecting and for inactivity.
const SILENCE: Duration = Duration::from_secs(30);

/// The access that a client needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A repository to read from.
pub(super) struct Repository {
    client: Client,
    registry: Url,
    name: String,
    login: Option<Login>,
    access: Access,
    authorization: Option<Authorization>,
}

/// The credentials for a repository.
enum Authorization {
    Basic(Login),
    Token(String),
}

/// The authentication challenge of a registry.
enum Challenge {
    Token {
        server: String,
        service: Option<String>,
    },
    Password,
}

/// A token server's response. Both names are in use, and some servers send both.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Repository {
    /// The repository of a reference. No request is sent yet.
    ///
    /// # Errors
    ///
    /// If the reference has no valid registry.
    pub(super) fn new(
        reference: &Reference,
        login: Option<Login>,
        access: Access,
    ) -> Result<Self, SourceError> {
        let registry = address(reference)?;
        Ok(Self {
            client: client(redirects(&registry))?,
            registry,
            name: reference.repository().to_string(),
            login,
            access,
            authorization: None,
        })
    }

    /// Fetches a manifest by tag or digest.
    ///
    /// # Errors
    ///
    /// If the registry does not return it.
    pub(super) async fn manifest(&mut self, which: &str) -> Result<Vec<u8>, SourceError> {
        let path = format!("{}/manifests/{which}", self.name);
        self.get(&path, MOST_MANIFEST_BYTES).await
    }

    /// Fetches a blob of at most `most` bytes. The digest is not verified.
    ///
    /// # Errors
    ///
    /// If the registry does not return it.
    pub(super) async fn blob(&mut self, digest: &str, most: usize) -> Result<Vec<u8>, SourceError> {
        let path = format!("{}/blobs/{digest}", self.name);
        self.get(&path, most).await
    }

    /// The credentials for oci-client.
    ///
    /// # Errors
    ///
    /// If the registry sends no supported challenge, or its token server is not allowed.
    pub(super) async fn login(mut self) -> Result<RegistryAuth, SourceError> {
        let response = self.send("").await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            self.authorization = Some(self.answer(response.headers()).await?);
        }
        Ok(match self.authorization {
            Some(Authorization::Token(token)) => RegistryAuth::Bearer(token),
            Some(Authorization::Basic(login)) => RegistryAuth::Basic(login.user, login.password),
            None => RegistryAuth::Anonymous,
        })
    }

    async fn get(&mut self, path: &str, most: usize) -> Result<Vec<u8>, SourceError> {
        let mut response = self.send(path).await?;
        if response.status() == StatusCode::UNAUTHORIZED && self.authorization.is_none() {
            self.authorization = Some(self.answer(response.headers()).await?);
            response = self.send(path).await?;
        }
        if !response.status().is_success() {
            let why = format!("it responded with {} to GET /v2/{path}", response.status());
            return Err(SourceError::Registry(why));
        }
        body(response, most).await
    }

    async fn send(&self, path: &str) -> Result<Response, SourceError> {
        let wrong =
            |error| SourceError::Registry(format!("/v2/{path} is not a valid path: {error}"));
        let request = self
            .client
            .get(self.registry.join(path).map_err(wrong)?)
            .header(header::ACCEPT, OCI_IMAGE_MEDIA_TYPE);
        let request = match &self.authorization {
            Some(Authorization::Basic(Login { user, password })) => {
                request.basic_auth(user, Some(password))
            }
            Some(Authorization::Token(token)) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.map_err(failed)
    }

    async fn answer(&self, headers: &HeaderMap) -> Result<Authorization, SourceError> {
        match Challenge::of(headers)? {
            Challenge::Token { server, service } => self.token(&server, service).await,
            Challenge::Password => {
                let none =
                    || SourceError::Registry("it requires a user name and password".to_string());
                self.login
                    .clone()
                    .map(Authorization::Basic)
                    .ok_or_else(none)
            }
        }
    }

    async fn token(
        &self,
        server: &str,
        service: Option<String>,
    ) -> Result<Authorization, SourceError> {
        let wrong =
            |_| SourceError::Registry("the address of its token server is not valid".to_string());
        let mut server = Url::parse(server).map_err(wrong)?;
        check_token_server(&server, &self.registry, self.login.as_ref())?;
        let rights = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let scope = format!("repository:{}:{rights}", self.name);
        server.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            server.query_pairs_mut().append_pair("service", &service);
        }
        // Redirects are not followed, because the request contains the password.
        let request = client(Policy::none())?.get(server);
        let request = match &self.login {
            Some(Login { user, password }) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = request.send().await.map_err(failed)?;
        if !response.status().is_success() {
            let why = format!("its token server responded with {}", response.status());
            return Err(SourceError::Registry(why));
        }
        let answer: Option<Token> =
            serde_json::from_slice(&body(response, MOST_TOKEN_BYTES).await?).unwrap_or_default();
        let token = answer.and_then(|answer| answer.token.or(answer.access_token));
        token
            .filter(|token| HeaderValue::from_str(token).is_ok())
            .map(Authorization::Token)
            .ok_or_else(|| SourceError::Registry("its token server returned no token".to_string()))
    }
}

impl Challenge {
    /// Parses the first supported challenge.
    fn of(headers: &HeaderMap) -> Result<Self, SourceError> {
        let unknown = || {
            SourceError::Registry("it requires an unsupported authentication scheme".to_string())
        };
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        for text in texts.filter_map(|text| text.to_str().ok()) {
            for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
                let parameter = |name: &str| {
                    let mut known = challenge.params.iter();
                    let found = known.find(|(known, _)| known.eq_ignore_ascii_case(name));
                    found.map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    return Ok(Self::Token {
                        server: parameter("realm").ok_or_else(unknown)?,
                        service: parameter("service"),
                    });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    return Ok(Self::Password);
                }
            }
        }
        Err(unknown())
    }
}

/// A client without cookies and referrers.
fn client(redirects: Policy) -> Result<Client, SourceError> {
    // The first caller decides; all use the same settings.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(concat!("trainer/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(SILENCE)
        .read_timeout(SILENCE)
        .referer(false)
        .redirect(redirects);
    client.build().map_err(failed)
}

/// A registry may store blobs on another host. reqwest omits `Authorization` there.
fn redirects(registry: &Url) -> Policy {
    let is_here = is_this_machine(registry);
    Policy::custom(move |attempt: Attempt<'_>| {
        let next = attempt.url();
        let is_secure = next.scheme() == "https" || (is_here && is_this_machine(next));
        if attempt.previous().len() > MOST_REDIRECTS {
            return attempt.error("too many redirects");
        }
        match is_secure {
            true => attempt.follow(),
            false => attempt.error("redirected to an address without TLS"),
        }
    })
}

/// Reads the body of a response up to a limit, regardless of its headers.
async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, SourceError> {
    let mut bytes = Vec::new();
    while let Some(more) = response.chunk().await.map_err(failed)? {
        if bytes.len() + more.len() > most {
            let why = format!("a response is larger than the {most} bytes allowed");
            return Err(SourceError::Registry(why));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Without the URL, which may contain a signature.
fn failed(error: reqwest::Error) -> SourceError {
    SourceError::Registry(error_chain(&error.without_url()))
}
