//! Differences of two handovers for people.

use std::fmt::Write as _;

use luosim_inspect::diff::Diff;

/// A line each: what, then how it is in the first and in the second.
pub(crate) fn text(diff: &Diff) -> String {
    if diff.same {
        return String::from("the same, by meaning\n");
    }
    let mut out = String::new();
    for difference in &diff.differences {
        let _ = match (&difference.a, &difference.b) {
            (Some(a), Some(b)) => writeln!(out, "{}: {a} -> {b}", difference.what),
            (Some(a), None) => writeln!(out, "{}: only in the first ({a})", difference.what),
            (None, Some(b)) => writeln!(out, "{}: only in the second ({b})", difference.what),
            (None, None) => Ok(()),
        };
    }
    let _ = writeln!(out, "{}", super::counted(diff.differences.len(), "difference"));
    out
}
