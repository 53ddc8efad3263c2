//! Generates the OpenAPI 3.1 document: schemas from the types, paths from one table, and examples
//! from the loaded frameworks.

mod examples;
pub mod operations;
mod page;

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

pub use page::page;

use super::WhoAmI;
use crate::explain::Framework;
use crate::finding::Finding;
use crate::job::{
    DeletedJob, JobDetails, JobPage, JobProgress, JobSummary, JobUpdate, ListedJob, Metrics,
};
use crate::preview::Preview;
use crate::request;
use operations::{Answer, Body, OPERATIONS, Operation, PARAMETERS, Parameter, Place, descriptions};

/// The path of the schemas in the document.
const SCHEMAS: &str = "/components/schemas";

/// The document for a service with these frameworks.
pub fn document(frameworks: &[Framework]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described(operation, frameworks);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Unified Trainer API",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "One HTTP request starts a training job.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": "jobs", "description": "Training jobs"},
            {"name": "frameworks", "description": "Frameworks for jobs"},
            {"name": "service", "description": "The service itself"},
        ],
        "security": [{"token": []}, {"bearer": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "parameters": parameters(),
            "responses": examples::problems(),
            "examples": examples::all(),
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-TRAINER-TOKEN"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    })
}

fn schemas() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut generator = settings
        .with(|settings| {
            settings.definitions_path = SCHEMAS.into();
            settings.meta_schema = None;
        })
        .into_generator();
    generator.subschema_for::<JobSummary>();
    generator.subschema_for::<JobPage>();
    generator.subschema_for::<ListedJob>();
    generator.subschema_for::<JobDetails>();
    generator.subschema_for::<JobUpdate>();
    generator.subschema_for::<JobProgress>();
    generator.subschema_for::<DeletedJob>();
    generator.subschema_for::<Metrics>();
    generator.subschema_for::<Preview>();
    generator.subschema_for::<Finding>();
    generator.subschema_for::<WhoAmI>();
    let mut schemas = generator.take_definitions(true);
    schemas.values_mut().for_each(as_enum);
    let mut request = request::json_schema().clone();
    if let Some(request) = request.as_object_mut() {
        request.remove("$schema");
    }
    without_null_defaults(&mut request);
    schemas.insert("TrainingJobRequest".to_string(), request);
    schemas.insert("Framework".to_string(), framework());
    schemas.insert("Frameworks".to_string(), frameworks());
    schemas.insert("Problem".to_string(), problem());
    Value::Object(schemas)
}

/// Turns a choice between described constants into an enum: generators of clients make a type of
/// each alternative otherwise.
fn as_enum(schema: &mut Value) {
    let alternatives = schema["oneOf"].as_array().into_iter().flatten();
    let alternatives: Option<Vec<(Value, String)>> = alternatives
        .map(|alternative| {
            let value = alternative.get("const")?.clone();
            let meaning = alternative["description"].as_str().unwrap_or_default();
            let described = format!("- {value}: {meaning}");
            Some((value, described))
        })
        .collect();
    let Some(alternatives) = alternatives.filter(|alternatives| !alternatives.is_empty()) else {
        return;
    };
    let (values, meanings): (Vec<Value>, Vec<String>) = alternatives.into_iter().unzip();
    let about = schema["description"].as_str().unwrap_or_default();
    let description = format!("{about}\n\n{}", meanings.join("\n"));
    *schema = json!({"type": "string", "enum": values, "description": description});
}

/// Generated clients take a member with a default for one that is always there.
fn without_null_defaults(schema: &mut Value) {
    let Some(properties) = schema["properties"].as_object_mut() else {
        return;
    };
    for property in properties.values_mut().filter_map(Value::as_object_mut) {
        property.retain(|name, value| name != "default" || !value.is_null());
    }
}

/// A problem document (RFC 9457).
fn problem() -> Value {
    json!({
        "type": "object",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": {"type": "string", "description": "urn:trainer:problem: followed by the kind"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "A human-readable explanation"},
            "instance": {"type": "string", "description": "The id of the request"},
            "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Finding"}},
        },
    })
}

fn framework() -> Value {
    json!({
        "type": "object",
        "required": ["name", "version", "summary", "digest", "args_schema"],
        "properties": {
            "name": {"type": "string"},
            "version": {"type": "string"},
            "summary": {"type": "string"},
            "digest": {"type": "string"},
            "source": {"type": "string", "description": "Source of the plugin"},
            "out_of_service_seconds": {
                "type": "integer",
                "description": "Set while the plugin is out of service after repeated failures",
            },
            "args_schema": {
                "type": "object",
                "description": "The JSON Schema of extra_args",
            },
        },
    })
}

fn frameworks() -> Value {
    json!({
        "type": "object",
        "required": ["frameworks"],
        "properties": {
            "frameworks": {"type": "array", "items": {"$ref": "#/components/schemas/Framework"}},
            "refused": {
                "type": "array",
                "description": "Sources whose plugin was refused, and why",
                "items": {"type": "object"},
            },
            "default_image": {
                "type": "object",
                "description": "The image of jobs that name none",
                "required": ["image"],
                "properties": {
                    "image": {"type": "string"},
                    "packages": {
                        "type": "object",
                        "description": "Names and versions of its Python packages, if they are known; a \
                                        job that needs another one is refused",
                        "additionalProperties": {"type": "string"},
                    },
                },
            },
        },
    })
}

