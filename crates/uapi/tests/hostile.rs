//! Any text is a header: it gives findings and problems, never a panic and never a long wait.

use luosim_uapi::diff::diff;
use luosim_uapi::header::read_alone;
use luosim_uapi::interface::of_header;
use luosim_uapi::lint::lint;
use luosim_uapi::registry::Registry;
use proptest::prelude::*;

fn everything(text: &str) {
    let loaded = read_alone("x.h", text);
    let findings = lint(&loaded, Some(&Registry::parse(text)));
    for finding in &findings.list {
        assert!(finding.span.start <= finding.span.end && finding.span.end <= text.len(), "{finding:?}");
        assert!(
            text.is_char_boundary(finding.span.start) && text.is_char_boundary(finding.span.end),
            "{finding:?}"
        );
    }
    let interface = of_header(&loaded);
    assert!(!diff(&interface, &interface).breaks());
}

/// Pieces of C that headers are made of, and pieces that break them.
const PIECES: [&str; 48] = [
    "struct s {",
    "union u {",
    "enum e {",
    "};",
    "}",
    "{",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    ":",
    "\n",
    "#define A ",
    "#define F(x) ",
    "#if ",
    "#ifdef A",
    "#else",
    "#elif 1",
    "#endif",
    "#undef A",
    "#include <a.h>",
    "/*",
    "*/",
    "/** @a: b */",
    "//",
    "\"",
    "'",
    "\\\n",
    "__u32 ",
    "__u64 a",
    "int b : 3",
    "A = 1",
    "B",
    "_IOWR('x', 1, struct s)",
    "_IO(",
    "__attribute__((aligned(",
    "packed",
    "__DECLARE_FLEX_ARRAY(",
    "__struct_group(",
    "__counted_by(",
    "typedef ",
    "sizeof(struct s)",
    "1 << 63",
    "-9999999999",
    "\u{20ac}",
    "/* luosim-abi: allow(fd-type) */",
];

/// A macro whose expansion moves text, with letters of several bytes in it.
#[test]
fn letters_of_several_bytes_in_a_macro() {
    for text in [
        "__DECLARE_FLEX_ARRAY( \u{20ac} , };",
        "struct s { __DECLARE_FLEX_ARRAY(\u{20ac} \u{20ac}, \u{20ac}) };",
    ] {
        everything(text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn pieces_in_any_order(pieces in prop::collection::vec(0..PIECES.len(), 0..60)) {
        everything(&pieces.iter().map(|piece| PIECES[*piece]).collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn any_text(text in "\\PC{0,200}") {
        everything(&text);
    }

    #[test]
    fn a_header_cut_and_stirred(at in 0usize..2500, with in 0..PIECES.len(), length in 0usize..40) {
        let whole = include_str!("headers/rules.h");
        let at = at.min(whole.len());
        let end = (at + length).min(whole.len());
        everything(&[&whole[..at], PIECES[with], &whole[end..]].concat());
    }
}

#[test]
fn deep_and_long_things_end() {
    for text in [
        "(".repeat(200_000),
        "struct s {".repeat(20_000),
        "#if 1\n".repeat(100_000),
        format!("#define A {}", "(".repeat(200_000)),
        format!("struct s {{ int a{}; }};", "[1]".repeat(50_000)),
        format!("struct s {{ int {}a; }};", "*".repeat(50_000)),
        format!("enum e {{ {} }};", (0..50_000).map(|n| format!("A{n}, ")).collect::<String>()),
        (0..30_000).map(|n| format!("#define A{} A{n} + A{n}\n", n + 1)).collect::<String>(),
        (0..5_000).map(|n| format!("struct s{} {{ struct s{n} a, b; }};\n", n + 1)).collect::<String>(),
        "/*".repeat(200_000),
        "#define A _IO(A, A)\n".repeat(20_000),
    ] {
        everything(&text);
    }
}
