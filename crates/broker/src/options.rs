//! What a broker is started with.
//!
//! Owns: the options, how they follow from a broker's configuration, and the rules about addresses that must hold before
//! anything is touched (D20). Leaves to others: the configuration's keys (`api::config`), flags and files (`cli`).
//!
//! Invariants:
//! 1. Options that pass [`BrokerOptions::check`] never send a client to a wildcard address, or to port 0.
//! 2. Plaintext leaves the machine only where somebody asked for it by name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_api::HostPort;
use forebay_api::config::{BrokerConfig, WalChoice};
use forebay_coordinator::host::HostConfig;
use forebay_coordinator::machine::group::GroupConfig;
use forebay_coordinator::machine::txn::TxnConfig;
use forebay_env::SECTOR_SIZE;
use forebay_log::{LogConfig, UploadConfig};
use forebay_metadata::config::{ConfigError, TopicConfig};
use forebay_store::{BucketUrl, BucketUrlError, Store};
use forebay_types::{BrokerId, ByteSize, OutOfRange};
use forebay_upkeep::UpkeepConfig;
use forebay_wal::providers::disk::DiskConfig;
use forebay_wal::providers::object::ObjectConfig;

/// The key that lets a plaintext listener be reached from other machines.
const PLAINTEXT_PUBLIC_KEY: &str = "forebay.plaintext.public";

/// Who may be able to reach the broker (D20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// `forebay dev`: this machine only.
    Dev,
    /// `forebay serve`: other machines too, where plaintext is allowed by its key.
    Serve { plaintext_public: bool },
}

/// Where a listener is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: ListenHost,
    /// 0 picks a free one.
    pub port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenHost {
    /// This machine's loopback over IPv4 and IPv6, on one port.
    Localhost,
    Ip(IpAddr),
}

/// Where history is kept.
#[derive(Clone)]
pub enum BucketChoice {
    /// A folder of the data folder.
    Embedded,
    Url(BucketUrl),
    /// A store of the caller's, which outlives the broker: simulation and tests.
    Provider(Arc<dyn Store>),
}

/// The write-ahead log of this broker (D3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalSetup {
    Disk(DiskWalLimits),
    Object(ObjectConfig),
}

/// Room of a `disk` WAL. Batches stay in memory until they are in the bucket, so this bounds memory too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskWalLimits {
    pub total: ByteSize,
    pub segment: ByteSize,
}

impl DiskWalLimits {
    /// What a configuration asks for. Its default is four segments: one is written, two wait for their upload, one is
    /// free to go on with.
    fn from_config(config: &BrokerConfig) -> Self {
        Self { total: ByteSize::new(config.wal_max_bytes()), segment: ByteSize::new(config.wal_segment_bytes()) }
    }

    /// Every batch that a topic takes by default must fit a segment: one that does not would be refused for ever.
    fn check(self, config: &BrokerConfig) -> Result<(), OptionsError> {
        let batch = u64::from(TopicConfig::resolve(&BTreeMap::new(), &config.topic_defaults())?.max_message_bytes);
        let segment = self.segment.get();
        let held =
            |segment| Self { segment: ByteSize::new(segment), ..self }.in_folder(PathBuf::new()).entry_bytes_max();
        let most = held(segment) as u64;
        if batch <= most {
            return Ok(());
        }
        // Larger segments have larger groups, and those more beside the batch.
        let from = (segment + (batch - most)).next_multiple_of(SECTOR_SIZE as u64);
        let sizes = (from..).step_by(SECTOR_SIZE);
        let least = sizes.into_iter().find(|size| held(*size) as u64 >= batch).expect("groups have a largest size");
        Err(OptionsError::Segment { segment, batch, least, most })
    }

    /// These limits for the WAL in a folder.
    pub(crate) fn in_folder(self, folder: PathBuf) -> DiskConfig {
        DiskConfig { folder, total: self.total, segment: self.segment }
    }
}

