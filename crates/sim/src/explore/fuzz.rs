//! Steps from the bytes of a fuzzer: two bytes a step, so that a small change of an input is another step.

use super::action::Action;
use super::draw::Draw;
use super::options::{Common, Options};
use super::rng::Rng;
use super::world::{Case, Violation, World};

/// Runs the steps that `data` says on kernels without quirks: the first byte says which kernels.
///
/// # Errors
/// The promise that was broken.
pub fn run(world: &mut World, data: &[u8]) -> Result<(), Box<Violation>> {
    let [which, steps @ ..] = data else { return Ok(()) };
    let common = Common { as_documented: true, ..Common::default() };
    let options = Options::draw(u64::from(*which), &common, &mut Rng::new(u64::from(*which)));
    let case = Case {
        memory: 32 << 20,
        first: options.plan(0),
        quirks_on: Vec::new(),
        quirks_off: options.quirks_off.clone(),
        max_procs: options.procs,
        actions: Vec::new(),
    };
    world.begin(case, false).expect("the host has room");
    let mut kexecs = 0;
    for word in steps.as_chunks::<2>().0.iter().take(400) {
        let mut rng = Rng::new(u64::from(u16::from_le_bytes(*word)));
        let action: Action =
            Draw { options: &options, rng: &mut rng, world: world.reference(), kexecs }.step();
        let before = world.tally().kexecs;
        world.step(&action)?;
        kexecs += usize::from(world.tally().kexecs > before);
    }
    world.finish()
}
