//! Where the members of a structure lie, by the rules of the System V ABI: on 64-bit and on 32-bit x86, which part where
//! a 64-bit number is not aligned by hand. What the compiler puts in between is found as the difference.

use super::items::{Header, Member, Record, Span};
use super::scope::{Scope, Valued};
use super::types::{Room, Tag, Target, Type};

/// Deepest nesting of types.
const DEEPEST: u32 = 32;
/// Largest structure or array in bytes.
const LARGEST: u64 = 1 << 40;

/// A member where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name, with those of the structures it is in: `u.id`; empty for what has none.
    pub name: String,
    /// Byte of its start.
    pub offset: u64,
    /// Bytes; 0 for a flexible array.
    pub size: u64,
    /// Bits, if it is a bitfield: first bit in its byte, and how many.
    pub bits: Option<(u64, u64)>,
    /// Its place in the header.
    pub span: Span,
}

/// Bytes that no member has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Index of the member behind it; none at the end.
    pub before: Option<usize>,
}

/// The layout of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes and alignment.
    pub room: Room,
    /// Its direct members, in order.
    pub members: Vec<Placed>,
    /// Bytes that no member has, ascending. None in a union.
    pub holes: Vec<Hole>,
}

fn round_up(value: u64, to: u64) -> u64 {
    value.div_ceil(to.max(1)).saturating_mul(to.max(1))
}

/// The room of a type that `header` names.
pub(crate) fn room(
    scope: &Scope<'_>,
    header: &Header,
    of: &Type,
    target: Target,
    depth: u32,
) -> Valued<Room> {
    scope.step()?;
    if depth > DEEPEST {
        return Err(String::from("types are nested too deep"));
    }
    match of {
        Type::Plain(plain, _) => Ok(plain.room(target)),
        Type::Named(name) => named(scope, name, target, depth),
        Type::Tagged(Tag::Enum, _) | Type::InlineEnum => Ok(Room { size: 4, align: 4 }),
        Type::Tagged(tag, name) => match scope.find_record(*tag, name) {
            Some((header, record)) => Ok(record_layout(scope, header, record, target, depth + 1)?.room),
            None => {
                Err(format!("{} {name} is not defined in this header or in those it includes", tag.word()))
            }
        },
        Type::Inline(record) => Ok(record_layout(scope, header, record, target, depth + 1)?.room),
        Type::Pointer => {
            let size = if target == Target::X86_64 { 8 } else { 4 };
            Ok(Room { size, align: size })
        }
        Type::Array(of, length) => {
            let element = room(scope, header, of, target, depth + 1)?;
            let length = count(scope, header, length, "the length of the array")?;
            let size = element.size.checked_mul(length).filter(|size| *size <= LARGEST);
            Ok(Room { size: size.ok_or("the array is too large")?, ..element })
        }
        Type::Flexible(of) => Ok(Room { size: 0, ..room(scope, header, of, target, depth + 1)? }),
        Type::Unknown(text) => Err(format!("the type `{text}` is not understood")),
    }
}

fn named(scope: &Scope<'_>, name: &str, target: Target, depth: u32) -> Valued<Room> {
    if let Some(plain) = super::types::Plain::named(name) {
        return Ok(plain.room(target));
    }
    match scope.find_typedef(name) {
        Some((header, of)) => room(scope, header, of, target, depth + 1),
        None => Err(format!("the type {name} is not defined in this header or in those it includes")),
    }
}

fn count(scope: &Scope<'_>, header: &Header, expression: &Span, what: &str) -> Valued<u64> {
    let value = scope.value(header.at(expression)).map_err(|why| format!("{what}: {why}"))?;
    u64::try_from(value).map_err(|_| format!("{what} is {value}"))
}

/// The layout of a structure or union of `header`.
///
/// # Errors
/// In words, what in it is not understood.
pub fn layout(scope: &Scope<'_>, header: &Header, record: &Record, target: Target) -> Valued<Layout> {
    record_layout(scope, header, record, target, 0)
}

fn record_layout(
    scope: &Scope<'_>,
    header: &Header,
    record: &Record,
    target: Target,
    depth: u32,
) -> Valued<Layout> {
    if let Some(problem) = &record.broken {
        return Err(problem.what.clone());
    }
    let mut placer = Placer { end: 0, bits: 0, align: 1, members: Vec::new(), holes: Vec::new() };
    for member in &record.members {
        let mut room = room(scope, header, &member.of, target, depth).map_err(|why| match &member.name {
            Some(name) => format!("{name}: {why}"),
            None => why,
        })?;
        if record.packed {
            room.align = 1;
        }
        if let Some(aligned) = &member.aligned {
            room.align = room.align.max(alignment(scope, header, aligned)?);
        }
        placer.put(scope, header, record, member, room)?;
        if placer.end > LARGEST {
            return Err(String::from("the structure is too large"));
        }
    }
    if let Some(aligned) = &record.aligned {
        placer.align = placer.align.max(alignment(scope, header, aligned)?);
    }
    Ok(placer.finish(record))
}

