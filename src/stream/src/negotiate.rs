//! Which transport and which version of a protocol a client and we agree on. Pure: headers in, a choice out.

use http::{HeaderMap, header};

/// SPDY clients offer versions in this header and read the choice from it.
pub(crate) const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
/// What we could have spoken, when nothing offered was right.
pub(crate) const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";

/// What the connection becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Spdy,
    WebSocket,
}

/// Versions of the protocol of exec and attach ("remotecommand").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V1,
    V2,
    V3,
    V4,
    V5,
}

/// A way to talk about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessProtocol {
    pub(crate) name: &'static str,
    pub(crate) version: Version,
    /// WebSocket messages are text in base64.
    pub(crate) base64: bool,
}

const fn protocol(name: &'static str, version: Version) -> ProcessProtocol {
    ProcessProtocol { name, version, base64: false }
}

const fn base64(name: &'static str, version: Version) -> ProcessProtocol {
    ProcessProtocol { name, version, base64: true }
}

/// Spoken over SPDY. Version 5 says nothing new there.
pub(crate) const SPDY_PROCESS: &[ProcessProtocol] = &[
    protocol("v4.channel.k8s.io", Version::V4),
    protocol("v3.channel.k8s.io", Version::V3),
    protocol("v2.channel.k8s.io", Version::V2),
    protocol("channel.k8s.io", Version::V1),
];

/// Spoken over WebSocket. Version 5 can close the standard input.
pub(crate) const WEBSOCKET_PROCESS: &[ProcessProtocol] = &[
    protocol("v5.channel.k8s.io", Version::V5),
    protocol("v4.channel.k8s.io", Version::V4),
    protocol("v3.channel.k8s.io", Version::V3),
    protocol("v2.channel.k8s.io", Version::V2),
    protocol("channel.k8s.io", Version::V1),
    base64("v4.base64.channel.k8s.io", Version::V4),
    base64("base64.channel.k8s.io", Version::V1),
];

/// Spoken over SPDY for ports.
pub(crate) const SPDY_FORWARD: &str = "portforward.k8s.io";
/// The same inside WebSocket messages (KEP-4006).
pub(crate) const TUNNEL_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";

/// The upgrade that the client asks for.
pub(crate) fn transport(headers: &HeaderMap) -> Option<Transport> {
    let upgrading = list(headers, header::CONNECTION.as_str()).any(|v| v.eq_ignore_ascii_case("upgrade"));
    let mut wanted = list(headers, header::UPGRADE.as_str());
    if !upgrading {
        return None;
    }
    wanted.find_map(|name| match name {
        name if name.eq_ignore_ascii_case("websocket") => Some(Transport::WebSocket),
        name if name.eq_ignore_ascii_case("spdy/3.1") => Some(Transport::Spdy),
        _ => None,
    })
}

/// The names in a header that is a list with commas, possibly given several times.
pub(crate) fn list<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !name.is_empty())
}

/// The first name offered that we speak. A client that offers nothing speaks the first version of all.
pub(crate) fn process(
    headers: &HeaderMap,
    transport: Transport,
) -> Result<ProcessProtocol, Vec<&'static str>> {
    let (header, known) = match transport {
        Transport::Spdy => (STREAM_PROTOCOL, SPDY_PROCESS),
        Transport::WebSocket => (header::SEC_WEBSOCKET_PROTOCOL.as_str(), WEBSOCKET_PROCESS),
    };
    let mut offered = list(headers, header).peekable();
    if offered.peek().is_none() {
        return Ok(ProcessProtocol { name: "", version: Version::V1, base64: false });
    }
    let chosen = offered.find_map(|name| known.iter().find(|p| p.name == name));
    chosen.copied().ok_or_else(|| known.iter().map(|p| p.name).collect())
}

/// The protocol of ports on this transport.
pub(crate) fn forward(headers: &HeaderMap, transport: Transport) -> Result<&'static str, Vec<&'static str>> {
    let (header, known) = match transport {
        Transport::Spdy => (STREAM_PROTOCOL, SPDY_FORWARD),
        Transport::WebSocket => (header::SEC_WEBSOCKET_PROTOCOL.as_str(), TUNNEL_FORWARD),
    };
    let mut offered = list(headers, header).peekable();
    if offered.peek().is_none() && transport == Transport::Spdy {
        return Ok("");
    }
    if offered.any(|name| name == known) { Ok(known) } else { Err(vec![known]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn transports() {
        for (pairs, expected) in [
            (&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")][..], Some(Transport::Spdy)),
            (&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")], Some(Transport::WebSocket)),
            (&[("connection", "keep-alive"), ("upgrade", "websocket")], None),
            (&[("connection", "upgrade"), ("upgrade", "h2c")], None),
            (&[], None),
        ] {
            assert_eq!(transport(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn versions() {
        let name = |pairs: &[(&'static str, &'static str)], transport| {
            process(&headers(pairs), transport).map(|p| p.name)
        };
        let all = "v5.channel.k8s.io, v4.channel.k8s.io,channel.k8s.io";
        assert_eq!(name(&[(STREAM_PROTOCOL, all)], Transport::Spdy), Ok("v4.channel.k8s.io"));
        assert_eq!(name(&[("sec-websocket-protocol", all)], Transport::WebSocket), Ok("v5.channel.k8s.io"));
        let lines = [(STREAM_PROTOCOL, "v9.channel.k8s.io"), (STREAM_PROTOCOL, "v2.channel.k8s.io")];
        assert_eq!(name(&lines, Transport::Spdy), Ok("v2.channel.k8s.io"));
        assert_eq!(name(&[], Transport::Spdy), Ok(""));
        assert!(name(&[(STREAM_PROTOCOL, "v9.channel.k8s.io")], Transport::Spdy).is_err());
    }

    #[test]
    fn forwarding() {
        let spdy = headers(&[(STREAM_PROTOCOL, "portforward.k8s.io")]);
        assert_eq!(forward(&spdy, Transport::Spdy), Ok(SPDY_FORWARD));
        let tunnel = headers(&[("sec-websocket-protocol", "SPDY/3.1+portforward.k8s.io")]);
        assert_eq!(forward(&tunnel, Transport::WebSocket), Ok(TUNNEL_FORWARD));
        assert!(forward(&headers(&[]), Transport::WebSocket).is_err());
        assert!(forward(&tunnel, Transport::Spdy).is_ok(), "a SPDY client that names no version");
        assert!(forward(&headers(&[(STREAM_PROTOCOL, "v4.channel.k8s.io")]), Transport::Spdy).is_err());
    }
}
