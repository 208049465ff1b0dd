//! NATS: the only place that names `async_nats`.
//!
//! | module | is |
//! | --- | --- |
//! | this one | how to connect: address, TLS, credentials |
//! | `servers` | which servers there are; connecting to the first one that answers |
//! | `sink` | where the worker's messages go, and their answers come from |
//! | `address` | how an answer finds what it answers |
//! | `look` | what the worker asks about its stream |
//! | `messages` | how a stream is read back, for a [reader](crate::reader) |
//! | [`raw`] | messages without envelope, for tools |
//! | [`admin`] | makes a stream, for development |
//! | [`inspect`] | what server, account and stream say of themselves, for `doctor` |
//!
//! # One connection, one client
//!
//! `async_nats::Client` reconnects by itself and then sends what was still in its queue. For a publisher that wants order and
//! no duplicates these are ghosts: they arrive after newer messages, or twice. So a client of ours has one connection in its
//! life, and `sink` makes a new one after it. The client has no option for that; but it asks for credentials each time
//! that it connects, and ours fail once it has had its connection, so that it ends, with its queue.
//!
//! A connection that we leave because the server is silent may still bring over what was handed to it. That is a run of
//! messages from the lowest unanswered one on, and the new connection sends the same run: the server keeps the first of each.

mod address;
pub mod admin;
pub mod inspect;
mod look;
pub(crate) mod messages;
pub mod raw;
mod servers;
pub(crate) mod sink;

use crate::config::{Auth, Config, SecretSource, Server};
use crate::entropy;
use crate::sync::Ordering;
use crate::sync::plain::AtomicBool;
use async_nats::{AuthError, Client, ConnectError, ConnectOptions};
use nkeys::KeyPair;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long connecting to one address may take, including TLS and authentication. Attempts to several servers overlap; see `servers`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the server is asked whether it is still there; two unanswered pings end the connection. The default of a
/// minute would find a half-open connection only after three.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// Connects once to one server. `tune` adds what this use of the connection needs.
pub(crate) async fn connect(
    config: &Config,
    server: &Server,
    tune: impl FnOnce(ConnectOptions) -> ConnectOptions,
) -> Result<Client, ConnectError> {
    entropy::reseed_thread();
    let is_over = Arc::new(AtomicBool::new(false));
    let client = tune(options(config, server, Arc::clone(&is_over))).connect(server.address()).await?;
    // From here on the client has had its connection.
    is_over.store(true, Ordering::Relaxed);
    Ok(client)
}

fn options(config: &Config, server: &Server, is_over: Arc<AtomicBool>) -> ConnectOptions {
    let (auth, server_auth) = (config.auth.clone(), server.clone());
    let credentials = move |nonce: Vec<u8>| {
        let again = is_over.load(Ordering::Relaxed);
        // Files are read anew for each connection, so a password that is put right heals without a restart.
        let result = if again {
            Err(AuthError::new("this connection is over"))
        } else {
            sign_in(&auth, &server_auth, &nonce)
        };
        async move { result }
    };
    let mut options = ConnectOptions::with_auth_callback(credentials)
        .name("jetring")
        .connection_timeout(CONNECT_TIMEOUT)
        .ping_interval(PING_INTERVAL)
        .max_reconnects(1)
        .reconnect_delay_callback(|_| Duration::ZERO)
        .ignore_discovered_servers();
    if server.tls {
        options = options.require_tls(true);
    }
    if config.tls.first {
        options = options.tls_first();
    }
    if let Some(ca) = &config.tls.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    options
}

/// What we tell the server of ourselves. A user without a password in the URL is a token, as everywhere in NATS.
fn sign_in(auth: &Auth, server: &Server, nonce: &[u8]) -> Result<async_nats::Auth, AuthError> {
    let mut told = async_nats::Auth::new();
    match auth {
        Auth::None => match (&server.user, &server.password) {
            (Some(user), Some(password)) => {
                told.username = Some(user.clone());
                told.password = Some(password.reveal().to_owned());
            }
            (Some(token), None) => told.token = Some(token.clone()),
            (None, _) => {}
        },
        Auth::User { user, password } => {
            told.username = Some(user.clone());
            told.password = Some(reveal(password)?);
        }
        Auth::Token(token) => told.token = Some(reveal(token)?),
        Auth::Nkey(seed) => {
            let key = key_pair(read(seed)?.trim())?;
            told.nkey = Some(key.public_key());
            told.signature = Some(sign(&key, nonce)?);
        }
        Auth::Jwt { jwt, seed } => {
            told.jwt = Some(read(jwt)?.trim().to_owned());
            told.signature = Some(sign(&key_pair(read(seed)?.trim())?, nonce)?);
        }
        Auth::Creds(path) => {
            let text = read(path)?;
            let section = |name| {
                section(&text, name)
                    .ok_or_else(|| AuthError::new(format!("{}: no section {name:?}", path.display())))
            };
            told.jwt = Some(section("NATS USER JWT")?.to_owned());
            told.signature = Some(sign(&key_pair(section("USER NKEY SEED")?)?, nonce)?);
        }
    }
    Ok(told)
}

