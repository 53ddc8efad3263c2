//! Launches and refusals that have to come out exactly, byte for byte.

use serde_json::{Value, json};
use trainer_host::metadata::IDENTITY_VARIABLES;

use crate::service::Service;

const GOLDEN: &str = include_str!("../data/golden.jsonl");
const REFUSALS: &str = include_str!("../data/refusals.jsonl");

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

#[tokio::test]
async fn golden_launches_come_out_byte_for_byte() {
    let service = Service::start().await;
    for line in lines(GOLDEN) {
        let id = &line["id"];
        let preview = service.preview(&line["request"]).await;
        assert_eq!(preview.status, 200, "{id}: {}", preview.text);
        let preview = preview.json();
        let replicas = &preview["manifest"]["spec"]["pytorchReplicaSpecs"];
        let container = &replicas["Master"]["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], line["argv"], "{id}");
        let variables = container["env"].as_array().unwrap().iter();
        let of_plugin = variables.filter(|variable| {
            let name = variable["name"].as_str().unwrap();
            !IDENTITY_VARIABLES.contains(&name)
        });
        let of_plugin = of_plugin.map(|v| (v["name"].as_str().unwrap().into(), v["value"].clone()));
        assert_eq!(Value::Object(of_plugin.collect()), line["env"], "{id}");
        let warnings: Vec<Value> = preview["warnings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|w| {
                format!(
                    "{} {}",
                    w["code"].as_str().unwrap(),
                    w["detail"].as_str().unwrap()
                )
                .into()
            })
            .collect();
        assert_eq!(json!(warnings), line["warnings"], "{id}");
    }
}

#[tokio::test]
async fn golden_refusals_have_code_text_and_pointer() {
    let service = Service::start().await;
    for line in lines(REFUSALS) {
        let mut request = crate::service::request("x", "run-1");
        for field in ["framework", "num_nodes", "gpus_per_node", "extra_args"] {
            request[field] = line[field].clone();
        }
        let problem = service.preview(&request).await.problem(400);
        let errors = problem["errors"].as_array().unwrap();
        let error = errors
            .iter()
            .find(|error| error["code"] == line["code"])
            .unwrap();
        assert_eq!(error["detail"], line["detail"]);
        let pointer = error["pointer"].as_str().unwrap();
        assert!(request.pointer(pointer).is_some(), "{pointer}");
    }
}
