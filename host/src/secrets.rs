//! Hides secrets from other processes of the same user: the initial environment and arguments of a
//! process stay readable in `/proc` as long as it runs.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The secret variables.
const SECRET: [&str; 3] = [API_TOKEN, "TRAINER_REGISTRY_PASSWORD", SECRETS_KEY];
/// The token that clients send.
pub const API_TOKEN: &str = "TRAINER_API_TOKEN";
/// The key by which secrets on disk are encrypted.
pub const SECRETS_KEY: &str = "TRAINER_SECRETS_KEY";
/// The secret option.
const TOKEN_OPTION: &str = "--api-token";
/// Marks that secrets are on standard input.
const MOVED: &str = "TRAINER_SECRETS_ON_STDIN";
/// Writing more than a pipe can buffer would block forever.
const MOST_BYTES: usize = 32 * 1024;

static MOVED_SECRETS: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// A secret from the environment, whether it was moved or not. Empty counts as unset.
pub fn variable(name: &str) -> Option<String> {
    let moved = MOVED_SECRETS.get().and_then(|secrets| secrets.get(name));
    let value = moved.cloned().or_else(|| std::env::var(name).ok());
    value.filter(|value| !value.is_empty())
}

/// Hides the secrets of this process. If it was started with secrets, it re-executes itself with
/// them on standard input. `token` is the value of the option or variable. Call this before
/// starting threads.
///
/// # Errors
///
/// If they cannot be hidden.
pub fn hide(token: &str) -> io::Result<()> {
    take_out_of_environment(token)?;
    // Only root may access the memory and open files of this process.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

fn take_out_of_environment(token: &str) -> io::Result<()> {
    if std::env::var_os(MOVED).is_some() {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        let _ = MOVED_SECRETS.set(serde_json::from_str(&text)?);
        return Ok(());
    }
    let mut secrets: BTreeMap<&str, String> = SECRET
        .iter()
        .filter_map(|name| Some((*name, variable(name)?)))
        .collect();
    if !token.is_empty() {
        secrets.insert(API_TOKEN, token.to_string());
    }
    if secrets.is_empty() {
        return Ok(());
    }
    let text = serde_json::to_string(&secrets)?;
    if text.len() > MOST_BYTES {
        return Err(io::Error::other("they are too long"));
    }
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(text.as_bytes())?;
    drop(writer);
    let mut again = Command::new(std::env::current_exe()?);
    again
        .args(without_token(std::env::args_os().skip(1)))
        .env(MOVED, "1")
        .stdin(Stdio::from(reader));
    for name in SECRET {
        again.env_remove(name);
    }
    Err(again.exec())
}

/// The arguments without the secret one.
fn without_token(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments.peekable();
    while let Some(argument) = arguments.next() {
        match value_of(&argument) {
            None => kept.push(argument),
            Some(None) => drop(arguments.next()),
            Some(Some(_)) => {}
        }
    }
    kept
}

/// Whether an argument is the token option, and its value if it is in the same argument.
fn value_of(argument: &OsStr) -> Option<Option<&[u8]>> {
    let rest = argument.as_bytes().strip_prefix(TOKEN_OPTION.as_bytes())?;
    match rest.strip_prefix(b"=") {
        Some(value) => Some(Some(value)),
        None => rest.is_empty().then_some(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_taken_from_arguments_and_nothing_else() {
        let kept = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from);
            without_token(arguments)
        };
        assert_eq!(
            kept(&["serve", "--api-token", "x", "--log", "info"]),
            ["serve", "--log", "info"]
        );
        assert_eq!(kept(&["serve", "--api-token=x"]), ["serve"]);
        assert_eq!(
            kept(&["serve", "--api-tokens", "x"]),
            ["serve", "--api-tokens", "x"]
        );
        assert_eq!(kept(&["serve", "--api-token"]), ["serve"]);
    }
}