fn reveal(secret: &SecretSource) -> Result<String, AuthError> {
    match secret {
        SecretSource::Value(secret) => Ok(secret.reveal().to_owned()),
        SecretSource::File(path) => Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned()),
    }
}

fn read(path: &Path) -> Result<String, AuthError> {
    std::fs::read_to_string(path).map_err(|error| AuthError::new(format!("{}: {error}", path.display())))
}

fn key_pair(seed: &str) -> Result<KeyPair, AuthError> {
    KeyPair::from_seed(seed).map_err(|error| AuthError::new(format!("not an NKey seed: {error}")))
}

fn sign(key: &KeyPair, nonce: &[u8]) -> Result<Vec<u8>, AuthError> {
    key.sign(nonce).map_err(|error| AuthError::new(format!("the NKey cannot sign: {error}")))
}

/// The text between `-----BEGIN name-----` and the next line of dashes, as `nsc` writes credentials files.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begin = format!("BEGIN {name}");
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| line.starts_with('-') && line.contains(&begin))?;
    lines.find(|line| !line.is_empty()).filter(|line| !line.starts_with('-'))
}

#[cfg(all(test, not(jetring_loom)))]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Endpoint;
    use std::io::Write;

    const CREDS: &str = "-----BEGIN NATS USER JWT-----\neyJ0eXAi.e30.c2ln\n------END NATS USER JWT------\n\n\
        ************************* IMPORTANT *************************\n\n\
        -----BEGIN USER NKEY SEED-----\nSEED\n------END USER NKEY SEED------\n";

    fn server(url: &str) -> Server {
        let Endpoint::Nats(servers) = url.parse().unwrap() else { panic!("{url}") };
        servers.iter().next().unwrap().clone()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_credentials_file_is_taken_apart_and_its_key_signs() {
        let key = KeyPair::new_user();
        let creds = file(&CREDS.replace("SEED\n--", &format!("{}\n--", key.seed().unwrap())));
        let told = sign_in(&Auth::Creds(creds.path().into()), &server("localhost"), b"nonce").unwrap();
        assert_eq!(told.jwt.as_deref(), Some("eyJ0eXAi.e30.c2ln"));
        key.verify(b"nonce", &told.signature.unwrap()).unwrap();
    }

    #[test]
    fn a_password_file_is_read_each_time_without_its_line_end() {
        let password = file("first\n");
        let auth = Auth::User { user: "u".to_owned(), password: SecretSource::File(password.path().into()) };
        let told = || sign_in(&auth, &server("localhost"), b"").unwrap().password;
        assert_eq!(told().as_deref(), Some("first"));
        std::fs::write(password.path(), "second").unwrap();
        assert_eq!(told().as_deref(), Some("second"));
    }

    #[test]
    fn the_url_may_carry_a_user_and_password_or_a_token() {
        let told = sign_in(&Auth::None, &server("nats://u:p@localhost"), b"").unwrap();
        assert_eq!(
            (told.username.as_deref(), told.password.as_deref(), told.token),
            (Some("u"), Some("p"), None)
        );
        let told = sign_in(&Auth::None, &server("nats://secret@localhost"), b"").unwrap();
        assert_eq!((told.username, told.token.as_deref()), (None, Some("secret")));
    }

    #[test]
    fn a_credentials_file_that_is_none_is_named_in_the_error() {
        let creds = file("nothing of the kind");
        let error = sign_in(&Auth::Creds(creds.path().into()), &server("localhost"), b"").err().unwrap();
        assert!(error.to_string().contains("NATS USER JWT"), "{error}");
    }
}
