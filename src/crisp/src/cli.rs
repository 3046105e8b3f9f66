//! The command line: what can be typed, and what each command does.
//!
//! Exit codes: 0 done, 1 failed, 64 the command line or the configuration is wrong and nothing was started.

pub mod image;
mod print;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::{ConfigError, Loaded, Sources, load::load};

/// Exit code for a command line or configuration that is wrong (`EX_USAGE` of `sysexits.h`).
const USAGE: u8 = 64;

/// A container runtime for Kubernetes nodes.
#[derive(Debug, Parser)]
#[command(
    name = "crisp",
    version,
    about = "A container runtime for Kubernetes nodes",
    long_about = "A container runtime for Kubernetes nodes.\n\n\
        `crisp serve` answers the kubelet over the Container Runtime Interface (CRI v1): it pulls images, makes the \
        networks of pods and runs their containers. Pods do not depend on the daemon: it may be stopped, killed and \
        started again while they run.",
    after_help = "EXIT CODES:\n  0   done\n  1   failed; the reason is on standard error\n  64  the command line or the \
        configuration is wrong; nothing was started"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    ///
    /// Serves RuntimeService and ImageService of the CRI on a unix socket until SIGTERM or SIGINT. Pods go on running
    /// after that. SIGHUP reads the configuration again and changes what can be changed (see `crisp config
    /// --defaults`). Started by systemd (Type=notify) it says when it is ready.
    Serve(Settings),
    /// Print the configuration
    ///
    /// Without options: the configuration in force, from defaults, files, environment and flags, as a file that gives
    /// the same again.
    Config {
        /// Print every key with its default and what it means
        #[arg(long, conflicts_with_all = ["origin", "host"])]
        defaults: bool,
        /// Print each value with who set it
        #[arg(long, conflicts_with = "host")]
        origin: bool,
        /// Print what this host can do, as the daemon finds out: cgroups, mounts, user namespaces, security modules
        #[arg(long)]
        host: bool,
        /// Where the settings come from.
        #[command(flatten)]
        settings: Settings,
    },
    /// Work with images
    Image {
        /// What to do with them.
        #[command(subcommand)]
        command: image::ImageCommand,
        /// Where the settings come from.
        #[command(flatten)]
        settings: Settings,
    },
    /// Print versions
    Version,
    /// Print a completion script for a shell
    ///
    /// For bash: `crisp completion bash > /usr/share/bash-completion/completions/crisp`
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
}

/// Where the settings come from. Flags win over the environment, that over conf.d, that over the file.
#[derive(Debug, Clone, Default, Args)]
pub struct Settings {
    /// Configuration file; `conf.d/*.toml` beside it is read too [default: /etc/crisp/config.toml, if it exists]
    #[arg(long, global = true, value_name = "FILE", env = "CRISP_CONFIG")]
    pub config: Option<PathBuf>,
    /// Folder for what survives a reboot
    #[arg(long, global = true, value_name = "FOLDER")]
    pub root: Option<String>,
    /// Folder for what dies with the boot
    #[arg(long, global = true, value_name = "FOLDER")]
    pub state: Option<String>,
    /// The CRI socket
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<String>,
    /// error, warn, info, debug, trace, or a filter such as info,crisp_image=debug
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Form of the log lines
    #[arg(long, global = true, value_name = "FORM")]
    pub log_format: Option<Form>,
    /// Any other key of the configuration; lists are separated by commas
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Form {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is needed")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

impl Settings {
    /// Where to look, with the environment of this process.
    pub fn sources(&self) -> Sources {
        let form = self.log_format.map(|form| match form {
            Form::Text => "text".to_owned(),
            Form::Json => "json".to_owned(),
        });
        let named = [
            ("root", &self.root),
            ("state", &self.state),
            ("socket", &self.socket),
            ("log.level", &self.log_level),
            ("log.format", &form),
        ];
        let named = named.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?)));
        let environment =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        Sources {
            file: self.config.clone(),
            environment: environment.collect(),
            flags: named.chain(self.set.iter().cloned()).collect(),
        }
    }

    /// Reads them.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        load(&self.sources())
    }
}

