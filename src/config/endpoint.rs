//! Where events go: NATS servers, a directory, or nowhere.
//!
//! An address is taken apart once, here, into what a connection needs. Credentials in a URL are accepted, since existing
//! configurations have them, but they leave the text at once: nothing in this file prints them, neither `Display` nor `Debug`
//! nor a message about an address that cannot be read.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use super::auth::Secret;

/// Where events go. Default: `nats://localhost:4222`.
///
/// Read from a comma list of `nats://` and `tls://` addresses (a bare `host:port` is `nats://`, the port is 4222 when absent),
/// from `file:` with a directory, or from `null:`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Endpoint {
    /// A NATS cluster, by one or more of its servers.
    Nats(Servers),
    /// A directory, which holds the messages as a server would: the embedded mode; see [`Spool`](super::Spool). It is made when it is not
    /// there.
    File(PathBuf),
    /// Nowhere: every event is taken, and counts as acknowledged. For benches; nothing is ever delivered.
    Null,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::Nats(Servers(vec![Server::local()]))
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "null:" {
            return Ok(Self::Null);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return directory(path)
                .map(Self::File)
                .map_err(|problem| format!("{text:?}: {problem}; {ALLOWED}"));
        }
        let server = |(index, part)| {
            Server::parse(part).map_err(|problem| {
                // Where there are credentials, an odd comma or colon may have put them anywhere: then no part is shown.
                let shown =
                    if text.contains('@') { format!("address {}", index + 1) } else { format!("{part:?}") };
                format!("{shown}: {problem}; {ALLOWED}")
            })
        };
        let servers = text.split(',').map(str::trim).enumerate().map(server).collect::<Result<_, _>>()?;
        Ok(Self::Nats(Servers(servers)))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nats(servers) => servers.fmt(f),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Null => f.write_str("null:"),
        }
    }
}

/// One or more servers of one cluster, in the order of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Servers(Vec<Server>);

impl Servers {
    /// The servers; there is at least one.
    pub fn iter(&self) -> std::slice::Iter<'_, Server> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Servers {
    type Item = &'a Server;
    type IntoIter = std::slice::Iter<'a, Server>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{server}")?;
        }
        Ok(())
    }
}

/// The address of one server, and the credentials that stood in it.
///
/// `Display` and `Debug` print the normalised address with `***` for the credentials; [`Server::address`] leaves them out.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// A host name or an IP address; an IPv6 address stands here without brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
    /// Whether the scheme was `tls://`, which demands TLS. With `nats://` the server decides.
    pub tls: bool,
    /// The user in the URL. Without a `password` it is a token, as NATS has it, and as secret as one.
    pub user: Option<String>,
    /// The password in the URL.
    pub password: Option<Secret>,
}

impl Server {
    /// The address without credentials: `nats://host:port` or `tls://host:port`.
    #[must_use]
    pub fn address(&self) -> String {
        self.with_credentials("")
    }

    /// Whether it is this machine, as far as its name says.
    pub(crate) fn is_loopback(&self) -> bool {
        let is_loopback = |address: IpAddr| address.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    fn local() -> Self {
        Self { host: "localhost".to_owned(), port: PORT, tls: false, user: None, password: None }
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("nats", rest)) => (false, rest),
            Some(("tls", rest)) => (true, rest),
            Some(_) => return Err("the scheme is unknown"),
        };
        // The last one, since a password may hold an `@` that nobody has encoded.
        let (credentials, address) = match rest.rsplit_once('@') {
            Some((credentials, address)) => (Some(credentials), address),
            None => (None, rest),
        };
        let (host, port) = split_port(address.strip_suffix('/').unwrap_or(address))?;
        let (user, password) = credentials.map(split_credentials).transpose()?.unwrap_or_default();
        Ok(Self { host: host.to_owned(), port, tls, user, password })
    }

    fn with_credentials(&self, credentials: &str) -> String {
        let scheme = if self.tls { "tls" } else { "nats" };
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        format!("{scheme}://{credentials}{open}{}{close}:{}", self.host, self.port)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_credentials(if self.user.is_some() { "***@" } else { "" }))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The port that NATS servers listen on.
const PORT: u16 = 4222;

/// What an address may be, as it ends the message of a refusal.
const ALLOWED: &str =
    "allowed are nats://host:port, tls://host:port, a comma list of them, file:DIR, and null:";

/// The directory in `file:DIR`, also where it is written as a URL, `file:///DIR`.
fn directory(path: &str) -> Result<PathBuf, &'static str> {
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err("behind file:// stands an absolute path, which begins with a slash"),
        None => path,
    };
    if path.is_empty() { Err("the directory is missing") } else { Ok(PathBuf::from(path)) }
}

