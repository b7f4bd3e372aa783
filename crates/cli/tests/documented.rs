//! Every command in the README and in the chapters that show commands is run, and its output compared.
//!
//! In a `console` block a line `$ COMMAND` is run, `? N` behind it is its exit code (0 without), the other lines are what it
//! prints, errors first. `...` stands for any lines, `[..]` for any part of a line; a command with nothing below it may
//! print anything. A comment `file: NAME` before a block makes the block that file.
//!
//! `luosim exec … &` goes on while the next commands run; what it prints meanwhile is shown below each, the rest below
//! `wait %1`. What `luosim exec` and its programs print is shown in its order. Where the host cannot run programs
//! these commands are not run.

mod common;

use common::{Running, examples, gate_works, luosim_in, page, text, workshop};

/// One command as a page shows it.
#[derive(Debug, Default)]
struct Shown {
    command: String,
    code: i32,
    lines: Vec<String>,
}

/// The fenced blocks of a page: what stands before the fence, the language, the text.
fn blocks(page: &str) -> Vec<(&str, &str, &str)> {
    let parts: Vec<&str> = page.split("```").collect();
    assert!(parts.len() % 2 == 1, "a block is not closed");
    let fenced = parts.chunks(2).filter(|pair| pair.len() == 2);
    fenced
        .map(|pair| {
            let (language, body) = pair[1].split_once('\n').expect("a block has lines");
            (pair[0], language, body)
        })
        .collect()
}

fn commands(block: &str) -> Vec<Shown> {
    let mut shown: Vec<Shown> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            shown.push(Shown { command: command.to_owned(), ..Shown::default() });
            continue;
        }
        let last = shown.last_mut().expect("a block begins with a command");
        match line.strip_prefix("? ") {
            Some(code) => last.code = code.parse().expect("an exit code"),
            None => last.lines.push(line.to_owned()),
        }
    }
    shown
}

fn line_fits(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split("[..]").collect();
    let [first, middle @ .., last] = parts.as_slice() else { return pattern == line };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn fits(pattern: &[String], lines: &[&str]) -> bool {
    match pattern.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=lines.len()).any(|skipped| fits(rest, &lines[skipped..]))
        }
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, others)| line_fits(first, line) && fits(rest, others))
        }
    }
}

/// A folder, and the command in its background with the bytes of its output that were shown.
struct Place {
    folder: tempfile::TempDir,
    background: Option<(Running, usize)>,
}

/// Words as a shell splits them: at spaces, but not in quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in command.chars() {
        match character {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    words
}

fn runs_programs(command: &str) -> bool {
    ["luosim exec", "luosim ctl", "wait %1", "cargo build -p liveupdate --examples"]
        .iter()
        .any(|start| command.starts_with(start))
}

