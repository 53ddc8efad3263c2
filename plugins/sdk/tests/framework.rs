//! A framework with an argument of each kind: what follows from its table.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use proptest::prelude::*;
use serde_json::{Value, json};
use trainer_plugin::Literal::{Integer, Text as Default};
use trainer_plugin::{
    Breach, Finding, Framework, Interval, Job, Launch, LaunchPlan, Parallelism, Spelling, Table,
    Text, Training, Violation, boolean, choice, integer, list, number, refuse, text, warn,
};

static ARGUMENTS: Table = Table::new(&[
    integer("count", 1, 9)
        .alias(&["n", "number_of"])
        .default(Integer(3))
        .about("How many"),
    integer("shards", 1, 8).also(-1).about("Into how many"),
    number("rate", Interval::above(0.0, 1.0)).about("How fast"),
    number("share", Interval::below(0.0, 1.0))
        .example(trainer_plugin::Literal::Number(0.5))
        .about("How much"),
    text("note", 1, 5).default(Default("x")).about("A note"),
    text("tokenizer", 1, 9).same_as_model_id().about("Whose"),
    text("path", 1, 99)
        .form("an absolute path", |path| path.starts_with('/'))
        .example(Default("/x"))
        .about("Where"),
    boolean("fast").about("Whether"),
    choice("strategy", &["none", "full"])
        .value_alias(&[
            (Spelling::Boolean(true), "full"),
            (Spelling::Text("no"), "none"),
        ])
        .about("Which"),
    list("items").about("What"),
    choice("arch", &["a", "b"]).plugin_only().about("On what"),
    integer("like_count", 1, 9)
        .same_as("count")
        .about("As many"),
    integer("twice", 1, 99)
        .default(Integer(6))
        .derived("twice the count", |launch| {
            Some(json!(2 * launch.integer("count")?))
        })
        .about("Twice as many"),
])
.with_options(
    "# demo 1\nbetas list\ncounts integer\nschedule_kwargs object|text\nsplit any unread\nwarmup number\n",
);

const FRAMEWORK: Framework = Framework {
    name: "demo",
    version: "1",
    summary: "A demonstration",
    arguments: &ARGUMENTS,
    rules: &[&[
        refuse(
            "T01",
            "fast only with strategy full",
            "here",
            fast_needs_full,
        ),
        warn("T02", "count of 9 is much", "here", count_is_much),
        refuse("T03", "items are not one letter", "here", no_single_letter),
        refuse("T04", "no resume from s3", "here", no_resume),
    ]],
    parallelism: Parallelism::data_only,
    training: Training::unknown,
    imply: |_| {},
    environment: |_, _| {},
};

fn fast_needs_full(launch: &Launch) -> Option<Violation> {
    if !launch.is_on("fast") || launch.text("strategy").as_deref() == Some("full") {
        return None;
    }
    Violation::new(&["fast"], "extra_args.fast requires strategy full")
}

fn count_is_much(launch: &Launch) -> Option<Violation> {
    (launch.integer("count")? == 9).then_some(())?;
    Violation::new(&["shards", "count"], "count (9) is much")
}

fn no_single_letter(launch: &Launch) -> Option<Violation> {
    let letters = launch.items("items").filter(|item| item.len() == 1);
    Violation::all(letters.map(|item| Breach::new(&["items"], format!("not {item}"))))
}

fn no_resume(launch: &Launch) -> Option<Violation> {
    launch.job.resume_from_checkpoint.then_some(())?;
    Violation::new(&["/resume_from_checkpoint"], "no resume")
}

fn job(extra_args: &Value, context: &str) -> Job {
    Job {
        framework: "demo".to_string(),
        model_id: "model".to_string(),
        run_id: "run".to_string(),
        checkpoint_base_uri: "s3://bucket/runs".to_string(),
        dataset_uri: "s3://bucket/data/".to_string(),
        image: "image".to_string(),
        num_nodes: 1,
        gpus_per_node: 1,
        cpus_per_node: None,
        memory_per_node_gb: None,
        config_path: None,
        resume_from_checkpoint: false,
        environment: Vec::new(),
        extra_args: extra_args.to_string(),
        context: context.to_string(),
    }
}

