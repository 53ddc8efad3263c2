//! What `--set` sets: a field by its path.

use anyhow::{Context, bail};
use serde_json::{Map, Value};

/// Sets a field such as `extra_args.lr=0.001`, and gives the pointer to it.
pub(super) fn put(request: &mut Value, setting: &str) -> Result<String, anyhow::Error> {
    let Setting { path, value } = Setting::read(setting)?;
    let mut here = &mut *request;
    let mut pointer = String::new();
    for name in path {
        pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        if here.is_null() {
            *here = Value::Object(Map::new());
        }
        let Value::Object(members) = here else {
            bail!(
                "--set {setting}: {pointer} is within a value that has no fields; set that field to an \
                 object instead, as in extra_args={{\"lr\": 0.001}}"
            );
        };
        here = members.entry(name).or_insert(Value::Null);
    }
    *here = value;
    Ok(pointer)
}

/// Fields whose members are text by any name.
const TEXT_FIELDS: [&str; 3] = ["env", "labels", "annotations"];

/// What `--set` sets.
struct Setting {
    path: Vec<String>,
    value: Value,
}

impl Setting {
    fn read(setting: &str) -> Result<Self, anyhow::Error> {
        let (path, value) = path(setting).with_context(|| {
            format!("--set {setting}: it takes FIELD=VALUE, as in extra_args.lr=0.001")
        })?;
        let json: Option<Value> = serde_json::from_str(value).ok();
        let text = || Value::String(value.to_string());
        let is_text = TEXT_FIELDS.contains(&path[0].as_str());
        if let (true, [field, first, second, ..]) = (is_text, path.as_slice()) {
            bail!(
                "--set {setting}: {field} has no fields within fields; a name with dots goes in \
                 quotes, as in {field}.\"{first}.{second}\"=VALUE"
            );
        }
        let value = match json {
            Some(json) if !is_text || path.len() == 1 || json.is_string() => json,
            _ => text(),
        };
        Ok(Self { path, value })
    }
}

/// The names of a path such as `annotations."example.org/team"`, and what comes after its `=`.
/// Nothing where a name or the `=` is missing.
fn path(setting: &str) -> Option<(Vec<String>, &str)> {
    let mut path = Vec::new();
    let mut rest = setting;
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(['.', '='])?),
        };
        path.push(Some(name.to_string()).filter(|name| !name.is_empty())?);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return Some((path, after.strip_prefix('=')?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_are_set_by_their_path() {
        let mut request = json!({"num_nodes": 1});
        assert_eq!(put(&mut request, "num_nodes=2").unwrap(), "/num_nodes");
        put(&mut request, "extra_args.lr=1e-3").unwrap();
        put(&mut request, "run_id=a=b").unwrap();
        let expected = json!({"num_nodes": 2, "extra_args": {"lr": 1e-3}, "run_id": "a=b"});
        assert_eq!(request, expected);
        for wrong in ["num_nodes", "", "=", "a.=1", ".a=1", "\"a=1", "a\"b\".c"] {
            assert!(put(&mut request, wrong).is_err(), "{wrong}");
        }
        assert!(put(&mut request, "num_nodes.x=1").is_err());
    }

    #[test]
    fn a_name_with_dots_goes_in_quotes() {
        let mut request = json!({});
        put(
            &mut request,
            "annotations.\"trainer.deepfinery/profile\"=a100",
        )
        .unwrap();
        put(&mut request, "labels.\"a.b\"=\"1\"").unwrap();
        put(&mut request, "env.DEBUG=1").unwrap();
        put(&mut request, "env.ON=true").unwrap();
        put(&mut request, "extra_args.\"a.b\".c=1").unwrap();
        let expected = json!({
            "annotations": {"trainer.deepfinery/profile": "a100"},
            "labels": {"a.b": "1"},
            "env": {"DEBUG": "1", "ON": "true"},
            "extra_args": {"a.b": {"c": 1}},
        });
        assert_eq!(request, expected);
        let unquoted = put(&mut request, "annotations.trainer.deepfinery/profile=a100");
        let message = unquoted.unwrap_err().to_string();
        assert!(
            message.contains("annotations.\"trainer.deepfinery/profile\"=VALUE"),
            "{message}"
        );
    }

    proptest! {
        #[test]
        fn every_name_can_be_quoted(name in r#"[^"]{1,20}"#, value in r"\PC{0,10}") {
            let setting = format!("labels.\"{name}\"={value}");
            let (path, given) = path(&setting).unwrap();
            prop_assert_eq!(path, ["labels".to_string(), name]);
            prop_assert_eq!(given, value);
        }

        #[test]
        fn no_setting_panics(setting in r#"[a-z."=\PC]{0,30}"#) {
            let _ = put(&mut json!({}), &setting);
        }
    }
}
