//! The access file of a running service: read at the start, and again when it changes.

mod jwt;
mod oidc;
mod review;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex, watch};
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

use crate::access_rules::{Access, AccessFile, OidcSettings, Principal, TokenHash};
use crate::{document, text};
use jwt::User;
use oidc::Oidc;
use review::Reviewer;

/// What an access file must not allow: changes by anybody but its owner.
const FORBIDDEN_MODE: u32 = 0o022;

/// Who may use this service, as the access file says now.
pub struct AccessControl {
    current: ArcSwap<Access>,
    /// Changes with each version of the file.
    version: watch::Sender<u64>,
    /// Whether the file has become invalid since it was read.
    is_outdated: AtomicBool,
    /// The OIDC provider of the rules that were last needed.
    oidc: Mutex<Option<Arc<Oidc>>>,
    reviewer: Option<Reviewer>,
    /// Held while a job is created whose policy limits all jobs together.
    pub(crate) creation: Mutex<()>,
}

/// The content of an access file that was read last.
#[derive(Default)]
struct Seen(Option<[u8; 32]>);

impl AccessControl {
    /// A service with these rules.
    pub fn new(access: Access) -> Self {
        Self {
            current: ArcSwap::from_pointee(access),
            version: watch::Sender::new(0),
            is_outdated: AtomicBool::new(false),
            oidc: Mutex::default(),
            reviewer: None,
            creation: Mutex::new(()),
        }
    }

    /// Has an API server review tokens, if the access file asks for it.
    #[must_use]
    pub fn with_reviews_by(self, client: Option<kube::Client>) -> Self {
        Self {
            reviewer: client.map(Reviewer::new),
            ..self
        }
    }

