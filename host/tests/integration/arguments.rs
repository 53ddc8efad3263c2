//! Any `extra_args` for any framework: what the plugins' own tables say is what holds.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::{BoxedStrategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::service::{Answer, Service, request};

/// Requests that the property test sends, besides those that repeat one in other words.
const REQUESTS: usize = 100_000;
/// Words of a command before the arguments: torchrun's, train.py and its own options.
const FIXED_WORDS: usize = 23;

/// The arguments of a framework, as it publishes them.
struct Table {
    framework: String,
    arguments: Map<String, Value>,
    /// Each spelling of a name, with the canonical one.
    names: BTreeMap<String, String>,
}

impl Table {
    async fn all(service: &Service) -> Vec<Self> {
        let answer = service.get("/frameworks").await.json();
        let frameworks = answer["frameworks"].as_array().unwrap().iter();
        frameworks.map(Self::of).collect()
    }

    fn of(framework: &Value) -> Self {
        let arguments = framework["args_schema"]["properties"].as_object().unwrap();
        let mut names = BTreeMap::new();
        for (name, schema) in arguments {
            names.insert(name.clone(), name.clone());
            for alias in schema["x-aliases"].as_array().into_iter().flatten() {
                names.insert(alias.as_str().unwrap().to_string(), name.clone());
            }
        }
        Self {
            framework: framework["name"].as_str().unwrap().to_string(),
            arguments: arguments.clone(),
            names,
        }
    }

    /// A few arguments under any of their names, most with values that may be right.
    fn extra_args(&self) -> BoxedStrategy<Vec<(String, Value)>> {
        let spelled: Vec<(String, Value)> = self
            .names
            .iter()
            .map(|(spelling, name)| (spelling.clone(), self.arguments[name].clone()))
            .collect();
        let member = prop::sample::select(spelled)
            .prop_flat_map(|(name, schema)| (Just(name), value(&schema)));
        let unknown = ("[a-zA-Z0-9_.-]{1,12}", any_value());
        let member = prop_oneof![12 => member, 1 => unknown];
        prop::collection::vec(member, 0..6)
            .prop_map(|members| members.into_iter().collect::<BTreeMap<_, _>>())
            .prop_map(|members| members.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
            .boxed()
    }
}

/// A value that a schema takes more often than not.
fn value(schema: &Value) -> BoxedStrategy<Value> {
    let example = Just(schema["examples"][0].clone());
    let right = match schema["type"].as_str() {
        Some("integer") => {
            let minimum = schema["minimum"].as_i64().unwrap_or(1);
            prop_oneof![minimum..minimum + 3, Just(8), Just(16), Just(2048)]
                .prop_map(Value::from)
                .boxed()
        }
        Some("number") => prop_oneof![Just(json!(0.1)), Just(json!(1)), Just(json!(2e-5))].boxed(),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("string") => prop_oneof![
            example.clone(),
            "[ -~]{1,9}".prop_map(Value::from),
            prop::sample::select(HOSTILE.to_vec()).prop_map(Value::from),
        ]
        .boxed(),
        Some("array") => prop_oneof![
            example.clone(),
            prop::collection::vec("[ -~]{0,5}", 0..3).prop_map(Value::from),
        ]
        .boxed(),
        _ => prop::sample::select(schema["enum"].as_array().unwrap().clone()).boxed(),
    };
    prop_oneof![10 => right, 3 => example, 1 => any_value()].boxed()
}

/// What a shell, a command line or the kubelet would read otherwise.
const HOSTILE: &[&str] = &[
    "$(RANK)",
    "$$",
    "; rm -rf /",
    "`id`",
    "--resume",
    "-x",
    "a b",
    "a\\'b\"",
    "--",
    "=",
];

fn any_value() -> BoxedStrategy<Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        r"\PC{0,6}".prop_map(Value::from),
        prop::sample::select(HOSTILE.to_vec()).prop_map(Value::from),
        prop::collection::vec(any::<u8>().prop_map(Value::from), 0..3).prop_map(Value::from),
        Just(Value::Null),
    ]
    .boxed()
}

