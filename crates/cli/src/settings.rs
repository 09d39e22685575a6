//! Where a broker's configuration comes from: flag before environment before file before default.
//!
//! Owns: the flags, reading the file, and which source counts. Leaves to others: the keys and their values
//! (`api::config`), the file's syntax (`properties`), what addresses are allowed (`broker`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use forebay_api::config::{BrokerConfig, from_environment, key};

use crate::exit::usage;
use crate::properties;

/// Flags that stand for configuration keys.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Flags {
    /// The data folder [default: ./forebay-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The bucket: s3://NAME/PREFIX, file:///FOLDER or memory: [default: a folder of the data folder]
    #[arg(long, value_name = "URL")]
    pub bucket: Option<String>,
    /// Where Kafka clients connect; port 0 picks a free one [default: localhost:9092]
    #[arg(long, value_name = "ADDR")]
    pub kafka: Option<String>,
    /// Where health and metrics are served over HTTP; port 0 picks a free one [default: localhost:9640]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
    /// What clients are told to connect to [default: the bound address]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The write-ahead log: this machine's disk, or objects in the bucket [default: disk; object where serve has an S3
    /// bucket]
    #[arg(long, value_name = "KIND")]
    pub wal: Option<Wal>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Wal {
    Disk,
    Object,
}

impl Wal {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Object => "object",
        }
    }
}

impl Flags {
    fn keys(&self) -> Result<BTreeMap<String, String>> {
        let data = match &self.data {
            Some(path) => Some(path.to_str().context("the data folder's name is not UTF-8")?.to_owned()),
            None => None,
        };
        let listener = |address: &Option<String>| address.as_ref().map(|address| format!("PLAINTEXT://{address}"));
        let given = [
            ("log.dirs", data),
            ("forebay.bucket", self.bucket.clone()),
            ("listeners", listener(&self.kafka)),
            ("forebay.admin.listener", self.admin.clone()),
            ("advertised.listeners", listener(&self.advertise)),
            ("forebay.wal", self.wal.map(|wal| wal.name().to_owned())),
        ];
        Ok(given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect())
    }
}

/// A broker's configuration from all its sources.
pub fn resolve(
    flags: &Flags,
    environment: BTreeMap<String, String>,
    file: BTreeMap<String, String>,
) -> Result<BrokerConfig> {
    let mut merged = file;
    merged.extend(environment);
    merged.extend(flags.keys()?);
    BrokerConfig::parse(&merged).map_err(|error| usage(error.to_string()))
}

/// Variables with our prefix that are no keys of a broker: the default of `-b`.
const OTHER_VARIABLES: [&str; 1] = ["FOREBAY_BOOTSTRAP_SERVER"];

/// The keys that this process's environment sets, each of them known.
pub fn environment() -> Result<BTreeMap<String, String>> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    from_environment(std::env::vars_os().filter_map(text), &OTHER_VARIABLES).map_err(|error| usage(error.to_string()))
}

/// The keys of a properties file, each of them known.
pub fn read_file(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| usage(format!("the configuration {} cannot be read: {error}", path.display())))?;
    let found = properties::parse(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    for name in found.keys() {
        key(name).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    /// Each source counts before the next one: shown by taking them away one by one.
    #[test]
    fn flag_before_environment_before_file_before_default() {
        let port = |flag: Option<&str>, environment: &[(&str, &str)], file: &[(&str, &str)]| {
            let flags = Flags { kafka: flag.map(str::to_owned), ..Flags::default() };
            resolve(&flags, map(environment), map(file)).expect("legal").listener().port
        };
        let (environment, file) =
            ([("listeners", "PLAINTEXT://localhost:2")], [("listeners", "PLAINTEXT://localhost:3")]);
        assert_eq!(port(Some("localhost:1"), &environment, &file), 1);
        assert_eq!(port(None, &environment, &file), 2);
        assert_eq!(port(None, &[], &file), 3);
        assert_eq!(port(None, &[], &[]), 9092);
        let defaults = resolve(&Flags::default(), map(&[]), map(&[])).expect("legal");
        let told = [defaults.listener(), defaults.admin_listener()].map(|address| address.to_string());
        let mut help = <Flags as clap::Args>::augment_args(clap::Command::new("forebay").term_width(200));
        let help = help.render_long_help().to_string();
        for address in told {
            assert!(help.contains(&format!("[default: {address}]")), "{address} is in {help}");
        }
    }

    /// A slip in a key or a flag's value is a usage error that says what was meant.
    #[test]
    fn slips_are_usage_errors() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("server.properties");
        std::fs::write(&path, "# ours\nnum.partition = 3\n").expect("written");
        let error = read_file(&path).expect_err("an unknown key");
        assert!(error.to_string().ends_with("unknown broker config num.partition; did you mean num.partitions?"));
        assert_eq!(crate::exit::of(&error).code(), 2);
        let flags = Flags { admin: Some("nowhere".into()), ..Flags::default() };
        let error = resolve(&flags, map(&[]), map(&[])).expect_err("no address");
        assert_eq!(crate::exit::of(&error).code(), 2);
    }
}
