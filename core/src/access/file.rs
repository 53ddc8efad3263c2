//! The access file as an operator writes it, and its check.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Access, Grant, NamedToken, Namespaces, OTHER_NAMESPACES, Policy, Principal, Role};
use crate::metadata;

/// Maximum length of the name of a token, in characters.
const MAX_NAME: usize = 63;

const OIDC: &str = "oidc:";
const KUBERNETES: &str = "kubernetes:";
/// How the names of users and groups begin.
const ORIGINS: [&str; 2] = [OIDC, KUBERNETES];

/// The access file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessFile {
    tokens: BTreeMap<String, TokenEntry>,
    /// Users by name: `oidc:alice`, or `kubernetes:system:serviceaccount:team-a:ci`.
    users: BTreeMap<String, GrantEntry>,
    /// Groups by name: `oidc:ml`, or `kubernetes:system:serviceaccounts:team-a`.
    groups: BTreeMap<String, GrantEntry>,
    /// The policy of each namespace; `*` for those without a section.
    namespaces: BTreeMap<String, Policy>,
    /// The policy of each role.
    #[schemars(with = "PolicyOfEachRole")]
    roles: BTreeMap<Role, Policy>,
    #[schemars(with = "OidcSettings")]
    oidc: Option<OidcSettings>,
    #[schemars(with = "TokenReviewSettings")]
    token_review: Option<TokenReviewSettings>,
}

/// The schema of a map by role: the names are known, so a misspelt one is an error.
#[derive(Default, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
struct PolicyOfEachRole {
    viewer: Policy,
    submitter: Policy,
    operator: Policy,
    admin: Policy,
}

/// A named token, of which the file has only the hash.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenEntry {
    /// 64 hexadecimal digits.
    sha256: String,
    role: Role,
    namespaces: Vec<String>,
    /// RFC 3339, such as 2027-01-31T00:00:00Z. Default: never.
    #[serde(default)]
    expires: Option<String>,
}

/// A role of a user or a group.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GrantEntry {
    role: Role,
    namespaces: Vec<String>,
}

/// The OIDC provider whose ID tokens are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcSettings {
    /// The issuer's URL, as in the `iss` claim.
    pub issuer: String,
    /// The value that the `aud` claim must have.
    pub audience: String,
    /// The claim with the user's name. Default: `sub`.
    #[serde(default = "subject")]
    pub username_claim: String,
    /// The claim with the user's groups. Default: `groups`.
    #[serde(default = "groups")]
    pub groups_claim: String,
}

/// Whether and how tokens of Kubernetes are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenReviewSettings {
    /// The audience that tokens must have. Service accounts request it with `kubectl create token
    /// --audience`.
    pub audience: String,
}

fn subject() -> String {
    "sub".to_string()
}

fn groups() -> String {
    "groups".to_string()
}

impl AccessFile {
    /// Checks what the types cannot express.
    ///
    /// # Errors
    ///
    /// Everything that is wrong, a sentence each, starting with the place in the file. No sentence
    /// contains a hash.
    pub fn check(self) -> Result<Access, Vec<String>> {
        let mut wrong = Vec::new();
        let mut access = Access {
            oidc: self.oidc,
            token_review: self.token_review,
            ..Access::default()
        };
        let mut seen = HashMap::new();
        for (name, entry) in self.tokens {
            let place = format!("tokens.{name}");
            let Some(token) = token(&name, &entry, &place, &mut wrong) else {
                continue;
            };
            if let Some(other) = seen.insert(token.hash, name.clone()) {
                wrong.push(format!(
                    "{place}.sha256: is also the hash of tokens.{other}; a token has one name"
                ));
            }
            let key = super::key(&token.hash);
            access.tokens.entry(key).or_default().push(token);
        }
        access.users = grants("users", self.users, &mut wrong);
        access.groups = grants("groups", self.groups, &mut wrong);
        for (name, policy) in &self.namespaces {
            let place = format!("namespaces.{name}");
            if name != OTHER_NAMESPACES && !metadata::is_dns_label(name) {
                wrong.push(format!("{place}: {}", metadata::NameFault::Namespace));
            }
            policy.check(&place, &mut wrong);
        }
        for (role, policy) in &self.roles {
            policy.check(&format!("roles.{role}"), &mut wrong);
        }
        access.namespaces = self.namespaces;
        access.roles = self.roles;
        check_providers(&access, &mut wrong);
        check_origins(&access, &mut wrong);
        match wrong.is_empty() {
            true => Ok(access),
            false => Err(wrong),
        }
    }
}