    /// What of the rules grants nothing. Neither is an error: the token of the service may
    /// be the only one.
    pub fn doubts(&self) -> Vec<&'static str> {
        let access = self.current();
        let is_unreviewed = access.token_review.is_some() && self.reviewer.is_none();
        let doubts = [
            access.grants_nothing().then_some(
                "the access file grants nothing to anybody; `trainer token new NAME` prints an entry",
            ),
            is_unreviewed.then_some(
                "the access file has a section token_review, but jobs do not run on Kubernetes, so no \
                 token of Kubernetes is accepted",
            ),
        ];
        doubts.into_iter().flatten().collect()
    }

    /// The caller with a valid token: a named one, one of the OIDC provider, or one of Kubernetes.
    pub async fn authenticate(&self, token: &[u8], now: Timestamp) -> Option<Arc<Principal>> {
        if let Some(named) = self.named(token, now) {
            return Some(named);
        }
        let access = self.current();
        let token = std::str::from_utf8(token).ok()?;
        if let Some(settings) = &access.oidc
            && let Some(oidc) = self.provider(settings).await
            && let Some(user) = oidc.verify(token, now.as_second()).await
        {
            return principal(&access, "oidc", &user);
        }
        let (settings, reviewer) = (access.token_review.as_ref()?, self.reviewer.as_ref()?);
        let user = reviewer.review(token, &settings.audience).await?;
        principal(&access, "kubernetes", &user)
    }

    /// The provider of some settings, with the keys that it has fetched.
    async fn provider(&self, settings: &OidcSettings) -> Option<Arc<Oidc>> {
        let mut current = self.oidc.lock().await;
        if let Some(oidc) = current.as_ref().filter(|oidc| oidc.settings == *settings) {
            return Some(oidc.clone());
        }
        match Oidc::new(settings.clone()) {
            Ok(oidc) => Some(current.insert(Arc::new(oidc)).clone()),
            Err(why) => {
                error!(%why, "cannot contact the OIDC provider");
                None
            }
        }
    }

    /// The rules that are in force.
    pub fn current(&self) -> Arc<Access> {
        self.current.load_full()
    }

    /// Puts other rules in force.
    pub fn replace(&self, access: Access) {
        self.current.store(Arc::new(access));
        self.is_outdated.store(false, Ordering::Relaxed);
        self.version.send_modify(|version| *version += 1);
    }

    /// Notices each replacement of the rules.
    pub fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// The caller with a named token that has not expired.
    pub fn named(&self, token: &[u8], now: Timestamp) -> Option<Arc<Principal>> {
        let (principal, expires) = self.entry(token)?;
        expires
            .is_none_or(|expires| now < expires)
            .then_some(principal)
    }

    /// The name and the expiry of a named token that has expired.
    pub fn expired(&self, token: &[u8], now: Timestamp) -> Option<(String, Timestamp)> {
        let (principal, expires) = self.entry(token)?;
        let expires = expires.filter(|expires| *expires <= now)?;
        Some((principal.to_string(), expires))
    }

    /// The caller with a named token, and when the token expires.
    fn entry(&self, token: &[u8]) -> Option<(Arc<Principal>, Option<Timestamp>)> {
        let hash: TokenHash = Sha256::digest(token).into();
        let access = self.current.load();
        let mut found = None;
        for candidate in access.candidates(&hash) {
            if bool::from(candidate.hash.ct_eq(&hash)) {
                found = Some(candidate);
            }
        }
        found.map(|token| (token.principal.clone(), token.expires))
    }

    /// What the readiness check says of the file. Names of tokens are not for everybody.
    pub fn state(&self) -> String {
        let count = self.current.load().count();
        match self.is_outdated.load(Ordering::Relaxed) {
            false => format!("{count} named tokens"),
            true => format!(
                "{count} named tokens of the last valid access file; the file has become invalid, \
                 and the log says why"
            ),
        }
    }

    fn reload(&self, file: &Path, seen: &mut Seen) {
        let content = std::fs::read(file).ok();
        let hash = content.map(|content| Sha256::digest(content).into());
        if hash == seen.0 {
            return;
        }
        seen.0 = hash;
        match read(file) {
            Ok(access) => {
                let tokens = access.count();
                self.replace(access);
                info!(tokens, "loaded the access file");
                self.doubts().iter().for_each(|doubt| warn!("{doubt}"));
            }
            Err(why) => {
                self.is_outdated.store(true, Ordering::Relaxed);
                let why = format!("{why:#}");
                error!(
                    why,
                    "the access file is invalid; the last valid one stays in force"
                );
            }
        }
    }
}

/// What a user is granted. The prefix distinguishes users of one origin from those of another, and from
/// named tokens.
fn principal(access: &Access, origin: &str, user: &User) -> Option<Arc<Principal>> {
    let name = format!("{origin}:{}", user.name);
    let groups: Vec<String> = user
        .groups
        .iter()
        .map(|name| format!("{origin}:{name}"))
        .collect();
    let found = access.user(&name, groups.iter().map(String::as_str));
    found.map(Arc::new)
}

