//! The OpenAPI document: descriptions of all operations, and examples that fit their schemas.

use serde_json::{Value, json};
use trainer_host::http::openapi;

/// Resolves a reference in the document.
fn resolved<'a>(document: &'a Value, of: &'a Value) -> &'a Value {
    match of["$ref"].as_str() {
        Some(pointer) => document.pointer(pointer.trim_start_matches('#')).unwrap(),
        None => of,
    }
}

/// Every response of every operation, with a name for messages.
fn responses(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let operations = paths.flat_map(|(_, operations)| operations.as_object().unwrap().values());
    let responses = operations.flat_map(|operation| {
        let responses = operation["responses"].as_object().unwrap().iter();
        responses.map(move |(status, response)| {
            let name = format!("{} {status}", operation["operationId"]);
            (name, resolved(document, response))
        })
    });
    responses.collect()
}

#[test]
fn every_operation_has_a_description() {
    let document = openapi::document(&[]);
    for operation in openapi::operations::OPERATIONS {
        let described = &document["paths"][operation.path][operation.method]["description"];
        let description = described.as_str().unwrap();
        assert!(
            description.ends_with('.'),
            "{}: {description}",
            operation.id
        );
    }
}

#[test]
fn every_response_with_a_schema_has_examples_that_fit_it() {
    let document = openapi::document(&[]);
    let mut checked = 0;
    for (name, response) in responses(&document) {
        let content = response["content"].as_object().into_iter().flatten();
        for (media, content) in content {
            let schema = content.get("schema").unwrap_or(&Value::Bool(true));
            let is_described =
                schema.to_string().contains("$ref") || !content["itemSchema"].is_null();
            let examples = content["examples"].as_object();
            assert!(
                examples.is_some() || !is_described,
                "{name} {media} has no example"
            );
            let root = json!({"components": document["components"], "allOf": [schema]});
            let validator = jsonschema::validator_for(&root).unwrap();
            for (example, of) in examples.into_iter().flatten() {
                let value = &resolved(&document, of)["value"];
                let errors: Vec<String> = validator
                    .iter_errors(value)
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert!(errors.is_empty(), "{name} {example}: {errors:?}");
                checked += 1;
            }
        }
    }
    assert!(checked > 200, "{checked}");
}

/// The schemas allow additional members, so that a member of an example could be misspelled or gone.
#[test]
fn examples_have_only_members_that_their_schemas_know() {
    let document = openapi::document(&[]);
    let schemas = &document["components"]["schemas"];
    for (name, example) in document["components"]["examples"].as_object().unwrap() {
        let members = example["value"].as_object().into_iter().flatten();
        for (member, _) in members {
            assert!(
                !schemas[name]["properties"][member].is_null(),
                "{name}.{member}"
            );
        }
    }
}
