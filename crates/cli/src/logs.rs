//! Logs on standard error, and what a panic does.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// Starts logging: ours from `level` on, other libraries' from warnings on unless everything is asked for.
pub fn start(level: Level) {
    let filter = match level {
        Level::Trace => "trace".to_owned(),
        Level::Error => "error".to_owned(),
        level => {
            let ours = ["api", "broker", "cache", "client", "coordinator", "log", "metadata", "store", "upkeep", "wal"];
            let ours = ours.map(|name| format!("forebay_{name}={}", level.name()));
            format!("warn,forebay={},{}", level.name(), ours.join(","))
        }
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(EnvFilter::new(filter));
    // A second start in one process keeps the first: tests share theirs.
    let _ = subscriber.try_init();
}

/// A broker whose invariant broke ends at once, without draining: recovery from a crash is exact, and going on is not.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!(%panic, "an invariant broke: this process ends here, the next start recovers");
        report(panic);
        std::process::abort();
    }));
}