fn plan(extra_args: &Value) -> Result<LaunchPlan, Vec<Finding>> {
    FRAMEWORK.plan(job(extra_args, "{}"))
}

/// The words after the fixed part of the command.
fn words(extra_args: &Value) -> Vec<String> {
    let plan = plan(extra_args).unwrap_or_else(|findings| panic!("{findings:?}"));
    let words = plan.command.into_iter().skip(23);
    words
        .map(|word| match word {
            Text::Literal(word) | Text::Template(word) => word,
        })
        .collect()
}

fn refusals(extra_args: &Value) -> Vec<String> {
    let findings = plan(extra_args).unwrap_err();
    findings
        .iter()
        .map(|f| format!("{} {} {}", f.code, f.pointer, f.detail))
        .collect()
}

#[test]
fn arguments_are_emitted_by_canonical_name_in_byte_order() {
    let given = json!({
        "number-of": 2.0, "rate": 2e-5, "fast": true, "strategy": true, "items": ["aa", "bb"], "arch": "a",
        "zz": 1, "unset": null,
    });
    let expected = "--count 2 --fast --items aa,bb --rate 0.00002 --strategy full --zz 1";
    assert_eq!(words(&given).join(" "), expected);
    assert!(words(&json!({"fast": false, "items": []})).is_empty());
    assert_eq!(words(&json!({"a-b": 1, "a_b": 1.0})), ["--a_b", "1"]);
}

