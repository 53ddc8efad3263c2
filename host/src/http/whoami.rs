//! `GET /whoami`: the caller of a request, and what it may do.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::authorized::Authorized;
use crate::access_rules::Role;

/// The answer of `GET /whoami`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct WhoAmI {
    /// The name of the token or the user. Absent on a service without an access file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub grants: Vec<GrantView>,
}

/// A role in some namespaces.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct GrantView {
    pub role: Role,
    /// `*` for all.
    pub namespaces: Vec<String>,
}

pub(super) async fn whoami(authorized: Authorized) -> Json<WhoAmI> {
    let grants = authorized.principal.grants().iter();
    let grants = grants.map(|grant| GrantView {
        role: grant.role,
        namespaces: grant
            .namespaces
            .listed()
            .into_iter()
            .map(str::to_string)
            .collect(),
    });
    Json(WhoAmI {
        name: authorized.principal.name().map(str::to_string),
        grants: grants.collect(),
    })
}
