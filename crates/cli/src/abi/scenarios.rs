//! A scenario for a collision: a kernel of one release, and the call of a program that was made for another.
//!
//! What the kernel answers is found by running the scenario in the model, and then expected: run again, it tells whether
//! the answer is still the same.

use luosim_abi::Errno;
use luosim_abi::ioctl::SESSION_BASE;
use luosim_scenario::{Op, Scenario, Step, parse, print};
use luosim_sim::{Options, Record};
use luosim_uapi::collide::{Collision, NAME};

/// The token of the file that waits in the incoming session, the one that the programs of collisions name.
const TOKEN: u64 = 1;

/// The name of the scenario and its document; or why there is none.
pub(super) fn make(collision: &Collision) -> Result<(String, String), String> {
    let name =
        format!("{:x}-of-{}-on-{}", collision.number, stem(&collision.program), stem(&collision.kernel));
    let document = document(&name, collision);
    let scenario = parse(&document).map_err(|problems| match problems.first() {
        Some(problem) => format!("no scenario: {}", problem.message),
        None => String::from("no scenario: it does not read"),
    })?;
    let answered = answer(scenario)?;
    let text = print(&answered);
    match parse(&text) {
        Ok(again) if again == answered => Ok((name, text)),
        _ => Err(String::from("no scenario: it does not read back")),
    }
}

/// A name that can be a part of a file's.
fn stem(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '.', "-")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn document(name: &str, collision: &Collision) -> String {
    let Collision { number, program, means, kernel, runs, argument, .. } = collision;
    let about = format!("a program of {program} means {means}, and {kernel} runs {runs}");
    let argument = if argument.is_empty() { String::new() } else { format!(" arg=\"{}\"", hex(argument)) };
    let is_session = number & 0xff >= u32::from(SESSION_BASE);
    let waiting = is_session && !kernel.starts_with("posted");
    let mut out = format!("scenario \"{name}\" about=\"{about}\"\nboot \"{kernel}\"\n");
    if waiting {
        out.push_str(&format!(
            "process before {{\n    open \"/dev/liveupdate\" as=device\n    create-session device \"{NAME}\" as=session\n    \
             memfd-create \"file\" as=file\n    preserve session file token={TOKEN}\n    kexec-load \"{kernel}\"\n    \
             reboot-kexec\n}}\n"
        ));
    }
    let session = if waiting { "retrieve-session" } else { "create-session" };
    out.push_str("process program {\n    open \"/dev/liveupdate\" as=device\n");
    if is_session {
        out.push_str(&format!("    {session} device \"{NAME}\" as=session\n"));
    }
    let on = if is_session { "session" } else { "device" };
    out.push_str(&format!("    ioctl {on} {number:#x}{argument}\n}}\n"));
    out
}

/// The scenario with the answer of the model as what is expected of its last call.
fn answer(mut scenario: Scenario) -> Result<Scenario, String> {
    let options = Options { base: std::path::PathBuf::new(), ..Options::default() };
    let report = luosim_sim::run(&scenario, &options).map_err(|error| format!("no scenario: {error}"))?;
    let calls = report.records.iter().filter_map(|record| match record {
        Record::Call { errno, call, .. } => Some((errno.as_deref(), call)),
        _ => None,
    });
    let mut calls: Vec<_> = calls.collect();
    let last = calls.pop().filter(|(_, call)| call.starts_with("ioctl"));
    let Some((errno, _)) = last.filter(|_| calls.iter().all(|(errno, _)| errno.is_none())) else {
        return Err(String::from("no scenario: the model does not come as far as the call"));
    };
    let errno =
        errno.map(|name| Errno::from_name(name).ok_or_else(|| format!("no scenario: {name} is no errno")));
    let errno = errno.transpose()?;
    for step in scenario.steps.iter_mut().rev() {
        if let Step::Process { call, .. } = step
            && call.op == Op::Ioctl
        {
            call.error = errno;
            break;
        }
    }
    Ok(scenario)
}
