//! The addresses of Services and Pods on one machine: a block of loopback addresses for each data directory.
//!
//! Every address of `127.0.0.0/8` leads to this machine, for everybody, without any set-up. A data directory gets
//! `127.B.0.0/16`, so that two servers on one machine rarely meet: the first quarter is for Services, the rest for
//! Pods. Who holds which address is not known here.

use std::{net::Ipv4Addr, path::Path};

/// The smallest `B`: below may be addresses of others, such as systemd-resolved's.
const FIRST: u8 = 16;
/// How many blocks there are.
const BLOCKS: u64 = 200;
/// Hosts of one `/24` that are used: never `.0` or `.255`.
const HOSTS: u32 = 254;
/// Where ports that need a right to listen at are shifted to for those without it: behind the ports that
/// kernels choose by themselves.
const SHIFT: u16 = 61_000;

/// The `127.B.0.0/16` of one data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block(u8);

impl Block {
    /// The block of a data directory; the same for the same path.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let number = hash(data_dir.as_os_str().as_encoded_bytes()) % BLOCKS;
        Self(FIRST.saturating_add(u8::try_from(number).unwrap_or_default()))
    }

    /// The block `127.B.0.0/16`.
    #[must_use]
    pub const fn new(b: u8) -> Self {
        Self(b)
    }

    /// `B`.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Where Services get their addresses: `127.B.0.0/18`.
    #[must_use]
    pub const fn services(self) -> Range {
        Range {
            block: self,
            first: 0,
            count: 64,
        }
    }

    /// Where Pods get their addresses: the rest.
    #[must_use]
    pub const fn pods(self) -> Range {
        Range {
            block: self,
            first: 64,
            count: 192,
        }
    }

    /// Whether an address is one of the block.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        let [a, b, _, _] = address.octets();
        a == 127 && b == self.0
    }
}

/// A part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    block: Block,
    first: u8,
    count: u8,
}

impl Range {
    /// How many addresses it has to give.
    #[must_use]
    pub const fn len(self) -> u32 {
        self.count as u32 * HOSTS
    }

    /// Never: every range has addresses to give.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// Whether it may give this address.
    #[must_use]
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        let [_, _, c, d] = address.octets();
        let is_in = c >= self.first && (c - self.first) < self.count;
        self.block.contains(address) && is_in && d != 0 && d != 255
    }

    /// Every address once. Where it begins depends on `seed` alone, so that who asks again with the same seed is
    /// likely to get the same; the first that nobody holds is to be taken.
    pub fn from_seed(self, seed: &str) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let length = self.len();
        let start = u32::try_from(hash(seed.as_bytes()) % u64::from(length)).unwrap_or_default();
        (0..length).filter_map(move |step| self.nth((start + step) % length))
    }

    /// The address number `index`, from 0.
    #[must_use]
    pub fn nth(self, index: u32) -> Option<Ipv4Addr> {
        let c = u8::try_from(index / HOSTS).ok().filter(|c| *c < self.count)?;
        let d = u8::try_from(index % HOSTS + 1).ok()?;
        Some(Ipv4Addr::new(127, self.block.0, self.first + c, d))
    }
}

/// Where a program that may not listen at `port` (those below 1024 are root's) listens instead, at the same
/// address. `None` for ports that need no right.
#[must_use]
pub const fn stand_in(port: u16) -> Option<u16> {
    if port > 0 && port < 1024 {
        Some(SHIFT + port)
    } else {
        None
    }
}

/// FNV-1a with a final mix: the same on every machine and in every version, which `std`'s hashes do not promise.
fn hash(bytes: &[u8]) -> u64 {
    let mixed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_data_directory_always_has_the_same_block() {
        let block = Block::of(Path::new("/home/a/.coracle"));
        assert_eq!(block, Block::of(Path::new("/home/a/.coracle")));
        let blocks: BTreeSet<u8> = (0..2000)
            .map(|number| Block::of(Path::new(&format!("/data/{number}"))).number())
            .collect();
        assert!(blocks.len() > 190, "{}", blocks.len());
        assert!(blocks.iter().all(|b| (16..216).contains(b)));
    }

    #[test]
    fn a_range_gives_every_address_once_from_any_seed() {
        let block = Block::new(77);
        for (range, other) in [(block.services(), block.pods()), (block.pods(), block.services())] {
            for seed in ["", "a", "8d1e7c0e-0b1c-4f6e-9d6a-3b2f1a0c9e8d"] {
                let all: Vec<Ipv4Addr> = range.from_seed(seed).collect();
                let distinct: BTreeSet<_> = all.iter().collect();
                assert_eq!(all.len(), distinct.len());
                assert_eq!(all.len(), range.len() as usize);
                assert!(all.iter().all(|address| range.contains(*address)));
                assert!(!all.iter().any(|address| other.contains(*address)));
                assert!(all.iter().all(|address| block.contains(*address)));
            }
        }
        assert_eq!(block.services().nth(0), Some(Ipv4Addr::new(127, 77, 0, 1)));
        assert_eq!(block.pods().nth(0), Some(Ipv4Addr::new(127, 77, 64, 1)));
        assert_eq!(block.services().nth(block.services().len()), None);
        assert!(!block.contains(Ipv4Addr::LOCALHOST));
    }

    #[test]
    fn seeds_are_spread_over_the_range() {
        let range = Block::new(20).pods();
        let firsts: BTreeSet<_> = (0..1000)
            .filter_map(|number| range.from_seed(&format!("uid-{number}")).next())
            .collect();
        assert!(firsts.len() > 970, "{}", firsts.len());
    }

    #[test]
    fn only_roots_ports_have_a_stand_in() {
        assert_eq!(stand_in(80), Some(61_080));
        assert_eq!(stand_in(1023), Some(62_023));
        assert_eq!(stand_in(1024), None);
        assert_eq!(stand_in(0), None);
    }
}
