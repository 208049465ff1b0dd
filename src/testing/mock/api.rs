//! The requests to `$JS.API.>`: streams, their messages, and consumers.
//!
//! A request that this server does not know gets no answer, as from a real one; so does one without a reply subject.

use super::consumer::{self, Consumer, ConsumerConfig, Pull};
use super::errors::ApiError;
use super::jetstream::JetStream;
use super::message::{Delivery, Message, extended};
use super::stream::{Stored, Stream};
use crate::entropy;
use crate::subject::covers;
use base64::prelude::{BASE64_STANDARD, Engine};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Instant;

const PREFIX: &str = "$JS.API.";

/// Names in a list at once; the rest is asked for with an offset.
const PAGE: usize = 256;

/// Consumers of a stream at once.
const CONSUMERS_MAX: usize = 256;

/// The bytes of a request; those of clients have a few hundred.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is none to the API.
    Other,
    /// Nobody listens there.
    NobodyListens,
    Answered(Vec<Delivery>),
}

/// Takes a message that may be a request.
pub(super) fn take(jetstream: &mut JetStream, now: Instant, message: &Message) -> Outcome {
    let Some(request) = message.subject.strip_prefix(PREFIX) else {
        // What was delivered needs no acknowledgement, and one does no harm.
        let is_needless = message.subject.starts_with("$JS.ACK.");
        return if is_needless { Outcome::Answered(Vec::new()) } else { Outcome::Other };
    };
    if let Some(request) = request.strip_prefix("DIRECT.GET.") {
        return direct_get(jetstream, message, request);
    }
    if let Some(request) = request.strip_prefix("CONSUMER.MSG.NEXT.") {
        return next_messages(jetstream, now, message, request);
    }
    let Some((kind, answer)) = answer(jetstream, now, request, &message.payload) else {
        return Outcome::Answered(Vec::new());
    };
    let mut body = json!({ "type": format!("io.nats.jetstream.api.v1.{kind}_response") });
    let members = answer.unwrap_or_else(|error| json!({ "error": error }));
    if let (Value::Object(body), Value::Object(members)) = (&mut body, members) {
        body.extend(members);
    }
    let reply = message.reply.as_deref();
    Outcome::Answered(reply.map(|reply| Delivery::answer(reply, body.to_string())).into_iter().collect())
}

type Answer = Result<Value, ApiError>;

/// The kind of the answer, and its members.
fn answer(
    jetstream: &mut JetStream,
    now: Instant,
    request: &str,
    payload: &[u8],
) -> Option<(&'static str, Answer)> {
    let tokens: Vec<&str> = request.split('.').collect();
    Some(match *tokens {
        ["INFO"] => ("account_info", Ok(account_info(jetstream))),
        ["STREAM", "CREATE", name] => ("stream_create", create_stream(jetstream, name, payload)),
        ["STREAM", "UPDATE", name] => ("stream_update", update_stream(jetstream, name, payload)),
        ["STREAM", "INFO", name] => ("stream_info", stream_info(jetstream, now, name, payload)),
        ["STREAM", "DELETE", name] => ("stream_delete", delete_stream(jetstream, name)),
        ["STREAM", "PURGE", name] => ("stream_purge", purge(jetstream, name, payload)),
        ["STREAM", "NAMES"] => (
            "stream_names",
            list_streams(jetstream, payload, |stream| Value::from(stream.config.name.as_str())),
        ),
        ["STREAM", "LIST"] => ("stream_list", list_streams(jetstream, payload, |stream| stream.info(None))),
        ["STREAM", "MSG", "GET", name] => ("stream_msg_get", get_message(jetstream, name, payload)),
        ["STREAM", "MSG", "DELETE", name] => ("stream_msg_delete", delete_message(jetstream, name, payload)),
        ["CONSUMER", "CREATE", stream, ref rest @ ..] => {
            ("consumer_create", create_consumer(jetstream, now, stream, rest, payload))
        }
        ["CONSUMER", "DURABLE", "CREATE", stream, name] => {
            ("consumer_create", create_consumer(jetstream, now, stream, &[name], payload))
        }
        ["CONSUMER", "INFO", stream, name] => ("consumer_info", consumer_info(jetstream, stream, name)),
        ["CONSUMER", "DELETE", stream, name] => ("consumer_delete", delete_consumer(jetstream, stream, name)),
        ["CONSUMER", "NAMES", stream] => {
            ("consumer_names", list_consumers(jetstream, stream, payload, |one| one.0.as_str().into()))
        }
        ["CONSUMER", "LIST", stream] => {
            ("consumer_list", list_consumers(jetstream, stream, payload, |one| one.1.info(stream)))
        }
        _ => return None,
    })
}

