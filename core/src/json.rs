//! JSON text of this crate's own types.

use serde::Serialize;

/// The JSON of a value whose types JSON can hold: text for keys, and no failing serializer.
#[expect(
    clippy::expect_used,
    reason = "only maps with other keys and failing serializers have no JSON, and no type here is one"
)]
pub(crate) fn to_string(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a type of this crate has a JSON form")
}
