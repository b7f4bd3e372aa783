//! The example of a file type from outside, run end to end, and what a kernel does with such types otherwise.

#[path = "../examples/counter.rs"]
mod counter;

use luosim_abi::release::ReleaseId;
use luosim_abi::{Errno, KResult};
use luosim_machine::module::{Driver, Registration};
use luosim_machine::{BootOptions, Core, Machine};
use luosim_physmem::PhysMem;
use std::cell::RefCell;
use std::rc::Rc;

#[test]
fn the_counter_counts_on_in_the_next_kernel() {
    assert_eq!(counter::run().expect("nothing refuses"), ["1 of 1", "1 of 2", "2 of 3"]);
    counter::main().expect("it prints the same");
}

/// The book shows the example by its parts, and says how long it is.
#[test]
fn the_example_is_short() {
    assert!(include_str!("../examples/counter.rs").lines().count() < 150);
}

/// A node that notes what is done with it.
struct Noting(RefCell<Vec<String>>);

impl Driver for Noting {
    fn path(&self) -> &str {
        "/dev/noting"
    }

    fn open(&self, _: &mut Core) -> KResult<u32> {
        self.0.borrow_mut().push(String::from("open"));
        Ok(7)
    }

    fn release(&self, _: &mut Core, object: u32) {
        self.0.borrow_mut().push(format!("release {object}"));
    }

    fn ioctl(&self, _: &mut Core, object: u32, code: u32, arg: u64) -> KResult<()> {
        self.0.borrow_mut().push(format!("ioctl {object} {code:#x} {arg}"));
        Ok(())
    }
}

fn machine(init: impl Fn(&mut Registration<'_>) -> KResult<()> + 'static) -> Machine {
    let mut machine = Machine::new(PhysMem::anonymous(64 << 20).expect("the host has room"));
    machine.add_module("test", init);
    machine.cold_reset(ReleaseId::V7_3, &BootOptions::default());
    machine
}

#[test]
fn a_driver_hears_of_the_first_open_its_commands_and_the_last_close() {
    let noting = Rc::new(Noting(RefCell::default()));
    let given = noting.clone();
    let mut machine = machine(move |kernel| kernel.driver(given.clone()).map(|_| ()));
    let pid = machine.spawn("p").expect("running");
    let fd = machine.open(pid, "/dev/noting", 2, 0).expect("a node");
    let other = machine.dup(pid, fd).expect("open");
    machine.ioctl(pid, fd, 0x1234, 5).expect("taken");
    machine.close(pid, fd).expect("open");
    assert_eq!(*noting.0.borrow(), ["open", "ioctl 7 0x1234 5"], "a second descriptor is left");
    let refused = [machine.read(pid, other, &mut [0; 4]), machine.write(pid, other, b"x")];
    assert_eq!(refused.map(|answer| answer.expect_err("not done").errno), [Errno::EINVAL; 2]);
    let reopened = machine.reopen(pid, other, 2).expect_err("its open is the node's");
    assert_eq!(reopened.errno, Errno::ENXIO);
    machine.exit(pid).expect("running");
    assert_eq!(noting.0.borrow().last().map(String::as_str), Some("release 7"));
}

#[test]
fn a_file_without_a_handler_is_not_preserved() {
    let mut machine = machine(|kernel| kernel.driver(Rc::new(Noting(RefCell::default()))).map(|_| ()));
    let pid = machine.spawn("p").expect("running");
    let fd = machine.open(pid, "/dev/noting", 2, 0).expect("a node");
    let device = machine.open(pid, "/dev/liveupdate", 2, 0).expect("LUO is on");
    let session = machine.create_session(pid, device, b"s").expect("new");
    assert_eq!(machine.preserve_fd(pid, session, fd, 1).expect_err("nobody takes it").errno, Errno::ENOENT);
}

#[test]
fn a_module_that_fails_is_in_the_log_and_the_kernel_boots() {
    let machine = machine(|_| Err(Errno::ENODEV.because("there is no such hardware")));
    let log = machine.kernel().expect("it boots").log();
    assert!(log.contains("test: ENODEV: there is no such hardware"), "{:?}", log.lines);
}
