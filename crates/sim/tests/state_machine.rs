//! The reference as a state machine: any sequence of steps that proptest makes of it is answered by the machine as it
//! says. Tokens, names, contents, bound objects, chains of kernels: whatever the steps touch.

use luosim_abi::release::ReleaseId;
use luosim_sim::explore::action::{Action, Plan, Spoil};
use luosim_sim::explore::campaign::Broken;
use luosim_sim::explore::draw::Draw;
use luosim_sim::explore::finding;
use luosim_sim::explore::options::{Chain, Common, DEEDS, Deed, Options, shipped_quirks};
use luosim_sim::explore::reference::{Reference, Want};
use luosim_sim::explore::rng::Rng;
use luosim_sim::explore::world::{Case, Violation, World};
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

/// What a run does most: each theme has its turn.
const THEMES: [&[Deed]; 5] = [
    &[Deed::Preserve, Deed::Retrieve, Deed::Memfd, Deed::Close],
    &[Deed::Create, Deed::Take, Deed::GetName, Deed::Link, Deed::Close],
    &[
        Deed::Write,
        Deed::Truncate,
        Deed::Punch,
        Deed::Allocate,
        Deed::Store,
        Deed::Map,
        Deed::Seek,
        Deed::Look,
    ],
    &[Deed::TestFile, Deed::Preserve, Deed::Finish, Deed::Close, Deed::Stop],
    &[Deed::Kexec, Deed::Take, Deed::Retrieve, Deed::Finish],
];

fn options(seed: u64) -> Options {
    let releases = [ReleaseId::V6_19, ReleaseId::V7_0, ReleaseId::V7_1, ReleaseId::V7_2, ReleaseId::V7_3];
    let release = releases[usize::try_from(seed % 5).expect("small")];
    let common = Common { chain: Chain::Fixed(vec![release]), as_documented: true, ..Common::default() };
    let mut options = Options::draw(seed, &common, &mut Rng::new(seed));
    let theme = THEMES[usize::try_from(seed / 5 % 5).expect("small")];
    for ((deed, usual), weight) in DEEDS.iter().zip(&mut options.weights) {
        if theme.contains(deed) {
            *weight = (*weight).max(*usual) * 4;
        }
    }
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
        // What a lack of memory, or any spoiled word, leads to is nobody's promise.
        !matches!(action, Action::FailAlloc { .. } | Action::Spoil(Spoil::Word { .. }))
            && state.reference.expect(action) != Want::Skip
    }

    fn apply(mut state: State, action: &Action) -> State {
        let told = action.is_told();
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

/// The machine, and the steps that it made.
struct Machine {
    world: World,
    case: Case,
}

impl Machine {
    /// A broken promise ends the test with the shortest scenario that shows it.
    fn fail(mut self, violation: Violation) -> ! {
        let broken = Broken { case: self.case, violation };
        let found = finding::investigate(&mut self.world, 0, &broken, "").expect("room");
        panic!("{}", found.scenario)
    }
}

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
        world.begin(case.clone(), false).expect("room");
        Self { world, case }
    }

    fn apply(mut machine: Self, state: &State, action: Action) -> Self {
        machine.case.actions.push(action.clone());
        if let Err(broken) = machine.world.step(&action) {
            machine.fail(*broken);
        }
        assert_eq!(machine.world.reference().fates, state.reference.fates, "two references, one truth");
        machine
    }

    fn check_invariants(machine: &Self, _: &State) {
        assert_eq!(luosim_sim::explore::invariant::sound(machine.world.machine()), Ok(()));
    }

    fn teardown(mut machine: Self, _: State) {
        if let Err(broken) = machine.world.finish() {
            machine.fail(*broken);
        }
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
