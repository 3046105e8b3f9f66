//! A process that is added to a running container.

use crisp_model::process::Process;

use crate::{command, error::SpecError};

/// The process of an exec: as the container's own (user, groups, capabilities, limits, labels, environment, working
/// directory), with another program. With a terminal it gets a `TERM` unless the container has one.
pub fn exec(base: &Process, args: Vec<String>, tty: bool) -> Result<Process, SpecError> {
    command::check(&args).map_err(|error| match error {
        SpecError::Invalid { reason, .. } => SpecError::invalid("cmd", reason),
        other => other,
    })?;
    let mut process = Process { args, terminal: tty.then_some((0, 0)), ..base.clone() };
    if tty && !process.env.iter().any(|entry| entry.starts_with(b"TERM=")) {
        process.env.push(b"TERM=xterm".to_vec());
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_container_s_process_with_another_program() {
        let base = Process {
            args: vec!["init".into()],
            env: vec![b"A=1".to_vec()],
            uid: 7,
            additional_gids: vec![7, 8],
            no_new_privs: true,
            cwd: "/app".into(),
            ..Default::default()
        };
        let process = exec(&base, vec!["ls".into()], false).unwrap();
        assert_eq!(process, Process { args: vec!["ls".into()], ..base.clone() });
        let process = exec(&base, vec!["sh".into()], true).unwrap();
        assert_eq!(process.terminal, Some((0, 0)));
        assert_eq!(process.env, [b"A=1".to_vec(), b"TERM=xterm".to_vec()]);
        let twice =
            exec(&Process { env: vec![b"TERM=vt100".to_vec()], ..base.clone() }, vec!["sh".into()], true);
        assert_eq!(twice.unwrap().env.len(), 1);
    }

    #[test]
    fn the_container_s_terminal_is_not_the_exec_s() {
        let base = Process { terminal: Some((80, 24)), ..Default::default() };
        assert_eq!(exec(&base, vec!["ls".into()], false).unwrap().terminal, None);
    }

    #[test]
    fn nothing_to_run_is_refused() {
        assert_eq!(exec(&Process::default(), vec![], false).unwrap_err().field(), "cmd");
    }
}