/// The body with its arguments in just this order.
fn body(framework: &str, members: &[(String, Value)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{}:{value}", json!(name)))
        .collect();
    let mut request = request("x", "run-1");
    request["framework"] = json!(framework);
    request["num_nodes"] = json!(2);
    request["gpus_per_node"] = json!(8);
    let request = request.to_string();
    let rest = request.strip_suffix('}').unwrap();
    format!("{rest},\"extra_args\":{{{}}}}}", members.join(","))
}

fn words(answer: &Answer) -> Vec<String> {
    let command = answer.json()["manifest"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        ["spec"]["containers"][0]["command"]
        .clone();
    serde_json::from_value(command).unwrap()
}

#[tokio::test]
async fn arguments_never_break_out_and_neither_order_nor_alias_changes_a_manifest() {
    let service = Service::start().await;
    let tables = Table::all(&service).await;
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategies: Vec<_> = tables.iter().map(Table::extra_args).collect();
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..REQUESTS {
        let (table, strategy) = (
            &tables[number % tables.len()],
            &strategies[number % tables.len()],
        );
        let members = strategy.new_tree(&mut runner).unwrap().current();
        let sent = body(&table.framework, &members);
        let answer = service.post("/train/preview", sent.clone()).await;
        match answer.status.as_u16() {
            200 => accepted += 1,
            400 => {
                refused += 1;
                continue;
            }
            status => panic!("{status} for {sent}: {}", answer.text),
        }
        let words = words(&answer);
        assert_eq!(words[0], "torchrun", "{sent}");
        assert_flags_are_of(table, &members, &words[FIXED_WORDS..], &sent);
        let mut sorted = members.clone();
        sorted.sort_by(|(a, _), (b, _)| b.cmp(a));
        let reordered = service
            .post("/train/preview", body(&table.framework, &sorted))
            .await;
        assert_eq!(reordered.text, answer.text, "{sent}");
        let canonical = canonical(table, &members);
        let renamed = service
            .post("/train/preview", body(&table.framework, &canonical))
            .await;
        assert_eq!(
            renamed.json()["manifest"],
            answer.json()["manifest"],
            "{sent}"
        );
    }
    // Generators that only ever make one kind would show nothing.
    assert!(
        accepted > REQUESTS / 10 && refused > REQUESTS / 10,
        "{accepted} {refused}"
    );
}

/// Asserts that each flag is an argument that was given, or the one that `eval_steps` implies.
fn assert_flags_are_of(table: &Table, members: &[(String, Value)], words: &[String], sent: &str) {
    let mut given: Vec<String> = canonical(table, members)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    if given.iter().any(|name| name == "eval_steps") {
        given.push("eval_strategy".to_string());
    }
    let flags: Vec<&str> = words
        .iter()
        .filter_map(|word| word.strip_prefix("--"))
        .collect();
    for flag in &flags {
        assert!(given.iter().any(|name| name == flag), "--{flag} of {sent}");
    }
    let values = words.len() - flags.len();
    assert!(values <= flags.len(), "{words:?} of {sent}");
}

/// The same arguments by canonical name, without those that are null. Of two equal values, the
/// shorter form is kept: 1 and not 1.0.
fn canonical(table: &Table, members: &[(String, Value)]) -> Vec<(String, Value)> {
    let mut canonical = BTreeMap::<String, Value>::new();
    for (key, value) in members.iter().filter(|(_, value)| !value.is_null()) {
        let key = key.replace('-', "_");
        let name = table.names.get(&key).cloned().unwrap_or(key);
        let kept = canonical.entry(name).or_insert_with(|| value.clone());
        if value.to_string().len() < kept.to_string().len() {
            *kept = value.clone();
        }
    }
    canonical.into_iter().collect()
}
