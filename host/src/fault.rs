//! One thing that is wrong with a request, and where: what steps 1 and 2 tell the caller.

use serde::Serialize;

/// A fault of a request, or a warning about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Short and stable: one of this host's words, or the plugin's own code such as `E05`.
    pub code: String,
    /// JSON Pointer (RFC 6901) to the place in the request; empty for the whole of it.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Fault {
    pub fn new(
        code: impl Into<String>,
        pointer: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }
}

/// A JSON Pointer from its reference tokens.
pub fn pointer<'a>(tokens: impl IntoIterator<Item = &'a str>) -> String {
    let mut pointer = String::new();
    for token in tokens {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

/// The known name that is most like a given one, if any is like it at all.
pub fn nearest<'a>(known: impl IntoIterator<Item = &'a str>, given: &str) -> Option<&'a str> {
    /// How alike two names must be for the one to be offered for the other (Jaro-Winkler).
    const LIKENESS: f64 = 0.8;
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(name, given), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
