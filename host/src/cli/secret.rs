//! `trainer secret`: the secrets of the local cluster.

use std::io::{ErrorKind, IsTerminal, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::cluster::local::Secrets;
use crate::config::{data_folder, secrets_key};
use crate::metadata::check_namespace;
use crate::request::SecretKey;

/// Maximum number of bytes that are read from standard input.
const MAX_BYTES: u64 = 1024 * 1024;

#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Store a value from standard input: `trainer secret set hf-token token < FILE`.
    Set(KeyArguments),
    /// Remove a key.
    Delete(KeyArguments),
    /// List secrets and keys, without values.
    List(Place),
}

#[derive(Debug, Args)]
pub struct KeyArguments {
    /// Name of the secret.
    secret: String,
    /// Key of the secret.
    key: String,
    #[command(flatten)]
    place: Place,
}

/// Where the secrets are.
#[derive(Debug, Args)]
pub struct Place {
    /// Namespace of the jobs that may use the secret.
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Data folder of the service.
    #[arg(long, env = "TRAINER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// File with the key by which the service encrypts secrets. Or set TRAINER_SECRETS_KEY to the key.
    #[arg(long, env = "TRAINER_SECRETS_KEY_FILE")]
    secrets_key_file: Option<PathBuf>,
}

impl Place {
    fn secrets(&self) -> anyhow::Result<Secrets> {
        if let Err(wrong) = check_namespace(&self.namespace) {
            bail!("{:?}: {wrong}", self.namespace);
        }
        let secrets = Secrets::of(&data_folder(self.data_dir.as_deref()));
        Ok(secrets.with_key(secrets_key(self.secrets_key_file.as_ref())?))
    }
}

impl KeyArguments {
    fn key(&self) -> anyhow::Result<SecretKey> {
        let key = SecretKey {
            secret: self.secret.clone(),
            key: self.key.clone(),
        };
        key.check().map_err(anyhow::Error::msg)?;
        Ok(key)
    }
}

/// Runs a command.
///
/// # Errors
///
/// If the names are not valid, or the data folder cannot be used.
pub fn run(command: &SecretCommand) -> anyhow::Result<()> {
    match command {
        SecretCommand::Set(arguments) => {
            let (secrets, key) = (arguments.place.secrets()?, arguments.key()?);
            let value = value()?;
            let set = secrets.set(&arguments.place.namespace, &key, &value);
            set.context("cannot store the secret")
        }
        SecretCommand::Delete(arguments) => {
            let (secrets, key) = (arguments.place.secrets()?, arguments.key()?);
            let namespace = &arguments.place.namespace;
            match secrets.delete(namespace, &key) {
                Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                    "secret {} of namespace {namespace} has no key {}; `trainer secret list` shows what \
                     there is",
                    key.secret,
                    key.key
                ),
                deleted => deleted.context("cannot remove the key"),
            }
        }
        SecretCommand::List(place) => {
            for key in place.secrets()?.list(&place.namespace)? {
                writeln!(std::io::stdout(), "{} {}", key.secret, key.key)?;
            }
            Ok(())
        }
    }
}

/// The value on standard input, without the line break that editors and shells add.
fn value() -> anyhow::Result<String> {
    let input = std::io::stdin();
    if input.is_terminal() {
        writeln!(
            std::io::stderr(),
            "Enter the value, then press Ctrl-D on a new line:"
        )?;
    }
    let mut text = String::new();
    let read = input.take(MAX_BYTES).read_to_string(&mut text);
    read.context("cannot read the value from standard input as UTF-8")?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    Ok(value.strip_suffix('\r').unwrap_or(value).to_string())
}