/// Everything a broker is started with.
#[derive(Clone)]
pub struct BrokerOptions {
    pub broker: BrokerId,
    /// Where Kafka clients connect.
    pub kafka: ListenAddress,
    /// Where health and metrics are served.
    pub admin: ListenAddress,
    /// What clients are told to connect to; the bound address where it is `None`.
    pub advertised: Option<HostPort>,
    pub exposure: Exposure,
    /// The data folder.
    pub data: PathBuf,
    pub bucket: BucketChoice,
    pub wal: WalSetup,
    pub log: LogConfig,
    pub coordinators: HostConfig,
    pub upkeep: UpkeepConfig,
    /// See [`forebay_api::Context::sabotage_cut_too_far`].
    pub sabotage_cut_too_far: bool,
    pub config: Arc<BrokerConfig>,
}

/// Options that no broker starts with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("cannot listen on {address}: give an IP address of this machine, or localhost")]
    Host { address: String },
    #[error(
        "{listener} on {address} would be reached from other machines, and forebay dev serves this one only: use a \
         loopback address, or forebay serve"
    )]
    DevExposed { listener: &'static str, address: ListenAddress },
    #[error(
        "{listener} on {address} would be reached from other machines, and it is plaintext: use a loopback address, or \
         set {PLAINTEXT_PUBLIC_KEY}=true if the network around it is trusted"
    )]
    PlaintextExposed { listener: &'static str, address: ListenAddress },
    #[error(
        "clients cannot be told to connect to {address}, which means every address of this machine: set what they are \
         to use with advertised.listeners (--advertise HOST:PORT)"
    )]
    WildcardAdvertised { address: ListenAddress },
    #[error(
        "clients cannot connect to {address}, which advertised.listeners (--advertise) would tell them to: set it to a \
         host that they reach this machine by, and to the port that they reach it on"
    )]
    Advertised { address: HostPort },
    #[error(
        "a batch of {batch} bytes, which message.max.bytes allows, does not fit a segment of the write-ahead log: set \
         forebay.wal.segment.bytes ({segment}) to {least} or more, or message.max.bytes to {most} or less"
    )]
    Segment { segment: u64, batch: u64, least: u64, most: u64 },
    #[error(transparent)]
    TopicDefaults(#[from] ConfigError),
    #[error("forebay.bucket: {0}")]
    Bucket(#[from] BucketUrlError),
    #[error("node.id: {0}")]
    Broker(#[from] OutOfRange),
}

impl BrokerOptions {
    /// The options that a configuration asks for.
    ///
    /// # Errors
    /// A listener's host is a name other than localhost, the bucket has no known form, or the `disk` WAL could not take
    /// what topics may hold. The rules about who may reach the broker are checked when it starts.
    pub fn from_config(config: BrokerConfig, exposure: Exposure) -> Result<Self, OptionsError> {
        let bucket = match config.bucket() {
            Some(url) => BucketChoice::Url(url.parse()?),
            None => BucketChoice::Embedded,
        };
        let shared = matches!(&bucket, BucketChoice::Url(BucketUrl::S3 { .. }));
        let object = match config.wal() {
            WalChoice::Disk => false,
            WalChoice::Object => true,
            // A laptop's broker acks at the speed of its disk, whatever bucket it is given (D3).
            WalChoice::Auto => shared && exposure != Exposure::Dev,
        };
        let wal = if object {
            WalSetup::Object(ObjectConfig::default())
        } else {
            let limits = DiskWalLimits::from_config(&config);
            limits.check(&config)?;
            WalSetup::Disk(limits)
        };
        let upload = UploadConfig {
            size_target: ByteSize::new(config.upload_bytes()),
            age_max: Duration::from_millis(config.upload_ms()),
            ..UploadConfig::default()
        };
        Ok(Self {
            broker: BrokerId::new(config.node_id())?,
            kafka: ListenAddress::new(&config.listener())?,
            admin: ListenAddress::new(&config.admin_listener())?,
            advertised: config.advertised_listener(),
            exposure,
            data: PathBuf::from(config.data_folder()),
            bucket,
            wal,
            log: LogConfig { upload, ..LogConfig::default() },
            coordinators: coordinator_config(&config),
            upkeep: upkeep_config(&config),
            sabotage_cut_too_far: false,
            config: Arc::new(config),
        })
    }

    /// Checks what can be told before anything is touched.
    ///
    /// # Errors
    /// Names the address and what to set.
    pub fn check(&self) -> Result<(), OptionsError> {
        for (listener, address) in [("Kafka", self.kafka), ("the admin listener", self.admin)] {
            if address.is_loopback() {
                continue;
            }
            match self.exposure {
                Exposure::Dev => return Err(OptionsError::DevExposed { listener, address }),
                Exposure::Serve { plaintext_public: false } => {
                    return Err(OptionsError::PlaintextExposed { listener, address });
                }
                Exposure::Serve { plaintext_public: true } => {}
            }
        }
        match &self.advertised {
            None if self.kafka.is_wildcard() => Err(OptionsError::WildcardAdvertised { address: self.kafka }),
            Some(told) if told.port == 0 || told.host.parse().is_ok_and(is_wildcard) => {
                Err(OptionsError::Advertised { address: told.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What clients are told to connect to, now that the port is known.
    pub(crate) fn advertised(&self, port: u16) -> HostPort {
        self.advertised.clone().unwrap_or_else(|| HostPort { host: self.kafka.host.to_string(), port })
    }
}

impl Exposure {
    /// What `forebay serve` may do under a configuration.
    pub fn of_serve(config: &BrokerConfig) -> Self {
        Self::Serve { plaintext_public: config.plaintext_public() }
    }
}

impl ListenAddress {
    /// # Errors
    /// The host is a name other than localhost: which address it has would depend on the day.
    pub fn new(address: &HostPort) -> Result<Self, OptionsError> {
        let host = match address.host.parse::<IpAddr>() {
            Ok(ip) => ListenHost::Ip(ip),
            Err(_) if address.host.eq_ignore_ascii_case("localhost") => ListenHost::Localhost,
            Err(_) => return Err(OptionsError::Host { address: address.to_string() }),
        };
        Ok(Self { host, port: address.port })
    }

    fn is_loopback(&self) -> bool {
        match self.host {
            ListenHost::Localhost => true,
            ListenHost::Ip(ip) => ip.to_canonical().is_loopback(),
        }
    }

    fn is_wildcard(&self) -> bool {
        matches!(self.host, ListenHost::Ip(ip) if is_wildcard(ip))
    }

    /// The address to bind first, at `port`.
    pub(crate) fn first(&self, port: u16) -> SocketAddr {
        match self.host {
            ListenHost::Localhost => (Ipv4Addr::LOCALHOST, port).into(),
            ListenHost::Ip(ip) => (ip, port).into(),
        }
    }

    /// The address to bind beside the first, on the port that it has got.
    pub(crate) fn second(&self, port: u16) -> Option<SocketAddr> {
        match self.host {
            ListenHost::Localhost => Some((Ipv6Addr::LOCALHOST, port).into()),
            ListenHost::Ip(_) => None,
        }
    }
}

fn is_wildcard(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}

impl fmt::Display for ListenHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost => f.write_str("localhost"),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            ListenHost::Localhost => write!(f, "localhost:{}", self.port),
            ListenHost::Ip(ip) => SocketAddr::new(ip, self.port).fmt(f),
        }
    }
}

fn coordinator_config(config: &BrokerConfig) -> HostConfig {
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    // The largest number of minutes is "for ever" (the default here).
    let retention = u64::try_from(config.offsets_retention_minutes()).ok().filter(|minutes| *minutes < i32::MAX as u64);
    HostConfig {
        groups: GroupConfig {
            session_timeout_ms_min: config.group_min_session_timeout_ms(),
            session_timeout_ms_max: config.group_max_session_timeout_ms(),
            members_max: usize::try_from(config.group_max_size()).unwrap_or(usize::MAX),
            initial_rebalance_delay: millis(config.group_initial_rebalance_delay_ms()),
            offset_metadata_size_max: config.offset_metadata_max_bytes(),
            offsets_retention: retention.map(|minutes| Duration::from_secs(minutes * 60)),
            ..GroupConfig::default()
        },
        txns: TxnConfig {
            timeout_ms_max: config.transaction_max_timeout_ms(),
            expiration_ms: i64::from(config.transactional_id_expiration_ms()),
            ..TxnConfig::default()
        },
        offsets_partitions: config.offsets_topic_num_partitions(),
        txn_partitions: config.transaction_state_log_num_partitions(),
        ..HostConfig::default()
    }
}

fn upkeep_config(config: &BrokerConfig) -> UpkeepConfig {
    UpkeepConfig {
        interval: Duration::from_millis(config.log_retention_check_interval_ms()),
        producer_expiration_ms: i64::from(config.producer_id_expiration_ms()),
        ..UpkeepConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)], exposure: Exposure) -> Result<BrokerOptions, String> {
        let map: BTreeMap<_, _> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let config = BrokerConfig::parse(&map).map_err(|error| error.to_string())?;
        let options = BrokerOptions::from_config(config, exposure).map_err(|error| error.to_string())?;
        options.check().map_err(|error| error.to_string()).map(|()| options)
    }

    const SERVE: Exposure = Exposure::Serve { plaintext_public: false };
    const OPEN: Exposure = Exposure::Serve { plaintext_public: true };

    /// The defaults are a broker for this machine, with its bucket in the data folder and its WAL on the disk.
    #[test]
    fn the_defaults_serve_this_machine() {
        let options = options(&[], Exposure::Dev).expect("the defaults are fine");
        assert_eq!(
            (options.kafka.to_string(), options.admin.to_string()),
            ("localhost:9092".into(), "localhost:9640".into())
        );
        assert_eq!(options.advertised(9092).to_string(), "localhost:9092");
        assert!(matches!(options.bucket, BucketChoice::Embedded));
        let limits = DiskWalLimits { total: ByteSize::mib(256), segment: ByteSize::mib(64) };
        assert_eq!((options.wal, options.log), (WalSetup::Disk(limits), LogConfig::default()));
    }

    /// Room, segments and uploads are what their keys say; a segment that a legal batch would not fit is refused with what
    /// to set, the limits that it names are exactly the right ones, and an `object` WAL has no segments to fit.
    #[test]
    fn the_wal_has_the_room_that_is_set() {
        let set = [
            ("forebay.wal.max.bytes", "8388608"),
            ("forebay.wal.segment.bytes", "2097152"),
            ("forebay.upload.bytes", "65536"),
            ("forebay.upload.ms", "250"),
        ];
        let made = options(&set, SERVE).expect("legal");
        let limits = DiskWalLimits { total: ByteSize::mib(8), segment: ByteSize::mib(2) };
        let (size_target, age_max) = (ByteSize::new(64 << 10), Duration::from_millis(250));
        let upload = UploadConfig { size_target, age_max, ..UploadConfig::default() };
        assert_eq!((made.wal, made.log.upload), (WalSetup::Disk(limits), upload));

        let small = ("forebay.wal.segment.bytes", "1048576");
        assert_eq!(
            options(&[small], SERVE).err().expect("a batch of 1048588 bytes is legal"),
            "a batch of 1048588 bytes, which message.max.bytes allows, does not fit a segment of the write-ahead log: set \
             forebay.wal.segment.bytes (1048576) to 1138688 or more, or message.max.bytes to 966656 or less"
        );
        assert!(options(&[("forebay.wal.segment.bytes", "1138688")], SERVE).is_ok());
        assert!(options(&[("forebay.wal.segment.bytes", "1134592")], SERVE).is_err(), "a sector less is too small");
        assert!(options(&[small, ("message.max.bytes", "966656")], SERVE).is_ok());
        assert!(options(&[small, ("message.max.bytes", "966657")], SERVE).is_err(), "a byte more is too large");
        assert!(options(&[small, ("forebay.wal", "object")], SERVE).is_ok());
    }

    /// The WAL follows the bucket where nobody says otherwise: `serve` on a shared one uses `object`, `dev` the disk.
    #[test]
    fn the_wal_follows_the_bucket() {
        let kind = |pairs: &[(&str, &str)], exposure| match options(pairs, exposure).expect("legal").wal {
            WalSetup::Disk(_) => "disk",
            WalSetup::Object(_) => "object",
        };
        let (s3, file) = (("forebay.bucket", "s3://logs"), ("forebay.bucket", "file:///srv/x"));
        assert_eq!(kind(&[s3], SERVE), "object");
        assert_eq!(kind(&[s3], Exposure::Dev), "disk");
        assert_eq!(kind(&[s3, ("forebay.wal", "disk")], SERVE), "disk");
        assert_eq!(kind(&[file], SERVE), "disk");
        assert_eq!(kind(&[("forebay.wal", "object")], Exposure::Dev), "object");
    }

    /// The key that the message names is the one that opens the listener.
    #[test]
    fn plaintext_is_opened_by_its_key() {
        let keys = BTreeMap::from([(PLAINTEXT_PUBLIC_KEY.to_owned(), "true".to_owned())]);
        let config = BrokerConfig::parse(&keys).expect("the key is in the table");
        assert_eq!((Exposure::of_serve(&config), Exposure::of_serve(&BrokerConfig::default())), (OPEN, SERVE));
    }

    /// Every address that cannot be served is refused in words that say what to set.
    #[test]
    fn addresses_are_refused_with_what_to_set() {
        let (every, other) = (("listeners", "PLAINTEXT://0.0.0.0:9092"), ("listeners", "PLAINTEXT://192.0.2.7:9092"));
        let told = |pairs: &[(&str, &str)], exposure| options(pairs, exposure).err().unwrap_or_else(|| "fine".into());
        assert_eq!(
            told(&[other], Exposure::Dev),
            "Kafka on 192.0.2.7:9092 would be reached from other machines, and forebay dev serves this one only: use a \
             loopback address, or forebay serve"
        );
        assert_eq!(
            told(&[other], SERVE),
            "Kafka on 192.0.2.7:9092 would be reached from other machines, and it is plaintext: use a loopback address, \
             or set forebay.plaintext.public=true if the network around it is trusted"
        );
        assert_eq!(told(&[other], OPEN), "fine");
        assert_eq!(
            told(&[every], OPEN),
            "clients cannot be told to connect to 0.0.0.0:9092, which means every address of this machine: set what \
             they are to use with advertised.listeners (--advertise HOST:PORT)"
        );
        assert_eq!(told(&[every, ("advertised.listeners", "PLAINTEXT://kafka.example:9092")], OPEN), "fine");
        for address in ["0.0.0.0:9092", "[::]:9092", "[::ffff:0.0.0.0]:9092", "kafka.example:0"] {
            let expected = format!(
                "clients cannot connect to {address}, which advertised.listeners (--advertise) would tell them to: set it \
                 to a host that they reach this machine by, and to the port that they reach it on"
            );
            let advertised = format!("PLAINTEXT://{address}");
            for exposure in [OPEN, Exposure::Dev] {
                assert_eq!(told(&[("advertised.listeners", &advertised)], exposure), expected);
            }
        }
        assert!(told(&[("forebay.admin.listener", "[::]:9640")], Exposure::Dev).starts_with("the admin listener on"));
        assert_eq!(
            told(&[("listeners", "PLAINTEXT://kafka.example:9092")], OPEN),
            "cannot listen on kafka.example:9092: give an IP address of this machine, or localhost"
        );
        assert_eq!(told(&[("listeners", "PLAINTEXT://localhost:0")], Exposure::Dev), "fine");
    }
}
