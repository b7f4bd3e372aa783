//! Steps from the bytes of a fuzzer: two bytes a step, so that a small change of an input is another step. What breaks a
//! promise is shrunk and written as a scenario, like any finding.

use super::action::Action;
use super::campaign::{Broken, guarded};
use super::draw::Draw;
use super::finding::{self, Finding};
use super::options::{Common, Options};
use super::rng::Rng;
use super::world::{Case, Violation, World};

/// Steps that are read from an input.
const MOST: usize = 400;

/// Runs the steps that `data` says on kernels without quirks: the first byte says which kernels.
///
/// # Errors
/// What was broken, with the shortest scenario that shows it.
pub fn run(world: &mut World, data: &[u8]) -> Result<(), Box<Finding>> {
    let [which, steps @ ..] = data else { return Ok(()) };
    let common = Common { as_documented: true, ..Common::default() };
    let options = Options::draw(u64::from(*which), &common, &mut Rng::new(u64::from(*which)));
    let case = Case { memory: 32 << 20, ..options.case() };
    world.begin(case.clone(), false).expect("the host has room");
    let mut actions = Vec::new();
    let violation = guarded(|| follow(world, &options, steps, &mut actions).err().map(|broken| *broken));
    let Some(violation) = violation else { return Ok(()) };
    let broken = Broken { case: Case { actions, ..case }, violation };
    let found = finding::investigate(world, u64::from(*which), &broken, &common.command_line());
    Err(Box::new(found.expect("the host has room")))
}

fn follow(
    world: &mut World,
    options: &Options,
    steps: &[u8],
    actions: &mut Vec<Action>,
) -> Result<(), Box<Violation>> {
    let mut kexecs = 0;
    for word in steps.as_chunks::<2>().0.iter().take(MOST) {
        let mut rng = Rng::new(u64::from(u16::from_le_bytes(*word)));
        let action = Draw { options, rng: &mut rng, world: world.reference(), kexecs }.step();
        actions.push(action.clone());
        let before = world.tally().kexecs;
        world.step(&action)?;
        kexecs += usize::from(world.tally().kexecs > before);
    }
    world.finish()
}
