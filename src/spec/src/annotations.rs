//! Annotations of the spec, for tools that look at OCI specs (monitoring agents, security scanners).

use serde_json::{Map, Value};

use crate::input::Input;

/// The annotations that tools know from containerd, then the container's own.
pub(crate) fn annotations(input: &Input<'_>) -> Map<String, Value> {
    let pod = &input.sandbox.metadata;
    let image = match input.container.user_specified_image.as_str() {
        "" => &input.container.image,
        name => name,
    };
    let known = [
        ("container-type", "container"),
        ("container-name", &input.container.metadata.name),
        ("image-name", image),
        ("sandbox-id", input.sandbox_facts.id.as_str()),
        ("sandbox-name", &pod.name),
        ("sandbox-namespace", &pod.namespace),
        ("sandbox-uid", &pod.uid),
    ];
    let known = known.map(|(name, value)| (format!("io.kubernetes.cri.{name}"), Value::from(value)));
    known.into_iter().collect()
}
