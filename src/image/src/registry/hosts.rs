//! Which hosts serve a registry's images: containerd's `certs.d/<host>/hosts.toml` (containerd docs/hosts.md), or
//! Docker's certificates in the same folder. Files are read at each pull, so that changes count at once.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue};
use reqwest::Url;
use toml::Value;

use crate::error::ImageError;

/// Longest hosts.toml that is read; real ones have a few lines.
const MAX_FILE: u64 = 1 << 20;

/// How to reach one host.
#[derive(Debug, Clone, PartialEq)]
pub struct Host {
    /// Up to and with `/v2` (or what `override_path` says), without a slash at the end.
    pub base: Url,
    /// May say which digest a tag has.
    pub resolve: bool,
    /// May serve manifests by digest, and blobs.
    pub pull: bool,
    /// Certificates.
    pub tls: Tls,
    /// Sent with every request to this host, and to no other.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For the connection.
    pub dial_timeout: Option<Duration>,
    /// `?ns=` for mirrors: the registry that was meant.
    pub namespace: Option<String>,
    /// Where this was configured, for people.
    pub origin: String,
}

/// Certificates of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tls {
    /// PEM files with authorities, beside the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files with a client certificate and its key; one file if it has both.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Any certificate will do.
    pub skip_verify: bool,
}

impl Host {
    /// `host[:port]`
    pub fn authority(&self) -> String {
        authority(&self.base)
    }
}

/// On loopback: a proxy would look for it on another machine.
pub(crate) fn is_here(url: &Url) -> bool {
    is_loopback(&authority(url))
}

/// `host[:port]` of a URL.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The host that serves a registry itself.
pub fn server_name(registry: &str) -> &str {
    if registry == "docker.io" { "registry-1.docker.io" } else { registry }
}

/// Hosts for a registry, in the order they are tried. The first of `folders` that says anything about it counts.
pub fn resolve(folders: &[PathBuf], registry: &str) -> Result<Vec<Host>, ImageError> {
    let wrong = |path: &Path, why: String| ImageError::Config { path: path.to_owned(), why };
    // A colon cannot be part of a folder's name everywhere.
    let plain = registry.replace(':', "_");
    let names = [registry.to_owned(), format!("{plain}_"), "_default".to_owned()];
    for folder in folders.iter().flat_map(|folder| names.iter().map(move |name| folder.join(name))) {
        let file = folder.join("hosts.toml");
        match read(&file) {
            Ok(text) => return parse(&text, &folder, registry).map_err(|why| wrong(&file, why)),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(wrong(&file, error.to_string())),
        }
        if let Some(tls) = docker_certificates(&folder) {
            return default_host(registry, tls, folder.display().to_string())
                .map(|host| vec![host])
                .map_err(|why| wrong(&folder, why));
        }
    }
    default_host(registry, Tls::default(), "default".into())
        .map(|host| vec![host])
        .map_err(|why| wrong(Path::new(registry), why))
}

fn read(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > MAX_FILE {
        return Err(std::io::Error::other("larger than 1 MiB"));
    }
    std::fs::read_to_string(path)
}

/// `*.crt` are authorities, `*.cert` client certificates with their `*.key`.
fn docker_certificates(folder: &Path) -> Option<Tls> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let mut tls = Tls::default();
    for file in &files {
        match file.extension().and_then(|e| e.to_str()) {
            Some("crt") => tls.ca.push(file.clone()),
            Some("cert") => tls.client.push((file.clone(), Some(file.with_extension("key")))),
            _ => {}
        }
    }
    (tls != Tls::default()).then_some(tls)
}

/// The hosts of a hosts.toml, with the registry's own server last.
pub fn parse(text: &str, folder: &Path, registry: &str) -> Result<Vec<Host>, String> {
    let file: toml::Table = toml::from_str(text).map_err(|e| e.message().to_owned())?;
    let origin = folder.join("hosts.toml").display().to_string();
    let mut hosts = Vec::new();
    if let Some(value) = file.get("host") {
        let table = value.as_table().ok_or("host must be a table")?;
        for (name, settings) in table {
            let settings = settings.as_table().ok_or_else(|| format!("host {name:?} must be a table"))?;
            hosts.push(host(name, settings, folder, registry, &origin)?);
        }
    }
    let server = match file.get("server") {
        Some(value) => value.as_str().ok_or("server must be a string")?.to_owned(),
        None => server_name(registry).to_owned(),
    };
    if !server.is_empty() {
        hosts.push(host(&server, &file, folder, registry, &origin)?);
    }
    Ok(hosts)
}

