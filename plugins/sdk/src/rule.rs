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
    /// Says how the job breaks the rule. The accessors of [`Launch`] give `None` for an argument
    /// that was itself refused, so `?` keeps a rule silent about what is already told.
    pub check: fn(&Launch) -> Option<Broken>,
}

/// What comes of a broken rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Refuse,
    Warn,
}

/// How a job breaks a rule.
#[derive(Debug)]
pub struct Broken {
    /// The argument to look at: its canonical name, or a pointer such as `/resume_from_checkpoint`.
    pub argument: &'static str,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// A rule whose breach refuses the job.
pub const fn refuse(
    code: &'static str,
    about: &'static str,
    check: fn(&Launch) -> Option<Broken>,
) -> Rule {
    Rule {
        code,
        effect: Effect::Refuse,
        about,
        check,
    }
}

/// A rule whose breach is only told.
pub const fn warn(
    code: &'static str,
    about: &'static str,
    check: fn(&Launch) -> Option<Broken>,
) -> Rule {
    Rule {
        code,
        effect: Effect::Warn,
        about,
        check,
    }
}

impl Broken {
    pub fn new(argument: &'static str, detail: impl Into<String>) -> Option<Self> {
        Some(Self {
            argument,
            detail: detail.into(),
        })
    }
}
