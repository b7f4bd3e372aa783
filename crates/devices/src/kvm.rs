//! Virtual machines (`/dev/kvm`, `KVM_CREATE_VM`) and their handler, `kvm_vm_luo_v1`.
//!
//! A virtual machine crosses as its type alone: memory slots, interrupt controllers and routes are made again by the VMM. So there is
//! nothing here but the type, and whether the machine is dead. Mirrors the later posted series.

use luosim_abi::devices::kvm::{VM_COMPATIBLE, VmSer};
use luosim_abi::profile::Assumption;
use luosim_abi::{Errno, KResult};
use luosim_luo::{Context, FileHandler, FileId, RetrieveStatus};

use crate::{DeviceHost, Devices, Parts, driver, object_of, open_object};

/// The type whose memory can be made private; all others cannot.
pub const TYPE_SW_PROTECTED: u64 = 1;
/// Types that can be made.
const TYPES: u64 = 2;

/// One virtual machine.
#[derive(Debug)]
pub struct Vm {
    /// Its type: 0 is the default one.
    pub kind: u64,
    /// Dead or bugged: nothing can be done with it any more.
    pub dead: bool,
}

impl Vm {
    /// Whether its memory can be made private.
    #[must_use]
    pub fn has_private_memory(&self) -> bool {
        self.kind == TYPE_SW_PROTECTED
    }
}

/// `KVM_CREATE_VM`: a description of a new machine.
///
/// # Errors
/// EINVAL: no such type; ENFILE.
pub fn create(parts: &mut Parts<'_>, kind: u64) -> KResult<FileId> {
    if kind >= TYPES {
        return Err(Errno::EINVAL.because(format!("there is no type {kind} of virtual machines")));
    }
    let vm = parts.devices.vms.add(Vm { kind, dead: false });
    open_object(parts.files, driver::VM, vm).inspect_err(|_| put(parts.devices, vm))
}

/// One reference less on a machine.
pub(crate) fn put(devices: &mut Devices, vm: u32) {
    devices.vms.put(vm);
}

/// The handler of virtual machines.
#[derive(Clone, Copy, Debug)]
pub struct VmHandler;

impl<H: DeviceHost> FileHandler<H> for VmHandler {
    fn compatible(&self) -> &'static str {
        VM_COMPATIBLE
    }

    fn can_preserve(&self, host: &H, file: FileId) -> bool {
        object_of(host.files(), driver::VM, file).is_some()
    }

    fn describe(&self, host: &H, file: FileId) -> String {
        format!("virtual machine {}", object_of(host.files(), driver::VM, file).unwrap_or(u32::MAX))
    }

    fn preserve(&self, cx: &mut Context<'_, H>, file: FileId) -> KResult<u64> {
        let vm = object_of(cx.host.files(), driver::VM, file).expect("can_preserve was asked");
        let mut parts = cx.host.parts();
        let machine = parts.devices.vms.get(vm);
        if machine.dead {
            return Err(Errno::EINVAL.because(format!("virtual machine {vm} is dead")));
        }
        let record = VmSer { kind: machine.kind.into() };
        parts.devices.assume(Assumption::VmRecord);
        parts.memory.preserve_obj(&record)
    }

    fn unpreserve(&self, cx: &mut Context<'_, H>, _: FileId, data: u64) {
        cx.memory().unpreserve_obj(data);
    }

    fn retrieve(&self, cx: &mut Context<'_, H>, data: u64) -> KResult<FileId> {
        let record: VmSer = cx.memory().read_obj(data)?;
        let made = create(&mut cx.host.parts(), record.kind.get());
        cx.memory().discard_obj(data);
        made
    }

    fn finish(&self, cx: &mut Context<'_, H>, status: RetrieveStatus, data: u64) {
        if status == RetrieveStatus::Untried {
            cx.memory().discard_obj(data);
        }
    }
}