fn default_host(registry: &str, tls: Tls, origin: String) -> Result<Host, String> {
    let mut host = host(server_name(registry), &toml::Table::new(), Path::new("/"), registry, &origin)?;
    if tls != Tls::default() {
        // Somebody put certificates there: not plain HTTP, even on loopback.
        let _ = host.base.set_scheme("https");
        host.tls = tls;
    }
    Ok(host)
}

fn host(
    name: &str,
    settings: &toml::Table,
    folder: &Path,
    registry: &str,
    origin: &str,
) -> Result<Host, String> {
    let has_tls = ["ca", "client", "skip_verify"].iter().any(|key| settings.contains_key(*key));
    let url = if name.contains("://") {
        name.to_owned()
    } else if is_loopback(name) && !has_tls {
        format!("http://{name}")
    } else {
        format!("https://{name}")
    };
    let mut base = Url::parse(&url).map_err(|e| format!("{name:?}: {e}"))?;
    if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
        return Err(format!("{name:?} is not an http or https URL"));
    }
    if !base.username().is_empty() || base.password().is_some() {
        return Err(format!("the URL of {:?} must not contain credentials", authority(&base)));
    }
    let override_path = boolean(settings, "override_path")?;
    let path = base.path().trim_end_matches('/').to_owned();
    let path = if override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") };
    base.set_path(&path);
    base.set_query(None);
    base.set_fragment(None);
    let capabilities = match settings.get("capabilities") {
        None => vec!["pull".to_owned(), "resolve".to_owned()],
        Some(value) => strings(value, "capabilities")?,
    };
    if let Some(unknown) =
        capabilities.iter().find(|c| !matches!(c.as_str(), "pull" | "resolve" | "push" | "referrers"))
    {
        return Err(format!("unknown capability {unknown:?}"));
    }
    let is_server = authority(&base) == server_name(registry) || authority(&base) == registry;
    Ok(Host {
        resolve: capabilities.iter().any(|c| c == "resolve"),
        pull: capabilities.iter().any(|c| c == "pull"),
        tls: tls(settings, folder)?,
        headers: headers(settings)?,
        dial_timeout: settings.get("dial_timeout").map(duration).transpose()?,
        namespace: (!is_server).then(|| registry.to_owned()),
        origin: origin.to_owned(),
        base,
    })
}

/// Registries on loopback speak plain HTTP unless told otherwise.
fn is_loopback(host: &str) -> bool {
    let name = host.split('/').next().unwrap_or_default();
    let name = match name.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => name.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn tls(settings: &toml::Table, folder: &Path) -> Result<Tls, String> {
    let ca = match settings.get("ca") {
        None => Vec::new(),
        Some(value) => strings(value, "ca")?.iter().map(|path| folder.join(path)).collect(),
    };
    Ok(Tls { ca, client: client(settings, folder)?, skip_verify: boolean(settings, "skip_verify")? })
}

/// `"file"`, `["file", ...]`, `[["cert", "key"], ...]`, with `""` as "no key file".
fn client(settings: &toml::Table, folder: &Path) -> Result<Vec<(PathBuf, Option<PathBuf>)>, String> {
    let wrong = || "client must be a file, a list of files, or a list of pairs".to_owned();
    let pairs = match settings.get("client") {
        None => return Ok(Vec::new()),
        Some(Value::String(file)) => return Ok(vec![(folder.join(file), None)]),
        Some(value) => value.as_array().ok_or_else(wrong)?,
    };
    pairs
        .iter()
        .map(|pair| match pair {
            Value::String(file) => Ok((folder.join(file), None)),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(cert)] => Ok((folder.join(cert), None)),
                [Value::String(cert), Value::String(key)] => {
                    Ok((folder.join(cert), (!key.is_empty()).then(|| folder.join(key))))
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        })
        .collect()
}

fn headers(settings: &toml::Table) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let Some(value) = settings.get("header") else { return Ok(Vec::new()) };
    let mut headers = Vec::new();
    for (name, value) in value.as_table().ok_or("header must be a table")? {
        let key: HeaderName = name.parse().map_err(|_| format!("{name:?} is not a header's name"))?;
        for text in strings(value, name)? {
            // The value may be a secret: it is not part of the message.
            let mut value = HeaderValue::from_str(&text)
                .map_err(|_| format!("the value of header {name:?} is malformed"))?;
            value.set_sensitive(true);
            headers.push((key.clone(), value));
        }
    }
    Ok(headers)
}

fn boolean(settings: &toml::Table, key: &str) -> Result<bool, String> {
    settings
        .get(key)
        .map_or(Ok(false), |value| value.as_bool().ok_or_else(|| format!("{key} must be true or false")))
}

fn strings(value: &Value, key: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{key} must be a string or a list of strings");
    match value {
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(list) => {
            list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
        }
        _ => Err(wrong()),
    }
}

