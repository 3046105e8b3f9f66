use proptest::prelude::*;

use super::*;

/// A client's frame.
fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n < 65536 => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, k)| b ^ k));
    out
}

fn events(bytes: &[u8]) -> Result<Vec<Event>, FrameError> {
    let (mut decoder, mut buffer, mut out) = (Decoder::default(), BytesMut::from(bytes), Vec::new());
    while let Some(event) = decoder.next(&mut buffer)? {
        out.push(event);
    }
    Ok(out)
}

fn data(text: bool, first: bool, payload: &'static [u8], last: bool) -> Event {
    Event::Data { text, first, payload: Bytes::from_static(payload), last }
}

#[test]
fn messages_in_frames_with_control_frames_between() {
    let mut wire = masked(0x02, b"hel", [1, 2, 3, 4]);
    wire.extend(masked(0x89, b"ping", [9, 9, 9, 9]));
    wire.extend(masked(0x80, b"lo", [4, 3, 2, 1]));
    wire.extend(masked(0x81, b"", [0; 4]));
    wire.extend(masked(0x8a, b"", [0; 4]));
    wire.extend(masked(0x88, &1000u16.to_be_bytes(), [7; 4]));
    assert_eq!(
        events(&wire).unwrap(),
        vec![
            data(false, true, b"hel", false),
            Event::Ping(Bytes::from_static(b"ping")),
            data(false, false, b"lo", true),
            data(true, true, b"", true),
            Event::Pong,
            Event::Close(Some(1000)),
        ]
    );
    assert_eq!(events(&masked(0x88, b"", [0; 4])).unwrap(), vec![Event::Close(None)]);
}

#[test]
fn bad_frames() {
    for (bytes, error) in [
        (vec![0x82, 0x01, 0], FrameError::Unmasked),
        (masked(0xc2, b"", [0; 4]), FrameError::Reserved),
        (masked(0x83, b"", [0; 4]), FrameError::Opcode(3)),
        (masked(0x09, b"", [0; 4]), FrameError::Control),
        (masked(0x89, &[0; 126], [0; 4]), FrameError::Control),
        (masked(0x80, b"x", [0; 4]), FrameError::Sequence),
        ([masked(0x02, b"a", [0; 4]), masked(0x82, b"b", [0; 4])].concat(), FrameError::Sequence),
        (vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], FrameError::Length),
    ] {
        assert_eq!(events(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn heads_of_every_length() {
    for (length, expected) in [
        (0, vec![0x82, 0]),
        (125, vec![0x82, 125]),
        (126, vec![0x82, 126, 0, 126]),
        (65535, vec![0x82, 126, 0xff, 0xff]),
        (65536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
    ] {
        assert_eq!(head(Opcode::Binary, length).as_slice(), expected, "{length}");
    }
    assert_eq!(&close(1000)[..], [0x88, 2, 0x03, 0xe8]);
    assert_eq!(&pong(b"x")[..], [0x8a, 1, b'x']);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = events(&bytes);
    }

    /// However the network cuts the bytes and the client its messages, the data are the same.
    #[test]
    fn cuts_do_not_matter(
        payload in proptest::collection::vec(any::<u8>(), 1..70_000),
        mask in any::<[u8; 4]>(),
        frames in 1usize..9,
        cuts in proptest::collection::vec(1usize..999, 1..50),
    ) {
        let size = payload.len().div_ceil(frames);
        let count = payload.chunks(size).len();
        let mut wire = Vec::new();
        for (i, chunk) in payload.chunks(size).enumerate() {
            let opcode = if i == 0 { 2 } else { 0 };
            let fin = if i + 1 == count { 0x80 } else { 0 };
            wire.extend(masked(fin | opcode, chunk, mask));
        }
        let (mut decoder, mut buffer, mut out, mut ends) = (Decoder::default(), BytesMut::new(), Vec::new(), 0);
        let mut rest = wire.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(now);
            while let Some(event) = decoder.next(&mut buffer).unwrap() {
                let Event::Data { payload, first, last, .. } = event else { unreachable!() };
                prop_assert_eq!(first, out.is_empty());
                out.extend_from_slice(&payload);
                ends += usize::from(last);
            }
            rest = later;
            if rest.is_empty() { break }
        }
        prop_assert_eq!(out, payload);
        prop_assert_eq!(ends, 1);
    }
}
