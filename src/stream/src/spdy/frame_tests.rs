use proptest::prelude::*;

use super::*;
use crate::spdy::headers::Deflater;

fn decode_all(decoder: &mut Decoder, bytes: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut buffer = BytesMut::from(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.next(&mut buffer)? {
        frames.push(frame);
    }
    Ok(frames)
}

#[test]
fn what_is_sent_is_what_is_read() {
    let headers = Headers::new([("streamtype".to_owned(), "stdin".to_owned())]);
    let mut deflater = Deflater::new().unwrap();
    let mut wire = Vec::new();
    wire.extend(syn_stream(1, true, &deflater.pack(&headers).unwrap()));
    wire.extend(syn_reply(1, &deflater.pack(&Headers::default()).unwrap()));
    wire.extend(reset(3, Reset::Refused));
    wire.extend(settings(4096));
    wire.extend(ping(7));
    wire.extend(window_update(0, 99));
    wire.extend(data_head(5, true, 3));
    wire.extend(b"abc");
    wire.extend(go_away(5, GoAway::Ok));
    let frames = decode_all(&mut Decoder::default(), &wire).unwrap();
    assert_eq!(
        frames,
        vec![
            Frame::SynStream { stream: 1, fin: true, headers },
            Frame::SynReply { stream: 1, fin: false, headers: Headers::default() },
            Frame::Reset { stream: 3, status: 3 },
            Frame::Settings { initial_window: Some(4096) },
            Frame::Ping { id: 7 },
            Frame::WindowUpdate { stream: 0, delta: 99 },
            Frame::Data { stream: 5, payload: Bytes::from_static(b"abc"), fin: true },
            Frame::GoAway { last: 5 },
        ]
    );
}

#[test]
fn a_data_frame_comes_in_pieces_and_ends_once() {
    let mut decoder = Decoder::default();
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&data_head(9, true, 6));
    assert_eq!(decoder.next(&mut buffer), Ok(None));
    buffer.extend_from_slice(b"abcd");
    let piece = |text: &'static [u8], fin| Frame::Data { stream: 9, payload: Bytes::from_static(text), fin };
    assert_eq!(decoder.next(&mut buffer), Ok(Some(piece(b"abcd", false))));
    assert_eq!(decoder.next(&mut buffer), Ok(None));
    buffer.extend_from_slice(b"ef");
    assert_eq!(decoder.next(&mut buffer), Ok(Some(piece(b"ef", true))));
    buffer.extend_from_slice(&data_head(9, true, 0));
    assert_eq!(decoder.next(&mut buffer), Ok(Some(piece(b"", true))));
}

#[test]
fn bad_frames_end_the_session() {
    let truncated = |kind: u16| FrameError::Truncated(kind);
    for (bytes, error) in [
        (vec![0, 0, 0, 0, 0, 0, 0, 1], FrameError::StreamZero),
        (vec![0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff], FrameError::TooLarge(0xff_ffff)),
        (vec![0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1], truncated(3)),
        (vec![0x80, 3, 0, 6, 0, 0, 0, 0], truncated(6)),
        (vec![0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1], truncated(1)),
        (vec![0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], truncated(4)),
    ] {
        assert_eq!(decode_all(&mut Decoder::default(), &bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn unknown_types_and_versions_are_passed_over() {
    let wire =
        [0x80, 3, 0, 99, 0, 0, 0, 1, 7, 0x80, 2, 0, 6, 0, 0, 0, 0, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    let frames = decode_all(&mut Decoder::default(), &wire).unwrap();
    assert_eq!(frames, vec![Frame::Unknown, Frame::Unknown, Frame::Ping { id: 1 }]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_all(&mut Decoder::default(), &bytes);
    }

    /// However the network cuts the bytes, the data are the same.
    #[test]
    fn cuts_do_not_matter(
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
        cuts in proptest::collection::vec(1usize..97, 1..50),
    ) {
        let mut wire = ping(1).to_vec();
        for chunk in payload.chunks(300) {
            wire.extend(data_head(1, false, chunk.len()));
            wire.extend(chunk);
        }
        let (mut decoder, mut buffer, mut out) = (Decoder::default(), BytesMut::new(), Vec::new());
        let mut rest = wire.as_slice();
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            buffer.extend_from_slice(now);
            while let Some(frame) = decoder.next(&mut buffer).unwrap() {
                if let Frame::Data { payload, .. } = frame {
                    out.extend_from_slice(&payload);
                }
            }
            rest = later;
            if rest.is_empty() { break }
        }
        prop_assert_eq!(out, payload);
    }
}