fn alignment(scope: &Scope<'_>, header: &Header, expression: &Span) -> Valued<u64> {
    let align = count(scope, header, expression, "the alignment")?;
    if align.is_power_of_two() && align <= 1 << 20 {
        Ok(align)
    } else {
        Err(format!("the alignment is {align}"))
    }
}

struct Placer {
    /// Bytes used so far; in a union the largest member.
    end: u64,
    /// Bits used so far in the byte at `end`.
    bits: u64,
    align: u64,
    members: Vec<Placed>,
    holes: Vec<Hole>,
}

impl Placer {
    fn put(
        &mut self,
        scope: &Scope<'_>,
        header: &Header,
        record: &Record,
        member: &Member,
        room: Room,
    ) -> Valued<()> {
        let placed = |offset, size, bits| Placed {
            name: member.name.clone().unwrap_or_default(),
            offset,
            size,
            bits,
            span: member.name_span.clone(),
        };
        if let Some(bits) = &member.bits {
            let width = count(scope, header, bits, "the number of bits")?;
            return self.put_bits(record, width, room, placed);
        }
        self.align = self.align.max(room.align);
        if record.tag == Tag::Union {
            self.members.push(placed(0, room.size, None));
            self.end = self.end.max(room.size);
            return Ok(());
        }
        let used = self.end + u64::from(self.bits > 0);
        let offset = round_up(used, room.align);
        if offset > used {
            let before = Some(self.members.len());
            self.holes.push(Hole { offset: used, size: offset - used, before });
        }
        self.members.push(placed(offset, room.size, None));
        (self.end, self.bits) = (offset + room.size, 0);
        Ok(())
    }

    /// Bits go on in the same unit as those before, unless they would reach over the end of a unit of their type.
    fn put_bits(
        &mut self,
        record: &Record,
        width: u64,
        room: Room,
        placed: impl Fn(u64, u64, Option<(u64, u64)>) -> Placed,
    ) -> Valued<()> {
        let unit = room.size * 8;
        if width > unit {
            return Err(format!("{width} bits do not fit in their type"));
        }
        if record.tag == Tag::Union {
            self.end = self.end.max(width.div_ceil(8));
            self.align = self.align.max(room.align);
            self.push_bits(placed(0, width.div_ceil(8), Some((0, width))));
            return Ok(());
        }
        let mut at = self.end * 8 + self.bits;
        let crosses = !record.packed && unit > 0 && at / unit != (at + width.max(1) - 1) / unit;
        if width == 0 || crosses {
            at = round_up(at, unit.max(8));
        }
        if width > 0 {
            self.align = self.align.max(room.align);
            self.push_bits(placed(at / 8, (at % 8 + width).div_ceil(8), Some((at % 8, width))));
        }
        (self.end, self.bits) = ((at + width) / 8, (at + width) % 8);
        Ok(())
    }

    /// Bits without a name are no member.
    fn push_bits(&mut self, bits: Placed) {
        if !bits.name.is_empty() {
            self.members.push(bits);
        }
    }

    fn finish(mut self, record: &Record) -> Layout {
        let used = self.end + u64::from(self.bits > 0);
        let size = round_up(used, self.align);
        if size > used && record.tag == Tag::Struct {
            self.holes.push(Hole { offset: used, size: size - used, before: None });
        }
        Layout { room: Room { size, align: self.align }, members: self.members, holes: self.holes }
    }
}

/// The members of a structure and of all structures in it, in order of their offsets in it. Elements of arrays are not
/// told apart.
///
/// # Errors
/// In words, what is not understood.
pub fn flatten(scope: &Scope<'_>, header: &Header, record: &Record, target: Target) -> Valued<Vec<Placed>> {
    let mut out = Vec::new();
    inner(scope, header, record, target, &mut Place { name: "", offset: 0, depth: 0 }, &mut out)?;
    Ok(out)
}

struct Place<'a> {
    name: &'a str,
    offset: u64,
    depth: u32,
}

