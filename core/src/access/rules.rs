//! What of a request the policies do not allow.

use serde_json::Value;

use super::list::{ByDefault, allowed};
use super::{DigestRule, Policy, Role};
use crate::finding::{Code, Finding, pointer};
use crate::metadata::changes_process;
use crate::pattern::{climbs, is_under, matches};
use crate::request::JobRequest;
use crate::request::schema::quote_text;

/// What the operator has chosen for requests that leave a field out. It is always allowed.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    pub image: &'a str,
    pub profile: Option<&'a str>,
}

/// What a policy does not allow, and the place of its rule in the access file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub rule: String,
    pub finding: Finding,
}

/// The policies that apply to a request, each with its place in the access file.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    pub(super) policies: Vec<(String, &'a Policy)>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        namespace: Option<(&String, &'a Policy)>,
        role: Option<(&Role, &'a Policy)>,
    ) -> Self {
        let namespace = namespace.map(|(name, policy)| (format!("namespaces.{name}"), policy));
        let role = role.map(|(role, policy)| (format!("roles.{role}"), policy));
        Self {
            policies: namespace.into_iter().chain(role).collect(),
        }
    }

    /// What of a request the policies do not allow.
    pub fn check(&self, request: &JobRequest, defaults: Defaults) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        self.check_image(request, defaults, &mut refusals);
        self.check_locations(request, &mut refusals);
        self.check_arguments(request, &mut refusals);
        if let Some(chosen) = &request.profile
            && defaults.profile != Some(&chosen.name)
        {
            let at = pointer(["annotations", crate::profile::PROFILE_ANNOTATION]);
            let found = self.listed(
                "profiles",
                |policy| &policy.profiles,
                |known| known == chosen.name,
            );
            refusals.extend(found.map(|rule| {
                let what = format!("annotations: profile {:?}", chosen.name);
                rule.refusal(Code::PolicyProfile, at, &what)
            }));
        }
        self.check_metadata(request, &mut refusals);
        self.check_variables(request, &mut refusals);
        self.check_secrets(request, &mut refusals);
        self.check_size(request, &mut refusals);
        refusals
    }

    fn check_image(&self, request: &JobRequest, defaults: Defaults, refusals: &mut Vec<Refusal>) {
        let image = request.image.as_str();
        if image == defaults.image {
            return;
        }
        let found = self.listed(
            "images",
            |policy| &policy.images,
            |known| matches(known, image),
        );
        refusals.extend(found.map(|rule| {
            let what = format!("image: {}", quote_text(image));
            rule.refusal(Code::PolicyImage, "/image".to_string(), &what)
        }));
        for (place, policy) in &self.policies {
            if policy.image_digest == Some(DigestRule::Required) && !image.contains("@sha256:") {
                let detail = format!(
                    "image: {} has no digest, but {place}.image_digest requires one; write \
                     NAME@sha256:DIGEST",
                    quote_text(image)
                );
                refusals.push(Refusal {
                    rule: format!("{place}.image_digest"),
                    finding: Finding::new(Code::PolicyImage, "/image", detail),
                });
            }
        }
    }

    fn check_locations(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        let uris = [&request.dataset_uri, &request.checkpoint_base_uri];
        let [dataset, checkpoints] = uris.map(|uri| uri.as_str());
        let found = [
            (
                "dataset_uri",
                dataset,
                self.listed(
                    "datasets",
                    |policy| &policy.datasets,
                    |known| is_under(known, dataset),
                ),
            ),
            (
                "checkpoint_base_uri",
                checkpoints,
                self.listed(
                    "checkpoints",
                    |policy| &policy.checkpoints,
                    |known| is_under(known, checkpoints),
                ),
            ),
        ];
        for (field, uri, rule) in found {
            refusals.extend(rule.map(|rule| {
                let what = format!("{field}: {}", quote_text(uri));
                rule.refusal(Code::PolicyUri, pointer([field]), &what)
            }));
        }
        let model = request.model_id.as_str();
        let found = self.listed(
            "models",
            |policy| &policy.models,
            |known| is_model(known, model),
        );
        refusals.extend(found.map(|rule| {
            let what = format!("model_id: {}", quote_text(model));
            rule.refusal(Code::PolicyModel, "/model_id".to_string(), &what)
        }));
        let claims = uris.into_iter().zip(["dataset_uri", "checkpoint_base_uri"]);
        for (claim, field) in claims.filter_map(|(uri, field)| Some((uri.claim()?, field))) {
            let found = self.listed(
                "claims",
                |policy| &policy.claims,
                |known| matches(known, claim),
            );
            refusals.extend(found.map(|rule| {
                let what = format!("{field}: claim {}", quote_text(claim));
                rule.refusal(Code::PolicyClaim, pointer([field]), &what)
            }));
        }
    }

    /// Arguments can name locations, too: of a tokenizer, or of initial weights.
    fn check_arguments(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        for (name, value) in &request.extra_args {
            for text in texts(value).filter(|text| is_location(text)) {
                let is_allowed = |(_, policy): &&(String, &Policy)| {
                    let known = policy.locations();
                    known.is_none_or(|known| {
                        let mut known = known.into_iter();
                        known.any(|known| is_under(known, text) || is_model(known, text))
                    })
                };
                let Some((place, policy)) = self.policies.iter().find(|rule| !is_allowed(rule))
                else {
                    continue;
                };
                let detail = format!(
                    "extra_args.{name}: {} is not allowed by {place}, which limits locations; \
                     allowed: {}",
                    quote_text(text),
                    allowed(policy.locations().unwrap_or_default().into_iter())
                );
                let at = pointer(["extra_args", name]);
                refusals.push(Refusal {
                    rule: place.clone(),
                    finding: Finding::new(Code::PolicyUri, at, detail),
                });
            }
        }
    }

    fn check_metadata(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        let labels = request.labels.keys().map(|key| ("labels", key));
        let annotations = request.annotations.keys().map(|key| ("annotations", key));
        for (member, key) in labels.chain(annotations) {
            let list = |policy: &'a Policy| match member {
                "labels" => &policy.labels,
                _ => &policy.annotations,
            };
            // A key with a prefix or a dot is read by another program: Kueue, Istio, CRI-O, or a webhook.
            let by_default = match key.contains(['/', '.']) {
                true => ByDefault::Refused,
                false => ByDefault::Allowed,
            };
            let found = self.listed_or(member, list, by_default, |known| matches(known, key));
            refusals.extend(found.map(|rule| {
                let what = format!("{member}: {}", quote_text(key));
                rule.refusal(Code::PolicyMetadata, pointer([member, key]), &what)
            }));
        }
    }

    fn check_variables(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        let names = request.env.keys().chain(request.secrets.keys());
        for name in names.filter(|name| changes_process(name)) {
            let found = self.listed_or(
                "env",
                |policy| &policy.env,
                ByDefault::Refused,
                |known| matches(known, name),
            );
            refusals.extend(found.map(|rule| {
                let what = format!(
                    "env.{name}: a variable that changes what a process loads or runs, which"
                );
                rule.refusal(Code::PolicyEnv, pointer(["env", name]), &what)
            }));
        }
    }

    fn check_secrets(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        for (name, key) in &request.secrets {
            let list = |policy: &'a Policy| &policy.secrets;
            let found = self.listed_or("secrets", list, ByDefault::Refused, |known| {
                matches(known, &key.secret)
            });
            refusals.extend(found.map(|rule| {
                let what = format!("env.{name}: secret {}", key.secret);
                rule.refusal(Code::PolicySecret, pointer(["env", name]), &what)
            }));
        }
    }

    fn check_size(&self, request: &JobRequest, refusals: &mut Vec<Refusal>) {
        let gpus = request.num_nodes.saturating_mul(request.gpus_per_node);
        for (place, policy) in &self.policies {
            for (member, field, given, most, unit) in [
                (
                    "max_nodes",
                    "num_nodes",
                    request.num_nodes,
                    policy.max_nodes,
                    "nodes",
                ),
                ("max_gpus", "gpus_per_node", gpus, policy.max_gpus, "GPUs"),
            ] {
                if let Some(most) = most.filter(|most| given > *most) {
                    let detail = format!(
                        "{field}: {given} {unit} are not allowed by {place}.{member}; allowed: at \
                         most {most}"
                    );
                    refusals.push(Refusal {
                        rule: format!("{place}.{member}"),
                        finding: Finding::new(Code::PolicySize, pointer([field]), detail),
                    });
                }
            }
        }
    }
}

/// Whether a pattern allows a model. A path that leads out of a folder is never allowed.
fn is_model(pattern: &str, model: &str) -> bool {
    matches(pattern, model) && !climbs(model)
}

/// Whether a text is a path or a URI, and not a word.
fn is_location(text: &str) -> bool {
    text.contains("://") || text.starts_with('/')
}

/// All texts of an argument.
fn texts(value: &Value) -> Box<dyn Iterator<Item = &str> + '_> {
    match value {
        Value::String(text) => Box::new(std::iter::once(text.as_str())),
        Value::Array(items) => Box::new(items.iter().flat_map(texts)),
        Value::Object(members) => Box::new(members.values().flat_map(texts)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Box::new(std::iter::empty()),
    }
}
