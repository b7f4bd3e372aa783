//! The files of the second and third design: one subsystem, its tables and the tree that it hands over.
//!
//! Outgoing files belong to the open that registered them (second design), or all to one table (third). Files are visited
//! open by open, tokens ascending. Incoming files are one table, read from the tree when first asked for: whatever is wrong
//! with it panics.

use std::collections::BTreeMap;

use luosim_abi::posted::tree::{FILES, FILES_COMPATIBLE, PROP_DATA, files_room, node_name, token_of};
use luosim_abi::posted::{Event, State};
use luosim_abi::quirk::{Quirk, Quirks};
use luosim_abi::{Errno, KResult};
use luosim_kho::fdt::{Node, Tree};
use luosim_luo::{Event as Seen, FileId, FinishCause, Host, Memory, SessionName};
use luosim_physmem::{FrameUse, PhysAddr};

use crate::OpenId;
use crate::page::check;
use crate::record::{Handlers, Record, handler_for, handler_named};
use crate::states::StateMachine;
use crate::trouble::{Answer, Trouble};

/// Most bytes of a tree of files that are believed: the largest block there is.
const MAX_TREE: u64 = 4 << 20;

/// The tree that is handed over.
#[derive(Debug)]
struct FilesTree {
    addr: PhysAddr,
    nodes: BTreeMap<u64, (&'static str, u64)>,
}

impl FilesTree {
    fn write(&self, mem: &mut Memory<'_>) {
        let add = |root: Node, (token, (compatible, data)): (&u64, &(&str, u64))| {
            root.with_child(&node_name(*token), Node::new(compatible).with_u64(PROP_DATA, *data))
        };
        let root = self.nodes.iter().fold(Node::new(FILES_COMPATIBLE), add);
        let blob = Tree::named(FILES, root).to_blob_unchecked();
        mem.ram.mem.write(self.addr, &blob).expect("the block has room for a node of each file");
    }
}

/// The files that one open of the device registered.
#[derive(Debug, Default)]
struct Table {
    open: OpenId,
    records: BTreeMap<u64, Record>,
}

/// All files.
#[derive(Debug)]
pub(crate) struct Files {
    machine: &'static StateMachine,
    quirks: Quirks,
    outgoing: Vec<Table>,
    incoming: Option<BTreeMap<u64, Record>>,
    /// The previous kernel's tree.
    found: PhysAddr,
    tree: Option<FilesTree>,
}

/// Under what name the ledger lists these files: there are no sessions.
pub(crate) fn ledger_name() -> SessionName {
    SessionName::from_bytes(FILES.as_bytes())
}

impl Files {
    pub(crate) fn new(machine: &'static StateMachine, quirks: Quirks) -> Self {
        Self { machine, quirks, outgoing: Vec::new(), incoming: None, found: PhysAddr::NULL, tree: None }
    }

    /// Every outgoing file, as table and token, in the order in which they are visited.
    fn visited(&self) -> Vec<(usize, u64)> {
        let of = |(at, table): (usize, &Table)| {
            let tokens: Vec<(usize, u64)> = table.records.keys().map(|token| (at, *token)).collect();
            tokens
        };
        self.outgoing.iter().enumerate().flat_map(of).collect()
    }

    fn at(&mut self, (table, token): (usize, u64)) -> &mut Record {
        self.outgoing[table].records.get_mut(&token).expect("it was just listed")
    }

    fn table_of(&self, token: u64) -> Option<usize> {
        self.outgoing.iter().position(|table| table.records.contains_key(&token))
    }

