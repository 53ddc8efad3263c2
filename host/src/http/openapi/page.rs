//! Renders the document as plain HTML without scripts, so that the page loads nothing and works
//! with the strictest content security policy.

use std::fmt::Write;

use serde_json::Value;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:1rem;border:1px solid #8884}\
summary{cursor:pointer;padding:.4rem 0}details{border-bottom:1px solid #8884}table{border-collapse:collapse}\
td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}:root{color-scheme:light dark}";

/// Renders the page.
pub fn page(document: &Value) -> String {
    let mut page = String::new();
    let title = text(&document["info"]["title"]);
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><h1>{title}</h1><p>{} <a href=\"openapi.json\">openapi.json</a></p>",
        text(&document["info"]["summary"])
    );
    let paths = document["paths"].as_object();
    for (path, operations) in paths.into_iter().flatten() {
        for (method, operation) in operations.as_object().into_iter().flatten() {
            draw_operation(&mut page, document, &method.to_uppercase(), path, operation);
        }
    }
    page.push_str("<h2>Shapes</h2>");
    let schemas = document["components"]["schemas"].as_object();
    for (name, schema) in schemas.into_iter().flatten() {
        let _ = write!(
            page,
            "<details id=\"{0}\"><summary><code>{0}</code></summary><pre>{1}</pre></details>",
            escaped(name),
            pretty(schema)
        );
    }
    page
}

fn draw_operation(
    page: &mut String,
    document: &Value,
    method: &str,
    path: &str,
    operation: &Value,
) {
    let _ = write!(
        page,
        "<details><summary><code><b>{method}</b> {}</code> {}</summary><p>{}</p><table>",
        escaped(path),
        text(&operation["summary"]),
        text(&operation["description"])
    );
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let parameter = resolved(document, parameter);
        let _ = write!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{}",
            text(&parameter["name"]),
            text(&parameter["in"]),
            text(&parameter["description"])
        );
    }
    page.push_str("</table><table>");
    for (status, response) in operation["responses"].as_object().into_iter().flatten() {
        let response = resolved(document, response);
        let _ = write!(
            page,
            "<tr><td>{}<td>{}<td>",
            escaped(status),
            text(&response["description"])
        );
        for (media, content) in response["content"].as_object().into_iter().flatten() {
            let shape = content["schema"]["$ref"].as_str().unwrap_or_default();
            let shape = escaped(shape.rsplit('/').next().unwrap_or_default());
            let _ = write!(
                page,
                "<code>{}</code> <a href=\"#{shape}\">{shape}</a><br>",
                escaped(media)
            );
        }
    }
    page.push_str("</table>");
    let examples = operation.pointer("/requestBody/content/application~1json/examples");
    for (name, example) in examples.and_then(Value::as_object).into_iter().flatten() {
        let _ = write!(
            page,
            "<p>{}<pre>{}</pre>",
            escaped(name),
            pretty(&example["value"])
        );
    }
    page.push_str("</details>");
}

/// What a reference refers to, or the value itself.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(pointer) => document
            .pointer(pointer.trim_start_matches('#'))
            .unwrap_or(&Value::Null),
        None => value,
    }
}

fn text(value: &Value) -> String {
    escaped(value.as_str().unwrap_or_default())
}

fn pretty(value: &Value) -> String {
    escaped(&serde_json::to_string_pretty(value).unwrap_or_default())
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_of_a_document_becomes_markup() {
        let document = json!({
            "info": {"title": "<script>"},
            "components": {"schemas": {"\"><b>": {"x": "</pre>"}}},
        });
        let page = page(&document);
        assert!(!page.contains("<script>") && !page.contains("<b>") && !page.contains("\"</pre>"));
    }
}
