//! What is read of YAML, what is refused, and where.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn value(text: &str) -> Value {
    parse(text)
        .unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
        .0
}

/// The findings about a text: code, pointer, sentence.
fn wrong(text: &str) -> Vec<(String, String, String)> {
    let found = parse(text).unwrap_err();
    found
        .into_iter()
        .map(|Misread { finding, .. }| (finding.code, finding.pointer, finding.detail))
        .collect()
}

#[test]
fn a_request_is_read() {
    let text = "# comment\nframework: hf\nextra_args:\n  lr: 1e-4\n  report_to: [a, 'b']\n  \
                note: |\n    two\n    lines\nenv: {A: '1', B: \"NO\"}\n";
    let expected = json!({
        "framework": "hf",
        "extra_args": {"lr": 1e-4, "report_to": ["a", "b"], "note": "two\nlines\n"},
        "env": {"A": "1", "B": "NO"},
    });
    assert_eq!(value(text), expected);
    assert_eq!(value("---\na: !!str 1\n...\n"), json!({"a": "1"}));
}

#[test]
fn aliases_and_merges_repeat_what_they_name() {
    let text =
        "a: &base {x: 1, y: 2}\nb: *base\nc:\n  <<: *base\n  y: 3\nd:\n  <<: [*base, {z: 4}]\n";
    let expected = json!({
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1, "y": 3},
        "d": {"x": 1, "y": 2, "z": 4},
    });
    assert_eq!(value(text), expected);
}

#[test]
fn what_readers_disagree_about_is_told_with_its_line() {
    let text = "run_id: 001\nenv:\n  C: NO\n  D: 0755\nseed: 1_000\n";
    let found = wrong(text);
    let pointers: Vec<&str> = found.iter().map(|found| found.1.as_str()).collect();
    assert_eq!(pointers, ["/run_id", "/env/C", "/env/D", "/seed"]);
    assert!(
        found.iter().all(|found| found.0 == "ambiguous"),
        "{found:?}"
    );
    assert_eq!(
        found[1].2,
        "line 3: readers of YAML disagree about NO without quotes; quote it (\"NO\") if it is text, \
         or write false if it is a boolean"
    );
}

#[test]
fn a_name_given_twice_is_told_at_its_second_place() {
    let text = "a: 1\nb: {c: 1, c: 2}\na: 2\n";
    let found = parse(text).unwrap_err();
    let places: Vec<_> = found
        .iter()
        .map(|found| {
            (
                found.finding.pointer.as_str(),
                &text[found.at.clone()],
                found.at.start,
            )
        })
        .collect();
    assert_eq!(places, [("/b/c", "c", 15), ("/a", "a", 21)]);
}

#[test]
fn what_is_not_yaml_is_told_with_its_line_and_a_remedy() {
    for (text, line, said) in [
        ("a: b: c\n", 1, "quote a value that has a colon"),
        ("a: 1\n\tb: 2\n", 2, "indent with spaces"),
        ("a: 'x\n", 0, "quotation mark is not closed"),
        ("a: [1, 2\n", 0, "close or separate"),
        ("a: \"\\q\"\n", 1, "backslash"),
        ("a: 1\n b: 2\n", 2, ""),
        ("a: *x\n", 1, "names nothing that comes before it"),
        ("a: &x [*x]\n", 1, "within the value that it repeats"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: !env HOME\n", 1, "the tag \"!env\" has no meaning here"),
        ("a: !!binary aGk=\n", 1, "has no meaning here"),
        ("a: @x\n", 1, "put the value in quotes"),
        ("? [a]\n: 1\n", 1, "a name must be text"),
        (": 1\n", 1, "a name is missing"),
        ("<<: 1\n", 1, "<< takes an object"),
    ] {
        let found = wrong(text);
        assert_eq!(
            (found[0].0.as_str(), found[0].1.as_str()),
            ("not-yaml", ""),
            "{text}"
        );
        let detail = &found[0].2;
        let begins = line == 0 || detail.starts_with(&format!("line {line}: "));
        assert!(begins && detail.contains(said), "{text}: {detail}");
    }
    for empty in ["", "\n", "# only a comment\n", "---\n"] {
        let read = parse(empty);
        let is_null = matches!(&read, Ok((Value::Null, _)));
        assert!(is_null || wrong(empty)[0].2.contains("empty"), "{empty:?}");
    }
}

#[test]
fn a_bomb_of_aliases_is_refused_quickly() {
    let mut text = "a0: &a0 [x, x]\n".to_string();
    for level in 1..40 {
        let before = level - 1;
        text.push_str(&format!("a{level}: &a{level} [*a{before}, *a{before}]\n"));
    }
    assert_eq!(wrong(&text)[0].0, "size");
    let mut chain = "a0: &a0 [x]\n".to_string();
    for level in 1..400 {
        chain.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(wrong(&chain)[0].2.contains("deep"));
    assert!(wrong(&"[".repeat(100_000))[0].2.contains("deep"));
    let long = format!("[{}]", "1,".repeat(30_000));
    assert_eq!(wrong(&long)[0].0, "size");
}

#[test]
fn a_pointer_is_found_in_yaml_and_in_json() {
    let yaml = "framework: meta\nextra_args:\n  lr: fast\n  list: [1, 2]\nenv: {A: 1.10}\n";
    let of = |text: &str, pointer: &str| {
        let place = places(text).unwrap().find(pointer)?;
        let name = place.name.map(|at| text[at].to_string());
        Some((name, text[place.value].to_string(), place.unquoted))
    };
    let some = |name: &str, value: &str, unquoted| {
        let name = Some(name.to_string()).filter(|name| !name.is_empty());
        Some((name, value.to_string(), unquoted))
    };
    assert_eq!(of(yaml, "/framework"), some("framework", "meta", None));
    assert_eq!(of(yaml, "/extra_args/lr"), some("lr", "fast", None));
    assert_eq!(
        of(yaml, "/extra_args/list/1"),
        some("", "2", Some(json!(2)))
    );
    assert_eq!(of(yaml, "/env/A"), some("A", "1.10", Some(json!(1.1))));
    assert_eq!(of(yaml, "/missing"), None);
    let json = "{\n\t\"extra_args\": {\"l/r\": \"fast\"}\n}";
    assert_eq!(
        of(json, "/extra_args/l~1r"),
        some("\"l/r\"", "\"fast\"", None)
    );
}

proptest! {
    #[test]
    fn json_is_the_same_in_yaml(value in json_value()) {
        let text = value.to_string();
        prop_assert_eq!(parse(&text).unwrap().0, value.clone());
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(parse(&pretty).unwrap().0, value);
    }

    #[test]
    fn no_text_panics(text in r"[a-z0-9:{}\[\]\n \-&*'!|<~\PC]{0,60}") {
        if let Err(found) = parse(&text) {
            prop_assert!(!found.is_empty());
            for Misread { finding, at } in found {
                prop_assert!(text.get(at).is_some());
                prop_assert!(!finding.detail.is_empty());
            }
        }
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("finite", |n| n.is_finite())
            .prop_map(Value::from),
        r"[a-zA-Z0-9 :#'\\n]{0,10}".prop_map(Value::from),
    ];
    let inner = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z <]{0,6}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    prop::collection::btree_map("[a-z]{1,6}", inner, 1..4)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}
