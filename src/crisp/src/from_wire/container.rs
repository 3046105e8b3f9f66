//! `ContainerConfig`.

use crisp_model::{ContainerConfig, SandboxConfig, container::ContainerMetadata, security::NamespaceMode};
use crisp_proto::v1;

use super::{
    error::{At, Invalid, Shown},
    mount, resources, security, signal, text,
};

/// Checks a container's configuration.
pub fn container_config(at: &At<'_>, wire: Option<&v1::ContainerConfig>) -> Result<ContainerConfig, Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    if wire.windows.is_some() {
        return Err(at.field("windows").invalid("is set, but this is Linux"));
    }
    let (image, user_specified_image) = image(&at.field("image"), wire.image.as_ref())?;
    let linux = wire.linux.as_ref();
    let linux_at = at.field("linux");
    Ok(ContainerConfig {
        metadata: container_metadata(&at.field("metadata"), wire.metadata.as_ref())?,
        image,
        user_specified_image,
        command: text::arguments(&at.field("command"), &wire.command)?,
        args: text::arguments(&at.field("args"), &wire.args)?,
        working_dir: working_dir(&at.field("working_dir"), &wire.working_dir)?,
        envs: envs(&at.field("envs"), &wire.envs)?,
        mounts: mount::mounts(&at.field("mounts"), &wire.mounts)?,
        devices: mount::devices(&at.field("devices"), &wire.devices)?,
        cdi_devices: mount::cdi_devices(&at.field("CDI_devices"), &wire.cdi_devices)?,
        labels: text::labels(&at.field("labels"), &wire.labels)?,
        annotations: text::annotations(&wire.annotations),
        log_path: text::relative_path(&at.field("log_path"), &wire.log_path)?,
        stdin: wire.stdin,
        stdin_once: wire.stdin_once,
        tty: wire.tty,
        resources: resources::linux_resources(
            &linux_at.field("resources"),
            linux.and_then(|l| l.resources.as_ref()),
        )?,
        security: security::of_container(
            &linux_at.field("security_context"),
            linux.and_then(|l| l.security_context.as_ref()),
        )?,
        stop_signal: signal::stop_signal(&at.field("stop_signal"), wire.stop_signal)?,
    })
}

/// Checks what a container asks of the sandbox it is to live in.
pub fn fits_sandbox(
    at: &At<'_>,
    container: &ContainerConfig,
    sandbox: &SandboxConfig,
) -> Result<(), Invalid> {
    let linux = at.field("linux");
    let context = linux.field("security_context");
    if container.security.privileged && !sandbox.security.privileged {
        let at = context.field("privileged");
        return Err(at.invalid("is set, but the sandbox is not privileged"));
    }
    let (wants, has) = (&container.security.namespaces, &sandbox.security.namespaces);
    let options = context.field("namespace_options");
    if wants.user.is_some() && wants.user != has.user {
        return Err(options.field("userns_options").invalid("differs from the sandbox's"));
    }
    if matches!(wants.pid, NamespaceMode::Node) && has.user.is_some() {
        let at = options.field("pid");
        return Err(at.invalid("is the host's, which a pod with a user namespace of its own cannot use"));
    }
    let mounts = at.field("mounts");
    for (i, mount) in container.mounts.iter().enumerate() {
        if !mount.uid_mappings.is_empty() && has.user.is_none() {
            let at = mounts.index(i);
            return Err(at.field("uidMappings").invalid("is set, but the sandbox has no user namespace"));
        }
    }
    Ok(())
}

/// Checks the name of a container.
pub fn container_metadata(
    at: &At<'_>,
    wire: Option<&v1::ContainerMetadata>,
) -> Result<ContainerMetadata, Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    Ok(ContainerMetadata { name: text::name(&at.field("name"), &wire.name)?, attempt: wire.attempt })
}

fn image(at: &At<'_>, wire: Option<&v1::ImageSpec>) -> Result<(String, String), Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    let image = text::required(&at.field("image"), &wire.image)?;
    text::no_nul(&at.field("user_specified_image"), &wire.user_specified_image)?;
    Ok((image, wire.user_specified_image.clone()))
}

fn working_dir(at: &At<'_>, path: &str) -> Result<String, Invalid> {
    if path.is_empty() { Ok(String::new()) } else { text::container_path(at, path) }
}

/// Names are names (no `=`, no NUL); values are any bytes that can end with a NUL.
fn envs(at: &At<'_>, list: &[v1::KeyValue]) -> Result<Vec<(String, Vec<u8>)>, Invalid> {
    let mut envs = Vec::with_capacity(list.len());
    for (i, wire) in list.iter().enumerate() {
        let at = at.index(i);
        text::required(&at.field("key"), &wire.key)?;
        if wire.key.contains('=') {
            return Err(at.field("key").invalid(format!("{} has a `=` in it", Shown(&wire.key))));
        }
        if wire.value.contains(&0) {
            return Err(at.field("value").invalid("contains a NUL byte"));
        }
        envs.push((wire.key.clone(), wire.value.to_vec()));
    }
    Ok(envs)
}

#[cfg(test)]
mod tests;
