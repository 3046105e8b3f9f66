//! The loop.
//!
//! Every descriptor that is waited for is a [`Source`] under a token that is never used twice, so an event for something that
//! has gone meanwhile finds nothing. Nothing in the loop blocks: what may is a worker's.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
    time::Instant,
};

use crisp_host::cgroup::CgroupFs;
use crisp_model::{ContainerId, ExitStatus, SandboxId};
use crisp_monitor::{
    frame,
    protocol::{Answer, Event, Failure, Message, Reply},
};
use nix::{
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        signalfd::SignalFd,
    },
    unistd::Pid,
};

use super::{
    jobs::Job,
    output::{Pumped, Scratch},
    peer::Peer,
    pod::Pod,
    start::Start,
};

/// Connections at once; the daemon has one, and one more while it is replaced.
const PEERS: usize = 16;
/// cgroups of ended execs that are kept in mind, per container.
pub(super) const LINGERING: usize = 256;

/// Whose call an answer belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReplyTo {
    pub(super) peer: u64,
    pub(super) seq: u64,
}

/// What a token stands for.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Listener,
    Signals,
    Peer,
    Job,
    /// A stream of a container.
    Output(ContainerId, usize),
    /// What the kernel counts in a container's memory.
    Kills(ContainerId),
}

/// See the module.
pub(super) struct Server {
    pub(super) dir: PathBuf,
    pub(super) sandbox: SandboxId,
    pub(super) oom_score: i32,
    /// Detected when it is first needed.
    pub(super) cgroups: Option<CgroupFs>,
    pub(super) pod: Pod,
    pub(super) jobs: BTreeMap<u64, Job>,
    pub(super) early: Vec<(Pid, ExitStatus)>,
    pub(super) sources: BTreeMap<u64, Source>,
    pub(super) scratch: Scratch,
    epoll: Epoll,
    last_token: u64,
    listener: UnixListener,
    signals: SignalFd,
    pub(super) peers: BTreeMap<u64, Peer>,
    /// Who asked for the end, once everything is killed, and until when the rest is waited for.
    pub(super) ending: Option<(ReplyTo, Instant)>,
}

impl Server {
    pub(super) fn new(start: Start, dir: PathBuf, sandbox: SandboxId) -> io::Result<Self> {
        let mut server = Self {
            dir,
            sandbox,
            oom_score: start.oom_score,
            cgroups: None,
            pod: Pod::default(),
            jobs: BTreeMap::new(),
            early: Vec::new(),
            sources: BTreeMap::new(),
            scratch: Scratch::default(),
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            last_token: 0,
            listener: start.listener,
            signals: start.signals,
            peers: BTreeMap::new(),
            ending: None,
        };
        let listener = server.token(Source::Listener);
        server.epoll.add(&server.listener, EpollEvent::new(EpollFlags::EPOLLIN, listener))?;
        let signals = server.token(Source::Signals);
        server.epoll.add(&server.signals, EpollEvent::new(EpollFlags::EPOLLIN, signals))?;
        Ok(server)
    }

