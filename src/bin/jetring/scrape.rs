//! Reads a metrics endpoint, of this tool or of any service: fetches the text and takes it apart.
//!
//! The text format of Prometheus is lines, `name{label="value",…} number`, and comments. Everything that a service exports is read,
//! since a bus's metrics may stand anywhere in it; what to make of them is the caller's matter.

use crate::{Failure, Result};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use tokio::net::TcpStream;

/// For all of it; the default limit of a scrape.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The most that is read: a service with 100,000 samples has less.
const BODY_MAX: usize = 16 << 20;

/// The endpoint of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Host and port, with a colon.
    authority: String,
    path: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_port = text.parse::<u16>().is_ok();
        let text = if is_port { format!("127.0.0.1:{text}") } else { text.to_owned() };
        let text = if text.contains("://") { text } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|error| format!("no URL: {error}"))?;
        if uri.scheme_str() != Some("http") {
            return Err("only http:// is read; for https:// ask a proxy, or curl".to_owned());
        }
        let authority = uri.authority().ok_or("a host is missing")?;
        let authority = match authority.port_u16() {
            Some(_) => authority.to_string(),
            None => format!("{authority}:80"),
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if path == "/" { "/metrics" } else { path };
        Ok(Self { authority, path: path.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.path)
    }
}

/// What an endpoint says at one moment.
#[derive(Debug)]
pub(crate) struct Scrape(Vec<Sample>);

#[derive(Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: Vec<(String, String)>,
    pub(crate) value: f64,
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| label == name).map(|(_, value)| value.as_str())
    }
}

impl Scrape {
    /// Asks an endpoint.
    pub(crate) async fn of(target: &Target) -> Result<Self> {
        let text = tokio::time::timeout(TIMEOUT, fetch(target))
            .await
            .unwrap_or_else(|_| Err(format!("no answer in {TIMEOUT:?}")));
        text.and_then(|text| Self::parse(&text))
            .map_err(|problem| Failure::Run(format!("{target}: {problem}")))
    }

    /// All samples of this name.
    pub(crate) fn samples<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let samples = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        samples
            .map(|(number, line)| {
                parse_sample(line).ok_or_else(|| format!("line {number} is no sample: {line}"))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

async fn fetch(target: &Target) -> Result<String, String> {
    let stream = TcpStream::connect(&target.authority).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the exchange, and what goes wrong in it the exchange tells.
    tokio::spawn(connection);
    let request = Request::get(&target.path)
        .header(HOST, &target.authority)
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    if !status.is_success() {
        return Err(format!("the answer is {status}"));
    }
    let body = Limited::new(response.into_body(), BODY_MAX).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    String::from_utf8(body.into()).map_err(|_| "the answer is not UTF-8".to_owned())
}

/// `name value`, `name{labels} value`, and either with a time behind it.
fn parse_sample(line: &str) -> Option<Sample> {
    let end = line.find(|character: char| character == '{' || character.is_whitespace())?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = parse_quoted(quoted)?;
        labels.push((name.trim().to_owned(), value));
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it. Escaped are the backslash, the quote and the end of a line.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut characters) = (String::new(), text.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(match characters.next()? {
                'n' => '\n',
                character => character,
            }),
            character => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use prometheus::{IntCounterVec, Opts, Registry, TextEncoder};

    #[test]
    fn what_prometheus_writes_is_read_back() {
        let labels = ["plain", "", "with \"quotes\", {braces} and \\", "two\nlines"];
        let counter = IntCounterVec::new(Opts::new("a_total", "Help with a\nline."), &["x", "y"]).unwrap();
        (1..).zip(labels).for_each(|(count, x)| counter.with_label_values(&[x, "b"]).inc_by(count));
        let registry = Registry::new();
        registry.register(Box::new(counter)).unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let scrape = Scrape::parse(&text).unwrap();
        for (count, x) in (1..).zip(labels) {
            let sample = scrape.samples("a_total").find(|sample| sample.label("x") == Some(x));
            assert_eq!(sample.map(|sample| sample.value), Some(f64::from(count)), "{x}");
            assert_eq!(sample.and_then(|sample| sample.label("y")), Some("b"));
        }
        assert_eq!(scrape.samples("a_total").count(), labels.len());
    }

    #[test]
    fn numbers_of_all_kinds_and_times_are_read() {
        let text = "a 1.5e3 1700000000000\n\n# c 1\nb{ le=\"+Inf\", } +Inf\nc{} NaN\r\n";
        let scrape = Scrape::parse(text).unwrap();
        let value = |name| scrape.samples(name).next().unwrap().value;
        assert_eq!((value("a"), value("b")), (1500.0, f64::INFINITY));
        assert!(value("c").is_nan());
        assert_eq!(scrape.samples("b").next().unwrap().label("le"), Some("+Inf"));
        for (line, text) in [(1, "a"), (2, "a 1\nb x"), (1, "a{b=\"c} 1"), (1, "a{b} 1"), (1, "{} 1")] {
            let error = Scrape::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line} ")), "{text}: {error}");
        }
    }

    #[test]
    fn a_target_is_a_port_an_address_or_a_url() {
        let target = |text: &str| text.parse::<Target>().map(|target| target.to_string());
        for (text, meant) in [
            ("9464", "http://127.0.0.1:9464/metrics"),
            ("localhost:9464", "http://localhost:9464/metrics"),
            ("http://bus.example", "http://bus.example:80/metrics"),
            ("http://[::1]:9464/", "http://[::1]:9464/metrics"),
            ("http://bus.example:81/internal/m?a=b", "http://bus.example:81/internal/m?a=b"),
        ] {
            assert_eq!(target(text).as_deref(), Ok(meant));
        }
        for text in ["", "https://bus.example", "nats://bus.example", "http://", "a b"] {
            assert!(target(text).is_err(), "{text}");
        }
    }
}
