//! Objects of a kernel with reference counts, by number; the lowest free number is given first.

/// A table of objects.
#[derive(Debug)]
pub struct Table<T> {
    slots: Vec<Option<(u32, T)>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { slots: Vec::new() }
    }
}

fn index(id: u32) -> usize {
    usize::try_from(id).expect("an index fits in usize")
}

impl<T> Table<T> {
    /// Adds an object with one reference.
    pub fn add(&mut self, object: T) -> u32 {
        let free = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        if free == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[free] = Some((1, object));
        u32::try_from(free).expect("fewer than 2^32 objects")
    }

    /// The object, if there is one.
    #[must_use]
    pub fn find(&self, id: u32) -> Option<&T> {
        self.slots.get(index(id))?.as_ref().map(|(_, object)| object)
    }

    /// The object.
    ///
    /// # Panics
    /// If it is gone: whoever has the number has a reference.
    #[must_use]
    pub fn get(&self, id: u32) -> &T {
        self.find(id).expect("whoever has the number has a reference")
    }

    /// The object, to change it.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn get_mut(&mut self, id: u32) -> &mut T {
        let slot = self.slots.get_mut(index(id)).and_then(Option::as_mut);
        &mut slot.expect("whoever has the number has a reference").1
    }

    /// One more reference.
    ///
    /// # Panics
    /// As [`Self::get`].
    pub fn get_ref(&mut self, id: u32) {
        let slot = self.slots.get_mut(index(id)).and_then(Option::as_mut);
        slot.expect("whoever has the number has a reference").0 += 1;
    }

    /// One reference less; the object, if that was the last.
    pub fn put(&mut self, id: u32) -> Option<T> {
        let slot = self.slots.get_mut(index(id))?;
        let (refs, _) = slot.as_mut()?;
        *refs -= 1;
        if *refs > 0 {
            return None;
        }
        slot.take().map(|(_, object)| object)
    }

    /// Every object with its number, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.slots).filter_map(|(id, slot)| slot.as_ref().map(|(_, object)| (id, object)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_lives_as_long_as_its_references() {
        let mut table = Table::default();
        let (one, two) = (table.add("one"), table.add("two"));
        table.get_ref(one);
        assert_eq!(table.put(one), None);
        assert_eq!(table.put(one), Some("one"));
        assert_eq!(table.find(one), None);
        assert_eq!(table.put(one), None);
        assert_eq!(table.add("three"), one, "the lowest free number");
        assert_eq!(table.iter().collect::<Vec<_>>(), [(one, &"three"), (two, &"two")]);
    }
}
