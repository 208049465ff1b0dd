//! Every way of signing in and of TLS, against a server that demands it; and that no secret is ever shown.
//!
//! Each case is a server's configuration, the right credentials, and wrong ones. The right ones must deliver and read back. The wrong
//! ones must be refused, wait, and heal when they are put right. Meanwhile a subscriber of the log keeps every line of every level, ours
//! and our dependencies', and at the end none of them may hold a secret.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jetring::reader::{From, Reader};
use jetring::{Auth, Bus, Config, Secret, SecretSource};
use nkeys::KeyPair;
use prometheus::{Registry, TextEncoder};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tracing_subscriber::filter::LevelFilter;

#[path = "it/server.rs"]
mod server;

use server::{NatsServer, wait_until};

/// Part of every secret of these tests, and of nothing else.
const CANARY: &str = "kanarienvogel";

const EVENTS: u64 = 100;
const CLOSE: Duration = Duration::from_secs(10);

// ---- signing in ---------------------------------------------------------------------------------------------------------------

#[test]
fn a_user_with_a_password() {
    let secret = format!("{CANARY}-password");
    let server =
        NatsServer::builder().config(format!("authorization {{ user: u, password: {secret} }}")).start();
    let user = |password: SecretSource| Auth::User { user: "u".to_owned(), password };
    let right = user(SecretSource::Value(Secret::new(&secret)));
    let wrong = user(SecretSource::Value(Secret::new(format!("{CANARY}-mistaken"))));
    assert_lets_in_only(&server, right, wrong, |_| {});
    let files = Files::new();
    assert_delivers(&with_auth(&server.url(), user(SecretSource::File(files.write("password", &secret)))));
    // In the URL.
    let url = server.url().replace("nats://", &format!("nats://u:{secret}@"));
    assert_delivers(&with_auth(&url, Auth::None));
    assert_says_no_secret();
}

#[test]
fn a_token() {
    let secret = format!("{CANARY}-token");
    let server = NatsServer::builder().config(format!("authorization {{ token: {secret} }}")).start();
    let token = |text: &str| Auth::Token(SecretSource::Value(Secret::new(text)));
    assert_lets_in_only(&server, token(&secret), token(&format!("{CANARY}-mistaken")), |_| {});
    let files = Files::new();
    let file = files.write("token", &format!("{secret}\n"));
    assert_delivers(&with_auth(&server.url(), Auth::Token(SecretSource::File(file))));
    let url = server.url().replace("nats://", &format!("nats://{secret}@"));
    assert_delivers(&with_auth(&url, Auth::None));
    assert_says_no_secret();
}

#[test]
fn an_nkey() {
    let (files, key, other) = (Files::new(), KeyPair::new_user(), KeyPair::new_user());
    let config = format!("authorization {{ users: [ {{ nkey: {} }} ] }}", key.public_key());
    let server = NatsServer::builder().config(config).start();
    let nkey = |name: &str, key: &KeyPair| Auth::Nkey(files.write_seed(name, key));
    assert_lets_in_only(&server, nkey("right", &key), nkey("wrong", &other), |_| {});
    assert_says_no_secret_but([&key, &other]);
}

#[test]
fn a_jwt_with_its_seed_and_a_credentials_file() {
    let (files, operator) = (Files::new(), Operator::new());
    let server = NatsServer::builder().config(operator.config()).start();
    let (right, wrong) = (operator.user(), operator.user());
    let jwt = files.write("jwt", &right.jwt);
    let auth = |name: &str, key: &KeyPair| Auth::Jwt { jwt: jwt.clone(), seed: files.write_seed(name, key) };
    assert_lets_in_only(&server, auth("right", &right.key), auth("wrong", &wrong.key), |_| {});
    let creds = |user: &User| {
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.jwt,
            user.key.seed().unwrap()
        )
    };
    let right_creds = Auth::Creds(files.write("right.creds", &creds(&right)));
    let stranger = Operator::new().user();
    let wrong_creds = Auth::Creds(files.write("wrong.creds", &creds(&stranger)));
    assert_lets_in_only(&server, right_creds, wrong_creds, |_| {});
    assert_says_no_secret_but([&right.key, &wrong.key, &stranger.key]);
}

// ---- TLS -----------------------------------------------------------------------------------------------------------------------

#[test]
fn tls_by_an_authority_of_ones_own() {
    let (files, authority) = (Files::new(), Authority::new());
    let server = tls_server(&files, &authority, "");
    let url = server.url().replace("nats://", "tls://");
    let trusting = |authority: &Authority, name: &str| {
        let mut config = with_auth(&url, Auth::None);
        config.tls.ca = Some(files.write(name, &authority.pem));
        config
    };
    assert_delivers(&trusting(&authority, "ca.pem"));
    assert_is_kept_out(&trusting(&Authority::new(), "other.pem"));
    // A server that demands TLS gets it from nats://, too.
    let mut plain = trusting(&authority, "ca.pem");
    plain.url = server.url().parse().unwrap();
    assert_delivers(&plain);
}

