//! Determines the address and token of the service from flags, variables and the configuration
//! file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

use super::arguments::Connection;
use crate::suggestion::did_you_mean;
use crate::{document, text, token};

/// The address of `make run`.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The configuration file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Configuration {
    /// The default server.
    current: Option<String>,
    #[serde(default)]
    servers: BTreeMap<String, Named>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    url: String,
    /// File with the token, so that the configuration itself contains no secret.
    token_file: Option<PathBuf>,
}

/// The value of a variable that is set and not empty.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The address of the service and its token. Flags take precedence over variables, and variables
/// over the configuration.
pub(super) fn target(
    connection: &Connection,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(String, Option<String>), anyhow::Error> {
    let flag = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let (url, file) = match (flag(&connection.url), flag(&connection.server)) {
        (Some(url), _) => (Some(("--url", url)), None),
        (None, Some(name)) => of_named(named(connection, Some(name))?),
        (None, None) => match variable("TRAINER_URL") {
            Some(url) => (Some(("TRAINER_URL", url)), None),
            None => of_named(named(connection, variable("TRAINER_SERVER"))?),
        },
    };
    let flagged = flag(&connection.api_token).map(|token| ("--api-token", token));
    let varied = || variable("TRAINER_API_TOKEN").map(|token| ("TRAINER_API_TOKEN", token));
    let kept = || file.map(|file| read_token(&file)).transpose();
    let kept = || Ok::<_, anyhow::Error>(kept()?.map(|token| ("the token file", token)));
    let token = match (flagged, flag(&connection.server)) {
        (Some(token), _) => Some(token),
        // The token in the variable may be for another service.
        (None, Some(_)) => kept()?.or_else(varied),
        (None, None) => match varied() {
            Some(token) => Some(token),
            None => kept()?,
        },
    };
    let token = token.map(|(setting, token)| token::given(setting, &token));
    let url = match url {
        Some((setting, url)) => address(setting, &url)?,
        None => DEFAULT_URL.to_string(),
    };
    Ok((url, token.transpose()?.flatten()))
}

type Target = (Option<(&'static str, String)>, Option<PathBuf>);

fn of_named(named: Option<Named>) -> Target {
    match named {
        Some(named) => (
            Some(("the url of the configuration", named.url)),
            named.token_file,
        ),
        None => (None, None),
    }
}

/// Checks the address of a service.
fn address(setting: &str, text: &str) -> Result<String, anyhow::Error> {
    let url = text.trim();
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme.is_empty() {
        bail!("{setting} is {url:?}, which has no scheme; use http://{rest}");
    }
    if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
        bail!("{setting} is {url:?}; expected an address that starts with http:// or https://");
    }
    let parsed = url.parse::<Uri>().ok();
    let is_host = parsed.as_ref().is_some_and(|uri| {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        uri.host().is_some_and(|host| !host.is_empty()) && !authority.contains('@')
    });
    let is_plain = parsed.is_some_and(|uri| uri.query().is_none()) && !url.contains('#');
    if !is_host || !is_plain {
        bail!(
            "{setting} is {url:?}; expected an address such as https://trainer.example.org, \
             optionally with a path"
        );
    }
    Ok(url.trim_end_matches('/').to_string())
}

fn named(connection: &Connection, server: Option<String>) -> Result<Option<Named>, anyhow::Error> {
    let asked_for = connection
        .config
        .clone()
        .filter(|file| !file.as_os_str().is_empty());
    let is_asked_for = asked_for.is_some();
    let Some(file) = asked_for.or_else(default_file) else {
        return match server {
            Some(name) => Err(anyhow!(
                "unknown server {name:?}: there is no configuration file"
            )),
            None => Ok(None),
        };
    };
    let mut configuration: Configuration = match is_asked_for || file.exists() {
        false => Configuration::default(),
        true => {
            let text = text::read(&file)?;
            let wrong = |wrong: Vec<String>| anyhow!("{}: {}", file.display(), wrong.join("; "));
            document::from_yaml(&text).map_err(wrong)?
        }
    };
    let Some(name) = server.or(configuration.current) else {
        return Ok(None);
    };
    let known: Vec<String> = configuration.servers.keys().cloned().collect();
    let named = configuration.servers.remove(&name);
    let missing = || {
        anyhow!(
            "unknown server {name:?} in {}; known: {}{}",
            file.display(),
            known.join(", "),
            did_you_mean(&name, known.iter().map(String::as_str))
        )
    };
    named.ok_or_else(missing).map(Some)
}

/// The path according to the XDG base directory specification.
fn default_file() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let folder = folder.filter(|folder| folder.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    Some(folder.or_else(home)?.join("trainer/config.yaml"))
}

fn read_token(file: &Path) -> Result<String, anyhow::Error> {
    text::read(file).context("the token of the server")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIGURATION: &str =
        "current: a\nservers:\n  a: {url: 'http://a'}\n  b: {url: 'http://b'}\n";

    fn chosen(flags: [&str; 3], variables: &[(&str, &str)]) -> (String, Option<String>) {
        let folder = tempfile::tempdir().unwrap();
        let (config, file) = (
            folder.path().join("config.yaml"),
            folder.path().join("token"),
        );
        std::fs::write(&file, "of-b\n").unwrap();
        let with_token = format!("http://b', token_file: '{}", file.display());
        std::fs::write(&config, CONFIGURATION.replace("http://b", &with_token)).unwrap();
        let [url, server, api_token] = flags.map(|flag| Some(flag.to_string()));
        let connection = Connection {
            url,
            api_token,
            server,
            config: Some(config),
        };
        let variable = |name: &str| {
            let mut known = variables.iter();
            known
                .find(|(known, _)| *known == name)
                .map(|(_, value)| value.to_string())
        };
        target(&connection, variable).unwrap()
    }

    #[test]
    fn a_flag_beats_a_variable_and_a_variable_the_configuration() {
        let url = ("TRAINER_URL", "http://v");
        let server = ("TRAINER_SERVER", "b");
        for (flags, variables, expected) in [
            (["", "", ""], &[][..], "http://a"),
            (["", "", ""], &[server], "http://b"),
            (["", "", ""], &[url], "http://v"),
            (["", "", ""], &[url, server], "http://v"),
            (["", "b", ""], &[url], "http://b"),
            (["", "b", ""], &[url, ("TRAINER_SERVER", "a")], "http://b"),
            (["http://f/", "", ""], &[url, server], "http://f"),
        ] {
            assert_eq!(
                chosen(flags, variables).0,
                expected,
                "{flags:?} {variables:?}"
            );
        }
    }

    #[test]
    fn a_server_that_is_named_gets_its_own_token() {
        let token = ("TRAINER_API_TOKEN", "varied");
        for (flags, variables, expected) in [
            (["", "", ""], &[][..], None),
            (["", "", ""], &[token], Some("varied")),
            (["", "", "flagged"], &[token], Some("flagged")),
            (["", "b", ""], &[token], Some("of-b")),
            (["", "b", "flagged"], &[token], Some("flagged")),
            (["", "a", ""], &[token], Some("varied")),
            (["http://f", "", ""], &[token], Some("varied")),
        ] {
            let (_, token) = chosen(flags, variables);
            assert_eq!(token.as_deref(), expected, "{flags:?} {variables:?}");
        }
    }

    #[test]
    fn an_address_without_a_scheme_is_told_with_one() {
        for (given, said) in [
            ("127.0.0.1:8080", "no scheme; use http://127.0.0.1:8080"),
            ("localhost:8080", "no scheme; use http://localhost:8080"),
            (
                "trainer.example.org/api",
                "no scheme; use http://trainer.example.org/api",
            ),
            ("ftp://a", "starts with http:// or https://"),
            ("http://", "an address such as"),
            ("http://a?b", "an address such as"),
            ("http://user:pass@a", "an address such as"),
            ("http://a b", "an address such as"),
        ] {
            let message = address("TRAINER_URL", given).unwrap_err().to_string();
            assert!(
                message.starts_with("TRAINER_URL is ") && message.contains(said),
                "{message}"
            );
        }
        for given in [
            "http://a",
            "https://a:1/b/",
            " http://[::1]:80 ",
            "HTTP://a",
        ] {
            assert!(address("TRAINER_URL", given).is_ok(), "{given}");
        }
    }

    proptest! {
        #[test]
        fn no_address_panics(text in r"(https?://)?\PC{0,30}") {
            let _ = address("TRAINER_URL", &text);
        }
    }
}
