//! A rule across the fields of a job: one function, and one line that gives it its code.

use crate::Launch;

/// A rule that a job may break.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Short and stable, such as `N01`.
    pub code: &'static str,
    pub effect: Effect,
    /// What the rule asks for, in one line.
    pub about: &'static str,
    /// Who enforces or documents it: the framework's file, or `definition`.
    pub source: &'static str,
    /// Returns how the job violates the rule. The accessors of [`Launch`] return `None` for a refused
    /// argument, so `?` prevents a second finding about it.
    pub check: fn(&Launch) -> Option<Violation>,
}

/// The effect of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Refuse,
    Warn,
}

/// How a job breaks a rule: mostly in one place, sometimes in several.
#[derive(Debug)]
pub struct Violation(pub(crate) Vec<Breach>);

/// One place where a job breaks a rule.
#[derive(Debug)]
pub struct Breach {
    /// The arguments to look at, by canonical name: the finding points at the first of them that
    /// the job gives. A pointer such as `/resume_from_checkpoint` stands for itself.
    pub arguments: &'static [&'static str],
    /// What is wrong and what would be right.
    pub detail: String,
}

/// A rule whose breach refuses the job.
pub const fn refuse(
    code: &'static str,
    about: &'static str,
    source: &'static str,
    check: fn(&Launch) -> Option<Violation>,
) -> Rule {
    Rule {
        code,
        effect: Effect::Refuse,
        about,
        source,
        check,
    }
}

/// A rule whose violation is a warning.
pub const fn warn(
    code: &'static str,
    about: &'static str,
    source: &'static str,
    check: fn(&Launch) -> Option<Violation>,
) -> Rule {
    Rule {
        effect: Effect::Warn,
        ..refuse(code, about, source, check)
    }
}

impl Violation {
    /// Violation in one place.
    pub fn new(arguments: &'static [&'static str], detail: impl Into<String>) -> Option<Self> {
        let detail = detail.into();
        Some(Self(vec![Breach { arguments, detail }]))
    }

    /// Violation in each of these places, if there are any.
    pub fn all(breaches: impl IntoIterator<Item = Breach>) -> Option<Self> {
        let breaches: Vec<Breach> = breaches.into_iter().collect();
        (!breaches.is_empty()).then_some(Self(breaches))
    }
}

impl Breach {
    pub fn new(arguments: &'static [&'static str], detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { arguments, detail }
    }
}
