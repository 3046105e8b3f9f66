//! What a runtime handler of the configuration forbids its pods.

use crisp_model::{
    SandboxConfig,
    security::{NamespaceMode, NamespaceOptions},
};

use super::error::{At, Invalid};
use crate::config::Handler;

/// Checks a sandbox against its handler.
pub fn allows(at: &At<'_>, handler: &Handler, sandbox: &SandboxConfig) -> Result<(), Invalid> {
    let linux = at.field("linux");
    let context = linux.field("security_context");
    let name = &sandbox.runtime_handler;
    if sandbox.security.privileged && !handler.allow_privileged {
        let reason = format!("is set, which the handler {name:?} does not allow");
        return Err(context.field("privileged").invalid(reason));
    }
    if let Some(namespace) = of_host(&sandbox.security.namespaces).filter(|_| !handler.allow_host_namespaces)
    {
        let at = context.field("namespace_options");
        let reason = format!("is the host's, which the handler {name:?} does not allow");
        return Err(at.field(namespace).invalid(reason));
    }
    Ok(())
}

fn of_host(namespaces: &NamespaceOptions) -> Option<&'static str> {
    let modes = [("network", &namespaces.network), ("pid", &namespaces.pid), ("ipc", &namespaces.ipc)];
    modes.into_iter().find(|(_, mode)| **mode == NamespaceMode::Node).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_forbids_what_it_is_told_to() {
        let at = At::root("config");
        let open = Handler { allow_privileged: true, allow_host_namespaces: true };
        let closed = Handler { allow_privileged: false, allow_host_namespaces: false };
        let mut sandbox = SandboxConfig { runtime_handler: "strict".into(), ..SandboxConfig::default() };
        assert_eq!(allows(&at, &closed, &sandbox), Ok(()));
        sandbox.security.namespaces.ipc = NamespaceMode::Node;
        assert_eq!(allows(&at, &open, &sandbox), Ok(()));
        let error = allows(&at, &closed, &sandbox).expect_err("ipc");
        assert_eq!(error.field, "config.linux.security_context.namespace_options.ipc");
        sandbox.security.privileged = true;
        assert_eq!(allows(&at, &open, &sandbox), Ok(()));
        let error = allows(&at, &closed, &sandbox).expect_err("privileged");
        assert_eq!(error.field, "config.linux.security_context.privileged");
    }
}
