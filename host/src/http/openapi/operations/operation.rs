//! What describes an operation.

use super::OPERATIONS;
use super::parameters::{PARAMETERS, Parameter, Place};

/// One operation.
pub struct Operation {
    pub method: &'static str,
    pub path: &'static str,
    pub id: &'static str,
    pub tag: &'static str,
    pub summary: &'static str,
    /// In addition to those in the path.
    pub parameters: &'static [&'static str],
    pub body: Body,
    pub answers: &'static [Answer],
    /// Statuses with a problem document, in addition to the common ones.
    pub problems: &'static [u16],
    /// Whether no token is required.
    pub is_open: bool,
}

/// The body of an operation.
pub enum Body {
    None,
    Request,
}

/// A response without a problem document.
pub struct Answer {
    pub status: u16,
    pub description: &'static str,
    /// By media type: the names of one or more schemas with `|` between them, `object` for any object, or
    /// empty for text.
    pub content: &'static [(&'static str, &'static str)],
}

impl Operation {
    /// The query parameters.
    pub fn queries(&self) -> impl Iterator<Item = &'static Parameter> {
        let named = self.parameters.iter();
        named.filter_map(|name| {
            let mut queries = PARAMETERS
                .iter()
                .filter(|known| known.place == Place::Query);
            queries.find(|known| known.name == *name)
        })
    }

    /// Finds a query parameter.
    pub fn query(&self, name: &str) -> Option<&'static Parameter> {
        self.queries().find(|known| known.name == name)
    }

    /// Operations with the same method whose path has one more fixed segment.
    pub fn sub_operations(&self) -> impl Iterator<Item = &'static Operation> {
        OPERATIONS.iter().filter(|other| {
            let rest = other.path.strip_prefix(self.path);
            let is_word = rest.is_some_and(|rest| rest.starts_with('/') && !rest.contains('{'));
            other.method == self.method && is_word
        })
    }

    /// The statuses with a problem document.
    pub fn refusals(&self) -> impl Iterator<Item = u16> {
        let guarded: &[u16] = &[400, 401, 403, 404, 429, 500, 502, 503, 504];
        let common = if self.is_open { &[][..] } else { guarded };
        self.problems.iter().chain(common).copied()
    }
}

pub(super) const fn answer(
    status: u16,
    description: &'static str,
    content: &'static [(&'static str, &'static str)],
) -> Answer {
    Answer {
        status,
        description,
        content,
    }
}

pub(super) const fn of_job(
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    parameters: &'static [&'static str],
    answers: &'static [Answer],
) -> Operation {
    Operation {
        method,
        path,
        id,
        tag: "jobs",
        summary,
        parameters,
        body: Body::None,
        answers,
        problems: &[],
        is_open: false,
    }
}

pub(super) const fn of_service(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Answer],
) -> Operation {
    Operation {
        tag: "service",
        is_open: true,
        ..of_job("get", path, id, summary, &[], answers)
    }
}
