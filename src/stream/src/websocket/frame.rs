//! The frames of WebSocket: a client's bytes to [`Event`]s, and the heads of our own frames. No I/O.
//!
//! Messages come out in pieces as they arrive, unmasked, so no message needs to fit into memory.

use bytes::{Buf, Bytes, BytesMut};

use crate::outlet::Head;

/// The payload of a control frame (RFC 6455, 5.5).
const MAX_CONTROL: usize = 125;

/// The normal end.
pub const CLOSE_NORMAL: u16 = 1000;
/// The peer broke the rules.
pub const CLOSE_PROTOCOL: u16 = 1002;

/// Kinds of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The message goes on.
    Continuation = 0,
    /// A message of UTF-8.
    Text = 1,
    /// A message of bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// To be answered by a pong.
    Ping = 9,
    /// The answer to a ping.
    Pong = 10,
}

impl Opcode {
    fn parse(bits: u8) -> Result<Self, FrameError> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            other => return Err(FrameError::Opcode(other)),
        })
    }

    fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message, possibly empty.
    Data {
        /// The message is text.
        text: bool,
        /// The first piece of a message.
        first: bool,
        /// The bytes.
        payload: Bytes,
        /// The last piece of a message.
        last: bool,
    },
    /// To be sent back in a pong.
    Ping(Bytes),
    /// An answer.
    Pong,
    /// The client closes the connection, with its reason.
    Close(Option<u16>),
}

/// Why bytes are not a client's frame. Each of them ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Clients must mask what they send.
    #[error("an unmasked frame")]
    Unmasked,
    /// An extension that was not agreed on.
    #[error("a reserved bit is set")]
    Reserved,
    /// An opcode that does not exist.
    #[error("opcode {0}")]
    Opcode(u8),
    /// A control frame that is long or in pieces.
    #[error("a control frame that is long or in pieces")]
    Control,
    /// A message within a message, or a continuation of nothing.
    #[error("a continuation without a start, or a start within a message")]
    Sequence,
    /// A length with its highest bit set.
    #[error("a length of more than 63 bits")]
    Length,
}

#[derive(Debug)]
struct Unfinished {
    fin: bool,
    left: u64,
    mask: [u8; 4],
    first: bool,
}

/// Turns a client's bytes into events.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The frame whose payload is arriving.
    frame: Option<Unfinished>,
    /// Within a message: whether it is text.
    message: Option<bool>,
}

impl Decoder {
    /// Takes the next event from the front of `buffer`; `None` when more bytes are needed.
    pub fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Event>, FrameError> {
        if let Some(frame) = self.frame.take() {
            return Ok(self.piece(frame, buffer));
        }
        let Some(head) = parse_head(buffer)? else { return Ok(None) };
        if head.opcode.is_control() {
            return Ok(control(&head, buffer));
        }
        let first = head.opcode != Opcode::Continuation;
        if first == self.message.is_some() {
            return Err(FrameError::Sequence);
        }
        if first {
            self.message = Some(head.opcode == Opcode::Text);
        }
        buffer.advance(head.size);
        let frame = Unfinished { fin: head.fin, left: head.length, mask: head.mask, first };
        Ok(self.piece(frame, buffer))
    }

    fn piece(&mut self, mut frame: Unfinished, buffer: &mut BytesMut) -> Option<Event> {
        let size = usize::try_from(frame.left).unwrap_or(usize::MAX).min(buffer.len());
        if size == 0 && frame.left > 0 {
            self.frame = Some(frame);
            return None;
        }
        let mut payload = buffer.split_to(size);
        unmask(&mut payload, frame.mask);
        frame.mask.rotate_left(size % 4);
        frame.left -= size as u64;
        let last = frame.fin && frame.left == 0;
        let text = self.message == Some(true);
        let event = Event::Data { text, first: frame.first, payload: payload.freeze(), last };
        if last {
            self.message = None;
        }
        frame.first = false;
        if frame.left > 0 {
            self.frame = Some(frame);
        }
        Some(event)
    }
}

#[derive(Debug)]
struct FrameHead {
    fin: bool,
    opcode: Opcode,
    length: u64,
    mask: [u8; 4],
    size: usize,
}

fn parse_head(buffer: &[u8]) -> Result<Option<FrameHead>, FrameError> {
    let [first, second, ..] = *buffer else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(FrameError::Reserved);
    }
    if second & 0x80 == 0 {
        return Err(FrameError::Unmasked);
    }
    let opcode = Opcode::parse(first & 0x0f)?;
    let fin = first & 0x80 != 0;
    let short = second & 0x7f;
    if opcode.is_control() && (!fin || usize::from(short) > MAX_CONTROL) {
        return Err(FrameError::Control);
    }
    let after = &buffer[2..];
    let (length, wide) = match short {
        126 => match after.first_chunk::<2>() {
            Some(bytes) => (u64::from(u16::from_be_bytes(*bytes)), 2),
            None => return Ok(None),
        },
        127 => match after.first_chunk::<8>() {
            Some(bytes) => (u64::from_be_bytes(*bytes), 8),
            None => return Ok(None),
        },
        short => (u64::from(short), 0),
    };
    if length >> 63 != 0 {
        return Err(FrameError::Length);
    }
    let Some(mask) = after[wide..].first_chunk::<4>() else { return Ok(None) };
    Ok(Some(FrameHead { fin, opcode, length, mask: *mask, size: 2 + wide + 4 }))
}

fn control(head: &FrameHead, buffer: &mut BytesMut) -> Option<Event> {
    let length = usize::try_from(head.length).unwrap_or(MAX_CONTROL);
    if buffer.len() < head.size + length {
        return None;
    }
    buffer.advance(head.size);
    let mut payload = buffer.split_to(length);
    unmask(&mut payload, head.mask);
    Some(match head.opcode {
        Opcode::Ping => Event::Ping(payload.freeze()),
        Opcode::Close => Event::Close(payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code))),
        _ => Event::Pong,
    })
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = payload.chunks_exact_mut(8);
    for word in &mut words {
        let bytes = [word[0], word[1], word[2], word[3], word[4], word[5], word[6], word[7]];
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
    }
}

/// The head of a whole, unmasked message of `length` bytes.
pub(crate) fn head(opcode: Opcode, length: usize) -> Head {
    let first = 0x80 | opcode as u8;
    if length < 126 {
        return Head::new(&[first, length as u8]);
    }
    if let Ok(short) = u16::try_from(length) {
        let [a, b] = short.to_be_bytes();
        return Head::new(&[first, 126, a, b]);
    }
    let mut head = Head::new(&[first, 127]);
    for byte in (length as u64).to_be_bytes() {
        head.push(byte);
    }
    head
}

/// A whole control frame of ours.
fn control_frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    let mut frame = BytesMut::from(head(opcode, payload.len()).as_slice());
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// The answer to a ping.
pub fn pong(payload: &[u8]) -> Bytes {
    control_frame(Opcode::Pong, payload)
}

/// The end of the connection.
pub fn close(code: u16) -> Bytes {
    control_frame(Opcode::Close, &code.to_be_bytes())
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
