//! Structures and their bytes: what is written is read back, at the offsets of the handover, and any bytes of the right
//! length are a structure that can be looked at without harm.

use luosim_abi::kho::{metadata, scratch, setup_data, v1 as kho_v1, v4, vmalloc};
use luosim_abi::luo::{block, flb, record, v5};
use luosim_abi::memfd::{folio, v1 as memfd_v1, v2 as memfd_v2};
use luosim_abi::{fdt, ioctl};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Any bytes are a structure, and the structure is those bytes.
fn whole<T: FromBytes + IntoBytes + Immutable + KnownLayout>(bytes: &[u8]) -> T {
    let bytes = &bytes[..size_of::<T>()];
    let object = T::read_from_bytes(bytes).expect("the right length");
    assert_eq!(object.as_bytes(), bytes);
    object
}

/// The little-endian number of `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
    bytes[at..at + len].iter().rev().fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_kho_structures(b in prop::collection::vec(any::<u8>(), 80)) {
        let header: kho_v1::ChunkHeader = whole(&b);
        prop_assert_eq!(header.next.get(), number(&b, 0, 8));
        prop_assert_eq!(u64::from(header.order.get()), number(&b, 8, 4));
        prop_assert_eq!(u64::from(header.num_elms.get()), number(&b, 12, 4));
        let entry: kho_v1::ChunkEntry = whole(&b);
        prop_assert_eq!((entry.phys_start.get(), entry.bitmap.get()), (number(&b, 0, 8), number(&b, 8, 8)));
        let area: vmalloc::Descriptor = whole(&b);
        prop_assert_eq!((area.first.get(), u64::from(area.total_pages.get())), (number(&b, 0, 8), number(&b, 8, 4)));
        prop_assert_eq!(u64::from(area.flags.get()), number(&b, 12, 2));
        prop_assert_eq!(u64::from(area.order.get()), number(&b, 14, 2));
        let area: scratch::Entry = whole(&b);
        prop_assert_eq!((area.addr.get(), area.size.get()), (number(&b, 0, 8), number(&b, 8, 8)));
        let node: setup_data::Header = whole(&b);
        prop_assert_eq!((node.next.get(), u64::from(node.kind.get())), (number(&b, 0, 8), number(&b, 8, 4)));
        let pairs: setup_data::Payload = whole(&b);
        prop_assert_eq!(pairs.scratch_size.get(), number(&b, 24, 8));
        let who: metadata::Metadata = whole(&b);
        prop_assert_eq!(u64::from(who.kexec_count.get()), number(&b, 69, 4), "the last field is not aligned");
        prop_assert!(who.release().chars().count() <= metadata::RELEASE_LEN);
    }

    #[test]
    fn any_bytes_are_luo_structures(b in prop::collection::vec(any::<u8>(), 80)) {
        let session: record::SessionRecord = whole(&b);
        prop_assert_eq!((session.files.get(), session.count.get()), (number(&b, 64, 8), number(&b, 72, 8)));
        let file: record::FileRecord = whole(&b);
        prop_assert_eq!((file.data.get(), file.token.get()), (number(&b, 48, 8), number(&b, 56, 8)));
        prop_assert!(!file.compatible_bytes().contains(&0));
        let object: flb::FlbEntry = whole(&b);
        prop_assert_eq!((object.data.get(), object.count.get()), (number(&b, 48, 8), number(&b, 56, 8)));
        let header: flb::FlbHeader = whole(&b);
        prop_assert_eq!((header.pgcnt.get(), header.count.get()), (number(&b, 0, 8), number(&b, 8, 8)));
        let header: block::BlockHeader = whole(&b);
        prop_assert_eq!((header.next.get(), header.count.get()), (number(&b, 0, 8), number(&b, 8, 8)));
        let root: v5::LuoSer = whole(&b);
        prop_assert_eq!((root.liveupdate_num.get(), root.sessions_pa.get()), (number(&b, 8, 8), number(&b, 16, 8)));
        prop_assert_eq!(root.is_compatible(), b.starts_with(b"luo-v5\0"));
    }

    #[test]
    fn any_bytes_are_memfd_structures(b in prop::collection::vec(any::<u8>(), 80)) {
        let file: memfd_v1::MemfdSer = whole(&b);
        prop_assert_eq!((file.pos.get(), file.size.get()), (number(&b, 0, 8), number(&b, 8, 8)));
        prop_assert_eq!((file.nr_folios.get(), file.folios.first.get()), (number(&b, 16, 8), number(&b, 24, 8)));
        let file: memfd_v2::MemfdSer = whole(&b);
        prop_assert_eq!((u64::from(file.seals.get()), u64::from(file.flags.get())), (number(&b, 16, 4), number(&b, 20, 4)));
        prop_assert_eq!((file.nr_folios.get(), file.folios.first.get()), (number(&b, 24, 8), number(&b, 32, 8)));
        let entry: folio::FolioEntry = whole(&b);
        prop_assert_eq!(entry.pfn(), number(&b, 0, 8) & 0xf_ffff_ffff_ffff);
        prop_assert_eq!(u64::from(entry.flags()), number(&b, 0, 8) >> 52);
        prop_assert_eq!(folio::FolioEntry::new(entry.pfn(), entry.flags(), entry.index.get()), entry);
    }

    #[test]
    fn any_bytes_are_arguments(b in prop::collection::vec(any::<u8>(), 80)) {
        let session: ioctl::SessionArg = whole(&b);
        prop_assert_eq!(u64::from(session.size.get()), number(&b, 0, 4));
        prop_assert_eq!(&session.name[..], &b[8..72]);
        let file: ioctl::FdArg = whole(&b);
        prop_assert_eq!((u64::from(file.fd.get().cast_unsigned()), file.token.get()), (number(&b, 4, 4), number(&b, 8, 8)));
        let finish: ioctl::FinishArg = whole(&b);
        prop_assert_eq!(u64::from(finish.reserved.get()), number(&b, 4, 4));
        let name: ioctl::GetNameArg = whole(&b);
        prop_assert_eq!(u64::from(name.reserved.get()), number(&b, 4, 4));
    }

    /// The header check answers for any bytes, and a tree it accepts lies in its room.
    #[test]
    fn any_bytes_are_a_tree_header(b in prop::collection::vec(any::<u8>(), 40), good in any::<bool>(), room in 0u64..100_000) {
        let mut b = b;
        if good {
            b[..4].copy_from_slice(&fdt::MAGIC.to_be_bytes());
            b[20..28].copy_from_slice(&[0, 0, 0, 17, 0, 0, 0, 16]);
            for at in [4, 8, 12, 16, 32, 36] {
                b[at..at + 2].fill(0);
            }
        }
        let header: fdt::FdtHeader = whole(&b);
        if header.check(room).is_ok() {
            let end = |offset: u32, len: u32| u64::from(offset) + u64::from(len);
            prop_assert!(u64::from(header.totalsize.get()) <= room);
            prop_assert!(end(header.off_dt_struct.get(), header.size_dt_struct.get()) <= room);
            prop_assert!(end(header.off_dt_strings.get(), header.size_dt_strings.get()) <= room);
        }
    }

    /// Bits of the bitmap tracker: every block has one place, and the place leads back to it.
    #[test]
    fn blocks_and_bits_of_v1_are_inverse(block in 0u64..1 << 40, order in 0u32..11) {
        let pfn = block << order;
        let (index, bit) = kho_v1::locate(pfn, order);
        prop_assert!(bit < kho_v1::BITS_PER_BITMAP);
        prop_assert_eq!(kho_v1::phys_start(index, order) + (bit << (12 + order)), pfn << 12);
    }

    /// Keys of the radix tree: inverse, one to one over orders, and the path of indices is the key.
    #[test]
    fn blocks_and_keys_of_v4_are_inverse(block in any::<u64>(), order in 0u32..52) {
        let pa = (block << (12 + order)) & (u64::MAX << (12 + order).min(63));
        let pa = if order == 51 { 0 } else { pa };
        let key = v4::key(pa, order).expect("order 51 and below");
        prop_assert_eq!(v4::block(key), Some((pa, order)));
        prop_assert!(key < 1 << v4::KEY_BITS);
        let tables = (1..=v4::ROOT_LEVEL).rev().fold(0, |sum, level| (sum << 9) | v4::index(key, level));
        prop_assert_eq!((tables << 15) | v4::leaf_bit(key), key);
    }

    #[test]
    fn any_key_is_a_block_or_none(key in any::<u64>()) {
        match v4::block(key) {
            Some((pa, order)) => prop_assert_eq!(v4::key(pa, order), Some(key)),
            None => prop_assert!(!(2..1 << 53).contains(&key)),
        }
    }

    #[test]
    fn text_fields_keep_what_fits(text in "[a-z0-9.-]{0,80}") {
        let record = record::FileRecord::new(&text, 1, 2);
        prop_assert_eq!(record.compatible_bytes(), &text.as_bytes()[..text.len().min(47)]);
        let who = metadata::Metadata::new(&text, 3);
        prop_assert_eq!(who.release(), &text[..text.len().min(64)]);
        prop_assert!(flb::FlbEntry::new(&text, 1, 2).is_named(&text[..text.len().min(47)]));
    }
}

#[test]
fn command_numbers_are_those_of_the_io_macro() {
    // _IO(type, nr) is (0 << 30) | (0 << 16) | (type << 8) | nr.
    for command in ioctl::Command::ALL {
        assert_eq!(command.code(), (0xBA << 8) | u32::from(command.nr()));
        assert_eq!(ioctl::Command::from_code(command.code()), Some(command));
        for direction in 1..4u32 {
            let size = u32::try_from(command.size()).expect("small");
            assert_eq!(ioctl::Command::from_code((direction << 30) | (size << 16) | command.code()), None);
        }
    }
}
