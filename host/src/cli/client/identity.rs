//! `trainer whoami`: who the caller is for a service.

use anyhow::anyhow;
use http::Method;

use super::arguments::WhoamiArguments;
use super::failure::Failure;
use super::output;
use super::server::Server;
use crate::http::WhoAmI;

/// Prints the caller's name, roles and namespaces.
///
/// # Errors
///
/// If the service cannot be asked.
pub fn whoami(arguments: &WhoamiArguments) -> Result<(), Failure> {
    let server = Server::of(&arguments.connection)?;
    let caller = ask(&server)?;
    let name = caller.name.as_deref();
    match arguments.output {
        Some(output) => output::print(&caller, &[name.unwrap_or_default()], output),
        None => output::print_text(&described(&caller)),
    }
}

/// The caller's name, for `--mine`.
///
/// # Errors
///
/// If the service cannot be asked, or has no named callers.
pub fn own_name(server: &Server) -> Result<String, Failure> {
    let unnamed = || {
        Failure::Input(anyhow!(
            "{} has no named callers, so jobs have no owner; leave --mine out",
            server.url
        ))
    };
    ask(server)?.name.ok_or_else(unnamed)
}

fn ask(server: &Server) -> Result<WhoAmI, Failure> {
    server.call(Method::GET, &["whoami"]).read()
}

fn described(caller: &WhoAmI) -> String {
    let name = caller
        .name
        .as_deref()
        .unwrap_or("(this service has no named callers)");
    let grants = caller.grants.iter().map(|grant| {
        let namespaces = match grant.namespaces.as_slice() {
            [all] if all == "*" => "all namespaces".to_string(),
            named => named.join(", "),
        };
        format!("\n  {} in {namespaces}", grant.role)
    });
    grants.fold(name.to_string(), |text, grant| text + &grant)
}
