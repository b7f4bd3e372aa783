//! The event loop: generations of programs, one after the other, on one machine.
//!
//! One thread (tokio, current-thread): notified calls, reports of the process tree, requests on the control socket
//! and signals are taken one at a time. A kexec boots the next kernel on the same memory, kills the old tree, and
//! starts the next generation.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use luosim_abi::release::ReleaseId;
use luosim_machine::{BootOptions, BootReport, Kernel, Machine, Outcome};
use luosim_physmem::{MemError, PhysMem};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::bpf::Served as Group;
use crate::control::{self, Asked, Request, Response, SessionStatus, Status};
use crate::deed::Served;
use crate::gate::Gate;
use crate::launcher::{Launcher, Plan};
use crate::memory::Holes;
use crate::notify::State;
use crate::ready::Seat;
use crate::serve::Down;
use crate::serve::image::{Loader, Look};
use crate::tree::{Handles, LaunchError, Order, Report, Tree};

/// Notifications served before the loop looks at anything else.
const BURST: usize = 64;

/// What to run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Program and arguments of each generation; the last one repeats.
    pub commands: Vec<Vec<OsString>>,
    /// How many generations there are at most; `None`: until one ends without a kexec.
    pub generations: Option<u32>,
    /// Whether a generation that ends well is followed by a kexec that an operator makes.
    pub kexec_at_exit: bool,
    /// Whether a generation goes on after its program has ended, while processes of it are left.
    pub linger: bool,
    /// Releases of the kernels; the last one repeats.
    pub releases: Vec<ReleaseId>,
    /// How kernels are booted; the first one with this command line.
    pub boot: BootOptions,
    /// Bytes of physical memory.
    pub memory: u64,
    /// Which optional groups of calls are served.
    pub served: Group,
    /// What becomes of holes in preserved files.
    pub holes: Holes,
    /// Folders that get a fresh tmpfs in each generation.
    pub tmpfs: Vec<PathBuf>,
}

/// Who watches a run.
pub trait Watch {
    /// Whether served calls are of interest: decoding them costs time.
    fn wants_calls(&self) -> bool {
        false
    }
    /// A call was served.
    fn served(&mut self, _call: &Served) {}
    /// A kernel booted, or tried to, with this command line.
    fn booted(&mut self, _report: &BootReport, _cmdline: &str) {}
    /// A generation's program ended with this wait status.
    fn ended(&mut self, _generation: u32, _status: i32) {}
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The last program ended with this wait status.
    Exited(i32),
    /// The last program made a kexec, and no generation was to follow.
    Kexec,
    /// A program halted the machine or switched it off.
    Off,
    /// A kernel panicked, for this reason, and nothing can run on it.
    Panicked(String),
    /// A program could not be executed: its name and the error number.
    NotExecuted(String, i32),
    /// The kexec after a program's end was refused, for this reason.
    Refused(String),
    /// We were asked to stop by this signal.
    Signalled(i32),
}

/// A run that is over.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub end: End,
    /// The machine as it was left: its ledger says what became of everything.
    pub machine: Machine,
}

/// A run that cannot be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The simulated memory.
    #[error(transparent)]
    Memory(#[from] MemError),
    /// A generation could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The host refused something.
    #[error("{what}: {source}")]
    Host {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Host { what, source }
}

/// What ended a generation.
enum Over {
    Kexec(Box<BootReport>),
    /// Went down without a handover; the next kernel boots cold.
    Lost,
    Off,
    Panicked(String),
    Exited(i32),
    NotExecuted(i32),
    Refused(String),
    Signalled(i32),
}

struct Supervisor<'a> {
    gate: Gate,
    plan: Plan,
    launcher: Launcher,
    options: Options,
    watch: &'a mut dyn Watch,
    requests: mpsc::Receiver<Asked>,
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    seat: Arc<Seat>,
    /// Signals of the terminal that went to the program as well.
    interrupted: u32,
}

/// Runs programs on a simulated machine. `look` sees the memory at each kexec.
///
/// # Errors
/// [`Error`].
pub fn run(options: Options, watch: &mut dyn Watch, look: Look) -> Result<Finished, Error> {
    // First of all: what is forked is to be small, and to have nothing open that a program should not have.
    let plan = Plan {
        commands: options.commands.clone(),
        served: options.served,
        tmpfs: options.tmpfs.clone(),
        privileged: rustix::process::geteuid().is_root(),
        single: options.generations == Some(1),
    };
    let launcher = Launcher::start(&plan)?;
    make_room_for_descriptors(plan.privileged);
    let seat = Arc::new(Seat::default());
    let sleeper = Arc::clone(&seat);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().on_thread_park(move || _ = sleeper.nap()).build();
    let runtime = runtime.map_err(host("the event loop"))?;
    seat.know_runtime();
    runtime.block_on(async {
        let folder = control::make_folder().map_err(host("the folder of the run"))?;
        let requests = control::listen(&folder).map_err(host("the control socket"))?;
        let mut supervisor = Supervisor::new(options, (plan, launcher), watch, look, requests, seat)?;
        let end = supervisor.run().await?;
        // The client whose request ended the run still gets its answer, from a task that has it by now.
        tokio::task::yield_now().await;
        Ok(Finished { end, machine: supervisor.gate.machine })
    })
}

