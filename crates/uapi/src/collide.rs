//! Numbers that mean one command in one interface and another in another: a program built for the first runs a command
//! that it never meant, and nothing refuses it.

use serde::Serialize;

use crate::interface::{Argument, Command, Fd, Interface};

/// A number with two meanings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Collision {
    /// The number as passed to `ioctl(2)`.
    pub number: u32,
    /// The kind of descriptor.
    pub fd: Fd,
    /// The interface that the program was made for.
    pub program: String,
    /// What the program means.
    pub means: String,
    /// The interface of the kernel.
    pub kernel: String,
    /// What the kernel runs.
    pub runs: String,
    /// Why the kernel may refuse it all the same, or that it does not.
    pub then: String,
    /// The argument as the program would fill it: everything zero but the size, a descriptor and a name.
    #[serde(skip)]
    pub argument: Vec<u8>,
    /// The least size that the kernel's command takes, where it can tell.
    #[serde(skip)]
    pub wants: Option<u64>,
}

impl Collision {
    /// Whether the kernel refuses the program's argument by its size alone.
    #[must_use]
    pub fn is_too_short(&self) -> bool {
        let told =
            self.argument.get(..4).map(|size| u32::from_le_bytes([size[0], size[1], size[2], size[3]]));
        matches!((told, self.wants), (Some(told), Some(wants)) if u64::from(told) < wants)
    }

    /// Whether the kernel is given bytes that it does not know and that are not zero.
    #[must_use]
    pub fn has_tail(&self, known: u64) -> bool {
        let known = usize::try_from(known).unwrap_or(usize::MAX);
        self.argument.get(known..).is_some_and(|tail| tail.iter().any(|byte| *byte != 0))
    }
}

/// The name that programs give in the arguments made here.
pub const NAME: &str = "collision";

/// The argument as a program fills it: its size, a descriptor of 0, a name, and 1 for every other number that it gives.
#[must_use]
pub fn fill(argument: &Argument) -> Vec<u8> {
    let length = usize::try_from(argument.size).unwrap_or(0);
    let mut bytes = vec![0; length];
    for field in &argument.fields {
        let (Ok(start), Ok(end)) = (usize::try_from(field.offset), usize::try_from(field.end())) else {
            continue;
        };
        let Some(room) = bytes.get_mut(start..end) else { continue };
        let text = field.of.contains('[');
        match field.role {
            crate::interface::Role::Size => {
                let size = u32::try_from(argument.size).unwrap_or(u32::MAX).to_le_bytes();
                room.iter_mut().zip(size).for_each(|(to, from)| *to = from);
            }
            role if role.is_given() && text => {
                room.iter_mut().zip(NAME.bytes()).for_each(|(to, from)| *to = from);
            }
            role if role.is_given() && !field.name.ends_with("fd") => {
                room.iter_mut().take(1).for_each(|to| *to = 1);
            }
            _ => {}
        }
    }
    bytes
}

/// The numbers of `program` that mean something else in `kernel`. A header's commands count for every descriptor.
#[must_use]
pub fn collide(program: &Interface, kernel: &Interface) -> Vec<Collision> {
    let mut found = Vec::new();
    for command in &program.commands {
        let runs: Vec<&Command> = kernel.runs(command.fd, command.number).collect();
        if runs.iter().any(|other| other.name == command.name) {
            continue;
        }
        found.extend(runs.into_iter().map(|other| collision(program, command, kernel, other)));
    }
    found
}

fn collision(program: &Interface, command: &Command, kernel: &Interface, runs: &Command) -> Collision {
    let mut made = Collision {
        number: command.number,
        fd: if command.fd == Fd::Any { runs.fd } else { command.fd },
        program: program.name.clone(),
        means: command.name.clone(),
        kernel: kernel.name.clone(),
        runs: runs.name.clone(),
        then: String::new(),
        argument: command.argument.as_ref().map(fill).unwrap_or_default(),
        wants: runs.argument.as_ref().filter(|argument| argument.is_extensible()).map(Argument::least),
    };
    let known = runs.argument.as_ref().map_or(0, |argument| argument.size);
    made.then = if made.is_too_short() {
        format!("refused with EINVAL: {} bytes are too few for it", made.argument.len())
    } else if made.wants.is_some() && made.has_tail(known) {
        format!("refused with E2BIG: it knows {known} bytes, and what lies behind is not zero")
    } else {
        String::from("it runs")
    };
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::{NAMES, release};

    fn numbers(program: &str, kernel: &str) -> Vec<u32> {
        let of = |name| release(name).expect("known");
        collide(&of(program), &of(kernel)).iter().map(|found| found.number).collect()
    }

    #[test]
    fn a_program_of_v3_on_v4_means_other_commands() {
        assert_eq!(numbers("posted-v3", "posted-v4"), [0xBA00, 0xBA01, 0xBA02, 0xBA03]);
        assert_eq!(numbers("posted-v4", "7.2"), [0xBA00, 0xBA01, 0xBA41, 0xBA42, 0xBA43]);
        assert_eq!(numbers("posted-v4", "6.19"), [0xBA00, 0xBA01, 0xBA41, 0xBA42]);
    }

    #[test]
    fn sizes_in_numbers_keep_programs_apart() {
        for later in ["posted-v3", "posted-v4", "6.19", "7.3"] {
            let sized = numbers("posted-v2", later).into_iter().filter(|number| number >> 16 != 0);
            assert_eq!(sized.count(), 0, "{later}");
        }
    }

    #[test]
    fn releases_never_reused_a_number() {
        let released: Vec<&str> = NAMES.into_iter().filter(|name| !name.starts_with("posted")).collect();
        for program in &released {
            for kernel in &released {
                assert_eq!(numbers(program, kernel), [], "{program} on {kernel}");
            }
        }
    }

    #[test]
    fn arguments_are_as_a_program_fills_them() {
        let interface = release("posted-v4").expect("known");
        let create = interface.command("LIVEUPDATE_IOCTL_CREATE_SESSION").expect("there");
        let bytes = fill(create.argument.as_ref().expect("a structure"));
        assert_eq!(
            (bytes.len(), bytes[0], &bytes[4..8], &bytes[8..17]),
            (64, 64, &[0; 4][..], NAME.as_bytes())
        );
    }
}
