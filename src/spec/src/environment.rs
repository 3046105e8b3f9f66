//! The environment of the container's program.

use crisp_model::{ContainerConfig, image::ImageConfig};

use crate::error::SpecError;

/// What every runtime sets where the image sets nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Entries in the order in which their names first appeared; a later value replaces an earlier one in its place.
struct Entries(Vec<(Vec<u8>, Vec<u8>)>);

impl Entries {
    fn set(&mut self, name: &[u8], value: &[u8]) {
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some(entry) => entry.1 = value.to_vec(),
            None => self.0.push((name.to_vec(), value.to_vec())),
        }
    }

    fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }
}

/// The environment: defaults, then the image's, then the request's; `HOME` last, from the account, if nobody set it
/// (looking it up inside the container would run the container's code). Names that cannot be are an error in the
/// request and a warning in the image.
pub fn environment(
    config: &ContainerConfig,
    image: &ImageConfig,
    host_name: &str,
    home: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Vec<u8>>, SpecError> {
    let mut entries = Entries(Vec::new());
    entries.set(b"PATH", PATH.as_bytes());
    if !host_name.is_empty() {
        entries.set(b"HOSTNAME", host_name.as_bytes());
    }
    if config.tty {
        entries.set(b"TERM", b"xterm");
    }
    for entry in &image.env {
        match entry.split_once('=') {
            Some((name, value)) if !name.is_empty() && !entry.contains('\0') => {
                entries.set(name.as_bytes(), value.as_bytes());
            }
            _ => warnings.push(format!("image.config.Env: {entry:?} is not NAME=value and was left out")),
        }
    }
    for (i, (name, value)) in config.envs.iter().enumerate() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let reason =
                format!("{name:?} cannot be the name of a variable: it may not be empty nor have '=' or NUL");
            return Err(SpecError::invalid(format!("config.envs[{i}].key"), reason));
        }
        if value.contains(&0) {
            return Err(SpecError::invalid(
                format!("config.envs[{i}].value"),
                "a value cannot have a NUL byte",
            ));
        }
        entries.set(name.as_bytes(), value);
    }
    if !entries.has(b"HOME") {
        entries.set(b"HOME", home.unwrap_or("/").as_bytes());
    }
    Ok(entries.0.into_iter().map(|(name, value)| [name, value].join(&b'=')).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn config(envs: &[(&str, &str)], tty: bool) -> ContainerConfig {
        let envs = envs.iter().map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec())).collect();
        ContainerConfig { envs, tty, ..Default::default() }
    }

    fn merged(image: &[&str], envs: &[(&str, &str)], tty: bool) -> Vec<String> {
        let image =
            ImageConfig { env: image.iter().map(|e| (*e).to_owned()).collect(), ..Default::default() };
        let env = environment(&config(envs, tty), &image, "pod", Some("/root"), &mut vec![]).unwrap();
        env.into_iter().map(|e| String::from_utf8(e).unwrap()).collect()
    }

    #[test]
    fn later_values_replace_earlier_ones_in_place() {
        let path = format!("PATH={PATH}");
        assert_eq!(merged(&[], &[], false), [path.as_str(), "HOSTNAME=pod", "HOME=/root"]);
        assert_eq!(
            merged(&["PATH=/bin", "A=1", "B=2"], &[("A", "3"), ("C", ""), ("HOME", "/h")], true),
            ["PATH=/bin", "HOSTNAME=pod", "TERM=xterm", "A=3", "B=2", "C=", "HOME=/h"]
        );
        assert_eq!(merged(&["TERM=dumb"], &[("HOSTNAME", "x")], true)[1..3], ["HOSTNAME=x", "TERM=dumb"]);
    }

    #[test]
    fn values_are_bytes() {
        let mut config = config(&[], false);
        config.envs.push(("B".into(), vec![0xff, b'=']));
        let env = environment(&config, &ImageConfig::default(), "", None, &mut vec![]).unwrap();
        assert_eq!(env[1], [b'B', b'=', 0xff, b'=']);
        assert_eq!(env[2], b"HOME=/");
    }

    #[test]
    fn impossible_names_are_named() {
        for (name, value, field) in [
            ("", "x", "config.envs[1].key"),
            ("a=b", "x", "config.envs[1].key"),
            ("a", "x\0", "config.envs[1].value"),
        ] {
            let config = config(&[("OK", ""), (name, value)], false);
            let error = environment(&config, &ImageConfig::default(), "", None, &mut vec![]).unwrap_err();
            assert_eq!(error.field(), field);
        }
        let image = ImageConfig { env: vec!["NOVALUE".into(), "=x".into()], ..Default::default() };
        let mut warnings = vec![];
        environment(&config(&[], false), &image, "", None, &mut warnings).unwrap();
        assert_eq!(warnings.len(), 2);
    }

    proptest! {
        #[test]
        fn every_name_once_and_the_last_value_wins(
            image in prop::collection::vec(("[A-D]{1,2}", "[a-z]{0,3}"), 0..12),
            envs in prop::collection::vec(("[A-D]{1,2}", prop::collection::vec(1u8.., 0..4)), 0..12),
        ) {
            let config = ContainerConfig { envs: envs.clone(), ..Default::default() };
            let image_env = image.iter().map(|(n, v)| format!("{n}={v}")).collect();
            let image_config = ImageConfig { env: image_env, ..Default::default() };
            let env = environment(&config, &image_config, "h", None, &mut vec![]).unwrap();
            let name = |entry: &Vec<u8>| entry.split(|b| *b == b'=').next().unwrap().to_vec();
            let names: Vec<_> = env.iter().map(name).collect();
            let unique: std::collections::BTreeSet<_> = names.iter().collect();
            prop_assert_eq!(unique.len(), names.len());
            for (name, _) in &envs {
                let last = envs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
                let entry = [name.as_bytes().to_vec(), last].join(&b'=');
                prop_assert!(env.contains(&entry));
            }
            for (name, _) in image.iter().filter(|(n, _)| !envs.iter().any(|(e, _)| e == n)) {
                let last = image.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v).unwrap();
                let entry = format!("{name}={last}").into_bytes();
                prop_assert!(env.contains(&entry));
            }
        }
    }
}
