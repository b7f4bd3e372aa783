//! Interfaces that evolve, drawn at random, and what programs and kernels of both ages make of each other.
//!
//! An [`Evolution`] is an interface, one [`Step`], and the interface after it. Some steps are allowed by the rules, the
//! others are what the rules forbid. [`meet`] lets a program of one age call a kernel of the other, through the copying of
//! arguments that the simulated kernels use ([`luosim_abi::extensible`]), and looks at every byte: what the kernel took
//! for which member, what it wrote, what it left alone.
//!
//! The promise: after a step that is allowed no pair misreads, loses or leaks a byte, and what is refused is refused with
//! an errno that the rules name. A step that is not allowed is a break to [`crate::diff`], which knows nothing of steps.
//!
//! Pure: what is drawn comes from [`Draw`], which tests and benchmarks bring.

use luosim_abi::extensible::{UserMemory, check_min, copy_in, copy_out, size_word};
use luosim_abi::{Errno, KResult};

use crate::interface::{Argument, Command, Dispatch, Fd, Field, Interface, Role};

/// Where choices come from.
pub trait Draw {
    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: u64) -> u64;

    /// One of so many times.
    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// Choices from bytes, as a property test shrinks them: behind the last byte every choice is the first.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Draw for Bytes<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first) % bound
    }
}

/// Choices from a seed (SplitMix64).
#[derive(Clone, Copy, Debug)]
pub struct Seed(pub u64);

impl Draw for Seed {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % bound
    }
}

luosim_abi::named! {
    /// One change of an interface.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum Step {
        Nothing = "nothing", "allowed: nothing changes";
        Append = "append", "allowed: members at the end";
        UseReserved = "use-reserved", "allowed: a member where zero was demanded";
        LowerMin = "lower-min", "allowed: a smaller least size";
        AddCommand = "add-command", "allowed: a command with a new number";
        NamePadding = "name-padding", "allowed: padding gets a name that nobody looks at";
        Swap = "swap", "forbidden: two members change places";
        Resize = "resize", "forbidden: a member becomes larger";
        Remove = "remove", "forbidden: a member goes, what is behind it moves up";
        Insert = "insert", "forbidden: a member in the middle";
        RaiseMin = "raise-min", "forbidden: a larger least size";
        UsePadding = "use-padding", "forbidden: a member where padding was";
        UseUnchecked = "use-unchecked", "forbidden: a member where nobody looked";
        Turn = "turn", "forbidden: a member that was given is given back, or the other way";
        Renumber = "renumber", "forbidden: a command has another number";
        RemoveCommand = "remove-command", "forbidden: a command goes";
        ReuseNumber = "reuse-number", "forbidden: the number of a command that went means another";
    }
}

impl Step {
    /// Whether the rules allow it.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        self.describe().starts_with("allowed")
    }
}

/// An interface before and after a step.
#[derive(Clone, Debug)]
pub struct Evolution {
    /// What was done.
    pub step: Step,
    /// Before.
    pub old: Interface,
    /// After.
    pub new: Interface,
}

const KIND: u32 = 0xBA00;
const SIZES: [u64; 5] = [1, 2, 4, 8, 16];

fn aligned(offset: u64, size: u64) -> u64 {
    offset.next_multiple_of(size.min(8))
}

fn member(name: String, offset: u64, size: u64, role: Role) -> Field {
    let of = String::new();
    Field { name, of, offset, size, role }
}

fn draw_size(draw: &mut impl Draw) -> u64 {
    SIZES[usize::try_from(draw.below(5)).unwrap_or(0)]
}

fn draw_role(draw: &mut impl Draw) -> Role {
    match draw.below(6) {
        0 | 1 => Role::In,
        2 => Role::Out,
        3 => Role::InOut,
        4 => Role::Reserved,
        _ => Role::Unchecked,
    }
}

fn end_of(fields: &[Field]) -> u64 {
    fields.last().map_or(0, Field::end)
}

