//! Checks that a JSON Schema cannot express: frameworks, names, URIs and the environment.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::env;
use super::image;
use super::schema::{self, field};
use super::secret::looks_secret;
use super::uri::{StorageUri, UriRole};
use super::{
    ArgumentSchemas, JobName, JobRequest, JobSize, RequestPolicy, SecretKey, TrainingJobRequest,
};
use crate::finding::{Code, Finding, pointer};
use crate::keys::PRIORITY_CLASS_LABEL;
use crate::metadata::{self, NameFault};
use crate::profile::{ChosenProfile, PROFILE_ANNOTATION};
use crate::suggestion::did_you_mean;

/// The maximum size of one `NAME=value` including its NUL, in bytes (Linux's MAX_ARG_STRLEN).
const MAX_VARIABLE_BYTES: usize = 128 * 1024;
/// The maximum size of `env` in bytes. The plugin's command and variables have at most twice this
/// size, and Linux limits the total for a new program to 2 MiB.
const MAX_ENV_BYTES: usize = 256 * 1024;

/// The bytes that a variable occupies when a program is started.
fn exec_bytes(name: &str, value: &str) -> usize {
    name.len() + "=".len() + value.len() + "\0".len()
}

fn too_long_for_exec(name: &str, value: &str) -> Option<String> {
    let size = exec_bytes(name, value);
    (size > MAX_VARIABLE_BYTES).then(|| {
        format!(
            "env.{name}: {size} bytes including the name, but Linux allows at most \
             {MAX_VARIABLE_BYTES} for a variable; put the value into a file"
        )
    })
}

/// Performs the checks and collects the findings.
pub(super) struct Checker<'a> {
    frameworks: &'a ArgumentSchemas,
    policy: &'a RequestPolicy,
    pub(super) findings: Vec<Finding>,
    pub(super) argument_faults: Option<Vec<Finding>>,
    pub(super) warnings: Vec<Finding>,
}

impl<'a> Checker<'a> {
    /// `findings` are those of the schema.
    pub(super) fn new(
        frameworks: &'a ArgumentSchemas,
        policy: &'a RequestPolicy,
        findings: Vec<Finding>,
    ) -> Self {
        Self {
            frameworks,
            policy,
            findings,
            argument_faults: Some(Vec::new()),
            warnings: Vec::new(),
        }
    }

    /// The valid request, if every required field is present and valid.
    pub(super) fn check(&mut self, wire: TrainingJobRequest) -> Option<JobRequest> {
        // A new field breaks the build here, so that it cannot be forgotten.
        let TrainingJobRequest {
            framework,
            model_id,
            run_id,
            checkpoint_base_uri,
            dataset_uri,
            image,
            num_nodes,
            gpus_per_node,
            cpus_per_node,
            memory_per_node_gb,
            config_path,
            resume_from_checkpoint,
            overwrite,
            extra_args,
            env,
            labels,
            annotations,
            namespace,
            job_name,
        } = wire;
        let num_nodes = num_nodes.unwrap_or(1);
        let resume_from_checkpoint = resume_from_checkpoint.unwrap_or(false);
        let overwrite = overwrite.unwrap_or(false);
        if resume_from_checkpoint && overwrite {
            let detail = "overwrite: conflicts with resume_from_checkpoint: a run cannot resume \
                          from the checkpoints that it replaces; set only one of them";
            self.finding(Code::Conflict, "overwrite", detail.to_string());
        }
        let mut extra_args = extra_args.unwrap_or_default();
        extra_args.retain(|_, value| !value.is_null());

        let framework = framework.and_then(|name| self.framework(name, &extra_args));
        for (name, text) in [("model_id", &model_id), ("config_path", &config_path)] {
            self.word_of_a_command(name, text.as_deref());
        }
        if let Some(image) = &image {
            self.keep(Code::Format, "image", image::check(image));
        }
        let checkpoint_base_uri = checkpoint_base_uri
            .and_then(|text| self.uri(UriRole::Checkpoint, "checkpoint_base_uri", &text));
        let dataset_uri =
            dataset_uri.and_then(|text| self.uri(UriRole::Dataset, "dataset_uri", &text));
        let (env, secrets) = env::split(env.unwrap_or_default());
        self.environment(&env);
        self.secrets(&secrets);
        let labels = labels.unwrap_or_default();
        self.labels(&labels);
        let mut annotations = annotations.unwrap_or_default();
        // The only key of ours that a request may set. It is checked by `profile`.
        let profile = annotations.remove(PROFILE_ANNOTATION);
        self.annotations(&annotations);
        let namespace = namespace.unwrap_or_else(|| self.policy.default_namespace.clone());
        self.keep(
            Code::Name,
            "namespace",
            metadata::check_namespace(&namespace),
        );
        let profile = self.profile(profile.as_deref(), &namespace);
        self.priority_class(&labels, profile.as_ref());
        let size = JobSize {
            kind: self.policy.job_kind,
            num_nodes,
        };
        let name = match (job_name, &framework, &run_id) {
            (Some(name), ..) => self.keep(Code::Name, "job_name", JobName::chosen(&name, size)),
            (None, Some(framework), Some(run_id)) => {
                Some(JobName::derived(framework, run_id, size))
            }
            _ => None,
        };
        let image = image.unwrap_or_else(|| self.policy.default_image.clone());
        Some(JobRequest {
            framework: framework?,
            model_id: model_id?,
            run_id: run_id?,
            checkpoint_base_uri: checkpoint_base_uri?,
            dataset_uri: dataset_uri?,
            packages: self.policy.images.packages(&image),
            image,
            num_nodes,
            gpus_per_node: gpus_per_node.unwrap_or(1),
            cpus_per_node: cpus_per_node.or(self.policy.default_cpus_per_node),
            memory_per_node_gb: memory_per_node_gb.or(self.policy.default_memory_per_node_gb),
            config_path,
            resume_from_checkpoint,
            overwrite,
            extra_args,
            env,
            secrets,
            labels,
            annotations,
            namespace,
            name: name?,
            job_kind: self.policy.job_kind,
            profile,
        })
    }

