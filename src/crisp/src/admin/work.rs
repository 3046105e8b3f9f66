//! The work itself, the same in the daemon and without one.

use std::{
    fmt::Write as _,
    io::{Read, Write},
};

use crisp_image::{HostReport, Image, ImageError, ImageStore, PullProgress, Reference, VerifyReport};

use super::Request;

/// Does what was asked for. The text is the answer for people.
pub async fn perform<R, W>(
    store: &ImageStore,
    request: Request,
    input: R,
    output: W,
) -> anyhow::Result<String>
where
    R: Read + Send + 'static,
    W: Write + Send + 'static,
{
    match request {
        Request::Import { name } => {
            let images = store.import_archive(input, name.as_deref()).await?;
            Ok(images.iter().map(|image| imported(image)).collect())
        }
        Request::Export { images } => {
            store.export(&images, output).await?;
            Ok(String::new())
        }
        Request::Verify { repair } => verified(&store.verify(repair).await?),
        Request::Why { image } => explained(&store.why(&image, None).await),
        Request::Progress { image } => {
            let name = Reference::parse(&image)?.to_string();
            let pull = store.progress().into_iter().rfind(|pull| pull.reference == name);
            Ok(pull.map(|pull| bar(&pull)).unwrap_or_default())
        }
    }
}

/// How far a pull is, in one line.
fn bar(pull: &PullProgress) -> String {
    const WIDTH: u64 = 30;
    let (received, size) = pull.bytes();
    if pull.storing {
        return "storing".into();
    }
    if size == 0 {
        return "asking the registry".into();
    }
    let full = usize::try_from(received.min(size) * WIDTH / size).unwrap_or(0);
    let whole = pull.layers.iter().filter(|layer| layer.received == layer.size).count();
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    let mut hosts: Vec<&str> =
        pull.layers.iter().map(|layer| layer.host.as_str()).filter(|host| !host.is_empty()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    format!(
        "[{:<width$}] {:.1} of {:.1} MB, {:.1} MB/s, {whole} of {} layers, {}",
        "=".repeat(full),
        megabytes(received),
        megabytes(size),
        megabytes(received) / pull.elapsed.as_secs_f64().max(0.001),
        pull.layers.len(),
        hosts.join(" "),
        width = WIDTH as usize,
    )
}

fn imported(image: &Image) -> String {
    let names = if image.repo_tags.is_empty() { &image.repo_digests } else { &image.repo_tags };
    format!("{} {}\n", image.id, names.join(" "))
}

/// The report; damage that is still there is an error, so that scripts notice.
fn verified(report: &VerifyReport) -> anyhow::Result<String> {
    let mut text = format!("{} layers are as they should be\n", report.good_layers);
    if report.unchecked_layers > 0 {
        let _ = writeln!(text, "{} layers could be checked in part only", report.unchecked_layers);
    }
    for damage in &report.damaged {
        let _ =
            writeln!(text, "damaged: {}: {} (images: {})", damage.what, damage.why, damage.images.join(", "));
    }
    for id in &report.repaired {
        let _ = writeln!(text, "pulled again: {id}");
    }
    for (id, why) in &report.forgotten {
        let _ = writeln!(text, "forgotten, since it cannot be pulled: {id}: {why}");
    }
    let repaired = !report.repaired.is_empty() || !report.forgotten.is_empty();
    anyhow::ensure!(report.damaged.is_empty() || repaired, "{text}`--repair` pulls damaged images again");
    Ok(text)
}

fn explained(hosts: &Result<Vec<HostReport>, ImageError>) -> anyhow::Result<String> {
    let hosts = hosts.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut text = String::new();
    for (number, host) in hosts.iter().enumerate() {
        let _ = writeln!(text, "{}. {}", number + 1, host.url);
        let _ = writeln!(text, "   named by     {}", host.origin);
        let _ = writeln!(text, "   may          {}", host.capabilities.join(", "));
        let _ = writeln!(text, "   TLS          {}", host.tls);
        let _ = writeln!(text, "   credentials  {}", host.credentials);
        if !host.headers.is_empty() {
            let _ = writeln!(text, "   headers      {}", host.headers.join(", "));
        }
        let (word, answer) = match &host.answer {
            Ok(answer) => ("has it", answer),
            Err(failure) => ("fails", failure),
        };
        let _ = writeln!(text, "   {word:<11}  {answer}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crisp_image::{Damage, LayerProgress};

    use super::*;

    #[test]
    fn a_bar_says_how_far_a_pull_is() {
        let layer = |received, size, host: &str| LayerProgress {
            blob: String::new(),
            received,
            size,
            host: host.into(),
        };
        let mut pull = PullProgress {
            reference: "a/b".into(),
            elapsed: Duration::from_secs(2),
            layers: Vec::new(),
            storing: false,
        };
        assert_eq!(bar(&pull), "asking the registry");
        pull.layers =
            vec![layer(1_000_000, 1_000_000, "q.io"), layer(500_000, 2_000_000, "q.io"), layer(0, 0, "")];
        let expected =
            format!("[{}{}] 1.5 of 3.0 MB, 0.8 MB/s, 2 of 3 layers, q.io", "=".repeat(15), " ".repeat(15));
        assert_eq!(bar(&pull), expected);
        pull.storing = true;
        assert_eq!(bar(&pull), "storing");
    }

    #[test]
    fn damage_that_stays_is_an_error() {
        let damage =
            Damage { what: "sha256:1".into(), why: "differs".into(), images: vec!["sha256:2".into()] };
        let mut report = VerifyReport { good_layers: 3, damaged: vec![damage], ..VerifyReport::default() };
        assert!(verified(&report).expect_err("damaged").to_string().contains("sha256:1: differs"));
        report.repaired.push("sha256:2".into());
        assert!(verified(&report).expect("repaired").contains("pulled again: sha256:2"));
        assert!(verified(&VerifyReport::default()).is_ok());
    }

    #[test]
    fn hosts_are_listed_in_order() {
        let host = |url: &str, answer| HostReport {
            url: url.into(),
            origin: "hosts.toml".into(),
            capabilities: vec!["resolve", "pull"],
            tls: "none".into(),
            credentials: "none".into(),
            headers: Vec::new(),
            answer,
        };
        let hosts =
            vec![host("http://mirror", Err("refused".into())), host("https://origin", Ok("sha256:1".into()))];
        let text = explained(&Ok(hosts)).expect("text");
        let (first, second) = (text.find("1. http://mirror"), text.find("2. https://origin"));
        assert!(first < second && first.is_some());
        assert!(text.contains("fails        refused") && text.contains("has it       sha256:1"), "{text}");
    }
}
