//! The key by which the secrets in the data folder are encrypted.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::cluster::local::StoreKey;
use crate::{secrets, token};

/// A file that a setting names. An empty variable names none.
pub(super) fn named_file(file: Option<&PathBuf>) -> Option<&PathBuf> {
    file.filter(|file| !file.as_os_str().is_empty())
}

/// The key by which the secrets in the data folder are encrypted, from TRAINER_SECRETS_KEY or a file.
///
/// # Errors
///
/// If both are set, or what is set is not a key. The error does not contain it.
pub fn secrets_key(file: Option<&PathBuf>) -> anyhow::Result<Option<StoreKey>> {
    let (variable, setting) = (secrets::SECRETS_KEY, "TRAINER_SECRETS_KEY_FILE");
    let key = match (secrets::variable(variable), named_file(file)) {
        (Some(_), Some(_)) => bail!("both {variable} and {setting} are set: set one of them"),
        (Some(text), None) => StoreKey::parse(&text).with_context(|| variable.to_string())?,
        (None, Some(file)) => {
            let text = token::in_file(setting, file)?;
            StoreKey::parse(&text).with_context(|| format!("{setting}: {}", file.display()))?
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(key))
}
