//! Any bytes as a scenario: a result or diagnostics that point into the document, never a panic.

use luosim_scenario::parse;
use proptest::prelude::*;

const GOOD: &str = "scenario \"x\" about=\"y\"\nboot \"7.3\"\nprocess p {\n    open \"/dev/liveupdate\" as=dev\n    \
                    create-session dev \"s\" as=s\n    memfd-create \"m\" as=m\n    fill m seed=1 len=\"4KiB\"\n    \
                    preserve s m token=0x10\n    close s error=EBADF\n}\n";

fn check(text: &str) {
    if let Err(problems) = parse(text) {
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(problem.span.start <= problem.span.end && problem.span.end <= text.len(), "{problem:?}");
            assert!(!problem.message.is_empty());
        }
    }
}

#[test]
fn nesting_that_strings_and_comments_hide_is_refused() {
    for piece in ["/*/", "a \"}\" {", "a {//}\n", "a #\"\"}\"# {"] {
        let problems = parse(&format!("scenario x\n{}", piece.repeat(5000))).expect_err("too deep");
        assert!(problems[0].message.contains("nested too deeply"), "{piece}: {problems:?}");
    }
}

#[test]
fn deep_nesting_is_refused_before_it_is_parsed() {
    let problems = parse(&"process {".repeat(50_000)).expect_err("too deep");
    assert!(problems[0].message.contains("nested too deeply"), "{problems:?}");
}

proptest! {
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        check(&text);
    }

    // An abort of the whole test, if the parser runs out of stack.
    #[test]
    fn what_repeats_does_not_nest_without_end(piece in "[{}()\"#/*\\\\\n a;=-]{1,6}", head in "[{}()\"#/*\\\\\n a;=-]{0,4}") {
        check(&format!("{head}{}", piece.repeat(2000)));
    }

    #[test]
    fn a_changed_document_is_answered(at in 0..GOOD.len(), len in 0usize..20, new in "[a-z{}\"=#0-9\\-|\\n ]{0,8}") {
        let end = (at + len).min(GOOD.len());
        check(&format!("{}{new}{}", &GOOD[..at], &GOOD[end..]));
    }
}
