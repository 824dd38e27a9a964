//! Reads the recorded data.

use std::path::Path;

use bytes::Bytes;
use serde_json::Value;

/// A file of `tests/golden`.
pub fn load(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The elements of an array.
pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {value}"))
}

/// A string.
pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key} in {value}"))
}

/// A number that fits the wanted type.
pub fn number<T: TryFrom<u64>>(value: &Value, key: &str) -> T {
    let number = value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {key} in {value}"));
    T::try_from(number).ok().unwrap()
}

/// Bytes written as hex.
pub fn bytes(value: &Value, key: &str) -> Bytes {
    hex::decode(text(value, key)).unwrap().into()
}

/// Bytes of a known length written as hex.
pub fn array<const N: usize>(value: &Value, key: &str) -> [u8; N] {
    bytes(value, key).as_ref().try_into().unwrap()
}

/// All objects in a tree, however deep.
pub fn objects(value: &Value) -> Vec<&Value> {
    let mut found = Vec::new();
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                found.push(value);
                open.extend(map.values());
            }
            Value::Array(values) => open.extend(values),
            _ => {}
        }
    }
    found
}