/// Lays members out one after the other, as a compiler does; gives the size of the structure.
fn lay_out(fields: &mut [Field], from: usize) -> u64 {
    let mut offset = end_of(&fields[..from]);
    for field in &mut fields[from..] {
        field.offset = aligned(offset, field.size);
        offset = field.end();
    }
    let align = fields.iter().map(|field| field.size.min(8)).max().unwrap_or(4);
    offset.next_multiple_of(align)
}

fn draw_argument(draw: &mut impl Draw) -> Argument {
    let mut fields = vec![member(String::from("size"), 0, 4, Role::Size)];
    for index in 0..draw.below(6) {
        let (size, role) = (draw_size(draw), draw_role(draw));
        fields.push(member(format!("m{index}"), 0, size, role));
    }
    let size = lay_out(&mut fields, 1);
    // A kernel can do without members behind the last that is given, but for its own size.
    let given = fields.iter().rev().find(|field| field.role.is_given()).map_or(4, Field::end);
    let min_size = Some(if draw.one_in(2) { given } else { size });
    Argument { name: String::from("struct s"), size, min_size, fields }
}

fn command(index: u64, argument: Argument) -> Command {
    let number = KIND | u32::try_from(index).unwrap_or(0);
    Command {
        name: format!("C{index}"),
        number,
        fd: Fd::Device,
        argument: Some(argument),
        refusals: Vec::new(),
    }
}

fn interface(name: &str, commands: Vec<Command>) -> Interface {
    Interface {
        name: name.to_owned(),
        about: String::new(),
        dispatch: Dispatch::WholeNumber,
        commands,
        values: Vec::new(),
        unknown: Vec::new(),
    }
}

/// Draws an interface and a step. A step that this interface has no room for becomes [`Step::Append`].
#[must_use]
pub fn draw(draw: &mut impl Draw) -> Evolution {
    let count = 1 + draw.below(2);
    let commands: Vec<Command> = (0..count).map(|index| command(index, draw_argument(draw))).collect();
    let old = interface("old", commands);
    let wanted = Step::ALL[usize::try_from(draw.below(Step::ALL.len() as u64)).unwrap_or(0)];
    let mut new = interface("new", old.commands.clone());
    let step = if apply(&mut new, wanted, draw) {
        wanted
    } else {
        new.commands.clone_from(&old.commands);
        apply(&mut new, Step::Append, draw);
        Step::Append
    };
    Evolution { step, old, new }
}

/// Does the step; `false` if there is no room for it.
fn apply(interface: &mut Interface, step: Step, draw: &mut impl Draw) -> bool {
    let count = u64::try_from(interface.commands.len()).unwrap_or(1);
    let at = usize::try_from(draw.below(count)).unwrap_or(0);
    match step {
        Step::Nothing => true,
        Step::AddCommand => {
            interface.commands.push(command(count, draw_argument(draw)));
            true
        }
        Step::Renumber => {
            interface.commands[at].number = KIND | 0x20;
            true
        }
        Step::RemoveCommand => {
            interface.commands.remove(at);
            true
        }
        Step::ReuseNumber => {
            interface.commands[at].name = String::from("other");
            true
        }
        _ => interface.commands[at].argument.as_mut().is_some_and(|argument| change(argument, step, draw)),
    }
}

/// One of the members for which `good` holds.
fn choose(argument: &Argument, draw: &mut impl Draw, good: impl Fn(&Field) -> bool) -> Option<usize> {
    let found: Vec<usize> =
        (1..argument.fields.len()).filter(|index| good(&argument.fields[*index])).collect();
    let bound = u64::try_from(found.len()).ok().filter(|bound| *bound > 0)?;
    found.get(usize::try_from(draw.below(bound)).ok()?).copied()
}

fn is_known(field: &Field) -> bool {
    !field.role.is_room()
}

