//! The trash as an operator uses it, over the admin address.

use forebay_broker::Broker;
use forebay_client::{Admin, NewTopic};
use forebay_env::real;

use crate::support::{ask, client, consume, name, options, partition, produce};

/// A deleted topic comes back with its records; one that is not in the trash, or whose name is taken, does not; and a
/// page in a browser cannot ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_topic_comes_back() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let client = client(&env, &broker);
    let admin = Admin::new(&client);
    let undelete = async |topic: &str, header: &str| {
        let (code, body) = ask(&env, &broker, &format!("POST /topics/undelete?name={topic}"), header).await;
        format!("{code} {}", body.trim_end())
    };
    admin.create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    produce(&client, &partition("orders", 0), (0..3).map(|n| n.to_string())).await;
    assert_eq!(undelete("orders", "").await, "404 it is empty");
    admin.delete_topic(&name("orders")).await.expect("deleted");
    assert_eq!(undelete("order", "").await, "404 it has orders");
    assert!(undelete("orders", "Origin: http://elsewhere.example\r\n").await.starts_with("403"));

    admin.create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created again");
    assert_eq!(undelete("orders", "").await, "409 topic orders exists");
    admin.delete_topic(&name("orders")).await.expect("deleted again");
    // The empty one was deleted last and comes back first.
    assert_eq!(undelete("orders", "").await, "200 ");
    admin.delete_topic(&name("orders")).await.expect("deleted for good");
    broker.stop().await.expect("drained");
}

/// The records of a topic that comes back are those it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_records_come_back() {
    let (env, folder) = (real::env(), tempfile::tempdir().expect("a folder"));
    let broker = Broker::start(env.clone(), options(folder.path(), &[])).await.expect("the broker starts");
    let first = client(&env, &broker);
    let admin = Admin::new(&first);
    admin.create_topic(&NewTopic::new(name("orders"), 1)).await.expect("created");
    produce(&first, &partition("orders", 0), (0..3).map(|n| n.to_string())).await;
    admin.delete_topic(&name("orders")).await.expect("deleted");
    assert_eq!(ask(&env, &broker, "POST /topics/undelete?name=orders", "").await.0, "200");
    assert_eq!(consume(&client(&env, &broker), &partition("orders", 0), 3).await, ["0", "1", "2"]);
    broker.stop().await.expect("drained");
}
