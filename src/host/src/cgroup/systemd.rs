//! The systemd cgroup driver: containers' cgroups as scopes, made and limited by systemd over D-Bus.
//!
//! A small blocking client (no async runtime, a few kilobytes), so that the monitor's worker can use it as well as the daemon. It talks to
//! systemd's private socket where it may, else to the system bus. One call makes a scope, one changes its limits, one
//! stops it; what systemd does not know (freezer and cpuset on v1, `unified` keys, device programs) is set by
//! [`super::CgroupFs`] afterwards, in the delegated cgroup.
//!
//! Crash in the middle: a scope is systemd's and is gone with its last process; starting one that exists is an error
//! that says so, and stopping one that does not is none.

mod properties;
mod wire;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use crisp_model::LinuxResources;

use super::Scope;
use wire::{Body, Message, MessageKind, Value};

const PRIVATE_SOCKET: &str = "/run/systemd/private";
const BUS_SOCKET: &str = "/run/dbus/system_bus_socket";

const DESTINATION: &str = "org.freedesktop.systemd1";
const OBJECT: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Largest message taken: a job's end has a few hundred bytes.
const MAX_MESSAGE: usize = 1 << 20;

/// Why systemd did not do it.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// systemd cannot be reached.
    #[error("connect to systemd at {path}: {source}")]
    Connect {
        /// Socket.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// It answered with an error.
    #[error("{method} {unit}: {name}: {text}")]
    Refused {
        /// What was asked for.
        method: &'static str,
        /// Of which unit.
        unit: String,
        /// `org.freedesktop.systemd1.UnitExists`…
        name: String,
        /// Its words.
        text: String,
    },
    /// The job ended otherwise than done.
    #[error("{method} {unit}: the job ended as {result:?}")]
    Job {
        /// What was asked for.
        method: &'static str,
        /// Of which unit.
        unit: String,
        /// `failed`, `timeout`, `canceled`…
        result: String,
    },
    /// The connection broke, or no answer came in time.
    #[error("{method} {unit}: {source}")]
    Broken {
        /// What was asked for.
        method: &'static str,
        /// Of which unit.
        unit: String,
        /// The cause.
        source: io::Error,
    },
}

impl SystemdError {
    /// There is a unit of that name already.
    pub fn unit_exists(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name.ends_with(".UnitExists"))
    }

    /// There is no such unit.
    pub fn no_such_unit(&self) -> bool {
        matches!(self, Self::Refused { name, .. } if name.ends_with(".NoSuchUnit"))
    }
}

/// A connection to systemd.
#[derive(Debug)]
pub struct Systemd {
    stream: UnixStream,
    serial: u32,
    v2: bool,
}

/// A call on its way.
struct Call<'a> {
    method: &'static str,
    unit: &'a str,
    until: Instant,
}

impl Call<'_> {
    fn broken(&self, source: io::Error) -> SystemdError {
        SystemdError::Broken { method: self.method, unit: self.unit.to_owned(), source }
    }
}

