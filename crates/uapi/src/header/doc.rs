//! kernel-doc: the comments that document a structure member by member.

use super::items::Span;

/// What a kernel-doc comment says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doc {
    /// The comment.
    pub span: Span,
    /// What it documents, `struct iommu_destroy`, as its first line says.
    pub subject: String,
    /// Documented members and the text of each.
    pub members: Vec<(String, String)>,
    /// All of it, without the stars.
    pub text: String,
}

impl Doc {
    /// The documentation of a member.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&str> {
        self.members.iter().find(|(member, _)| member == name).map(|(_, text)| text.as_str())
    }

    /// Names in `ioctl(NAME)`.
    pub fn ioctls(&self) -> impl Iterator<Item = &str> {
        self.text.split("ioctl(").skip(1).filter_map(|rest| {
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
            (end > 0 && rest[end..].starts_with(')')).then_some(&rest[..end])
        })
    }
}

/// Lines of a comment without its stars.
fn lines(comment: &str) -> impl Iterator<Item = &str> {
    let inside = comment.trim_start_matches("/*").trim_end_matches("*/");
    inside.lines().map(|line| {
        let line = line.trim();
        line.strip_prefix('*').unwrap_or(line).trim()
    })
}

/// The member that a line begins to document, and what it says of it: `@name: text`.
fn member(line: &str) -> Option<(&str, &str)> {
    let (name, text) = line.strip_prefix('@')?.split_once(':')?;
    let name = name.trim();
    let good = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '[' | ']');
    (!name.is_empty() && name.chars().all(good)).then_some((name.trim_end_matches("[]"), text.trim()))
}

/// Reads a comment; nothing if it is no kernel-doc.
pub(crate) fn read(comment: &str, span: Span) -> Option<Doc> {
    if !comment.starts_with("/**") || comment.starts_with("/**/") {
        return None;
    }
    let mut doc = Doc { span, ..Doc::default() };
    let mut open = false;
    for line in lines(comment) {
        if let Some((name, text)) = member(line) {
            doc.members.push((name.to_owned(), text.to_owned()));
            open = true;
        } else if line.is_empty() {
            open = false;
        } else if open {
            let last = doc.members.last_mut().map(|(_, text)| text);
            last.into_iter().for_each(|text| text.extend([" ", line]));
        } else if doc.subject.is_empty() && doc.members.is_empty() {
            let subject = line.split(" - ").next().unwrap_or(line);
            subject.trim_end_matches(':').trim().clone_into(&mut doc.subject);
        }
        doc.text.push_str(line);
        doc.text.push('\n');
    }
    Some(doc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_what_is_said_of_them() {
        let comment = "/**\n * struct x - ioctl(X_DO)\n * @size: Bytes of it\n *        as given\n * @pad: Must be 0\n *\n * Does it.\n */";
        let doc = read(comment, 0..comment.len()).expect("kernel-doc");
        assert_eq!(doc.subject, "struct x");
        assert_eq!(doc.member("size"), Some("Bytes of it as given"));
        assert_eq!(doc.member("pad"), Some("Must be 0"));
        assert_eq!(doc.member("Does"), None);
        assert_eq!(doc.ioctls().collect::<Vec<_>>(), ["X_DO"]);
    }

    #[test]
    fn other_comments_are_none() {
        assert_eq!(read("/* @a: b */", 0..1), None);
        assert_eq!(read("/**/", 0..1), None);
        assert!(read("/** ioctl( */", 0..1).is_some_and(|doc| doc.ioctls().count() == 0));
    }
}