/// Raises our own limit of open files as far as the host lets us: a preserved file takes three descriptors here and none in a kernel.
/// Programs keep theirs, for what starts them was forked before.
fn make_room_for_descriptors(privileged: bool) {
    let most = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    let raised = privileged
        && most.is_some()
        && setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).is_ok();
    if !raised {
        let hard = getrlimit(Resource::Nofile).maximum;
        // No less than there was if it is refused.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
}

impl<'a> Supervisor<'a> {
    fn new(
        options: Options,
        (plan, launcher): (Plan, Launcher),
        watch: &'a mut dyn Watch,
        look: Look,
        requests: mpsc::Receiver<Asked>,
        seat: Arc<Seat>,
    ) -> Result<Self, Error> {
        let mut machine = Machine::new(PhysMem::anonymous(options.memory)?);
        let loader = Loader { releases: options.releases.clone(), options: options.boot.clone(), look };
        let report = machine.cold_reset(loader.release(1), &options.boot);
        watch.booted(&report, &options.boot.cmdline);
        let privileged = rustix::process::geteuid().is_root();
        let gate = Gate::new(machine, options.holes, privileged, watch.wants_calls(), loader);
        let gate = gate.map_err(host("descriptors for sessions (is Landlock enabled?)"))?;
        let on = |kind| signal(kind).map_err(host("signals"));
        let (interrupt, terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        let hangup = on(SignalKind::hangup())?;
        Ok(Self {
            gate,
            plan,
            launcher,
            options,
            watch,
            requests,
            interrupt,
            terminate,
            hangup,
            seat,
            interrupted: 0,
        })
    }

    async fn run(&mut self) -> Result<End, Error> {
        let mut number = 1;
        loop {
            if self.gate.machine.kernel().is_none() {
                return Ok(End::Panicked(String::from("the kernel panicked")));
            }
            let over = self.generation(number).await?;
            let more = self.options.generations.is_none_or(|most| number < most);
            let report = match over {
                Over::Kexec(report) => *report,
                Over::Lost => self.cold_boot(),
                Over::Off => return Ok(End::Off),
                Over::Panicked(reason) => return Ok(End::Panicked(reason)),
                Over::NotExecuted(errno) => {
                    let program = self.plan.command(number).first().map(|p| p.to_string_lossy().into_owned());
                    return Ok(End::NotExecuted(program.unwrap_or_default(), errno));
                }
                Over::Refused(reason) => return Ok(End::Refused(reason)),
                Over::Signalled(signal) => return Ok(End::Signalled(signal)),
                Over::Exited(status) => return Ok(End::Exited(status)),
            };
            let cmdline = self.gate.machine.kernel().map(|kernel| kernel.cmdline().to_owned());
            self.watch.booted(&report, &cmdline.unwrap_or_default());
            if let Outcome::Panicked { reason } = &report.outcome {
                return Ok(End::Panicked(reason.clone()));
            }
            if !more {
                return Ok(End::Kexec);
            }
            number += 1;
        }
    }

    /// The boot loader's command line is the first kernel's, whatever was loaded for a kexec since.
    fn cold_boot(&mut self) -> BootReport {
        let release = self.gate.loader.release(self.gate.machine.generation() + 1);
        self.gate.machine.cold_reset(release, &self.options.boot)
    }

    fn kernel(&self) -> &Kernel {
        self.gate.machine.kernel().expect("a generation runs on a kernel")
    }

    /// Runs one generation to its end; nothing of it is left afterwards.
    async fn generation(&mut self, number: u32) -> Result<Over, Error> {
        let mut tree = self.launcher.next(self.options.generations == Some(number))?;
        let device = self.kernel().has_device();
        let Handles { device: node, sysfs, .. } = &mut tree.handles;
        let (node, sysfs) = (node.take().filter(|_| device), sysfs.take());
        self.gate.begin(node, sysfs).map_err(host("the device node"))?;
        let kernel = self.kernel();
        tree.go(&Order { release: kernel.release().name, device, cmdline: kernel.cmdline() })?;
        let over = self.serve(&mut tree, number).await;
        self.seat.know_listener(None);
        tree.kill();
        self.gate.forget_generation();
        over
    }

    async fn serve(&mut self, tree: &mut Tree, number: u32) -> Result<Over, Error> {
        let listener = crate::ready::watch(tree.listener.as_fd()).map_err(host("the listener"))?;
        self.seat.know_listener(tree.listener.as_fd().try_clone_to_owned().ok());
        let reports = crate::ready::watch(tree.reports()).map_err(host("reports"))?;
        let mut ended: Option<i32> = None;
        let mut inhabited = true;
        loop {
            let over = tokio::select! {
                biased;
                ready = listener.readable(), if inhabited => {
                    let mut ready = ready.map_err(host("the listener"))?;
                    let down = self.burst(tree)?;
                    match tree.listener.state() {
                        State::Pending => {}
                        State::Quiet => ready.clear_ready(),
                        State::Orphaned => inhabited = false,
                    }
                    down.map(|down| match down {
                        Down::Kexec(report) => Over::Kexec(report),
                        Down::Restart => Over::Lost,
                        Down::Off => Over::Off,
                        Down::Panicked(reason) => Over::Panicked(reason),
                    })
                }
                ready = reports.readable() => {
                    let mut ready = ready.map_err(host("reports"))?;
                    let over = self.reports(tree, number, &mut ended);
                    ready.clear_ready();
                    over
                }
                Some((request, reply)) = self.requests.recv() => self.answer(request, reply),
                _ = self.interrupt.recv() => self.on_interrupt(),
                _ = self.terminate.recv() => Some(Over::Signalled(libc::SIGTERM)),
                _ = self.hangup.recv() => Some(Over::Signalled(libc::SIGHUP)),
            };
            self.show_deeds();
            if let Some(over) = over {
                return Ok(over);
            }
        }
    }

    /// The first interrupt goes to the program alone, which the terminal told as well; a second one ends the run.
    fn on_interrupt(&mut self) -> Option<Over> {
        self.interrupted += 1;
        (self.interrupted > 1).then_some(Over::Signalled(libc::SIGINT))
    }

    fn burst(&mut self, tree: &Tree) -> Result<Option<Down>, Error> {
        for _ in 0..BURST {
            if tree.listener.state() != State::Pending {
                break;
            }
            let received = tree.listener.receive().map_err(host("a notification"))?;
            let Some(notification) = received else { break };
            let down = self.gate.serve(&tree.listener, &notification).map_err(host("an answer"))?;
            if down.is_some() {
                return Ok(down);
            }
        }
        Ok(None)
    }

    fn reports(&mut self, tree: &Tree, number: u32, ended: &mut Option<i32>) -> Option<Over> {
        while let Some(report) = tree.next_report() {
            match report {
                Report::NotExecuted(errno) => return Some(Over::NotExecuted(errno)),
                Report::Ended(status) => {
                    *ended = Some(status);
                    self.watch.ended(number, status);
                    if !self.options.linger {
                        return Some(self.after_exit(number, status));
                    }
                }
                Report::Empty | Report::Gone => {
                    let status = ended.unwrap_or(0);
                    return Some(self.after_exit(number, status));
                }
            }
        }
        None
    }

    /// The program is done: an operator may make the kexec now.
    fn after_exit(&mut self, number: u32, status: i32) -> Over {
        let more = self.options.generations.is_none_or(|most| number < most);
        if status != 0 || !self.options.kexec_at_exit || !more {
            self.gate.settle_all();
            return Over::Exited(status);
        }
        match self.gate.kexec_by_operator() {
            Ok(report) => Over::Kexec(Box::new(report)),
            Err(refusal) => Over::Refused(refusal.to_string()),
        }
    }

    fn answer(&mut self, request: Request, reply: tokio::sync::oneshot::Sender<Response>) -> Option<Over> {
        let (response, over) = match request {
            Request::Kexec => match self.gate.kexec_by_operator() {
                Ok(report) => (Response::Done, Some(Over::Kexec(Box::new(report)))),
                Err(refusal) => {
                    let errno = refusal.errno.name().to_owned();
                    (Response::Refused { errno, reason: refusal.reason.into_owned() }, None)
                }
            },
            Request::Crash => {
                self.gate.settle_all();
                self.gate.machine.crash();
                (Response::Done, Some(Over::Lost))
            }
            Request::ColdReset => {
                self.gate.settle_all();
                (Response::Done, Some(Over::Lost))
            }
            Request::Status => (self.status(), None),
            Request::Sessions => (self.sessions(), None),
            Request::Log => (self.log(), None),
        };
        // The client may have gone.
        let _ = reply.send(response);
        over
    }

    fn status(&mut self) -> Response {
        self.gate.settle_all();
        let kernel = self.kernel();
        let sessions = kernel.sessions();
        let incoming = sessions.iter().filter(|(incoming, ..)| *incoming).count();
        Response::Status(Status {
            generation: self.gate.machine.generation(),
            release: kernel.release().point.to_owned(),
            supervisor: std::process::id(),
            image_loaded: kernel.image().is_some(),
            outgoing: sessions.len() - incoming,
            incoming,
            cmdline: kernel.cmdline().to_owned(),
        })
    }

    fn sessions(&mut self) -> Response {
        self.gate.settle_all();
        let status = |(incoming, name, tokens): (bool, luosim_luo::SessionName, Vec<u64>)| {
            let name = name.as_bytes().escape_ascii().to_string();
            SessionStatus { name, incoming, tokens }
        };
        Response::Sessions(self.kernel().sessions().into_iter().map(status).collect())
    }

    fn log(&self) -> Response {
        let kernel = self.kernel();
        Response::Log(kernel.log().lines.iter().map(|line| line.text.clone()).collect())
    }

    fn show_deeds(&mut self) {
        for deed in self.gate.take_deeds() {
            self.watch.served(&deed);
        }
    }
}
