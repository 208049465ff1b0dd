//! `--metrics ADDR`: the metrics of the bus that a command runs, for as long as it runs.

use crate::{Failure, Result};
use jetring::{Bus, MetricsEndpoint};
use prometheus::Registry;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where to listen. What is not said is the loopback, so that only who asks for it by name opens a port to a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address(SocketAddr);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse::<u16>() {
            return Ok(Self((Ipv4Addr::LOCALHOST, port).into()));
        }
        text.parse()
            .map(Self)
            .map_err(|_| "allowed are PORT, which is one of 127.0.0.1, and IP:PORT; port 0 is any".to_owned())
    }
}

/// Serves the metrics of a bus where it was asked for, until what is returned is dropped.
pub(crate) fn serve(bus: &Bus, address: Option<Address>) -> Result<Option<MetricsEndpoint>> {
    let Some(Address(address)) = address else { return Ok(None) };
    let registry = Registry::new();
    bus.register(&registry).map_err(Failure::run)?;
    let endpoint = MetricsEndpoint::start(address, &registry)
        .map_err(|error| Failure::Run(format!("--metrics {address}: {error}")))?;
    eprintln!("jetring: metrics at {}", endpoint.url());
    Ok(Some(endpoint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_the_loopback_and_a_network_must_be_named() {
        let address = |text: &str| text.parse::<Address>().map(|Address(address)| address.to_string());
        for (text, meant) in [
            ("9464", "127.0.0.1:9464"),
            ("localhost:0", "127.0.0.1:0"),
            ("0.0.0.0:9464", "0.0.0.0:9464"),
            ("[::1]:9464", "[::1]:9464"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(meant));
        }
        for text in ["", ":9464", "metrics", "127.0.0.1", "70000", "localhost:"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
