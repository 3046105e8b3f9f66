//! Netlink messages: writing several into one buffer, and taking received ones apart. Pure.
//!
//! Layout (netlink(7)): a 16 byte header, a family header, then attributes of 4 byte header and padded payload.
//! Everything is in the machine's byte order except where a family says otherwise (nftables: all big-endian).

/// Header of every message.
pub const HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
/// The bits of an attribute's type that name it.
const TYPE_MASK: u16 = 0x3fff;

fn padded(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Messages that are sent together and answered one by one.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1024), count: 0 }
    }

    /// Adds a message. `header` is the family's fixed part; `fill` writes the attributes.
    pub fn message(&mut self, kind: u16, flags: u16, header: &[u8], fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; HEADER]);
        self.bytes.extend_from_slice(header);
        self.bytes.resize(start + HEADER + padded(header.len()), 0);
        fill(&mut Attributes { bytes: &mut self.bytes });
        let len = u32::try_from(self.bytes.len() - start).expect("a message is far below 4 GiB");
        let at = &mut self.bytes[start..start + HEADER];
        at[0..4].copy_from_slice(&len.to_ne_bytes());
        at[4..6].copy_from_slice(&kind.to_ne_bytes());
        at[6..8].copy_from_slice(&flags.to_ne_bytes());
        at[8..12].copy_from_slice(&self.count.to_ne_bytes());
        self.count += 1;
    }

    /// How many messages it holds.
    pub fn len(&self) -> u32 {
        self.count
    }

    /// The bytes to send, numbered from `first` on.
    pub(super) fn numbered(mut self, first: u32) -> Vec<u8> {
        let mut at = 0;
        while at < self.bytes.len() {
            let field = |offset: usize| -> [u8; 4] {
                self.bytes[at + offset..at + offset + 4].try_into().expect("a header was written here")
            };
            let len = u32::from_ne_bytes(field(0)) as usize;
            let number = first.wrapping_add(u32::from_ne_bytes(field(8)));
            self.bytes[at + 8..at + 12].copy_from_slice(&number.to_ne_bytes());
            at += padded(len);
        }
        self.bytes
    }
}

/// Where the attributes of one message (or of one nest) are written.
#[derive(Debug)]
pub struct Attributes<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Attributes<'_> {
    /// Raw payload.
    pub fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let len = u16::try_from(ATTRIBUTE_HEADER + payload.len()).expect("an attribute is below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        let end = padded(self.bytes.len());
        self.bytes.resize(end, 0);
        self
    }

    /// Text with its final NUL.
    pub fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// One byte.
    pub fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// 32 bits in the machine's order.
    pub fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// 32 bits, big-endian.
    pub fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A nest of attributes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) -> &mut Self {
        self.nest_with(kind | NESTED, &[], fill)
    }

    /// A nest that starts with a fixed header, as `VETH_INFO_PEER` does with an `ifinfomsg`.
    pub fn nest_with(
        &mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Attributes<'_>),
    ) -> &mut Self {
        let start = self.bytes.len();
        self.bytes(kind, header);
        fill(&mut Attributes { bytes: self.bytes });
        let len = u16::try_from(self.bytes.len() - start).expect("a nest is below 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }
}

/// One received message.
#[derive(Debug, Clone)]
pub struct Received {
    /// Message type.
    pub kind: u16,
    /// The number of the message that it answers.
    pub sequence: u32,
    /// All after the header.
    pub body: Vec<u8>,
}

/// The messages of one datagram. Stops at the first that is cut off.
pub fn messages(mut bytes: &[u8]) -> Vec<Received> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0) as usize;
        if len < HEADER || len > bytes.len() {
            break;
        }
        found.push(Received {
            kind: u16::from_ne_bytes([bytes[4], bytes[5]]),
            sequence: word(8),
            body: bytes[HEADER..len].to_vec(),
        });
        bytes = &bytes[padded(len).min(bytes.len())..];
    }
    found
}

/// The attributes of a payload, in order. Stops at the first that is cut off.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, ..] = *bytes else { return None };
        let len = usize::from(u16::from_ne_bytes([a, b]));
        if len < ATTRIBUTE_HEADER || len > bytes.len() {
            return None;
        }
        let payload = &bytes[ATTRIBUTE_HEADER..len];
        bytes = &bytes[padded(len).min(bytes.len())..];
        Some((u16::from_ne_bytes([c, d]) & TYPE_MASK, payload))
    })
}

/// The payload of the first attribute of that type.
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(k, _)| *k == kind).map(|(_, payload)| payload)
}

/// Text without its final NUL.
pub fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload.split(|b| *b == 0).next().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut batch = Batch::new();
        batch.message(16, 5, &[1, 2, 3, 4], |a| {
            a.text(3, "eth0").u32(4, 1500).nest(18, |n| {
                n.u8(1, 7);
            });
        });
        batch.message(17, 5, &[], |_| {});
        let bytes = batch.numbered(40);
        let got = messages(&bytes);
        assert_eq!(got.len(), 2);
        assert_eq!((got[0].kind, got[0].sequence), (16, 40));
        assert_eq!((got[1].kind, got[1].sequence), (17, 41));
        let body = &got[0].body[4..];
        assert_eq!(text(attribute(body, 3).unwrap()), "eth0");
        assert_eq!(attribute(body, 4).unwrap(), 1500u32.to_ne_bytes());
        assert_eq!(attribute(attribute(body, 18).unwrap(), 1).unwrap(), [7]);
        assert_eq!(attribute(body, 99), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&bytes) {
                prop_assert!(message.body.len() <= bytes.len());
                prop_assert!(attributes(&message.body).count() <= bytes.len());
            }
        }
    }
}
