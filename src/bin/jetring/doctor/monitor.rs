//! How often a server has the disk confirm what it wrote. Only its monitoring endpoint tells (`/varz`); to a client it is invisible.

use serde::Deserialize;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long the endpoint may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// More than a `/varz` of a server with a thousand routes has.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// When what was written is on the disk for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before it is acknowledged.
    Always,
    /// At the latest so long after it.
    Every(Duration),
}

/// Asks the monitoring endpoint at `url`.
pub(super) async fn ask(url: &str) -> Result<Sync, String> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let answer = tokio::time::timeout(TIMEOUT, get(authority)).await;
    let answer = answer.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?;
    parse(&answer.map_err(|error| error.to_string())?)
}

/// One question in HTTP 1.0, at whose answer's end the server hangs up.
async fn get(authority: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect(authority).await?;
    let question = format!("GET /varz HTTP/1.0\r\nHost: {authority}\r\n\r\n");
    connection.write_all(question.as_bytes()).await?;
    let mut answer = String::new();
    connection.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[derive(Deserialize)]
struct Varz {
    jetstream: JetStream,
}

#[derive(Deserialize)]
struct JetStream {
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    sync_always: bool,
    /// In nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

fn parse(answer: &str) -> Result<Sync, String> {
    let status = answer.lines().next().unwrap_or_default();
    let Some((_, body)) = answer.split_once("\r\n\r\n").filter(|_| status.contains(" 200 ")) else {
        return Err(format!("it answers {status:?}"));
    };
    let varz: Varz =
        serde_json::from_str(body).map_err(|error| format!("its /varz cannot be read: {error}"))?;
    match varz.jetstream.config {
        Some(Config { sync_always: true, .. }) => Ok(Sync::Always),
        Some(Config { sync_interval, .. }) if sync_interval > 0 => {
            Ok(Sync::Every(Duration::from_nanos(sync_interval)))
        }
        Some(_) | None => Err("its /varz does not tell sync_interval".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varz_tells_the_interval_or_why_not() {
        let answer = |body: &str| parse(&format!("HTTP/1.0 200 OK\r\nA: b\r\n\r\n{body}"));
        assert_eq!(
            answer(r#"{"jetstream":{"config":{"sync_interval":120000000000}}}"#),
            Ok(Sync::Every(Duration::from_secs(120)))
        );
        assert_eq!(
            answer(r#"{"jetstream":{"config":{"sync_interval":120000000000,"sync_always":true}}}"#),
            Ok(Sync::Always)
        );
        for body in [r#"{"jetstream":{}}"#, r#"{"jetstream":{"config":{}}}"#, "{}", "no"] {
            assert!(answer(body).is_err(), "{body}");
        }
        assert_eq!(
            parse("HTTP/1.0 404 Not Found\r\n\r\n{}"),
            Err("it answers \"HTTP/1.0 404 Not Found\"".to_owned())
        );
    }
}
