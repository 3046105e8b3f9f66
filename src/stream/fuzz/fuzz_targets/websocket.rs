//! WebSocket frames of a client: however the bytes are cut, the same messages or the same error come out.
#![no_main]

use bytes::BytesMut;
use crisp_stream::websocket::frame::{Decoder, Event, FrameError};
use libfuzzer_sys::fuzz_target;

fn decode(bytes: &[u8], cut: usize) -> (Vec<String>, Option<FrameError>) {
    let (mut decoder, mut buffer, mut events, mut open) = (Decoder::default(), BytesMut::new(), Vec::new(), Vec::new());
    for chunk in bytes.chunks(cut.max(1)) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Event::Data { text, payload, last, .. })) => {
                    open.extend_from_slice(&payload);
                    if last {
                        events.push(format!("{text} {open:?}"));
                        open.clear();
                    }
                }
                Ok(Some(event)) => events.push(format!("{event:?}")),
                Err(error) => return (events, Some(error)),
            }
        }
    }
    (events, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = decode(bytes, bytes.len());
    let pieces = decode(bytes, usize::from(*cut));
    assert_eq!(whole, pieces);
});
