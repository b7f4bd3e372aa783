//! `luosim doctor`: whether this host can run `luosim exec`.

use std::fmt::Write as _;

use clap::Args;
use luosim_gate::doctor::{self, Facts, Finding, Grade};

use crate::Ending;
use crate::commands::{Format, print};
use crate::render::{self, BOLD, DIM, WARN, paint};

/// Version of the JSON form.
const VERSION: u32 = 1;

const EXAMPLES: &str = "\
Examples:
  luosim doctor
  luosim doctor --format json

Exit codes: 0 the gate can run, 1 it cannot.";

/// Options of `luosim doctor`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DoctorArguments {
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

fn line(finding: &Finding) -> String {
    let grade = match finding.grade {
        Grade::Ok => "ok      ",
        Grade::Degraded => "degraded",
        Grade::Missing => "missing ",
    };
    let style = if finding.grade == Grade::Ok { BOLD } else { WARN };
    let mut text = format!("{}  {:<18}  {}", paint(style, grade), finding.name, finding.found);
    if let Some(advice) = finding.advice {
        let _ = write!(text, ": {}", paint(DIM, advice));
    }
    text.push('\n');
    text
}

fn text(findings: &[Finding]) -> String {
    let verdict = match doctor::can_run(findings) {
        true => "luosim exec can run here.\n",
        false => "luosim exec cannot run here.\n",
    };
    findings.iter().map(line).chain([String::from(verdict)]).collect()
}

fn json(findings: &[Finding]) -> String {
    let can_run = doctor::can_run(findings);
    render::json(&serde_json::json!({ "version": VERSION, "can-run": can_run, "findings": findings }))
}

pub(crate) fn doctor(arguments: &DoctorArguments) -> Ending {
    let findings = doctor::judge(&Facts::gather());
    print(&match arguments.format {
        Format::Text => text(&findings),
        Format::Json => json(&findings),
    });
    if doctor::can_run(&findings) { Ending::AsExpected } else { Ending::Failed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts {
            release: String::from("6.18.44"),
            machine: String::from("x86_64"),
            privileged: true,
            listener: Ok(()),
            landlock: Ok(()),
            namespaces: Ok(()),
            mounting: Ok(()),
            fresh_proc: Ok(()),
            yama: None,
            pidfd_thread: Ok(()),
            child_memory: Ok(()),
            device: Some(String::from("loop-control")),
            open_files: (1024, 4096),
        }
    }

    fn shown(facts: &Facts) -> String {
        anstream::adapter::strip_str(&text(&doctor::judge(facts))).to_string()
    }

    #[test]
    fn a_good_host() {
        assert!(doctor::can_run(&doctor::judge(&good())));
        insta::assert_snapshot!("doctor-good", shown(&good()));
        insta::assert_snapshot!("doctor-good-json", json(&doctor::judge(&good())));
    }

    #[test]
    fn a_host_that_is_less_exact() {
        let facts = Facts {
            privileged: false,
            fresh_proc: Err(1),
            pidfd_thread: Err(22),
            device: None,
            yama: Some(1),
            open_files: (256, 1024),
            ..good()
        };
        assert!(doctor::can_run(&doctor::judge(&facts)));
        insta::assert_snapshot!("doctor-degraded", shown(&facts));
    }

    #[test]
    fn a_host_that_has_nothing() {
        let facts = Facts {
            release: String::from("5.15.0-91-generic"),
            machine: String::from("aarch64"),
            privileged: false,
            listener: Err(22),
            landlock: Err(95),
            namespaces: Err(1),
            mounting: Err(1),
            fresh_proc: Err(1),
            yama: Some(3),
            pidfd_thread: Err(22),
            child_memory: Err(1),
            device: None,
            open_files: (64, 64),
        };
        insta::assert_snapshot!("doctor-nothing", shown(&facts));
        insta::assert_snapshot!("doctor-nothing-json", json(&doctor::judge(&facts)));
    }

    #[test]
    fn each_miss_alone_keeps_the_gate_from_running() {
        let misses = [
            Facts { release: String::from("5.18.3"), ..good() },
            Facts { machine: String::from("i686"), ..good() },
            Facts { listener: Err(16), ..good() },
            Facts { listener: Err(13), ..good() },
            Facts { landlock: Err(95), ..good() },
            Facts { namespaces: Err(28), ..good() },
            Facts { mounting: Err(1), ..good() },
            Facts { yama: Some(3), ..good() },
            Facts { yama: Some(2), privileged: false, ..good() },
            Facts { child_memory: Err(1), ..good() },
        ];
        let mut said = String::new();
        for facts in misses {
            assert!(!doctor::can_run(&doctor::judge(&facts)), "{facts:?}");
            said.extend(
                shown(&facts)
                    .lines()
                    .filter(|line| line.starts_with("missing"))
                    .map(|line| format!("{line}\n")),
            );
        }
        insta::assert_snapshot!("doctor-misses", said);
    }
}