/// The host and the port of an address.
fn split_port(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
            host.parse::<Ipv6Addr>().map_err(|_| "there is no IPv6 address in the brackets")?;
            (host, port)
        }
        None => {
            let (host, port) = address.split_at(address.find(':').unwrap_or(address.len()));
            if host.is_empty() {
                return Err("the host is missing");
            }
            if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
                return Err("the host has a character that no host name has");
            }
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, PORT));
    }
    let port = port.strip_prefix(':').and_then(|port| port.parse().ok()).filter(|&port| port != 0);
    port.map(|port| (host, port))
        .ok_or("the port is no number from 1 to 65535 (an IPv6 address stands in brackets)")
}

/// The user and the password in the part of a URL before the `@`.
fn split_credentials(text: &str) -> Result<(Option<String>, Option<Secret>), &'static str> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (text, None),
    };
    if user.is_empty() {
        return Err("the user is missing before the @");
    }
    let password = password.map(decode).transpose()?;
    Ok((Some(decode(user)?), password.map(Secret::new)))
}

/// Undoes percent-encoding, by which a URL carries `@`, `:`, `,` and `/` in a password.
fn decode(text: &str) -> Result<String, &'static str> {
    const WRONG: &str = "the credentials are not percent-encoded as they should be";
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return Err(WRONG) };
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (Some(high), Some(low)) = (digit(*high), digit(*low)) else { return Err(WRONG) };
        bytes.push(high << 4 | low);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| WRONG)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_normalised() {
        for (text, normalised) in [
            ("localhost", "nats://localhost:4222"),
            ("localhost:4333", "nats://localhost:4333"),
            ("nats://a.example", "nats://a.example:4222"),
            ("nats://a:1/", "nats://a:1"),
            ("tls://a", "tls://a:4222"),
            ("[::1]", "nats://[::1]:4222"),
            ("tls://[fe80::1]:5", "tls://[fe80::1]:5"),
            (" a , tls://b:7 ", "nats://a:4222,tls://b:7"),
            ("nats://u:p@a", "nats://***@a:4222"),
            ("t0ken@a", "nats://***@a:4222"),
            ("null:", "null:"),
            ("file:./events", "file:./events"),
            ("file:///var/events", "file:/var/events"),
        ] {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!(endpoint.to_string(), normalised, "{text}");
        }
        assert_eq!(Endpoint::default(), "nats://localhost:4222".parse().unwrap());
    }

    #[test]
    fn credentials_leave_the_text() {
        let server = Server::parse("nats://me:p%40s:s@@host").unwrap();
        assert_eq!(server.user.as_deref(), Some("me"));
        assert_eq!(server.password.as_ref().map(Secret::reveal), Some("p@s:s@"));
        assert_eq!(server.address(), "nats://host:4222");
        assert_eq!(format!("{server} {server:?}"), "nats://***@host:4222 nats://***@host:4222");
    }

    #[test]
    fn an_address_that_cannot_be_read_is_refused_with_what_is_allowed() {
        for (text, problem) in [
            ("file:", "\"file:\": the directory is missing"),
            ("file://events", "behind file:// stands an absolute path"),
            ("http://a", "\"http://a\": the scheme is unknown"),
            ("ws://a", "the scheme is unknown"),
            ("", "the host is missing"),
            ("a,", "the host is missing"),
            ("nats://:4222", "the host is missing"),
            ("a:0", "the port is no number"),
            ("a:65536", "the port is no number"),
            ("::1", "the host is missing"),
            ("fe80::1", "an IPv6 address stands in brackets"),
            ("[::1", "the bracket is not closed"),
            ("[localhost]", "no IPv6 address in the brackets"),
            ("[::1]4222", "the port is no number"),
            ("a b", "a character that no host name has"),
            ("nats://a/path", "a character that no host name has"),
            ("null:,a", "the port is no number"),
            (":p@a", "the user is missing"),
            ("u:%zz@a", "not percent-encoded"),
        ] {
            let refusal = text.parse::<Endpoint>().unwrap_err();
            assert!(refusal.contains(problem) && refusal.ends_with(ALLOWED), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_refusal_shows_no_credentials() {
        for text in [
            "http://me:hunter2@a",
            "me:hunter2@a:0",
            "me:hunter2@",
            "me:hunter2%@a",
            "nats://hunter2@a b",
            "me:hunter2,x@a",
        ] {
            let refusal = text.parse::<Endpoint>().unwrap_err();
            assert!(refusal.starts_with("address ") && !refusal.contains("hunter2"), "{refusal}");
        }
    }
}
