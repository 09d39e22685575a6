//! Suites in Python that run under pytest: the integration tests of kafka-python.
//!
//! The packages are fetched by pip, by name, version and checksum, into the user's cache: `tests/clients/python/tools.txt` is
//! what runs the suites, and each has a file of its own there. A folder beside it has what the suite lacks, or what starts a
//! broker there: one runs already. The tests come with the source distribution.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::recorded::{Outcome, Outcomes, Round, Suite, Way, beside_each_other};
use crate::rigs::{Configs, Jars};
use crate::{shell, workspace};

/// What suites are fetched by, lack, or have otherwise.
const FOLDER: &str = "tests/clients/python";

/// What the suites set where they start a broker themselves, and what Kafka's own sample of a configuration sets.
const KAFKA_PYTHON: Configs<'static> = &[
    ("num.partitions", "4"),
    ("offsets.topic.num.partitions", "2"),
    ("group.min.session.timeout.ms", "1000"),
    ("group.initial.rebalance.delay.ms", "0"),
];

/// So many processes run beside each other, a file of tests each.
const TOGETHER: usize = 4;
/// Most seconds of one case: the slowest takes a quarter of it.
const LIMIT_SECONDS: &str = "120";

pub(super) struct Pytest {
    name: &'static str,
    version: String,
    /// The interpreter with what runs the suite.
    python: PathBuf,
    /// Where it runs.
    folder: PathBuf,
    /// Where the integration tests are in the folder; names of cases leave it out.
    tests: &'static str,
    /// Where the package is, and our plugin of pytest.
    path: OsString,
    configs: Configs<'static>,
}

impl Pytest {
    pub(super) fn kafka_python() -> Result<Self> {
        let (name, python) = ("kafka-python", python()?);
        let (version, base) = fetched(name, |list, base, version| {
            let mut download = pip(&python, "download");
            // Its metadata is asked of setuptools, which is pinned too.
            download.args(["--no-binary", ":all:", "--no-build-isolation", "--dest"]).arg(base);
            shell::run(download.arg("--requirement").arg(list))?;
            let archive = base.join(format!("kafka_python-{version}.tar.gz"));
            shell::run(shell::command("tar").arg("-xzf").arg(archive).arg("-C").arg(base))
        })?;
        let folder = base.join(format!("kafka_python-{version}"));
        copy(&Path::new(FOLDER).join(name), &folder.join("test"))?;
        let path = path(&folder)?;
        Ok(Self { name, version, python, folder, tests: "test/integration/", path, configs: KAFKA_PYTHON })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.python);
        command.current_dir(&self.folder).env("PYTHONPATH", &self.path);
        // Byte code would lie about in the workspace.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        // What a broker would be started from: any folder, none is.
        command.env("KAFKA_ROOT", &self.folder).env("KAFKA_VERSION", Jars::VERSION);
        command.args(["-m", "pytest", "-p", "no:cacheprovider", "-p", "outcomes", "--quiet", "--disable-warnings"]);
        command.args(["--override-ini", "addopts=", "--show-capture=no", "--tb=line"]);
        command.args(["--timeout", LIMIT_SECONDS, "--timeout-method", "signal"]);
        command
    }

    fn case<'a>(&self, node: &'a str) -> &'a str {
        node.strip_prefix(self.tests).unwrap_or(node)
    }

    /// Runs cases in one process.
    fn outcomes(&self, cases: &[String], bootstrap: &str) -> Result<Outcomes> {
        let mut command = self.command();
        command.env("KAFKA_URI", format!("kafka://{bootstrap}")).env("BOOTSTRAP", bootstrap);
        command.args(cases.iter().map(|case| format!("{}{case}", self.tests)));
        let mut outcomes = Vec::new();
        // It ends with an error where a case fails.
        shell::stream(&mut command, |line| {
            if let Some(why) = line.strip_prefix("WHY ") {
                println!("{}", self.case(why));
            } else if let Some((outcome, node)) = line.strip_prefix("OUTCOME ").and_then(|rest| rest.split_once(' ')) {
                let outcome = match outcome {
                    "passed" => Outcome::Passed,
                    "skipped" => Outcome::Skipped,
                    _ => Outcome::Failed,
                };
                outcomes.push((self.case(node).to_owned(), outcome));
            }
        })?;
        Ok(outcomes)
    }
}

