//! What is read of pickles, and what is refused.

use super::*;
use crate::positions::fields::{find, numbers};
use proptest::prelude::*;

#[test]
fn plain_data_of_protocol_2_is_read() {
    // pickle.dumps({"status": "running", "x": 1.5, "n": -3, "big": 2**40, "l": [1, True, None]}, 2)
    let message = b"\x80\x02}q\x00(X\x06\x00\x00\x00statusq\x01X\x07\x00\x00\x00runningq\x02X\x01\x00\x00\x00xq\x03G?\xf8\x00\x00\x00\x00\x00\x00X\x01\x00\x00\x00nq\x04J\xfd\xff\xff\xffX\x03\x00\x00\x00bigq\x05\x8a\x06\x00\x00\x00\x00\x00\x01X\x01\x00\x00\x00lq\x06]q\x07(K\x01\x88Neu.";
    let tree = read(message).unwrap();
    assert_eq!(tree.get("status").and_then(Value::as_str), Some("running"));
    let number = |key: &str| find(&tree, key).and_then(numbers);
    assert_eq!((number("x"), number("n")), (Some(vec![1.5]), Some(vec![-3.0])));
    assert_eq!(number("big"), Some(vec![2f64.powi(40)]));
    assert_eq!(
        tree.get("l"),
        Some(&Value::List(vec![Value::Float(1.0), Value::Float(1.0), Value::None]))
    );
}

#[test]
fn texts_of_protocol_0_are_code_points() {
    let text = |message: &[u8]| read(message).map(|t| t.as_str().map(str::to_owned));
    assert_eq!(text(b"V\xe9\\u20ac\\u000a!\n."), Ok(Some("\u{e9}\u{20ac}\n!".into())));
    assert_eq!(text(b"S'a\\x00\\'b'\n."), Ok(Some("a\0'b".into())));
    assert!(text(b"V\\u20\n.").is_err() && text(b"Sab\n.").is_err());
}

#[test]
fn whatever_could_run_is_refused_by_name() {
    let evil: [(&[u8], &str); 4] = [
        (b"cos\nsystem\n(S'id'\ntR.", "os.system"),
        (b"\x80\x02cbuiltins\neval\nq\x00X\x01\x00\x00\x001\x85R.", "builtins.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.", "posix.system"),
        (b"\x80\x02cnumpy\nload\n.", "numpy.load"),
    ];
    for (message, what) in evil {
        assert_eq!(read(message), Err(PickleError::Forbidden(what.into())));
    }
    for op in [b'o', b'i', b'P', b'Q', 0x82, 0x83, 0x84, 0x81, 0x92, 0x97] {
        assert_eq!(read(&[b'(', op, b'.']), Err(PickleError::Operation(op)));
    }
}

#[test]
fn what_repeats_itself_is_bounded() {
    // Each step doubles what is on the stack.
    let mut message = b"]".to_vec();
    for _ in 0..200 {
        message.extend_from_slice(b"2\x86");
    }
    message.push(b'.');
    assert!(matches!(read(&message), Err(PickleError::Damaged(_))));
    // Nor does depth cost more of the stack than a little, however it is made.
    for (begin, deeper, end) in [
        (&b")"[..], &b"\x85"[..], &b"."[..]),
        (b"", b"]", b"."),
        (b")q\x00", b"h\x00\x85q\x00", b"."),
        (b"", b"}X\x01\x00\x00\x00a", b"."),
    ] {
        let closing = match deeper {
            b"]" => b"a".repeat(100_000),
            [b'}', ..] => b"s".repeat(100_000),
            _ => Vec::new(),
        };
        let deep = [begin, &deeper.repeat(100_001), &closing, end].concat();
        assert!(matches!(read(&deep), Err(PickleError::Damaged(_))));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        drop(read(&bytes));
    }

    #[test]
    fn cut_and_flipped_messages_are_refused_or_read(cut in 0usize..130, at in 0usize..130, bit in 0u8..8) {
        let message = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(U\x02sxG?\xf0\x00\x00\x00\x00\x00\x00U\x02syG@\x00\x00\x00\x00\x00\x00\x00u.";
        let mut bytes = message.to_vec();
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << bit;
        }
        bytes.truncate(message.len().saturating_sub(cut));
        drop(read(&bytes));
    }
}
