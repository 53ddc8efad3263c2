//! Launches and refusals that have to come out exactly, as far as the tables of arguments go.

use serde_json::{Value, json};

use crate::service::Service;

const GOLDEN: &str = include_str!("../data/golden.jsonl");
const REFUSALS: &str = include_str!("../data/refusals.jsonl");

/// The lines whose arguments all stand in the plugin's own table.
async fn lines(service: &Service, text: &str, request: impl Fn(&Value) -> Value) -> Vec<Value> {
    let frameworks = service.get("/frameworks").await.json();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines
        .filter(|line| {
            let request = request(line);
            let of = |f: &&Value| f["name"] == request["framework"];
            let framework = frameworks["frameworks"]
                .as_array()
                .unwrap()
                .iter()
                .find(of)
                .unwrap();
            let properties = framework["args_schema"]["properties"].as_object().unwrap();
            let known = |key: &String| {
                let alias = |p: &Value| {
                    p["x-aliases"]
                        .as_array()
                        .is_some_and(|a| a.contains(&json!(key)))
                };
                properties.contains_key(key) || properties.values().any(alias)
            };
            request["extra_args"]
                .as_object()
                .is_none_or(|arguments| arguments.keys().all(known))
        })
        .collect()
}

#[tokio::test]
async fn golden_launches_come_out_byte_for_byte() {
    let service = Service::start().await;
    let lines = lines(&service, GOLDEN, |line| line["request"].clone()).await;
    assert!(lines.len() >= 6, "{}", lines.len());
    for line in lines {
        let id = &line["id"];
        let preview = service.preview(&line["request"]).await;
        assert_eq!(preview.status, 200, "{id}: {}", preview.text);
        let preview = preview.json();
        let replicas = &preview["manifest"]["spec"]["pytorchReplicaSpecs"];
        let container = &replicas["Master"]["template"]["spec"]["containers"][0];
        assert_eq!(container["command"], line["argv"], "{id}");
        let variables = container["env"].as_array().unwrap();
        for (name, value) in line["env"].as_object().unwrap() {
            let variable = json!({"name": name, "value": value});
            assert!(variables.contains(&variable), "{id}: {name}");
        }
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
    let all = REFUSALS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    // What the tables cannot know yet is forwarded; the generic rules hold for every argument.
    let mut checked = 0;
    for line in all.filter(|l| {
        matches!(
            l["code"].as_str(),
            Some("E02" | "E03" | "E04" | "E05" | "E06")
        )
    }) {
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
        checked += 1;
    }
    assert!(checked >= 5, "{checked}");
}
