//! Resource limits, clamped to what the host lets us set.

use crisp_model::process::Rlimit;
use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::process::{Failure, host, invalid};

fn resource(kind: &str) -> Option<Resource> {
    Some(match kind {
        "RLIMIT_AS" => Resource::RLIMIT_AS,
        "RLIMIT_CORE" => Resource::RLIMIT_CORE,
        "RLIMIT_CPU" => Resource::RLIMIT_CPU,
        "RLIMIT_DATA" => Resource::RLIMIT_DATA,
        "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
        "RLIMIT_LOCKS" => Resource::RLIMIT_LOCKS,
        "RLIMIT_MEMLOCK" => Resource::RLIMIT_MEMLOCK,
        "RLIMIT_MSGQUEUE" => Resource::RLIMIT_MSGQUEUE,
        "RLIMIT_NICE" => Resource::RLIMIT_NICE,
        "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
        "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
        "RLIMIT_RSS" => Resource::RLIMIT_RSS,
        "RLIMIT_RTPRIO" => Resource::RLIMIT_RTPRIO,
        "RLIMIT_RTTIME" => Resource::RLIMIT_RTTIME,
        "RLIMIT_SIGPENDING" => Resource::RLIMIT_SIGPENDING,
        "RLIMIT_STACK" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

/// Sets them. Without CAP_SYS_RESOURCE a hard limit cannot be raised: the present one is kept then.
pub(super) fn set(limits: &[Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let kind =
            resource(&limit.kind).ok_or_else(|| invalid(limit.kind.clone(), "no such resource limit"))?;
        let set = match setrlimit(kind, limit.soft, limit.hard) {
            Err(Errno::EPERM) => getrlimit(kind).and_then(|(_, hard)| {
                let hard = hard.min(limit.hard);
                setrlimit(kind, limit.soft.min(hard), hard)
            }),
            other => other,
        };
        set.map_err(|e| host(format!("set {} to {}:{}", limit.kind, limit.soft, limit.hard))(e.into()))?;
    }
    Ok(())
}
