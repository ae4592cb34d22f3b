//! Objects in Kubernetes' protobuf encoding, read into JSON. `kubectl create` and Go's typed
//! clients send some kinds in no other way. Only reading is here: they all take JSON back.
//!
//! Decoding is driven by [`messages`]; a message that it does not have is refused, a field is
//! passed over, as servers do with fields that are newer than they are.

mod messages;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::messages::{Field, Form, Type};

/// The body is not what the encoding says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The first bytes are missing.
    #[error("the body does not begin as Kubernetes' protobuf encoding does")]
    NotKubernetes,
    /// The bytes end in the middle of something, or have no sense.
    #[error("the protobuf message is damaged")]
    Damaged,
    /// The kind is known as JSON only.
    #[error("objects of kind {0} are not read in protobuf encoding: send application/json")]
    UnknownKind(String),
}

const MAGIC: &[u8] = b"k8s\0";

/// The object in the envelope.
pub(crate) fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let envelope = bytes.strip_prefix(MAGIC).ok_or(Error::NotKubernetes)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut fields = Reader(envelope);
    while let Some((number, wire)) = fields.field()? {
        match (number, wire) {
            (1, Wire::Bytes(types)) => {
                let mut fields = Reader(types);
                while let Some((number, wire)) = fields.field()? {
                    match number {
                        1 => api_version = wire.text()?,
                        2 => kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let message = messages::fields(&messages::of_kind(&api_version, &kind));
    let message = message.ok_or_else(|| Error::UnknownKind(kind.clone()))?;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    object.extend(read(message, raw)?);
    Ok(Value::Object(object))
}

fn read(message: &[Field], bytes: &[u8]) -> Result<Map<String, Value>, Error> {
    let mut object = Map::new();
    let mut fields = Reader(bytes);
    while let Some((number, wire)) = fields.field()? {
        let Some(field) = message.iter().find(|field| field.number == number) else {
            continue;
        };
        let name = field.name.to_owned();
        match field.form {
            Form::Map(of) => {
                let (key, value) = entry(of, &wire)?;
                crate::object::as_map(object.entry(name).or_insert(Value::Null)).insert(key, value);
            }
            Form::List(of) => {
                let items = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = items {
                    items.push(value(of, &wire)?);
                }
            }
            Form::One { of, is_pointer } => match value(of, &wire)? {
                Value::Null => {}
                Value::Object(fields) if name.is_empty() => object.extend(fields),
                value if is_pointer || !is_empty(&value) => {
                    object.insert(name, value);
                }
                _ => {}
            },
        }
    }
    Ok(object)
}

/// What JSON leaves out and this encoding does not.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        value => *value == "" || *value == 0 || *value == false,
    }
}

fn entry(of: Type, wire: &Wire<'_>) -> Result<(String, Value), Error> {
    let (mut key, mut content) = (String::new(), None);
    let mut fields = Reader(wire.bytes()?);
    while let Some((number, wire)) = fields.field()? {
        match number {
            1 => key = wire.text()?,
            2 => content = Some(value(of, &wire)?),
            _ => {}
        }
    }
    Ok((key, content.unwrap_or_else(|| "".into())))
}

fn value(of: Type, wire: &Wire<'_>) -> Result<Value, Error> {
    Ok(match of {
        Type::Text => wire.text()?.into(),
        Type::Bytes => BASE64_STANDARD.encode(wire.bytes()?).into(),
        Type::Number => wire.number()?.cast_signed().into(),
        Type::Flag => (wire.number()? != 0).into(),
        Type::Time => time(wire.bytes()?)?,
        Type::Quantity => first(wire)?.map_or(Ok(Value::Null), |text| text.text().map(Value::from))?,
        Type::IntOrText => int_or_text(wire.bytes()?)?,
        Type::Raw => match first(wire)? {
            Some(raw) => serde_json::from_slice(raw.bytes()?).map_err(|_| Error::Damaged)?,
            None => Value::Null,
        },
        Type::Texts => {
            let (mut texts, mut fields) = (Vec::new(), Reader(wire.bytes()?));
            while let Some((_, wire)) = fields.field()? {
                texts.push(Value::from(wire.text()?));
            }
            Value::Array(texts)
        }
        Type::Message(name) => {
            let message = messages::fields(name).ok_or_else(|| Error::UnknownKind(name.to_owned()))?;
            Value::Object(read(message, wire.bytes()?)?)
        }
    })
}

/// The first field of a message.
fn first<'a>(wire: &Wire<'a>) -> Result<Option<Wire<'a>>, Error> {
    let first = Reader(wire.bytes()?).field()?;
    Ok(first.filter(|(number, _)| *number == 1).map(|(_, wire)| wire))
}