/// Reads the JSON of a request; an empty one says nothing, and so does `null`.
fn read<T: Default + for<'de> Deserialize<'de>>(payload: &[u8]) -> Result<T, ApiError> {
    if payload.is_empty() {
        return Ok(T::default());
    }
    if payload.len() > REQUEST_BYTES_MAX {
        return Err(ApiError::BAD_REQUEST);
    }
    let read: Option<T> = serde_json::from_slice(payload).map_err(|error| ApiError::invalid_json(&error))?;
    Ok(read.unwrap_or_default())
}

fn account_info(jetstream: &JetStream) -> Value {
    let storage: usize = jetstream.streams.values().map(Stream::bytes).sum();
    let consumers: usize = jetstream.streams.values().map(|stream| stream.consumers.len()).sum();
    json!({
        "memory": 0,
        "storage": storage,
        "reserved_memory": 0,
        "reserved_storage": 0,
        "streams": jetstream.streams.len(),
        "consumers": consumers,
        "limits": {
            "max_memory": -1, "max_storage": -1, "max_streams": -1, "max_consumers": -1, "max_ack_pending": -1,
            "memory_max_stream_bytes": -1, "storage_max_stream_bytes": -1, "max_bytes_required": false,
        },
        "api": { "level": super::API_LEVEL, "total": 0, "errors": 0 },
    })
}

/// The configuration in a request, which must be of the stream that the subject names.
fn named_config(name: &str, payload: &[u8]) -> Answer {
    let config: Value = read(payload)?;
    if config["name"] == name { Ok(config) } else { Err(ApiError::NAME_MISMATCH) }
}

fn create_stream(jetstream: &mut JetStream, name: &str, payload: &[u8]) -> Answer {
    let config = named_config(name, payload)?;
    let mut info = jetstream.create(config)?.info(None);
    info["did_create"] = true.into();
    Ok(info)
}

fn update_stream(jetstream: &mut JetStream, name: &str, payload: &[u8]) -> Answer {
    let config = named_config(name, payload)?;
    Ok(jetstream.update(config)?.info(None))
}

fn stream_info(jetstream: &mut JetStream, now: Instant, name: &str, payload: &[u8]) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        subjects_filter: String,
    }
    let stream = jetstream.stream(name)?;
    let Request { subjects_filter } = read(payload)?;
    stream.expire(now);
    let filter = Some(subjects_filter.as_str()).filter(|filter| !filter.is_empty());
    let mut info = stream.info(filter);
    let total = info["state"]["subjects"].as_object().map_or(0, serde_json::Map::len);
    info["total"] = total.into();
    info["offset"] = 0.into();
    info["limit"] = total.into();
    info["cluster"] = json!({ "leader": super::SERVER_NAME });
    Ok(info)
}

fn delete_stream(jetstream: &mut JetStream, name: &str) -> Answer {
    jetstream.streams.remove(name).ok_or(ApiError::STREAM_NOT_FOUND)?;
    Ok(json!({ "success": true }))
}

fn purge(jetstream: &mut JetStream, name: &str, payload: &[u8]) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        filter: String,
        seq: Option<u64>,
        keep: Option<usize>,
    }
    let stream = jetstream.stream(name)?;
    let Request { filter, seq, keep } = read(payload)?;
    if stream.config.deny_purge || (seq.is_some() && keep.is_some()) {
        return Err(ApiError::BAD_REQUEST);
    }
    Ok(json!({ "success": true, "purged": stream.purge(&filter, seq, keep.unwrap_or(0)) }))
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListRequest {
    subject: String,
    offset: usize,
}