#[test]
fn typed_json_keeps_false_and_resolved_arguments_have_defaults() {
    let plan = plan(&json!({"fast": false, "n": 4})).unwrap();
    let Text::Literal(typed) = &plan.environment[0].value else {
        panic!("{plan:?}")
    };
    assert_eq!(plan.environment[0].name, "TRAINING_EXTRA_ARGS_JSON");
    assert_eq!(typed, r#"{"count":4,"fast":false}"#);
    let resolved: Value = serde_json::from_str(&plan.resolved_args).unwrap();
    let expected = json!({
        "count": 4, "fast": false, "like_count": 4, "note": "x", "tokenizer": "model", "twice": 8,
    });
    assert_eq!(resolved, expected);
}

#[test]
fn a_long_key_is_cut_in_the_finding_about_it() {
    let expected = format!(
        "E01 /extra_args extra_args: key '{}…' is not a valid flag name",
        "x".repeat(64)
    );
    for length in [100, 32_000] {
        assert_eq!(
            refusals(&json!({"x".repeat(length): 1})),
            [expected.as_str()]
        );
    }
}

#[test]
fn each_generic_error_has_its_code_place_and_text() {
    for (given, message) in [
        (
            json!({"x y": 1}),
            "E01 /extra_args/x y extra_args: key 'x y' is not a valid flag name",
        ),
        (
            json!({"num-nodes": 2}),
            "E02 /extra_args/num-nodes extra_args.num-nodes: set the top-level field num_nodes \
             instead",
        ),
        (
            json!({"he": 2}),
            "E03 /extra_args/he extra_args.he: reserved by train.py (argparse would read --he as \
             another option)",
        ),
        (
            json!({"n": 1, "count": 2}),
            "E04 /extra_args/n extra_args.count and extra_args.n are the same argument (count) \
             with different values",
        ),
        (
            json!({"count": "2"}),
            "E05 /extra_args/count extra_args.count: expected integer, got \"2\"",
        ),
        (
            json!({"count": 2.5}),
            "E05 /extra_args/count extra_args.count: expected integer, got 2.5",
        ),
        (
            json!({"fast": 1}),
            "E05 /extra_args/fast extra_args.fast: expected boolean, got 1",
        ),
        (
            json!({"items": "a"}),
            "E05 /extra_args/items extra_args.items: expected list of strings, got \"a\"",
        ),
        (
            json!({"n": 10}),
            "E06 /extra_args/n extra_args.n: 10 is out of range 1..9",
        ),
        (
            json!({"shards": 0}),
            "E06 /extra_args/shards extra_args.shards: 0 is out of range -1 or 1..8",
        ),
        (
            json!({"rate": 0}),
            "E06 /extra_args/rate extra_args.rate: 0 is out of range (0,1]",
        ),
        (
            json!({"share": 1}),
            "E06 /extra_args/share extra_args.share: 1 is out of range [0,1)",
        ),
        (
            json!({"note": "toolong"}),
            "E06 /extra_args/note extra_args.note: a length of 7 is out of range 1..5",
        ),
        (
            json!({"count": u64::MAX}),
            "E06 /extra_args/count extra_args.count: 18446744073709551615 is out of range 1..9",
        ),
        (
            json!({"count": 1e30}),
            "E06 /extra_args/count extra_args.count: 1e+30 is out of range 1..9",
        ),
        (
            json!({"strategy": "half"}),
            "E07 /extra_args/strategy extra_args.strategy: 'half' is not one of none, full",
        ),
        (
            json!({"path": "x"}),
            "E07 /extra_args/path extra_args.path: 'x' is not an absolute path",
        ),
        (
            json!({"note": "--x"}),
            "E08 /extra_args/note extra_args.note: a string value must not start with \"--\"",
        ),
        (
            json!({"any": "a\u{7}"}),
            "E09 /extra_args/any extra_args.any: control characters are not allowed",
        ),
        (
            json!({"any": {"a": 1}}),
            "E10 /extra_args/any extra_args.any: nested objects are not supported, use dotted keys \
             or overrides",
        ),
        (
            json!({"any": "x".repeat(5000)}),
            "E06 /extra_args/any extra_args.any: 5000 bytes, but at most 4096 are allowed",
        ),
        (
            json!({"fast": true}),
            "T01 /extra_args/fast extra_args.fast requires strategy full",
        ),
    ] {
        assert_eq!(refusals(&given), [message]);
    }
    assert_eq!(
        plan(&json!({"shards": -1, "strategy": "no"}))
            .unwrap()
            .warnings
            .len(),
        0
    );
}

#[test]
fn everything_wrong_is_told_at_once_and_no_rule_speaks_of_a_refused_argument() {
    let message = refusals(&json!({"count": 0, "strategy": 5, "rate": "x", "a b": 1}));
    let codes: Vec<&str> = message.iter().map(|message| &message[..3]).collect();
    assert_eq!(codes, ["E01", "E06", "E05", "E05"]);
    let message = refusals(&json!({"count": 1, "n": 2, "number_of": 3}));
    let places: Vec<&str> = message
        .iter()
        .filter_map(|message| message.split(' ').nth(1))
        .collect();
    assert_eq!(places, ["/extra_args/n", "/extra_args/number_of"]);
}

#[test]
fn unknown_arguments_are_forwarded_with_a_warning_or_refused_with_the_nearest_name() {
    let warnings = plan(&json!({"cuont": 1, "n": 9})).unwrap().warnings;
    let message: Vec<&str> = warnings
        .iter()
        .map(|warning| warning.detail.as_str())
        .collect();
    let forwarded = "extra_args.cuont: unknown to framework demo, forwarded as --cuont";
    assert_eq!(message, [forwarded, "count (9) is much"]);
    let strict = FRAMEWORK.plan(job(&json!({"cuont": 1}), r#"{"strict_arguments":true}"#));
    let detail = "extra_args.cuont: unknown argument, did you mean \"count\"?";
    assert_eq!(strict.unwrap_err()[0].detail, detail);
}

/// What a job with the arguments is answered where slips are refused: findings, or warnings.
fn suggested(extra_args: &Value) -> Vec<String> {
    let findings = match FRAMEWORK.plan(job(extra_args, r#"{"unknown_arguments":"suggest"}"#)) {
        Ok(plan) => plan.warnings,
        Err(findings) => findings,
    };
    let message = findings.into_iter();
    message
        .map(|finding| format!("{} {}", finding.code, finding.detail))
        .collect()
}

#[test]
fn a_slip_of_a_name_is_refused_with_what_was_meant_and_other_names_are_forwarded() {
    for (slip, meant) in [
        ("cuont", "\"count\""),
        ("COUNT", "\"count\""),
        ("number-off", "\"number_of\""),
        ("strateg", "\"strategy\""),
        ("schedule_kwarg", "\"schedule_kwargs\""),
        ("num_node", "the top-level field \"num_nodes\""),
    ] {
        let refused = format!("E11 extra_args.{slip}: unknown argument, did you mean {meant}?");
        assert_eq!(suggested(&json!({slip: 1})), [refused]);
    }
    for far in ["nsys_profile", "zz", "my_count", "a.count"] {
        let forwarded =
            format!("W05 extra_args.{far}: unknown to framework demo, forwarded as --{far}");
        assert_eq!(suggested(&json!({far: 1})), [forwarded]);
    }
}

#[test]
fn an_option_of_the_framework_itself_is_forwarded_when_it_has_its_type() {
    let given =
        json!({"counts": 2, "warmup": 1, "schedule_kwargs": {"a": [1, null]}, "betas": [1, 2]});
    assert_eq!(suggested(&given), Vec::<String>::new());
    assert_eq!(
        words(&given).join(" "),
        r#"--betas 1,2 --counts 2 --schedule_kwargs {"a":[1,null]} --warmup 1"#
    );
    let unread = "W05 extra_args.split: an option of framework demo that train.py does not use, \
                  forwarded as --split";
    assert_eq!(suggested(&json!({"split": "train"})), [unread]);
    for (wrong, message) in [
        (json!({"counts": 2.5}), "counts: expected integer, got 2.5"),
        (
            json!({"counts": true}),
            "counts: expected integer, got true",
        ),
        (
            json!({"betas": {"a": 1}}),
            "betas: expected list, got {\"a\":1}",
        ),
        (
            json!({"schedule_kwargs": 1}),
            "schedule_kwargs: expected object or string, got 1",
        ),
    ] {
        assert_eq!(suggested(&wrong), [format!("E05 extra_args.{message}")]);
    }
}

#[test]
fn what_torchrun_would_read_is_refused() {
    for (key, option) in [
        ("monitor", "monitor_interval"),
        ("start", "start_method"),
        ("local", "local_addr"),
        ("node-", "node_rank"),
        ("ma", "master_addr"),
        ("max_restarts", "max_restarts"),
        ("rdzv-id", "rdzv_id"),
    ] {
        let name = key.replace('-', "_");
        let refused = format!(
            "E03 extra_args.{key}: reserved by torchrun (it would read --{name} as its own option \
             --{option}); remove it"
        );
        assert_eq!(suggested(&json!({key: 1})), [refused]);
    }
    assert_eq!(suggested(&json!({"monitoring": 1})).len(), 1);
}

#[test]
fn a_string_that_begins_with_a_dash_is_no_value_unless_it_is_a_number() {
    for value in ["-h", "-", "-x y", "-m"] {
        let message = &suggested(&json!({"note": value}))[0];
        assert!(message.starts_with("E08 "), "{message}");
        assert!(suggested(&json!({"items": ["a", value]}))[0].starts_with("E08 "));
    }
    assert_eq!(suggested(&json!({"note": "-1.5"})), Vec::<String>::new());
}

#[test]
fn a_finding_points_at_the_first_argument_that_is_given_and_each_breach_is_told() {
    let warnings = plan(&json!({"n": 9})).unwrap().warnings;
    assert_eq!(warnings[0].pointer, "/extra_args/n");
    let message = refusals(&json!({"items": ["a", "bb", "c"]}));
    assert_eq!(
        message,
        ["T03 /extra_args/items not a", "T03 /extra_args/items not c"]
    );
    let mut resumed = job(&json!({}), "{}");
    resumed.resume_from_checkpoint = true;
    let findings = FRAMEWORK.plan(resumed).unwrap_err();
    assert_eq!(findings[0].pointer, "/resume_from_checkpoint");
}

#[test]
fn every_argument_is_found_by_each_of_its_names_and_sorted() {
    for argument in ARGUMENTS.arguments() {
        for name in std::iter::once(&argument.name).chain(argument.aliases) {
            let mut given = json!({"strategy": "full"});
            given[*name] = argument.schema()["examples"][0].clone();
            assert!(plan(&given).unwrap().warnings.is_empty(), "{given}");
        }
    }
}

#[test]
fn every_default_and_every_spelling_fits_the_published_schema() {
    let schema: Value = serde_json::from_str(&FRAMEWORK.describe().args_schema).unwrap();
    let properties = schema["properties"].as_object().unwrap();
    assert_eq!(properties.len(), ARGUMENTS.arguments().len());
    assert_eq!(
        properties["strategy"]["enum"],
        json!(["none", "full", true, "no"])
    );
    assert_eq!(properties["count"]["x-aliases"], json!(["n", "number_of"]));
    assert_eq!(properties["twice"]["default"], 6);
    assert_eq!(properties["twice"]["x-default"], "twice the count");
    assert_eq!(schema["x-rules"][0]["code"], "T01");
}

#[test]
fn mistakes_in_a_table_are_found() {
    static TABLE: Table = Table::new(&[
        integer("count", 1, 9)
            .default(Integer(10))
            .about("How many"),
        boolean("other").alias(&["count", "model"]),
    ]);
    const WRONG: Framework = Framework {
        arguments: &TABLE,
        ..FRAMEWORK
    };
    let expected = [
        "the default of count: 10 is out of range 1..9",
        "the example of count: 10 is out of range 1..9",
        "count is the name of two arguments",
        "model is reserved and cannot be used as an argument",
        "other has no description",
    ];
    assert_eq!(WRONG.validate(), expected);
    assert!(FRAMEWORK.validate().is_empty());
}

/// Values that might stand behind any key.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        (-2_i64..12).prop_map(Value::from),
        (0.0..2.0).prop_map(|number: f64| json!(number)),
        any::<bool>().prop_map(Value::from),
        r"\PC{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            "full", "none", "/x", "$(RANK)", "; rm", "-x", "--y", "a b"
        ])
        .prop_map(Value::from),
        prop::collection::vec(r"\PC{0,4}", 0..3).prop_map(|items| json!(items)),
    ]
}

