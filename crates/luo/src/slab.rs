//! Objects of a kernel at numbered places: sessions, open files, inodes.
//!
//! A place that became free last is used first, so that the same calls give the same numbers. Objects lie in chunks and
//! never move: a table of half a million would otherwise be copied, and its pages faulted in, with each growth.

/// Objects that lie together.
const CHUNK: usize = 256;

/// Objects at places 0, 1, 2, ...
#[derive(Debug)]
pub struct Slab<T> {
    /// All but the last are full.
    chunks: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), free: Vec::new() }
    }
}

/// Chunk of a place, and where in it.
fn split(place: u32) -> (usize, usize) {
    let place = usize::try_from(place).expect("an index fits in usize");
    (place / CHUNK, place % CHUNK)
}

impl<T> Slab<T> {
    /// The object at `place`, if there is one.
    #[must_use]
    #[inline]
    pub fn get(&self, place: u32) -> Option<&T> {
        let (chunk, index) = split(place);
        self.chunks.get(chunk)?.get(index)?.as_ref()
    }

    /// The object at `place`, to change it.
    #[inline]
    pub fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.slot(place)?.as_mut()
    }

    fn slot(&mut self, place: u32) -> Option<&mut Option<T>> {
        let (chunk, index) = split(place);
        self.chunks.get_mut(chunk)?.get_mut(index)
    }

    /// Puts an object at the place that became free last, or behind all others. Gives its place.
    ///
    /// # Panics
    /// With 2^32 objects.
    pub fn insert(&mut self, object: T) -> u32 {
        if let Some(place) = self.free.pop() {
            *self.slot(place).expect("a free place is a place") = Some(object);
            return place;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            // The first is often the only one, and small.
            let room = if self.chunks.is_empty() { 0 } else { CHUNK };
            self.chunks.push(Vec::with_capacity(room));
        }
        let full = CHUNK * (self.chunks.len() - 1);
        let last = self.chunks.last_mut().expect("there is one with room");
        last.push(Some(object));
        u32::try_from(full + last.len() - 1).expect("fewer than 2^32 objects")
    }

    /// Takes the object at `place` out; the place is free then.
    pub fn take(&mut self, place: u32) -> Option<T> {
        let object = self.slot(place)?.take()?;
        self.free.push(place);
        Some(object)
    }

    /// Objects that exist.
    #[must_use]
    pub fn len(&self) -> usize {
        let last = self.chunks.last().map_or(0, Vec::len);
        CHUNK * self.chunks.len().saturating_sub(1) + last - self.free.len()
    }

    /// Whether none exists.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_that_became_free_last_is_used_first() {
        let mut slab = Slab::default();
        let places: Vec<u32> = (0..600).map(|value| slab.insert(value)).collect();
        assert_eq!(places, (0..600).collect::<Vec<_>>());
        assert_eq!((slab.take(3), slab.take(599), slab.take(3)), (Some(3), Some(599), None));
        assert_eq!((slab.len(), slab.get(3), slab.get(600)), (598, None, None));
        assert_eq!([slab.insert(1000), slab.insert(1001), slab.insert(1002)], [599, 3, 600]);
        let changed = slab.get_mut(599).map(|object| std::mem::replace(object, 7));
        assert_eq!(
            (changed, slab.get(599), slab.get(3), slab.len()),
            (Some(1000), Some(&7), Some(&1001), 601)
        );
    }

    #[test]
    fn objects_of_all_chunks_are_found_and_counted() {
        let mut slab = Slab::default();
        for value in 0..1024u32 {
            assert_eq!((slab.len(), slab.is_empty()), (value as usize, value == 0));
            assert_eq!(slab.insert(value), value);
        }
        assert!((0..1024).all(|value| slab.get(value) == Some(&value)));
    }
}
