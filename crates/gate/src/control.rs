//! The control socket: a second terminal looks at a run, or makes its machine jump.
//!
//! A run has a folder of its own (mode 0700) below `$XDG_RUNTIME_DIR/luosim` or `/tmp/luosim-UID`, named by the
//! supervisor's process number, with `control.sock` in it. One request a connection, one line of JSON each way. Only
//! the same user is answered. A client that goes away, or says nothing, costs nothing. Folders that a dead run left
//! are removed by the next.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

const SOCKET: &str = "control.sock";
/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest request.
const LONGEST: u64 = 4096;

/// What can be asked of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Jump to the next kernel.
    Kexec,
    /// What runs.
    Status,
    /// The sessions and their tokens.
    Sessions,
    /// Panic: everything is lost.
    Crash,
    /// Power off and on: everything is lost.
    ColdReset,
    /// The kernel log.
    Log,
}

/// What a run answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// It is done.
    Done,
    /// It was refused.
    Refused {
        /// Name of the error.
        errno: String,
        /// Why.
        reason: String,
    },
    /// What runs.
    Status(Status),
    /// The sessions.
    Sessions(Vec<SessionStatus>),
    /// Lines of the kernel log.
    Log(Vec<String>),
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Number of the kernel, from 1.
    pub generation: u32,
    /// Its release.
    pub release: String,
    /// Process number of the supervisor.
    pub supervisor: u32,
    /// Whether an image is loaded.
    pub image_loaded: bool,
    /// Outgoing sessions.
    pub outgoing: usize,
    /// Incoming sessions.
    pub incoming: usize,
    /// The command line.
    pub cmdline: String,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Its name.
    pub name: String,
    /// Whether the previous kernel made it.
    pub incoming: bool,
    /// Tokens of its files.
    pub tokens: Vec<u64>,
}

/// A request and where its answer goes.
pub(crate) type Asked = (Request, oneshot::Sender<Response>);

/// The folder of a run; removed at the end.
#[derive(Debug)]
pub(crate) struct RunFolder(PathBuf);

impl Drop for RunFolder {
    fn drop(&mut self) {
        // Another process may have cleaned up before us.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where runs of this user have their folders.
#[must_use]
pub fn base_folder() -> PathBuf {
    let uid = rustix::process::geteuid().as_raw();
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_dir()) {
        Some(runtime) => runtime.join("luosim"),
        None => std::env::temp_dir().join(format!("luosim-{uid}")),
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other,
    }
    let meta = fs::symlink_metadata(path)?;
    let ours = meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw() && meta.mode() & 0o77 == 0;
    if ours {
        return Ok(());
    }
    let why =
        format!("{} is not a private folder of ours: remove it, or set XDG_RUNTIME_DIR", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

/// Runs of this user whose supervisor answers, newest last. Folders of dead ones are removed.
///
/// # Errors
/// The folder of runs cannot be read.
pub fn runs() -> io::Result<Vec<(u32, PathBuf)>> {
    let base = base_folder();
    let entries = match fs::read_dir(&base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if UnixStream::connect(entry.path().join(SOCKET)).is_ok() {
            let started = entry.metadata().and_then(|meta| meta.modified()).ok();
            found.push((started, pid, entry.path()));
        } else if !Path::new(&format!("/proc/{pid}")).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, pid, path)| (pid, path)).collect())
}

/// Makes the folder of this run.
pub(crate) fn make_folder() -> io::Result<RunFolder> {
    let base = base_folder();
    private_folder(&base)?;
    runs()?;
    let own = base.join(std::process::id().to_string());
    // Left by a dead run with our number.
    let _ = fs::remove_dir_all(&own);
    private_folder(&own)?;
    Ok(RunFolder(own))
}

/// Starts to listen; requests arrive at the receiver.
pub(crate) fn listen(folder: &RunFolder) -> io::Result<mpsc::Receiver<Asked>> {
    let listener = UnixListener::bind(folder.0.join(SOCKET))?;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, sender.clone()));
        }
    });
    Ok(receiver)
}

async fn answer(stream: tokio::net::UnixStream, sender: mpsc::Sender<Asked>) {
    let same_user = stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw());
    if !same_user {
        return;
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = tokio::io::BufReader::new(tokio::io::AsyncReadExt::take(reader, LONGEST));
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    if !matches!(read, Ok(Ok(count)) if count > 0) {
        return;
    }
    let response = match serde_json::from_str(&line) {
        Ok(request) => {
            let (reply, answered) = oneshot::channel();
            if sender.send((request, reply)).await.is_err() {
                return;
            }
            answered.await.ok()
        }
        Err(error) => Some(Response::Refused { errno: String::from("EINVAL"), reason: error.to_string() }),
    };
    let Some(text) = response.and_then(|response| serde_json::to_string(&response).ok()) else { return };
    // A client that has gone does not want to know.
    let _ = tokio::time::timeout(PATIENCE, writer.write_all(format!("{text}\n").as_bytes())).await;
}

/// Asks a run.
///
/// # Errors
/// Nobody listens, or the connection broke.
pub fn ask(folder: &Path, request: Request) -> io::Result<Response> {
    let mut stream = UnixStream::connect(folder.join(SOCKET))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let text = serde_json::to_string(&request).map_err(io::Error::other)?;
    stream.write_all(format!("{text}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the run ended before it answered"));
    }
    serde_json::from_str(&line).map_err(io::Error::other)
}
