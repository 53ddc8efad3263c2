//! Values of environment variables: a text, or a key of a secret that the cluster has.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::secret_key::SecretKey;

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
