//! How far each client has got, also when it or the daemon went.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};

use super::{GRACE, IN_FLIGHT};

const FILE: &str = "cursors";

/// Clients that are waited for; more than one kubelet and a few people with command lines there never are.
const MAX_MISSED: usize = 8;

/// The file is written at most so often while events flow. What it says is at most this much too old, and a client is
/// given so much twice.
const WRITE_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Cursors {
    path: PathBuf,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    missed: Vec<Missed>,
    written: Option<Instant>,
}

/// A client that reads.
#[derive(Debug)]
struct Client {
    next: u64,
    /// Where it was when, twice: the older of the two is surely received when the newer is [`IN_FLIGHT`] old.
    before: (Instant, u64),
    received: u64,
}

/// A client that went.
#[derive(Debug)]
struct Missed {
    next: u64,
    until: Instant,
}

impl Missed {
    /// `next` of a client that was there when the daemon ended, and is waited for from now on; `next until` of one that
    /// was missed already, with seconds since the boot. `None`: nobody waits for it any more.
    fn parse(line: &str, now: Instant, since_boot: Duration) -> Option<Self> {
        let mut words = line.split(' ');
        let next = words.next()?.parse().ok()?;
        let left = match words.next() {
            Some(until) => Duration::from_secs(until.parse().ok()?).checked_sub(since_boot)?.min(GRACE),
            None => GRACE,
        };
        Some(Self { next, until: now + left })
    }
}

/// The kernel's clock that neither jumps nor begins anew with the daemon.
fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

impl Cursors {
    /// Whom the file names, as far as they are still waited for.
    pub(super) fn open(dir: &Path, now: Instant) -> Self {
        let path = dir.join(FILE);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let since_boot = since_boot();
        let missed =
            text.lines().filter_map(|line| Missed::parse(line, now, since_boot)).take(MAX_MISSED).collect();
        Self { path, clients: BTreeMap::new(), next_client: 0, missed, written: None }
    }

    /// A client comes. Nobody knows which of those that are missed it is, so it begins where the first of them stood;
    /// the one that had got furthest is missed no more, so that the last to come back still begins early enough.
    pub(super) fn join(&mut self, present: u64, now: Instant) -> (u64, u64) {
        self.missed.retain(|missed| missed.until > now);
        // A ring that was lost with its files begins again: nobody has read what is not written yet.
        let next = self.missed.iter().map(|missed| missed.next).min().unwrap_or(present).min(present);
        if let Some(furthest) = (0..self.missed.len()).max_by_key(|i| self.missed[*i].next) {
            self.missed.swap_remove(furthest);
        }
        let client = self.next_client;
        self.next_client += 1;
        self.clients.insert(client, Client { next, before: (now, next), received: next });
        self.write(now);
        (client, next)
    }

    /// A client was given what is before `next`. `again` is for one that is to start afresh there.
    pub(super) fn advance(&mut self, client: u64, next: u64, again: bool, now: Instant) {
        if let Some(client) = self.clients.get_mut(&client) {
            if now.duration_since(client.before.0) >= IN_FLIGHT {
                client.received = client.before.1;
                client.before = (now, client.next);
            }
            client.next = next;
            if again {
                client.before.1 = next;
                client.received = next;
            }
        }
        if again || self.written.is_none_or(|at| now.duration_since(at) >= WRITE_EVERY) {
            self.write(now);
        }
    }

    /// A client went.
    pub(super) fn leave(&mut self, client: u64, now: Instant) {
        let Some(client) = self.clients.remove(&client) else { return };
        let idle = now.duration_since(client.before.0) >= IN_FLIGHT;
        let next = if idle { client.before.1 } else { client.received };
        if self.missed.len() >= MAX_MISSED
            && let Some(furthest) = (0..self.missed.len()).max_by_key(|i| self.missed[*i].next)
        {
            self.missed.swap_remove(furthest);
        }
        self.missed.push(Missed { next, until: now + GRACE });
        self.write(now);
    }

    /// Replaces the file. It need not survive the machine, so nothing is synced; losing it means that clients begin
    /// with the present.
    fn write(&mut self, now: Instant) {
        self.written = Some(now);
        let since_boot = since_boot();
        let mut text: String = self.clients.values().map(|c| format!("{}\n", c.received)).collect();
        for missed in &self.missed {
            let until = since_boot + missed.until.saturating_duration_since(now);
            text.push_str(&format!("{} {}\n", missed.next, until.as_secs()));
        }
        if let Err(error) = replace(&self.path, &text) {
            tracing::warn!(path = %self.path.display(), %error, "places in the event ring are not kept");
        }
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
