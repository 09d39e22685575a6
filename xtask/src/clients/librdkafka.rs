//! librdkafka's own test suite, in its quick mode: the C sources that the crate `rdkafka-sys` carries.
//!
//! The crate is pinned, with its checksum, by the lock file of `tests/clients/rdkafka`. What runs against a cluster of the
//! suite's own mocks is left out: it tells nothing of a broker.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::debian;
use super::rdkafka::MANIFEST;
use super::recorded::{Outcome, Outcomes, Round, Suite, Way, beside_each_other};
use crate::rigs::Jars;
use crate::{shell, workspace};

/// The crate that carries the sources; its version ends in theirs.
const CRATE: &str = "rdkafka-sys";

/// Scenarios of the suite, each with the broker configs that it asks for. `ak23`, the third, is of a broker of 2019.
const SCENARIOS: [(&str, &[(&str, &str)]); 2] = [
    ("default", &[("num.partitions", "4")]),
    ("noautocreate", &[("num.partitions", "4"), ("auto.create.topics.enable", "false")]),
];

/// Tests of many parts, each of which is a case: one that fails ends the whole test.
const IN_PARTS: [&str; 3] = ["0081_admin", "0103_transactions", "0113_cooperative_rebalance"];

/// Each takes most of a minute, or more: CI has no time for them.
const SLOW: [&str; 5] = [
    "0033_regex_subscribe",
    "0076_produce_retry",
    "0081_admin/do_test_ListConsumerGroups",
    "0091_max_poll_interval_timeout",
    "0107_topic_recreate",
];

/// So many tests wait beside each other, as when the suite runs all of them by itself.
const TOGETHER: usize = 5;
/// The suite's own limits are shorter, with few exceptions.
const LIMIT: Duration = Duration::from_mins(5);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Librdkafka {
    /// The sources, built.
    folder: PathBuf,
    version: String,
    /// A folder like a Kafka installation, for the scripts that some tests call.
    kafka: PathBuf,
    jars: Jars,
}

impl Librdkafka {
    pub(super) fn build(jars: &Jars) -> Result<Self> {
        let (sources, version) = sources()?;
        let folder = workspace::cache(&format!("librdkafka-{version}"))?;
        let done = folder.join("complete");
        if !done.exists() {
            shell::say(&format!("librdkafka {version} and its test suite (minutes, the first time)"));
            shell::run(shell::command("cp").arg("-r").arg(sources.join(".")).arg(&folder))?;
            one_broker(&folder.join("tests").join("test.c"))?;
            let json = "is in Debian's package rapidjson-dev; run `apt-get update` first";
            debian::unpack(&["rapidjson-dev"], &folder, json)?;
            // What would be found on one machine and not on the next is left out.
            let without =
                ["--disable-ssl", "--disable-gssapi", "--disable-curl", "--disable-lz4-ext", "--disable-zstd"];
            let inside = |program: &str| {
                let mut command = Command::new(program);
                command.current_dir(&folder);
                command
            };
            let log = folder.join("build.log");
            let make = format!("-j{}", std::thread::available_parallelism().map_or(1, usize::from));
            let mut configure = inside("bash");
            configure.env("CPPFLAGS", format!("-isystem {}", folder.join("usr/include").display()));
            quietly(configure.arg("configure").args(without), &log)?;
            quietly(inside("make").args([&make, "libs"]), &log)?;
            quietly(inside("make").args([&make, "-C", "tests", "test-runner"]), &log)?;
            fs::write(&done, &version).with_context(|| format!("write {}", done.display()))?;
        }
        let kafka = installation(jars)?;
        Ok(Self { folder, version, kafka, jars: jars.clone() })
    }

    fn tests(&self) -> PathBuf {
        self.folder.join("tests")
    }

