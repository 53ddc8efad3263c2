//! The trace that a request belongs to (W3C Trace Context), so that its lines in the log are found
//! from the traces of whoever sent it.

use axum::http::HeaderMap;

/// The id of the trace, if the request has a valid one.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = parent.split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_valid = is_hex(version, 2)
        && version != "ff"
        // Only later versions may have more.
        && (version != "00" || parts.next().is_none())
        && is_hex(trace, 32)
        && is_hex(span, 16)
        && is_hex(flags, 2);
    let is_zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    (is_valid && !is_zero(trace) && !is_zero(span)).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_parent_has_a_trace() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let told = |parent: &str| {
            let headers =
                HeaderMap::from_iter([("traceparent".parse().unwrap(), parent.parse().unwrap())]);
            trace_id(&headers).map(str::to_string)
        };
        let span = "b7ad6b7169203331";
        assert_eq!(
            told(&format!("00-{trace}-{span}-01")).as_deref(),
            Some(trace)
        );
        assert_eq!(
            told(&format!("cc-{trace}-{span}-01-more")).as_deref(),
            Some(trace)
        );
        for parent in [
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            "nonsense".to_string(),
        ] {
            assert_eq!(told(&parent), None, "{parent}");
        }
    }
}
