//! Protects a service without a token from web pages that a browser on the same machine shows.
//! Against DNS rebinding, the Host of a request must be one that no third party controls.
//! Cross-site requests to a valid host are refused by tower-http's CSRF layer, unless the operator
//! allows the origin.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::CorsLayer;
use tower_http::csrf::CsrfLayer;

use super::app::App;
use super::problem::Problem;
use super::{REQUEST_ID, given, query};

/// How long browsers may cache the result of a CORS preflight.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// An allowed origin, such as `https://dashboard.example.org`.
#[derive(Clone, Debug)]
pub struct Origin(String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let accepted = CsrfLayer::new().add_trusted_origin(text);
        let message = "it takes the origin of a site, such as https://dashboard.example.org";
        accepted
            .map(|_| Self(text.to_string()))
            .map_err(|_| message.to_string())
    }
}

/// The layer that refuses cross-site requests, except from allowed origins.
pub(super) fn csrf(trusted: &[Origin]) -> CsrfLayer {
    trusted
        .iter()
        .fold(CsrfLayer::new(), |layer, Origin(origin)| {
            // Each origin was checked when it was parsed.
            layer.clone().add_trusted_origin(origin).unwrap_or(layer)
        })
}

/// The CORS layer for allowed origins; None if there are none.
pub(super) fn cors(origins: &[Origin]) -> Option<CorsLayer> {
    let origins = origins.iter();
    let origins: Vec<HeaderValue> = origins
        .filter_map(|Origin(origin)| origin.parse().ok())
        .collect();
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::ACCEPT,
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                header::IF_NONE_MATCH,
                HeaderName::from_static("idempotency-key"),
                HeaderName::from_static("last-event-id"),
                HeaderName::from_static("traceparent"),
                REQUEST_ID,
                HeaderName::from_static(given::HEADER),
            ])
            .expose_headers([
                header::ETAG,
                header::LOCATION,
                header::RETRY_AFTER,
                header::WARNING,
                REQUEST_ID,
            ])
            .max_age(PREFLIGHT_AGE)
    })
}

/// Accepts requests with a valid Host, with a token, or for a health check, because load balancers
/// use their own names for health checks.
pub(super) async fn check_host(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if app.requires_token() || learns_nothing(request.uri()) {
        return Ok(next.run(request).await);
    }
    let named = request.headers().get(header::HOST);
    match named.map(|host| host.to_str().unwrap_or_default()) {
        Some(host) if !is_own(host, &app.allowed_hosts) => Err(Problem::foreign_host(host)),
        _ => Ok(next.run(request).await),
    }
}

/// Whether the response only shows that the service exists.
fn learns_nothing(uri: &Uri) -> bool {
    match uri.path() {
        "/healthz" | "/livez" => true,
        "/readyz" => !query::has_flag(uri.query(), "verbose"),
        _ => false,
    }
}

/// Whether a host is an IP address, localhost, or a name that the operator allows. An attacker
/// cannot make any of these point to this machine.
fn is_own(host: &str, allowed: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().trim_matches(['[', ']']);
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed
            .iter()
            .any(|allowed| name.eq_ignore_ascii_case(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_read_nothing_unless_a_site_is_named() {
        assert!(cors(&[]).is_none());
        assert!(cors(&["https://dashboard.example".parse().unwrap()]).is_some());
    }

    #[test]
    fn addresses_this_machine_and_named_hosts_are_own() {
        let allowed = ["trainer.example.org".to_string()];
        for host in [
            "127.0.0.1:8080",
            "[::1]:8080",
            "10.1.2.3",
            "localhost:8080",
            "LOCALHOST",
            "trainer.example.org",
        ] {
            assert!(is_own(host, &allowed), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:8080",
            "",
            "a b",
            "127.0.0.1.evil",
        ] {
            assert!(!is_own(host, &allowed), "{host}");
        }
    }
}
