//! Tables that are zero until touched, so that huge empty ones cost nothing: bookkeeping of a memory of a terabyte.
//!
//! Small ones lie on the heap. An allocator may zero a large block by hand, if it had it before; so large ones are mapped.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// From so many bytes on a table is mapped.
const MAPPED: usize = 1 << 20;

/// What a table is made of: numbers.
pub(crate) trait Element: Copy + FromBytes + IntoBytes + KnownLayout + Immutable {}

impl Element for u8 {}
impl Element for u64 {}

/// A table of fixed length, all zero at first.
#[derive(Debug)]
pub(crate) enum Zeros<T> {
    /// On the heap.
    Heap(Vec<T>),
    /// As many bytes as the elements take, and aligned to a page.
    Mapped(MmapMut),
}

impl<T> Default for Zeros<T> {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl<T: Element> Zeros<T> {
    /// A table of `count` elements.
    pub(crate) fn new(count: usize) -> Self {
        let bytes = count * size_of::<T>();
        // A host that has no mapping to give may still have heap.
        let map = (bytes >= MAPPED).then(|| MmapMut::map_anon(bytes).ok()).flatten();
        map.map_or_else(|| Self::Heap(vec![T::new_zeroed(); count]), Self::Mapped)
    }
}

const WHOLE: &str = "a mapping holds whole elements, and its start is aligned to a page";

impl<T: Element> Deref for Zeros<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Heap(table) => table,
            Self::Mapped(map) => <[T]>::ref_from_bytes(map).expect(WHOLE),
        }
    }
}

impl<T: Element> DerefMut for Zeros<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Heap(table) => table,
            Self::Mapped(map) => <[T]>::mut_from_bytes(map).expect(WHOLE),
        }
    }
}

impl<T: Element> Clone for Zeros<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.len());
        copy.copy_from_slice(self);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_tables_are_zero_hold_what_is_written_and_are_copied() {
        for (count, mapped) in
            [(0, false), (5, false), (MAPPED / 8 - 1, false), (MAPPED / 8, true), (MAPPED, true)]
        {
            let mut table = Zeros::<u64>::new(count);
            assert_eq!(matches!(table, Zeros::Mapped(..)), mapped, "{count}");
            assert_eq!((table.len(), table.iter().any(|word| *word != 0)), (count, false));
            let Some(last) = table.last_mut() else { continue };
            *last = u64::MAX;
            let copy = table.clone();
            table[0] = 7;
            assert_eq!((copy[0], copy[count - 1], table[0]), (0, u64::MAX, 7));
        }
    }
}
