//! Links between chapters: every file that a link names exists, and every heading behind a `#`.
//!
//! Markdown is read as far as the book uses it: inline links, ATX headings, fenced blocks. Links to the web are not
//! followed.

use std::path::Path;

/// Text of a page without its fenced blocks, where nothing is a link or a heading.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A line without its code spans. Headings keep theirs; a link inside one would be no link.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The target of every link in the page.
pub(crate) fn targets(text: &str) -> Vec<String> {
    let links = |line: &str| {
        let line = without_code(line);
        let parts = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        parts.map(|(target, _)| target.to_owned()).collect::<Vec<_>>()
    };
    prose(text).flat_map(links).collect()
}

/// The identifier that the book gives to a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn has_heading(text: &str, id: &str) -> bool {
    prose(text).filter_map(|line| line.strip_prefix('#')).any(|line| slug(line.trim_start_matches('#')) == id)
}

/// Every link of `page` that leads nowhere, in words.
pub(crate) fn broken(page: &Path, text: &str) -> Vec<String> {
    let local = |target: &String| !target.contains("://") && !target.starts_with("mailto:");
    let problem = |target: String| {
        let (file, id) = target.split_once('#').unwrap_or((&target, ""));
        let path = page.parent().unwrap_or(Path::new("")).join(file);
        if !file.is_empty() && !path.exists() {
            return Some(format!("{}: the link {target} leads to no file", page.display()));
        }
        let other = std::fs::read_to_string(&path).unwrap_or_default();
        let found = id.is_empty() || has_heading(if file.is_empty() { text } else { &other }, id);
        (!found).then(|| format!("{}: the link {target} leads to no heading", page.display()))
    };
    targets(text).into_iter().filter(local).filter_map(problem).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_outside_of_code() {
        let text = "see [a](b.md#c) and `[x](y.md)` and [`d`](../e.md)\n```\n[f](g.md)\n```\n[h](#i)";
        assert_eq!(targets(text), ["b.md#c", "../e.md", "#i"]);
    }

    #[test]
    fn headings_have_the_identifiers_of_the_book() {
        assert_eq!(slug(" `boot-image`"), "boot-image");
        assert_eq!(slug("`memfd-v1` (6.19)"), "memfd-v1-619");
        assert_eq!(slug("Who refuses what"), "who-refuses-what");
    }

    #[test]
    fn a_link_to_nothing_is_reported() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/links.rs");
        let found = |text: &str| broken(&page, text).len();
        assert_eq!(found("[a](main.rs) [b](https://example.org/) [c](#here)\n## Here"), 0);
        assert_eq!(found("[a](nothing.rs) [c](#there)\n## Here"), 2);
        assert_eq!(found("[c](#here)\n```\n## Here\n```"), 1);
    }
}