#[test]
fn tls_is_demanded_of_a_server_that_has_none() {
    let server = NatsServer::start();
    assert_is_kept_out(&with_auth(&server.url().replace("nats://", "tls://"), Auth::None));
}

#[test]
fn tls_before_the_first_line() {
    let (files, authority) = (Files::new(), Authority::new());
    let server = tls_server(&files, &authority, "handshake_first: true");
    let mut config = with_auth(&server.url().replace("nats://", "tls://"), Auth::None);
    config.tls.ca = Some(files.write("ca.pem", &authority.pem));
    config.tls.first = true;
    assert_delivers(&config);
}

#[test]
fn a_certificate_of_the_client() {
    let (files, authority) = (Files::new(), Authority::new());
    let server = tls_server(&files, &authority, "verify: true");
    let mut config = with_auth(&server.url().replace("nats://", "tls://"), Auth::None);
    config.tls.ca = Some(files.write("ca.pem", &authority.pem));
    assert_is_kept_out(&config);
    let with_certificate = |of: &Authority, name: &str| {
        let (certificate, key) = of.certificate("client");
        let mut config = config.clone();
        config.tls.cert = Some(files.write(&format!("{name}.pem"), &certificate));
        config.tls.key = Some(files.write(&format!("{name}.key"), &key));
        config
    };
    assert_is_kept_out(&with_certificate(&Authority::new(), "stranger"));
    assert_delivers(&with_certificate(&authority, "client"));
}

// ---- credentials in the clear ----------------------------------------------------------------------------------------------

#[test]
fn a_password_or_token_does_not_leave_the_machine_in_the_clear_unless_that_is_allowed_by_name() {
    let refused =
        |url: &str, auth: Auth| Bus::start(with_auth(url, auth)).err().map(|error| error.to_string());
    let password = || SecretSource::Value(Secret::new(format!("{CANARY}-clear")));
    let user = || Auth::User { user: "u".to_owned(), password: password() };
    for url in [
        "nats://nats.example:4222",
        "nats://127.0.0.1:4222,nats://192.0.2.7:4222",
        "nats://[2001:db8::1]:4222",
    ] {
        for auth in [user(), Auth::Token(password())] {
            let text = refused(url, auth).unwrap_or_else(|| panic!("{url} is taken"));
            assert!(text.contains("tls://") && text.contains("tls.plaintext-credentials"), "{text}");
            assert!(!text.contains(CANARY), "{text}");
        }
    }
    let in_the_url = refused(&format!("nats://u:{CANARY}@nats.example"), Auth::None).unwrap();
    assert!(in_the_url.contains("tls://") && !in_the_url.contains(CANARY), "{in_the_url}");
    // A signature gives nothing away, TLS hides it, and this machine is no network.
    assert_eq!(refused("nats://nats.example", Auth::Nkey("seed".into())), None);
    for url in ["tls://nats.example", "nats://localhost:1", "nats://127.8.9.1:1", "nats://[::1]:1"] {
        assert_eq!(refused(url, user()), None, "{url}");
    }
    let mut allowed = with_auth("nats://nats.example", user());
    allowed.tls.plaintext_credentials = true;
    let report = Bus::start(allowed).unwrap().close(Duration::ZERO);
    assert_eq!(report.stats.check(), Ok(()));
}

// ---- what is proved -----------------------------------------------------------------------------------------------------------

fn with_auth(url: &str, auth: Auth) -> Config {
    listen();
    let mut config = Config::new(url, "main", 1).unwrap();
    config.auth = auth;
    config
}

/// The stream is made, events are delivered and read back, each with these credentials.
#[track_caller]
fn assert_delivers(config: &Config) {
    block_on(jetring::nats::admin::create_stream(config)).unwrap();
    let bus = Bus::start(config.clone()).unwrap();
    publish(&bus);
    let report = bus.close(CLOSE);
    assert_eq!((report.stats.acked, report.stats.offered), (EVENTS, EVENTS), "{report:?}");
    note(&format!("{report:?}{config:?}"));
    let process = bus.process().to_owned();
    let read = block_on(async {
        let mut reader = Reader::open(config, "event.1.secured", From::All, false).await.unwrap();
        let mut read = 0;
        while let Some(message) = reader.next().await.unwrap() {
            read += u64::from(String::from_utf8_lossy(&message.payload).contains(&process));
        }
        read
    });
    assert_eq!(read, EVENTS);
}

/// Nothing is delivered with it, and all is accounted for.
#[track_caller]
fn assert_is_kept_out(config: &Config) {
    let before = times_turned_away();
    let bus = Bus::start(config.clone()).unwrap();
    publish(&bus);
    wait_until("it was turned away", || times_turned_away() > before);
    assert!(!bus.is_connected());
    let report = bus.close(Duration::from_millis(500));
    assert_eq!((report.stats.acked, report.stats.check()), (0, Ok(())), "{report:?}");
    let error = block_on(jetring::nats::admin::create_stream(config)).unwrap_err();
    note(&format!("{report:?}{config:?}{error}{error:?}{}", metrics(&bus)));
}

