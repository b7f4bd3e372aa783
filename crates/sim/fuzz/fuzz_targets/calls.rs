//! Any sequence of calls, faults and kexecs keeps every promise, on kernels without quirks.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use luosim_sim::explore::fuzz;
use luosim_sim::explore::world::World;

thread_local! {
    static WORLD: RefCell<World> = RefCell::new(World::new(32 << 20).expect("the host has room"));
}

fuzz_target!(|data: &[u8]| WORLD.with_borrow_mut(|world| {
    if let Err(found) = fuzz::run(world, data) {
        panic!("{}\n{}", found.detail, found.scenario);
    }
}));
