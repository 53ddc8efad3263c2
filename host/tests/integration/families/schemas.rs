//! Families of schemas, each with more and more of one thing.

use serde_json::{Map, Value, json};

/// A family of schemas by size.
pub type Schemas = (&'static str, fn(usize) -> Value);

pub fn times<T: Into<Value>>(count: usize, member: impl Fn(usize) -> (String, T)) -> Value {
    let members = (0..count).map(|at| {
        let (name, value) = member(at);
        (name, value.into())
    });
    Value::Object(members.collect::<Map<_, _>>())
}

/// Nested schemas.
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

pub const SCHEMAS: &[Schemas] = &[
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
        chained(n, |next| json!({"if": next, "then": next, "else": false}))
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
    ("definitions in definitions", |n| {
        nested(n, |inner| json!({"$defs": {"a": inner}}))
    }),
    ("additional properties", |n| {
        nested(n, |inner| json!({"additionalProperties": inner}))
    }),
    ("patterns in patterns", |n| {
        nested(n, |inner| json!({"patternProperties": {"^a": inner}}))
    }),
    ("unevaluated items", |n| {
        of_argument(nested(
            n,
            |inner| json!({"anyOf": [inner, {}], "unevaluatedItems": false}),
        ))
    }),
    (
        "a flat allOf",
        |n| json!({"allOf": vec![json!({"type": "object"}); n]}),
    ),
    ("a oneOf that always fails", |n| {
        of_argument(json!({"oneOf": vec![json!({}); n]}))
    }),
    (
        "dependent names",
        |n| json!({"dependentRequired": times(n, |at| (format!("d{at}"), json!([format!("e{at}")])))}),
    ),
    ("references in a circle", |n| {
        let next = |at: usize| format!("#/$defs/a{}", (at + 1) % n);
        let defs = times(n, |at| (format!("a{at}"), json!({"$ref": next(at)})));
        json!({"$defs": defs, "$ref": "#/$defs/a0"})
    }),
    (
        "references to itself",
        |n| json!({"properties": {"a": {"allOf": vec![json!({"$ref": "#"}); n]}}}),
    ),
    ("a tree in a tree", |n| {
        let inner = vec![json!({"$ref": "#/$defs/tree"}); n];
        let tree = json!({"items": {"allOf": inner}, "properties": {"a": {"anyOf": inner}}});
        json!({"$defs": {"tree": tree}, "properties": {"a": {"$ref": "#/$defs/tree"}}})
    }),
    ("dynamic references", |n| {
        chained(
            n,
            |next| json!({"$dynamicAnchor": "x", "allOf": [next, {"properties": {"a": {"$dynamicRef": "#x"}}}]}),
        )
    }),
    (
        "anchors",
        |n| json!({"$defs": times(n, |at| (format!("a{at}"), json!({"$anchor": format!("n{at}")})))}),
    ),
    (
        "identifiers",
        |n| json!({"$defs": times(n, |at| (format!("a{at}"), json!({"$id": format!("http://localhost/{at}")})))}),
    ),
    (
        "formats",
        |n| json!({"properties": times(n, |at| (format!("p{at}"), json!({"format": "idn-email"})))}),
    ),
    ("a pattern that backtracks", |n| {
        of_argument(json!({"pattern": "^(a+)+".repeat(n) + "\\1$"}))
    }),
    ("a pattern that looks ahead", |n| {
        of_argument(json!({"pattern": "(?=(x+x+)+y)".repeat(n)}))
    }),
    ("repetitions of repetitions", |n| {
        let levels = n.ilog2() as usize;
        of_argument(json!({"pattern": "(".repeat(levels) + "x" + &"{8}){8}".repeat(levels)}))
    }),
    ("a pattern of any case", |n| {
        of_argument(json!({"pattern": format!("(?i){}", "\u{e9}".repeat(n))}))
    }),
    ("a pattern of alternatives", |n| {
        let words: Vec<String> = (0..n).map(|at| format!("w{at}.*")).collect();
        of_argument(json!({"pattern": words.join("|")}))
    }),
    ("unknown keywords", |n| {
        json!(times(n, |at| (format!("x-{at}"), json!([at]))))
    }),
    ("long texts to choose from", |n| {
        let texts: Vec<String> = (0..n).map(|at| format!("{at:064}")).collect();
        of_argument(json!({"enum": texts}))
    }),
    (
        "names with escapes",
        |n| json!({"properties": {"\u{1}~/%".repeat(n): {"type": "string"}}}),
    ),
];
