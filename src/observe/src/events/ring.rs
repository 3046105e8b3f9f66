//! The last events, in files.
//!
//! Segments `events-<number>` are appended to and thrown away whole, the oldest first. In memory there is only where each event is.
//! Nothing is synced: the files have to outlive the process, not the machine.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Event, NewEvent, record};

const PREFIX: &str = "events-";

/// Largest record taken from a file; a larger length means that the file is damaged. Above any answer that a gRPC
/// client accepts.
const MAX_RECORD: u32 = 16 << 20;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A segment that is longer is followed by a new one, bytes.
    pub(super) segment: u64,
    /// Number of segments.
    pub(super) segments: usize,
    /// Number of events (24 bytes of memory each).
    pub(super) events: usize,
    /// Number of events in memory while no file can be written.
    pub(super) in_memory: usize,
}

impl Default for Limits {
    /// 8 MiB: two thousand events with a pod's whole state each, several times what a node full of pods makes when all
    /// of them start at once.
    fn default() -> Self {
        Self { segment: 1 << 20, segments: 8, events: 16_384, in_memory: 256 }
    }
}

#[derive(Debug)]
pub(super) struct Ring {
    dir: PathBuf,
    limits: Limits,
    segments: VecDeque<Segment>,
    /// Of the event `oldest`, `oldest + 1`, and so on.
    places: VecDeque<Place>,
    oldest: u64,
    in_memory: usize,
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    length: u64,
}

#[derive(Debug)]
enum Place {
    File { segment: u64, offset: u64, length: u32 },
    Memory(Arc<Event>),
}

impl Ring {
    /// Reads the places of what is there and goes on behind it.
    pub(super) fn open(dir: &Path, limits: Limits) -> io::Result<Self> {
        let mut numbers: Vec<u64> = Vec::new();
        for entry in fs::read_dir(dir)? {
            let name = entry?.file_name();
            numbers.extend(
                name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.parse::<u64>().ok()),
            );
        }
        numbers.sort_unstable();
        let mut ring = Self {
            dir: dir.to_owned(),
            limits,
            segments: VecDeque::new(),
            places: VecDeque::new(),
            oldest: 1,
            in_memory: 0,
        };
        for number in numbers {
            if let Err(error) = ring.load(number) {
                tracing::warn!(segment = number, %error, "an event segment is passed over");
            }
        }
        ring.trim();
        Ok(ring)
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.oldest + self.places.len() as u64
    }

    /// The first that can be read; the next one if there is none.
    pub(super) fn oldest_sequence(&self) -> u64 {
        self.oldest
    }

    /// Gives the event its sequence and keeps it.
    pub(super) fn push(&mut self, event: NewEvent) -> u64 {
        let sequence = self.next_sequence();
        let event = Event { sequence, event };
        let place = self.append(&record::encode(&event)).unwrap_or_else(|error| {
            tracing::warn!(%error, "the event ring cannot be written; events are kept in memory");
            self.in_memory += 1;
            Place::Memory(Arc::new(event))
        });
        self.places.push_back(place);
        self.trim();
        sequence
    }

    /// `None`: it is not there yet, or no more.
    pub(super) fn read(&self, sequence: u64) -> Option<io::Result<Event>> {
        let index = usize::try_from(sequence.checked_sub(self.oldest)?).ok()?;
        Some(match self.places.get(index)? {
            Place::Memory(event) => Ok(event.as_ref().clone()),
            Place::File { segment, offset, length } => self.read_file(*segment, *offset, *length, sequence),
        })
    }

    fn read_file(&self, segment: u64, offset: u64, length: u32, sequence: u64) -> io::Result<Event> {
        let segment =
            self.segments.iter().find(|s| s.number == segment).ok_or(io::Error::from(ErrorKind::NotFound))?;
        let mut body = vec![0; length as usize];
        segment.file.read_exact_at(&mut body, offset)?;
        record::decode(&body)
            .filter(|event| event.sequence == sequence)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the record is damaged"))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<Place> {
        let length = u32::try_from(bytes.len() - record::HEADER)
            .ok()
            .filter(|length| *length <= MAX_RECORD)
            .ok_or(io::Error::from(ErrorKind::InvalidInput))?;
        if self.segments.back().is_none_or(|s| s.length >= self.limits.segment) {
            let number = self.segments.back().map_or(1, |s| s.number + 1);
            let segment = Segment { number, file: self.open_segment(number)?, length: 0 };
            self.segments.push_back(segment);
        }
        let segment = self.segments.back_mut().ok_or(io::Error::from(ErrorKind::NotFound))?;
        let start = segment.length;
        // At a fixed place: what a failed write left behind is written over by the next.
        segment.file.write_all_at(bytes, start)?;
        segment.length += bytes.len() as u64;
        Ok(Place::File { segment: segment.number, offset: start + record::HEADER as u64, length })
    }

    fn open_segment(&self, number: u64) -> io::Result<File> {
        let path = self.dir.join(format!("{PREFIX}{number}"));
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// Takes in a segment's records up to the first that is not whole or not the next.
    fn load(&mut self, number: u64) -> io::Result<()> {
        let file = self.open_segment(number)?;
        let size = file.metadata()?.len();
        let mut at = 0;
        while let Some(length) = self.load_record(&file, number, at, size) {
            at += record::HEADER as u64 + u64::from(length);
        }
        if at < size {
            tracing::warn!(segment = number, at, size, "the end of an event segment is cut off");
            file.set_len(at)?;
        }
        self.segments.push_back(Segment { number, file, length: at });
        Ok(())
    }

    fn load_record(&mut self, file: &File, segment: u64, at: u64, size: u64) -> Option<u32> {
        let mut header = [0; record::HEADER];
        file.read_exact_at(&mut header, at).ok()?;
        let (length, sum) = record::header(header);
        let offset = at + record::HEADER as u64;
        if length > MAX_RECORD || offset + u64::from(length) > size {
            return None;
        }
        let mut body = vec![0; length as usize];
        file.read_exact_at(&mut body, offset).ok()?;
        let event = record::decode(&body).filter(|_| record::checksum(&body) == sum)?;
        if event.sequence != self.next_sequence() {
            // Events in between were in memory only, or a segment is missing: what is older is of no use to a client
            // that wants all of them.
            if event.sequence < self.next_sequence() {
                return None;
            }
            self.places.clear();
            self.oldest = event.sequence;
        }
        self.places.push_back(Place::File { segment, offset, length });
        Some(length)
    }

    /// Throws away what is over the limits.
    fn trim(&mut self) {
        while self.segments.len() > self.limits.segments {
            let Some(segment) = self.segments.pop_front() else { break };
            let path = self.dir.join(format!("{PREFIX}{}", segment.number));
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old event segment stays");
            }
            while matches!(self.places.front(), Some(Place::File { segment: s, .. }) if *s <= segment.number)
            {
                self.pop();
            }
        }
        while self.places.len() > self.limits.events || self.in_memory > self.limits.in_memory {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(place) = self.places.pop_front() {
            self.oldest += 1;
            if matches!(place, Place::Memory(_)) {
                self.in_memory -= 1;
            }
        }
    }
}