fn token(
    name: &str,
    entry: &TokenEntry,
    place: &str,
    wrong: &mut Vec<String>,
) -> Option<NamedToken> {
    // The names of users begin like this.
    let is_of_user = ORIGINS.iter().any(|origin| name.starts_with(origin));
    if is_of_user
        || name.is_empty()
        || name.len() > MAX_NAME
        || !name.chars().all(|c| c.is_ascii_graphic())
    {
        wrong.push(format!(
            "{place}: not a valid name of a token; use 1 to {MAX_NAME} visible ASCII characters, not \
             beginning with oidc: or kubernetes:"
        ));
    }
    let grant = grant(place, entry.role, &entry.namespaces, wrong);
    let hash = parse_hash(&entry.sha256);
    if hash.is_none() {
        wrong.push(format!(
            "{place}.sha256: not a SHA-256 hash of 64 hexadecimal digits; `trainer token new` \
             prints it"
        ));
    }
    let expires = match entry.expires.as_deref().map(str::parse::<Timestamp>) {
        None => None,
        Some(Ok(time)) => Some(time),
        Some(Err(_)) => {
            wrong.push(format!(
                "{place}.expires: not a time; write one with its zone, such as 2027-01-31T00:00:00Z"
            ));
            None
        }
    };
    Some(NamedToken {
        hash: hash?,
        expires,
        principal: Arc::new(Principal::new(name, vec![grant])),
    })
}

fn grants(
    section: &str,
    entries: BTreeMap<String, GrantEntry>,
    wrong: &mut Vec<String>,
) -> BTreeMap<String, Grant> {
    let entries = entries.into_iter().map(|(name, entry)| {
        let place = format!("{section}.{name}");
        if !ORIGINS.iter().any(|origin| name.starts_with(origin)) {
            wrong.push(format!(
                "{place}: does not say where it is from; write oidc:{name} or kubernetes:{name}"
            ));
        }
        let grant = grant(&place, entry.role, &entry.namespaces, wrong);
        (name, grant)
    });
    entries.collect()
}

fn grant(place: &str, role: Role, namespaces: &[String], wrong: &mut Vec<String>) -> Grant {
    let is_all = namespaces.iter().any(|name| name == OTHER_NAMESPACES);
    if namespaces.is_empty() {
        wrong.push(format!(
            "{place}.namespaces: empty, so this grants nothing; list namespaces, or [\"*\"] for all"
        ));
    }
    for name in namespaces {
        if name != OTHER_NAMESPACES && !metadata::is_dns_label(name) {
            wrong.push(format!(
                "{place}.namespaces: {name:?}: {}",
                metadata::NameFault::Namespace
            ));
        }
    }
    if role == Role::Admin && !is_all {
        wrong.push(format!(
            "{place}.namespaces: an admin changes the service for all namespaces; write [\"*\"], or \
             choose the role operator"
        ));
    }
    Grant {
        role,
        namespaces: match is_all {
            true => Namespaces::All,
            false => Namespaces::Only(namespaces.iter().cloned().collect()),
        },
    }
}

fn check_providers(access: &Access, wrong: &mut Vec<String>) {
    if let Some(oidc) = &access.oidc {
        let is_secure = oidc.issuer.starts_with("https://") || is_loopback(&oidc.issuer);
        if !is_secure {
            wrong.push(
                "oidc.issuer: must be an https:// URL; http:// is allowed only for 127.0.0.1 and \
                 localhost"
                    .to_string(),
            );
        }
        if oidc.audience.is_empty() {
            wrong.push("oidc.audience: empty; set the client id of this service".to_string());
        }
    }
    let review = access.token_review.as_ref();
    if review.is_some_and(|review| review.audience.is_empty()) {
        wrong.push(
            "token_review.audience: empty; choose a name that only tokens for this service have, \
             such as trainer"
                .to_string(),
        );
    }
}

