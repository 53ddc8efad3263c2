//! Values of environment variables: a text, or a key of a secret that the cluster has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::metadata::is_dns_subdomain;

/// Maximum length of a key of a secret, in characters.
const MAX_KEY: usize = 253;
/// How the names of the service's own secrets begin. No job may read them.
const OWN_PREFIX: &str = "trainer-";

/// A value of `env` in a request.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum EnvValue {
    Text(String),
    Secret(SecretKey),
}

/// One schema for both forms, so that a finding names both.
impl JsonSchema for EnvValue {
    fn schema_name() -> Cow<'static, str> {
        "EnvValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "object"],
            "properties": {
                "secret": {"type": "string", "minLength": 1, "maxLength": 253},
                "key": {"type": "string", "minLength": 1, "maxLength": 253},
            },
            "required": ["secret", "key"],
            "additionalProperties": false,
        })
    }
}

/// A key of a secret in the namespace of the job.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretKey {
    pub secret: String,
    pub key: String,
}

impl SecretKey {
    /// Checks the names.
    ///
    /// # Errors
    ///
    /// What is wrong. The sentence follows the name of the field.
    pub fn check(&self) -> Result<(), String> {
        let Self { secret, key } = self;
        if !is_dns_subdomain(secret) {
            return Err(format!(
                "secret {secret:?} is not a valid name; use a-z, 0-9, '-' and '.', starting and \
                 ending with a letter or digit"
            ));
        }
        if secret.starts_with(OWN_PREFIX) {
            return Err(format!(
                "secret {secret} is reserved: secrets whose names begin with {OWN_PREFIX} belong to \
                 the service; choose another secret"
            ));
        }
        let is_of_key = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_dots = key.chars().all(|c| c == '.');
        match key.len() > MAX_KEY || is_dots || !key.chars().all(is_of_key) {
            true => Err(format!(
                "key {key:?} is not a valid key of a secret; use A-Z, a-z, 0-9, '-', '_' and '.'"
            )),
            false => Ok(()),
        }
    }
}

/// Splits variables into texts and keys of secrets.
pub(super) fn split(
    env: BTreeMap<String, EnvValue>,
) -> (BTreeMap<String, String>, BTreeMap<String, SecretKey>) {
    let (mut texts, mut secrets) = (BTreeMap::new(), BTreeMap::new());
    for (name, value) in env {
        match value {
            EnvValue::Text(text) => {
                texts.insert(name, text);
            }
            EnvValue::Secret(secret) => {
                secrets.insert(name, secret);
            }
        }
    }
    (texts, secrets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secret: &str, key: &str) -> Result<(), String> {
        let (secret, key) = (secret.to_string(), key.to_string());
        SecretKey { secret, key }.check()
    }

    #[test]
    fn a_key_of_a_secret_has_names_of_kubernetes_and_is_not_of_the_service() {
        for (secret, key) in [("hf-token", "token"), ("a.b", "tls.crt"), ("a", "A_B-c")] {
            assert_eq!(check(secret, key), Ok(()));
        }
        for (secret, key) in [
            ("", "token"),
            ("..", "token"),
            ("a/b", "token"),
            ("Upper", "token"),
            ("a", ""),
            ("a", ".."),
            ("a", "b/c"),
            ("trainer-token", "token"),
            ("trainer-access", "access.toml"),
        ] {
            assert!(check(secret, key).is_err(), "{secret} {key}");
        }
    }
}
