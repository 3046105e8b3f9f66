//! The frames of SPDY/3.1: bytes to [`Frame`] and back. No I/O, no state but the header compression.
//!
//! Data frames come out in pieces, as far as they have arrived, so that a 16 MiB frame needs no 16 MiB of memory.

use bytes::{Buf, Bytes, BytesMut};

use super::headers::{HeaderError, Headers, Inflater};

/// Bytes of a control frame's body. The largest we understand holds a compressed header block.
pub const MAX_CONTROL: usize = 32 * 1024;

const VERSION: u16 = 3;
const FLAG_FIN: u8 = 1;
const SETTING_INITIAL_WINDOW: u32 = 7;

/// The number of a stream: odd for those of the client.
pub type StreamId = u32;

/// Why a stream ends at once (SPDY draft 3.1, 2.6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Reset {
    /// The peer broke the rules.
    Protocol = 1,
    /// A frame for a stream that does not exist.
    InvalidStream = 2,
    /// The stream is refused, nothing was done.
    Refused = 3,
    /// The creator does not need it any more.
    Cancel = 5,
    /// Our own failure.
    Internal = 6,
    /// The peer ignores the windows.
    FlowControl = 7,
}

/// Why a session ends (SPDY draft 3.1, 2.6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum GoAway {
    /// It is over.
    Ok = 0,
    /// The peer broke the rules.
    Protocol = 1,
}

/// What a peer sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A new stream.
    SynStream {
        /// Its number.
        stream: StreamId,
        /// The peer sends nothing on it.
        fin: bool,
        /// What it is for.
        headers: Headers,
    },
    /// The answer to a stream of ours.
    SynReply {
        /// The stream.
        stream: StreamId,
        /// The peer sends nothing on it.
        fin: bool,
        /// The peer's headers.
        headers: Headers,
    },
    /// The end of a stream in both directions.
    Reset {
        /// The stream.
        stream: StreamId,
        /// The peer's reason, as sent.
        status: u32,
    },
    /// The peer's wishes; only the initial window is of interest.
    Settings {
        /// Bytes that may be in flight on each stream.
        initial_window: Option<u32>,
    },
    /// To be sent back if its number is odd.
    Ping {
        /// The number.
        id: u32,
    },
    /// The peer opens no further stream.
    GoAway {
        /// The last stream the peer has dealt with.
        last: StreamId,
    },
    /// More headers for a stream; nobody uses them, but the compression state needs them.
    Headers {
        /// The stream.
        stream: StreamId,
        /// The peer sends nothing any more.
        fin: bool,
        /// The headers.
        headers: Headers,
    },
    /// Room for more data.
    WindowUpdate {
        /// The stream, or 0 for the session.
        stream: StreamId,
        /// Bytes of room.
        delta: u32,
    },
    /// A piece of a data frame.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes, possibly none.
        payload: Bytes,
        /// The last piece of the last frame: the peer sends nothing any more.
        fin: bool,
    },
    /// A control frame of a type that is not known, or of another version. To be ignored.
    Unknown,
}

/// Why bytes are not a frame. Each of them ends the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A control frame that is longer than [`MAX_CONTROL`].
    #[error("a control frame of {0} bytes")]
    TooLarge(usize),
    /// A body that is too short for its type.
    #[error("a control frame of type {0} is too short")]
    Truncated(u16),
    /// A frame on stream 0.
    #[error("a frame of stream 0")]
    StreamZero,
    /// The header block.
    #[error(transparent)]
    Headers(#[from] HeaderError),
}

#[derive(Debug)]
struct Unfinished {
    stream: StreamId,
    fin: bool,
    left: usize,
}

/// Turns the peer's bytes into frames.
#[derive(Debug, Default)]
pub struct Decoder {
    inflater: Inflater,
    data: Option<Unfinished>,
}