/// Reads an access file.
///
/// # Errors
///
/// Everything that is wrong with it.
pub fn read(file: &Path) -> anyhow::Result<Access> {
    let name = file.display();
    let metadata = std::fs::metadata(file);
    let metadata = metadata.with_context(|| format!("cannot read the access file {name}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & FORBIDDEN_MODE != 0 {
        bail!(
            "the access file {name} has mode {mode:03o}: others than its owner could change it. Set \
             the mode to 600, 640 or 644; in a Kubernetes volume, defaultMode: 0440"
        );
    }
    let text = text::read(file)?;
    let wrong = |wrong: Vec<String>| anyhow::anyhow!("{name}:\n  {}", wrong.join("\n  "));
    let file: AccessFile = document::from_toml(&text).map_err(wrong)?;
    file.check().map_err(wrong)
}

/// Reads the file again when its content changes, for as long as the service runs. The content is
/// compared, because a volume of Kubernetes replaces a file without a notification.
pub async fn keep_current(control: Arc<AccessControl>, file: PathBuf, every: Duration) {
    let content = std::fs::read(&file).ok();
    let mut seen = Seen(content.map(|content| Sha256::digest(content).into()));
    let mut turns = tokio::time::interval(every);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        let (control, file) = (control.clone(), file.clone());
        let looked = tokio::task::spawn_blocking(move || {
            control.reload(&file, &mut seen);
            seen
        });
        match looked.await {
            Ok(looked) => seen = looked,
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "[tokens.alice]\nrole = \"viewer\"\nnamespaces = [\"a\"]\nsha256 = ";

    fn hash_of(token: &str) -> String {
        let hash = Sha256::digest(token);
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn write(file: &Path, text: &str) {
        std::fs::write(file, text).unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_token_is_valid_until_it_expires() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.toml");
        let expires = "expires = 2027-01-01T00:00:00Z";
        write(&file, &format!("{VALID}{:?}\n{expires}", hash_of("secret")));
        let control = AccessControl::new(read(&file).unwrap());
        let before: Timestamp = "2026-12-31T23:59:59Z".parse().unwrap();
        let after: Timestamp = "2027-01-01T00:00:00Z".parse().unwrap();
        let found = control.named(b"secret", before).unwrap();
        assert_eq!(found.name(), Some("alice"));
        assert_eq!(control.named(b"secret", after), None);
        assert_eq!(control.named(b"wrong", before), None);
    }

    #[test]
    fn an_invalid_file_leaves_the_last_valid_one_in_force() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.toml");
        write(&file, &format!("{VALID}{:?}", hash_of("one")));
        let control = AccessControl::new(read(&file).unwrap());
        let mut seen = Seen::default();
        write(&file, "[tokens.alice]\nrole = \"king\"");
        control.reload(&file, &mut seen);
        assert!(control.named(b"one", Timestamp::UNIX_EPOCH).is_some());
        assert!(control.state().contains("has become invalid"));
        write(&file, &format!("{VALID}{:?}", hash_of("two")));
        control.reload(&file, &mut seen);
        assert!(control.named(b"one", Timestamp::UNIX_EPOCH).is_none());
        assert!(control.named(b"two", Timestamp::UNIX_EPOCH).is_some());
        assert_eq!(control.state(), "1 named tokens");
    }

    #[test]
    fn a_misspelt_word_is_named_with_its_place_and_with_those_that_are_right() {
        let reported = |text: &str| {
            let read: Result<AccessFile, _> = document::from_toml(text);
            read.unwrap_err().join("; ")
        };
        let entry = |member: &str| format!("{VALID}\"{}\"\n{member}", "ab".repeat(32));
        for (text, expected) in [
            (
                entry("").replace("viewer", "submiter"),
                "tokens.alice.role: \"submiter\" is not one of ",
            ),
            (
                entry("expire = 1"),
                "tokens.alice: unknown field \"expire\", did you mean \"expires\"?",
            ),
            (
                "[roles.submitter]\nmax_jobs = -1".to_string(),
                "roles.submitter.max_jobs: -1 is too small",
            ),
            (
                "[oidc]\nissuer = \"https://issuer\"".to_string(),
                "oidc.audience: required, but missing",
            ),
            (
                "[roles.submiter]\nmax_jobs = 1".to_string(),
                "roles: unknown field \"submiter\", did you mean \"submitter\"?",
            ),
            (
                "[namespaces.a]\nimage_digest = \"on\"".to_string(),
                "namespaces.a.image_digest: \"on\" is not one of ",
            ),
            (entry("[tokens.alice]"), "line 5: not TOML"),
        ] {
            let reported = reported(&text);
            assert!(reported.contains(expected), "{reported}");
        }
    }

    #[test]
    fn a_file_that_others_can_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("access.toml");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o662)).unwrap();
        let refused = read(&file).unwrap_err().to_string();
        assert!(refused.contains("has mode 662"), "{refused}");
    }
}