fn list_streams(jetstream: &JetStream, payload: &[u8], show: impl Fn(&Stream) -> Value) -> Answer {
    let ListRequest { subject, offset } = read(payload)?;
    let covers = |stream: &&Stream| {
        let patterns = &stream.config.subjects;
        subject.is_empty()
            || patterns.iter().any(|pattern| covers(pattern, &subject) || covers(&subject, pattern))
    };
    let chosen: Vec<&Stream> = jetstream.streams.values().filter(covers).collect();
    let shown: Vec<Value> = chosen.iter().skip(offset).take(PAGE).map(|stream| show(stream)).collect();
    Ok(json!({ "total": chosen.len(), "offset": offset, "limit": PAGE, "streams": shown }))
}

// ---- messages -------------------------------------------------------------------------------------------------------------

/// Which message is asked for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct GetRequest {
    seq: u64,
    last_by_subj: String,
    next_by_subj: String,
}

impl GetRequest {
    fn is_empty(&self) -> bool {
        self.seq == 0 && self.last_by_subj.is_empty() && self.next_by_subj.is_empty()
    }

    fn find<'a>(&self, stream: &'a Stream) -> Option<(u64, &'a Stored)> {
        if !self.last_by_subj.is_empty() {
            let of_subject =
                |(_, stored): &(u64, &Stored)| covers(&self.last_by_subj, &stored.message.subject);
            return stream.from(0).filter(of_subject).last();
        }
        if !self.next_by_subj.is_empty() {
            let of_subject =
                |(_, stored): &(u64, &Stored)| covers(&self.next_by_subj, &stored.message.subject);
            return stream.from(self.seq).find(of_subject);
        }
        stream.get(self.seq).map(|stored| (self.seq, stored))
    }
}

fn get_message(jetstream: &mut JetStream, name: &str, payload: &[u8]) -> Answer {
    let stream = jetstream.stream(name)?;
    let request: GetRequest = read(payload)?;
    if request.is_empty() {
        return Err(ApiError::BAD_REQUEST);
    }
    let (sequence, stored) = request.find(stream).ok_or(ApiError::NO_MESSAGE)?;
    let mut message = json!({
        "subject": stored.message.subject,
        "seq": sequence,
        "time": stored.at.rfc3339(),
    });
    // What is empty is left out.
    for (member, bytes) in [("hdrs", &stored.message.headers), ("data", &stored.message.payload)] {
        if !bytes.is_empty() {
            message[member] = BASE64_STANDARD.encode(bytes).into();
        }
    }
    Ok(json!({ "message": message }))
}

fn delete_message(jetstream: &mut JetStream, name: &str, payload: &[u8]) -> Answer {
    let stream = jetstream.stream(name)?;
    let GetRequest { seq, .. } = read(payload)?;
    if stream.config.deny_delete {
        return Err(ApiError::BAD_REQUEST);
    }
    if stream.remove(seq) {
        return Ok(json!({ "success": true }));
    }
    let is_before_all = stream.from(0).next().is_none_or(|(first, _)| seq < first);
    Err(match () {
        () if seq > stream.last() => ApiError::NO_MESSAGE_YET,
        () if is_before_all => ApiError::NO_MESSAGE_TO_DELETE,
        () => ApiError::sequence_not_found(seq),
    })
}

/// The message itself, with what is known of it in headers; errors are statuses.
fn direct_get(jetstream: &mut JetStream, message: &Message, request: &str) -> Outcome {
    let (name, subject) = request.split_once('.').unwrap_or((request, ""));
    let Some(stream) = jetstream.streams.get(name).filter(|stream| stream.config.allow_direct) else {
        return Outcome::NobodyListens;
    };
    let Some(reply) = message.reply.as_deref() else { return Outcome::Answered(Vec::new()) };
    let answer = match read::<GetRequest>(&message.payload) {
        Ok(mut request) => {
            if !subject.is_empty() {
                subject.clone_into(&mut request.last_by_subj);
            }
            direct_answer(stream, reply, &request)
        }
        Err(_) => Delivery::status(reply, "408 Bad Request", &[]),
    };
    Outcome::Answered(vec![answer])
}