fn change(argument: &mut Argument, step: Step, draw: &mut impl Draw) -> bool {
    match step {
        Step::Append => append(argument, draw),
        Step::UseReserved => used(argument, draw, Role::Reserved),
        Step::UseUnchecked => used(argument, draw, Role::Unchecked),
        Step::LowerMin => min(argument, |min, _| if min > 4 { Some(4) } else { None }),
        Step::RaiseMin => {
            min(argument, |min, size| if min < size { Some(size) } else { None }) || grown_min(argument)
        }
        Step::NamePadding => padding(argument, "room", Role::Unchecked),
        Step::UsePadding => padding(argument, "used", Role::In),
        Step::Swap => swap(argument),
        Step::Resize => match choose(argument, draw, |field| is_known(field) && field.size < 16) {
            Some(index) => {
                argument.fields[index].size *= 2;
                relaid(argument, index)
            }
            None => false,
        },
        Step::Remove => match choose(argument, draw, is_known) {
            Some(index) => {
                argument.fields.remove(index);
                relaid(argument, index)
            }
            None => false,
        },
        Step::Insert => match choose(argument, draw, is_known) {
            Some(index) => {
                argument.fields.insert(index, member(String::from("between"), 0, 8, Role::In));
                relaid(argument, index)
            }
            None => false,
        },
        Step::Turn => match choose(argument, draw, |field| matches!(field.role, Role::In | Role::Out)) {
            Some(index) => {
                let field = &mut argument.fields[index];
                field.role = if field.role == Role::In { Role::Out } else { Role::In };
                true
            }
            None => false,
        },
        _ => false,
    }
}

/// Lays the members from `index` on out again; the least size stays, unless the structure became smaller.
fn relaid(argument: &mut Argument, index: usize) -> bool {
    argument.size = lay_out(&mut argument.fields, index);
    argument.min_size = argument.min_size.map(|min| min.min(argument.size));
    true
}

fn append(argument: &mut Argument, draw: &mut impl Draw) -> bool {
    let mut offset = argument.size;
    for index in 0..=draw.below(2) {
        let (size, role) = (draw_size(draw), draw_role(draw));
        let offset_now = aligned(offset, size);
        argument.fields.push(member(format!("n{index}"), offset_now, size, role));
        offset = offset_now + size;
    }
    argument.size = offset.next_multiple_of(8);
    true
}

/// A member takes a part of room of this role, or all of it.
fn used(argument: &mut Argument, draw: &mut impl Draw, role: Role) -> bool {
    let Some(index) = choose(argument, draw, |field| field.role == role) else { return false };
    let room = argument.fields[index].clone();
    let part = if room.size > 1 && draw.one_in(2) { room.size / 2 } else { room.size };
    let taken = if draw.one_in(2) { Role::In } else { Role::InOut };
    argument.fields[index] = member(String::from("taken"), room.offset, part, taken);
    if part < room.size {
        let rest = member(room.name, room.offset + part, room.size - part, role);
        argument.fields.insert(index + 1, rest);
    }
    true
}

fn min(argument: &mut Argument, of: impl Fn(u64, u64) -> Option<u64>) -> bool {
    let Some(now) = argument.min_size.and_then(|min| of(min, argument.size)) else { return false };
    argument.min_size = Some(now);
    true
}

/// A member is appended, and must be given.
fn grown_min(argument: &mut Argument) -> bool {
    let offset = argument.size.next_multiple_of(8);
    argument.fields.push(member(String::from("must"), offset, 8, Role::In));
    argument.size = offset + 8;
    argument.min_size = Some(argument.size);
    true
}

/// The first bytes without a name get one.
fn padding(argument: &mut Argument, name: &str, role: Role) -> bool {
    let ends = argument.fields.iter().skip(1).map(|field| field.offset).chain([argument.size]);
    let holes = argument.fields.iter().map(Field::end).zip(ends);
    let hole = holes.enumerate().find(|(_, (end, next))| end < next);
    let Some((index, (offset, next))) = hole else { return false };
    // The largest member that fits there.
    let fits = |size: &&u64| offset % **size == 0 && offset + **size <= next;
    let size = [8, 4, 2, 1].iter().find(fits).copied().unwrap_or(1);
    argument.fields.insert(index + 1, member(name.to_owned(), offset, size, role));
    true
}

