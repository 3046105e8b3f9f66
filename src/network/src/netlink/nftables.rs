//! nftables over nfnetlink: transactions of tables, maps, chains and rules.
//!
//! A transaction is applied whole or not at all, and packets see either the old or the new state. All numbers are
//! big-endian. The constants are the kernel's (`linux/netfilter/nf_tables.h`), those that libc does not have.

use super::{
    ACK, APPEND, CREATE, EXCLUSIVE, NetlinkError, REQUEST, Socket,
    message::{Attributes, Batch},
};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
const BATCH_BEGIN: u16 = libc::NFNL_MSG_BATCH_BEGIN as u16;
const BATCH_END: u16 = libc::NFNL_MSG_BATCH_END as u16;
const NFPROTO_INET: u8 = 1;
const LIST_ELEMENT: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const SET_MAP: u32 = 8;

/// A register of 4 bytes; the machine has 16 of them.
#[derive(Debug, Clone, Copy)]
pub struct Register(u32);

impl Register {
    /// The first.
    pub const FIRST: Register = Register(8);
    const VERDICT: Register = Register(0);

    /// The register `bytes` further on.
    pub fn after(self, bytes: u32) -> Register {
        Register(self.0 + bytes.div_ceil(4))
    }
}

/// Where and when a chain sees packets.
#[derive(Debug, Clone, Copy)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `NF_INET_*`: 0 prerouting, 3 output, 4 postrouting.
    pub number: u32,
    /// Lower comes first.
    pub priority: i32,
}

/// nft's numbers of the types of keys and values; only `nft list` looks at them.
#[derive(Debug, Clone, Copy)]
pub enum KeyType {
    /// `ipv4_addr`
    Ipv4,
    /// `ipv6_addr`
    Ipv6,
    /// `inet_proto`
    Protocol,
    /// `inet_service`
    Service,
}

impl KeyType {
    fn number(self) -> u32 {
        match self {
            KeyType::Ipv4 => 7,
            KeyType::Ipv6 => 8,
            KeyType::Protocol => 12,
            KeyType::Service => 13,
        }
    }

    fn len(self) -> u32 {
        if matches!(self, KeyType::Ipv6) { 16 } else { 4 }
    }
}

/// A change that is applied as a whole to one table of the `inet` family.
#[derive(Debug)]
pub struct Transaction<'a> {
    batch: Batch,
    table: &'a str,
    sets: u32,
}