impl Suite for Pytest {
    fn name(&self) -> &'static str {
        self.name
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn rounds(&self) -> Result<Vec<Round>> {
        let listed = shell::output(self.command().arg("--collect-only").arg(self.tests))?;
        let nodes = listed.lines().filter(|line| line.starts_with(self.tests) && line.contains("::"));
        let cases: Vec<_> = nodes.map(|node| self.case(node).to_owned()).collect();
        ensure!(!cases.is_empty(), "{} has no cases:\n{listed}", self.name);
        Ok(vec![Round { name: "default", configs: self.configs, cases }])
    }

    fn is_for_ci(&self, _case: &str) -> bool {
        true
    }

    fn run(&self, round: &Round, way: Way, bootstrap: &str, told: &mut dyn FnMut(&str, Outcome)) -> Result<()> {
        let mut files: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for case in &round.cases {
            let file = case.split("::").next().unwrap_or(case);
            files.entry(file).or_default().push(case.clone());
        }
        let count = if way == Way::Together { TOGETHER } else { 1 };
        let one = |cases: Vec<String>| self.outcomes(&cases, bootstrap);
        beside_each_other(count, files.into_values().collect(), one, told)
    }
}

/// An environment with what runs the suites, made once for each list of it.
fn python() -> Result<PathBuf> {
    let list = workspace::root().join(FOLDER).join("tools.txt");
    let wanted = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let folder = workspace::cache("python")?;
    let (python, done) = (folder.join("bin").join("python"), folder.join("complete"));
    if fs::read_to_string(&done).unwrap_or_default() != wanted {
        shell::say("what runs suites in Python, by pip");
        shell::run(shell::command("python3").args(["-m", "venv", "--clear"]).arg(&folder))
            .context("needs Python 3.11 or later with its module venv")?;
        shell::run(pip(&python, "install").arg("--requirement").arg(&list))?;
        fs::write(&done, wanted).with_context(|| format!("write {}", done.display()))?;
    }
    Ok(python)
}

/// Fetches what a suite's file names, once; gives its version and its folder.
fn fetched(name: &str, fetch: impl FnOnce(&Path, &Path, &str) -> Result<()>) -> Result<(String, PathBuf)> {
    let list = workspace::root().join(FOLDER).join(format!("{name}.txt"));
    let text = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let version = text.split_once(&format!("{name}==")).and_then(|(_, rest)| rest.split_whitespace().next());
    let version = version.with_context(|| format!("{} does not pin {name}", list.display()))?;
    let base = workspace::cache(&format!("{name}-{version}"))?;
    let done = base.join("complete");
    if !done.exists() {
        shell::say(&format!("{name} {version}, by pip"));
        fetch(&list, &base, version)?;
        fs::write(&done, version).with_context(|| format!("write {}", done.display()))?;
    }
    Ok((version.to_owned(), base))
}

/// Where Python looks first: the package, then our plugin.
fn path(package: &Path) -> Result<OsString> {
    std::env::join_paths([package, &workspace::root().join(FOLDER)]).context("a path has a colon")
}

/// Copies the files of a folder of the workspace.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let from = workspace::root().join(from);
    for entry in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
        let file = entry?.path();
        if let Some(name) = file.file_name().filter(|_| file.is_file()) {
            let to = to.join(name);
            fs::copy(&file, &to).with_context(|| format!("copy {}", to.display()))?;
        }
    }
    Ok(())
}

fn pip(python: &Path, task: &str) -> Command {
    let mut pip = shell::command(python);
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check", task, "--no-deps", "--require-hashes"]);
    pip
}
