//! SPDY frames with their compressed headers: however the bytes are cut, the same frames or the same error come out.
#![no_main]

use bytes::BytesMut;
use crisp_stream::spdy::frame::{Decoder, Frame, FrameError};
use libfuzzer_sys::fuzz_target;

/// All frames, pieces of data joined by stream, as the text that debugging prints.
fn decode(bytes: &[u8], cut: usize) -> (Vec<String>, Option<FrameError>) {
    let (mut decoder, mut buffer, mut frames, mut open) = (Decoder::default(), BytesMut::new(), Vec::new(), Vec::new());
    for chunk in bytes.chunks(cut.max(1)) {
        buffer.extend_from_slice(chunk);
        loop {
            match decoder.next(&mut buffer) {
                Ok(None) => break,
                Ok(Some(Frame::Data { stream, payload, fin })) => {
                    open.extend_from_slice(&payload);
                    if fin {
                        frames.push(format!("{stream} {open:?}"));
                        open.clear();
                    }
                }
                Ok(Some(frame)) => frames.push(format!("{frame:?}")),
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((cut, bytes)) = input.split_first() else { return };
    let whole = decode(bytes, bytes.len());
    let pieces = decode(bytes, usize::from(*cut));
    assert_eq!(whole, pieces);
});
