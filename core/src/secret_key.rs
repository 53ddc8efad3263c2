//! Names of the keys of secrets.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::metadata::is_dns_subdomain;

/// Maximum length of a key of a secret, in characters.
const MAX_KEY: usize = 253;
/// How the names of the service's own secrets begin. No job may read them.
const OWN_PREFIX: &str = "trainer-";

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
