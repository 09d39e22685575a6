//! The S3 provider against a small server in this process: the whole conformance suite, and what only HTTP can do wrong.

use std::sync::Arc;

use forebay_env::real;

use super::fake::{FakeS3, Trouble};
use super::*;
use crate::{Bucket, CreateError, Created, ProbeError, Purpose, conformance, create_exact};

fn client(env: &Env, server: &FakeS3, prefix: &str) -> S3Store {
    let settings = AmazonS3Builder::new()
        .with_endpoint(server.endpoint())
        .with_region("us-east-1")
        .with_access_key_id("somebody")
        .with_secret_access_key("something")
        .with_config(client_setting(ClientConfigKey::AllowHttp), "true");
    S3Store::new(env, settings, "logs", Prefix::new(prefix).expect("legal")).expect("complete settings")
}

fn key(text: &str) -> Key {
    Key::new(text).expect("legal")
}

#[tokio::test]
async fn s3_keeps_the_promises_of_a_store() {
    // Shown by the suite against a server of our own over real HTTP, with a prefix and without.
    let env = real::env();
    for prefix in ["", "team/a"] {
        let server = FakeS3::start(&env).await;
        let bucket = Bucket::over(&env, Arc::new(client(&env, &server, prefix)));
        bucket.probe().await.expect("the server keeps its promises");
        conformance::run(&env, bucket.store(Purpose::Check)).await;
        let outside = server.seen().iter().filter(|request| request.contains("/kit/")).count();
        let inside = server.seen().iter().filter(|request| request.contains(&format!("logs/{prefix}"))).count();
        assert!(outside > 100 && inside >= outside, "every object lies below the prefix");
    }
}

#[tokio::test]
async fn each_answer_to_a_create_is_told_for_what_it_is() {
    // Shown answer by answer: a create is one HTTP request, and only what surely was not done counts as that.
    let env = real::env();
    let server = FakeS3::start(&env).await;
    let store = client(&env, &server, "");
    let cases = [
        (Trouble::Refuse(409), StoreErrorKind::AlreadyExists),
        (Trouble::Refuse(412), StoreErrorKind::AlreadyExists),
        (Trouble::Refuse(400), StoreErrorKind::Refused),
        (Trouble::Refuse(403), StoreErrorKind::Refused),
        (Trouble::Refuse(404), StoreErrorKind::Refused),
        (Trouble::Refuse(429), StoreErrorKind::DidNotHappen),
        (Trouble::Refuse(500), StoreErrorKind::MayHaveHappened),
        (Trouble::Refuse(503), StoreErrorKind::MayHaveHappened),
        (Trouble::Refuse(507), StoreErrorKind::Full),
        (Trouble::DoAndHangUp, StoreErrorKind::MayHaveHappened),
    ];
    for (number, (trouble, expected)) in cases.into_iter().enumerate() {
        server.trouble(trouble);
        let at = key(&format!("answer/{number}"));
        let error = store.create(&at, Body::from(b"x")).await.expect_err("no success was said");
        assert_eq!(error.kind(), expected, "{trouble:?}");
    }
    assert_eq!(server.seen().len(), cases.len(), "no create was repeated below us");
}

#[tokio::test]
async fn a_create_whose_answer_was_lost_is_known_as_ours() {
    // Shown by a server that does the deed and then says 500, hangs up, or claims a conflict where nothing is.
    let env = real::env();
    let server = FakeS3::start(&env).await;
    let store = client(&env, &server, "");
    for (name, trouble, expected) in [
        ("a", Trouble::DoAndSay(500), Created::Mine),
        ("b", Trouble::DoAndHangUp, Created::Mine),
        ("c", Trouble::Refuse(409), Created::New),
        ("d", Trouble::Refuse(503), Created::New),
    ] {
        server.trouble(trouble);
        let created = create_exact(&env, &store, &key(name), Body::from(b"ours")).await;
        assert_eq!(created.expect("settled"), expected, "{trouble:?}");
        assert_eq!(store.get(&key(name)).await.expect("there"), "ours");
    }
    let other = create_exact(&env, &store, &key("a"), Body::from(b"another's")).await;
    assert!(matches!(other, Err(CreateError::Theirs { .. })), "{other:?}");
}

#[tokio::test]
async fn a_server_that_nobody_answers_for_has_done_nothing() {
    // Shown by a port on which nobody listens any more.
    let env = real::env();
    let server = FakeS3::start(&env).await;
    let store = client(&env, &server, "");
    drop(server);
    let error = store.create(&key("a"), Body::from(b"x")).await.expect_err("nobody is there");
    assert_eq!(error.kind(), StoreErrorKind::DidNotHappen, "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_costs_a_bounded_time() {
    // Shown on a clock that jumps: the attempt ends, and what became of the create is unknown.
    let env = real::env();
    let server = FakeS3::start(&env).await;
    let bucket = Bucket::over(&env, Arc::new(client(&env, &server, "")));
    server.trouble(Trouble::Silence);
    let error = bucket.store(Purpose::Wal).create(&key("a"), Body::from(b"x")).await.expect_err("no answer");
    assert_eq!(error.kind(), StoreErrorKind::MayHaveHappened);
}

#[tokio::test]
async fn a_server_that_ignores_conditions_is_refused_by_name() {
    // Shown by one that answers 200 to every PUT.
    let env = real::env();
    let server = FakeS3::start(&env).await;
    server.ignore_conditions();
    let bucket = Bucket::over(&env, Arc::new(client(&env, &server, "x")));
    let refused = bucket.probe().await.expect_err("it would let two brokers overwrite each other");
    assert!(matches!(refused, ProbeError::IgnoresCreateIfAbsent { .. }));
    assert!(refused.to_string().starts_with("s3://logs/x created an object where there was one already"), "{refused}");
}

#[test]
fn plain_http_has_to_be_meant() {
    // Shown by an endpoint without TLS and without the variable that allows it.
    let settings = AmazonS3Builder::new().with_endpoint("http://127.0.0.1:9000");
    let error = S3Store::new(&real::env(), settings, "logs", Prefix::all()).err().expect("refused");
    assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");
}