/// A grant to users whose tokens are not accepted would never apply.
fn check_origins(access: &Access, wrong: &mut Vec<String>) {
    let oidc = access.oidc.is_none().then_some((OIDC, "oidc"));
    let kubernetes = access.token_review.is_none();
    let kubernetes = kubernetes.then_some((KUBERNETES, "token_review"));
    let missing = [oidc, kubernetes];
    let users = access.users.keys().map(|name| ("users", name));
    let groups = access.groups.keys().map(|name| ("groups", name));
    for (section, name) in users.chain(groups) {
        let mut missing = missing.iter().flatten();
        if let Some((_, provider)) = missing.find(|(origin, _)| name.starts_with(origin)) {
            wrong.push(format!(
                "{section}.{name}: grants nothing, because the file has no section {provider}, so no \
                 such token is accepted; add [{provider}] or remove this entry"
            ));
        }
    }
}

/// Whether a URL points to this machine, so that no other machine can read the traffic.
fn is_loopback(url: &str) -> bool {
    let rest = url.strip_prefix("http://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host);
    matches!(host, "127.0.0.1" | "localhost" | "[::1]")
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (byte, index) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(index..index + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(file: Value) -> Result<Access, Vec<String>> {
        let file: AccessFile = serde_json::from_value(file).unwrap();
        file.check()
    }

    fn token(hash: &str, role: &str, namespaces: &[&str]) -> Value {
        json!({"sha256": hash, "role": role, "namespaces": namespaces})
    }

    #[test]
    fn a_token_is_found_by_its_hash() {
        let hash = "ab".repeat(32);
        let access = check(json!({"tokens": {"alice": token(&hash, "viewer", &["a"])}})).unwrap();
        let found: Vec<_> = access.candidates(&[0xab; 32]).collect();
        assert_eq!(found[0].principal.name(), Some("alice"));
        assert_eq!(access.candidates(&[0; 32]).count(), 0);
    }

    #[test]
    fn everything_that_is_wrong_is_reported_and_no_hash_is_repeated() {
        let hash = "cd".repeat(32);
        let wrong = check(json!({
            "tokens": {
                "one": token(&hash, "viewer", &["a"]),
                "two": token(&hash, "admin", &["a"]),
                "three": token("secret", "viewer", &[]),
                "four": {"sha256": "ef".repeat(32), "role": "viewer", "namespaces": ["A!"],
                         "expires": "tomorrow"},
            },
            "groups": {"kubernetes:ml": {"role": "viewer", "namespaces": ["a"]}},
            "namespaces": {"team-a": {"images": [""]}},
            "oidc": {"issuer": "http://127.0.0.1.evil.example", "audience": ""},
        }))
        .unwrap_err();
        let reported = wrong.join("\n");
        for part in [
            "tokens.two.namespaces: an admin",
            "tokens.two.sha256: is also the hash of tokens.one",
            "tokens.three.sha256: not a SHA-256",
            "tokens.three.namespaces: empty",
            "tokens.four.namespaces: \"A!\"",
            "tokens.four.expires: not a time",
            "namespaces.team-a.images: an entry is empty",
            "oidc.issuer: must be an https:// URL",
            "oidc.audience: empty",
            "groups.kubernetes:ml: grants nothing, because the file has no section token_review",
        ] {
            assert!(reported.contains(part), "{part}: {reported}");
        }
        assert!(
            !reported.contains(&hash) && !reported.contains("secret"),
            "{reported}"
        );
    }

    #[test]
    fn a_user_has_what_it_and_its_groups_are_granted() {
        let access = check(json!({
            "oidc": {"issuer": "https://issuer", "audience": "trainer"},
            "users": {"oidc:alice": {"role": "viewer", "namespaces": ["*"]}},
            "groups": {"oidc:ml": {"role": "operator", "namespaces": ["a"]}},
        }))
        .unwrap();
        let alice = access
            .user("oidc:alice", ["oidc:ml", "oidc:other"])
            .unwrap();
        assert_eq!(alice.role_in("a"), Some(Role::Operator));
        assert_eq!(alice.role_in("b"), Some(Role::Viewer));
        assert_eq!(access.user("oidc:bob", ["oidc:other"]), None);
    }
}