impl Systemd {
    /// Connects. `v2`: which names of properties hold (that of the host's layout).
    pub fn connect(v2: bool, within: Duration) -> Result<Self, SystemdError> {
        let until = Instant::now() + within;
        let private = Path::new(PRIVATE_SOCKET).exists();
        let path = if private { PRIVATE_SOCKET } else { BUS_SOCKET };
        let failed = |source| SystemdError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).map_err(failed)?;
        Self::over(stream, v2, !private, until).map_err(failed)
    }

    fn over(stream: UnixStream, v2: bool, bus: bool, until: Instant) -> io::Result<Self> {
        let mut systemd = Self { stream, serial: 0, v2 };
        systemd.set_deadline(until)?;
        systemd.authenticate()?;
        if bus {
            systemd.join_bus(until)?;
        }
        Ok(systemd)
    }

    /// Starts a scope with these processes (at least one) in it, its cgroup delegated to us, and waits until systemd is done.
    pub fn start_scope(
        &mut self,
        scope: &Scope,
        pids: &[i32],
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), SystemdError> {
        let call = Call { method: "StartTransientUnit", unit: &scope.unit, until: Instant::now() + within };
        let mut body = Body::new("ssa(sv)a(sa(sv))");
        body.string(&scope.unit);
        body.string("fail");
        let properties = properties::of_scope(scope, pids, resources, self.v2);
        body.array(8, |body| properties.iter().for_each(|(name, value)| body.property(name, value)));
        body.array(8, |_| {});
        self.job(&call, body)
    }

    /// Changes a unit's limits; systemd keeps them over its own reload, not over a boot.
    pub fn set_limits(
        &mut self,
        unit: &str,
        resources: &LinuxResources,
        within: Duration,
    ) -> Result<(), SystemdError> {
        let properties = properties::limits(resources, self.v2);
        if properties.is_empty() {
            return Ok(());
        }
        let call = Call { method: "SetUnitProperties", unit, until: Instant::now() + within };
        let mut body = Body::new("sba(sv)");
        body.string(unit);
        body.boolean(true);
        body.array(8, |body| properties.iter().for_each(|(name, value)| body.property(name, value)));
        self.call(&call, body).map(drop)
    }

    /// Stops a unit, killing what runs in it, and waits until it is gone. No error if there is none.
    pub fn stop(&mut self, unit: &str, within: Duration) -> Result<(), SystemdError> {
        let call = Call { method: "StopUnit", unit, until: Instant::now() + within };
        let mut body = Body::new("ss");
        body.string(unit);
        body.string("replace");
        match self.job(&call, body) {
            Err(error) if error.no_such_unit() => return Ok(()),
            other => other?,
        }
        // One that failed is remembered under its name until it is reset.
        let call = Call { method: "ResetFailedUnit", ..call };
        let mut body = Body::new("s");
        body.string(unit);
        match self.call(&call, body) {
            Err(error) if error.no_such_unit() => Ok(()),
            other => other.map(drop),
        }
    }

    /// A call whose answer is a job, and that job's end.
    fn job(&mut self, call: &Call<'_>, body: Body) -> Result<(), SystemdError> {
        let (reply, early) = self.call(call, body)?;
        let job = reply.first_string().unwrap_or_default().to_owned();
        let mut next = early.into_iter();
        loop {
            let message = match next.next() {
                Some(message) => message,
                None => self.receive(call.until).map_err(|e| call.broken(e))?,
            };
            // JobRemoved: u32 id, object job, string unit, string result
            if message.kind == MessageKind::Signal && message.member.as_deref() == Some("JobRemoved") {
                let [Value::U32(_), Value::String(object), Value::String(_), Value::String(result)] =
                    &message.values[..]
                else {
                    continue;
                };
                if *object != job {
                    continue;
                }
                if result == "done" {
                    return Ok(());
                }
                let (method, unit) = (call.method, call.unit.to_owned());
                return Err(SystemdError::Job { method, unit, result: result.clone() });
            }
        }
    }

    /// Sends a call and waits for its answer; also returns the signals that came before it.
    fn call(&mut self, call: &Call<'_>, body: Body) -> Result<(Message, Vec<Message>), SystemdError> {
        let header =
            wire::Header { destination: DESTINATION, path: OBJECT, interface: MANAGER, member: call.method };
        let (reply, early) = self.exchange(&header, body, call.until).map_err(|e| call.broken(e))?;
        if reply.kind == MessageKind::Error {
            return Err(SystemdError::Refused {
                method: call.method,
                unit: call.unit.to_owned(),
                text: reply.first_string().unwrap_or_default().to_owned(),
                name: reply.error_name.unwrap_or_default(),
            });
        }
        Ok((reply, early))
    }

    fn exchange(
        &mut self,
        header: &wire::Header<'_>,
        body: Body,
        until: Instant,
    ) -> io::Result<(Message, Vec<Message>)> {
        self.serial += 1;
        let serial = self.serial;
        self.set_deadline(until)?;
        self.stream.write_all(&wire::call(header, serial, &body))?;
        let mut early = Vec::new();
        loop {
            let message = self.receive(until)?;
            match message.kind {
                MessageKind::Return | MessageKind::Error if message.reply_to == Some(serial) => {
                    return Ok((message, early));
                }
                // Only so many as other units' jobs end while we wait.
                MessageKind::Signal if early.len() < 1000 => early.push(message),
                _ => {}
            }
        }
    }

    fn receive(&mut self, until: Instant) -> io::Result<Message> {
        self.set_deadline(until)?;
        let mut start = [0; wire::START];
        self.stream.read_exact(&mut start)?;
        let rest = wire::rest_length(&start).filter(|length| *length <= MAX_MESSAGE);
        let rest = rest.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a D-Bus message"))?;
        let mut bytes = start.to_vec();
        bytes.resize(wire::START + rest, 0);
        self.stream.read_exact(&mut bytes[wire::START..])?;
        wire::parse(&bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a damaged D-Bus message"))
    }

    fn set_deadline(&self, until: Instant) -> io::Result<()> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }

    /// `EXTERNAL`: the socket says who we are (D-Bus specification, authentication protocol).
    fn authenticate(&mut self) -> io::Result<()> {
        let uid = nix::unistd::geteuid().to_string();
        let hex: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        self.stream.write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes())?;
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            line.push(byte[0]);
            if line.len() > 1024 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "not a D-Bus server"));
            }
        }
        if !line.starts_with(b"OK ") {
            let text = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        self.stream.write_all(b"BEGIN\r\n")
    }

    /// A bus wants to know us, and sends only the signals that were asked for; on the private socket all come.
    fn join_bus(&mut self, until: Instant) -> io::Result<()> {
        let bus = |member| wire::Header {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        };
        let mut rule = Body::new("s");
        rule.string(
            "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager',\
             member='JobRemoved'",
        );
        let subscribe =
            wire::Header { destination: DESTINATION, path: OBJECT, interface: MANAGER, member: "Subscribe" };
        let calls = [(bus("Hello"), Body::new("")), (bus("AddMatch"), rule), (subscribe, Body::new(""))];
        for (header, body) in calls {
            let (reply, _) = self.exchange(&header, body, until)?;
            if reply.kind == MessageKind::Error {
                let text = format!("{}: {}", header.member, reply.first_string().unwrap_or_default());
                return Err(io::Error::other(text));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
