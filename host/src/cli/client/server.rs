//! Calls to the service.

use std::time::Duration;

use anyhow::anyhow;
use http::{Method, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};

use super::arguments::Connection;
use super::connection_error::why;
use super::failure::{Failure, Problem};
use super::target::{target, variable};

/// Timeouts for connecting, and for the start of a response.
const PATIENCE: Duration = Duration::from_secs(60);

/// A service.
pub struct Server {
    agent: Agent,
    pub url: String,
    token: Option<String>,
}

impl Server {
    /// # Errors
    ///
    /// If the configuration cannot be read, or has no such server.
    pub fn of(connection: &Connection) -> Result<Self, Failure> {
        let (url, token) = target(connection, variable)?;
        // Another provider that is already installed is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier);
        let agent = Agent::config_builder()
            .tls_config(roots.build())
            .http_status_as_error(false)
            // The token is only for this service, so redirects are not followed.
            .max_redirects(0)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE))
            .user_agent(concat!("trainer/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent, url, token })
    }

    /// Creates a call to a path of the service.
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

    /// Creates a call that reads a job, or a part of it such as its manifest.
    pub fn job(&self, job: &str, part: Option<&str>, namespace: Option<&str>) -> Call<'_> {
        let path: Vec<&str> = ["train", job].into_iter().chain(part).collect();
        self.call(Method::GET, &path).query("namespace", namespace)
    }
}

/// A call that has not been sent.
pub struct Call<'a> {
    server: &'a Server,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Option<String>,
}

impl Call<'_> {
    /// Adds a query parameter, if it has a value.
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

    /// Sends the call.
    ///
    /// # Errors
    ///
    /// If there is no response, or it is an error.
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
        if response.status().is_redirection() {
            let location = response.headers().get(http::header::LOCATION);
            let location = location.and_then(|location| location.to_str().ok());
            return Err(Failure::Input(redirected(
                &self.server.url,
                status,
                location,
            )));
        }
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let problem = serde_json::from_str(&text).unwrap_or_else(|_| Problem {
            status,
            detail: foreign(&self.server.url, status, &text),
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

    /// Sends the call and parses the response.
    ///
    /// # Errors
    ///
    /// As [`Call::send`], and if the response is invalid.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        let mut response = self.send()?;
        let read = response
            .body_mut()
            .with_config()
            .limit(u64::MAX)
            .read_json();
        read.map_err(|error| {
            let url = &self.server.url;
            Failure::Answer(match error {
                ureq::Error::Json(_) => anyhow!(
                    "the answer of {url} is not that of a trainer service; see --url and TRAINER_URL"
                ),
                error => anyhow!("the answer of {url} was cut off: {}", why(&error)),
            })
        })
    }
}

/// The text of a response that is not a problem document, such as that of a proxy.
fn foreign(url: &str, status: u16, text: &str) -> String {
    /// Longest part of it that is repeated, in characters.
    const MOST: usize = 200;
    let said: String = text.trim().chars().take(MOST).collect();
    format!(
        "{url} answered {status}, not as a trainer service does; see --url and TRAINER_URL: {said}"
    )
}

fn redirected(url: &str, status: u16, location: Option<&str>) -> anyhow::Error {
    let to = match location {
        Some(location) => format!(" to {location:?}"),
        None => String::new(),
    };
    anyhow!(
        "{url} redirects ({status}){to}. Redirects are not followed, because the token is only for \
         {url}; if the service has moved, change TRAINER_URL or the configuration"
    )
}
