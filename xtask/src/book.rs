//! What `mdbook build` does not check: chapters that nobody lists, links that lead nowhere, chapters that are
//! made from tables and are old.

use std::path::{Path, PathBuf};

use crate::{language, links};

/// The chapters that are made from tables.
fn made() -> [(&'static str, String); 2] {
    [("scenario-language.md", language::language()), ("quirks.md", language::quirks())]
}

/// Writes the chapters that are made from tables.
pub(crate) fn write(docs: &Path) -> Result<(), String> {
    for (name, text) in made() {
        std::fs::write(docs.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// Every page below `folder`, the built book left out.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("book-out") {
            pages(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    Ok(())
}

/// The book is whole: every page is a chapter, every link leads somewhere, no chapter is old.
pub(crate) fn check(docs: &Path) -> Result<usize, String> {
    let summary = docs.join("SUMMARY.md");
    let listed: Vec<PathBuf> = links::targets(&read(&summary)?).iter().map(|link| docs.join(link)).collect();
    let mut found = Vec::new();
    pages(docs, &mut found).map_err(|error| error.to_string())?;
    let mut problems = Vec::new();
    for page in &found {
        if *page != summary && !listed.contains(page) {
            problems.push(format!("{} is in no chapter of SUMMARY.md", page.display()));
        }
        problems.extend(links::broken(page, &read(page)?));
    }
    for readme in ["../README.md", "../CHANGELOG.md"] {
        let readme = docs.join(readme);
        problems.extend(links::broken(&readme, &read(&readme)?));
    }
    for (name, text) in made() {
        if read(&docs.join(name))? != text {
            problems.push(format!("docs/{name} is old: cargo run -p xtask -- language"));
        }
    }
    if problems.is_empty() { Ok(listed.len()) } else { Err(problems.join("\nxtask: ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_is_whole() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        assert_eq!(check(&docs).map(|chapters| chapters > 0), Ok(true));
    }

    #[test]
    fn a_page_that_nobody_lists_and_an_old_chapter_are_reported() {
        let folder = tempfile::tempdir().expect("a folder");
        let docs = folder.path().join("docs");
        std::fs::create_dir(&docs).expect("writable");
        let put = |name: &str, text: &str| std::fs::write(docs.join(name), text).expect("writable");
        // The chapter on quirks leads to two others.
        let chapters =
            "- [a](scenario-language.md)\n- [b](quirks.md)\n- [c](explore.md)\n- [d](posted-designs.md)\n";
        put("SUMMARY.md", chapters);
        put("explore.md", "");
        put("posted-designs.md", "");
        put("../README.md", "");
        put("../CHANGELOG.md", "");
        write(&docs).expect("writable");
        assert_eq!(check(&docs), Ok(4));
        put("extra.md", "[gone](gone.md)");
        put("quirks.md", "");
        let problems = check(&docs).expect_err("three problems");
        for part in
            ["extra.md is in no chapter", "the link gone.md leads to no file", "docs/quirks.md is old"]
        {
            assert!(problems.contains(part), "{part} in {problems}");
        }
    }
}
