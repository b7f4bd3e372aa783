//! Comments that allow what a rule forbids.

use super::{Finding, Rule};
use crate::header::{Header, Span, preprocess::MARK as WORD};

/// One rule that one comment allows.
struct Allowance {
    rule: Rule,
    reason: String,
    comment: Span,
    /// What it covers.
    covers: Span,
    used: bool,
}

/// What a comment says: `allow` or `allow-file`, the names, the reason.
fn said(comment: &str) -> Option<(bool, &str, &str)> {
    let rest = comment.split_once(WORD)?.1.trim_start();
    let (file, rest) = match rest.strip_prefix("allow-file(") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix("allow(")?),
    };
    let (names, reason) = rest.split_once(')')?;
    Some((file, names, reason.trim_end_matches("*/").trim()))
}

/// The line of the comment, and what follows it up to the end of the next declaration that starts there: the finding of a
/// member stands on the member's line, that of a structure at its name.
fn covered(header: &Header, comment: &Span) -> Span {
    let text = &header.text;
    let start = text[..comment.start].rfind('\n').map_or(0, |at| at + 1);
    let alone = text[start..comment.start].trim().is_empty();
    let line_end = |at: usize| text[at..].find('\n').map_or(text.len(), |length| at + length);
    if !alone {
        return start..line_end(comment.end);
    }
    // The next line that is not a comment's.
    let mut at = comment.end;
    for later in header.comments.iter().filter(|later| later.start >= comment.end) {
        if !text[at..later.start].trim().is_empty() {
            break;
        }
        at = later.end;
    }
    let next = at + (text[at..].len() - text[at..].trim_start().len());
    start..line_end(next)
}

fn read(header: &Header, list: &mut Vec<Finding>) -> Vec<Allowance> {
    let mut found = Vec::new();
    for comment in &header.comments {
        let Some((file, names, reason)) = said(header.at(comment)) else { continue };
        let covers = if file { 0..header.text.len() } else { covered(header, comment) };
        let warn = |rule, message| Finding { rule, span: comment.clone(), message, allowed: None };
        if reason.is_empty() {
            list.push(warn(Rule::AllowReason, format!("it allows {names} and does not say why")));
        }
        for name in names.split(',').map(str::trim) {
            match Rule::from_id(name) {
                Some(rule) => {
                    let (reason, comment, covers) = (reason.to_owned(), comment.clone(), covers.clone());
                    found.push(Allowance { rule, reason, comment, covers, used: false });
                }
                None => list.push(warn(Rule::AllowUnused, format!("there is no rule {name}"))),
            }
        }
    }
    found
}

/// Marks the findings that comments allow, and adds those about the comments.
pub(super) fn apply(header: &Header, list: &mut Vec<Finding>) {
    if !header.text.contains(WORD) {
        return;
    }
    let mut about = Vec::new();
    let mut allowances = read(header, &mut about);
    for finding in list.iter_mut() {
        let fits =
            |one: &&mut Allowance| one.rule == finding.rule && one.covers.contains(&finding.span.start);
        if let Some(allowance) = allowances.iter_mut().find(fits) {
            allowance.used = true;
            finding.allowed = Some(allowance.reason.clone());
        }
    }
    for allowance in allowances.iter().filter(|allowance| !allowance.used) {
        let message = format!("nothing here breaks {}", allowance.rule);
        about.push(Finding {
            rule: Rule::AllowUnused,
            span: allowance.comment.clone(),
            message,
            allowed: None,
        });
    }
    list.append(&mut about);
}
