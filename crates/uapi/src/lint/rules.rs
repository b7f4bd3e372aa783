//! The rules, as a table.

use std::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something was not understood; nothing is wrong for sure.
    Note,
    /// A rule is broken.
    Warning,
}

impl Level {
    /// One word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

macro_rules! rules {
    ($($Rule:ident = $id:literal, $level:ident, $asks:literal, $why:literal, $fix:literal;)*) => {
        /// A rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $(#[doc = $asks] $Rule,)* }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$Rule),*];

            /// Its name, in findings and in comments.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$Rule => $id,)* }
            }

            /// What it asks for, one sentence.
            #[must_use]
            pub const fn asks(self) -> &'static str {
                match self { $(Self::$Rule => $asks,)* }
            }

            /// Why.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $(Self::$Rule => $why,)* }
            }

            /// How to mend what breaks it.
            #[must_use]
            pub const fn fix(self) -> &'static str {
                match self { $(Self::$Rule => $fix,)* }
            }

            /// How much it weighs.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$Rule => Level::$level,)* }
            }
        }
    };
}

rules! {
    PlainInteger = "plain-integer", Warning,
        "Members have a type of fixed width, not int, short, char or long long.",
        "C promises no width for them; a header is read by compilers and languages that nobody has tried yet. Text in an \
         array of char is left alone.",
        "Write __s32, __u32, __u16, __u8 or __aligned_u64.";
    LongInteger = "long-integer", Warning,
        "Members are no long, size_t or other type that is as wide as an address.",
        "They are 8 bytes in a 64-bit program and 4 in a 32-bit one: the kernel needs a second entry point that rewrites \
         the structure.",
        "Write __aligned_u64.";
    BoolMember = "bool-member", Warning,
        "Members are no bool.",
        "A bool that is neither 0 nor 1 is undefined behaviour in the kernel, and a program can pass any byte.",
        "Write __u8 and say which values count, or a bit of flags.";
    FloatMember = "float-member", Warning,
        "Members are no float or double.",
        "The kernel does not compute with them.",
        "Write a whole number in a smaller unit.";
    EnumMember = "enum-member", Warning,
        "Members are no enum.",
        "The width of an enum is the compiler's choice, and a value that the enum does not have is still a value that a \
         program can pass.",
        "Write __u32, and name the enum in the documentation.";
    PointerMember = "pointer-member", Warning,
        "Members are no pointer.",
        "A pointer is 8 bytes in a 64-bit program and 4 in a 32-bit one.",
        "Write __aligned_u64 and pass the address in it.";
    BitfieldMember = "bitfield-member", Warning,
        "Members are no bitfield.",
        "Where the bits lie is the compiler's choice, and differs between machines of other byte order.",
        "Write a flags member of fixed width, and a macro for each bit.";
    FdType = "fd-type", Warning,
        "A file descriptor is __s32.",
        "Descriptors are signed 32-bit numbers for the kernel, and -1 stands for none; int is a type that no shared \
         structure has.",
        "Write __s32.";
    AlignedU64 = "aligned-u64", Warning,
        "A structure has the same layout in 32-bit and 64-bit programs.",
        "On 32-bit x86 a plain __u64 is aligned to 4 bytes only, so that members behind it, or the size of the structure, \
         differ, and the kernel needs a second entry point.",
        "Write __aligned_u64, or move the member to a multiple of 8 and fill the end with a reserved member.";
    ImplicitPadding = "implicit-padding", Warning,
        "No bytes between members are without a name.",
        "Programs leave anything in such bytes, so they can never get a meaning; and the kernel may leak what it had there.",
        "Give the bytes a reserved member that must be zero, or put the members in another order.";
    TailPadding = "tail-padding", Warning,
        "No bytes behind the last member are without a name.",
        "A member that is appended later would lie in them, where old programs leave anything, inside the size that they \
         have always passed.",
        "Give the bytes a reserved member that must be zero.";
    SizeFirst = "size-first", Warning,
        "The first member of a structure that a command passes is __u32 size.",
        "With it either side can be the newer one: what an old program does not pass reads as zero, what an old kernel does \
         not know must be zero, and a reply is cut to what the program knows.",
        "Put __u32 size first, and let the kernel copy by it (copy_struct_from_user).";
    ReservedZero = "reserved-zero", Warning,
        "A reserved member is documented to be zero.",
        "A kernel can give it a meaning later only if it refused everything else from the start.",
        "Document it: Must be 0. And refuse another value with EOPNOTSUPP or EINVAL.";
    NoFlags = "no-flags", Warning,
        "A structure that a command passes has flags or a reserved member.",
        "A choice that a later kernel offers needs a bit that every earlier kernel refuses; without one each becomes a new \
         command.",
        "Add __u32 flags, and refuse bits that are not known.";
    DocMissing = "doc-missing", Warning,
        "Every structure that a command passes has kernel-doc.",
        "The header is the manual: what is not written there every program learns by trying.",
        "Put a comment that begins with /** before it, with a line @member: for each member.";
    DocMember = "doc-member", Warning,
        "kernel-doc of a structure has every member, and only members.",
        "A member without a word of who gives it and what is allowed in it is used in every way.",
        "Add a line @member:, or take out the one whose member is gone.";
    DocOnMacro = "doc-on-macro", Warning,
        "kernel-doc stands at the structure, not at the macro of the number.",
        "The tools that make manuals of headers know structures; the macro has nothing to say but its number.",
        "Move the comment to the structure that the command passes.";
    NumberLiteral = "number-literal", Warning,
        "The number of a command is a member of an enum.",
        "Two patches that each take the next number meet in the enum as a conflict, and not in programs.",
        "Put the numbers in one enum for each kind of descriptor, from a base, and use its members in the macros.";
    NumberGap = "number-gap", Warning,
        "The numbers of commands have no holes.",
        "A hole is a number that some unreleased program may use already, and a table of commands has to step around it.",
        "Number the commands from the base on, one after the other.";
    NumberTwice = "number-twice", Warning,
        "No two commands have the same type and number.",
        "They differ in direction or size alone, or not at all: a table of commands cannot tell them apart.",
        "Give each command a number of its own.";
    SizeInNumber = "size-in-number", Warning,
        "The number of a command has no size in it: it is made by _IO.",
        "With the size in it, each member that is added makes another number, which old kernels refuse and new ones must \
         know beside the old.",
        "Write _IO, and put the size in the structure.";
    BareArgument = "bare-argument", Warning,
        "A command passes a structure, not a plain number.",
        "A plain number has no room for a flag or a second value.",
        "Give the command a structure.";
    NoArgument = "no-argument", Warning,
        "A command passes a structure, even if it needs nothing yet.",
        "Without one the first option that it needs makes a new command.",
        "Give the command a structure, with size and flags.";
    EventCommands = "event-commands", Warning,
        "Commands that pass nothing and move one thing on are one command with an enum for input.",
        "One command that sets a state has one place for its checks and grows by a value; several grow by numbers.",
        "Make them one command, and give it the event in a __u32.";
    SharedStructure = "shared-structure", Warning,
        "Every command has a structure of its own.",
        "Two commands that share one cannot grow apart: a member for one is a member that the other must refuse.",
        "Copy the structure under another name.";
    TypeTaken = "type-taken", Warning,
        "The type byte is not registered for another header.",
        "Descriptors are passed around; a command that reaches the wrong driver should be refused by its number.",
        "Take a free type byte or range and register it.";
    AllowReason = "allow-reason", Warning,
        "A comment that allows something says why.",
        "The next reader cannot tell an accident from a decision.",
        "Write the reason behind the bracket, in the same comment.";
    AllowUnused = "allow-unused", Warning,
        "A comment that allows something is needed.",
        "One that is not will hide the next mistake.",
        "Take it out.";
    NotUnderstood = "not-understood", Note,
        "Everything in the header is understood.",
        "What the linter does not understand it does not judge: a structure without a layout has no findings of layout.",
        "If it is correct C, please report it; a header that it includes may be missing (--include).";
}

impl Rule {
    /// The rule with this name.
    #[must_use]
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.id() == id)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}
