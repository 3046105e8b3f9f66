//! `crisp image`: images over the daemon's own CRI socket.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use crisp_proto::v1::{self, image_service_client::ImageServiceClient};
use std::path::PathBuf;
use tonic::transport::{Channel, Endpoint};

use super::print;
use crate::config::Config;

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Pull an image from its registry
    Pull {
        /// The image: name, name:tag or name@digest
        image: String,
    },
    /// List images
    Ls,
    /// Remove an image with all its names
    Rm {
        /// The image: id, name:tag or name@digest
        image: String,
    },
    /// Import an archive (OCI or Docker)
    Import {
        /// The archive; - for standard input
        archive: PathBuf,
        /// A name for its image, in place of those in the archive
        #[arg(long)]
        name: Option<String>,
    },
    /// Write an image to an OCI archive
    Export {
        /// The image
        image: String,
        /// The archive
        archive: PathBuf,
    },
    /// Check every stored file of an image against its digest
    Verify {
        /// The image; all of them if none is named
        image: Option<String>,
    },
    /// Say where an image would be pulled from: hosts in order, certificates, credentials, and who decided so
    Why {
        /// The image
        image: String,
    },
}

/// Does it.
pub async fn run(command: ImageCommand, config: Config) -> anyhow::Result<()> {
    match command {
        ImageCommand::Pull { image } => pull(connect(&config).await?, image).await,
        ImageCommand::Ls => list(connect(&config).await?).await,
        ImageCommand::Rm { image } => remove(connect(&config).await?, image).await,
        ImageCommand::Import { .. }
        | ImageCommand::Export { .. }
        | ImageCommand::Verify { .. }
        | ImageCommand::Why { .. } => bail!("this command is not built yet"),
    }
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

async fn pull(mut client: ImageServiceClient<Channel>, image: String) -> anyhow::Result<()> {
    let request = v1::PullImageRequest { image: spec(image), ..Default::default() };
    let answer = client.pull_image(request).await.map_err(failed)?;
    print::text(&format!("{}\n", answer.into_inner().image_ref))
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
