//! The request of a job, read from its manifest: the reverse of [`super::manifest()`].
//!
//! A manifest does not say who set a label, an annotation or a variable. Those that the job would also have
//! without any in its request come from the profile, the plugin or this host; the others are the request's.

use serde_json::{Map, Value, json};

use crate::keys::{
    PLUGIN_DIGEST_ANNOTATION, PRIORITY_CLASS_LABEL, RESOLVED_ARGS_ANNOTATION, RESUME_VARIABLE,
};
use crate::metadata::{ARGUMENTS_VARIABLE, OVERWRITE_VARIABLE, check_key, check_request_variable};
use crate::profile::PROFILE_ANNOTATION;
use crate::train_job;

/// The request of a job without labels, annotations and variables of its own, and without a name.
/// Defaults are filled in.
pub fn recovered_fields(manifest: &Value) -> Map<String, Value> {
    let variable = |name: &str| {
        let value =
            variables(manifest).find(|variable| variable["name"] == name)?["value"].as_str();
        Some(unescaped(value?))
    };
    let number = |name: &str| variable(name)?.parse::<u64>().ok();
    let limits = &part(manifest, "resources")["limits"];
    let limit = |name: &str, unit: &str| {
        limits[name]
            .as_str()?
            .strip_suffix(unit)?
            .parse::<u64>()
            .ok()
    };
    let annotation = |key: &str| manifest["metadata"]["annotations"][key].as_str();
    let arguments = variable(ARGUMENTS_VARIABLE);
    let arguments = arguments.or_else(|| annotation(RESOLVED_ARGS_ANNOTATION).map(str::to_string));
    let arguments =
        arguments.and_then(|text| serde_json::from_str::<Map<String, Value>>(&text).ok());
    let profile = annotation(PROFILE_ANNOTATION).map(|name| json!({PROFILE_ANNOTATION: name}));
    let fields = json!({
        "framework": variable("FRAMEWORK"),
        "model_id": variable("MODEL_ID"),
        "run_id": variable("RUN_ID"),
        "checkpoint_base_uri": variable("CHECKPOINT_BASE_URI"),
        "dataset_uri": variable("DATASET_URI"),
        "image": part(manifest, "image"),
        "num_nodes": number("NUM_NODES"),
        "gpus_per_node": number("GPUS_PER_NODE"),
        "cpus_per_node": limit("cpu", ""),
        "memory_per_node_gb": limit("memory", "Gi"),
        "config_path": variable("CONFIG_PATH"),
        "resume_from_checkpoint": variable(RESUME_VARIABLE).map(|_| true),
        "overwrite": variable(OVERWRITE_VARIABLE).map(|_| true),
        "extra_args": arguments.filter(|arguments| !arguments.is_empty()),
        "annotations": profile,
        "namespace": manifest["metadata"]["namespace"],
    });
    let Value::Object(mut fields) = fields else {
        return Map::new();
    };
    fields.retain(|_, value| !value.is_null());
    fields
}

/// Adds the arguments that the plugin does not pass on to `train.py`, and returns whether there are any. `plain`
/// is the manifest of the job that the fields make: its resolved arguments differ in them.
pub fn recover_arguments(fields: &mut Map<String, Value>, manifest: &Value, plain: &Value) -> bool {
    let resolved = |manifest: &Value| -> Map<String, Value> {
        let text = manifest["metadata"]["annotations"][RESOLVED_ARGS_ANNOTATION].as_str();
        let resolved = text.and_then(|text| serde_json::from_str(text).ok());
        resolved.unwrap_or_default()
    };
    let by_default = resolved(plain);
    let mut missing = resolved(manifest);
    missing.retain(|name, value| by_default.get(name) != Some(value) && !value.is_null());
    let is_missing = !missing.is_empty();
    extend(fields, "extra_args", missing);
    is_missing
}

/// The request of a job. `plain` is the manifest of the job that its fields make.
pub fn recovered(
    fields: Map<String, Value>,
    manifest: &Value,
    plain: &Value,
) -> Map<String, Value> {
    let mut request = fields;
    let [labels, annotations] = ["labels", "annotations"].map(|kind| keys(manifest, plain, kind));
    extend(&mut request, "labels", labels);
    extend(&mut request, "annotations", annotations);
    extend(&mut request, "env", env(manifest, plain));
    let name = &manifest["metadata"]["name"];
    if *name != plain["metadata"]["name"] {
        request.insert("job_name".to_string(), name.clone());
    }
    request
}

/// Adds members to a field that is an object.
fn extend(request: &mut Map<String, Value>, field: &str, members: Map<String, Value>) {
    if members.is_empty() {
        return;
    }
    let field = request.entry(field).or_insert_with(|| json!({}));
    if let Some(known) = field.as_object_mut() {
        known.extend(members);
    }
}

/// The labels or annotations of a request.
fn keys(manifest: &Value, plain: &Value, kind: &str) -> Map<String, Value> {
    let plain = &plain["metadata"][kind];
    let all = manifest["metadata"][kind].as_object().into_iter().flatten();
    // Requests may set a priority class that their profile allows.
    let may_set = |key: &str| check_key(key).is_ok() || key == PRIORITY_CLASS_LABEL;
    let own = all.filter(|(key, value)| plain[key] != **value && may_set(key));
    own.map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The variables of a request.
fn env(manifest: &Value, plain: &Value) -> Map<String, Value> {
    let digest = |of: &Value| of["metadata"]["annotations"][PLUGIN_DIGEST_ANNOTATION].clone();
    // Another version of a plugin may set other values.
    let is_comparable = digest(manifest) == digest(plain);
    let is_own = |variable: &&Value| {
        let name = variable["name"].as_str().unwrap_or_default();
        let known = variables(plain).find(|known| known["name"] == name);
        let differs = known.is_none_or(|known| is_comparable && known != *variable);
        differs && check_request_variable(name).is_ok()
    };
    let own = variables(manifest).filter(is_own);
    let own = own.filter_map(|variable| {
        let name = variable["name"].as_str()?.to_string();
        let secret = &variable["valueFrom"]["secretKeyRef"];
        let value = match secret.is_null() {
            true => unescaped(variable["value"].as_str().unwrap_or_default()).into(),
            false => json!({"secret": secret["name"], "key": secret["key"]}),
        };
        Some((name, value))
    });
    own.collect()
}

fn variables(manifest: &Value) -> impl Iterator<Item = &Value> {
    part(manifest, "env").as_array().into_iter().flatten()
}

/// A member of the trainer's container, of either kind of job.
fn part<'a>(manifest: &'a Value, member: &str) -> &'a Value {
    let spec = &manifest["spec"];
    if manifest["kind"] == train_job::KIND {
        let member = match member {
            "resources" => "resourcesPerNode",
            member => member,
        };
        return &spec["trainer"][member];
    }
    &spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0][member]
}

/// The text that a manifest has with its dollar signs doubled.
fn unescaped(text: &str) -> String {
    text.replace("$$", "$")
}