    /// One process of the suite, with one number of its tests, or one part of one.
    fn command(&self, unit: &Unit, scenario: &str, bootstrap: &str, config: &Path) -> Command {
        let mut command = Command::new("./test-runner");
        command.current_dir(self.tests()).env("LD_LIBRARY_PATH", "../src:../src-cpp");
        command.args(["-Q", "-L", "-p1", "-s", scenario]).env("TESTS", &unit.number);
        match &unit.part {
            Some(part) => command.env("SUBTESTS", format!("{part}:")),
            None => command.env_remove("SUBTESTS"),
        };
        command.env("TEST_REPORT", unit.report()).env("TEST_KAFKA_VERSION", Jars::VERSION);
        // Longer limits, and nothing is measured.
        command.env("CI", "true");
        command.env("RDKAFKA_TEST_CONF", config);
        command.env("BROKERS", bootstrap).env("KAFKA_PATH", &self.kafka).env("KAFKA_JARS", self.jars.folder());
        command
    }

    /// Runs one and reads how each of its tests ended.
    fn outcomes(&self, unit: &Unit, mut command: Command) -> Result<Outcomes> {
        let report = self.tests().join(unit.report());
        let log = workspace::cache("work")?.join(format!("librdkafka-{}.log", unit.name()));
        let ended = within(LIMIT, &mut command, &log)?;
        let text = fs::read_to_string(&report).unwrap_or_default();
        if ended {
            fs::remove_file(&report).with_context(|| format!("remove {}", report.display()))?;
        }
        let found: Value = serde_json::from_str(&text).unwrap_or_default();
        let said = fs::read_to_string(&log).with_context(|| format!("read {}", log.display()))?;
        let mut outcomes = Vec::new();
        for case in &unit.cases {
            let test = case.split('/').next().unwrap_or(case);
            let outcome = match found.pointer(&format!("/tests/{test}/state")).and_then(Value::as_str) {
                // A part that quick mode leaves out has not begun.
                Some("PASSED") if unit.part.as_ref().is_some_and(|part| !said.contains(&format!("[ {part}:"))) => {
                    Outcome::Skipped
                }
                Some("PASSED") => Outcome::Passed,
                Some("SKIPPED") => Outcome::Skipped,
                _ => Outcome::Failed,
            };
            if outcome == Outcome::Failed {
                let why =
                    said.lines().skip_while(|line| !line.contains("failed at")).nth(1).unwrap_or("no reason given");
                println!("{case}: {why} ({})", log.display());
            }
            outcomes.push((case.clone(), outcome));
        }
        Ok(outcomes)
    }
}

impl Suite for Librdkafka {
    fn name(&self) -> &'static str {
        "librdkafka"
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn rounds(&self) -> Result<Vec<Round>> {
        let file = self.tests().join("test.c");
        let tests = tests(&fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?)?;
        let mut rounds = Vec::new();
        for (scenario, configs) in SCENARIOS {
            let mut cases = Vec::new();
            for test in tests.iter().filter(|test| test.scenario.split(',').any(|one| one == scenario)) {
                if IN_PARTS.contains(&&*test.name) {
                    let stem = self.tests().join(test.name.replacen('_', "-", 1));
                    let source = ["c", "cpp"].map(|ending| fs::read_to_string(stem.with_extension(ending)));
                    let text = source.into_iter().find_map(Result::ok);
                    let text = text.with_context(|| format!("no source of {}", stem.display()))?;
                    cases.extend(parts(&text).into_iter().map(|part| format!("{}/{part}", test.name)));
                } else {
                    cases.push(test.name.clone());
                }
            }
            rounds.push(Round { name: scenario, configs, cases });
        }
        Ok(rounds)
    }

    fn is_for_ci(&self, case: &str) -> bool {
        !SLOW.contains(&case)
    }

    fn run(&self, round: &Round, way: Way, bootstrap: &str, told: &mut dyn FnMut(&str, Outcome)) -> Result<()> {
        let config = workspace::cache("work")?.join("librdkafka.conf");
        fs::write(&config, format!("metadata.broker.list={bootstrap}\n"))
            .with_context(|| format!("write {}", config.display()))?;
        let count = if way == Way::Together { TOGETHER } else { 1 };
        let one = |unit| self.outcomes(&unit, self.command(&unit, round.name, bootstrap, &config));
        beside_each_other(count, units(&round.cases), one, told)
    }
}

/// What one process runs: the tests of one number, or one part of one.
struct Unit {
    number: String,
    part: Option<String>,
    cases: Vec<String>,
}

impl Unit {
    fn name(&self) -> String {
        self.part.as_ref().map_or(self.number.clone(), |part| format!("{}-{part}", self.number))
    }

