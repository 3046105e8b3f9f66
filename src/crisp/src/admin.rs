//! The daemon's own socket, `<state>/admin.sock`: what people ask of it that the CRI has no call for.
//!
//! ```text
//!   client -> {"import": {...}} newline, frames of the archive, empty frame
//!   daemon -> frames of the answer's data (an export), empty frame, {"Ok": "text"} or {"Err": "text"} newline
//! ```
//!
//! Mode 0600, as the CRI socket: who may talk here may do everything already. The image store belongs to one process at a time,
//! which is why the command line asks the daemon; without a daemon it opens the store itself and does the same work
//! ([`work::perform`]). A client that goes away in the middle leaves nothing: imports are staged, exports only read.

mod frames;
pub mod work;

use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crisp_image::ImageStore;
use serde::{Deserialize, Serialize};
use tokio::{net::UnixListener, sync::Semaphore};

use frames::{FrameReader, FrameWriter};

/// Requests at the same time. Each may hold threads and read whole images from the disk.
const AT_ONCE: usize = 4;

/// Longest first line. Names of images are the longest thing in it.
const LINE_MAX: u64 = 64 << 10;

/// A client that neither sends nor takes a byte for so long is given up.
const SILENCE: Duration = Duration::from_secs(600);

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Import an archive, which follows. `name` names images whose archive gives only a tag.
    Import {
        /// Base name.
        name: Option<String>,
    },
    /// Export images to an archive, which the answer brings.
    Export {
        /// Names or ids.
        images: Vec<String>,
    },
    /// Check what is stored.
    Verify {
        /// Pull damaged images again.
        repair: bool,
    },
    /// Explain where an image would come from.
    Why {
        /// Its name.
        image: String,
    },
    /// Say how far the pull of an image is: a line, or nothing if it is not being pulled.
    Progress {
        /// Its name.
        image: String,
    },
}

/// The socket's path.
pub fn socket(state: &Path) -> PathBuf {
    state.join("admin.sock")
}

/// Answers requests, for ever.
pub async fn serve(listener: UnixListener, store: ImageStore) {
    let slots = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let (stream, slot) = match (listener.accept().await, slots.clone().acquire_owned().await) {
            (Ok((stream, _)), Ok(slot)) => (stream, slot),
            (Err(error), _) => {
                tracing::warn!(%error, "accept on the admin socket");
                // Out of descriptors, most likely: they come back when others end.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
            (_, Err(_)) => return,
        };
        let store = store.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(stream, store).await {
                tracing::debug!(%error, "a client of the admin socket went away");
            }
            drop(slot);
        });
    }
}

async fn answer(stream: tokio::net::UnixStream, store: ImageStore) -> io::Result<()> {
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    let (input, output) = (stream.try_clone()?, stream.try_clone()?);
    let (request, rest) = blocking(move || read_request(input)).await?;
    match request {
        // Asked several times a second.
        Request::Progress { .. } => tracing::debug!(?request, "admin request"),
        _ => tracing::info!(?request, "admin request"),
    }
    let result = work::perform(&store, request, FrameReader::new(rest), FrameWriter::new(output)).await;
    let result = result.map_err(|error| format!("{error:#}"));
    blocking(move || {
        let mut stream = stream;
        frames::end(&mut stream)?;
        let line = serde_json::to_string(&result)?;
        writeln!(stream, "{line}")?;
        stream.shutdown(Shutdown::Write)?;
        // A client may be sending still what nobody wants any more. Closed on it, the answer would be lost with it.
        io::copy(&mut stream, &mut io::sink()).map(drop)
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// The first line, and the reader with what was read beyond it.
fn read_request(stream: UnixStream) -> io::Result<(Request, BufReader<UnixStream>)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.by_ref().take(LINE_MAX).read_line(&mut line)?;
    Ok((serde_json::from_str(&line)?, reader))
}

/// Asks a daemon. `None`: there is none. Blocks.
pub fn ask(
    state: &Path,
    request: &Request,
    input: Option<&mut dyn Read>,
    output: &mut dyn Write,
) -> io::Result<Option<Result<String, String>>> {
    let mut stream = match UnixStream::connect(socket(state)) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    writeln!(stream, "{}", serde_json::to_string(request)?)?;
    if let Some(input) = input {
        io::copy(input, &mut FrameWriter::new(stream.try_clone()?))?;
        frames::end(&mut stream)?;
    }
    let mut frames = FrameReader::new(BufReader::new(stream));
    io::copy(&mut frames, output)?;
    output.flush()?;
    let mut line = String::new();
    frames.into_inner().take(1 << 20).read_line(&mut line)?;
    Ok(Some(serde_json::from_str(&line)?))
}

/// Imports the archives of a folder, in the background of a start.
pub async fn preload(store: ImageStore, folder: PathBuf) {
    for (path, result) in store.import_all(&folder).await {
        match result {
            Ok(images) => {
                let ids: Vec<&str> = images.iter().map(|image| image.id.as_str()).collect();
                tracing::info!(archive = %path.display(), images = ?ids, "imported");
            }
            Err(error) => tracing::error!(archive = %path.display(), %error, "not imported"),
        }
    }
}

#[cfg(test)]
mod tests;