/// Two members of one size that mean something change places.
fn swap(argument: &mut Argument) -> bool {
    let known = |index: &usize| is_known(&argument.fields[*index]);
    let all: Vec<usize> = (1..argument.fields.len()).filter(known).collect();
    let pairs = all.iter().enumerate().flat_map(|(at, a)| all[at + 1..].iter().map(move |b| (*a, *b)));
    let same = |(a, b): &(usize, usize)| argument.fields[*a].size == argument.fields[*b].size;
    let Some((a, b)) = pairs.into_iter().find(same) else { return false };
    let offset = argument.fields[a].offset;
    argument.fields[a].offset = argument.fields[b].offset;
    argument.fields[b].offset = offset;
    argument.fields.swap(a, b);
    true
}

/// Bytes before and behind an argument, which nobody may touch.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0xA5;
/// Where the argument lies.
const ADDRESS: u64 = 0x1000;

/// The memory of a program: an argument between guards.
struct Memory(Vec<u8>);

impl Memory {
    fn range(&self, addr: u64, len: usize) -> KResult<std::ops::Range<usize>> {
        let start = (addr + GUARD as u64).checked_sub(ADDRESS).and_then(|start| usize::try_from(start).ok());
        let range =
            start.map(|start| start..start.saturating_add(len)).filter(|range| range.end <= self.0.len());
        range.ok_or_else(|| Errno::EFAULT.because("not mapped"))
    }
}

impl UserMemory for Memory {
    fn read(&self, addr: u64, buf: &mut [u8]) -> KResult<()> {
        buf.copy_from_slice(&self.0[self.range(addr, buf.len())?]);
        Ok(())
    }

    fn write(&mut self, addr: u64, bytes: &[u8]) -> KResult<()> {
        let range = self.range(addr, bytes.len())?;
        self.0[range].copy_from_slice(bytes);
        Ok(())
    }
}

fn bytes_of(field: &Field) -> std::ops::Range<usize> {
    let at = |place: u64| usize::try_from(place).unwrap_or(usize::MAX);
    at(field.offset)..at(field.end())
}

/// A value of a member, of up to 16 bytes.
fn value(bytes: &[u8]) -> u128 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// What the kernel gives back in a member: a pattern of its name, so that a value in a wrong place shows.
fn given_back(name: &str) -> u128 {
    let seed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    u128::from(seed) << 64 | u128::from(!seed)
}

/// A kernel's side of a call: which command ran, and what it took for each member that it was given.
struct Served<'a> {
    command: &'a Command,
    taken: Vec<(&'a Field, u128)>,
}

fn serve<'a>(kernel: &'a Interface, number: u32, memory: &mut Memory) -> KResult<Served<'a>> {
    let command = kernel.runs(Fd::Device, number).next();
    let command = command.ok_or_else(|| Errno::ENOTTY.because("no such command"))?;
    let argument = command.argument.as_ref().expect("commands that are drawn pass a structure");
    let size = size_word(memory, ADDRESS)?;
    check_min("C", usize::try_from(argument.least()).unwrap_or(usize::MAX), size)?;
    let mut known = vec![0; usize::try_from(argument.size).unwrap_or(0)];
    copy_in(memory, "C", size, ADDRESS, &mut known)?;
    let mut taken = Vec::new();
    for field in &argument.fields {
        let found = value(&known[bytes_of(field)]);
        match field.role {
            Role::Reserved if found != 0 => return Err(Errno::EOPNOTSUPP.because("reserved")),
            Role::In | Role::InOut => taken.push((field, found)),
            _ => {}
        }
    }
    for field in argument.fields.iter().filter(|field| matches!(field.role, Role::Out | Role::InOut)) {
        let reply = given_back(&field.name).to_le_bytes();
        known[bytes_of(field)].iter_mut().zip(reply).for_each(|(to, from)| *to = from);
    }
    copy_out(memory, size, ADDRESS, &known)?;
    Ok(Served { command, taken })
}

/// What a program and a kernel made of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// The call was served, and every byte means the same to both.
    Agreed,
    /// It was refused as the rules say.
    Refused(Errno),
}

