//! How the page size shapes KHO's formats: every number that follows from it, by formula.
//!
//! A page of the tracker, of a vmalloc area or of a chunk is one page of the kernel that wrote it, and blocks are
//! counted in such pages. x86-64 has pages of 4 KiB only; arm64 kernels are built for 4, 16 or 64 KiB. No version
//! string tells the page size, so a reader must know it.
//!
//! The version modules are this geometry at 4 KiB. The depth of the radix tree is that of the kernels whose key width
//! counts the marker bit (7.1.13 and later); before that, 16 KiB pages had a level less.

/// The formats' numbers for one page size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    page_shift: u32,
}

/// Bytes of a radix table's entry, and of an address in a vmalloc chunk.
const WORD: u64 = 8;

impl Geometry {
    /// 4 KiB: x86-64, and arm64's default.
    pub const PAGE_4K: Self = Self { page_shift: 12 };
    /// 16 KiB.
    pub const PAGE_16K: Self = Self { page_shift: 14 };
    /// 64 KiB.
    pub const PAGE_64K: Self = Self { page_shift: 16 };
    /// Every page size that a kernel with KHO can have.
    pub const ALL: [Self; 3] = [Self::PAGE_4K, Self::PAGE_16K, Self::PAGE_64K];

    /// The geometry for pages of `bytes`.
    #[must_use]
    pub fn with_page_size(bytes: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|geometry| geometry.page_bytes() == bytes)
    }

    /// Bytes of a page.
    #[must_use]
    pub const fn page_bytes(self) -> u64 {
        1 << self.page_shift
    }

    /// log2 of the bytes of a page.
    #[must_use]
    pub const fn page_shift(self) -> u32 {
        self.page_shift
    }

    /// Bits of a page that is a bitmap: a `kho-v1` bitmap, a leaf of the radix tree.
    #[must_use]
    pub const fn bitmap_bits(self) -> u64 {
        8 << self.page_shift
    }

    /// `kho-v1`: bitmaps that one chunk lists behind its header.
    #[must_use]
    pub const fn chunk_entries(self) -> u64 {
        (self.page_bytes() - 16) / 16
    }

    /// `kho-v1`: index of the bitmap that holds the block of `order` at frame `pfn`, and the bit in it.
    #[must_use]
    pub const fn locate(self, pfn: u64, order: u32) -> (u64, u64) {
        let block = pfn >> order;
        (block / self.bitmap_bits(), block % self.bitmap_bits())
    }

    /// `kho-v1`: physical address of the block of bit 0 of bitmap `index`.
    #[must_use]
    pub const fn phys_start(self, index: u64, order: u32) -> u64 {
        (index * self.bitmap_bits()) << (self.page_shift + order)
    }

    /// Radix tree: bit of a key that marks order 0; one lower for each order more.
    #[must_use]
    pub const fn marker(self) -> u32 {
        64 - self.page_shift
    }

    /// Radix tree: significant bits of a key, the marker of order 0 among them.
    #[must_use]
    pub const fn key_bits(self) -> u32 {
        self.marker() + 1
    }

    const fn leaf_shift(self) -> u32 {
        self.page_shift + 3
    }

    const fn table_shift(self) -> u32 {
        self.page_shift - 3
    }

    /// Radix tree: addresses in a table.
    #[must_use]
    pub const fn table_entries(self) -> u64 {
        self.page_bytes() / WORD
    }

    /// Radix tree: level of the root; level 0 is the leaves.
    #[must_use]
    pub const fn root_level(self) -> u32 {
        (self.key_bits() - self.leaf_shift()).div_ceil(self.table_shift())
    }

    /// Largest order that a key can name.
    #[must_use]
    pub const fn max_order(self) -> u32 {
        self.marker() - 1
    }

    /// Radix tree: the key of the block of `order` at physical address `pa`. `None` above [`Self::max_order`].
    #[must_use]
    pub const fn key(self, pa: u64, order: u32) -> Option<u64> {
        if order > self.max_order() {
            return None;
        }
        Some((1 << (self.marker() - order)) | (pa >> (self.page_shift + order)))
    }

    /// Radix tree: the block of a key, physical address and order. `None` for keys that no block has: 0, 1 and those
    /// of more than [`Self::key_bits`].
    #[must_use]
    pub const fn block(self, key: u64) -> Option<(u64, u32)> {
        if key < 2 || key >> self.key_bits() != 0 {
            return None;
        }
        let top = 63 - key.leading_zeros();
        let order = self.marker() - top;
        Some(((key ^ (1 << top)) << (self.page_shift + order), order))
    }

    /// Radix tree: index in the table at `level`, [`Self::root_level`] to 1.
    #[must_use]
    pub const fn index(self, key: u64, level: u32) -> u64 {
        (key >> self.level_shift(level)) & (self.table_entries() - 1)
    }

    /// Radix tree: what index 1 in a table at `level` adds to a key, as a power of two.
    #[must_use]
    pub const fn level_shift(self, level: u32) -> u32 {
        self.leaf_shift() + self.table_shift() * (level - 1)
    }

    /// Radix tree: bit in the leaf.
    #[must_use]
    pub const fn leaf_bit(self, key: u64) -> u64 {
        key & (self.bitmap_bits() - 1)
    }

    /// vmalloc area: addresses in one chunk, behind the link.
    #[must_use]
    pub const fn vmalloc_per_chunk(self) -> u64 {
        self.page_bytes() / WORD - 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_each_page_size() {
        let of = |g: Geometry| {
            (g.key_bits(), g.root_level() + 1, g.bitmap_bits(), g.table_entries(), g.chunk_entries())
        };
        assert_eq!(of(Geometry::PAGE_4K), (53, 6, 32_768, 512, 255));
        assert_eq!(of(Geometry::PAGE_16K), (51, 5, 131_072, 2048, 1023));
        assert_eq!(of(Geometry::PAGE_64K), (49, 4, 524_288, 8192, 4095));
        let chunks = Geometry::ALL.map(Geometry::vmalloc_per_chunk);
        assert_eq!(chunks, [511, 2047, 8191]);
        assert_eq!(Geometry::with_page_size(8192), None);
    }

    /// Worked by hand from the definition: marker, block number, then the split of the key from the bottom.
    #[test]
    fn worked_examples() {
        for (geometry, pa, order, key, path, bit) in [
            (Geometry::PAGE_4K, 0x1_2345_6000, 0, 0x0010_0000_0012_3456, vec![2, 0, 0, 0, 36], 13_398),
            (Geometry::PAGE_4K, 0x4000_0000, 18, 0x0000_0004_0000_0001, vec![0, 0, 2, 0, 0], 1),
            (Geometry::PAGE_16K, 0x0, 0, 0x0004_0000_0000_0000, vec![1, 0, 0, 0], 0),
            (Geometry::PAGE_16K, 0x1_2345_4000, 0, 0x0004_0000_0004_8d15, vec![1, 0, 0, 2], 0x8d15),
            (Geometry::PAGE_16K, 0x200_0000, 11, 0x0000_0080_0000_0001, vec![0, 1, 0, 0], 1),
            (Geometry::PAGE_64K, 0x1_2345_0000, 0, 0x0001_0000_0001_2345, vec![8, 0, 0], 0x1_2345),
            (Geometry::PAGE_64K, 0x2000_0000, 13, 0x0000_0008_0000_0001, vec![0, 8, 0], 1),
        ] {
            assert_eq!(geometry.key(pa, order), Some(key), "{geometry:?} {pa:#x} {order}");
            assert_eq!(geometry.block(key), Some((pa, order)));
            let found: Vec<u64> = (1..=geometry.root_level()).rev().map(|l| geometry.index(key, l)).collect();
            assert_eq!((found, geometry.leaf_bit(key)), (path, bit), "{geometry:?} {pa:#x}");
        }
    }

    proptest! {
        #[test]
        fn keys_are_told_apart_and_read_back(
            which in 0..3usize, order in 0..48u32, block in any::<u64>(), other in any::<u64>(), next in 0..48u32,
        ) {
            let geometry = Geometry::ALL[which];
            let pa = |block: u64, order: u32| {
                let shift = geometry.page_shift() + order;
                (block % (1u64 << (64 - shift))) << shift
            };
            let (a, b) = ((pa(block, order), order), (pa(other, next), next));
            let key = geometry.key(a.0, order).expect("an order with a key");
            prop_assert_eq!(geometry.block(key), Some(a));
            prop_assert!(key < 1 << geometry.key_bits());
            if a != b {
                prop_assert_ne!(Some(key), geometry.key(b.0, next));
            }
            let tables = (1..=geometry.root_level()).map(|l| geometry.index(key, l) << geometry.level_shift(l));
            prop_assert_eq!(tables.fold(geometry.leaf_bit(key), |sum, part| sum | part), key);
        }

        #[test]
        fn bitmaps_cover_every_block_once(which in 0..3usize, order in 0..11u32, block in 0..1u64 << 36) {
            let geometry = Geometry::ALL[which];
            let (index, bit) = geometry.locate(block << order, order);
            let at = geometry.phys_start(index, order) + (bit << (geometry.page_shift() + order));
            prop_assert_eq!(at, block << (geometry.page_shift() + order));
        }
    }
}