    /// Serves until the pod has been shut down.
    pub(super) fn run(&mut self) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 32];
        loop {
            if let Some((to, until)) = self.ending
                && (self.pod.is_dead() || Instant::now() >= until)
            {
                self.reply(to, Ok(Answer::Done), vec![]);
                self.peers.values_mut().for_each(Peer::finish);
                return Ok(());
            }
            // Buffers are given back only when there is nothing to do, not between two chunks of a burst.
            let timeout = match self.ending {
                _ if self.scratch.in_use() => EpollTimeout::ZERO,
                Some(_) => EpollTimeout::from(100u8),
                None => EpollTimeout::NONE,
            };
            match self.epoll.wait(&mut events, timeout) {
                Ok(0) => self.scratch.free(),
                Ok(n) => {
                    for event in &events[..n] {
                        self.dispatch(event.data(), event.events());
                    }
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn dispatch(&mut self, token: u64, events: EpollFlags) {
        match self.sources.get(&token).cloned() {
            Some(Source::Listener) => self.accept(),
            Some(Source::Signals) => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Some(Source::Peer) => self.serve(token, events),
            Some(Source::Job) => self.hear(token),
            Some(Source::Output(container, which)) => self.pump(token, &container, which),
            Some(Source::Kills(container)) => self.look_at_kills(&container),
            None => {}
        }
    }

    /// A new token for a source.
    pub(super) fn token(&mut self, source: Source) -> u64 {
        self.last_token += 1;
        self.sources.insert(self.last_token, source);
        self.last_token
    }

    /// Waits for input of a descriptor; it is forgotten when the descriptor is closed and the token removed.
    pub(super) fn watch(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, token))?)
    }

    /// Waits for a change of a kernel's file, which always has input.
    pub(super) fn watch_changes(&self, fd: &impl AsFd, token: u64) -> io::Result<()> {
        Ok(self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLPRI, token))?)
    }

    // === connections ===

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            if self.peers.len() >= PEERS {
                continue; // dropped: closed
            }
            let token = self.token(Source::Peer);
            match Peer::new(stream).and_then(|peer| self.watch(&peer, token).map(|()| peer)) {
                Ok(peer) => {
                    self.peers.insert(token, peer);
                }
                Err(error) => {
                    self.sources.remove(&token);
                    eprintln!("a connection could not be taken: {error}");
                }
            }
        }
    }

    fn serve(&mut self, token: u64, events: EpollFlags) {
        if events.contains(EpollFlags::EPOLLOUT)
            && let Some(peer) = self.peers.get_mut(&token)
        {
            let flushed = peer.flush();
            self.after_sending(token, flushed);
        }
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return;
        }
        while let Some(peer) = self.peers.get_mut(&token) {
            match peer.receive() {
                Ok(Some((body, descriptors))) => {
                    if let Err(error) = self.handle(token, &body, descriptors) {
                        eprintln!("a request that is not understood: {error}");
                        self.hang_up(token);
                    }
                }
                Ok(None) => return,
                Err(_) => self.hang_up(token),
            }
        }
    }

    fn hang_up(&mut self, token: u64) {
        self.peers.remove(&token);
        self.sources.remove(&token);
    }

    fn after_sending(&mut self, token: u64, sent: io::Result<bool>) {
        let wanted = match sent {
            Ok(true) => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Ok(false) => EpollFlags::EPOLLIN,
            Err(_) => return self.hang_up(token),
        };
        if let Some(peer) = self.peers.get(&token) {
            let _ = self.epoll.modify(peer, &mut EpollEvent::new(wanted, token));
        }
    }

    fn send(&mut self, token: u64, bytes: Vec<u8>, descriptors: Vec<OwnedFd>) {
        if let Some(peer) = self.peers.get_mut(&token) {
            let sent = peer.send(bytes, descriptors);
            if !matches!(sent, Ok(false)) {
                self.after_sending(token, sent);
            }
        }
    }

    /// Answers a call.
    pub(super) fn reply(&mut self, to: ReplyTo, result: Result<Answer, Failure>, descriptors: Vec<OwnedFd>) {
        match frame::encode(&Message::Reply(Reply { seq: to.seq, result })) {
            Ok(bytes) => self.send(to.peer, bytes, descriptors),
            Err(error) => eprintln!("an answer that cannot be sent: {error}"),
        }
    }

    /// Tells every connection.
    pub(super) fn event(&mut self, event: Event) {
        match frame::encode(&Message::Event(event)) {
            Ok(bytes) => {
                let peers: Vec<u64> = self.peers.keys().copied().collect();
                for peer in peers {
                    self.send(peer, bytes.clone(), vec![]);
                }
            }
            Err(error) => eprintln!("an event that cannot be sent: {error}"),
        }
    }

    // === streams ===

    fn pump(&mut self, token: u64, id: &ContainerId, which: usize) {
        let Ok(container) = self.pod.container(id) else { return };
        if container.streams.outputs[which].as_ref().is_none_or(|o| o.token != token) {
            return;
        }
        if container.streams.pump(which, &mut self.scratch) == Pumped::Ended {
            self.sources.remove(&token);
        }
    }

    /// Forgets a container; its descriptors are closed.
    pub(super) fn drop_container(&mut self, id: &ContainerId) {
        self.keep_count(id);
        self.pod.containers.retain(|c| c.id != *id);
        self.sources.retain(
            |_, source| !matches!(source, Source::Output(owner, _) | Source::Kills(owner) if owner == id),
        );
    }
}
