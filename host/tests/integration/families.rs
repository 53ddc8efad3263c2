//! Families of hostile plugins: each grows in one direction until the host refuses it. Whatever is
//! still served is asked about values that make the most of it.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use trainer_host::plugin::Reload;

use crate::abi::Handmade;
use crate::service::{Answer, Service, meta_with, request};

/// Small limits, so that what exhausts them does so soon.
const SETTINGS: &str = "[host]\ncompile_seconds = 3\ncompile_memory_mib = 256\nfile_mib = 8\n\
                        [defaults]\ntime_ms = 300\nfailures = 1000\n";
/// What loading, and an answer, may take. The limits are far below, and what they do not bound takes
/// minutes; a machine with other work may need the rest.
const LONGEST: Duration = Duration::from_secs(30);
/// Larger files are not made.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Where the sizes of a family begin, and how they grow.
const FIRST: usize = 4;
const FACTOR: usize = 8;

/// A family of schemas by size.
type Schemas = (&'static str, fn(usize) -> Value);
/// A family of modules by size.
type Modules = (&'static str, fn(usize) -> Handmade);

fn times<T: Into<Value>>(count: usize, member: impl Fn(usize) -> (String, T)) -> Value {
    let members = (0..count).map(|at| {
        let (name, value) = member(at);
        (name, value.into())
    });
    Value::Object(members.collect::<Map<_, _>>())
}

/// A schema in a schema, so many levels deep.
fn nested(levels: usize, around: impl Fn(Value) -> Value) -> Value {
    (0..levels).fold(json!({"type": "object"}), |inner, _| around(inner))
}

/// Definitions of which each refers to the next one.
fn chained(count: usize, link: impl Fn(Value) -> Value) -> Value {
    let mut defs = times(count, |at| {
        let next = json!({"$ref": format!("#/$defs/a{}", at + 1)});
        (format!("a{at}"), link(next))
    });
    defs[format!("a{count}")] = json!({"type": "object"});
    json!({"$defs": defs, "$ref": "#/$defs/a0"})
}

fn of_argument(schema: Value) -> Value {
    json!({"properties": {"a": schema}})
}

const SCHEMAS: &[Schemas] = &[
    ("references", |n| chained(n, |next| next)),
    ("allOf that doubles", |n| {
        chained(n, |next| json!({"allOf": [next, next]}))
    }),
    ("anyOf that doubles", |n| {
        chained(n, |next| json!({"anyOf": [next, next]}))
    }),
    ("oneOf that doubles", |n| {
        chained(n, |next| json!({"oneOf": [next, next]}))
    }),
    ("not", |n| nested(n, |inner| json!({"not": inner}))),
    ("conditions", |n| {
        nested(
            n,
            |inner| json!({"if": inner, "then": inner, "else": false}),
        )
    }),
    ("properties in properties", |n| nested(n, of_argument)),
    ("items in items", |n| {
        of_argument(nested(n, |inner| json!({"items": inner})))
    }),
    ("contains", |n| {
        of_argument(nested(n, |inner| json!({"contains": {"items": inner}})))
    }),
    ("names of properties", |n| {
        nested(n, |inner| json!({"propertyNames": {"not": inner}}))
    }),
    ("unevaluated properties", |n| {
        nested(
            n,
            |inner| json!({"allOf": [inner], "unevaluatedProperties": false}),
        )
    }),
    (
        "many properties",
        |n| json!({"properties": times(n, |at| (format!("p{at}"), json!({"type": "string"})))}),
    ),
    (
        "many required",
        |n| json!({"required": (0..n).map(|at| format!("r{at}")).collect::<Vec<_>>()}),
    ),
    ("a long enum", |n| {
        of_argument(json!({"enum": (0..n).collect::<Vec<_>>()}))
    }),
    ("a large const", |n| {
        of_argument(json!({"const": vec![json!({"x": [1]}); n]}))
    }),
    ("many alternatives", |n| {
        of_argument(json!({"anyOf": (0..n).map(|at| json!({"minLength": at})).collect::<Vec<_>>()}))
    }),
    ("prefix items", |n| {
        of_argument(json!({"prefixItems": vec![json!({"anyOf": [{}, {}]}); n]}))
    }),
    ("unique items", |n| {
        of_argument(nested(
            n,
            |inner| json!({"uniqueItems": true, "items": inner}),
        ))
    }),
    (
        "dependent schemas",
        |n| json!({"dependentSchemas": times(n, |at| (format!("d{at}"), json!({"minProperties": at})))}),
    ),
    (
        "many patterns",
        |n| json!({"properties": times(n, |at| (format!("p{at}"), json!({"pattern": format!("^x{at}$")})))}),
    ),
    (
        "properties by pattern",
        |n| json!({"patternProperties": times(n, |at| (format!("^.{{{at}}}a"), json!({"type": "null"})))}),
    ),
    ("a pattern of repetitions", |n| {
        of_argument(json!({"pattern": format!("(?:.{{0,{n}}}){{3}}y$")}))
    }),
    ("a pattern of letters", |n| {
        of_argument(json!({"pattern": format!("\\p{{L}}{{{n}}}")}))
    }),
    ("a pattern of groups", |n| {
        of_argument(json!({"pattern": "(a|".repeat(n) + "b" + &")*".repeat(n)}))
    }),
    ("a long pattern", |n| {
        of_argument(json!({"pattern": "x".repeat(n)}))
    }),
    ("aliases", |n| {
        of_argument(json!({"x-aliases": (0..n).map(|at| format!("alias{at}")).collect::<Vec<_>>()}))
    }),
    (
        "a long description",
        |n| json!({"description": "x".repeat(64 * n)}),
    ),
    (
        "long names",
        |n| json!({"properties": {"x".repeat(64 * n): {"type": "string"}}}),
    ),
];

/// Text that is repeated, with a number in place of `{}`.
fn repeated(count: usize, text: &str) -> String {
    (0..count)
        .map(|at| text.replace("{}", &at.to_string()))
        .collect()
}

fn more(text: String) -> Handmade {
    Handmade::default().more(text)
}

const MODULES: &[Modules] = &[
    ("functions", |n| {
        more(repeated(n, "(func (result i32) (i32.const {}))"))
    }),
    ("types", |n| {
        more(repeated(n, "(type (func (param i32 i64) (result f32)))"))
    }),
    ("globals", |n| {
        more(repeated(n, "(global (mut i64) (i64.const {}))"))
    }),
    ("exports", |n| more(repeated(n, "(func (export \"e{}\"))"))),
    ("locals", |n| {
        more(format!("(func {})", repeated(n, "(local i64)")))
    }),
    ("parameters", |n| {
        more(format!("(func (param {}))", "i64 ".repeat(n)))
    }),
    ("blocks in blocks", |n| {
        more(format!(
            "(func {} {})",
            "block ".repeat(n),
            "end ".repeat(n)
        ))
    }),
    ("branches of a table", |n| {
        more(format!(
            "(func (block (br_table {} (i32.const 0))))",
            "0 ".repeat(n)
        ))
    }),
    ("one long function", |n| {
        let add = "i32.const 3 i32.mul i32.const 5 i32.add ".repeat(n);
        more(format!("(func (param i32) (result i32) local.get 0 {add})"))
    }),
    ("calls of each other", |n| {
        more(repeated(
            n,
            "(func $f{} (param i32) (call $f{} (local.get 0)) (call $f0 (local.get 0)))",
        ))
    }),
    ("data", |n| more(repeated(n, "(data (i32.const {}) \"x\")"))),
    ("elements", |n| {
        more(format!(
            "(func $e) (table {n} funcref) (elem (i32.const 0) {})",
            "$e ".repeat(n)
        ))
    }),
    ("pages of memory", |n| {
        Handmade::default().memory(n.max(2).to_string())
    }),
    ("entries of a table", |n| {
        more(format!("(table {} funcref)", 32 * n))
    }),
    ("strings of instructions on the stack", |n| {
        more(format!(
            "(func {} {})",
            "i32.const 0 ".repeat(n),
            "drop ".repeat(n)
        ))
    }),
];

/// Arguments that make a schema work.
fn expensive_arguments() -> Vec<Value> {
    let many = times(3000, |at| (format!("p{at}"), "x"));
    vec![
        json!({}),
        json!({"a": "x".repeat(60_000)}),
        json!({"a": "é".repeat(20_000)}),
        json!({"a": (0..9000).collect::<Vec<_>>()}),
        json!({"a": vec![json!({"x": [1]}); 4000]}),
        json!({"a": (0..100).fold(json!(1), |inner, _| json!([inner]))}),
        json!({"a": (0..100).fold(json!({}), |inner, _| json!({"a": inner}))}),
        many,
    ]
}

struct Attacked {
    service: Service,
    folder: TempDir,
    served: usize,
    refused: usize,
}

impl Attacked {
    async fn new() -> Self {
        let folder = meta_with(SETTINGS);
        Self {
            service: Service::with(folder.path().to_path_buf(), None).await,
            folder,
            served: 0,
            refused: 0,
        }
    }

    /// Grows a plugin until it is refused, and asks each one that is served. One that is larger
    /// still is refused, too.
    async fn grow(&mut self, family: &str, plugin: impl Fn(usize) -> Handmade) {
        let mut size = FIRST;
        while self.loads(&plugin(size)) {
            self.served += 1;
            self.ask(family, size).await;
            size *= FACTOR;
            assert!(size < 1 << 30, "{family} is never refused");
        }
        self.refused += 1;
        if plugin(size).bytes().len() * FACTOR < MOST_BYTES {
            let is_served = self.loads(&plugin(size * FACTOR));
            assert!(!is_served, "{family} of {}", size * FACTOR);
            self.refused += 1;
        }
        self.check_the_others(&format!("{family} of {size}")).await;
    }

    fn loads(&self, plugin: &Handmade) -> bool {
        std::fs::write(self.folder.path().join("attack.wasm"), plugin.bytes()).unwrap();
        let begun = Instant::now();
        self.service.registry.reload(Reload::Changed);
        assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
        let plugins = self.service.registry.current();
        plugins.refused().is_empty()
    }

    async fn ask(&self, family: &str, size: usize) {
        for arguments in expensive_arguments() {
            let mut hostile = request("x", "run-1");
            hostile["framework"] = json!("handmade");
            hostile["extra_args"] = arguments;
            let begun = Instant::now();
            let Answer { status, text, .. } = self.service.preview(&hostile).await;
            let time = begun.elapsed();
            assert!(time < LONGEST, "{family} of {size}: {time:?}");
            let is_known = [200, 400, 429, 502].contains(&status.as_u16());
            assert!(is_known, "{family} of {size}: {status} {text:.300}");
        }
        self.check_the_others(&format!("{family} of {size}")).await;
    }

    async fn check_the_others(&self, after: &str) {
        let other = self.service.preview(&request("x", "run-1")).await;
        assert_eq!(other.status, 200, "after {after}");
    }
}

#[tokio::test]
#[ignore = "minutes: make test-hostile"]
async fn whatever_a_schema_has_too_much_of_costs_no_more_than_a_call() {
    let mut attacked = Attacked::new().await;
    for (family, schema) in SCHEMAS {
        let plugin = |size| Handmade::default().schema(schema(size).to_string());
        attacked.grow(family, plugin).await;
    }
    let Attacked {
        served, refused, ..
    } = attacked;
    println!("{served} schemas were served and {refused} refused");
    assert!(served + refused >= 80, "{served} and {refused}");
    restarts_clean(attacked).await;
}

#[tokio::test]
#[ignore = "minutes: make test-hostile"]
async fn whatever_a_module_has_too_much_of_is_refused() {
    let mut attacked = Attacked::new().await;
    for (family, module) in MODULES {
        attacked.grow(family, module).await;
    }
    let Attacked {
        served, refused, ..
    } = attacked;
    println!("{served} modules were served and {refused} refused");
    assert!(served + refused >= 40, "{served} and {refused}");
    restarts_clean(attacked).await;
}

/// A start with everything that was kept of hostile plugins.
async fn restarts_clean(attacked: Attacked) {
    let Attacked {
        service, folder, ..
    } = attacked;
    let begun = Instant::now();
    let data = service.stop().await;
    let registry = crate::service::registry(folder.path(), data.path());
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
    let plugins = registry.current();
    assert!(plugins.get("meta").is_some());
    assert_eq!(plugins.refused().len(), 1);
}
