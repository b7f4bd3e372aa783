//! Any scenario that the table allows is written as a document that reads back as the same scenario.

use luosim_abi::Errno;
use luosim_abi::profile::Profile;
use luosim_abi::quirk::Quirk;
use luosim_abi::release::ReleaseId;
use luosim_scenario::table::{Kind, OPERATIONS, Param};
use luosim_scenario::{Call, Op, Scenario, Step, Value, parse, print};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// Steps after which labels are gone, or that need a name nobody has: they cannot stand anywhere.
fn anywhere(op: Op) -> bool {
    !op.ends_kernel() && !matches!(op, Op::Exit | Op::Kill | Op::Fork | Op::Munmap)
}

fn bits(table: &'static [(&'static str, u64)]) -> BoxedStrategy<Value> {
    let every = prop::collection::vec(prop::sample::select(table), 0..table.len());
    every
        .prop_map(|chosen| Value::Number(chosen.iter().fold(0, |sum, (_, bit)| sum | i128::from(*bit))))
        .boxed()
}

fn words(words: Vec<&'static str>) -> BoxedStrategy<Value> {
    prop::sample::select(words).prop_map(|word| Value::Text(word.to_owned())).boxed()
}

/// Any text at all, line separators and control characters included.
fn any_text() -> BoxedStrategy<Value> {
    prop::collection::vec(any::<char>(), 0..20)
        .prop_map(|text| Value::Text(text.into_iter().collect()))
        .boxed()
}

fn text(pattern: &'static str) -> BoxedStrategy<Value> {
    pattern.prop_map(Value::Text).boxed()
}

/// A value of the kind.
fn value(kind: Kind) -> BoxedStrategy<Value> {
    match kind {
        Kind::Fd => (-3i128..100).prop_map(Value::Number).boxed(),
        Kind::NewFd | Kind::NewMap => text("[a-z][a-z0-9-]{0,8}"),
        Kind::Map => Just(Value::Text(String::from("m"))).boxed(),
        Kind::Process | Kind::NewProcess | Kind::Text => prop_oneof![text("\\PC{0,30}"), any_text()].boxed(),
        Kind::Hex => prop::collection::vec(any::<u8>(), 0..20).prop_map(Value::Bytes).boxed(),
        Kind::Number(from, to) => (from..=to).prop_map(Value::Number).boxed(),
        Kind::Size => (0i128..=0x7fff_ffff_ffff_ffff).prop_map(Value::Number).boxed(),
        Kind::Bool => (0i128..=1).prop_map(Value::Number).boxed(),
        Kind::Flags(table) => bits(table),
        Kind::Release => words(ReleaseId::names().collect()),
        Kind::Word(known) => words(known.to_vec()),
        Kind::Quirks => words(Quirk::ALL.iter().map(|quirk| quirk.name()).collect()),
    }
}

fn parameter((index, param): (usize, &'static Param)) -> BoxedStrategy<Option<(usize, Value)>> {
    let value = value(param.kind).prop_map(move |value| (index, value));
    if param.required { value.prop_map(Some).boxed() } else { prop::option::of(value).boxed() }
}

fn call(op: Op) -> BoxedStrategy<Call> {
    let parameters: Vec<_> = op.spec().params.iter().enumerate().map(parameter).collect();
    (parameters, prop::option::weighted(0.3, prop::sample::select(Errno::ALL)))
        .prop_map(move |(values, error)| {
            let error = error.filter(|_| op.spec().by_process && !op.spec().name.starts_with("expect-"));
            Call { values: values.into_iter().flatten().collect(), error, ..Call::new(op) }
        })
        .boxed()
}

fn step() -> impl Strategy<Value = Step> {
    let ops: Vec<Op> = OPERATIONS.iter().map(|(op, _)| *op).filter(|op| anywhere(*op)).collect();
    prop::sample::select(ops).prop_flat_map(call).prop_map(|call| {
        if call.op.spec().by_process {
            Step::Process { process: String::from("p"), call }
        } else {
            Step::Machine(call)
        }
    })
}

fn scenario() -> impl Strategy<Value = Scenario> {
    let steps = prop::collection::vec(step(), 0..12);
    let machine = (
        4096u64..=1 << 28,
        prop::sample::select(Profile::ALL),
        prop::option::of(0..=luosim_scenario::step::MOST_PHASE_TICKS),
    );
    ("[a-z][a-z0-9-]{0,12}", "\\PC{0,30}", machine, steps).prop_map(
        |(name, about, (pages, profile, phase_ticks), steps)| {
            // An image, whose session names nobody knows beforehand, and a mapping that steps can name.
            let image = Call::new(Op::BootImage)
                .with("directory", Value::Text(String::from("x")))
                .with("release", Value::Text(String::from("7.3")));
            let map = Call::new(Op::Mmap)
                .with("fd", Value::Number(0))
                .with("len", Value::Number(4096))
                .with("as", Value::Text(String::from("m")));
            let mut all = vec![Step::Machine(image), Step::Process { process: String::from("p"), call: map }];
            all.extend(steps);
            Scenario { name, about, memory: pages * 4096, profile, phase_ticks, steps: all }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_printed_scenario_reads_back_as_itself(scenario in scenario()) {
        let printed = print(&scenario);
        match parse(&printed) {
            Ok(again) => prop_assert_eq!(again, scenario, "{}", printed),
            Err(problems) => prop_assert!(false, "{printed}\n{problems:?}"),
        }
    }
}
