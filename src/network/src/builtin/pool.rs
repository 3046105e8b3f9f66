//! The addresses of one subnet and who has them. Pure.
//!
//! Next-fit: the search goes on where the last one ended, so that an address comes back only after all others were
//! used. A freed address may therefore be given out again only when its former interface is long gone; where a small
//! subnet comes round sooner, the kernel decides (see `engine`): the host's end of the pair is named after the
//! address, and two links of one name cannot be.

use std::{collections::BTreeSet, net::IpAddr};

use ipnet::IpNet;

/// The offset of the gateway, which is the host's own address on the bridge.
const GATEWAY: u64 = 1;
/// No more than this many addresses of a subnet are used, as only 32 bits go into names of links.
const MAX_OFFSET: u64 = u32::MAX as u64;

/// A subnet's addresses, as offsets from its first one.
#[derive(Debug)]
pub(crate) struct Pool {
    subnet: IpNet,
    last: u64,
    next: u64,
    used: BTreeSet<u64>,
}

impl Pool {
    /// All free. `None` if the subnet has no room for a gateway and a pod.
    pub(crate) fn new(subnet: IpNet) -> Option<Self> {
        let subnet = subnet.trunc();
        let bits = u32::from(subnet.max_prefix_len() - subnet.prefix_len());
        if bits < 2 {
            return None;
        }
        // The last address is the broadcast address in IPv4; IPv6 goes without it for simplicity.
        let last = if bits >= 32 { MAX_OFFSET - 1 } else { (1 << bits) - 2 };
        Some(Self { subnet, last, next: GATEWAY + 1, used: BTreeSet::new() })
    }

    /// The subnet.
    pub(crate) fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// How many pods it has room for.
    pub(crate) fn size(&self) -> u64 {
        self.last - GATEWAY
    }

    /// How many addresses are in use.
    pub(crate) fn in_use(&self) -> usize {
        self.used.len()
    }

    fn at(&self, offset: u64) -> IpAddr {
        match self.subnet.network() {
            IpAddr::V4(first) => {
                IpAddr::V4((u32::from(first).wrapping_add(u32::try_from(offset).unwrap_or(u32::MAX))).into())
            }
            IpAddr::V6(first) => IpAddr::V6((u128::from(first).wrapping_add(u128::from(offset))).into()),
        }
    }

    fn offset(&self, address: IpAddr) -> Option<u64> {
        let offset = match (self.subnet.network(), address) {
            (IpAddr::V4(first), IpAddr::V4(a)) => u128::from(u32::from(a).checked_sub(u32::from(first))?),
            (IpAddr::V6(first), IpAddr::V6(a)) => u128::from(a).checked_sub(u128::from(first))?,
            _ => return None,
        };
        u64::try_from(offset).ok().filter(|o| *o > GATEWAY && *o <= self.last)
    }

    /// The host's address with the subnet's prefix length.
    pub(crate) fn gateway(&self) -> IpNet {
        self.with_prefix(self.at(GATEWAY))
    }

    fn with_prefix(&self, address: IpAddr) -> IpNet {
        IpNet::new(address, self.subnet.prefix_len()).expect("the length is that of the same family")
    }

    /// The next free address; `None` if all are in use.
    pub(crate) fn allocate(&mut self) -> Option<IpNet> {
        let free =
            self.free_from(self.next, self.last).or_else(|| self.free_from(GATEWAY + 1, self.next - 1))?;
        self.used.insert(free);
        self.next = if free == self.last { GATEWAY + 1 } else { free + 1 };
        Some(self.with_prefix(self.at(free)))
    }

    fn free_from(&self, from: u64, to: u64) -> Option<u64> {
        if from > to {
            return None;
        }
        let mut candidate = from;
        for taken in self.used.range(from..=to) {
            if *taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate <= to).then_some(candidate)
    }

    /// Marks an address from a record as used and lets the search go on after it. Addresses of other subnets (the
    /// configuration may have changed) are no matter of this pool.
    pub(crate) fn reserve(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.used.insert(offset);
            self.next = if offset == self.last { GATEWAY + 1 } else { offset + 1 };
        }
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, address: IpAddr) {
        if let Some(offset) = self.offset(address) {
            self.used.remove(&offset);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pool(text: &str) -> Pool {
        Pool::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn the_search_goes_on_where_it_ended() {
        let mut pool = pool("10.1.0.7/29");
        assert_eq!(pool.gateway().to_string(), "10.1.0.1/29");
        assert_eq!(pool.size(), 5);
        let first = pool.allocate().unwrap();
        assert_eq!(first.to_string(), "10.1.0.2/29");
        pool.release(first.addr());
        let rest: Vec<_> = (0..5).map(|_| pool.allocate().unwrap().addr().to_string()).collect();
        assert_eq!(rest, ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.2"]);
        assert_eq!(pool.allocate(), None);
        pool.release("10.1.0.5".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().addr().to_string(), "10.1.0.5");
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("10.0.0.0/30", Some(1)),
            ("10.0.0.0/31", None),
            ("10.0.0.0/32", None),
            ("10.88.0.0/16", Some(65533)),
            ("0.0.0.0/0", Some(u64::from(u32::MAX) - 2)),
            ("fd00::/126", Some(1)),
            ("fd00::/127", None),
            ("fd00::/64", Some(u64::from(u32::MAX) - 2)),
        ] {
            assert_eq!(Pool::new(text.parse().unwrap()).map(|p| p.size()), size, "{text}");
        }
    }

    #[test]
    fn records_of_other_subnets_are_ignored() {
        let mut pool = pool("10.1.0.0/29");
        for other in ["10.2.0.2", "10.1.0.1", "10.1.0.7", "fd00::2", "1.1.1.1"] {
            pool.reserve(other.parse().unwrap());
        }
        assert_eq!(pool.in_use(), 0);
        pool.reserve("10.1.0.6".parse().unwrap());
        assert_eq!(pool.allocate().unwrap().addr().to_string(), "10.1.0.2");
    }

    proptest! {
        /// Whatever is given back and taken, no address has two holders, and a full pool really is full.
        #[test]
        fn one_holder_each(steps in proptest::collection::vec(any::<Option<u8>>(), 0..300), v6 in any::<bool>()) {
            let mut pool = pool(if v6 { "fd00::/124" } else { "10.1.0.0/28" });
            let mut held: Vec<IpAddr> = Vec::new();
            for step in steps {
                match step {
                    Some(which) if !held.is_empty() => {
                        let address = held.swap_remove(usize::from(which) % held.len());
                        pool.release(address);
                    }
                    _ => match pool.allocate() {
                        Some(net) => held.push(net.addr()),
                        None => prop_assert_eq!(held.len() as u64, pool.size()),
                    },
                }
                let distinct: HashSet<_> = held.iter().collect();
                prop_assert_eq!(distinct.len(), held.len());
                prop_assert_eq!(pool.in_use(), held.len());
            }
        }
    }
}