#[track_caller]
fn assert_lets_in_only(server: &NatsServer, right: Auth, wrong: Auth, change: impl Fn(&mut Config)) {
    for (auth, is_right) in [(wrong, false), (right, true)] {
        let mut config = with_auth(&server.url(), auth);
        change(&mut config);
        match is_right {
            true => assert_delivers(&config),
            false => assert_is_kept_out(&config),
        }
    }
}

fn publish(bus: &Bus) {
    for number in 0..EVENTS {
        assert!(bus.publish("secured", &number).is_accepted());
    }
}

fn metrics(bus: &Bus) -> String {
    let registry = Registry::new();
    bus.register(&registry).unwrap();
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

// ---- no secret is shown -----------------------------------------------------------------------------------------------------

/// All that was logged and shown so far.
static SHOWN: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();

fn shown() -> &'static Arc<Mutex<Vec<u8>>> {
    SHOWN.get_or_init(Arc::default)
}

struct Ear;

impl io::Write for Ear {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        shown().lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From here on every line of the log is kept, whoever writes it.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_writer(|| Ear)
            .with_ansi(false)
            .init();
    });
}

/// How many buses have said that they were not let in.
fn times_turned_away() -> usize {
    let shown = shown().lock().unwrap_or_else(PoisonError::into_inner);
    String::from_utf8_lossy(&shown).matches("not connected: ").count()
}

fn note(text: &str) {
    shown().lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text.as_bytes());
}

#[track_caller]
fn assert_says_no_secret() {
    assert_says_no_secret_but([]);
}

/// Nor the seeds of these keys.
#[track_caller]
fn assert_says_no_secret_but<const N: usize>(keys: [&KeyPair; N]) {
    let shown = String::from_utf8_lossy(&shown().lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    assert!(shown.contains("TRACE") && shown.contains("jetring"), "nothing was heard");
    for secret in keys.iter().map(|key| key.seed().unwrap()).chain([CANARY.to_owned()]) {
        let line = shown.lines().find(|line| line.contains(&secret));
        assert_eq!(line, None);
    }
}

// ---- credentials and certificates --------------------------------------------------------------------------------------------

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn write_seed(&self, name: &str, key: &KeyPair) -> PathBuf {
        self.write(&format!("{name}.nk"), &key.seed().unwrap())
    }
}

/// Who signs certificates.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for this name and for this machine, and its key.
    fn certificate(&self, name: &str) -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = [name, "localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn tls_server(files: &Files, authority: &Authority, more: &str) -> NatsServer {
    let (certificate, key) = authority.certificate("server");
    let path = |path: &Path| format!("{path:?}");
    let config = format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}\n {more} }}",
        path(&files.write("server.pem", &certificate)),
        path(&files.write("server.key", &key)),
        path(&files.write("ca.pem", &authority.pem)),
    );
    let mut server = NatsServer::builder().config(config).start_without_waiting(NatsServer::reserve());
    // Only one who speaks TLS can ask whether JetStream answers; the log says it to everybody.
    wait_until("the server is ready", || server.log().contains("Server is ready") || server.has_ended());
    server
}

/// Operator, accounts and users, as `nsc` would make them (ADR-14: JWTs signed by nkeys).
struct Operator {
    key: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

struct User {
    key: KeyPair,
    jwt: String,
}

impl Operator {
    fn new() -> Self {
        Self { key: KeyPair::new_operator(), system: KeyPair::new_account(), account: KeyPair::new_account() }
    }

    fn config(&self) -> String {
        let operator = jwt(&self.key, &self.key.public_key(), "operator", json!({}));
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut with_jetstream = unlimited.clone();
        for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
            with_jetstream[limit] = json!(-1);
        }
        let account = |key: &KeyPair, limits: &Value| {
            let token = jwt(&self.key, &key.public_key(), "account", json!({ "limits": limits }));
            format!("  {}: {token}\n", key.public_key())
        };
        let mut config = format!("operator: {operator}\nsystem_account: {}\n", self.system.public_key());
        write!(config, "resolver: MEMORY\nresolver_preload: {{\n").unwrap();
        config += &account(&self.system, &unlimited);
        config += &account(&self.account, &with_jetstream);
        config + "}\n"
    }

    fn user(&self) -> User {
        let key = KeyPair::new_user();
        let claims = json!({ "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 });
        User { jwt: jwt(&self.account, &key.public_key(), "user", claims), key }
    }
}

fn jwt(issuer: &KeyPair, subject: &str, kind: &str, mut claims: Value) -> String {
    claims["type"] = json!(kind);
    claims["version"] = json!(2);
    let body = json!({
        "jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject, "name": kind, "nats": claims,
    });
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), encode(&body));
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{signature}")
}
