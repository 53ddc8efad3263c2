//! Serializes this crate's own types to JSON.

use serde::Serialize;

/// The JSON of a value whose serialization cannot fail: its keys are strings, and its serializers
/// return no errors.
#[expect(
    clippy::expect_used,
    reason = "only maps with other keys and failing serializers have no JSON, and no type here is \
              one"
)]
pub(crate) fn to_string(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a type of this crate has a JSON form")
}
