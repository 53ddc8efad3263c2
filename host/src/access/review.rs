//! Tokens of Kubernetes users and service accounts: the API server reviews them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use sha2::{Digest, Sha256};
use tracing::warn;

use super::jwt::User;

/// How long the answer about a token is used. A revoked token works until then.
const ANSWER_AGE: Duration = Duration::from_secs(30);
/// Maximum number of cached answers.
const MAX_ANSWERS: usize = 10_000;
/// The longest that an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the API server whose a token is.
pub(super) struct Reviewer {
    client: Client,
    answers: Mutex<HashMap<[u8; 32], Answer>>,
}

/// When a review was answered, and the user of the token if it is valid.
type Answer = (Instant, Option<User>);

impl Reviewer {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            answers: Mutex::default(),
        }
    }

    /// The user of a valid token for an audience.
    pub(super) async fn review(&self, token: &str, audience: &str) -> Option<User> {
        let key = Sha256::new().chain_update(audience).chain_update([0]);
        let key: [u8; 32] = key.chain_update(token).finalize().into();
        if let Some(answer) = self.known(&key) {
            return answer;
        }
        let asked = tokio::time::timeout(PATIENCE, self.ask(token, audience)).await;
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                warn!(%error, "the API server cannot review a token");
                return None;
            }
            Err(_) => {
                warn!("the API server did not review a token in time");
                return None;
            }
        };
        self.keep(key, answer.clone());
        answer
    }

    async fn ask(&self, token: &str, audience: &str) -> kube::Result<Option<User>> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_string()),
                audiences: Some(vec![audience.to_string()]),
            },
            ..TokenReview::default()
        };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = reviews
            .create(&PostParams::default(), &review)
            .await?
            .status;
        let status = status.unwrap_or_default();
        // An API server that knows no audiences accepts a token for any of them.
        let is_meant = status
            .audiences
            .iter()
            .flatten()
            .any(|known| known == audience);
        let user = status
            .user
            .filter(|_| status.authenticated == Some(true) && is_meant);
        Ok(user.and_then(|user| {
            let name = user.username.filter(|name| !name.is_empty())?;
            let groups = user.groups.unwrap_or_default();
            Some(User { name, groups })
        }))
    }

    fn known(&self, key: &[u8; 32]) -> Option<Option<User>> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (time, answer) = answers.get(key)?;
        (time.elapsed() < ANSWER_AGE).then(|| answer.clone())
    }

    fn keep(&self, key: [u8; 32], answer: Option<User>) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= MAX_ANSWERS {
            answers.retain(|_, (time, _)| time.elapsed() < ANSWER_AGE);
        }
        if answers.len() < MAX_ANSWERS {
            answers.insert(key, (Instant::now(), answer));
        }
    }
}
