//! The three test objects of kernels built with `CONFIG_LIVEUPDATE_TEST` (7.0 and later).
//!
//! `liveupdate-test-flb-v0`, `-v1` and `-v2` are bound to every handler at its registration. Each carries a
//! number that the next kernel knows beforehand; all they do is say in the log when they are called. Mirrors
//! `lib/tests/liveupdate.c`.

use std::rc::Rc;

use luosim_abi::{Errno, KResult};

use crate::Luo;
use crate::flb::FlbOps;
use crate::host::Host;

const NAMES: [&str; 3] = ["liveupdate-test-flb-v0", "liveupdate-test-flb-v1", "liveupdate-test-flb-v2"];
const DATA: u64 = 0xFEED_F00D_CAFE_BEE0;

struct TestFlb {
    name: &'static str,
    data: u64,
}

impl TestFlb {
    fn say<H: Host>(&self, host: &mut H, what: &str) {
        host.memory().log.info(format!("liveupdate test: {}: {what}", self.name));
    }

    /// Whether the handle is the one that was given out.
    fn check<H: Host>(&self, host: &mut H, data: u64) -> bool {
        if data != self.data {
            let text = format!("liveupdate test: {}: ERROR - incorrect data handle: {data:x}", self.name);
            host.memory().log.err(text);
        }
        data == self.data
    }
}

impl<H: Host> FlbOps<H> for TestFlb {
    fn compatible(&self) -> &'static str {
        self.name
    }

    fn data_only(&self) -> bool {
        true
    }

    fn preserve(&self, host: &mut H) -> KResult<u64> {
        self.say(host, "preserve was triggered");
        Ok(self.data)
    }

    fn unpreserve(&self, host: &mut H, data: u64) {
        self.check(host, data);
        self.say(host, "unpreserve was triggered");
    }

    fn retrieve(&self, host: &mut H, data: u64) -> KResult<()> {
        if !self.check(host, data) {
            return Err(Errno::EINVAL.because(format!("{data:#x} is not the handle of '{}'", self.name)));
        }
        self.say(host, "found flb data from the previous boot");
        Ok(())
    }

    fn finish(&self, host: &mut H, data: u64) {
        self.check(host, data);
        self.say(host, "finish was triggered");
    }
}

/// The three objects; one set for a kernel, so that every handler shares them.
pub struct TestFlbs<H: Host>(Vec<Rc<dyn FlbOps<H>>>);

impl<H: Host> std::fmt::Debug for TestFlbs<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|flb| flb.compatible())).finish()
    }
}

impl<H: Host + 'static> TestFlbs<H> {
    /// The objects of a kernel.
    #[must_use]
    pub fn new() -> Self {
        let flb = |(name, index)| Rc::new(TestFlb { name, data: DATA + index }) as Rc<dyn FlbOps<H>>;
        Self(NAMES.into_iter().zip(0..).map(flb).collect())
    }
}

impl<H: Host + 'static> Default for TestFlbs<H> {
    fn default() -> Self {
        Self::new()
    }
}

impl<H: Host> TestFlbs<H> {
    /// Binds all three to a handler; with the first handler, looks for what the previous kernel left.
    ///
    /// # Errors
    /// EOPNOTSUPP before 7.0; EINVAL: no such handler.
    ///
    /// # Panics
    /// If the orchestrator lets an object be bound to one handler twice.
    pub fn bind(&self, luo: &mut Luo<H>, host: &mut H, handler: &str) -> KResult<()> {
        let first = luo.flb_count() == 0;
        for flb in &self.0 {
            luo.register_flb(handler, flb.clone())?;
        }
        if first {
            for name in NAMES {
                match luo.get_incoming_flb(host, name) {
                    Ok(_) => luo.put_incoming_flb(host, name)?,
                    Err(refusal) if [Errno::ENODATA, Errno::ENOENT].contains(&refusal.errno) => {}
                    Err(refusal) => {
                        let text = format!("liveupdate test: {name}: {}", refusal.reason);
                        host.memory().log.err(text);
                    }
                }
            }
        }
        let again = luo.register_flb(handler, self.0[0].clone()).map_err(|refusal| refusal.errno);
        assert_eq!(again, Err(Errno::EEXIST), "an FLB was bound to '{handler}' twice");
        let count = self.0.len();
        let text = format!("liveupdate test: Registered {count} FLBs with file handler: [{handler}]");
        host.memory().log.info(text);
        Ok(())
    }
}
