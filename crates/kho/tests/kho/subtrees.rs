//! Subtrees of the root tree, outgoing and incoming.

use luosim_abi::Errno;
use luosim_abi::release::ReleaseId;
use luosim_kho::Subtree;
use luosim_kho::fdt::{Node, Tree};

use crate::world::{EACH, MIB, World, boot, cold, config, pa};

fn add(world: &mut World, name: &str, blob: u64) -> Result<(), Errno> {
    world.kho.add_subtree(&mut world.ram, name, pa(blob), 0x123).map_err(|refusal| refusal.errno)
}

#[test]
fn the_next_kernel_finds_what_was_added_and_not_what_was_removed() {
    for (release, size) in EACH.into_iter().zip([None, Some(0x123)]) {
        let mut world = cold(release, 64 * MIB);
        add(&mut world, "kept", 0x20_0000).unwrap();
        add(&mut world, "gone", 0x30_0000).unwrap();
        assert_eq!(add(&mut world, "kept", 0x40_0000), Err(Errno::EEXIST));
        world.kho.remove_subtree(&mut world.ram, pa(0x30_0000));
        world.kho.remove_subtree(&mut world.ram, pa(0x30_0000));
        let world = world.kexec();
        for _ in 0..2 {
            assert_eq!(world.kho.subtree("kept"), Ok(Subtree { addr: pa(0x20_0000), size }));
        }
        assert_eq!(world.kho.subtree("gone").unwrap_err().errno, Errno::ENOENT);
        assert_eq!(
            world.kexec().kho.subtree("kept").unwrap_err().errno,
            Errno::ENOENT,
            "nothing is forwarded"
        );
    }
}

#[test]
fn of_two_subtrees_with_one_blob_the_newest_is_removed() {
    let mut world = cold(ReleaseId::V7_3, 64 * MIB);
    add(&mut world, "old", 0x20_0000).unwrap();
    add(&mut world, "new", 0x20_0000).unwrap();
    world.kho.remove_subtree(&mut world.ram, pa(0x20_0000));
    let world = world.kexec();
    assert!(world.kho.subtree("old").is_ok() && world.kho.subtree("new").is_err());
}

#[test]
fn the_root_tree_is_one_page() {
    for release in EACH {
        let mut world = cold(release, 64 * MIB);
        let mut fit = 0;
        let full = loop {
            match add(&mut world, &format!("t{fit}"), 0x20_0000 + fit * 0x1000) {
                Ok(()) => fit += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOMEM);
        let expected = if release.release().kho.is_radix() { 70..=76 } else { 118..=124 };
        assert!(expected.contains(&fit), "{fit} fit");
        let world = world.kexec();
        assert!(world.accepted() && world.kho.subtree(&format!("t{}", fit - 1)).is_ok());
        assert_eq!(world.kho.subtree(&format!("t{fit}")).unwrap_err().errno, Errno::ENOENT);
    }
}

#[test]
fn names_that_a_tree_cannot_hold_are_refused() {
    let mut world = cold(ReleaseId::V7_3, 64 * MIB);
    for name in ["a\0b", "with space", "1digit", "a-name-of-more-than-thirty-one-bytes"] {
        assert_eq!(add(&mut world, name, 0x20_0000), Err(Errno::EINVAL), "{name:?}");
    }
    assert_eq!(add(&mut world, "good", 0x20_0000), Ok(()));
    assert!(world.kexec().accepted());
}

#[test]
fn broken_properties_are_einval() {
    let good = |node: Node| node.with_u64("preserved-data", 0x1000).with_u64("blob-size", 1);
    for (release, compatible, node, what) in [
        (ReleaseId::V7_3, "kho-v4", Node::default().with_u64("preserved-data", 1), "blob-size"),
        (ReleaseId::V7_3, "kho-v4", Node::default().with_u64("blob-size", 1), "preserved-data"),
        (ReleaseId::V6_19, "kho-v1", good(Node::default()), "fdt"),
    ] {
        let (mut memory, params) = cold(release, 64 * MIB).leave();
        let map = Tree::read(&memory, params.fdt, 4096).unwrap().root().u64("preserved-memory-map").unwrap();
        let root = Node::new(compatible).with_u64("preserved-memory-map", map).with_child("LUO", node);
        memory.write(params.fdt, &Tree::new(root).to_blob()).unwrap();
        let world = boot(memory, config(release), Some(params));
        let refusal = world.kho.subtree("LUO").unwrap_err();
        assert_eq!(refusal.errno, Errno::EINVAL);
        assert!(refusal.reason.contains(what), "{refusal}");
    }
}
