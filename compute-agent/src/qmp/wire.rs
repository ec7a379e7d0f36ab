//! QMP's messages, and how they are extracted from a stream of bytes. Pure.

use serde::Deserialize;
use serde_json::Value;

/// The longest message that is accepted, in bytes; `query-block` of a machine full of disks has some tens of KiB.
pub const MESSAGE_MAX: usize = 16 << 20;

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first message on every connection, with QEMU's version.
    Greeting {
        version: Value,
    },
    /// The answer to the command with this id.
    Return {
        id: Option<u64>,
        value: Value,
    },
    Error {
        id: Option<u64>,
        class: String,
        desc: String,
    },
    Event(Event),
    /// JSON of an unknown form, from a newer QEMU; it is ignored.
    Unknown,
}

/// Something that happened, with the time on QEMU's own clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The name as QEMU spells it: `SHUTDOWN`, `RESET`, `BLOCK_IO_ERROR`.
    pub name: String,
    pub data: Value,
    /// Microseconds since 1970 on the host's clock; 0 if QEMU couldn't read it.
    pub at_micros: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum WireError {
    /// A message grew past [`MESSAGE_MAX`] without an end.
    TooLong,
    /// A line wasn't JSON; these are its first bytes.
    NotJson(String),
}

/// Collects bytes as they come and gives whole messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// There is no newline before this position.
    searched: usize,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message. After [`WireError::NotJson`] the stream continues after the bad line; after
    /// [`WireError::TooLong`] it can't.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            let Some(at) = self.buffer[self.searched..].iter().position(|&b| b == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > MESSAGE_MAX { Err(WireError::TooLong) } else { Ok(None) };
            };
            let line: Vec<u8> = self.buffer.drain(..=self.searched + at).collect();
            self.searched = 0;
            let line = line.trim_ascii();
            if !line.is_empty() {
                return parse(line).map(Some);
            }
        }
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "QMP")]
    greeting: Option<Value>,
    #[serde(default)]
    id: Option<u64>,
    /// A command without a result returns `{}`, and some return null.
    #[serde(rename = "return", default, deserialize_with = "present")]
    returned: Option<Value>,
    error: Option<RawError>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    timestamp: Option<RawTimestamp>,
}

#[derive(Deserialize)]
struct RawError {
    class: String,
    desc: String,
}

#[derive(Deserialize)]
struct RawTimestamp {
    seconds: i64,
    microseconds: i64,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn parse(line: &[u8]) -> Result<Message, WireError> {
    let not_json = || WireError::NotJson(String::from_utf8_lossy(line).chars().take(80).collect());
    let value: Value = serde_json::from_slice(line).map_err(|_| not_json())?;
    let Ok(raw) = serde_json::from_value::<Raw>(value) else { return Ok(Message::Unknown) };
    Ok(if let Some(mut greeting) = raw.greeting {
        Message::Greeting { version: greeting.get_mut("version").map(Value::take).unwrap_or_default() }
    } else if let Some(RawError { class, desc }) = raw.error {
        Message::Error { id: raw.id, class, desc }
    } else if let Some(value) = raw.returned {
        Message::Return { id: raw.id, value }
    } else if let Some(name) = raw.event {
        let at_micros = raw.timestamp.filter(|t| t.seconds >= 0).map_or(0, |t| t.seconds * 1_000_000 + t.microseconds);
        Message::Event(Event { name, data: raw.data, at_micros })
    } else {
        Message::Unknown
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STREAM: &str = concat!(
        "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": \"\"}, \"capabilities\": [\"oob\"]}}\r\n",
        "{\"return\": {}, \"id\": 1}\r\n",
        "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 5}, \"event\": \"FROM_THE_FUTURE\", \"data\": {\"a\": [1]}, \"new\": 0}\r\n",
        "{\"id\": 2, \"error\": {\"class\": \"CommandNotFound\", \"desc\": \"no such\", \"hint\": 1}}\r\n",
        "\r\n",
        "{\"return\": null, \"id\": 3}\r\n",
        "{\"something\": \"else\"}\r\n",
    );

    fn expected() -> Vec<Message> {
        vec![
            Message::Greeting { version: json!({"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": ""}) },
            Message::Return { id: Some(1), value: json!({}) },
            Message::Event(Event {
                name: "FROM_THE_FUTURE".into(),
                data: json!({"a": [1]}),
                at_micros: 1_700_000_000_000_005,
            }),
            Message::Error { id: Some(2), class: "CommandNotFound".into(), desc: "no such".into() },
            Message::Return { id: Some(3), value: Value::Null },
            Message::Unknown,
        ]
    }

    #[test]
    fn any_split_of_the_stream_gives_the_same_messages() {
        let bytes = STREAM.as_bytes();
        for step in 1..bytes.len() {
            let mut decoder = Decoder::default();
            let mut messages = vec![];
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                while let Some(message) = decoder.next_message().expect("no bad line") {
                    messages.push(message);
                }
            }
            assert_eq!(messages, expected(), "in chunks of {step}");
        }
    }

    #[test]
    fn a_cut_message_is_none_and_garbage_is_one_error() {
        let mut decoder = Decoder::default();
        decoder.push(&STREAM.as_bytes()[..40]);
        assert_eq!(decoder.next_message(), Ok(None));

        let mut decoder = Decoder::default();
        decoder.push(b"garbage \xff\xfe\n[1,2]\n\"text\"\n7\n{\"return\": 1, \"id\": 9}\n");
        assert!(matches!(decoder.next_message(), Err(WireError::NotJson(_))));
        for _ in 0..3 {
            assert_eq!(decoder.next_message(), Ok(Some(Message::Unknown)));
        }
        assert_eq!(decoder.next_message(), Ok(Some(Message::Return { id: Some(9), value: json!(1) })));
        assert_eq!(decoder.next_message(), Ok(None));
    }

    #[test]
    fn an_endless_message_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..16 {
            decoder.push(&chunk);
            assert_eq!(decoder.next_message(), Ok(None));
        }
        decoder.push(b"x");
        assert_eq!(decoder.next_message(), Err(WireError::TooLong));
    }

    #[test]
    fn every_prefix_and_every_flipped_byte_is_survived() {
        let bytes = STREAM.as_bytes();
        for i in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[i] ^= 0x21;
            for input in [&bytes[..i], &flipped[..]] {
                let mut decoder = Decoder::default();
                decoder.push(input);
                let mut count = 0;
                while !matches!(decoder.next_message(), Ok(None) | Err(WireError::TooLong)) {
                    count += 1;
                }
                assert!(count <= expected().len() + 1, "{count} messages with byte {i} changed");
            }
        }
    }
}
