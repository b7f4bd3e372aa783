//! `luosim ctl`: a second terminal for a run of `luosim exec`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use luosim_gate::control::{self, Request, Response};

use crate::Ending;
use crate::commands::print;
use crate::message;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ask {
    /// Jump to the next kernel, with the image that is loaded or one like the running kernel
    Kexec,
    /// What runs
    Status,
    /// Sessions and the tokens of their files
    Sessions,
    /// The kernel panics: everything is lost
    Crash,
    /// Power off and on: everything is lost
    ColdReset,
    /// The kernel log
    Log,
}

const EXAMPLES: &str = "\
Examples:
  luosim ctl status
  luosim ctl kexec
  luosim ctl --run 4711 sessions

Exit codes: 0 done, 1 refused, 2 no such run.";

/// Options of `luosim ctl`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CtlArguments {
    /// What to ask
    #[arg(value_enum)]
    ask: Ask,
    /// Process number of the run's luosim; the newest run if not given
    #[arg(long, value_name = "PID")]
    run: Option<u32>,
    /// Answer as one JSON document
    #[arg(long)]
    json: bool,
}

impl From<Ask> for Request {
    fn from(ask: Ask) -> Self {
        match ask {
            Ask::Kexec => Self::Kexec,
            Ask::Status => Self::Status,
            Ask::Sessions => Self::Sessions,
            Ask::Crash => Self::Crash,
            Ask::ColdReset => Self::ColdReset,
            Ask::Log => Self::Log,
        }
    }
}

fn find(run: Option<u32>) -> Result<PathBuf, String> {
    let runs = control::runs().map_err(|error| format!("{}: {error}", control::base_folder().display()))?;
    let wanted = match run {
        Some(pid) => runs.iter().find(|(known, _)| *known == pid),
        None => runs.last(),
    };
    wanted.map(|(_, path)| path.clone()).ok_or_else(|| match (run, runs.is_empty()) {
        (_, true) => String::from("no run of `luosim exec` by this user is there; start one first"),
        (pid, false) => {
            let known: Vec<String> = runs.iter().map(|(pid, _)| pid.to_string()).collect();
            format!("there is no run {}; there are {}", pid.unwrap_or(0), known.join(", "))
        }
    })
}

pub(crate) fn ctl(arguments: &CtlArguments) -> Ending {
    let answered = find(arguments.run).and_then(|folder| {
        control::ask(&folder, arguments.ask.into())
            .map_err(|error| format!("the run does not answer: {error}"))
    });
    match answered {
        Ok(response) if arguments.json => {
            print(&format!("{}\n", serde_json::to_string(&response).unwrap_or_default()));
            ending(&response)
        }
        Ok(response) => {
            show(&response);
            ending(&response)
        }
        Err(error) => {
            message(format_args!("{error}"));
            Ending::BadInput
        }
    }
}

fn ending(response: &Response) -> Ending {
    if matches!(response, Response::Refused { .. }) { Ending::Failed } else { Ending::AsExpected }
}

fn show(response: &Response) {
    match response {
        Response::Done => {}
        Response::Refused { errno, reason } => message(format_args!("{errno}: {reason}")),
        Response::Status(status) => print(&format!(
            "kernel {}, Linux {}; luosim {}\nimage loaded: {}\nsessions: {} outgoing, {} incoming\ncommand line: {}\n",
            status.generation,
            status.release,
            status.supervisor,
            if status.image_loaded { "yes" } else { "no" },
            status.outgoing,
            status.incoming,
            status.cmdline,
        )),
        Response::Sessions(sessions) => {
            for session in sessions {
                let way = if session.incoming { "incoming" } else { "outgoing" };
                let tokens: Vec<String> = session.tokens.iter().map(|token| format!("{token:#x}")).collect();
                print(&format!("{way} \"{}\" {}\n", session.name, tokens.join(" ")));
            }
        }
        Response::Log(lines) => {
            for line in lines {
                print(&format!("{line}\n"));
            }
        }
    }
}