impl Place {
    /// Runs a shown command; `None` for one that is not run here.
    fn run(&mut self, shown: &Shown) -> Option<(i32, String)> {
        let command = shown.command.replace("cargo run --release -- ", "luosim ");
        let folder = self.folder.path();
        if command == "cargo test --workspace" || runs_programs(&command) && !gate_works() {
            return None;
        }
        if command == "cargo build -p liveupdate --examples" {
            let target = folder.join("target/debug");
            std::fs::create_dir_all(&target).expect("writable");
            std::os::unix::fs::symlink(examples(), target.join("examples")).expect("a link");
            return Some((0, String::new()));
        }
        if let Some(path) = command.strip_prefix("cat ") {
            return Some((0, std::fs::read_to_string(folder.join(path)).expect("a file of a command")));
        }
        if command == "wait %1" {
            let (mut running, from) = self.background.take().expect("something runs");
            let (code, mut printed) = running.end();
            return Some((code, printed.split_off(from)));
        }
        let arguments = command.strip_prefix("luosim ").unwrap_or_else(|| panic!("who runs {command}?"));
        let arguments = words(arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        match arguments.as_slice() {
            [before @ .., "&"] => Some((0, self.start(before, &shown.lines))),
            ["exec", ..] => Some(Running::start(folder, &arguments).end()),
            _ => {
                let output = luosim_in(folder, &arguments);
                let code = output.status.code().expect("it ends");
                let printed = text(&output.stderr) + &text(&output.stdout);
                let meanwhile = self.meanwhile(&printed, &shown.lines);
                Some((code, printed + &meanwhile))
            }
        }
    }

    /// What the command in the background has printed since, once all that is shown is there.
    fn meanwhile(&mut self, before: &str, lines: &[String]) -> String {
        let Some((running, from)) = self.background.as_mut().filter(|_| !lines.is_empty()) else {
            return String::new();
        };
        let printed = running.wait_until(*from, |printed| {
            let all = format!("{before}{printed}");
            all.ends_with('\n') && fits(lines, &all.lines().collect::<Vec<_>>())
        });
        *from += printed.len();
        printed
    }

    /// Starts a command in the background, and waits until it has printed what is shown.
    fn start(&mut self, arguments: &[&str], lines: &[String]) -> String {
        let running = Running::start(self.folder.path(), arguments);
        let printed = running.wait_until(0, |printed| {
            printed.ends_with('\n') && fits(lines, &printed.lines().collect::<Vec<_>>())
        });
        self.background = Some((running, printed.len()));
        printed
    }

    fn check(&mut self, shown: &Shown) {
        let Some((code, printed)) = self.run(shown) else { return };
        assert_eq!(code, shown.code, "$ {}\n{printed}", shown.command);
        let lines: Vec<&str> = printed.lines().collect();
        let good = shown.lines.is_empty() || fits(&shown.lines, &lines);
        assert!(good, "$ {}\nshown:\n{}\nprinted:\n{printed}", shown.command, shown.lines.join("\n"));
    }
}

/// Runs everything on a page; returns the number of commands.
fn check_page(name: &str) -> usize {
    let (text, mut place) = (page(name), Place { folder: workshop(), background: None });
    let mut count = 0;
    for (before, language, body) in blocks(&text) {
        let file =
            before.trim_end().rsplit_once("<!-- file: ").and_then(|(_, rest)| rest.strip_suffix(" -->"));
        if let Some(file) = file {
            std::fs::write(place.folder.path().join(file), body).expect("writable");
        }
        if language == "console" {
            for shown in commands(body) {
                place.check(&shown);
                count += 1;
            }
        }
    }
    count
}

#[test]
fn the_readme_is_true() {
    assert_eq!(check_page("README.md"), 9);
}

#[test]
fn the_tour_is_true() {
    assert_eq!(check_page("docs/tour.md"), 11);
}

#[test]
fn the_chapter_on_json_is_true() {
    assert_eq!(check_page("docs/json.md"), 1);
}

#[test]
fn the_chapter_on_the_command_is_true() {
    assert_eq!(check_page("docs/command.md"), 6);
}

#[test]
fn the_chapter_on_releases_is_true() {
    assert_eq!(check_page("docs/releases.md"), 2);
}

#[test]
fn the_chapter_on_posted_designs_is_true() {
    assert_eq!(check_page("docs/posted-designs.md"), 4);
}

#[test]
fn the_chapter_on_devices_is_true() {
    assert_eq!(check_page("docs/devices.md"), 1);
}

#[test]
fn the_chapter_on_exploring_is_true() {
    assert_eq!(check_page("docs/explore.md"), 8);
}

#[test]
fn the_chapter_on_programs_is_true() {
    assert_eq!(check_page("docs/run-your-program.md"), 16);
}

#[test]
fn the_chapter_on_what_would_survive_is_true() {
    assert_eq!(check_page("docs/preflight.md"), 7);
}

#[test]
fn the_chapter_on_handovers_is_true() {
    assert_eq!(check_page("docs/inspect.md"), 12);
}

#[test]
fn the_chapter_on_interfaces_is_true() {
    assert_eq!(check_page("docs/abi.md"), 6);
}

#[test]
fn no_other_page_shows_commands_that_nobody_runs() {
    let known = [
        "abi.md",
        "tour.md",
        "command.md",
        "devices.md",
        "explore.md",
        "inspect.md",
        "json.md",
        "posted-designs.md",
        "preflight.md",
        "releases.md",
        "run-your-program.md",
    ];
    for entry in std::fs::read_dir(common::root().join("docs")).expect("docs") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if name.ends_with(".md") && !known.contains(&name.as_str()) {
            assert!(!page(&format!("docs/{name}")).contains("```console"), "{name}");
        }
    }
}

#[test]
fn patterns_are_strict() {
    let pattern = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&pattern("a\n...\nd [..] f"), &["a", "b", "c", "d e f"]));
    assert!(fits(&pattern("..."), &[]));
    assert!(!fits(&pattern("a\n...\nd"), &["a", "d", "e"]));
    assert!(!fits(&pattern("a"), &["a", "b"]));
    assert!(!fits(&pattern("0x[..]1"), &["0x2"]));
}