/// Go's notation with one unit (`10s`, `1500ms`, `2m`), or seconds.
fn duration(value: &Value) -> Result<Duration, String> {
    let wrong = || "dial_timeout must be like \"10s\"".to_owned();
    let text = match value {
        Value::Integer(seconds) => {
            return u64::try_from(*seconds).map(Duration::from_secs).map_err(|_| wrong());
        }
        value => value.as_str().ok_or_else(wrong)?,
    };
    let unit = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let number: f64 = text[..unit].parse().map_err(|_| wrong())?;
    let seconds = match &text[unit..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(text: &str, registry: &str) -> Vec<String> {
        let hosts = parse(text, Path::new("/etc/certs.d/x"), registry).expect(text);
        hosts.iter().map(|host| host.base.to_string()).collect()
    }

    #[test]
    fn order_and_paths() {
        let text = r#"
            server = "https://docker.io"
            [host."https://z.mirror"]
            [host."http://a.mirror:5000/prefix/"]
            [host."https://b.mirror/v2/proxy/"]
              override_path = true
            [host."c.mirror/v2"]
            [host."127.0.0.1:5000"]
        "#;
        let expected = [
            "https://z.mirror/v2",
            "http://a.mirror:5000/prefix/v2",
            "https://b.mirror/v2/proxy",
            "https://c.mirror/v2",
            "http://127.0.0.1:5000/v2",
            "https://docker.io/v2",
        ];
        assert_eq!(bases(text, "docker.io"), expected);
        assert_eq!(bases("", "docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(bases("", "quay.io:8443"), ["https://quay.io:8443/v2"]);
        assert_eq!(bases("", "localhost:5000"), ["http://localhost:5000/v2"]);
        assert_eq!(bases("ca = 'x.pem'", "localhost:5000"), ["https://localhost:5000/v2"]);
    }

    #[test]
    fn settings_of_a_host() {
        let text = r#"
            [host."https://m"]
              capabilities = ["pull"]
              ca = ["a.pem", "/b.pem"]
              client = [["c.crt", "c.key"], ["d.pem", ""]]
              skip_verify = true
              dial_timeout = "1500ms"
              [host."https://m".header]
                X-One = "1"
                X-Two = ["2", "3"]
        "#;
        let hosts = parse(text, Path::new("/f"), "quay.io").expect("hosts");
        let mirror = &hosts[0];
        assert!(mirror.pull && !mirror.resolve && mirror.tls.skip_verify);
        assert_eq!(mirror.tls.ca, [PathBuf::from("/f/a.pem"), PathBuf::from("/b.pem")]);
        assert_eq!(
            mirror.tls.client,
            [("/f/c.crt".into(), Some("/f/c.key".into())), ("/f/d.pem".into(), None)]
        );
        assert_eq!(mirror.headers.len(), 3);
        assert_eq!(mirror.dial_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(mirror.namespace.as_deref(), Some("quay.io"));
        assert_eq!(hosts[1].namespace, None);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, needle) in [
            ("server = 1", "server"),
            ("host = 1", "host"),
            ("[host.\"ftp://x\"]", "http"),
            ("[host.\"https://u:p@x\"]", "credentials"),
            ("capabilities = ['fly']", "fly"),
            ("skip_verify = 'yes'", "skip_verify"),
            ("client = 1", "client"),
            ("[header]\n\"a b\" = 'x'", "a b"),
            ("dial_timeout = '1 parsec'", "dial_timeout"),
            ("=", ""),
        ] {
            let error = parse(text, Path::new("/"), "x.io").expect_err(text);
            assert!(error.contains(needle), "{error}");
        }
    }

    #[test]
    fn folders_are_searched_in_order() {
        let root = tempfile::tempdir().expect("folder");
        let folders = [root.path().join("one"), root.path().join("two")];
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, text).expect("file");
        };
        let first = |registry: &str| resolve(&folders, registry).expect("hosts")[0].base.to_string();
        assert_eq!(first("r.io:1"), "https://r.io:1/v2");
        put("two/_default/hosts.toml", "[host.\"https://default\"]");
        assert_eq!(first("r.io:1"), "https://default/v2");
        put("two/r.io_1_/hosts.toml", "[host.\"https://two\"]");
        assert_eq!(first("r.io:1"), "https://two/v2");
        put("one/127.0.0.1:7/ca.crt", "");
        let docker = resolve(&folders, "127.0.0.1:7").expect("hosts");
        assert_eq!((docker[0].base.as_str(), docker[0].tls.ca.len()), ("https://127.0.0.1:7/v2", 1));
        put("one/r.io:1/hosts.toml", "broken");
        assert!(matches!(resolve(&folders, "r.io:1"), Err(ImageError::Config { .. })));
    }
}
