//! Processes: fork, exec, exit, kill.

use luosim_abi::{Errno, KResult};

use crate::process::Pid;
use crate::{Kernel, Machine};

impl Machine {
    /// `fork(2)`: the child shares every open file description and mapping.
    ///
    /// # Errors
    /// ESRCH.
    pub fn fork(&mut self, pid: Pid, name: &str) -> KResult<Pid> {
        let child = Pid(self.next_pid);
        self.call(pid, |kernel| {
            let (process, core) = kernel.parts(pid)?;
            let mut copy = process.clone();
            copy.name = name.to_owned();
            for (_, descriptor) in copy.fds.iter() {
                core.files.table.get_ref(descriptor.file);
            }
            for mapping in copy.mappings.values() {
                core.files.inodes.get_ref(mapping.inode);
                if mapping.counted {
                    let again = core.files.inodes.get_mut(mapping.inode).map_shared(false, true);
                    again.expect("a mapping that is not written cannot be refused");
                }
            }
            kernel.processes.insert(child, copy);
            Ok(())
        })?;
        self.next_pid += 1;
        Ok(child)
    }

    /// `execve(2)`: descriptors with close-on-exec are closed, mappings are gone.
    ///
    /// # Errors
    /// ESRCH.
    pub fn exec(&mut self, pid: Pid, name: &str) -> KResult<()> {
        self.call(pid, |kernel| {
            kernel.drop_memory(pid)?;
            let (process, core) = kernel.parts(pid)?;
            name.clone_into(&mut process.name);
            for descriptor in process.fds.drain(true) {
                core.files.put(&mut core.ram, descriptor.file, &mut core.released);
            }
            Ok(())
        })
    }

    /// The process ends, by itself or by a signal: its descriptors are closed in ascending order.
    ///
    /// # Errors
    /// ESRCH.
    pub fn exit(&mut self, pid: Pid) -> KResult<()> {
        self.call(pid, |kernel| {
            kernel.drop_memory(pid)?;
            let (process, core) = kernel.parts(pid)?;
            for descriptor in process.fds.drain(false) {
                core.files.put(&mut core.ram, descriptor.file, &mut core.released);
            }
            Ok(())
        })?;
        self.running()?.processes.remove(&pid);
        Ok(())
    }

    /// `setuid(2)`.
    ///
    /// # Errors
    /// EPERM unless root, or the uid it has.
    pub fn set_uid(&mut self, pid: Pid, uid: u32) -> KResult<()> {
        self.call(pid, |kernel| {
            let process = kernel.parts(pid)?.0;
            if process.uid != 0 && process.uid != uid {
                return Err(Errno::EPERM.because(format!("uid {} may not become uid {uid}", process.uid)));
            }
            process.uid = uid;
            Ok(())
        })
    }
}

impl Kernel {
    /// Drops a process's memory and file mappings.
    fn drop_memory(&mut self, pid: Pid) -> KResult<()> {
        let (process, core) = self.parts(pid)?;
        process.memory = crate::address_space::AddressSpace::default();
        process.argument = 0;
        for mapping in std::mem::take(&mut process.mappings).into_values() {
            if mapping.counted {
                core.files.inodes.get_mut(mapping.inode).unmap_shared();
            }
            core.files.inodes.put(&mut core.ram, mapping.inode);
        }
        Ok(())
    }
}