fn arguments() -> impl Strategy<Value = Vec<(String, Value)>> {
    let known = [
        "count", "n", "shards", "rate", "note", "fast", "strategy", "items", "arch", "other",
    ];
    let key = prop::sample::select(known.to_vec()).prop_map(str::to_string);
    prop::collection::btree_map(key, value(), 0..8)
        .prop_map(|members| members.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn no_accepted_value_adds_a_flag_or_changes_with_the_order(members in arguments()) {
        let text = |members: &[(String, Value)]| {
            let members: Vec<String> =
                members.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
            format!("{{{}}}", members.join(","))
        };
        let mut job = job(&json!({}), "{}");
        job.extra_args = text(&members);
        let planned = FRAMEWORK.plan(job.clone());
        let mut reversed = members.clone();
        reversed.reverse();
        job.extra_args = text(&reversed);
        prop_assert_eq!(format!("{planned:?}"), format!("{:?}", FRAMEWORK.plan(job)));
        let Ok(plan) = planned else { return Ok(()) };
        for word in plan.command.into_iter().skip(23) {
            let Text::Literal(word) = word else { panic!("a template from a request") };
            if let Some(flag) = word.strip_prefix("--") {
                let of_table = ARGUMENTS.arguments().iter().any(|argument| argument.name == flag);
                prop_assert!(of_table || flag == "other", "{}", word);
            }
        }
    }
}