fn nfgenmsg(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl<'a> Transaction<'a> {
    /// Nothing yet.
    pub fn new(table: &'a str) -> Self {
        let mut batch = Batch::new();
        batch.message(BATCH_BEGIN, REQUEST, &nfgenmsg(0, libc::NFNL_SUBSYS_NFTABLES as u16), |_| {});
        Self { batch, table, sets: 0 }
    }

    fn add(&mut self, kind: libc::c_int, flags: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let kind = SUBSYSTEM | u16::try_from(kind).expect("message types are below 256");
        self.batch.message(kind, REQUEST | ACK | flags, &nfgenmsg(NFPROTO_INET, 0), fill);
    }

    /// Applies it.
    pub fn commit(mut self, socket: &mut Socket) -> Result<(), NetlinkError> {
        let last = self.batch.len();
        self.batch.message(BATCH_END, REQUEST, &nfgenmsg(0, libc::NFNL_SUBSYS_NFTABLES as u16), |_| {});
        socket.run_acked(self.batch, 1..last)
    }

    /// Makes the table, if it is not there.
    pub fn table(&mut self) {
        let table = self.table;
        self.add(libc::NFT_MSG_NEWTABLE, CREATE, |a| {
            a.text(1, table);
        });
    }

    /// Removes it with all that it holds.
    pub fn delete_table(&mut self) {
        let table = self.table;
        self.add(libc::NFT_MSG_DELTABLE, 0, |a| {
            a.text(1, table);
        });
    }

    /// Makes a chain, one that sees packets by itself (`hook`) or that is jumped to.
    pub fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let table = self.table;
        self.add(libc::NFT_MSG_NEWCHAIN, CREATE, |a| {
            a.text(1, table).text(3, name);
            if let Some(hook) = hook {
                a.nest(4, |h| {
                    h.be32(1, hook.number).bytes(2, &hook.priority.to_be_bytes());
                });
                a.be32(5, libc::NF_ACCEPT as u32).text(7, hook.kind);
            }
        });
    }

    /// Makes a map from `key` to `value`, both concatenations.
    pub fn map(&mut self, name: &str, key: &[KeyType], value: &[KeyType]) {
        let table = self.table;
        self.sets += 1;
        let id = self.sets;
        let number = |parts: &[KeyType]| parts.iter().fold(0, |n, part| n << 6 | part.number());
        let len = |parts: &[KeyType]| parts.iter().map(|part| part.len()).sum();
        self.add(libc::NFT_MSG_NEWSET, CREATE, |a| {
            a.text(1, table).text(2, name).be32(3, SET_MAP);
            a.be32(4, number(key)).be32(5, len(key));
            a.be32(6, number(value)).be32(7, len(value)).be32(10, id);
        });
    }

    /// Adds to a map; an element with the same key and another value is an error (`EEXIST`).
    pub fn add_elements(&mut self, map: &str, elements: &[(Vec<u8>, Vec<u8>)]) {
        // Stay far below the 64 KiB that an attribute can hold.
        for part in elements.chunks(500) {
            self.elements(
                libc::NFT_MSG_NEWSETELEM,
                CREATE | EXCLUSIVE,
                map,
                part.iter().map(|(k, v)| (k, Some(v))),
            );
        }
    }

    /// Removes from a map; an absent key is an error (`ENOENT`).
    pub fn delete_elements(&mut self, map: &str, keys: &[Vec<u8>]) {
        for part in keys.chunks(500) {
            self.elements(libc::NFT_MSG_DELSETELEM, 0, map, part.iter().map(|k| (k, None)));
        }
    }

    fn elements<'e>(
        &mut self,
        kind: libc::c_int,
        flags: u16,
        map: &str,
        elements: impl Iterator<Item = (&'e Vec<u8>, Option<&'e Vec<u8>>)>,
    ) {
        let table = self.table;
        self.add(kind, flags, |a| {
            a.text(1, table).text(2, map).nest(3, |list| {
                for (key, value) in elements {
                    list.nest(LIST_ELEMENT, |element| {
                        element.nest(1, |k| {
                            k.bytes(DATA_VALUE, key);
                        });
                        if let Some(value) = value {
                            element.nest(2, |v| {
                                v.bytes(DATA_VALUE, value);
                            });
                        }
                    });
                }
            });
        });
    }

    /// Adds a rule at the end of a chain.
    pub fn rule(&mut self, chain: &str, expressions: &[Expression<'_>]) {
        let table = self.table;
        self.add(libc::NFT_MSG_NEWRULE, CREATE | APPEND, |a| {
            a.text(1, table).text(2, chain).nest(4, |list| {
                for expression in expressions {
                    list.nest(LIST_ELEMENT, |e| {
                        e.text(1, expression.name()).nest(2, |data| expression.write(data));
                    });
                }
            });
        });
    }
}

/// Whether a table of the `inet` family has a chain.
pub fn has_chain(socket: &mut Socket, table: &str, chain: &str) -> bool {
    let mut batch = Batch::new();
    let kind = SUBSYSTEM | libc::NFT_MSG_GETCHAIN as u16;
    batch.message(kind, REQUEST, &nfgenmsg(NFPROTO_INET, 0), |a| {
        a.text(1, table).text(3, chain);
    });
    socket.ask(batch).is_ok_and(|found| !found.is_empty())
}

