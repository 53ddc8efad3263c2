//! `trainer token new`: creates a token and its entry for the access file.

use std::io::Write;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access_rules::{AccessFile, Role};
use crate::{document, parser};

const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token. It is printed once, on standard error; its entry for the access file, which
    /// has only a hash, goes to standard output: `trainer token new alice >> access.toml`.
    New(NewToken),
}

#[derive(Debug, Args)]
pub struct NewToken {
    /// Name of the caller who gets the token, and owner of its jobs.
    name: String,
    /// What the caller may do: viewer, submitter, operator or admin.
    #[arg(long, default_value = "submitter", value_parser = role)]
    role: Role,
    /// Namespaces of the caller, or * for all.
    #[arg(short, long, value_delimiter = ',', default_value = "default")]
    namespace: Vec<String>,
    /// Days until the token expires. Default: it does not.
    #[arg(long, value_parser = parser::positive_u32)]
    days: Option<u32>,
}

fn role(text: &str) -> Result<Role, String> {
    let known = Role::ALL.into_iter().find(|role| role.as_str() == text);
    known.ok_or_else(|| "it takes viewer, submitter, operator or admin".to_string())
}

/// Runs a command.
///
/// # Errors
///
/// If the arguments make no valid entry, or the output is closed.
pub fn run(command: &TokenCommand) -> anyhow::Result<()> {
    let TokenCommand::New(new) = command;
    // Two random ids have 244 random bits.
    let token = format!(
        "trainer_{}{}",
        Uuid::new_v4().simple(),
        Uuid::new_v4().simple()
    );
    let entry = entry(new, &token, Timestamp::now())?;
    std::io::stdout().write_all(entry.as_bytes())?;
    writeln!(
        std::io::stderr(),
        "# The token of {}. It is not stored anywhere, so keep it now:\n{token}",
        new.name
    )?;
    Ok(())
}

/// The entry of the access file.
fn entry(new: &NewToken, token: &str, now: Timestamp) -> anyhow::Result<String> {
    let hash = Sha256::digest(token);
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    // A text of JSON with visible ASCII characters is one of TOML.
    let name = serde_json::to_string(&new.name)?;
    let namespaces = serde_json::to_string(&new.namespace)?;
    let role = new.role;
    let mut text = format!(
        "\n[tokens.{name}]\nsha256 = \"{hash}\"\nrole = \"{role}\"\nnamespaces = {namespaces}\n"
    );
    if let Some(days) = new.days {
        let seconds = now.as_second() + i64::from(days) * SECONDS_PER_DAY;
        let expires = Timestamp::from_second(seconds)?;
        text.push_str(&format!("expires = {expires}\n"));
    }
    let wrong = |wrong: Vec<String>| anyhow::anyhow!(wrong.join("; "));
    let read: AccessFile = document::from_toml(&text).map_err(wrong)?;
    read.check().map_err(wrong)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, role: Role, namespace: &str) -> NewToken {
        NewToken {
            name: name.to_string(),
            role,
            namespace: vec![namespace.to_string()],
            days: Some(1),
        }
    }

    #[test]
    fn an_entry_grants_what_was_asked_and_has_no_token() {
        let text = entry(
            &new("alice", Role::Viewer, "a"),
            "secret",
            Timestamp::UNIX_EPOCH,
        );
        let text = text.unwrap();
        assert!(!text.contains("secret"), "{text}");
        assert!(text.contains("expires = 1970-01-02T00:00:00Z"), "{text}");
        let file: AccessFile = document::from_toml(&text).unwrap();
        let access = file.check().unwrap();
        let hash = Sha256::digest("secret").into();
        let found = access.candidates(&hash).next().unwrap();
        assert_eq!(found.principal.role_in("a"), Some(Role::Viewer));
    }

    #[test]
    fn an_entry_that_the_service_would_refuse_is_not_printed() {
        let now = Timestamp::UNIX_EPOCH;
        let refused = entry(&new("alice", Role::Admin, "a"), "secret", now).unwrap_err();
        assert!(refused.to_string().contains("an admin"), "{refused}");
        assert!(entry(&new("a b", Role::Viewer, "a"), "secret", now).is_err());
    }
}
