//! Pure: pod, container, image and host facts to an OCI runtime spec.