    /// Where it reports, beside itself: the suite cuts long paths off.
    fn report(&self) -> String {
        format!("report-{}.json", self.name())
    }
}

fn units(cases: &[String]) -> Vec<Unit> {
    let mut units: BTreeMap<(String, Option<String>), Vec<String>> = BTreeMap::new();
    for case in cases {
        let number = case.split('_').next().unwrap_or(case).to_owned();
        let part = case.split_once('/').map(|(_, part)| part.to_owned());
        units.entry((number, part)).or_default().push(case.clone());
    }
    units.into_iter().map(|((number, part), cases)| Unit { number, part, cases }).collect()
}

/// A test that needs a broker.
#[derive(Debug, PartialEq, Eq)]
struct Test {
    name: String,
    /// Names with commas between them.
    scenario: String,
}

/// The suite's list of its tests: `_TEST(NAME, FLAGS, …, .scenario = "…")`, in `test.c`.
fn tests(text: &str) -> Result<Vec<Test>> {
    let list = text.split_once("struct test tests[] = {").context("test.c has no list of tests")?.1;
    let list = list.split_once("{NULL}").context("the list of tests in test.c has no end")?.0;
    let mut tests = Vec::new();
    for entry in list.split("_TEST(").skip(1) {
        let (name, rest) = entry.split_once(',').with_context(|| format!("no flags of the test {entry:?}"))?;
        let flags = rest.split([',', ')']).next().unwrap_or_default();
        if ["TEST_F_LOCAL", "TEST_F_MANUAL", "TEST_F_KNOWN_ISSUE"]
            .iter()
            .any(|flag| flags.split('|').any(|f| f.trim() == *flag))
        {
            continue;
        }
        if name.trim().ends_with("_mock") {
            continue;
        }
        let scenario = rest.split_once(".scenario = \"").and_then(|(_, rest)| rest.split('"').next());
        tests.push(Test { name: name.trim().to_owned(), scenario: scenario.unwrap_or("default").to_owned() });
    }
    Ok(tests)
}

/// The functions of a test's source that are parts of it, in order.
fn parts(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut function = None;
    for line in text.lines() {
        // A function's name is at the beginning of a line, or behind its type.
        if line.starts_with(|c: char| c.is_ascii_alphabetic())
            && let Some((head, _)) = line.split_once('(')
        {
            function = head.split([' ', '*']).next_back().map(str::to_owned);
        }
        if line.trim_start().starts_with("SUB_TEST")
            && !line.contains("PASS")
            && let Some(part) = function.take()
        {
            parts.push(part);
        }
    }
    parts
}

/// Where cargo keeps the sources, and of which version they are.
fn sources() -> Result<(PathBuf, String)> {
    let mut cargo = shell::cargo();
    cargo.args(["metadata", "--format-version", "1", "--locked", "--manifest-path", MANIFEST]);
    let metadata: Value = serde_json::from_str(&shell::output(&mut cargo)?).context("read cargo's metadata")?;
    let packages = metadata.get("packages").and_then(Value::as_array).context("metadata without packages")?;
    let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let Some(package) = packages.iter().find(|package| text(package, "name") == CRATE) else {
        bail!("{MANIFEST} does not build on {CRATE}")
    };
    let manifest = PathBuf::from(text(package, "manifest_path"));
    let folder = manifest.parent().context("a manifest without a folder")?.join("librdkafka");
    let version = text(package, "version");
    let version = version.split_once('+').with_context(|| format!("no version of librdkafka in {version}"))?.1;
    Ok((folder, version.to_owned()))
}