/// A call of a program: what it put in its structure.
struct Call<'a> {
    command: &'a Command,
    argument: &'a Argument,
    bytes: Vec<u8>,
}

/// Fills a structure as programs do: members that are given have values, room is zero, bytes without a name and members
/// that nobody looks at have anything in them. Members that the kernel may not know are used one time of two.
fn call<'a>(command: &'a Command, draw: &mut impl Draw, knows: impl Fn(&str) -> bool) -> Call<'a> {
    let argument = command.argument.as_ref().expect("commands that are drawn pass a structure");
    let mut bytes = vec![0; usize::try_from(argument.size).unwrap_or(0)];
    let garbage = draw.below(256);
    bytes.fill(u8::try_from(garbage).unwrap_or(0));
    let uses_new = draw.one_in(2);
    for field in &argument.fields {
        let used = matches!(field.role, Role::In | Role::InOut) && (uses_new || knows(&field.name));
        let filler = match field.role {
            Role::Unchecked => continue,
            _ if used => u8::try_from(1 + draw.below(255)).unwrap_or(1),
            _ => 0,
        };
        bytes[bytes_of(field)].fill(filler);
    }
    let size = u32::try_from(argument.size).unwrap_or(u32::MAX);
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    Call { command, argument, bytes }
}

/// Lets a program call a command of a kernel. `is_older`: the program is no newer than the kernel, which so must know
/// its command.
///
/// # Errors
/// In words, what one of them misread, lost or leaked.
pub fn meet(
    program: &Interface,
    kernel: &Interface,
    is_older: bool,
    draw: &mut impl Draw,
) -> Result<Met, String> {
    let Some(command) = choose_command(program, draw) else { return Ok(Met::Agreed) };
    let same = kernel.command(&command.name);
    let knows = |name: &str| {
        let argument = same.and_then(|same| same.argument.as_ref());
        argument.is_some_and(|argument| argument.fields.iter().any(|field| field.name == name))
    };
    let call = call(command, draw, knows);
    let mut memory = Memory([&[GUARD_BYTE; GUARD][..], &call.bytes, &[GUARD_BYTE; GUARD]].concat());
    let served = serve(kernel, command.number, &mut memory);
    let after = &memory.0[GUARD..memory.0.len() - GUARD];
    let guards = memory.0[..GUARD].iter().chain(&memory.0[memory.0.len() - GUARD..]);
    if guards.into_iter().any(|byte| *byte != GUARD_BYTE) {
        return Err(String::from("the kernel wrote outside of the structure"));
    }
    match served {
        Ok(served) => agreed(&call, &served, after).map(|()| Met::Agreed),
        Err(refusal) => {
            if after != call.bytes {
                return Err(format!("refused with {}, and written to", refusal.errno));
            }
            refused(&call, same, refusal.errno, is_older).map(|()| Met::Refused(refusal.errno))
        }
    }
}

fn choose_command<'a>(program: &'a Interface, draw: &mut impl Draw) -> Option<&'a Command> {
    let bound = u64::try_from(program.commands.len()).ok().filter(|bound| *bound > 0)?;
    program.commands.get(usize::try_from(draw.below(bound)).ok()?)
}

/// Whether a call that was served means the same on both sides.
fn agreed(call: &Call<'_>, served: &Served<'_>, after: &[u8]) -> Result<(), String> {
    if served.command.name != call.command.name {
        return Err(format!("{} ran instead of {}", served.command.name, call.command.name));
    }
    let kernel = served.command.argument.as_ref().expect("commands that are drawn pass a structure");
    for (field, taken) in &served.taken {
        let own = call.argument.fields.iter().find(|own| own.name == field.name && own.role.is_given());
        let meant = own.map_or(0, |own| value(&call.bytes[bytes_of(own)]));
        if meant != *taken {
            return Err(format!("{} was taken for {taken:#x}, and {meant:#x} was meant", field.name));
        }
    }
    for own in call.argument.fields.iter().filter(|own| own.role.is_given()) {
        let heard = served.taken.iter().any(|(field, _)| field.name == own.name);
        if !heard && value(&call.bytes[bytes_of(own)]) != 0 {
            return Err(format!("{} was given and not heard", own.name));
        }
    }
    written(call, kernel, after)
}

