//! The crate as its callers see it: one kernel hands over to the next on the same memory.

#[cfg(test)]
mod boot;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod layout;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod roundtrip;
#[cfg(test)]
mod scratch;
#[cfg(test)]
mod subtrees;
#[cfg(test)]
mod vmalloc;
#[cfg(test)]
mod world;
