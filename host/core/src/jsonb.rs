//! Recognises SQLite's own binary form of JSON (JSONB), which some applications store by mistake, so that the reason
//! can name it.
//!
//! An element is a head and its content. The low half of the head's first byte is the element's kind, up to 12. The
//! high half is the content's length; from 12 on, it says how many of the next bytes contain the length.

/// How a reason names it, after "it is" or "data is".
pub(crate) const REASON: &str =
    "a blob in SQLite's own JSONB, which only SQLite reads: store the text that json() gives, not what jsonb() gives";

const ARRAY: u8 = 11;
const OBJECT: u8 = 12;
/// null, true and false, which have no content.
const BARE: std::ops::RangeInclusive<u8> = 0..=2;

/// Whether these bytes, which are no JSON text, are one JSONB element. The content of an array or an object must be
/// elements too.
pub(crate) fn is_one(bytes: &[u8]) -> bool {
    match element(bytes) {
        Some((ARRAY | OBJECT, mut content, [])) => {
            while let Some((_, _, rest)) = element(content) {
                content = rest;
            }
            content.is_empty()
        }
        Some((_, _, [])) => true,
        _ => false,
    }
}

/// The first element's kind and content, and the bytes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (head, rest) = bytes.split_first()?;
    let length_bytes = match head >> 4 {
        0..=11 => 0,
        12 => 1,
        13 => 2,
        14 => 4,
        _ => 8,
    };
    let (length, rest) = rest.split_at_checked(length_bytes)?;
    let length = match length_bytes {
        0 => u64::from(head >> 4),
        _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let kind = head & 0xf;
    let may_be = kind <= OBJECT && (content.is_empty() || !BARE.contains(&kind));
    may_be.then_some((kind, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_text_and_other_bytes_are_not() {
        for bytes in ["{\"a\":1,}", "{\"order\": }", "[1,2", "\"un", "", "hello", "\u{feff}{}"] {
            assert!(!is_one(bytes.as_bytes()), "{bytes}");
        }
        assert!(!is_one(&[0xff; 16]) && !is_one(b"\x89PNG\r\n\x1a\n"));
    }
}
