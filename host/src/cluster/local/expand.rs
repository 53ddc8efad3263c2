//! `$(NAME)` in commands and values, as the kubelet expands it.
//!
//! Source: kubernetes/kubernetes third_party/forked/golang/expansion/expand.go. `$$` is `$`, a
//! name without a value is unchanged, and so is any other text after a `$`.

use std::collections::BTreeMap;

/// Expands a text from the variables that are known so far.
pub fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        expanded.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let reference = rest
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        match reference {
            Some((name, after)) => {
                match variables.get(name) {
                    Some(value) => expanded.push_str(value),
                    None => expanded.extend(["$(", name, ")"]),
                }
                rest = after;
            }
            None => expanded.push('$'),
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expanded(text: &str) -> String {
        let variables = [("RANK", "3"), ("A", "$(RANK)"), ("EMPTY", "")];
        let variables = variables.map(|(name, value)| (name.to_string(), value.to_string()));
        expand(text, &BTreeMap::from(variables))
    }

    #[test]
    fn expands_what_the_kubelet_expands() {
        let cases = [
            ("--node_rank=$(RANK)", "--node_rank=3"),
            ("$$(RANK)", "$(RANK)"),
            ("$$$(RANK)", "$3"),
            ("a$b", "a$b"),
            ("a$$b", "a$b"),
            ("$(NOBODY)", "$(NOBODY)"),
            ("$(EMPTY)x", "x"),
            ("$(A)", "$(RANK)"),
            ("$(RANK", "$(RANK"),
            ("$", "$"),
            ("", ""),
        ];
        for (text, result) in cases {
            assert_eq!(expanded(text), result, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_literal_with_doubled_dollars_comes_out_as_it_was(text in r"[$()A-Z\PC]{0,40}") {
            prop_assert_eq!(expanded(&text.replace('$', "$$")), text);
        }
    }
}