fn direct_answer(stream: &Stream, reply: &str, request: &GetRequest) -> Delivery {
    if request.is_empty() {
        return Delivery::status(reply, "408 Empty Request", &[]);
    }
    let Some((sequence, stored)) = request.find(stream) else {
        return Delivery::status(reply, "404 Message Not Found", &[]);
    };
    let headers = extended(
        &stored.message.headers,
        &[
            ("Nats-Stream", &stream.config.name),
            ("Nats-Subject", &stored.message.subject),
            ("Nats-Sequence", &sequence.to_string()),
            ("Nats-Time-Stamp", &stored.at.rfc3339()),
        ],
    );
    let payload = stored.message.payload.clone();
    Delivery::of(Message { subject: reply.to_owned(), reply: None, headers, payload })
}

// ---- consumers ------------------------------------------------------------------------------------------------------------

fn create_consumer(
    jetstream: &mut JetStream,
    now: Instant,
    stream: &str,
    rest: &[&str],
    payload: &[u8],
) -> Answer {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Request {
        stream_name: String,
        config: Value,
        action: String,
    }
    let stream = jetstream.stream(stream)?;
    let request: Request = read(payload)?;
    if request.stream_name != stream.config.name {
        return Err(ApiError::BAD_REQUEST);
    }
    let config = ConsumerConfig::read(request.config)?;
    let (name, filter) = match rest {
        [] => (&*config.name, &[][..]),
        [name, filter @ ..] => (*name, filter),
    };
    if !filter.is_empty() && filter.join(".") != config.filter_subject {
        return Err(ApiError::FILTER_MISMATCH);
    }
    let names = [name, &config.name, &config.durable_name];
    let name = names.into_iter().find(|name| !name.is_empty()).map(str::to_owned);
    let name = name.unwrap_or_else(|| format!("mock{:016x}", entropy::number()));
    if let Some(known) = stream.consumers.get(&name) {
        return match () {
            () if request.action == "create" => Err(ApiError::CONSUMER_EXISTS),
            () if known.config != config => {
                Err(ApiError::consumer_config("this mock server changes no consumers"))
            }
            () => Ok(known.info(&stream.config.name)),
        };
    }
    if stream.consumers.len() >= CONSUMERS_MAX {
        return Err(ApiError::INSUFFICIENT_RESOURCES);
    }
    let consumer = Consumer::new(name.clone(), config, stream, now);
    let info = consumer.info(&stream.config.name);
    stream.consumers.insert(name, consumer);
    Ok(info)
}

fn consumer_info(jetstream: &mut JetStream, stream: &str, name: &str) -> Answer {
    let stream = jetstream.stream(stream)?;
    let consumer = stream.consumers.get(name).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
    Ok(consumer.info(&stream.config.name))
}

fn delete_consumer(jetstream: &mut JetStream, stream: &str, name: &str) -> Answer {
    jetstream.stream(stream)?.consumers.remove(name).ok_or(ApiError::CONSUMER_NOT_FOUND)?;
    Ok(json!({ "success": true }))
}

fn list_consumers(
    jetstream: &mut JetStream,
    stream: &str,
    payload: &[u8],
    show: impl Fn((&String, &Consumer)) -> Value,
) -> Answer {
    let stream = jetstream.stream(stream)?;
    let ListRequest { offset, .. } = read(payload)?;
    let shown: Vec<Value> = stream.consumers.iter().skip(offset).take(PAGE).map(show).collect();
    Ok(json!({ "total": stream.consumers.len(), "offset": offset, "limit": PAGE, "consumers": shown }))
}

fn next_messages(jetstream: &mut JetStream, now: Instant, message: &Message, request: &str) -> Outcome {
    let known = request.split_once('.').and_then(|(stream, name)| {
        let stream = jetstream.streams.get_mut(stream)?;
        stream.consumers.contains_key(name).then_some((stream, name))
    });
    let Some((stream, name)) = known else { return Outcome::NobodyListens };
    let Some(reply) = message.reply.as_deref() else { return Outcome::Answered(Vec::new()) };
    Outcome::Answered(match Pull::read(reply, &message.payload) {
        // What it gets is given out with what others wait for.
        Ok(pull) => consumer::pull(stream, now, name, pull).into_iter().collect(),
        Err(status) => vec![Delivery::status(reply, status, &[])],
    })
}
