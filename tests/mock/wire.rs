//! A client that says what a test tells it to, and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::target::Target;

/// How long a server may take for a word. Both need far less.
const PATIENCE: Duration = Duration::from_secs(15);

/// The usual words of a client about itself.
const OPTIONS: &str = r#"{"verbose":false,"headers":true,"no_responders":true}"#;

/// The inbox of requests.
const INBOX: &str = "_INBOX.wire";

pub(crate) struct Wire {
    reader: BufReader<TcpStream>,
    pub(crate) info: Value,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Message(Message),
    Ok,
    Error(String),
    Pong,
    /// It has closed the connection.
    End,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    pub(crate) sid: String,
    pub(crate) reply: Option<String>,
    /// From `NATS/1.0` to the empty line.
    pub(crate) headers: String,
    pub(crate) payload: String,
}

impl Message {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.payload).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What stands behind `NATS/1.0` in the first line.
    pub(crate) fn status(&self) -> &str {
        let line = self.headers.lines().next().unwrap_or_default();
        line.strip_prefix("NATS/1.0").unwrap_or_default().trim()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }
}

impl Wire {
    /// A client that listens at its inbox.
    pub(crate) fn connect(target: &Target) -> Self {
        let mut wire = Self::with(target, Some(OPTIONS));
        wire.say(&format!("SUB {INBOX} 0\r\n"));
        wire
    }

    /// A client that says this of itself, or nothing.
    pub(crate) fn with(target: &Target, options: Option<&str>) -> Self {
        let url = target.url();
        let address = url.strip_prefix("nats://").expect("it is one of ours");
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket can have a limit");
        socket.set_nodelay(true).expect("a socket can do without delay");
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line).expect("the server greets");
        let info = line.strip_prefix("INFO ").expect("the greeting is INFO");
        let info = serde_json::from_str(info).expect("INFO is JSON");
        let mut wire = Self { reader, info };
        if let Some(options) = options {
            wire.say(&format!("CONNECT {options}\r\n"));
        }
        wire
    }

    pub(crate) fn say(&mut self, text: &str) {
        self.reader.get_mut().write_all(text.as_bytes()).expect("the server takes what we say");
    }

    pub(crate) fn publish(&mut self, subject: &str, reply: &str, headers: &[(&str, &str)], payload: &str) {
        let bytes = payload.len();
        if headers.is_empty() {
            return self.say(&format!("PUB {subject} {reply} {bytes}\r\n{payload}\r\n"));
        }
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let block = format!("NATS/1.0\r\n{lines}\r\n");
        let (of_headers, all) = (block.len(), block.len() + bytes);
        self.say(&format!("HPUB {subject} {reply} {of_headers} {all}\r\n{block}{payload}\r\n"));
    }

    /// The next word of the server; its own pings are answered and not told.
    pub(crate) fn hear(&mut self) -> Heard {
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) => return Heard::End,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Heard::End,
                Err(error) => panic!("nothing to hear: {error}"),
            }
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            match *words {
                ["PING"] => self.say("PONG\r\n"),
                ["INFO", ..] => {}
                ["PONG"] => return Heard::Pong,
                ["+OK"] => return Heard::Ok,
                ["-ERR", ..] => {
                    return Heard::Error(line["-ERR".len()..].trim().trim_matches('\'').to_owned());
                }
                ["MSG", subject, sid, ref rest @ ..] => return self.hear_message(subject, sid, rest, false),
                ["HMSG", subject, sid, ref rest @ ..] => return self.hear_message(subject, sid, rest, true),
                _ => panic!("{line:?} is not of the protocol"),
            }
        }
    }

    fn hear_message(&mut self, subject: &str, sid: &str, rest: &[&str], has_headers: bool) -> Heard {
        let (reply, numbers) = rest.split_at(rest.len() - if has_headers { 2 } else { 1 });
        let number = |at: usize| numbers[at].parse::<usize>().expect("it is a number of bytes");
        let (of_headers, all) = if has_headers { (number(0), number(1)) } else { (0, number(0)) };
        let mut bytes = vec![0; all + 2];
        self.reader.read_exact(&mut bytes).expect("the payload follows");
        let text = String::from_utf8(bytes).expect("our payloads are texts");
        Heard::Message(Message {
            subject: subject.to_owned(),
            sid: sid.to_owned(),
            reply: reply.first().map(|reply| (*reply).to_owned()),
            headers: text[..of_headers].to_owned(),
            payload: text[of_headers..all].to_owned(),
        })
    }

    #[track_caller]
    pub(crate) fn hear_one(&mut self) -> Message {
        match self.hear() {
            Heard::Message(message) => message,
            other => panic!("{other:?} in the place of a message"),
        }
    }

    /// Everything up to the answer to a ping of ours. (What JetStream answers may come later.)
    pub(crate) fn hear_all(&mut self) -> Vec<Heard> {
        self.say("PING\r\n");
        std::iter::from_fn(|| Some(self.hear()).filter(|heard| *heard != Heard::Pong)).collect()
    }

    /// Everything up to the end of the connection.
    pub(crate) fn hear_to_the_end(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| Some(self.hear()).filter(|heard| *heard != Heard::End)).collect()
    }

    /// Asks, and waits for the answer at the inbox.
    #[track_caller]
    pub(crate) fn request(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Message {
        self.publish(subject, INBOX, headers, payload);
        self.hear_one()
    }

    /// Asks the API of JetStream.
    #[track_caller]
    #[allow(clippy::needless_pass_by_value, reason = "it is written as a literal")]
    pub(crate) fn api(&mut self, request: &str, payload: Value) -> Value {
        let payload = if payload.is_null() { String::new() } else { payload.to_string() };
        self.request(&format!("$JS.API.{request}"), &[], &payload).json()
    }

    /// Makes a stream with these members.
    #[track_caller]
    pub(crate) fn make_stream(&mut self, name: &str, subjects: &[&str], mut members: Value) {
        members["name"] = name.into();
        members["subjects"] = json!(subjects);
        let made = self.api(&format!("STREAM.CREATE.{name}"), members);
        assert!(made["error"].is_null(), "{made}");
    }

    /// Publishes and returns the acknowledgement.
    #[track_caller]
    pub(crate) fn store(&mut self, subject: &str, headers: &[(&str, &str)], payload: &str) -> Value {
        self.request(subject, headers, payload).json()
    }
}

/// Code, error code and words of a refusal.
#[track_caller]
pub(crate) fn refused(answer: &Value) -> (u64, u64, &str) {
    let error = &answer["error"];
    let number = |member: &str| error[member].as_u64().unwrap_or_else(|| panic!("no refusal: {answer}"));
    (number("code"), number("err_code"), error["description"].as_str().unwrap_or_default())
}
