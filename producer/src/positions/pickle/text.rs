//! Texts of protocol 0.

use super::PickleError;

/// Reads a text of protocol 0: bytes are code points, and others are written `\\uXXXX` and the like.
pub(super) fn unescaped(line: &[u8]) -> Result<String, PickleError> {
    const WRONG: PickleError = PickleError::Damaged("a text has an escape that is none");
    let mut text = String::new();
    let mut rest = line;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            text.push(char::from(byte));
            continue;
        }
        let (&mark, tail) = rest.split_first().ok_or(WRONG)?;
        rest = tail;
        let digits = match mark {
            b'x' => 2,
            b'u' => 4,
            b'U' => 8,
            _ => {
                text.push(match mark {
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    b'\\' | b'\'' | b'"' => char::from(mark),
                    _ => return Err(WRONG),
                });
                continue;
            }
        };
        let (code, tail) = rest.split_at_checked(digits).ok_or(WRONG)?;
        rest = tail;
        let code = std::str::from_utf8(code).ok().and_then(|c| u32::from_str_radix(c, 16).ok());
        text.push(code.and_then(char::from_u32).ok_or(WRONG)?);
    }
    Ok(text)
}
