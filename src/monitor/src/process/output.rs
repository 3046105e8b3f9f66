//! A container's streams.
//!
//! The loop reads what the container writes, gives it to the clients that are attached, and appends it to the log. A client
//! that does not keep up is let go: it must not hold the container up. Input never passes through here: whoever attaches gets the
//! container's own pipe, which stays open on this side until it is closed explicitly.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use crisp_model::time::Timestamp;
use crisp_monitor::log_line::{Splitter, Stream, stamp};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::log_file::LogFile;

/// Capacity asked for pipes: the kernel's limit for users without privileges. A burst fits, and a read takes much at once.
const PIPE: i32 = 1 << 20;
/// Read at once. Together with what is made of it, it stays in the processor's second cache.
const CHUNK: usize = 256 << 10;
/// Written to the log at once (about what a chunk of 80-byte lines becomes).
const ENTRIES: usize = 400 << 10;
/// Read from one stream before the others have their turn.
const TURN: usize = 4 << 20;
/// Clients of one container; more are a mistake or worse.
const CLIENTS: usize = 64;

/// Buffers that exist while there is something to read. They are larger than what the allocator keeps (both come from mmap
/// and go by munmap), and only pages that are used count.
#[derive(Debug, Default)]
pub(super) struct Scratch(Option<(Vec<u8>, Vec<u8>)>);

impl Scratch {
    fn buffers(&mut self) -> &mut (Vec<u8>, Vec<u8>) {
        self.0.get_or_insert_with(|| (vec![0; CHUNK], Vec::with_capacity(ENTRIES + (64 << 10))))
    }

    pub(super) fn in_use(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn free(&mut self) {
        self.0 = None;
    }
}

/// One stream that the container writes.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) file: File,
    /// Its place in the loop.
    pub(super) token: u64,
    splitter: Splitter,
}

impl Output {
    pub(super) fn new(fd: OwnedFd, token: u64, stream: Stream) -> io::Result<Self> {
        set_nonblocking(&fd)?;
        Ok(Self { file: File::from(fd), token, splitter: Splitter::new(stream) })
    }
}

/// Write ends of a client's pipes, for output and errors.
#[derive(Debug)]
struct Client([Option<File>; 2]);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// What writes to the container's input: a pipe, or the terminal's master.
    pub(super) input: Option<OwnedFd>,
    /// The terminal's master.
    pub(super) terminal: Option<OwnedFd>,
    /// Output and errors; of a terminal the first only.
    pub(super) outputs: [Option<Output>; 2],
    pub(super) log: Option<LogFile>,
    clients: Vec<Client>,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is nothing more now.
    Idle,
    /// There may be more.
    Busy,
    /// The stream has ended and is closed.
    Ended,
}

/// A pipe for one of the container's streams, of a capacity that takes bursts.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    enlarge(&writer);
    Ok((reader.into(), writer.into()))
}

fn enlarge(pipe: &impl AsRawFd) {
    // Refused where a user's pipes take up too much: then it is smaller.
    let _ = fcntl(pipe.as_raw_fd(), FcntlArg::F_SETPIPE_SZ(PIPE));
}

fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd.as_raw_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_raw_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Streams {
    /// Reads one stream until there is nothing more, its turn is over, or it ends.
    pub(super) fn pump(&mut self, which: usize, scratch: &mut Scratch) -> Pumped {
        let (chunk, entries) = scratch.buffers();
        let mut turn = 0;
        while turn < TURN {
            let Some(output) = &mut self.outputs[which] else { return Pumped::Ended };
            match output.file.read(chunk) {
                Ok(0) => return self.end(which, scratch),
                Ok(n) => {
                    turn += n;
                    tee(&mut self.clients, which, &chunk[..n]);
                    if let Some(log) = &mut self.log {
                        append(log, &mut output.splitter, &chunk[..n], entries);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Pumped::Idle,
                // EIO: nobody has the terminal's slave open any more.
                Err(_) => return self.end(which, scratch),
            }
        }
        Pumped::Busy
    }

    fn end(&mut self, which: usize, scratch: &mut Scratch) -> Pumped {
        if let (Some(mut output), Some(log)) = (self.outputs[which].take(), &mut self.log) {
            let (_, entries) = scratch.buffers();
            entries.clear();
            output.splitter.finish(&stamp(Timestamp::now().nanos()), entries);
            if !entries.is_empty() {
                log.write(entries);
            }
        }
        for client in &mut self.clients {
            client.0[which] = None;
        }
        self.clients.retain(|c| c.0.iter().any(Option::is_some));
        Pumped::Ended
    }

    /// Takes the terminal's master; it is what the container's output is read from, too.
    pub(super) fn set_terminal(&mut self, master: OwnedFd, token: u64) -> io::Result<()> {
        self.outputs[0] = Some(Output::new(master.try_clone()?, token, Stream::Stdout)?);
        self.terminal = Some(master);
        Ok(())
    }

    /// Gives a client what the container writes from now on. Streams that have ended are closed at once.
    pub(super) fn attach(&mut self, stdout: Option<OwnedFd>, stderr: Option<OwnedFd>) -> io::Result<()> {
        if self.clients.len() >= CLIENTS {
            return Err(io::Error::other(format!("{CLIENTS} clients are attached already")));
        }
        let mut client = Client([stdout.map(File::from), stderr.map(File::from)]);
        for (which, pipe) in client.0.iter_mut().enumerate() {
            match pipe {
                Some(_) if self.outputs[which].is_none() => *pipe = None,
                Some(open) => {
                    set_nonblocking(open)?;
                    enlarge(open);
                }
                None => {}
            }
        }
        if client.0.iter().any(Option::is_some) {
            self.clients.push(client);
        }
        Ok(())
    }

    /// A descriptor that writes to the container's input.
    pub(super) fn input(&self) -> io::Result<Option<OwnedFd>> {
        self.input.as_ref().or(self.terminal.as_ref()).map(|fd| fd.as_fd().try_clone_to_owned()).transpose()
    }

    /// Lets all clients go, after the container's end.
    pub(super) fn detach_all(&mut self) {
        self.clients = Vec::new();
    }
}

/// Cuts a chunk into entries and writes them.
fn append(log: &mut LogFile, splitter: &mut Splitter, mut chunk: &[u8], entries: &mut Vec<u8>) {
    let time = stamp(Timestamp::now().nanos());
    while !chunk.is_empty() {
        entries.clear();
        let taken = splitter.push(chunk, &time, entries, ENTRIES);
        if !entries.is_empty() {
            log.write(entries);
        }
        chunk = &chunk[taken..];
    }
}

fn tee(clients: &mut Vec<Client>, which: usize, chunk: &[u8]) {
    if clients.is_empty() {
        return;
    }
    for client in clients.iter_mut() {
        if let Some(pipe) = &mut client.0[which]
            && pipe.write(chunk).ok() != Some(chunk.len())
        {
            // Gone, or it has not read a whole pipe.
            client.0 = [None, None];
        }
    }
    clients.retain(|c| c.0.iter().any(Option::is_some));
}
