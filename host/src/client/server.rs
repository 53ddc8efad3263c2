//! The service that is talked to: where it is, and one call to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use http::{Method, Request};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::arguments::Connection;
use super::failure::{Failure, Problem};

/// Where `make run` serves.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Longest wait for a connection, and for the beginning of an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    /// The server that is meant where none is named.
    current: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Named>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    url: String,
    /// File with the token, so that the configuration can be shown to others.
    token_file: Option<PathBuf>,
}

/// A service.
pub struct Server {
    agent: Agent,
    pub url: String,
    token: Option<String>,
}

impl Server {
    /// # Errors
    ///
    /// When the configuration cannot be read, or has no such server.
    pub fn of(connection: &Connection) -> Result<Self, Failure> {
        let named = match &connection.url {
            Some(_) => None,
            None => named(connection)?,
        };
        let url = connection.url.clone();
        let url = url.or_else(|| named.as_ref().map(|named| named.url.clone()));
        let file = named.and_then(|named| named.token_file);
        let kept = file.map(|file| read_token(&file)).transpose()?;
        let given = connection
            .api_token
            .clone()
            .filter(|token| !token.is_empty());
        // One that is installed already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
        let agent = Agent::config_builder()
            .tls_config(roots.build())
            .http_status_as_error(false)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .user_agent(concat!("trainer/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        let url = url.unwrap_or_else(|| DEFAULT_URL.to_string());
        Ok(Self {
            agent,
            url: url.trim_end_matches('/').to_string(),
            token: given.or(kept),
        })
    }

    /// Begins a call to a path of the service.
    pub fn call(&self, method: Method, path: &[&str]) -> Call<'_> {
        let segments = path.iter().map(|segment| {
            let encoded = form_urlencoded::byte_serialize(segment.as_bytes());
            encoded.fold(String::from("/"), |path, part| path + part)
        });
        Call {
            server: self,
            method,
            path: segments.collect(),
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        }
    }
}

/// A call that is not made yet.
pub struct Call<'a> {
    server: &'a Server,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

impl Call<'_> {
    /// Adds a parameter, if it has a value.
    pub fn query(mut self, name: &'static str, value: Option<impl ToString>) -> Self {
        self.query
            .extend(value.map(|value| (name, value.to_string())));
        self
    }

    pub fn header(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    pub fn body(mut self, body: &Value) -> Self {
        self.body = Some(body.to_string());
        self
    }

    /// Makes the call.
    ///
    /// # Errors
    ///
    /// When there is no answer, or it is no success.
    pub fn send(&self) -> Result<http::Response<Body>, Failure> {
        let mut response = match self.transmit() {
            Ok(response) => response,
            Err(error) => {
                let url = self.server.url.clone();
                let error = Box::new(error);
                return Err(Failure::Unreachable { url, error });
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            status,
            detail: format!("{} answered {status}: {}", self.server.url, text.trim()),
            errors: Vec::new(),
        });
        Err(Failure::Refused {
            problem: Box::new(problem),
            source: None,
        })
    }

    fn transmit(&self) -> Result<http::Response<Body>, ureq::Error> {
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.query)
            .finish();
        let mark = if query.is_empty() { "" } else { "?" };
        let uri = format!("{}{}{mark}{query}", self.server.url, self.path);
        let mut request = Request::builder().method(self.method.clone()).uri(uri);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some(token) = &self.server.token {
            request = request.header("x-trainer-token", token);
        }
        match &self.body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.server.agent.run(request.body(body.clone())?)
            }
            None if self.method == Method::POST => {
                self.server.agent.run(request.body(String::new())?)
            }
            None => self.server.agent.run(request.body(())?),
        }
    }

    /// Makes the call and reads its answer.
    ///
    /// # Errors
    ///
    /// As [`Call::send`], and when the answer is none of this service's.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut response = self.send()?;
        let read = response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_json();
        read.map_err(|error| {
            let url = &self.server.url;
            Failure::Answer(anyhow!(error).context(format!("the answer of {url} cannot be read")))
        })
    }
}

fn named(connection: &Connection) -> Result<Option<Named>, anyhow::Error> {
    let asked_for = connection
        .config
        .clone()
        .filter(|file| !file.as_os_str().is_empty());
    let is_asked_for = asked_for.is_some();
    let Some(file) = asked_for.or_else(default_file) else {
        return Ok(None);
    };
    let mut configuration = match std::fs::read_to_string(&file) {
        Ok(text) => serde_saphyr::from_str::<Configuration>(&text)
            .with_context(|| format!("{} is not a configuration", file.display()))?,
        Err(error) if !is_asked_for && error.kind() == std::io::ErrorKind::NotFound => {
            Configuration::default()
        }
        Err(error) => return Err(anyhow!(error).context(format!("cannot read {}", file.display()))),
    };
    let server = connection.server.clone().filter(|name| !name.is_empty());
    let Some(name) = server.or(configuration.current) else {
        return Ok(None);
    };
    let known: Vec<String> = configuration.servers.keys().cloned().collect();
    let named = configuration.servers.remove(&name);
    let missing = || {
        anyhow!(
            "there is no server {name:?} in {}; known: {}",
            file.display(),
            known.join(", ")
        )
    };
    named.ok_or_else(missing).map(Some)
}

/// The place of the XDG base directory specification.
fn default_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    Some(folder.or_else(home)?.join("trainer/config.yaml"))
}

fn read_token(file: &Path) -> Result<String, anyhow::Error> {
    let text = std::fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read the token in {}", file.display()))?;
    Ok(text.trim().to_string())
}
