//! A finding: one thing that is wrong with a request, and where. Steps 1 and 2 report them.

mod code;
mod kind;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use code::{Code, Effect};
pub use kind::{Kind, TYPE_PREFIX};

/// The maximum number of findings that an answer lists: anyone with fifty fixes those first.
pub const MAX_FINDINGS: usize = 50;
/// The maximum length of a pointer. A longer one is replaced by its nearest ancestor that fits.
const MAX_POINTER_BYTES: usize = 512;

/// An error in a request, or a warning about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Short and stable: a code of this host such as `type`, or of the plugin such as `E05`.
    pub code: String,
    /// JSON Pointer (RFC 6901) into the request; empty for the request as a whole.
    pub pointer: String,
    /// What is wrong and how to correct it.
    pub detail: String,
}

impl Finding {
    /// Creates a finding of this host. A pointer of more than 512 bytes is replaced by its nearest
    /// ancestor that fits.
    pub fn new(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of_plugin(code.as_str(), pointer, detail)
    }

    /// Creates a finding with a plugin's own code. The pointer is shortened as in [`Finding::new`].
    pub fn of_plugin(
        code: impl Into<String>,
        pointer: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            code: code.into(),
            pointer: within_limit(pointer.into()),
            detail: detail.into(),
        }
    }
}

fn within_limit(mut pointer: String) -> String {
    while pointer.len() > MAX_POINTER_BYTES {
        let parent = pointer.rfind('/').unwrap_or_default();
        pointer.truncate(parent);
    }
    pointer
}

/// Builds a JSON Pointer from its reference tokens.
pub fn pointer<'a>(tokens: impl IntoIterator<Item = &'a str>) -> String {
    let mut pointer = String::new();
    for token in tokens {
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pointer_becomes_that_of_the_place_around_it() {
        let long = "x".repeat(600);
        for (tokens, expected) in [
            (vec!["env", "A/B"], "/env/A~1B"),
            (vec!["env", &long], "/env"),
            (vec![&long], ""),
            (vec!["extra_args", &long, "a"], "/extra_args"),
        ] {
            let finding = Finding::new(Code::Name, pointer(tokens), "wrong");
            assert_eq!(finding.pointer, expected);
        }
    }
}
