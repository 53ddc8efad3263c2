//! Tokens of an OIDC provider. Its keys are fetched when they are first needed, again when a token
//! names an unknown one, and after an hour.

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Client;
use reqwest::redirect::Policy;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::jwt::{Key, Unverified, User};
use crate::access_rules::OidcSettings;

/// The longest that an answer of the provider may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long keys are used before they are fetched again.
const KEYS_AGE: Duration = Duration::from_secs(60 * 60);
/// How soon keys are fetched again, so that tokens with invented keys do not burden the provider.
const AGAIN: Duration = Duration::from_secs(10);
/// Maximum size of a response of the provider, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// A provider and its keys.
pub(super) struct Oidc {
    pub(super) settings: OidcSettings,
    client: Client,
    keys: Mutex<Keys>,
}

#[derive(Debug, Default)]
struct Keys {
    known: Vec<Key>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

/// What is read of `/.well-known/openid-configuration`.
#[derive(Debug, Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Debug, Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

impl Oidc {
    pub(super) fn new(settings: OidcSettings) -> anyhow::Result<Self> {
        // Another provider of cryptography that is already installed is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(PATIENCE).redirect(Policy::none());
        Ok(Self {
            settings,
            client: client.build()?,
            keys: Mutex::default(),
        })
    }

    /// The user of a valid token. `now` is in seconds since 1970.
    pub(super) async fn verify(&self, token: &str, now: i64) -> Option<User> {
        let OidcSettings {
            issuer,
            audience,
            username_claim,
            groups_claim,
        } = &self.settings;
        let token = Unverified::read(token)?;
        // Nothing is fetched for a token of another provider.
        if !token.claims.are_valid(issuer, audience, now) {
            return None;
        }
        let mut keys = self.keys.lock().await;
        if keys.must_be_fetched(&token) {
            self.fetch(&mut keys).await;
        }
        let is_signed = token.is_signed_by(&keys.known);
        drop(keys);
        match is_signed {
            true => token.claims.user(username_claim, groups_claim),
            false => None,
        }
    }

    /// Fetches the keys. If that fails, the known ones stay.
    async fn fetch(&self, keys: &mut Keys) {
        keys.tried = Some(Instant::now());
        match self.fetched().await {
            Ok(known) => {
                keys.known = known;
                keys.fetched = keys.tried;
            }
            Err(why) => {
                let why = format!("{why:#}");
                warn!(why, "cannot fetch the keys of the OIDC provider");
            }
        }
    }

    async fn fetched(&self) -> anyhow::Result<Vec<Key>> {
        let issuer = self.settings.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let discovery: Discovery = self.get(&url).await?;
        if discovery.issuer != self.settings.issuer {
            bail!("{url} is of the issuer {:?}", discovery.issuer);
        }
        let is_plain = discovery.jwks_uri.starts_with("http://");
        if is_plain && !issuer.starts_with("http://") {
            bail!(
                "{url} names keys at {}, which is not https",
                discovery.jwks_uri
            );
        }
        let set: KeySet = self.get(&discovery.jwks_uri).await?;
        // A key of a type that is not known does not make the others unusable.
        let keys = set.keys.into_iter();
        Ok(keys
            .filter_map(|key| serde_json::from_value(key).ok())
            .collect())
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> anyhow::Result<T> {
        let failed = || format!("cannot read {url}");
        let answer = self.client.get(url).send().await.with_context(failed)?;
        let mut answer = answer.error_for_status().with_context(failed)?;
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.with_context(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                bail!("{url} has more than {MAX_BYTES} bytes");
            }
        }
        serde_json::from_slice(&body).with_context(failed)
    }
}

impl Keys {
    fn must_be_fetched(&self, token: &Unverified<'_>) -> bool {
        let is_within = |time: Option<Instant>, age| time.is_some_and(|time| time.elapsed() < age);
        let is_usable = is_within(self.fetched, KEYS_AGE) && token.has_key_in(&self.known);
        !is_usable && !is_within(self.tried, AGAIN)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, routing::get};
    use serde_json::{Value, json};

    use super::super::jwt::tests::Signer;
    use super::*;

    /// A provider whose keys can be replaced.
    async fn provider(keys: Arc<Mutex<Value>>) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let discovery = json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")});
        let router = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(async move || Json(discovery)),
            )
            .route(
                "/keys",
                get(async move || Json(keys.lock().unwrap().clone())),
            );
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        issuer
    }

    fn settings(issuer: &str) -> OidcSettings {
        OidcSettings {
            issuer: issuer.to_string(),
            audience: "trainer".to_string(),
            username_claim: "sub".to_string(),
            groups_claim: "groups".to_string(),
        }
    }

    #[tokio::test]
    async fn a_new_key_of_the_provider_is_fetched_when_a_token_names_it() {
        let (old, new) = (Signer::new("old"), Signer::new("new"));
        let other = json!({"kty": "OKP", "crv": "Ed25519", "x": "", "kid": "other"});
        let keys = Arc::new(Mutex::new(json!({"keys": [other, old.public]})));
        let issuer = provider(keys.clone()).await;
        let oidc = Oidc::new(settings(&issuer)).unwrap();
        let claims = json!({"iss": issuer, "aud": "trainer", "exp": 2000, "sub": "alice"});
        let found = oidc.verify(&old.sign(&claims), 1000).await.unwrap();
        assert_eq!(found.name, "alice");
        assert_eq!(oidc.verify(&old.sign(&claims), 3000).await, None);
        *keys.lock().unwrap() = json!({"keys": [new.public]});
        // Not fetched again so soon.
        assert_eq!(oidc.verify(&new.sign(&claims), 1000).await, None);
        oidc.keys.lock().await.tried = None;
        assert!(oidc.verify(&new.sign(&claims), 1000).await.is_some());
        oidc.keys.lock().await.tried = None;
        assert_eq!(oidc.verify(&old.sign(&claims), 1000).await, None);
    }

    #[tokio::test]
    async fn a_provider_that_names_another_issuer_has_no_keys() {
        let signer = Signer::new("one");
        let keys = Arc::new(Mutex::new(json!({"keys": [signer.public]})));
        let issuer = provider(keys).await;
        let alias = issuer.replace("127.0.0.1", "localhost");
        let oidc = Oidc::new(settings(&alias)).unwrap();
        let claims = json!({"iss": alias, "aud": "trainer", "exp": 2000, "sub": "alice"});
        assert_eq!(oidc.verify(&signer.sign(&claims), 1000).await, None);
    }
}