fn inner(
    scope: &Scope<'_>,
    header: &Header,
    record: &Record,
    target: Target,
    at: &mut Place<'_>,
    out: &mut Vec<Placed>,
) -> Valued<()> {
    let layout = record_layout(scope, header, record, target, at.depth)?;
    let members = record.members.iter().filter(|member| member.bits.is_none() || member.name.is_some());
    for (placed, member) in layout.members.iter().zip(members) {
        let name = match (at.name, placed.name.as_str()) {
            (outer, "") => outer.to_owned(),
            ("", name) => name.to_owned(),
            (outer, name) => format!("{outer}.{name}"),
        };
        let offset = at.offset + placed.offset;
        let nested = match &member.of {
            Type::Inline(record) => Some((header, record.as_ref())),
            Type::Tagged(tag, name) => scope.find_record(*tag, name),
            _ => None,
        };
        match nested {
            Some((header, record)) => {
                let mut place = Place { name: &name, offset, depth: at.depth + 1 };
                inner(scope, header, record, target, &mut place, out)?;
            }
            None => out.push(Placed { name, offset, ..placed.clone() }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read_alone;
    use super::*;

    fn of(text: &str, target: Target) -> Layout {
        let loaded = read_alone("x.h", text);
        let record = loaded.header.find_record(Tag::Struct, "s").expect("struct s");
        layout(&loaded.scope(), &loaded.header, record, target).expect("understood")
    }

    fn offsets(text: &str, target: Target) -> (Vec<u64>, u64) {
        let layout = of(text, target);
        (layout.members.iter().map(|member| member.offset).collect(), layout.room.size)
    }

    #[test]
    fn holes_are_found_as_differences() {
        let layout = of("struct s { __u32 a; __u64 b; __u8 c; };", Target::X86_64);
        let holes =
            [Hole { offset: 4, size: 4, before: Some(1) }, Hole { offset: 17, size: 7, before: None }];
        assert_eq!((layout.holes.as_slice(), layout.room.size), (&holes[..], 24));
    }

    #[test]
    fn the_two_machines_part_at_64_bit_numbers() {
        let plain = "struct s { __u32 a; __u64 b; };";
        assert_eq!(offsets(plain, Target::X86_64), (vec![0, 8], 16));
        assert_eq!(offsets(plain, Target::I386), (vec![0, 4], 12));
        let aligned = "struct s { __u32 a; __aligned_u64 b; long l; char *p; };";
        assert_eq!(offsets(aligned, Target::X86_64), (vec![0, 8, 16, 24], 32));
        assert_eq!(offsets(aligned, Target::I386), (vec![0, 8, 16, 20], 24));
    }

    #[test]
    fn packed_aligned_unions_and_arrays() {
        let packed = "struct s { __u8 a; __u64 b; } __attribute__((packed));";
        assert_eq!(offsets(packed, Target::X86_64), (vec![0, 1], 9));
        let aligned = "struct s { __u8 a; __u32 b __attribute__((aligned(16))); };";
        assert_eq!(offsets(aligned, Target::X86_64), (vec![0, 16], 32));
        let union = "#define N 3\nstruct s { __u8 a; union { __u16 b; __u8 c[N + 2]; }; __u64 d[]; };";
        assert_eq!(offsets(union, Target::X86_64), (vec![0, 2, 8], 8));
        let matrix = "struct s { __u16 a[2][3]; struct { __u8 x, y; } p; };";
        assert_eq!(offsets(matrix, Target::X86_64), (vec![0, 12], 14));
    }

    #[test]
    fn bits_share_units() {
        let bits = "struct s { __u32 a : 5, b : 27, c : 1; __u8 d; __u16 : 0; __u8 e : 7; __u8 f : 2; };";
        let layout = of(bits, Target::X86_64);
        let places: Vec<_> = layout.members.iter().map(|member| (member.offset, member.bits)).collect();
        assert_eq!(
            places,
            [
                (0, Some((0, 5))),
                (0, Some((5, 27))),
                (4, Some((0, 1))),
                (5, None),
                (6, Some((0, 7))),
                (7, Some((0, 2))),
            ]
        );
        assert_eq!(layout.room.size, 8);
    }

    #[test]
    fn what_has_no_layout_says_why() {
        for (text, why) in [
            ("struct s { struct t a; };", "struct t"),
            ("struct s { foo_t a; };", "foo_t"),
            ("struct s { __u8 a[N]; };", "N is not defined"),
            ("struct s { __u8 a[1 << 50]; };", "too large"),
            ("struct s { struct s a; };", "too deep"),
            ("struct s { __u8 a : 9; };", "do not fit"),
            ("struct s { __u8 a __attribute__((aligned(3))); };", "alignment is 3"),
            ("typedef a_t b_t; typedef b_t a_t; struct s { a_t a; };", "too deep"),
        ] {
            let loaded = read_alone("x.h", text);
            let record = loaded.header.find_record(Tag::Struct, "s").expect("struct s");
            let found = layout(&loaded.scope(), &loaded.header, record, Target::X86_64);
            assert!(found.as_ref().is_err_and(|found| found.contains(why)), "{text}: {found:?}");
        }
    }

    #[test]
    fn flat_names_lead_through_structures() {
        let text = "struct t { __u32 x; __u32 y; };\nstruct s { __u32 a; union { struct t u; __u64 v; }; struct t w; };";
        let loaded = read_alone("x.h", text);
        let record = loaded.header.find_record(Tag::Struct, "s").expect("struct s");
        let flat = flatten(&loaded.scope(), &loaded.header, record, Target::X86_64).expect("understood");
        let flat: Vec<_> = flat.iter().map(|member| (member.name.as_str(), member.offset)).collect();
        assert_eq!(flat, [("a", 0), ("u.x", 8), ("u.y", 12), ("v", 8), ("w.x", 16), ("w.y", 20)]);
    }
}