    fn profile(&mut self, named: Option<&str>, namespace: &str) -> Option<ChosenProfile> {
        match self.policy.profiles.choose(named, namespace) {
            Ok(profile) => profile,
            Err(unknown) => {
                let at = pointer(["annotations", PROFILE_ANNOTATION]);
                let detail = format!("annotations: {PROFILE_ANNOTATION}: {unknown}");
                self.findings
                    .push(Finding::new(Code::UnknownProfile, at, detail));
                None
            }
        }
    }

    fn framework(&mut self, name: String, extra_args: &Map<String, Value>) -> Option<String> {
        if let Some(schema) = self.frameworks.get(&name) {
            let extra_args = Value::Object(extra_args.clone());
            self.argument_faults = schema.findings_inline(&extra_args, "/extra_args");
            return Some(name);
        }
        let known: Vec<&str> = self.frameworks.keys().map(String::as_str).collect();
        let hint = did_you_mean(&name, known.iter().copied());
        let detail = format!(
            "framework: unknown framework {}; known: {}{hint}",
            schema::quote_text(&name),
            known.join(", ")
        );
        self.finding(Code::UnknownFramework, "framework", detail);
        None
    }

    fn uri(&mut self, role: UriRole, name: &str, text: &str) -> Option<StorageUri> {
        let allowed = match role {
            UriRole::Dataset => &self.policy.dataset_schemes,
            UriRole::Checkpoint => &self.policy.checkpoint_schemes,
        };
        let uri = self.keep(Code::Uri, name, StorageUri::parse(role, text, allowed))?;
        if let Some(encoded) = uri.undecoded() {
            let detail = format!(
                "{name}: {encoded} is not decoded; it stands for exactly these three characters"
            );
            let warning = Finding::new(Code::PercentEncoding, pointer([name]), detail);
            self.warnings.push(warning);
        }
        Some(uri)
    }

    fn environment(&mut self, env: &BTreeMap<String, String>) {
        for (name, value) in env {
            let at = pointer(["env", name.as_str()]);
            if let Err(finding) = metadata::check_request_variable(name) {
                let detail = format!("{}: {finding}", field(&at));
                self.findings
                    .push(Finding::new(Code::Environment, at, detail));
            } else if value.contains('\0') {
                let detail = format!("{}: must not contain NUL", field(&at));
                self.findings
                    .push(Finding::new(Code::Environment, at, detail));
            } else if let Some(detail) = too_long_for_exec(name, value) {
                self.findings.push(Finding::new(Code::Length, at, detail));
            } else if metadata::is_search_path(name) {
                let detail = format!(
                    "{}: replaces the image's value completely, and $ is not expanded; torchrun or \
                     its libraries may not be found without the original entries",
                    field(&at)
                );
                self.warnings
                    .push(Finding::new(Code::ReplacedEnv, at, detail));
            } else if looks_secret(name, value) {
                let detail = format!(
                    "{}: a secret in env is stored in the PyTorchJob in plain text; write \
                     {{\"secret\": NAME, \"key\": KEY}} as its value instead",
                    field(&at)
                );
                self.warnings
                    .push(Finding::new(Code::SecretInEnv, at, detail));
            } else if let Some(successor) = metadata::successor(name) {
                let detail = format!("{}: no longer read; set {successor} instead", field(&at));
                self.warnings
                    .push(Finding::new(Code::DeprecatedEnv, at, detail));
            }
        }
        let size: usize = env
            .iter()
            .map(|(name, value)| exec_bytes(name, value))
            .sum();
        if size > MAX_ENV_BYTES {
            let detail = format!(
                "env: {size} bytes, but at most {MAX_ENV_BYTES} are allowed; put large values into \
                 a file"
            );
            self.finding(Code::Length, "env", detail);
        }
    }

