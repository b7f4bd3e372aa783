//! Findings as SARIF 2.1.0, the exchange format of static analysis.

use luosim_uapi::lint::{Finding, Level, Rule};
use serde_json::{Value, json};

use super::lint::Linted;

/// The schema that the document follows.
const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

pub(super) fn document(linted: &[Linted]) -> String {
    let results: Vec<Value> =
        linted.iter().flat_map(|one| one.findings.list.iter().map(|finding| result(one, finding))).collect();
    let driver = json!({
        "name": "luosim abi lint",
        "version": env!("CARGO_PKG_VERSION"),
        "rules": Rule::ALL.iter().map(|rule| described(*rule)).collect::<Vec<_>>(),
    });
    let run = json!({ "tool": { "driver": driver }, "columnKind": "unicodeCodePoints", "results": results });
    crate::render::json(&json!({ "$schema": SCHEMA, "version": "2.1.0", "runs": [run] }))
}

const fn level(rule: Rule) -> &'static str {
    match rule.level() {
        Level::Warning => "warning",
        Level::Note => "note",
    }
}

fn described(rule: Rule) -> Value {
    json!({
        "id": rule.id(),
        "shortDescription": { "text": rule.asks() },
        "fullDescription": { "text": rule.why() },
        "help": { "text": rule.fix() },
        "defaultConfiguration": { "level": level(rule) },
    })
}

fn result(one: &Linted, finding: &Finding) -> Value {
    let (start, end) = (one.position(finding.span.start), one.position(finding.span.end));
    let region =
        json!({ "startLine": start.0, "startColumn": start.1, "endLine": end.0, "endColumn": end.1 });
    let place = json!({ "artifactLocation": { "uri": uri(&one.header.name) }, "region": region });
    let mut result = json!({
        "ruleId": finding.rule.id(),
        "ruleIndex": Rule::ALL.iter().position(|rule| *rule == finding.rule),
        "level": level(finding.rule),
        "message": { "text": finding.message },
        "locations": [{ "physicalLocation": place }],
    });
    if let Some(reason) = &finding.allowed {
        result["suppressions"] = json!([{ "kind": "inSource", "justification": reason }]);
    }
    result
}

/// A path as a reference: everything that has a meaning in one is escaped.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_are_references() {
        assert_eq!(uri("a b/c.h"), "a%20b/c.h");
        assert_eq!(uri("/usr/include/x.h"), "file:///usr/include/x.h");
    }
}