    /// Registers a file under a token. The caller has looked at the state of the machine.
    ///
    /// # Errors
    /// ENOENT: no handler; EEXIST.
    pub(crate) fn register<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        open: OpenId,
        file: FileId,
        token: u64,
    ) -> KResult<()> {
        let handler = handler_for(handlers, host, file)?;
        if self.table_of(token).is_some() {
            return Err(Errno::EEXIST.because(format!("token {token:#x} is registered already")));
        }
        let record = Record::outgoing(handler, file);
        let at = self.outgoing.iter().position(|table| table.open == open).unwrap_or_else(|| {
            self.outgoing.push(Table { open, records: BTreeMap::new() });
            self.outgoing.len() - 1
        });
        self.outgoing[at].records.insert(token, record);
        host.file_get(file);
        host.emit(Seen::Preserved { session: ledger_name(), token });
        Ok(())
    }

    /// Forgets a token of this open. A file that is prepared or frozen is cancelled first, and taken out of the tree.
    ///
    /// # Errors
    /// ENOENT.
    pub(crate) fn unregister<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        open: OpenId,
        token: u64,
    ) -> KResult<()> {
        let table = self.outgoing.iter_mut().find(|table| table.open == open);
        let record = table.and_then(|table| table.records.remove(&token));
        let mut record = record
            .ok_or_else(|| Errno::ENOENT.because(format!("token {token:#x} is not registered here")))?;
        if record.state != State::Normal {
            record.moved(self.machine, handlers, host, token, Event::Cancel)?;
            self.forget_node(host, token);
        }
        host.file_put(record.file.expect("outgoing files are held"));
        host.emit(Seen::Unpreserved { session: ledger_name(), token });
        Ok(())
    }

    fn forget_node<H: Host>(&mut self, host: &mut H, token: u64) {
        if let Some(tree) = &mut self.tree {
            tree.nodes.remove(&token);
            tree.write(&mut host.memory());
        }
    }

    /// Unregisters everything of an open that is closed.
    pub(crate) fn close<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, open: OpenId) {
        let tokens: Vec<u64> = self.tokens(open);
        for token in tokens {
            self.unregister(handlers, host, open, token).expect("it was just listed, and cancel cannot fail");
        }
        self.outgoing.retain(|table| table.open != open);
    }

    fn tokens(&self, open: OpenId) -> Vec<u64> {
        let table = self.outgoing.iter().find(|table| table.open == open);
        table.map(|table| table.records.keys().copied().collect()).unwrap_or_default()
    }

    /// The second design: an open that is closed while all is prepared is forgotten, its files are not: nobody can
    /// reach them, their nodes stay in the tree, and they are held for ever.
    pub(crate) fn leak(&mut self, open: OpenId) {
        self.outgoing.retain(|table| table.open != open);
    }

    /// Moves one file at a program's word.
    ///
    /// # Errors
    /// ENOENT; the handler's.
    pub(crate) fn move_one<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        token: u64,
        event: Event,
    ) -> KResult<()> {
        let machine = self.machine;
        let unknown = || {
            Errno::ENOENT.because(format!("token {token:#x} is in no table that {} looks in", event.name()))
        };
        if event == Event::Finish {
            let record =
                self.incoming.as_mut().and_then(|table| table.get_mut(&token)).ok_or_else(unknown)?;
            return record.moved(machine, handlers, host, token, event);
        }
        let table = self.table_of(token).ok_or_else(unknown)?;
        let result = self.at((table, token)).moved(machine, handlers, host, token, event);
        let data = self.at((table, token)).data;
        if let Some(tree) = &mut self.tree
            && let Some(node) = tree.nodes.get_mut(&token)
            && node.1 != data
        {
            node.1 = data;
            tree.write(&mut host.memory());
        }
        result
    }

    /// The state of a file.
    ///
    /// # Errors
    /// ENOENT.
    pub(crate) fn state(&self, token: u64, incoming: bool) -> KResult<State> {
        let record = if incoming {
            self.incoming.as_ref().and_then(|table| table.get(&token))
        } else {
            self.table_of(token).map(|table| &self.outgoing[table].records[&token])
        };
        let whose = if incoming { "the previous kernel's, as far as they were read" } else { "registered" };
        let none = || Errno::ENOENT.because(format!("token {token:#x} is none of those {whose}"));
        record.map(|record| record.state).ok_or_else(none)
    }

    /// Prepares every file and writes the tree; returns where it lies.
    ///
    /// # Errors
    /// The handler's; ENOMEM, E2BIG. The files before the one at fault are cancelled.
    pub(crate) fn prepare<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) -> KResult<u64> {
        let visited = self.visited();
        let room = files_room(u64::try_from(visited.len()).expect("a count fits in 64 bits"));
        let mem = host.memory();
        let addr = mem.kho.alloc_preserve(mem.ram, room, FrameUse::Luo)?;
        let mut tree = FilesTree { addr, nodes: BTreeMap::new() };
        for (index, at) in visited.iter().enumerate() {
            let machine = self.machine;
            if let Err(refusal) = self.at(*at).moved(machine, handlers, host, at.1, Event::Prepare) {
                self.cancel_those(handlers, host, &visited[..index]);
                free(host, addr);
                return Err(refusal);
            }
            let record = self.at(*at);
            tree.nodes.insert(at.1, (handlers[record.handler].compatible(), record.data));
        }
        tree.write(&mut host.memory());
        self.tree = Some(tree);
        Ok(addr.raw())
    }

    fn cancel_those<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, those: &[(usize, u64)]) {
        let machine = self.machine;
        for at in those {
            self.at(*at).moved(machine, handlers, host, at.1, Event::Cancel).expect("cancel cannot fail");
        }
    }

    /// Freezes every file and writes what changed.
    ///
    /// # Errors
    /// The handler's. The files before the one at fault are cancelled and the tree is freed.
    pub(crate) fn freeze<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        data: u64,
    ) -> KResult<u64> {
        let visited = self.visited();
        for (index, at) in visited.iter().enumerate() {
            let machine = self.machine;
            if let Err(refusal) = self.at(*at).moved(machine, handlers, host, at.1, Event::Freeze) {
                self.cancel_those(handlers, host, &visited[..index]);
                self.free_tree(host);
                return Err(refusal);
            }
            let data = self.at(*at).data;
            if let Some(node) = self.tree.as_mut().and_then(|tree| tree.nodes.get_mut(&at.1)) {
                node.1 = data;
            }
        }
        if let Some(tree) = &self.tree {
            tree.write(&mut host.memory());
        }
        Ok(data)
    }

    /// Cancels every file that can still be reached, and frees the tree.
    pub(crate) fn cancel<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H) {
        let visited = self.visited();
        self.cancel_those(handlers, host, &visited);
        self.free_tree(host);
    }

    fn free_tree<H: Host>(&mut self, host: &mut H) {
        if let Some(tree) = self.tree.take() {
            free(host, tree.addr);
        }
    }

    /// The tokens in the tree that is handed over.
    pub(crate) fn carried(&self) -> Vec<u64> {
        self.tree.as_ref().map(|tree| tree.nodes.keys().copied().collect()).unwrap_or_default()
    }

    /// Every table that has files: whether the previous kernel left it, and its tokens.
    pub(crate) fn listed(&self) -> Vec<(bool, SessionName, Vec<u64>)> {
        let incoming = self.incoming.iter().map(|records| (true, records));
        let all = self.outgoing.iter().map(|table| (false, &table.records)).chain(incoming);
        let files = all.filter(|(_, records)| !records.is_empty());
        files.map(|(came, records)| (came, ledger_name(), records.keys().copied().collect())).collect()
    }

    /// Finishes every incoming file.
    pub(crate) fn finish<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, data: u64) -> Answer<()> {
        self.read(handlers, host, data)?;
        let machine = self.machine;
        for (token, mut record) in self.incoming.replace(BTreeMap::new()).unwrap_or_default() {
            record.moved(machine, handlers, host, token, Event::Finish)?;
            let (session, retrieved) = (ledger_name(), record.file.is_some());
            host.emit(Seen::Finished { session, token, retrieved, cause: FinishCause::Command });
            if let Some(file) = record.file {
                host.file_put(file);
            }
        }
        let mem = host.memory();
        mem.kho.restore_free(mem.ram, self.found);
        Ok(())
    }

    /// Gives a file back.
    pub(crate) fn restore<H: Host>(
        &mut self,
        handlers: &Handlers<H>,
        host: &mut H,
        token: u64,
    ) -> KResult<FileId> {
        let record = self.incoming.as_mut().and_then(|table| table.get_mut(&token));
        let record = record.ok_or_else(|| {
            Errno::ENOENT.because(format!("the previous kernel left no file under token {token:#x}"))
        })?;
        let taken = Errno::EINVAL.because(format!("the file of token {token:#x} was given back before"));
        let was = record.reclaimed;
        let result = record.restore(handlers, host, self.quirks, taken);
        let session = ledger_name();
        match &result {
            Ok(_) => host.emit(Seen::Retrieved { session, token }),
            Err(refusal) if !was => {
                host.emit(Seen::RetrieveFailed { session, token, errno: refusal.errno });
            }
            Err(_) => {}
        }
        result
    }

    /// Whether the previous kernel's files were read.
    pub(crate) fn is_read(&self) -> bool {
        self.incoming.is_some()
    }

    /// Reads the tree at `data`, if that was not done before.
    pub(crate) fn read<H: Host>(&mut self, handlers: &Handlers<H>, host: &mut H, data: u64) -> Answer<()> {
        if self.is_read() {
            return Ok(());
        }
        self.found = PhysAddr::new(data);
        let tree = read_tree(&host.memory(), data)?;
        let mut table = BTreeMap::new();
        for (name, node) in tree.root().children() {
            let (token, record) = parse(handlers, name, node)?;
            if table.insert(token, record).is_some() {
                return Err(Trouble::restore(format!("token {token:#x} is there twice")));
            }
            host.emit(Seen::Found { session: ledger_name(), token });
        }
        self.incoming = Some(table);
        Ok(())
    }

    /// Whether closing in `state` unregisters; if not, the files stay.
    pub(crate) fn close_drops(&self, state: State) -> bool {
        matches!(state, State::Normal | State::Updated) || self.quirks.has(Quirk::CloseDropsAll)
    }
}

