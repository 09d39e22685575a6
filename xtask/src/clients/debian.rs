//! Debian's packages, unpacked into the user's cache, which needs no rights.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Downloads packages and unpacks them into a folder; `advice` is what else to do where that fails.
pub(super) fn unpack(packages: &[&str], folder: &Path, advice: &'static str) -> Result<()> {
    shell::run(Command::new("apt-get").current_dir(folder).arg("download").args(packages)).context(advice)?;
    for entry in std::fs::read_dir(folder).context("list what was downloaded")? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "deb") {
            shell::run(shell::command("dpkg-deb").arg("--extract").arg(&path).arg(folder)).context(advice)?;
        }
    }
    Ok(())
}
