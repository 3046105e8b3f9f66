//! Forgetting UDP connections whose translation has changed.
//!
//! UDP has no end that the kernel could see: a client that keeps sending stays translated to a pod that has gone (or
//! untranslated, if it sent before the pod came) until 30 s of silence. Dropping the entry makes its next packet be
//! looked at anew.

use super::{
    ACK, DUMP, NetlinkError, REQUEST, Socket,
    message::{Batch, attribute},
};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIG: u16 = 1;
const ZONE: u16 = 18;
const TUPLE_PROTO: u16 = 2;
const PROTO_NUMBER: u16 = 1;
const PROTO_DESTINATION_PORT: u16 = 3;

/// The original direction of a connection: (protocol, destination port).
fn destination(tuple: &[u8]) -> Option<(u8, u16)> {
    let proto = attribute(tuple, TUPLE_PROTO)?;
    let number = *attribute(proto, PROTO_NUMBER)?.first()?;
    let port = attribute(proto, PROTO_DESTINATION_PORT)?.get(..2)?.try_into().ok()?;
    Some((number, u16::from_be_bytes(port)))
}

/// Drops all UDP connections that were first sent to one of `ports`; returns how many.
pub fn forget_udp(socket: &mut Socket, ports: &[u16]) -> Result<usize, NetlinkError> {
    let mut dropped = 0;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let header = [family, 0, 0, 0];
        let mut batch = Batch::new();
        batch.message(GET, REQUEST | DUMP, &header, |_| {});
        for found in socket.ask(batch)? {
            let Some(rest) = found.body.get(4..) else { continue };
            let Some(tuple) = attribute(rest, TUPLE_ORIG) else { continue };
            let Some((protocol, port)) = destination(tuple) else { continue };
            if i32::from(protocol) != libc::IPPROTO_UDP || !ports.contains(&port) {
                continue;
            }
            let mut batch = Batch::new();
            batch.message(DELETE, REQUEST | ACK, &header, |a| {
                a.bytes(TUPLE_ORIG | 1 << 15, tuple);
                if let Some(zone) = attribute(rest, ZONE) {
                    a.bytes(ZONE, zone);
                }
            });
            // It may have ended by itself meanwhile.
            dropped += usize::from(socket.run(batch).is_ok());
        }
    }
    Ok(dropped)
}
