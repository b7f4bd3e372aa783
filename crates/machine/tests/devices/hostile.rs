//! A VMM that asks for anything: addresses, lengths, objects and registers from nowhere. Each call is answered, nothing panics,
//! and devices write memory of the VMM's file and nothing else.

use luosim_abi::profile::Profile;
use luosim_hardware::simdma::layout::reg;
use luosim_machine::Machine;
use luosim_physmem::{FrameState, FrameUse, Pfn};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::vmm::{BELOW, IOVA, RAM, Vmm, kexec, machine, preserve_all, session};

#[derive(Clone, Debug)]
enum Deed {
    Map { ioas: u32, offset: u64, iova: u64, len: u64 },
    Unmap { ioas: u32, iova: u64, len: u64 },
    Table { ioas: u32 },
    Destroy { hwpt: u32 },
    Mark { hwpt: u32, token: u64 },
    Attach { object: u32 },
    Detach,
    Master(bool),
    Power(u32),
    Register { offset: u16, width: u8, value: u64 },
    Tick(u64),
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0u64..2 * RAM / 4096).prop_map(|page| IOVA + 4096 * page),
        1 => (0u32..64).prop_map(|bit| 1 << bit),
        1 => (0u64..3).prop_map(|less| u64::MAX - 4095 * less),
        1 => any::<u64>(),
    ]
}

fn length() -> impl Strategy<Value = u64> {
    prop_oneof![4 => (0u64..300).prop_map(|pages| 4096 * pages), 1 => any::<u64>()]
}

fn deed() -> impl Strategy<Value = Deed> {
    let object = || prop_oneof![6 => 0u32..8, 1 => any::<u32>()];
    let register = prop_oneof![
        4 => prop::sample::select(vec![reg::CTRL, reg::HEAD, reg::RING_LEN, reg::RING_IOVA, reg::CQ_IOVA]),
        1 => any::<u16>(),
    ];
    prop_oneof![
        3 => (object(), address(), address(), length())
            .prop_map(|(ioas, offset, iova, len)| Deed::Map { ioas, offset: offset.wrapping_sub(IOVA), iova, len }),
        2 => (object(), address(), length()).prop_map(|(ioas, iova, len)| Deed::Unmap { ioas, iova, len }),
        1 => object().prop_map(|ioas| Deed::Table { ioas }),
        1 => object().prop_map(|hwpt| Deed::Destroy { hwpt }),
        1 => (object(), any::<u64>()).prop_map(|(hwpt, token)| Deed::Mark { hwpt, token }),
        1 => object().prop_map(|object| Deed::Attach { object }),
        1 => Just(Deed::Detach),
        1 => any::<bool>().prop_map(Deed::Master),
        1 => (0u32..5).prop_map(Deed::Power),
        3 => (register, prop::sample::select(vec![4u8, 8, 3]), address())
            .prop_map(|(offset, width, value)| Deed::Register { offset, width, value }),
        4 => (1u64..300).prop_map(Deed::Tick),
    ]
}

fn apply(machine: &mut Machine, vmm: &Vmm, deed: &Deed) {
    let Vmm { pid, iommufd, device, .. } = *vmm;
    // Whatever is refused is refused with an errno; here is asked for no more.
    let _ = match *deed {
        Deed::Map { ioas, offset, iova, len } => {
            machine.ioas_map(pid, (iommufd, ioas), Some((vmm.ram, offset)), (iova, len))
        }
        Deed::Unmap { ioas, iova, len } => machine.ioas_unmap(pid, iommufd, ioas, (iova, len)),
        Deed::Table { ioas } => machine.hwpt_alloc(pid, iommufd, ioas).map(|_| ()),
        Deed::Destroy { hwpt } => machine.hwpt_destroy(pid, iommufd, hwpt),
        Deed::Mark { hwpt, token } => machine.hwpt_mark(pid, iommufd, hwpt, token),
        Deed::Attach { object } => machine.vfio_attach(pid, device, object).map(|_| ()),
        Deed::Detach => machine.vfio_detach(pid, device),
        Deed::Master(on) => machine.vfio_master(pid, device, on),
        Deed::Power(state) => machine.vfio_power(pid, device, state),
        Deed::Register { offset, width, value } => {
            machine.vfio_write(pid, device, (offset, width), value).map(|_| ())
        }
        Deed::Tick(ticks) => {
            machine.tick(ticks);
            Ok(())
        }
    };
}

/// What a frame is used for, if it is used.
fn used(machine: &Machine, frame: Pfn) -> Option<FrameUse> {
    let frames = &machine.kernel().expect("running").core().ram().frames;
    let head = (0..=20)
        .map(|order| Pfn::new(frame.raw() >> order << order))
        .find(|head| !matches!(frames.state(*head), FrameState::Tail))?;
    matches!(frames.state(head), FrameState::AllocatedHead(_)).then(|| frames.use_of(head))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_hostile_vmm_reaches_its_own_memory_alone(
        before in prop::collection::vec(deed(), 0..30),
        after in prop::collection::vec(deed(), 0..15),
    ) {
        let mut machine = machine(Profile::Target);
        let vmm = Vmm::start(&mut machine, BELOW);
        vmm.loop_dma(&mut machine);
        machine.hardware_and_memory().0.expect("plugged in").watch_writes(true);
        before.iter().for_each(|deed| apply(&mut machine, &vmm, deed));
        let writes = machine.hardware_and_memory().0.expect("plugged in").take_writes();
        for (frame, rid) in writes {
            prop_assert_eq!(used(&machine, frame), Some(FrameUse::PageCache), "{} wrote {}", rid, frame);
        }
        // What it did so far may have made preserving impossible; if it did not, the update is made with what it does on top.
        let own = session(&mut machine, vmm.pid, b"vm");
        let preserved =
            [(1, vmm.ram), (2, vmm.iommufd), (3, vmm.device)].into_iter().all(|(token, fd)| machine.preserve_fd(vmm.pid, own, fd, token).is_ok());
        after.iter().for_each(|deed| apply(&mut machine, &vmm, deed));
        let left = kexec(&mut machine, vmm.pid, Profile::Target).is_ok();
        // A device in which anything was written may do anything but break out.
        let broken = machine.take_violations();
        let astray = broken.iter().find(|one| {
            use luosim_hardware::verify::Invariant::{D1, D2, D3, D7, D12, D16};
            [D1, D2, D3, D7, D12, D16].contains(&one.invariant)
        });
        prop_assert!(!(preserved && left) || astray.is_none(), "{:?}", astray);
    }
}

/// The workload of the property is one that goes well when nothing hostile is done.
#[test]
fn without_hostility_the_update_is_made() {
    let mut machine = machine(Profile::Target);
    let vmm = Vmm::start(&mut machine, BELOW);
    vmm.loop_dma(&mut machine);
    machine.hardware_and_memory().0.expect("plugged in").watch_writes(true);
    machine.tick(300);
    let writes = machine.hardware_and_memory().0.expect("plugged in").take_writes();
    assert!(
        writes.len() > 2 && writes.keys().all(|frame| used(&machine, *frame) == Some(FrameUse::PageCache))
    );
    let own = session(&mut machine, vmm.pid, b"vm");
    preserve_all(&mut machine, &vmm, own);
    kexec(&mut machine, vmm.pid, Profile::Target).expect("nothing refuses");
    assert!(machine.take_violations().is_empty());
}
