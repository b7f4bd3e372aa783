//! Writing a scenario as a document that reads back as the same scenario.

use kdl::{KdlDocument, KdlEntry, KdlEntryFormat, KdlNode, KdlValue};
use luosim_abi::profile::Profile;

use crate::step::{Call, DEFAULT_MEMORY, Scenario, Step, Value};
use crate::table::Kind;

/// The document of a scenario.
#[must_use]
pub fn print(scenario: &Scenario) -> String {
    let mut document = KdlDocument::new();
    let mut header = KdlNode::new("scenario");
    header.push(entry(None, scenario.name.as_str()));
    if !scenario.about.is_empty() {
        header.push(entry(Some("about"), scenario.about.as_str()));
    }
    document.nodes_mut().push(header);
    document.nodes_mut().extend(machine(scenario));
    let mut open: Option<&str> = None;
    for step in &scenario.steps {
        match step {
            Step::Machine(call) => {
                open = None;
                document.nodes_mut().push(node(call));
            }
            Step::Process { process, call } => {
                if open != Some(process) {
                    let mut block = KdlNode::new("process");
                    block.push(entry(None, process.as_str()));
                    *block.children_mut() = Some(KdlDocument::new());
                    document.nodes_mut().push(block);
                    open = Some(process);
                }
                let block = document.nodes_mut().last_mut().expect("pushed above");
                block.children_mut().as_mut().expect("made with a block").nodes_mut().push(node(call));
            }
        }
    }
    document.autoformat();
    document.to_string()
}

/// The machine, if it is another than the default.
fn machine(scenario: &Scenario) -> Option<KdlNode> {
    let mut machine = KdlNode::new("machine");
    if scenario.memory != DEFAULT_MEMORY {
        machine.push(KdlEntry::new_prop("memory", i128::from(scenario.memory)));
    }
    if scenario.profile != Profile::Mainline {
        machine.push(entry(Some("profile"), scenario.profile.name()));
    }
    if let Some(ticks) = scenario.phase_ticks {
        machine.push(KdlEntry::new_prop("phase-ticks", i128::from(ticks)));
    }
    (!machine.entries().is_empty()).then_some(machine)
}

/// An argument, or a property if it has a name.
fn entry(name: Option<&str>, value: impl Into<KdlValue>) -> KdlEntry {
    let value = value.into();
    let repr = value.as_string().filter(|text| text.chars().any(odd)).map(quoted);
    let mut entry = match name {
        Some(name) => KdlEntry::new_prop(name, value),
        None => KdlEntry::new(value),
    };
    if let Some(value_repr) = repr {
        let leading = String::from(" ");
        entry.set_format(KdlEntryFormat { value_repr, leading, autoformat_keep: true, ..Default::default() });
    }
    entry
}

/// Characters that end a line or may not stand in a document, and that the library prints as they are.
fn odd(letter: char) -> bool {
    matches!(letter,
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{200e}'..='\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}')
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            _ if odd(letter) => out.extend(letter.escape_unicode()),
            _ => out.push(letter),
        }
    }
    out.push('"');
    out
}

fn node(call: &Call) -> KdlNode {
    let spec = call.op.spec();
    let mut node = KdlNode::new(spec.name);
    let mut in_order = true;
    for (index, param) in spec.params.iter().enumerate() {
        let Some((_, value)) = call.values.iter().find(|(given, _)| *given == index) else {
            in_order &= !param.positional;
            continue;
        };
        let value = kdl_value(param.kind, value);
        node.push(if param.positional && in_order {
            entry(None, value)
        } else {
            entry(Some(param.name), value)
        });
    }
    if let Some(errno) = call.error {
        node.push(KdlEntry::new_prop("error", errno.name()));
    }
    node
}

fn kdl_value(kind: Kind, value: &Value) -> KdlValue {
    match (kind, value) {
        (Kind::Bool, Value::Number(number)) => KdlValue::Bool(*number != 0),
        (_, Value::Number(number)) => KdlValue::Integer(*number),
        (_, Value::Text(text)) => KdlValue::String(text.clone()),
        (_, Value::Bytes(bytes)) => {
            KdlValue::String(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
        }
    }
}
