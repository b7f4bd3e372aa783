//! The reference as a state machine: any sequence of steps that proptest makes of it is answered by the machine as it
//! says. Tokens, names, contents, bound objects, chains of kernels: whatever the steps touch.

use luosim_abi::release::ReleaseId;
use luosim_sim::explore::action::{Action, Plan};
use luosim_sim::explore::draw::Draw;
use luosim_sim::explore::options::{Chain, Common, Options, shipped_quirks};
use luosim_sim::explore::reference::{Reference, Want};
use luosim_sim::explore::rng::Rng;
use luosim_sim::explore::world::{Case, World};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// A state and the options that steps are drawn with.
#[derive(Clone, Debug)]
struct State {
    options: Options,
    reference: Reference,
}

struct Model;

fn options(seed: u64) -> Options {
    let releases = [ReleaseId::V6_19, ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];
    let release = releases[usize::try_from(seed % 5).expect("small")];
    let common = Common { chain: Chain::Fixed(vec![release]), as_documented: true, ..Common::default() };
    let mut options = Options::draw(seed, &common, &mut Rng::new(seed));
    // A lack of memory has more than one right answer.
    options.chain = vec![Plan { test_files: true, flbs: true, ..Plan::new(release) }];
    options
}

impl ReferenceStateMachine for Model {
    type State = State;
    type Transition = Action;

    fn init_state() -> BoxedStrategy<State> {
        let start = |seed| {
            let options = options(seed);
            let reference = Reference::new(options.plan(0), options.procs);
            State { options, reference }
        };
        any::<u64>().prop_map(start).boxed()
    }

    fn transitions(state: &State) -> BoxedStrategy<Action> {
        let state = state.clone();
        let draw = move |seed| {
            let mut rng = Rng::new(seed);
            Draw { options: &state.options, rng: &mut rng, world: &state.reference, kexecs: 0 }.step()
        };
        any::<u64>().prop_map(draw).boxed()
    }

    fn preconditions(state: &State, action: &Action) -> bool {
        !matches!(action, Action::FailAlloc { .. }) && state.reference.expect(action) != Want::Skip
    }

    fn apply(mut state: State, action: &Action) -> State {
        let told = matches!(action, Action::Stop { .. } | Action::CloseInReboot { .. } | Action::Spoil(_));
        if matches!(action, Action::Kexec { .. }) && !state.reference.spoils() {
            state.reference.spoil = None;
        }
        match state.reference.expect(action) {
            _ if told => state.reference.happened(action, Ok(0)),
            Want::Value(value) => state.reference.happened(action, Ok(value)),
            Want::Fails(errno) => state.reference.happened(action, Err(errno)),
            Want::Skip => {}
        }
        state.reference.calls.clear();
        state
    }
}

struct Machine(World);

impl StateMachineTest for Machine {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(state: &State) -> Self {
        let case = Case {
            memory: 32 << 20,
            first: state.options.plan(0),
            quirks_on: Vec::new(),
            quirks_off: shipped_quirks(),
            max_procs: state.options.procs,
            actions: Vec::new(),
        };
        let mut world = World::new(case.memory).expect("room");
        world.begin(case, false).expect("room");
        Self(world)
    }

    fn apply(mut world: Self, state: &State, action: Action) -> Self {
        world.0.step(&action).unwrap_or_else(|broken| panic!("{broken:?}"));
        assert_eq!(world.0.reference().fates, state.reference.fates, "two references, one truth");
        world
    }

    fn check_invariants(world: &Self, _: &State) {
        assert_eq!(luosim_sim::explore::invariant::sound(world.0.machine()), Ok(()));
    }

    fn teardown(mut world: Self, _: State) {
        world.0.finish().unwrap_or_else(|broken| panic!("{broken:?}"));
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_machine_is_as_the_reference(sequential 1..80 => Machine);
}
