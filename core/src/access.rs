//! Who may use a service, and for what: the access file of an operator, checked and ready to use.
//!
//! Without an access file there is one caller, who may do everything.

mod file;
mod limits;
mod list;
mod operation;
mod policy;
mod principal;
mod rules;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

pub use file::{AccessFile, OidcSettings, TokenReviewSettings};
pub use limits::Usage;
pub use operation::{OPERATIONS, Reach, reach};
pub use policy::{DigestRule, Policy};
pub use principal::{Forbidden, Grant, Namespaces, Principal, Role};
pub use rules::{Defaults, Refusal, Rules};

/// The SHA-256 hash of a token.
pub type TokenHash = [u8; 32];

/// A token of the access file.
#[derive(Debug)]
pub struct NamedToken {
    pub hash: TokenHash,
    pub expires: Option<Timestamp>,
    pub principal: Arc<Principal>,
}

/// A checked access file.
#[derive(Debug, Default)]
pub struct Access {
    /// By the first bytes of the hash. The whole hashes are compared in constant time.
    tokens: HashMap<[u8; 8], Vec<NamedToken>>,
    users: BTreeMap<String, Grant>,
    groups: BTreeMap<String, Grant>,
    namespaces: BTreeMap<String, Policy>,
    roles: BTreeMap<Role, Policy>,
    pub oidc: Option<OidcSettings>,
    pub token_review: Option<TokenReviewSettings>,
}

/// The section of the policy for all namespaces that have none of their own.
const OTHER_NAMESPACES: &str = "*";

impl Access {
    /// The tokens that may have this hash.
    pub fn candidates(&self, hash: &TokenHash) -> impl Iterator<Item = &NamedToken> {
        self.tokens.get(&key(hash)).into_iter().flatten()
    }

    /// The number of named tokens.
    pub fn count(&self) -> usize {
        self.tokens.values().map(Vec::len).sum()
    }

    /// Whether no token, user or group has a role.
    pub fn grants_nothing(&self) -> bool {
        self.tokens.is_empty() && self.users.is_empty() && self.groups.is_empty()
    }

    /// What a user of Kubernetes or of an OIDC provider may do; none if the file grants nothing.
    pub fn user<'a>(
        &self,
        name: &str,
        groups: impl IntoIterator<Item = &'a str>,
    ) -> Option<Principal> {
        let own = self.users.get(name).into_iter();
        let of_groups = groups.into_iter().filter_map(|name| self.groups.get(name));
        let grants: Vec<Grant> = own.chain(of_groups).cloned().collect();
        (!grants.is_empty()).then(|| Principal::new(name, grants))
    }

    /// The rules for a caller with a role in a namespace.
    pub fn rules<'a>(&'a self, namespace: &str, role: Role) -> Rules<'a> {
        let own = self.namespaces.get_key_value(namespace);
        let other = || self.namespaces.get_key_value(OTHER_NAMESPACES);
        Rules::new(own.or_else(other), self.roles.get_key_value(&role))
    }
}

/// The part of a hash by which a token is looked up.
fn key(hash: &TokenHash) -> [u8; 8] {
    let mut key = [0; 8];
    key.copy_from_slice(&hash[..8]);
    key
}