/// Runs the command line and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Alternate form: the whole chain of causes on one line.
            eprintln!("crisp: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { USAGE } else { 1 })
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(settings) => serve(&settings),
        Command::Config { defaults: true, .. } => print::text(&crate::config::print::defaults()),
        Command::Config { host: true, settings, .. } => print::host(&settings.load()?.config),
        Command::Config { origin: true, settings, .. } => {
            print::text(&crate::config::print::origins(&settings.load()?))
        }
        Command::Config { settings, .. } => print::text(&crate::config::print::effective(&settings.load()?)),
        Command::Image { command, settings } => {
            runtime()?.block_on(image::run(command, settings.load()?.config))
        }
        Command::Version => print::text(&print::version()),
        Command::Completion { shell } => print::completion(shell, Cli::command()),
        Command::Man { folder } => print::manual(&folder, Cli::command()),
    }
}

fn serve(settings: &Settings) -> anyhow::Result<()> {
    let loaded = settings.load()?;
    let level = crate::logging::start(&loaded.config.log, loaded.config.trace.file.as_deref())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let sources = settings.sources();
    runtime()?.block_on(async {
        tokio::spawn(crate::reload::on_hangup(sources, loaded.config.clone(), level));
        tokio::spawn(crate::notify::keep_alive());
        crate::serve::serve(loaded.config).await
    })
}

/// Few threads: the daemon waits for others most of the time, and nodes have better uses for their memory.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    const THREADS: usize = 4;
    /// After so long without work a thread of the pool for blocking calls ends. A burst is over then.
    const IDLE: std::time::Duration = std::time::Duration::from_secs(1);
    crisp_host::allocator::few_arenas();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(THREADS))
        .thread_keep_alive(IDLE)
        .on_thread_stop(|| {
            crisp_host::allocator::give_back();
            // Only memory is at stake.
            let _ = crisp_host::program::let_go();
        })
        .enable_all()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(arguments: &[&str]) -> Settings {
        let all = ["crisp", "serve"].iter().chain(arguments);
        match Cli::try_parse_from(all).expect("valid").command {
            Command::Serve(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_become_keys_of_the_configuration() {
        let given =
            settings(&["--root", "/a", "--log-format", "json", "--set", "stream.port=1=2", "--set", "x = y"]);
        let flags = given.sources().flags;
        let flags: Vec<(&str, &str)> = flags.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(flags, [("root", "/a"), ("log.format", "json"), ("stream.port", "1=2"), ("x", " y")]);
    }

    #[test]
    fn wrong_command_lines_and_configurations_are_64() {
        let code = |arguments: &[&str]| {
            let code = run(arguments.iter().map(OsString::from));
            format!("{code:?}")
        };
        let (wrong, done) = (format!("{:?}", ExitCode::from(64)), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(code(&["crisp", "nonsense"]), wrong);
        assert_eq!(code(&["crisp"]), wrong);
        assert_eq!(code(&["crisp", "config", "--set", "nonsense=1"]), wrong);
        assert_eq!(code(&["crisp", "config", "--config", "/nonexistent/crisp.toml"]), wrong);
        assert_eq!(code(&["crisp", "serve", "--set", "log.level=loud"]), wrong);
        assert_eq!(code(&["crisp", "--help"]), done);
        assert_eq!(code(&["crisp", "config", "--defaults"]), done);
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        fn check(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn manual_pages_and_completions_are_made() {
        let folder = tempfile::tempdir().expect("folder");
        print::manual(folder.path(), Cli::command()).expect("written");
        for page in ["crisp.1", "crisp-serve.1", "crisp-image-pull.1"] {
            assert!(folder.path().join(page).exists(), "{page}");
        }
    }
}
