//! Taking addresses: `localhost` is one port on IPv4 and IPv6 together.

use std::io;
use std::sync::Arc;

use forebay_env::{Env, Listener};

use crate::options::ListenAddress;

/// Free ports tried before there seems to be none that is free on both loopback addresses.
const PORTS_TRIED_MAX: usize = 16;

/// An address that could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("could not listen on {address}{}", hint(source))]
pub struct BindError {
    address: String,
    source: io::Error,
}

fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::AddrInUse => ", which another process has: stop that one, or choose another port",
        io::ErrorKind::PermissionDenied => ", which this user may not: choose a port above 1023",
        io::ErrorKind::AddrNotAvailable => ", which is no address of this machine",
        _ => "",
    }
}

/// Takes an address, or the pair that `localhost` is. At least one listener; all have the same port.
///
/// # Errors
/// Names the address. Connections to what is bound wait until somebody accepts them.
pub(crate) async fn bind(env: &Env, address: ListenAddress) -> Result<Vec<Arc<dyn Listener>>, BindError> {
    let mut tried = 0;
    loop {
        tried += 1;
        let first = listen(env, address.first(address.port)).await?;
        let port = first.local_addr().port();
        let Some(second) = address.second(port) else { return Ok(vec![first]) };
        match listen(env, second).await {
            Ok(second) => return Ok(vec![first, second]),
            Err(error) => match error.source.kind() {
                // The free port that was picked is another's over IPv6: pick again.
                io::ErrorKind::AddrInUse if address.port == 0 && tried < PORTS_TRIED_MAX => {}
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => return Err(error),
                _ => {
                    tracing::debug!(error = %error.source, "no IPv6 loopback on this machine");
                    return Ok(vec![first]);
                }
            },
        }
    }
}

async fn listen(env: &Env, address: std::net::SocketAddr) -> Result<Arc<dyn Listener>, BindError> {
    match env.network().listen(address).await {
        Ok(listener) => Ok(Arc::from(listener)),
        Err(source) => Err(BindError { address: address.to_string(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

    use forebay_api::HostPort;
    use forebay_env::real;

    use super::*;

    fn address(text: &str) -> ListenAddress {
        ListenAddress::new(&text.parse::<HostPort>().expect(text)).expect(text)
    }

    /// Port 0 on localhost gives one port for all loopback addresses that the machine has, of both families where it has
    /// both, and a taken port is named.
    #[tokio::test]
    async fn localhost_is_one_port_on_both_families() {
        let env = real::env();
        let has_ipv6 = env.network().listen((Ipv6Addr::LOCALHOST, 0).into()).await.is_ok();
        let bound = bind(&env, address("localhost:0")).await.expect("a free port");
        let port = bound[0].local_addr().port();
        assert_ne!(port, 0);
        let mut expected: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, port).into()];
        if has_ipv6 {
            expected.push((Ipv6Addr::LOCALHOST, port).into());
        }
        assert_eq!(bound.iter().map(|listener| listener.local_addr()).collect::<Vec<_>>(), expected);
        for listener in &bound {
            env.network().connect(&listener.local_addr().to_string()).await.expect("bound is connectable");
        }
        let error = bind(&env, address(&format!("127.0.0.1:{port}"))).await.err().expect("taken").to_string();
        assert_eq!(
            error,
            format!(
                "could not listen on 127.0.0.1:{port}, which another process has: stop that one, or choose another port"
            )
        );
    }
}
