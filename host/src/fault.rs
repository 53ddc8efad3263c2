//! One thing that is wrong with a request, and where: what steps 1 and 2 tell the caller.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A fault of a request, or a warning about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
