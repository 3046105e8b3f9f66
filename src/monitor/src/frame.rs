//! Frames: a little-endian `u32` length and that many bytes of JSON.
//!
//! Pure: bytes in, values out. One frame is one `sendmsg`, so the descriptors that come with the four bytes of a header are
//! those of its frame. Nothing a peer sends may make the reader reserve more than [`MAX_FRAME`].

use serde::{Serialize, de::DeserializeOwned};

use crate::protocol::MAX_FRAME;

/// Bytes of the length.
pub const HEADER: usize = 4;

/// Why bytes are not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes: at most {MAX_FRAME} are taken")]
    TooLong(usize),
    /// Not the JSON of a message.
    #[error("not a message: {0}")]
    Json(#[from] serde_json::Error),
}

/// Length of the frame that `header` announces.
pub fn length(header: [u8; HEADER]) -> Result<usize, FrameError> {
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME { Err(FrameError::TooLong(length)) } else { Ok(length) }
}

/// `message` with its header.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEADER;
    match u32::try_from(length) {
        Ok(header) if length <= MAX_FRAME => bytes[..HEADER].copy_from_slice(&header.to_le_bytes()),
        _ => return Err(FrameError::TooLong(length)),
    }
    Ok(bytes)
}

/// The message in a frame's body.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Call, Request};

    #[test]
    fn what_is_encoded_is_decoded() {
        let bytes = encode(&Call { seq: 7, request: Request::Shutdown }).unwrap();
        let (header, body) = bytes.split_at(HEADER);
        assert_eq!(length(header.try_into().unwrap()).unwrap(), body.len());
        let call: Call = decode(body).unwrap();
        assert_eq!(call.seq, 7);
        assert!(matches!(call.request, Request::Shutdown));
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused() {
        assert!(matches!(length(u32::MAX.to_le_bytes()), Err(FrameError::TooLong(_))));
        assert!(length((MAX_FRAME as u32).to_le_bytes()).is_ok());
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in [&b""[..], b"{", b"[]", b"{\"seq\":1}", b"{\"seq\":-1,\"request\":\"state\"}"] {
            assert!(decode::<Call>(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
