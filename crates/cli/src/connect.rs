//! How the commands that talk to a broker find it.

use std::sync::Arc;
use std::time::Duration;

use forebay_api::HostPort;
use forebay_client::{Admin, Client, ClientConfig, ClientError};
use forebay_env::Env;

/// A person waits: what has not worked for so long is told.
const DEADLINE: Duration = Duration::from_secs(15);

#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// Where the brokers are: HOST:PORT, or several with commas between
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        value_name = "HOST:PORT",
        default_value = "localhost:9092",
        env = "FOREBAY_BOOTSTRAP_SERVER",
        value_parser = addresses,
        global = true
    )]
    pub bootstrap: String,
}

/// `HOST:PORT`, or several with commas between.
fn addresses(text: &str) -> Result<String, String> {
    for address in text.split(',') {
        address.trim().parse::<HostPort>().map_err(|error| format!("{error}; Kafka's usual port is 9092"))?;
    }
    Ok(text.to_owned())
}

impl Connection {
    /// A client, once one of the brokers named is seen to listen: the client itself would go on trying, as a broker may
    /// just be starting again, but a person has more likely mistaken the address.
    ///
    /// # Errors
    /// Why the last one could not be reached.
    pub async fn client(&self, env: &Env) -> Result<Client, ClientError> {
        let config = ClientConfig { deadline: DEADLINE, ..ClientConfig::new(&self.bootstrap) };
        let mut unreached = None;
        for address in &config.bootstrap {
            match env.network().connect(address).await {
                Ok(_) => return Ok(Client::new(env.clone(), config)),
                Err(reason) => unreached = Some((address.clone(), reason)),
            }
        }
        let (address, reason) = unreached.expect("the text names at least one address, be it empty");
        Err(ClientError::NotSent { what: "look for a broker".to_owned(), address, reason: Arc::new(reason) })
    }

    pub async fn admin(&self, env: &Env) -> Result<Admin, ClientError> {
        Ok(Admin::new(&self.client(env).await?))
    }
}
