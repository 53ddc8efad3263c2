//! A service that asks for no token is for the programs of its machine, not for the web pages that a
//! browser there shows. A page of another site must not reach it by its own name, made to resolve to
//! this machine: the host that a request names has to be one that no stranger controls. What a page
//! sends to the right host from elsewhere is refused by tower-http's CSRF layer.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header;
use axum::http::uri::Authority;
use axum::middleware::Next;
use axum::response::Response;

use super::App;
use super::problem::Problem;

/// Lets a request through that names a host of this service.
pub(super) async fn check_host(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let named = request.headers().get(header::HOST);
    match named.map(|host| host.to_str().unwrap_or_default()) {
        Some(host) if !is_own(host, &app.allowed_hosts) => Err(Problem::foreign_host(host)),
        _ => Ok(next.run(request).await),
    }
}

/// Whether a host is an address, this machine, or one that the operator names: whoever makes a name
/// resolve to this machine cannot make it one of these.
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