fn free<H: Host>(host: &mut H, addr: PhysAddr) {
    let mem = host.memory();
    mem.kho.unpreserve_free(mem.ram, addr);
}

/// The tree of files at `data`, its version checked.
pub(crate) fn read_tree(mem: &Memory<'_>, data: u64) -> Answer<Tree> {
    let tree = Tree::read_named(&mem.ram.mem, PhysAddr::new(data), MAX_TREE);
    let tree = tree.map_err(|error| Trouble::restore(format!("the tree of files at {data:#x}: {error}")))?;
    check(tree.root(), FILES_COMPATIBLE).map_err(|refusal| Trouble::restore(refusal.reason))?;
    Ok(tree)
}

fn parse<H: Host>(handlers: &Handlers<H>, name: &str, node: &Node) -> Answer<(u64, Record)> {
    let shown = name.escape_debug();
    let token = token_of(name).ok_or_else(|| Trouble::restore(format!("'{shown}' is no token")))?;
    let compatible =
        node.compatible().ok_or_else(|| Trouble::restore(format!("file {shown} has no handler string")))?;
    let data =
        node.u64(PROP_DATA).ok_or_else(|| Trouble::restore(format!("file {shown} has no 8-byte data")))?;
    let handler = handler_named(handlers, compatible.as_bytes()).ok_or_else(|| {
        Trouble::restore(format!("no handler '{}' for file {shown}", compatible.escape_debug()))
    })?;
    Ok((token, Record::found(handler, data)))
}
