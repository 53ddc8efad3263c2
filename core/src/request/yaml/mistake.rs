//! What is wrong with a text that is not YAML, in words for the person who wrote it.

use granit_parser::ErrorKind;

use super::Misread;
use crate::finding::{Code, Finding};
use crate::request::json::MAX_VALUES;

/// The finding about a byte of a text.
pub(super) fn at(text: &str, byte: usize, what: &str) -> Misread {
    let line = line(text, byte);
    found(text, byte, Code::NotYaml, format!("line {line}: {what}"))
}

pub(super) fn empty(text: &str) -> Misread {
    let what = "the text is empty; a request begins with a line such as framework: hf";
    found(text, 0, Code::NotYaml, what.to_string())
}

pub(super) fn too_deep(text: &str, byte: usize) -> Misread {
    at(text, byte, "nested more than 128 deep; flatten it")
}

pub(super) fn too_many_values(text: &str, byte: usize) -> Misread {
    let line = line(text, byte);
    let detail = format!(
        "line {line}: more than {MAX_VALUES} values, each alias (*NAME) counted as what it repeats; \
         put large data into a file that the job reads"
    );
    found(text, byte, Code::Size, detail)
}

fn found(text: &str, byte: usize, code: Code, detail: String) -> Misread {
    let start = text.floor_char_boundary(byte.min(text.len()));
    let end = text[start..]
        .chars()
        .next()
        .map_or(start, |c| start + c.len_utf8());
    Misread {
        finding: Finding::new(code, "", detail),
        at: start..end,
    }
}

/// The line of a byte, from 1.
pub(super) fn line(text: &str, byte: usize) -> usize {
    let before = &text.as_bytes()[..byte.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// What the parser of YAML stops at.
pub(super) fn syntax(text: &str, kind: &ErrorKind, byte: usize) -> Misread {
    let what = sentence(kind);
    // The parser may stop before the tab that it means.
    let tab = match what {
        TAB => text.get(byte..).and_then(|rest| rest.find('\t')),
        _ => None,
    };
    at(text, byte + tab.unwrap_or_default(), what)
}

const TAB: &str = "a tab stands where YAML takes spaces only; indent with spaces";

fn sentence(kind: &ErrorKind) -> &'static str {
    use ErrorKind as E;
    match kind {
        E::TabNotAllowed
        | E::TabInBlockIndentation
        | E::TabInIndentation
        | E::TabAtBlockScalarStart
        | E::TabInPlainScalar => TAB,
        E::UnknownAnchor => {
            "an alias (*NAME) names nothing that comes before it; mark the value with &NAME first"
        }
        E::UndeclaredTagHandle
        | E::ExpectedTagBang
        | E::InvalidGlobalTagCharacter
        | E::InvalidTagTerminator
        | E::MissingTagUri
        | E::UnclosedVerbatimTag
        | E::InvalidTagEscape
        | E::InvalidTagUtf8LeadingByte
        | E::InvalidTagUtf8TrailingByte
        | E::InvalidTagUtf8 => {
            "a word that begins with ! is a tag, which has no meaning here; remove it, or put the text in quotes"
        }
        E::MissingAnchorOrAliasName => {
            "a word that begins with & or * is an anchor or an alias; put the text in quotes"
        }
        E::UnexpectedEofFlowSequence
        | E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::UnclosedFlowCollection { .. }
        | E::MisplacedFlowCollectionEnd
        | E::MismatchedFlowCollectionEnd { .. }
        | E::ExpectedFlowMappingSeparator
        | E::ExpectedFlowSequenceSeparator => {
            "a [ or { has no closing partner, or a comma is missing between its parts; close or separate them"
        }
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            "a quotation mark is not closed; add the closing one"
        }
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            "something follows the closing quotation mark; put the whole value in quotes"
        }
        E::UnknownQuotedScalarEscape
        | E::InvalidQuotedScalarHexEscape
        | E::InvalidLowSurrogateHexEscape
        | E::InvalidLowSurrogate
        | E::MissingLowSurrogate
        | E::UnpairedLowSurrogate
        | E::InvalidUnicodeEscape => {
            "a backslash in double quotes begins an escape that does not exist; write \\\\ for a backslash, or use single quotes"
        }
        E::RecursionLimitExceeded => "nested more than 128 deep; flatten it",
        E::UnexpectedCharacter { .. } | E::CommentNotSeparated | E::CommentInterceptedScalar => {
            "a character stands where YAML takes none like it; put the value in quotes"
        }
        E::BomInsideDocument => "a byte order mark stands within the text; remove it",
        E::MappingValueNotAllowed
        | E::InvalidColonPlacement
        | E::InvalidMappingValueWhitespace
        | E::SimpleKeyExpected
        | E::InvalidSimpleKey => {
            "a name and its value take one line with a space after the colon, as in name: value; quote a value that has a colon"
        }
        E::InvalidIndentation
        | E::ExpectedBlockMappingKey
        | E::ExpectedBlockSequenceEntry
        | E::MappingKeyNotAllowed
        | E::BlockSequenceEntryNotAllowed
        | E::InvalidBlockEntryWhitespace
        | E::BlockEntryInFlowCollection
        | E::InvalidQuotedScalarIndent
        | E::InvalidFlowScalarIndent
        | E::InvalidBlockScalarIndent => {
            "the line does not fit to those before it; indent the fields of one object alike, with spaces"
        }
        E::InvalidBlockScalarHeader | E::ZeroBlockScalarIndent => {
            "| or > begins a text of several lines; put it at the end of its line, and the text below it"
        }
        _ => "the text is not YAML here; write name: value, one a line",
    }
}
