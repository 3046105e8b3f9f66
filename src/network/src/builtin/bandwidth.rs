//! Limits of a pod's traffic: a token bucket (tc-tbf(8)) at each end of its pair.
//!
//! What the pod receives is limited where the host sends it, at the host's end; what it sends, at the pod's own end,
//! which only a pod with CAP_NET_ADMIN could take away.

use crate::{
    Bandwidth, NetworkError,
    netlink::{NetlinkError, Socket, message::Batch, route},
};

/// Puts the limits on both ends. `link` is the host's end, `index` the pod's.
pub(super) fn limit(
    host: &mut Socket,
    pod: &mut Socket,
    link: &str,
    index: u32,
    bandwidth: Bandwidth,
) -> Result<(), NetworkError> {
    let fail = |e: NetlinkError| NetworkError::host("limit bandwidth of", link, e);
    if let Some(bits) = bandwidth.ingress
        && let Some(end) = route::link(host, link).map_err(fail)?
    {
        let mut batch = Batch::new();
        route::add_token_bucket(&mut batch, end.index, bits);
        host.run(batch).map_err(fail)?;
    }
    if let Some(bits) = bandwidth.egress {
        let mut batch = Batch::new();
        route::add_token_bucket(&mut batch, index, bits);
        pod.run(batch).map_err(fail)?;
    }
    Ok(())
}
