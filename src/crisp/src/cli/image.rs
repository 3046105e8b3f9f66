//! `crisp image`: images over the daemon's CRI socket, and over its own one for what the CRI has no call for.

use std::{
    fs::File,
    io::{self, BufRead, IsTerminal as _, Read, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Subcommand;
use crisp_image::ImageStore;
use crisp_proto::v1::{self, image_service_client::ImageServiceClient};
use tonic::transport::{Channel, Endpoint};

use super::print;
use crate::{
    admin::{self, Request, work::perform},
    config::Config,
};

/// Quick enough to look alive.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// To the start of the line, and nothing on it (ECMA-48 `EL`).
const CLEAR_LINE: &[u8] = b"\r\x1b[2K";

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Pull an image from its registry
    Pull {
        /// The image: name, name:tag or name@digest
        image: String,
        /// Credentials for the registry; without a password, it is read from standard input, where `ps` does not show it
        #[arg(long, value_name = "USER[:PASSWORD]")]
        creds: Option<String>,
    },
    /// List images
    Ls,
    /// Remove an image with all its names
    Rm {
        /// The image: id, name:tag or name@digest
        image: String,
    },
    /// Import the images of an archive (OCI layout or `docker save`, also compressed)
    ///
    /// Without a running daemon the image store is opened directly.
    Import {
        /// The archive; - for standard input
        archive: PathBuf,
        /// Name for images whose archive gives them only a tag
        #[arg(long)]
        name: Option<String>,
    },
    /// Write images to an archive that is both an OCI layout and what `docker load` takes
    Export {
        /// The archive; - for standard output
        archive: PathBuf,
        /// The images: names or ids
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Check every stored file against the digests of the images; ends with 1 if something is damaged
    Verify {
        /// Pull damaged images again; forget those that cannot be pulled
        #[arg(long)]
        repair: bool,
    },
    /// Say where an image would be pulled from: hosts in order, who named them, TLS, credentials, and what each answers
    Why {
        /// The image
        image: String,
    },
}

/// Does it.
pub async fn run(command: ImageCommand, config: Config) -> anyhow::Result<()> {
    match command {
        ImageCommand::Pull { image, creds } => {
            let auth = creds.map(|creds| login(&creds, &mut io::stdin().lock())).transpose()?;
            pull(connect(&config).await?, image, auth, &config.state).await
        }
        ImageCommand::Ls => list(connect(&config).await?).await,
        ImageCommand::Rm { image } => remove(connect(&config).await?, image).await,
        ImageCommand::Import { archive, name } => {
            let input = open(&archive)?;
            ask(&config, Request::Import { name }, Some(input), Box::new(io::sink())).await
        }
        ImageCommand::Export { archive, images } => export(&config, &archive, images).await,
        ImageCommand::Verify { repair } => {
            ask(&config, Request::Verify { repair }, None, Box::new(io::sink())).await
        }
        ImageCommand::Why { image } => ask(&config, Request::Why { image }, None, Box::new(io::sink())).await,
    }
}

type Input = Box<dyn Read + Send>;
type Output = Box<dyn Write + Send>;

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn open(archive: &Path) -> anyhow::Result<Input> {
    if is_standard(archive) {
        return Ok(Box::new(io::stdin()));
    }
    Ok(Box::new(File::open(archive).with_context(|| format!("open {}", archive.display()))?))
}

/// To a file beside the archive first: one that is there under its name is whole.
async fn export(config: &Config, archive: &Path, images: Vec<String>) -> anyhow::Result<()> {
    let request = Request::Export { images };
    if is_standard(archive) {
        return ask(config, request, None, Box::new(io::stdout())).await;
    }
    let folder = match archive.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = archive.file_name().context("the archive needs a name")?;
    let part = folder.join(format!(".{}.{}.part", name.display(), std::process::id()));
    let file = File::create(&part).with_context(|| format!("make {}", part.display()))?;
    let written = ask(config, request, None, Box::new(file)).await;
    let placed = written.and_then(|()| {
        std::fs::rename(&part, archive).with_context(|| format!("rename to {}", archive.display()))
    });
    if placed.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    placed
}

/// Asks the daemon, or does the work on the store itself if there is none.
async fn ask(config: &Config, request: Request, input: Option<Input>, output: Output) -> anyhow::Result<()> {
    let state = config.state.clone();
    let asked = request.clone();
    let task = tokio::task::spawn_blocking(move || {
        let (mut input, mut output) = (input, output);
        let reader = input.as_mut().map(|input| input as &mut dyn Read);
        let answer = admin::ask(&state, &asked, reader, &mut output);
        (answer, input, output)
    });
    let (answer, input, output) = task.await?;
    let socket = admin::socket(&config.state);
    let text = match answer.with_context(|| format!("talk to the daemon over {}", socket.display()))? {
        Some(answer) => answer.map_err(anyhow::Error::msg)?,
        None => {
            let (store, _) = ImageStore::open(config.image_store()).await?;
            perform(&store, request, input.unwrap_or_else(|| Box::new(io::empty())), output).await?
        }
    };
    print::text(&text)
}

async fn connect(config: &Config) -> anyhow::Result<ImageServiceClient<Channel>> {
    const MAX_MESSAGE: usize = 16 << 20;
    let socket = &config.socket;
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await;
    let channel =
        channel.with_context(|| format!("connect to {}; does `crisp serve` run?", socket.display()))?;
    Ok(ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
}

fn spec(image: String) -> Option<v1::ImageSpec> {
    Some(v1::ImageSpec { image, ..v1::ImageSpec::default() })
}

/// The status' own words; its code says nothing to people that they do not.
fn failed(status: tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// What the line says, its password or the first line of `input` if it has none.
fn login(creds: &str, input: &mut dyn BufRead) -> anyhow::Result<v1::AuthConfig> {
    let (username, password) = match creds.split_once(':') {
        Some((username, password)) => (username, password.to_owned()),
        None => {
            let mut line = String::new();
            input.read_line(&mut line).context("read the password from standard input")?;
            (creds, line.trim_end_matches(['\r', '\n']).to_owned())
        }
    };
    anyhow::ensure!(!username.is_empty() && !password.is_empty(), "credentials are USER:PASSWORD");
    Ok(v1::AuthConfig { username: username.to_owned(), password, ..Default::default() })
}

async fn pull(
    mut client: ImageServiceClient<Channel>,
    image: String,
    auth: Option<v1::AuthConfig>,
    state: &Path,
) -> anyhow::Result<()> {
    let request = v1::PullImageRequest { image: spec(image.clone()), auth, ..Default::default() };
    let mut pulling = std::pin::pin!(client.pull_image(request));
    let answer = if io::stderr().is_terminal() {
        loop {
            match tokio::time::timeout(PROGRESS_EVERY, &mut pulling).await {
                Ok(answer) => break answer,
                Err(_) => show_progress(state, &image).await,
            }
        }
    } else {
        pulling.await
    };
    if io::stderr().is_terminal() {
        let _ = io::stderr().write_all(CLEAR_LINE);
    }
    print::text(&format!("{}\n", answer.map_err(failed)?.into_inner().image_ref))
}

/// One line that is written over and over. That it cannot be known is no reason to fail.
async fn show_progress(state: &Path, image: &str) {
    let (state, request) = (state.to_owned(), Request::Progress { image: image.to_owned() });
    let asked =
        tokio::task::spawn_blocking(move || admin::ask(&state, &request, None, &mut io::sink())).await;
    if let Ok(Ok(Some(Ok(line)))) = asked {
        let _ = io::stderr().write_all(&[CLEAR_LINE, line.as_bytes()].concat());
    }
}

async fn remove(mut client: ImageServiceClient<Channel>, image: String) -> anyhow::Result<()> {
    client.remove_image(v1::RemoveImageRequest { image: spec(image) }).await.map_err(failed)?;
    Ok(())
}

async fn list(mut client: ImageServiceClient<Channel>) -> anyhow::Result<()> {
    let answer = client.list_images(v1::ListImagesRequest::default()).await.map_err(failed)?;
    print::text(&table(answer.into_inner().images))
}

fn table(images: Vec<v1::Image>) -> String {
    let mut rows: Vec<(String, String, u64)> = Vec::new();
    for image in images {
        let id = image.id.trim_start_matches("sha256:").chars().take(13).collect::<String>();
        let names = if image.repo_tags.is_empty() { image.repo_digests } else { image.repo_tags };
        let names = if names.is_empty() { vec!["<none>".to_owned()] } else { names };
        rows.extend(names.into_iter().map(|name| (name, id.clone(), image.size)));
    }
    rows.sort();
    let width = rows.iter().map(|(name, ..)| name.len()).max().unwrap_or(0).max("IMAGE".len());
    let mut text = format!("{:width$}  {:13}  {:>10}\n", "IMAGE", "ID", "SIZE");
    for (name, id, size) in rows {
        let tenths = (size * 10) >> 20;
        text.push_str(&format!("{name:width$}  {id:13}  {:>6}.{} MiB\n", tenths / 10, tenths % 10));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_from_the_line_or_from_standard_input() {
        for (creds, input, expected) in [
            ("user:pass:word", "unread", Some(("user", "pass:word"))),
            ("user", "secret\r\nmore", Some(("user", "secret"))),
            ("user", "", None),
            ("user:", "unread", None),
            (":word", "unread", None),
        ] {
            let found = login(creds, &mut input.as_bytes()).ok().map(|auth| (auth.username, auth.password));
            let expected = expected.map(|(user, word)| (user.to_owned(), word.to_owned()));
            assert_eq!(found, expected, "{creds}");
        }
    }

    #[test]
    fn the_list_has_a_line_for_each_name() {
        let image = |id: &str, tags: &[&str], digests: &[&str]| v1::Image {
            id: id.into(),
            repo_tags: tags.iter().map(|t| (*t).to_owned()).collect(),
            repo_digests: digests.iter().map(|t| (*t).to_owned()).collect(),
            size: 3 << 19,
            ..Default::default()
        };
        let text = table(vec![
            image("sha256:aaaaaaaaaaaaaaaaaaaa", &["b:1", "a:1"], &["a@sha256:1"]),
            image("sha256:bb", &[], &["c@sha256:2"]),
            image("sha256:cc", &[], &[]),
        ]);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["<none>", "cc", "1.5", "MiB"]);
        assert_eq!(lines[2], ["a:1", "aaaaaaaaaaaaa", "1.5", "MiB"]);
        assert_eq!(lines[4][0], "c@sha256:2");
        assert_eq!(lines.len(), 5);
    }
}
