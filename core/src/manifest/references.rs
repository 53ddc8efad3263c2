//! References to variables (`$(NAME)`) that have other names in a TrainJob.
//!
//! Plugins may use the names that the training operator sets (`RANK`) and those of torchrun
//! (`PET_NODE_RANK`). In the command of a TrainJob, both become the names of torchrun, which
//! Kubeflow sets. In the values of variables they become the others: the kubelet expands references
//! only to variables that are further up, and Kubeflow appends its own.

/// The names of the training operator and those of torchrun.
const NAMES: [(&str, &str); 3] = [
    ("RANK", "PET_NODE_RANK"),
    ("MASTER_ADDR", "PET_MASTER_ADDR"),
    ("MASTER_PORT", "PET_MASTER_PORT"),
];

/// A word of a command, with torchrun's names.
pub(super) fn in_command(text: &str) -> String {
    let of_torchrun = |name: &str| NAMES.iter().find(|(of_operator, _)| *of_operator == name);
    translated(text, |name| of_torchrun(name).map(|(_, name)| *name))
}

/// The value of a variable, with the names of the training operator.
pub(super) fn in_value(text: &str) -> String {
    let of_operator = |name: &str| NAMES.iter().find(|(_, of_torchrun)| *of_torchrun == name);
    translated(text, |name| of_operator(name).map(|(name, _)| *name))
}

/// Replaces names in references. `$$` is an escaped dollar sign, so `$$(RANK)` is not a reference.
fn translated(text: &str, other: impl Fn(&str) -> Option<&'static str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let reference = rest
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        if let Some((name, after)) = reference
            && let Some(other) = other(name)
        {
            out.extend(["(", other, ")"]);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn references_get_the_names_that_are_set_where_they_are() {
        let cases = [
            ("--node_rank=$(RANK)", "--node_rank=$(PET_NODE_RANK)"),
            (
                "$(MASTER_ADDR):$(MASTER_PORT)",
                "$(PET_MASTER_ADDR):$(PET_MASTER_PORT)",
            ),
            ("$(PET_NODE_RANK)", "$(PET_NODE_RANK)"),
            ("$(WORLD_SIZE) $(LOCAL_RANK)", "$(WORLD_SIZE) $(LOCAL_RANK)"),
            ("$$(RANK) $$$(RANK)", "$$(RANK) $$$(PET_NODE_RANK)"),
            ("$(RANK", "$(RANK"),
            ("a$", "a$"),
        ];
        for (text, expected) in cases {
            assert_eq!(in_command(text), expected, "{text}");
        }
        assert_eq!(
            in_value("rank-$(PET_NODE_RANK)-of-$(RANK)"),
            "rank-$(RANK)-of-$(RANK)"
        );
    }

    proptest! {
        #[test]
        fn a_literal_is_not_changed(text in r"[$()ARNK\PC]{0,40}") {
            let escaped = text.replace('$', "$$");
            prop_assert_eq!(in_command(&escaped), escaped);
        }
    }
}