    fn secrets(&mut self, secrets: &BTreeMap<String, SecretKey>) {
        for (name, key) in secrets {
            let at = pointer(["env", name.as_str()]);
            let field = field(&at);
            let allowed = self.policy.secrets.as_ref();
            let is_allowed = allowed.is_none_or(|allowed| allowed.contains(&key.secret));
            let wrong = match (metadata::check_request_variable(name), key.check()) {
                (Err(finding), _) => Some((Code::Environment, finding.to_string())),
                (_, Err(wrong)) => Some((Code::Secret, wrong)),
                _ if is_allowed => None,
                _ => {
                    let detail = format!(
                        "secret {} is not allowed on this service; allowed: {}",
                        key.secret,
                        match allowed.map(|allowed| allowed.join(", ")) {
                            Some(allowed) if !allowed.is_empty() => allowed,
                            _ => "none, see TRAINER_ALLOWED_SECRETS".to_string(),
                        }
                    );
                    Some((Code::Secret, detail))
                }
            };
            let found = wrong.map(|(code, why)| Finding::new(code, at, format!("{field}: {why}")));
            self.findings.extend(found);
        }
    }

    fn labels(&mut self, labels: &BTreeMap<String, String>) {
        // `priority_class` checks its own key.
        for (key, value) in labels
            .iter()
            .filter(|(key, _)| *key != PRIORITY_CLASS_LABEL)
        {
            let checked =
                metadata::check_key(key).and_then(|()| metadata::check_label_value(value));
            self.metadata("labels", key, checked);
        }
    }

    /// Checks that the profile allows the priority that a request chooses in its queue.
    fn priority_class(
        &mut self,
        labels: &BTreeMap<String, String>,
        profile: Option<&ChosenProfile>,
    ) {
        let Some(class) = labels.get(PRIORITY_CLASS_LABEL) else {
            return;
        };
        let allowed = profile.map_or(&[][..], |chosen| &chosen.profile.allow_priority_classes);
        if allowed.contains(class) {
            return;
        }
        let allowed = match (profile, allowed) {
            (None, _) => "no profile applies that allows one; remove the label".to_string(),
            (Some(chosen), []) => format!("profile {} allows none; remove the label", chosen.name),
            (Some(chosen), some) => {
                format!("profile {} allows {}", chosen.name, some.join(", "))
            }
        };
        let detail = format!(
            "labels: {PRIORITY_CLASS_LABEL}: priority class {} is not allowed: {allowed}",
            schema::quote_text(class)
        );
        let at = pointer(["labels", PRIORITY_CLASS_LABEL]);
        self.findings.push(Finding::new(Code::Name, at, detail));
    }

    fn annotations(&mut self, annotations: &BTreeMap<String, String>) {
        for key in annotations.keys() {
            self.metadata("annotations", key, metadata::check_key(key));
        }
        let size: usize = annotations.iter().map(|(k, v)| k.len() + v.len()).sum();
        if size > metadata::MAX_ANNOTATIONS_BYTES {
            let most = metadata::MAX_ANNOTATIONS_BYTES;
            let detail = format!("annotations: {size} bytes, but at most {most} are allowed");
            self.finding(Code::Length, "annotations", detail);
        }
    }

    fn metadata(&mut self, name: &str, key: &str, checked: Result<(), NameFault>) {
        if let Err(finding) = checked {
            let detail = format!("{name}: {}: {finding}", schema::quote_text(key));
            self.findings
                .push(Finding::new(Code::Name, pointer([name, key]), detail));
        }
    }

    /// Checks a value that follows an option on the command line, where a leading dash would start
    /// another option.
    fn word_of_a_command(&mut self, name: &str, text: Option<&str>) {
        let Some(text) = text else {
            return;
        };
        if text.chars().any(char::is_control) {
            let detail = format!("{name}: control characters are not allowed");
            self.finding(Code::Format, name, detail);
        }
        if text.starts_with('-') {
            let detail = format!(
                "{name}: {} starts with '-', so train.py would read it as an option; remove the \
                 dash",
                schema::quote(&Value::from(text))
            );
            self.finding(Code::Format, name, detail);
        }
    }

    fn keep<T>(
        &mut self,
        code: Code,
        name: &str,
        checked: Result<T, impl std::fmt::Display>,
    ) -> Option<T> {
        match checked {
            Ok(value) => Some(value),
            Err(finding) => {
                self.finding(code, name, format!("{name}: {finding}"));
                None
            }
        }
    }

    fn finding(&mut self, code: Code, name: &str, detail: String) {
        self.findings
            .push(Finding::new(code, pointer([name]), detail));
    }
}
