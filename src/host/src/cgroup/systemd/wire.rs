//! The part of the D-Bus wire format that is needed (D-Bus specification, type system and message protocol):
//! little-endian, no descriptors.

/// Bytes of a message from which its length can be told.
pub(super) const START: usize = 16;

/// Whom a call is for.
#[derive(Debug)]
pub(super) struct Header<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
}

/// A value of a property, or an argument of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    String(String),
    Boolean(bool),
    U32(u32),
    U64(u64),
    U32s(Vec<u32>),
    Bytes(Vec<u8>),
}

impl Value {
    fn signature(&self) -> &'static str {
        match self {
            Self::String(_) => "s",
            Self::Boolean(_) => "b",
            Self::U32(_) => "u",
            Self::U64(_) => "t",
            Self::U32s(_) => "au",
            Self::Bytes(_) => "ay",
        }
    }
}

/// A body in the making. The offsets that alignment counts from are those of the body, which begins aligned.
#[derive(Debug)]
pub(super) struct Body {
    signature: &'static str,
    bytes: Vec<u8>,
}

impl Body {
    pub(super) fn new(signature: &'static str) -> Self {
        Self { signature, bytes: Vec::new() }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    fn u32(&mut self, value: u32) {
        self.align(4);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.u32(u32::from(value));
    }

    pub(super) fn string(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
    }

    /// An array whose elements are aligned so. Its length does not count the padding before the first of them.
    pub(super) fn array(&mut self, alignment: usize, elements: impl FnOnce(&mut Self)) {
        self.u32(0);
        let length_at = self.bytes.len() - 4;
        self.align(alignment);
        let start = self.bytes.len();
        elements(self);
        let length = u32::try_from(self.bytes.len() - start).unwrap_or(u32::MAX);
        self.bytes[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Boolean(value) => self.boolean(*value),
            Value::U32(value) => self.u32(*value),
            Value::U64(value) => {
                self.align(8);
                self.bytes.extend_from_slice(&value.to_le_bytes());
            }
            Value::U32s(all) => self.array(4, |body| all.iter().for_each(|value| body.u32(*value))),
            Value::Bytes(all) => self.array(1, |body| body.bytes.extend_from_slice(all)),
        }
    }

    /// A structure of a name and a variant.
    pub(super) fn property(&mut self, name: &str, value: &Value) {
        self.align(8);
        self.string(name);
        self.signature(value.signature());
        self.value(value);
    }
}

/// Kinds of messages that matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    Return,
    Error,
    Signal,
    Other,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) kind: MessageKind,
    pub(super) reply_to: Option<u32>,
    pub(super) error_name: Option<String>,
    pub(super) member: Option<String>,
    /// Its arguments up to the first of a type that is not needed here.
    pub(super) values: Vec<Value>,
}

impl Message {
    pub(super) fn first_string(&self) -> Option<&str> {
        match self.values.first() {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }
}

const METHOD_CALL: u8 = 1;
const VERSION: u8 = 1;
// Codes of header fields.
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

/// The bytes of a method call.
pub(super) fn call(header: &Header<'_>, serial: u32, body: &Body) -> Vec<u8> {
    let mut out = Body::new("");
    out.bytes.extend_from_slice(&[b'l', METHOD_CALL, 0, VERSION]);
    out.u32(u32::try_from(body.bytes.len()).unwrap_or(u32::MAX));
    out.u32(serial);
    out.array(8, |out| {
        let fields = [
            (PATH, "o", header.path),
            (INTERFACE, "s", header.interface),
            (MEMBER, "s", header.member),
            (DESTINATION, "s", header.destination),
        ];
        for (code, kind, text) in fields {
            out.align(8);
            out.bytes.push(code);
            out.signature(kind);
            out.string(text);
        }
        if !body.signature.is_empty() {
            out.align(8);
            out.bytes.push(SIGNATURE);
            out.signature("g");
            out.signature(body.signature);
        }
    });
    out.align(8);
    out.bytes.extend_from_slice(&body.bytes);
    out.bytes
}

/// How many bytes follow the first [`START`]; `None`: this is no message that we can read.
pub(super) fn rest_length(start: &[u8; START]) -> Option<usize> {
    let number = |at: usize| Some(u32::from_le_bytes(start.get(at..at + 4)?.try_into().ok()?) as usize);
    if start[0] != b'l' || start[3] != VERSION {
        return None;
    }
    let fields = number(12)?.checked_next_multiple_of(8)?;
    fields.checked_add(number(4)?)
}

/// A whole message; `None`: it is damaged.
pub(super) fn parse(bytes: &[u8]) -> Option<Message> {
    let start: &[u8; START] = bytes.get(..START)?.try_into().ok()?;
    let rest = rest_length(start)?;
    let mut reader = Reader { bytes, at: 12 };
    let fields = reader.u32()? as usize;
    let end = START.checked_add(fields)?;
    let kind = match start[1] {
        2 => MessageKind::Return,
        3 => MessageKind::Error,
        4 => MessageKind::Signal,
        _ => MessageKind::Other,
    };
    let mut message = Message { kind, reply_to: None, error_name: None, member: None, values: Vec::new() };
    let mut signature = String::new();
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?;
        match (code, kind.as_str()) {
            (REPLY_SERIAL, "u") => message.reply_to = Some(reader.u32()?),
            (ERROR_NAME, "s") => message.error_name = Some(reader.string()?),
            (MEMBER, "s") => message.member = Some(reader.string()?),
            (SIGNATURE, "g") => signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.string()?),
            (_, "g") => drop(reader.signature()?),
            (_, "u") => drop(reader.u32()?),
            _ => return None,
        }
    }
    // The body begins at a multiple of eight, so its own alignment is that of the whole.
    reader.at = end.checked_next_multiple_of(8)?;
    if bytes.len() < START + rest {
        return None;
    }
    for kind in signature.chars() {
        message.values.push(match kind {
            's' | 'o' => Value::String(reader.string()?),
            'u' => Value::U32(reader.u32()?),
            'b' => Value::Boolean(reader.u32()? != 0),
            _ => break,
        });
    }
    Some(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.align(4);
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn text(&mut self, length: usize) -> Option<String> {
        let text = self.take(length)?.to_vec();
        (self.byte()? == 0).then_some(())?;
        String::from_utf8(text).ok()
    }

    fn string(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        self.text(length)
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.byte()?);
        self.text(length)
    }
}
