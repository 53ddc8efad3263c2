//! What every error has to be: free of the words of libraries, with a place and a remedy.

/// What libraries and the language say, and a user of the service cannot know. Errors quote what was
/// sent, so no generated input holds one of these.
const JARGON: &[&str] = &[
    // Names of libraries.
    "serde",
    "saphyr",
    "granit",
    "axum",
    "hyper",
    "tower",
    "ureq",
    "rustls",
    "clap",
    "jsonschema",
    "schemars",
    "k8s_openapi",
    "wasmtime",
    "anyhow",
    "tokio",
    // Types and values of Rust.
    "u8",
    "u16",
    "u32",
    "u64",
    "i32",
    "i64",
    "f64",
    "usize",
    "Option<",
    "Vec<",
    "HashMap",
    "BTreeMap",
    "Some(",
    "Ok(",
    "Err(",
    "std::",
    "core::",
    "::",
    "unwrap",
    "panicked",
    "enum ",
    "struct ",
    "tuple",
    "Utf8Error",
    "ParseIntError",
    "FromStr",
    // What readers of JSON, YAML and TOML say.
    "invalid type",
    "invalid value:",
    "invalid length",
    "missing field",
    "unknown variant",
    "data did not match",
    "untagged",
    "variant",
    "deserializ",
    "at line 1 column",
    "EOF",
    "eof",
    "trailing characters",
    "recursion limit",
    "key must be a string",
    "expected value",
    "lone leading surrogate",
    "control character (",
    "DuplicateKeyPolicy",
    "from_str",
    "budget",
    "breached",
    "scalar",
    "simple key",
    "block mapping",
    "flow mapping",
    "block sequence",
    "flow sequence",
    "did not find expected",
    "while parsing",
    "while scanning",
    "TOML parse error",
    "expected `",
    "unknown field `",
    "duplicate field",
    "duplicate key",
    "additional properties",
    "additionalProperties",
    "anyOf",
    "oneOf",
    "$ref",
    "$defs",
    // What the standard library says.
    "os error",
    "invalid digit",
    "too large to fit in target type",
    "too small to fit in target type",
    "cannot parse integer",
    "stream did not contain",
    "invalid utf-8",
    "invalid UTF-8",
    "invalid socket address",
    "invalid float",
    "provided string was not",
    // Regular expressions as explanations.
    "[A-Za-z0-9]",
    "[^",
    "]*",
    "]+",
    "(?",
    "\\S",
    "\\d",
    "^[",
    "regex",
    // What HTTP libraries say.
    "InvalidContentType",
    "http: invalid",
    "invalid uri",
    "InvalidUri",
    "Failed to",
    "header value",
    "protocol error",
];

/// What says that something would be right.
const REMEDIES: &[&str] = &[
    "takes",
    "take ",
    "expected",
    "did you mean",
    "write ",
    "remove",
    "put ",
    "use ",
    "send ",
    "save ",
    "not one of",
    "known:",
    "allowed",
    "required",
    "set ",
    "choose",
    "quote it",
    "such as",
    "as in",
    "lists",
    "close",
    "instead",
    "try ",
    "indent ",
    "must ",
    "begins with",
    "flatten",
    "less than",
    "more than",
    "longer than",
    "shorter than",
    "fewer than",
    "first and last",
    "TRAINER_",
    "see ",
    "name one",
    "leave it out",
    "--help",
    "submits a job",
    "mark the value",
    "correct its name",
    "is missing",
    "submit jobs with",
    "accepts no parameters",
    "For more information",
    "tip:",
    "accepted schemes",
    "may only",
    "correct",
    "is not a",
    "has one",
    "1 to 63",
    "minimum",
    "maximum",
    "greater than",
    "at most",
    "at least",
    "starts with",
    "starting and ending",
    "retry",
    "lists the",
];

/// Sentences that the reference vectors of the project fix word for word, without a remedy.
const FIXED: &[&str] = &["reserved by train.py (argparse would read --"];

/// An error, and where it came from.
#[derive(Debug)]
pub struct Told<'a> {
    /// What was sent or written.
    pub input: &'a str,
    /// The place that the error names beside its sentence, if it does.
    pub place: &'a str,
    pub sentence: &'a str,
}

/// What is wrong with an error; nothing where it is as it has to be.
pub fn verdict(message: &Told) -> Option<String> {
    let sentence = bare(message.sentence);
    let said = without_quotations(sentence);
    if let Some(word) = JARGON.iter().find(|word| holds(&said, word)) {
        return Some(format!("says {word:?}"));
    }
    if !names_a_place(message.place, sentence) {
        return Some("names no place".to_string());
    }
    let mut enough = REMEDIES.iter().chain(FIXED);
    if !enough.any(|part| sentence.contains(part)) {
        return Some("says nothing of what would be right".to_string());
    }
    None
}

/// A sentence without the `error: ` or `error[CODE]: ` of the command line.
fn bare(sentence: &str) -> &str {
    let Some(rest) = sentence.strip_prefix("error") else {
        return sentence;
    };
    match rest
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
    {
        Some((_, bare)) => bare,
        None => rest.strip_prefix(": ").unwrap_or(sentence),
    }
}

/// A JSON Pointer, or a sentence that begins with a name and a colon, or has a line, an option, a
/// variable, a header or a path.
fn names_a_place(place: &str, sentence: &str) -> bool {
    let begins_with_name = sentence.split_once(": ").is_some_and(|(name, _)| {
        let is_of_name = |c: char| c.is_alphanumeric() || "._-/[]\" ".contains(c);
        !name.is_empty() && name.chars().all(is_of_name)
    });
    let named = [
        "line ",
        "--",
        "TRAINER_",
        "Content-Type",
        "Idempotency-Key",
        "X-TRAINER-TOKEN",
        "parameter ",
        "argument '",
        "Job ",
        "framework ",
        "the body",
        "the path",
        " at ",
        "unknown field",
        "job ",
        "namespace ",
        "/",
        "'<",
        "<",
        "server ",
        "unrecognized subcommand",
    ];
    !place.is_empty() || begins_with_name || named.iter().any(|name| sentence.contains(name))
}

/// Whether a sentence holds a word of a library. A short one counts only where it stands alone.
fn holds(sentence: &str, word: &str) -> bool {
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    sentence.match_indices(word).any(|(at, _)| {
        let before = sentence[..at].chars().next_back();
        let after = sentence[at + word.len()..].chars().next();
        let stands_alone = !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word);
        word.len() > 6 || stands_alone || !word.chars().all(is_of_word)
    })
}

/// A sentence without what it repeats of the input.
fn without_quotations(sentence: &str) -> String {
    let mut kept = String::new();
    for (number, part) in sentence.split('"').enumerate() {
        if number % 2 == 0 {
            kept.push_str(part);
        }
    }
    kept
}

#[test]
fn an_error_of_a_library_is_no_error_of_ours() {
    for (place, sentence) in [
        (
            "",
            "invalid type: map, expected a string at line 1 column 2",
        ),
        ("/a", "a: unknown field `b`, expected one of `c`"),
        ("/a", "a: invalid digit found in string"),
        ("", "wrong"),
        ("/a", "a: this is wrong"),
        ("", "use another value"),
        ("/a", "a: x does not match ^[a-z]*$; use another value"),
        ("/a", "a: expected u32, got 5"),
    ] {
        let message = Told {
            input: "",
            place,
            sentence,
        };
        assert!(verdict(&message).is_some(), "{sentence}");
    }
    let right = Told {
        input: "",
        place: "",
        sentence: "run_id: expected string, got \"u32\"",
    };
    assert_eq!(verdict(&right), None);
}