fn int_or_text(bytes: &[u8]) -> Result<Value, Error> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut fields = Reader(bytes);
    while let Some((field, wire)) = fields.field()? {
        match field {
            1 => is_text = wire.number()? != 0,
            2 => number = wire.number()?.cast_signed(),
            3 => text = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn time(bytes: &[u8]) -> Result<Value, Error> {
    let (mut seconds, mut nanoseconds) = (0, 0);
    let mut fields = Reader(bytes);
    while let Some((number, wire)) = fields.field()? {
        match number {
            1 => seconds = wire.number()?.cast_signed(),
            2 => nanoseconds = i32::try_from(wire.number()?).map_err(|_| Error::Damaged)?,
            _ => {}
        }
    }
    if (seconds, nanoseconds) == (0, 0) {
        return Ok(Value::Null);
    }
    let time = Timestamp::new(seconds, nanoseconds).map_err(|_| Error::Damaged)?;
    Ok(time.to_string().into())
}

/// The content of a field.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

impl<'a> Wire<'a> {
    fn bytes(&self) -> Result<&'a [u8], Error> {
        if let Self::Bytes(bytes) = self {
            Ok(bytes)
        } else {
            Err(Error::Damaged)
        }
    }

    fn text(&self) -> Result<String, Error> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| Error::Damaged)
    }

    fn number(&self) -> Result<u64, Error> {
        if let Self::Number(number) = self {
            Ok(*number)
        } else {
            Err(Error::Damaged)
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<Option<(u64, Wire<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => self.take(8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Error::Damaged)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Wire::Fixed)?,
            _ => return Err(Error::Damaged),
        };
        Ok(Some((tag >> 3, wire)))
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Error::Damaged)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn part(number: u8, content: &[u8]) -> Vec<u8> {
        let mut part = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        part.extend(content);
        part
    }

    fn envelope(kind: &str, raw: &[u8]) -> Vec<u8> {
        let types = [part(1, b"v1"), part(2, kind.as_bytes())].concat();
        [
            MAGIC.to_vec(),
            part(1, &types),
            part(2, raw),
            part(3, b""),
            part(4, b""),
        ]
        .concat()
    }

    #[test]
    fn an_object_is_read_as_its_json() {
        let metadata = [
            part(1, b"s"),
            part(2, b""),
            vec![7 << 3, 0],
            part(8, b""),
            part(11, &[part(1, b"a"), part(2, b"b")].concat()),
            part(14, b"x.io/y"),
        ];
        let data = [part(1, b"k"), part(2, b"value")].concat();
        let raw = [
            part(1, &metadata.concat()),
            part(2, &data),
            part(3, b"Opaque"),
            vec![5 << 3, 1],
        ]
        .concat();
        assert_eq!(
            decode(&envelope("Secret", &raw)).unwrap(),
            json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "s", "labels": {"a": "b"}, "finalizers": ["x.io/y"]},
                "data": {"k": "dmFsdWU="},
                "type": "Opaque",
                "immutable": true,
            })
        );
    }

    #[test]
    fn every_form_of_a_field_is_read() {
        let resources = part(2, &[part(1, b"cpu"), part(2, &part(1, b"500m"))].concat());
        let http = [part(1, b"/"), part(2, &[vec![8, 1], part(3, b"web")].concat())].concat();
        let probe = [part(1, &part(2, &http)), vec![2 << 3, 5]].concat();
        let container = [
            part(1, b"c"),
            part(3, b"sh"),
            part(3, b"-c"),
            part(8, &resources),
            part(10, &probe),
        ];
        let volume = [part(1, b"v"), part(2, &part(2, b""))].concat();
        let spec = [part(1, &volume), part(2, &container.concat()), vec![4 << 3, 0]];
        let raw = part(2, &spec.concat());
        assert_eq!(
            decode(&envelope("Pod", &raw)).unwrap()["spec"],
            json!({
                "volumes": [{"name": "v", "emptyDir": {}}],
                "containers": [{
                    "name": "c",
                    "command": ["sh", "-c"],
                    "resources": {"requests": {"cpu": "500m"}},
                    "livenessProbe": {"httpGet": {"path": "/", "port": "web"}, "initialDelaySeconds": 5},
                }],
                "terminationGracePeriodSeconds": 0,
            })
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        assert!(matches!(decode(b"{}"), Err(Error::NotKubernetes)));
        assert!(matches!(
            decode(&envelope("Widget", b"")),
            Err(Error::UnknownKind(_))
        ));
        assert!(matches!(
            decode(&envelope("Secret", &[10, 200])),
            Err(Error::Damaged)
        ));
        assert!(matches!(
            decode(&envelope("Secret", &[0xff; 12])),
            Err(Error::Damaged)
        ));
    }
}
