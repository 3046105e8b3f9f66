//! What the daemon tells its service manager (`sd_notify(3)`): ready, reloading, stopping, and that it is alive.
//!
//! Without `NOTIFY_SOCKET` in the environment nothing happens. A message that cannot be delivered is no reason to
//! stop, so failures are logged only.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

/// The daemon serves: `systemctl start` returns.
pub fn ready() {
    tell("READY=1\nSTATUS=Serving");
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let micros = now.map_or(0, |t| Duration::from(t).as_micros());
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
}

/// The daemon was asked to stop.
pub fn stopping() {
    tell("STOPPING=1");
}

/// The daemon is alive.
pub fn alive() {
    tell("WATCHDOG=1");
}

/// How often [`alive`] has to be said: half the time after which the service manager gives the daemon up. `None`: it
/// does not watch this process.
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    if variable("WATCHDOG_PID").is_some_and(|pid| pid != std::process::id().to_string()) {
        return None;
    }
    let limit: u64 = variable("WATCHDOG_USEC")?.parse().ok()?;
    (limit > 0).then(|| Duration::from_micros(limit) / 2)
}

/// Says [`alive`] as often as the service manager wants to hear it, for ever. As a task of the runtime it falls silent
/// when that hangs, which is what the service manager listens for.
pub async fn keep_alive() {
    let Some(every) = watchdog() else { return };
    let mut times = tokio::time::interval(every);
    loop {
        times.tick().await;
        alive();
    }
}

fn tell(message: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").filter(|socket| !socket.is_empty()) else { return };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(socket = %socket.display(), %error, "cannot notify the service manager");
    }
}

/// A path, or an abstract name after `@`.
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let from = UnixDatagram::unbound()?;
    // The service manager's queue may be full; waiting for it would be worse than a lost message.
    from.set_nonblocking(true)?;
    from.send_to_addr(message.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).expect("message");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn messages_arrive_at_both_kinds_of_address() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).expect("bind");
        send(path.as_os_str(), "READY=1").expect("sent");
        assert_eq!(received(&by_path), "READY=1");

        let name = format!("crisp-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("name");
        let by_name = UnixDatagram::bind_addr(&address).expect("bind");
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").expect("sent");
        assert_eq!(received(&by_name), "STOPPING=1");
    }

    #[test]
    fn nobody_there_is_an_error_not_a_panic() {
        assert!(send(OsStr::new("/nonexistent/notify"), "READY=1").is_err());
    }
}
