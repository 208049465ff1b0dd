//! The frames of the NATS protocol, cut out of a stream of bytes.
//!
//! A frame is a control line, and for four of the verbs a payload whose size is the line's last number:
//!
//! ```text
//!   PUB  subject      [reply]         size␍␊ payload ␍␊       client to server
//!   HPUB subject      [reply] headers size␍␊ payload ␍␊
//!   MSG  subject sid  [reply]         size␍␊ payload ␍␊       server to client
//!   HMSG subject sid  [reply] headers size␍␊ payload ␍␊
//!   INFO {…}␍␊   CONNECT {…}␍␊   SUB …␍␊   PING␍␊   PONG␍␊   -ERR '…'␍␊
//! ```
//!
//! Nothing is judged here: a frame's bytes are what came, so that a relay which passes all frames on changes nothing.

/// One frame, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    /// Bytes of the control line, with its end.
    line: usize,
}

impl Frame {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn verb(&self) -> &str {
        self.words().next().unwrap_or_default()
    }

    /// Whether a client publishes with it.
    pub(crate) fn is_publish(&self) -> bool {
        matches!(self.verb(), "PUB" | "HPUB")
    }

    /// Whether a server delivers a message with it.
    pub(crate) fn is_message(&self) -> bool {
        matches!(self.verb(), "MSG" | "HMSG")
    }

    /// Of a publish or a message.
    pub(crate) fn subject(&self) -> &str {
        self.words().nth(1).unwrap_or_default()
    }

    /// Where an answer to a publish is to go.
    pub(crate) fn reply(&self) -> Option<&str> {
        let words: Vec<&str> = self.words().collect();
        match (words.first()?, words.len()) {
            (&"PUB", 4) | (&"HPUB", 5) => words.get(2).copied(),
            _ => None,
        }
    }

    /// The JSON that `INFO` and `CONNECT` carry.
    pub(crate) fn options(&self) -> &str {
        self.text().split_once(' ').map_or("", |(_, options)| options)
    }

    /// Headers and payload of a publish or a message.
    pub(crate) fn payload(&self) -> &[u8] {
        let end = self.bytes.len() - usize::from(self.line < self.bytes.len()) * 2;
        &self.bytes[self.line..end]
    }

    /// The frame with another control line and the same payload.
    pub(crate) fn with_line(&self, line: &str) -> Self {
        let mut bytes = format!("{line}\r\n").into_bytes();
        let line = bytes.len();
        bytes.extend_from_slice(&self.bytes[self.line..]);
        Self { bytes, line }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.line]).unwrap_or_default().trim_end()
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.text().split_ascii_whitespace()
    }
}

/// Takes bytes in pieces of any size, and gives frames out.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    bytes: Vec<u8>,
}

impl Splitter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if all of it is there.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let line = self.bytes.iter().position(|&byte| byte == b'\n')? + 1;
        let size = line + payload_size(&self.bytes[..line]);
        if self.bytes.len() < size {
            return None;
        }
        let rest = self.bytes.split_off(size);
        Some(Frame { bytes: std::mem::replace(&mut self.bytes, rest), line })
    }
}

/// The bytes that follow a control line, with their end.
fn payload_size(line: &[u8]) -> usize {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let has_payload = matches!(words.next(), Some("PUB" | "HPUB" | "MSG" | "HMSG"));
    let size = words.next_back().filter(|_| has_payload).and_then(|size| size.parse::<usize>().ok());
    size.map_or(0, |size| size + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"port\":1}\r\nPUB a 3\r\nx\r\n\r\nHPUB a.b _INBOX.1.2 5 7\r\nH\r\n\r\nyz\r\nPING\r\n\
        MSG _INBOX.1.2 7 0\r\n\r\nHMSG e 7 r 12 12\r\nNATS/1.0\r\n\r\n\r\n-ERR 'x y'\r\n";

    fn frames_in_pieces_of(size: usize) -> Vec<Frame> {
        let (mut splitter, mut frames) = (Splitter::default(), Vec::new());
        for piece in STREAM.chunks(size) {
            splitter.push(piece);
            frames.extend(std::iter::from_fn(|| splitter.next()));
        }
        assert!(splitter.bytes.is_empty());
        frames
    }

    #[test]
    fn the_frames_are_the_same_in_pieces_of_any_size_and_together_are_all_bytes() {
        let whole = frames_in_pieces_of(STREAM.len());
        assert_eq!(whole.iter().flat_map(|frame| frame.bytes().to_vec()).collect::<Vec<_>>(), STREAM);
        for size in 1..STREAM.len() {
            assert_eq!(frames_in_pieces_of(size), whole, "pieces of {size}");
        }
    }

    #[test]
    fn a_frame_knows_its_parts() {
        let frames = frames_in_pieces_of(5);
        let verbs: Vec<_> = frames.iter().map(Frame::verb).collect();
        assert_eq!(verbs, ["INFO", "PUB", "HPUB", "PING", "MSG", "HMSG", "-ERR"]);
        let [info, publish, with_headers, _, empty, status, _] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!(info.options(), "{\"port\":1}");
        assert_eq!((publish.subject(), publish.reply(), publish.payload()), ("a", None, &b"x\r\n"[..]));
        assert_eq!((with_headers.subject(), with_headers.reply()), ("a.b", Some("_INBOX.1.2")));
        assert_eq!(with_headers.payload(), b"H\r\n\r\nyz");
        assert_eq!((empty.subject(), empty.payload(), empty.is_message()), ("_INBOX.1.2", &b""[..], true));
        assert_eq!((status.reply(), status.payload()), (None, &b"NATS/1.0\r\n\r\n"[..]));
        assert_eq!(with_headers.with_line("HPUB c 5 7").bytes(), b"HPUB c 5 7\r\nH\r\n\r\nyz\r\n");
    }
}
