//! Pulls images into a store below a folder, and says how long it took.
//!
//! `pull FOLDER [--repeat N] REFERENCE...`: with `--repeat`, each image is removed and pulled again, always cold. The
//! tests kill this program in the middle.

use std::{error::Error, path::PathBuf, time::Instant};

use crisp_image::{ImageStore, ImageStoreConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: pull FOLDER [--repeat N] REFERENCE...")?);
    let mut references: Vec<String> = arguments.collect();
    let mut repeat = 0;
    if references.first().is_some_and(|first| first == "--repeat") {
        repeat = references.get(1).ok_or("--repeat needs a number")?.parse()?;
        references.drain(..2);
    }
    let config = ImageStoreConfig {
        root: folder.join("images"),
        containers_root: folder.join("containers"),
        certs_dirs: vec![folder.join("certs.d")],
        docker_config: std::env::var_os("DOCKER_CONFIG")
            .map(|folder| PathBuf::from(folder).join("config.json")),
        ..ImageStoreConfig::default()
    };
    let (store, report) = ImageStore::open(config).await?;
    println!("opened: {} images, {} unfinished layers", report.images, report.unfinished_layers);
    if !report.damaged.is_empty() {
        println!("damaged: {:?}", report.damaged);
    }
    for round in 0..=repeat {
        for reference in &references {
            if round > 0 {
                store.remove(reference).await?;
            }
            let start = Instant::now();
            let image = store.pull(reference, None).await?;
            println!("{} {} bytes in {:.3} s", image.id, image.size, start.elapsed().as_secs_f64());
        }
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default().trim();
    println!("peak memory: {peak}");
    Ok(())
}
