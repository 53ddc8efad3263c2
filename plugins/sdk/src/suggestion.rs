//! Which known name a person may have meant.

/// How many characters of a name there are for each slip that may lie between it and the one meant.
///
/// The host offers names that are farther away. Here a suggestion refuses the argument, and an
/// argument that the framework has and no list knows must not be taken for a slip.
const CHARACTERS_PER_SLIP: usize = 4;

/// The known name that is most like a given one, if any is like it. Case does not count, and a
/// dotted name is like dotted names only.
pub(crate) fn nearest<'a>(
    known: impl IntoIterator<Item = &'a str>,
    given: &str,
) -> Option<&'a str> {
    let given = given.to_ascii_lowercase();
    let most = match given.len() {
        0..=2 => 0,
        length => (length / CHARACTERS_PER_SLIP).max(1),
    };
    known
        .into_iter()
        .filter(|name| name.len().abs_diff(given.len()) <= most && dots(name) == dots(&given))
        .map(|name| {
            (
                strsim::osa_distance(&name.to_ascii_lowercase(), &given),
                name,
            )
        })
        .filter(|(slips, _)| *slips <= most)
        .min()
        .map(|(_, name)| name)
}

fn dots(name: &str) -> usize {
    name.bytes().filter(|byte| *byte == b'.').count()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const KNOWN: &[&str] = &["lr", "max_steps", "learning_rate", "training.steps"];

    fn near(given: &str) -> Option<&'static str> {
        nearest(KNOWN.iter().copied(), given)
    }

    #[test]
    fn a_slip_is_told_from_another_name() {
        for (given, meant) in [
            ("max_step", Some("max_steps")),
            ("maxSteps", Some("max_steps")),
            ("learning_rat", Some("learning_rate")),
            ("laerning_rate", Some("learning_rate")),
            ("LR", Some("lr")),
            ("trainin.steps", Some("training.steps")),
            ("training_steps", None),
            ("nsys_profile", None),
            ("xr", None),
        ] {
            assert_eq!(near(given), meant, "{given}");
        }
    }
}
