//! What the container runs, and where.

use crisp_model::{ContainerConfig, image::ImageConfig};

use crate::error::SpecError;

/// Longest argument the kernel takes, bytes with its NUL (`MAX_ARG_STRLEN`, `execve(2)`).
const MAX_ARGUMENT: usize = 131_072;

/// The arguments of the container's program, as Kubernetes defines them:
///
/// | `command` | `args` | runs |
/// |---|---|---|
/// | | | the image's entrypoint and cmd |
/// | | set | the image's entrypoint with `args` |
/// | set | | `command` alone |
/// | set | set | `command` with `args` |
pub fn command(config: &ContainerConfig, image: &ImageConfig) -> Result<Vec<String>, SpecError> {
    // Some builders write an entrypoint of one empty string where they mean none.
    let entrypoint: &[String] = if image.entrypoint == [""] { &[] } else { &image.entrypoint };
    let (program, args) = match (config.command.is_empty(), config.args.is_empty()) {
        (true, true) => (entrypoint, &image.cmd),
        (true, false) => (entrypoint, &config.args),
        (false, _) => (config.command.as_slice(), &config.args),
    };
    let all: Vec<String> = program.iter().chain(args).cloned().collect();
    check(&all)?;
    Ok(all)
}

/// Refuses what execve(2) could not take.
pub(crate) fn check(args: &[String]) -> Result<(), SpecError> {
    match args.first() {
        None => {
            let reason = "nothing to run: neither the request nor the image names a program";
            return Err(SpecError::invalid("config.command", reason));
        }
        Some(program) if program.is_empty() => {
            return Err(SpecError::invalid("config.command", "the program's name is empty"));
        }
        Some(_) => {}
    }
    for (i, arg) in args.iter().enumerate() {
        if arg.contains('\0') {
            return Err(SpecError::invalid("config.command", format!("argument {i} has a NUL byte")));
        }
        if arg.len() >= MAX_ARGUMENT {
            let reason =
                format!("argument {i} has {} bytes; the kernel takes {}", arg.len(), MAX_ARGUMENT - 1);
            return Err(SpecError::invalid("config.command", reason));
        }
    }
    Ok(())
}

/// The working directory: the request's, the image's, `/`.
pub fn working_dir(config: &ContainerConfig, image: &ImageConfig) -> Result<String, SpecError> {
    let (field, dir) = match (config.working_dir.as_str(), image.working_dir.as_str()) {
        ("", "") => return Ok("/".into()),
        // Old builders wrote relative ones; they are meant from the root.
        ("", dir) if !dir.starts_with('/') => ("image.config.WorkingDir", format!("/{dir}")),
        ("", dir) => ("image.config.WorkingDir", dir.to_owned()),
        (dir, _) => ("config.working_dir", dir.to_owned()),
    };
    if !dir.starts_with('/') {
        return Err(SpecError::invalid(field, format!("{dir:?} is not an absolute path")));
    }
    if dir.contains('\0') {
        return Err(SpecError::invalid(field, "the path has a NUL byte"));
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn request_and_image_combine() {
        for (command_, args, entrypoint, cmd, expected) in [
            (&[][..], &[][..], &["e"][..], &["c"][..], &["e", "c"][..]),
            (&[], &["a"], &["e"], &["c"], &["e", "a"]),
            (&["x"], &[], &["e"], &["c"], &["x"]),
            (&["x"], &["a", "b"], &["e"], &["c"], &["x", "a", "b"]),
            (&[], &[], &[""], &["c"], &["c"]),
            (&[], &["a"], &[], &["c"], &["a"]),
            (&["x", ""], &[], &[], &[], &["x", ""]),
        ] {
            let config =
                ContainerConfig { command: strings(command_), args: strings(args), ..Default::default() };
            let image =
                ImageConfig { entrypoint: strings(entrypoint), cmd: strings(cmd), ..Default::default() };
            assert_eq!(command(&config, &image).unwrap(), strings(expected));
        }
    }

    #[test]
    fn what_cannot_run_is_refused() {
        let long = "x".repeat(MAX_ARGUMENT);
        for words in [&[][..], &[""], &["a\0b"], &["a", &long]] {
            let config = ContainerConfig { command: strings(words), ..Default::default() };
            let error = command(&config, &ImageConfig::default()).unwrap_err();
            assert_eq!(error.field(), "config.command", "{words:?}");
        }
    }

    #[test]
    fn the_working_directory() {
        for (request, image, expected) in [
            ("", "", Some("/")),
            ("", "app", Some("/app")),
            ("", "/i", Some("/i")),
            ("/r", "/i", Some("/r")),
            ("r", "/i", None),
        ] {
            let config = ContainerConfig { working_dir: request.into(), ..Default::default() };
            let image = ImageConfig { working_dir: image.into(), ..Default::default() };
            assert_eq!(working_dir(&config, &image).ok().as_deref(), expected);
        }
    }
}