fn parameters() -> Value {
    let parameters = PARAMETERS.iter().map(|parameter| {
        let Parameter {
            name,
            place,
            description,
            value,
        } = parameter;
        let parameter = json!({
            "name": name,
            "in": match place {
                Place::Path => "path",
                Place::Query => "query",
                Place::Header => "header",
            },
            "required": *place == Place::Path,
            "description": description,
            "schema": values(*value),
        });
        (name.to_string(), parameter)
    });
    Value::Object(parameters.collect())
}

/// The schema of a parameter.
fn values(value: operations::Value) -> Value {
    use operations::Value as Takes;
    match value {
        Takes::Text => json!({"type": "string"}),
        Takes::Name => json!({"type": "string", "minLength": 1}),
        Takes::Key => json!({"type": "string", "pattern": "^[!-~]{1,255}$"}),
        Takes::Flag => json!({"type": "boolean", "default": false}),
        Takes::Whole {
            least,
            most,
            default,
        } => {
            let mut schema = json!({"type": "integer", "minimum": least, "maximum": most});
            if let Some(default) = default {
                schema["default"] = default.into();
            }
            schema
        }
        Takes::OneOf(words) => json!({"type": "string", "enum": words}),
        Takes::State => json!({"$ref": format!("#{SCHEMAS}/JobState")}),
    }
}

fn described(operation: &Operation, frameworks: &[Framework]) -> Value {
    let path = operation.path.split(['{', '}']).skip(1).step_by(2);
    let parameters = path.chain(operation.parameters.iter().copied());
    let reference = |name| json!({"$ref": format!("#/components/parameters/{name}")});
    let parameters: Vec<Value> = parameters.map(reference).collect();
    let mut responses = Map::new();
    for answer in operation.answers {
        responses.insert(answer.status.to_string(), answered(answer));
    }
    for status in operation.refusals() {
        let response = json!({"$ref": format!("#/components/responses/Problem{status}")});
        responses.insert(status.to_string(), response);
    }
    let mut described = json!({
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": descriptions::of(operation.id),
        "parameters": parameters,
        "responses": responses,
    });
    if let Body::Request = operation.body {
        described["requestBody"] = body(frameworks);
    }
    if operation.is_open {
        described["security"] = json!([{}]);
    }
    described
}

fn answered(answer: &Answer) -> Value {
    let content = answer.content.iter().map(|(media, schema)| {
        let mut shape = match *schema {
            "" | "csv" | "log" => json!({"schema": {"type": "string"}}),
            "object" => json!({"schema": {"type": "object"}}),
            "event" => events(&["status", "deleted"]),
            "feed-event" => events(&["reset", "status", "synced", "progress", "deleted"]),
            "metrics-event" => events(&["metrics", "end"]),
            names => json!({"schema": one_of(names)}),
        };
        let examples = examples::of(schema.split('|'));
        if !examples.is_empty() {
            shape["examples"] = examples.into();
        }
        (media.to_string(), shape)
    });
    let content: Map<String, Value> = content.collect();
    let mut answered = json!({"description": answer.description});
    if !content.is_empty() {
        answered["content"] = Value::Object(content);
    }
    answered
}

/// A reference to a shape, or to each of several between `|`, the one with more members first.
fn one_of(names: &str) -> Value {
    let reference = |name| json!({"$ref": format!("#{SCHEMAS}/{name}")});
    let mut references: Vec<Value> = names.split('|').map(reference).collect();
    match references.len() {
        1 => references.remove(0),
        _ => json!({"anyOf": references}),
    }
}

/// A stream of events. `itemSchema`, which describes each of them, is a member of OpenAPI 3.2. There is no
/// `schema`, which some tools apply to the whole stream and others to each event.
fn events(names: &[&str]) -> Value {
    let event = json!({
        "type": "object",
        "properties": {
            "event": {"enum": names},
            "id": {"type": "string"},
            "retry": {"type": "integer", "description": "Milliseconds"},
            "data": {"type": "string", "contentMediaType": "application/json"},
        },
        "required": ["event", "data"],
    });
    json!({"itemSchema": event})
}

fn body(frameworks: &[Framework]) -> Value {
    let examples = frameworks.iter().map(|framework| {
        let example = json!({"summary": framework.summary, "value": example(framework)});
        (framework.name.to_string(), example)
    });
    let examples: Map<String, Value> = examples.collect();
    json!({
        "required": true,
        "content": {"application/json": {
            "schema": {"$ref": format!("#{SCHEMAS}/TrainingJobRequest")},
            "examples": examples,
        }},
    })
}

/// An example request for a framework, with the first arguments that have an example.
fn example(framework: &Framework) -> Value {
    /// More arguments would hide the structure of a request.
    const ARGUMENTS: usize = 4;
    let properties = framework.schema["properties"].as_object();
    let mut arguments: Vec<(&String, &Value)> = properties.into_iter().flatten().collect();
    arguments.sort_by_key(|(_, schema)| schema["x-order"].as_u64());
    let arguments = arguments.into_iter().filter_map(|(name, schema)| {
        let example = schema["examples"].as_array()?.first()?;
        Some((name.clone(), example.clone()))
    });
    let arguments: Map<String, Value> = arguments.take(ARGUMENTS).collect();
    json!({
        "framework": framework.name,
        "model_id": "my-model",
        "run_id": "run-1",
        "checkpoint_base_uri": "s3://bucket/runs",
        "dataset_uri": "s3://bucket/data/",
        "num_nodes": 2,
        "gpus_per_node": 8,
        "extra_args": arguments,
    })
}
