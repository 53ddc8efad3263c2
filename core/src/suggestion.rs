//! "Did you mean" suggestions: the known name nearest to a misspelt one.

/// The maximum length of names that are compared, in bytes. The cost of a distance is the product
/// of both lengths, and names this long are rarely mistyped.
const MAX_BYTES: usize = 64;

/// The known name most similar to the given one, if any is similar enough: at most a third of the
/// characters are wrong, missing, added or swapped. Case is ignored.
///
/// Names longer than 64 bytes get no suggestion and are never suggested.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if given.is_empty() || given.len() > MAX_BYTES {
        return None;
    }
    let given = given.to_lowercase();
    let most = (given.chars().count() / 3).max(1);
    known
        .into_iter()
        .filter(|name| name.len() <= MAX_BYTES)
        .map(|name| (strsim::osa_distance(&name.to_lowercase(), &given), name))
        .filter(|(slips, name)| *slips <= most && *slips < name.chars().count())
        .min()
        .map(|(_, name)| name)
}

/// A suffix for a sentence about an unknown name: `, did you mean "NAME"?`, or empty.
pub fn did_you_mean<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(given, known)
        .map(|name| format!(", did you mean \"{name}\"?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 4] = ["num_nodes", "gpus_per_node", "lr", "hf"];

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        for (given, expected) in [
            ("num_node", Some("num_nodes")),
            ("nmu_nodes", Some("num_nodes")),
            ("gpu_per_node", Some("gpus_per_node")),
            ("HF", Some("hf")),
            ("Num_Nodes", Some("num_nodes")),
            ("hg", Some("hf")),
            ("epochs", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(given, KNOWN), expected, "{given}");
        }
    }

    #[test]
    fn a_long_name_is_not_compared() {
        let long = "n".repeat(MAX_BYTES + 1);
        assert_eq!(nearest(&long, [long.as_str()]), None);
    }
}