impl Decoder {
    /// Takes the next frame, or piece of a data frame, from the front of `buffer`; `None` when more bytes are needed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if let Some(data) = self.data.take() {
            return Ok(self.piece(data, buffer));
        }
        let Some(head) = buffer.first_chunk::<8>() else { return Ok(None) };
        let first = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        if first & 0x8000_0000 == 0 {
            if first == 0 {
                return Err(FrameError::StreamZero);
            }
            buffer.advance(8);
            let data = Unfinished { stream: first, fin: flags & FLAG_FIN != 0, left: length };
            return Ok(self.piece(data, buffer));
        }
        if length > MAX_CONTROL {
            return Err(FrameError::TooLarge(length));
        }
        if buffer.len() < 8 + length {
            return Ok(None);
        }
        buffer.advance(8);
        let body = buffer.split_to(length);
        let version = (first >> 16) as u16 & 0x7fff;
        self.control(version, (first & 0xffff) as u16, flags, &body).map(Some)
    }

    fn piece(&mut self, mut data: Unfinished, buffer: &mut BytesMut) -> Option<Frame> {
        let size = data.left.min(buffer.len());
        if size == 0 && data.left > 0 {
            self.data = Some(data);
            return None;
        }
        data.left -= size;
        let payload = buffer.split_to(size).freeze();
        let frame = Frame::Data { stream: data.stream, payload, fin: data.fin && data.left == 0 };
        if data.left > 0 {
            self.data = Some(data);
        }
        Some(frame)
    }

    fn control(&mut self, version: u16, kind: u16, flags: u8, body: &[u8]) -> Result<Frame, FrameError> {
        let word = |at: usize| -> Result<u32, FrameError> {
            let bytes = body.get(at..at + 4).and_then(|b| b.first_chunk::<4>());
            Ok(u32::from_be_bytes(*bytes.ok_or(FrameError::Truncated(kind))?))
        };
        let stream = |at: usize| Ok::<_, FrameError>(word(at)? & 0x7fff_ffff);
        let existing = |at: usize| match stream(at)? {
            0 => Err(FrameError::StreamZero),
            id => Ok(id),
        };
        let fin = flags & FLAG_FIN != 0;
        let mut headers = |at: usize| -> Result<Headers, FrameError> {
            let packed = body.get(at..).ok_or(FrameError::Truncated(kind))?;
            Ok(Headers::parse(&self.inflater.unpack(packed)?)?)
        };
        if version != VERSION {
            return Ok(Frame::Unknown);
        }
        Ok(match kind {
            1 => Frame::SynStream { stream: existing(0)?, fin, headers: headers(10)? },
            2 => Frame::SynReply { stream: existing(0)?, fin, headers: headers(4)? },
            3 => Frame::Reset { stream: existing(0)?, status: word(4)? },
            4 => Frame::Settings { initial_window: initial_window(body, kind)? },
            6 => Frame::Ping { id: word(0)? },
            7 => Frame::GoAway { last: stream(0)? },
            8 => Frame::Headers { stream: existing(0)?, fin, headers: headers(4)? },
            9 => Frame::WindowUpdate { stream: stream(0)?, delta: word(4)? & 0x7fff_ffff },
            _ => Frame::Unknown,
        })
    }
}

fn initial_window(body: &[u8], kind: u16) -> Result<Option<u32>, FrameError> {
    let (count, entries) = body.split_first_chunk::<4>().ok_or(FrameError::Truncated(kind))?;
    let count = u32::from_be_bytes(*count) as usize;
    if entries.len() / 8 < count {
        return Err(FrameError::Truncated(kind));
    }
    let id = |e: &[u8]| u32::from_be_bytes([0, e[1], e[2], e[3]]);
    let value = |e: &[u8]| u32::from_be_bytes([e[4], e[5], e[6], e[7]]);
    let found = entries.chunks_exact(8).take(count).rfind(|e| id(e) == SETTING_INITIAL_WINDOW);
    Ok(found.map(value))
}

fn control(kind: u16, flags: u8, parts: &[&[u8]]) -> Bytes {
    let length: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = Vec::with_capacity(8 + length);
    out.extend_from_slice(&(0x8000 | VERSION).to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&((u32::from(flags) << 24) | length as u32).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.into()
}

/// A new stream of ours (tests and clients).
pub fn syn_stream(stream: StreamId, fin: bool, packed: &[u8]) -> Bytes {
    control(1, u8::from(fin), &[&stream.to_be_bytes(), &[0; 6], packed])
}

/// The answer to a new stream.
pub fn syn_reply(stream: StreamId, packed: &[u8]) -> Bytes {
    control(2, 0, &[&stream.to_be_bytes(), packed])
}

/// The end of a stream.
pub fn reset(stream: StreamId, status: Reset) -> Bytes {
    control(3, 0, &[&stream.to_be_bytes(), &(status as u32).to_be_bytes()])
}

/// The initial window of each stream.
pub fn settings(initial_window: u32) -> Bytes {
    let id = SETTING_INITIAL_WINDOW.to_be_bytes();
    control(4, 0, &[&1u32.to_be_bytes(), &id, &initial_window.to_be_bytes()])
}

/// A ping, or the answer to one.
pub fn ping(id: u32) -> Bytes {
    control(6, 0, &[&id.to_be_bytes()])
}

/// The end of the session.
pub fn go_away(last: StreamId, status: GoAway) -> Bytes {
    control(7, 0, &[&last.to_be_bytes(), &(status as u32).to_be_bytes()])
}

/// Room for more data on a stream, or (0) on the session.
pub fn window_update(stream: StreamId, delta: u32) -> Bytes {
    control(9, 0, &[&stream.to_be_bytes(), &delta.to_be_bytes()])
}

/// The eight bytes in front of `length` bytes of data. `length` is below 2^24.
pub fn data_head(stream: StreamId, fin: bool, length: usize) -> [u8; 8] {
    let [a, b, c, d] = stream.to_be_bytes();
    let [_, x, y, z] = (length as u32).to_be_bytes();
    [a, b, c, d, u8::from(fin), x, y, z]
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