/// Tests that make topics of three replicas make them of one: the one change that is made to the sources.
fn one_broker(file: &Path) -> Result<()> {
    const CALL: &str = "rd_kafka_NewTopic_new(topicname, partition_cnt, replication_factor,";
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    ensure!(text.matches(CALL).count() == 1, "{} makes topics in another way", file.display());
    let text = text.replace(CALL, &CALL.replace("replication_factor", "1"));
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// Scripts by the names that an installation of Kafka has, over the jars.
fn installation(jars: &Jars) -> Result<PathBuf> {
    let folder = workspace::cache("work")?.join("kafka");
    let bin = folder.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let topics = quoted(&jars.tool("org.apache.kafka.tools.TopicCommand", &[]));
    let configs = quoted(&jars.tool("kafka.admin.ConfigCommand", &[]));
    let acls = quoted(&jars.tool("org.apache.kafka.tools.AclCommand", &[]));
    let class = format!("java -Xmx256m -cp \"$CLASSPATH:{}/*\"", jars.folder().display());
    for (name, line) in
        [("kafka-topics", topics), ("kafka-configs", configs), ("kafka-acls", acls), ("kafka-run-class", class)]
    {
        let file = bin.join(format!("{name}.sh"));
        fs::write(&file, format!("#!/bin/sh\nexec {line} \"$@\"\n"))
            .with_context(|| format!("write {}", file.display()))?;
        shell::run(shell::command("chmod").arg("+x").arg(&file))?;
    }
    Ok(folder)
}

/// A command as a shell reads it.
fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
}

/// Runs to the end and fails where it fails; what it prints goes to a file.
fn quietly(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = file.try_clone().context("share the log")?;
    shell::run(command.stdin(Stdio::null()).stdout(file).stderr(errors))
        .with_context(|| format!("see {}", log.display()))
}

/// Runs within a time and tells whether it ended by itself; what it prints goes to a file.
fn within(limit: Duration, command: &mut Command, log: &Path) -> Result<bool> {
    let file = File::create(log).with_context(|| format!("create {}", log.display()))?;
    let errors = file.try_clone().context("share the log")?;
    let mut process = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().context("start a test")?;
    let deadline = Instant::now() + limit;
    while process.try_wait().context("wait for a test")?.is_none() {
        if Instant::now() > deadline {
            process.kill().context("end a test")?;
            process.wait().context("end a test")?;
            return Ok(false);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(true)
}

#[cfg(test)]
mod tests_of_the_list {
    use super::*;

    /// Tests against mocks, manual ones and known issues are no cases; a scenario is read, also on a line of its own.
    #[test]
    fn the_suites_list_is_read() {
        let text = r#"
            struct test tests[] = {
                {.name = "<MAIN>", .flags = TEST_F_LOCAL},
                _TEST(0001_one, 0),
                _TEST(0002_two, TEST_F_LOCAL | TEST_F_KNOWN_ISSUE_WIN32),
                _TEST(0003_three, TEST_F_KNOWN_ISSUE_WIN32, TEST_BRKVER(1, 0, 0, 0)),
                _TEST(0004_four,
                      0,
                      .scenario = "default,ak23"),
                _TEST(0005_five, TEST_F_KNOWN_ISSUE),
                _TEST(0006_six_mock, 0),
                {NULL}};"#;
        let found: Vec<_> = tests(text).expect("a list").into_iter().map(|test| (test.name, test.scenario)).collect();
        let expected = [("0001_one", "default"), ("0003_three", "default"), ("0004_four", "default,ak23")];
        assert_eq!(found, expected.map(|(name, scenario)| (name.to_owned(), scenario.to_owned())));
    }

    /// A part is a function that begins with the suite's macro; others, and the end of a part, are none.
    #[test]
    fn parts_are_functions_that_say_so() {
        let text = "static void A(int x,\n                 int y) {\n        SUB_TEST_QUICK(\"%s\", what);\n        \
                    SUB_TEST_PASS();\n}\nstatic void B(void) {\n        A(1, 2);\n}\n\
                    static void\nC(int x) {\n        B();\n        SUB_TEST(\"c\");\n}\n";
        assert_eq!(parts(text), ["A", "C"]);
    }

    /// Tests of one number run in one process, which reports all of them; a part runs alone.
    #[test]
    fn a_process_runs_a_number_or_a_part() {
        let cases = ["0001_a", "0002_b/do_test_X", "0001_c", "0002_b/do_test_Y"].map(str::to_owned);
        let found: Vec<_> = units(&cases).iter().map(|unit| (unit.name(), unit.cases.join(" "))).collect();
        let expected =
            [("0001", "0001_a 0001_c"), ("0002-do_test_X", "0002_b/do_test_X"), ("0002-do_test_Y", "0002_b/do_test_Y")];
        assert_eq!(found, expected.map(|(name, cases)| (name.to_owned(), cases.to_owned())));
    }
}
