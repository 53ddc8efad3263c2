//! Lists of policies: the first that does not allow something, and what it would allow.

use super::{Policy, Refusal, Rules};
use crate::finding::{Code, Finding};

impl<'a> Rules<'a> {
    /// The first policy whose list does not allow something. A missing list allows everything.
    pub(super) fn listed(
        &self,
        member: &'static str,
        list: impl Fn(&'a Policy) -> &'a Option<Vec<String>>,
        allows: impl Fn(&str) -> bool,
    ) -> Option<Broken<'a>> {
        self.listed_or(member, list, ByDefault::Allowed, allows)
    }

    /// As [`Rules::listed`], with what holds if no policy has such a list.
    pub(super) fn listed_or(
        &self,
        member: &'static str,
        list: impl Fn(&'a Policy) -> &'a Option<Vec<String>>,
        by_default: ByDefault,
        allows: impl Fn(&str) -> bool,
    ) -> Option<Broken<'a>> {
        let lists = || {
            let policies = self.policies.iter();
            policies.filter_map(|(place, policy)| Some((place, list(policy).as_ref()?)))
        };
        if lists().next().is_none() && by_default == ByDefault::Refused {
            return Some(Broken {
                rule: format!("the access file, which has no list {member} for it"),
                allowed: &[],
            });
        }
        let broken = lists().find(|(_, list)| !list.iter().any(|known| allows(known)));
        broken.map(|(place, list)| Broken {
            rule: format!("{place}.{member}"),
            allowed: list,
        })
    }
}

/// What holds for something that no list names.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ByDefault {
    Allowed,
    Refused,
}

/// A rule that a request breaks.
pub(super) struct Broken<'a> {
    rule: String,
    allowed: &'a [String],
}

impl Broken<'_> {
    pub(super) fn refusal(self, code: Code, at: String, what: &str) -> Refusal {
        let list = allowed(self.allowed.iter().map(String::as_str));
        let detail = format!("{what} is not allowed by {}; allowed: {list}", self.rule);
        Refusal {
            rule: self.rule,
            finding: Finding::new(code, at, detail),
        }
    }
}

/// A list for a sentence.
pub(super) fn allowed<'a>(list: impl Iterator<Item = &'a str>) -> String {
    let listed: Vec<&str> = list.collect();
    match listed.is_empty() {
        true => "none".to_string(),
        false => listed.join(", "),
    }
}
