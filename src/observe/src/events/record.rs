//! An event as bytes in the ring's files.
//!
//! ```text
//! u32 length of the body, u32 checksum of the body (both little-endian)
//! body: u64 sequence, i64 created_at, u8 kind, u8 has container, 32 bytes sandbox, [32 bytes container]
//! ```

use crisp_model::time::Timestamp;

use super::{Event, EventKind, NewEvent};

/// Length and checksum.
pub(super) const HEADER: usize = 8;
const FIXED: usize = 8 + 8 + 1 + 1;
const ID: usize = 32;

/// The whole record.
pub(super) fn encode(event: &Event) -> Vec<u8> {
    let e = &event.event;
    let mut out = Vec::with_capacity(HEADER + FIXED + 2 * ID);
    out.extend_from_slice(&[0; HEADER]);
    out.extend_from_slice(&event.sequence.to_le_bytes());
    out.extend_from_slice(&e.created_at.nanos().to_le_bytes());
    out.push(match e.kind {
        EventKind::Created => 0,
        EventKind::Started => 1,
        EventKind::Stopped => 2,
        EventKind::Deleted => 3,
    });
    out.push(u8::from(e.container.is_some()));
    out.extend_from_slice(&packed(e.sandbox.as_str()));
    if let Some(container) = &e.container {
        out.extend_from_slice(&packed(container.as_str()));
    }
    let length = u32::try_from(out.len() - HEADER).unwrap_or(u32::MAX);
    let sum = checksum(&out[HEADER..]);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out[4..HEADER].copy_from_slice(&sum.to_le_bytes());
    out
}

/// The length of the body that a header announces, and its checksum.
pub(super) fn header(bytes: [u8; HEADER]) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = bytes;
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// The event of a body whose checksum was compared; `None`: it is none.
pub(super) fn decode(body: &[u8]) -> Option<Event> {
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let (created_at, rest) = rest.split_first_chunk::<8>()?;
    let ([kind, has_container], rest) = rest.split_first_chunk::<2>()?;
    let kind = match kind {
        0 => EventKind::Created,
        1 => EventKind::Started,
        2 => EventKind::Stopped,
        3 => EventKind::Deleted,
        _ => return None,
    };
    let (sandbox, rest) = rest.split_first_chunk::<ID>()?;
    let container = match *has_container {
        1 => Some(unpacked(rest.first_chunk::<ID>()?).parse().ok()?),
        _ => None,
    };
    Some(Event {
        sequence: u64::from_le_bytes(*sequence),
        event: NewEvent {
            sandbox: unpacked(sandbox).parse().ok()?,
            container,
            kind,
            created_at: Timestamp(i64::from_le_bytes(*created_at)),
        },
    })
}

/// FNV-1a: tells a record from one that was half-written; nobody forges them.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The bytes of an id's hexadecimal digits.
fn packed(id: &str) -> [u8; ID] {
    let digit = |b: u8| if b.is_ascii_digit() { b - b'0' } else { (b | 0x20).wrapping_sub(b'a') + 10 };
    let mut out = [0; ID];
    for (byte, pair) in out.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    out
}

fn unpacked(bytes: &[u8; ID]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]].map(char::from))
        .collect()
}

#[cfg(test)]
mod tests {
    use crisp_model::{ContainerId, SandboxId};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(
            sequence in any::<u64>(), at in any::<i64>(), with in any::<bool>(),
        ) {
            let event = Event {
                sequence,
                event: NewEvent {
                    sandbox: SandboxId::random(),
                    container: with.then(ContainerId::random),
                    kind: EventKind::Stopped,
                    created_at: Timestamp(at),
                },
            };
            let bytes = encode(&event);
            let (length, sum) = header(bytes[..HEADER].try_into().unwrap());
            prop_assert_eq!(length as usize, bytes.len() - HEADER);
            prop_assert_eq!(sum, checksum(&bytes[HEADER..]));
            prop_assert_eq!(decode(&bytes[HEADER..]), Some(event));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