/// Whether the reply is in the members that both know, and nothing else was written.
fn written(call: &Call<'_>, kernel: &Argument, after: &[u8]) -> Result<(), String> {
    let mut expected = call.bytes.clone();
    for own in call.argument.fields.iter().filter(|own| matches!(own.role, Role::Out | Role::InOut)) {
        let known = kernel
            .fields
            .iter()
            .any(|field| field.name == own.name && matches!(field.role, Role::Out | Role::InOut));
        if known {
            let reply = given_back(&own.name).to_le_bytes();
            expected[bytes_of(own)].iter_mut().zip(reply).for_each(|(to, from)| *to = from);
        }
    }
    // What an older program does not know, but left room for, it does not read: the kernel may write there only what
    // lies in members of its own.
    for field in kernel.fields.iter().filter(|field| matches!(field.role, Role::Out | Role::InOut)) {
        let own = call.argument.fields.iter().find(|own| own.name == field.name);
        let room = |own: &Field| own.role.is_room() && own.offset <= field.offset && field.end() <= own.end();
        if own.is_none() && call.argument.fields.iter().any(room) {
            expected[bytes_of(field)].copy_from_slice(&after[bytes_of(field)]);
        }
    }
    let differs = expected.iter().zip(after).position(|(want, is)| want != is);
    match differs {
        Some(at) => Err(format!("byte {at} of the reply is {:#x}, not {:#x}", after[at], expected[at])),
        None => Ok(()),
    }
}

/// Whether a refusal is one that the rules name.
fn refused(call: &Call<'_>, same: Option<&Command>, errno: Errno, is_older: bool) -> Result<(), String> {
    let lost = || Err(format!("a program that worked is refused with {errno}"));
    let Some(kernel) = same.and_then(|same| same.argument.as_ref()) else {
        return if is_older || errno != Errno::ENOTTY { lost() } else { Ok(()) };
    };
    let given = |field: &&Field| value(&call.bytes[bytes_of(field)]) != 0;
    let mut unknown = call.argument.fields.iter().filter(|own| own.role.is_given()).filter(given);
    let reason = match errno {
        Errno::E2BIG => call.argument.size > kernel.size && beyond_is_used(call, kernel),
        Errno::EOPNOTSUPP => unknown.any(|own| {
            kernel
                .over(own.offset, own.end())
                .any(|field| field.role == Role::Reserved && field.name != own.name)
        }),
        _ => false,
    };
    if reason && !is_older { Ok(()) } else { lost() }
}

/// Whether the program has anything in the bytes that the kernel does not know: members, or what lies between them.
fn beyond_is_used(call: &Call<'_>, kernel: &Argument) -> bool {
    let known = usize::try_from(kernel.size).unwrap_or(usize::MAX);
    call.bytes.get(known..).is_some_and(|tail| tail.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_is_drawn() {
        let mut seed = Seed(1);
        let steps: BTreeSet<Step> = (0..2000).map(|_| draw(&mut seed).step).collect();
        assert_eq!(steps.len(), Step::ALL.len(), "{steps:?}");
    }

    #[test]
    fn structures_are_those_of_a_compiler() {
        let mut seed = Seed(7);
        for _ in 0..500 {
            let evolution = draw(&mut seed);
            for argument in evolution
                .old
                .commands
                .iter()
                .chain(&evolution.new.commands)
                .filter_map(|c| c.argument.as_ref())
            {
                let ends = argument.fields.windows(2).all(|pair| pair[0].end() <= pair[1].offset);
                assert!(
                    ends && end_of(&argument.fields) <= argument.size,
                    "{:?}: {argument:?}",
                    evolution.step
                );
                assert!(argument.least() <= argument.size, "{:?}", evolution.step);
            }
        }
    }
}