/// A step of a rule. Each either goes on with the next one or leaves the rule.
#[derive(Debug, Clone)]
pub enum Expression<'a> {
    /// The kind of the destination address (1 unicast, 2 local) into the register.
    DestinationKind(Register),
    /// `meta` key: 6 iifname, 7 oifname, 15 nfproto, 16 l4proto.
    Meta(u32, Register),
    /// Status bits of the connection.
    ConnectionStatus(Register),
    /// Bytes of the packet: base (1 network, 2 transport header), offset, length.
    Payload(u32, u32, u32, Register),
    /// The register keeps the bits of the mask.
    Mask(Register, Vec<u8>),
    /// Go on if equal.
    Equal(Register, Vec<u8>),
    /// Go on if different.
    Differs(Register, Vec<u8>),
    /// Go on if the map has the key at the first register; its value goes to the second.
    Lookup(&'a str, Register, Register),
    /// Change the destination: family (2 or 10), address register, port register.
    DestinationNat(u32, Register, Register),
    /// Change the source to the address of the interface that it leaves through.
    Masquerade,
    /// Throw the packet away.
    Drop,
    /// Go on in another chain, then come back.
    Jump(&'a str),
    /// Leave the chain.
    Return,
}

impl Expression<'_> {
    fn name(&self) -> &'static str {
        match self {
            Expression::DestinationKind(_) => "fib",
            Expression::Meta(..) => "meta",
            Expression::ConnectionStatus(_) => "ct",
            Expression::Payload(..) => "payload",
            Expression::Mask(..) => "bitwise",
            Expression::Equal(..) | Expression::Differs(..) => "cmp",
            Expression::Lookup(..) => "lookup",
            Expression::DestinationNat(..) => "nat",
            Expression::Masquerade => "masq",
            Expression::Drop | Expression::Jump(_) | Expression::Return => "immediate",
        }
    }

    fn write(&self, a: &mut Attributes<'_>) {
        match self {
            // NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR
            Expression::DestinationKind(to) => a.be32(1, to.0).be32(2, 3).be32(3, 2),
            Expression::Meta(key, to) => a.be32(1, to.0).be32(2, *key),
            Expression::ConnectionStatus(to) => a.be32(1, to.0).be32(2, libc::NFT_CT_STATUS as u32),
            Expression::Payload(base, offset, len, to) => {
                a.be32(1, to.0).be32(2, *base).be32(3, *offset).be32(4, *len)
            }
            Expression::Mask(register, mask) => {
                let len = u32::try_from(mask.len()).expect("a mask is at most 16 bytes");
                a.be32(1, register.0).be32(2, register.0).be32(3, len);
                a.nest(4, |m| {
                    m.bytes(DATA_VALUE, mask);
                });
                a.nest(5, |x| {
                    x.bytes(DATA_VALUE, &vec![0; mask.len()]);
                })
            }
            Expression::Equal(register, value) => compare(a, *register, 0, value),
            Expression::Differs(register, value) => compare(a, *register, 1, value),
            Expression::Lookup(map, from, to) => a.text(1, map).be32(2, from.0).be32(3, to.0),
            Expression::DestinationNat(family, address, port) => {
                a.be32(1, 1).be32(2, *family);
                a.be32(3, address.0).be32(4, address.0).be32(5, port.0).be32(6, port.0)
            }
            Expression::Masquerade => a,
            Expression::Drop => verdict(a, libc::NF_DROP, None),
            Expression::Jump(chain) => verdict(a, -3, Some(chain)),
            Expression::Return => verdict(a, -5, None),
        };
    }
}

fn compare<'a, 'b>(
    a: &'a mut Attributes<'b>,
    register: Register,
    operation: u32,
    value: &[u8],
) -> &'a mut Attributes<'b> {
    a.be32(1, register.0).be32(2, operation).nest(3, |v| {
        v.bytes(DATA_VALUE, value);
    })
}

fn verdict<'a, 'b>(a: &'a mut Attributes<'b>, code: i32, chain: Option<&str>) -> &'a mut Attributes<'b> {
    a.be32(1, Register::VERDICT.0).nest(2, |data| {
        data.nest(DATA_VERDICT, |v| {
            v.bytes(1, &code.to_be_bytes());
            if let Some(chain) = chain {
                v.text(2, chain);
            }
        });
    })
}
