//! Python's pickles, as far as messages of positions need them, and not a step further.
//!
//! A pickle is a program that builds objects; a real unpickler may call anything. This one knows numbers,
//! texts, bytes, tuples, lists, dicts, `collections.OrderedDict` and numpy's arrays and scalars of numbers.
//! Whatever else a pickle asks for is refused by name. Nothing is called and nothing imported; memory is
//! bounded by the length of the message, nesting by 32 levels.
//!
//! # Source
//! CPython `Lib/pickletools.py`, which describes the opcodes of protocols 0 to 5; numpy
//! `core/src/multiarray`, `array_reduce`: what an array's pickle holds.

mod items;
mod text;

use items::Items;
use ptystream_common::value::{NumArray, Value};
use text::unescaped;

/// Deepest nesting of values.
const DEEPEST: usize = 32;
/// Most entries of the memo.
const MEMO: usize = 1 << 16;
/// No message takes more steps than so many for each byte: values may be fetched from the memo again.
const COPIED: usize = 16;

/// Why a pickle is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[must_use]
pub enum PickleError {
    /// It ends too early.
    #[error("the pickle is truncated")]
    Truncated,
    /// It asks for a class or function that is not allowed.
    #[error(
        "the pickle asks for '{0}', which is not allowed: only numbers, texts, lists, dicts and numpy arrays are read"
    )]
    Forbidden(String),
    /// It uses an operation that is not known.
    #[error("the pickle uses operation {0:#04x}, which is not allowed")]
    Operation(u8),
    /// It contradicts itself.
    #[error("the pickle is damaged: {0}")]
    Damaged(&'static str),
}

/// What may be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    OrderedDict,
    Dict,
    Reconstruct,
    NdArray,
    Dtype,
    Scalar,
    FromBuffer,
    Encode,
}

fn known(module: &str, name: &str) -> Option<Known> {
    let core = ["numpy.core.multiarray", "numpy._core.multiarray"].contains(&module);
    Some(match (module, name) {
        ("collections", "OrderedDict") => Known::OrderedDict,
        ("builtins" | "__builtin__", "dict") => Known::Dict,
        ("numpy", "ndarray") => Known::NdArray,
        ("numpy", "dtype") => Known::Dtype,
        (_, "_reconstruct") if core => Known::Reconstruct,
        (_, "scalar") if core => Known::Scalar,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Known::FromBuffer,
        ("_codecs", "encode") => Known::Encode,
        _ => return None,
    })
}

/// What stands on the stack.
#[derive(Clone, Debug)]
enum Item {
    Plain(Value),
    Bytes(Vec<u8>),
    // Each with how deeply it is nested: whatever is nested more deeply is never made, so that nothing that
    // walks through it, dropping it included, needs more of the stack.
    Tuple(Vec<Item>, usize),
    List(Vec<Item>, usize),
    Map(Vec<(String, Item)>, usize),
    Known(Known),
    Items(Option<Items>),
    /// An array that waits for its state.
    Array,
    Mark,
}

impl Item {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Plain(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// How much there is to copy.
    fn weight(&self) -> usize {
        1 + match self {
            Self::Plain(Value::Array(all)) => all.items.len(),
            Self::Plain(Value::Str(text)) => text.len() / 8,
            Self::Bytes(bytes) => bytes.len() / 8,
            Self::Tuple(items, _) | Self::List(items, _) => items.iter().map(Self::weight).sum(),
            Self::Map(entries, _) => entries.iter().map(|(_, v)| 1 + v.weight()).sum(),
            _ => 0,
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Tuple(_, depth) | Self::List(_, depth) | Self::Map(_, depth) => *depth,
            _ => 0,
        }
    }

    fn into_value(self) -> Value {
        match self {
            Self::Plain(value) => value,
            Self::Tuple(items, _) | Self::List(items, _) => {
                Value::List(items.into_iter().map(Self::into_value).collect())
            }
            Self::Map(entries, _) => {
                Value::Map(entries.into_iter().map(|(k, v)| (k, v.into_value())).collect())
            }
            // Bytes and what waits for its state hold no numbers.
            _ => Value::None,
        }
    }
}

/// Returns how deeply something is nested that holds these.
fn around<'a>(items: impl IntoIterator<Item = &'a Item>) -> Result<usize, PickleError> {
    let inner = items.into_iter().map(Item::depth).max().unwrap_or(0);
    match inner < DEEPEST {
        true => Ok(inner + 1),
        false => Err(PickleError::Damaged("it is nested too deeply")),
    }
}

/// Reads a message.
///
/// # Errors
/// [`PickleError`] if it is damaged, or asks for anything beyond plain data.
pub fn read(message: &[u8]) -> Result<Value, PickleError> {
    let room = COPIED * message.len() + 1024;
    Machine { bytes: message, stack: Vec::new(), memo: Vec::new(), room, items_key: None }.run()
}

struct Machine<'a> {
    bytes: &'a [u8],
    stack: Vec<Item>,
    memo: Vec<(u32, Item)>,
    /// How much may still be copied to and from the memo.
    room: usize,
    /// Under which key the type is remembered that gets its state next.
    items_key: Option<u32>,
}

const SHORT: PickleError = PickleError::Damaged("its stack is empty");
const ODD: PickleError = PickleError::Damaged("an operation finds the wrong kind of value");

impl<'a> Machine<'a> {
    fn run(mut self) -> Result<Value, PickleError> {
        loop {
            let op = self.take(1)?[0];
            if op == b'.' {
                let value = self.pop()?;
                return Ok(value.into_value());
            }
            self.step(op)?;
        }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], PickleError> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or(PickleError::Truncated)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        self.take(N)?.try_into().map_err(|_| PickleError::Truncated)
    }

    fn length(&mut self, bytes: usize) -> Result<usize, PickleError> {
        let mut le = [0; 8];
        le[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(le)).map_err(|_| PickleError::Truncated)
    }

    fn raw_line(&mut self) -> Result<&'a [u8], PickleError> {
        let end = self.bytes.iter().position(|b| *b == b'\n').ok_or(PickleError::Truncated)?;
        Ok(&self.take(end + 1)?[..end])
    }

    fn line(&mut self) -> Result<&'a str, PickleError> {
        let line = self.raw_line()?;
        std::str::from_utf8(line).map_err(|_| PickleError::Damaged("a line is no text"))
    }

    fn push(&mut self, value: Value) {
        self.stack.push(Item::Plain(value));
    }

    fn push_number(&mut self, number: f64) {
        self.push(Value::Float(number));
    }

    fn push_text(&mut self, n: usize) -> Result<(), PickleError> {
        let bytes = self.take(n)?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| PickleError::Damaged("a text is not UTF-8"))?;
        self.push(Value::Str(text.to_owned()));
        Ok(())
    }

    fn push_bytes(&mut self, n: usize) -> Result<(), PickleError> {
        let bytes = self.take(n)?.to_vec();
        self.stack.push(Item::Bytes(bytes));
        Ok(())
    }

    fn pop(&mut self) -> Result<Item, PickleError> {
        match self.stack.pop() {
            Some(Item::Mark) | None => Err(SHORT),
            Some(value) => Ok(value),
        }
    }

    /// Takes everything above the last mark.
    fn marked(&mut self) -> Result<Vec<Item>, PickleError> {
        let at = self.stack.iter().rposition(|v| matches!(v, Item::Mark)).ok_or(SHORT)?;
        let items = self.stack.split_off(at + 1);
        self.stack.pop();
        Ok(items)
    }

    fn spend(&mut self, value: &Item) -> Result<(), PickleError> {
        let left = self.room.checked_sub(value.weight());
        self.room = left.ok_or(PickleError::Damaged("it repeats itself too often"))?;
        Ok(())
    }

    fn remember(&mut self, key: u32) -> Result<(), PickleError> {
        let value = self.stack.last().filter(|v| !matches!(v, Item::Mark)).ok_or(SHORT)?.clone();
        // A container is remembered before it is filled: who fetches it gets it empty.
        self.spend(&value)?;
        if self.memo.len() >= MEMO {
            return Err(PickleError::Damaged("it remembers too much"));
        }
        if matches!(value, Item::Items(_)) {
            self.items_key = Some(key);
        }
        match self.memo.binary_search_by_key(&key, |(k, _)| *k) {
            Ok(at) => self.memo[at].1 = value,
            Err(at) => self.memo.insert(at, (key, value)),
        }
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), PickleError> {
        let at = self.memo.binary_search_by_key(&key, |(k, _)| *k);
        let at = at.map_err(|_| PickleError::Damaged("it recalls what it never remembered"))?;
        let value = self.memo[at].1.clone();
        self.spend(&value)?;
        self.stack.push(value);
        Ok(())
    }

    fn fill(&mut self, items: Vec<Item>) -> Result<(), PickleError> {
        let inner = around(&items)?;
        let Some(Item::List(list, depth)) = self.stack.last_mut() else { return Err(ODD) };
        *depth = inner.max(*depth);
        list.extend(items);
        Ok(())
    }

    fn set(&mut self, items: Vec<Item>) -> Result<(), PickleError> {
        let inner = around(&items)?;
        let Some(Item::Map(map, depth)) = self.stack.last_mut() else { return Err(ODD) };
        *depth = inner.max(*depth);
        let mut items = items.into_iter();
        while let (Some(key), value) = (items.next(), items.next()) {
            let value = value.ok_or(ODD)?;
            let key = match key {
                Item::Plain(Value::Str(text)) => text,
                Item::Plain(Value::Float(n)) => n.to_string(),
                Item::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                _ => return Err(ODD),
            };
            map.push((key, value));
        }
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), PickleError> {
        let found = known(module, name);
        let found = found.ok_or_else(|| PickleError::Forbidden(format!("{module}.{name}")))?;
        self.stack.push(Item::Known(found));
        Ok(())
    }

    /// Calls what is known; nothing else can be on the stack.
    fn call(&mut self) -> Result<(), PickleError> {
        let (Item::Tuple(given, _), Item::Known(what)) = (self.pop()?, self.pop()?) else {
            return Err(ODD);
        };
        let made = match (what, &given[..]) {
            (Known::OrderedDict | Known::Dict, []) => Item::Map(Vec::new(), 1),
            // Protocols 0 to 2 of Python 2 give the pairs at once.
            (Known::OrderedDict, [Item::List(pairs, _)]) => {
                self.stack.push(Item::Map(Vec::new(), 1));
                for pair in pairs {
                    let (Item::Tuple(pair, _) | Item::List(pair, _)) = pair else {
                        return Err(ODD);
                    };
                    self.set(pair.clone())?;
                }
                return Ok(());
            }
            (Known::Reconstruct, [Item::Known(Known::NdArray), ..]) => Item::Array,
            (Known::Dtype, [code, ..]) => Item::Items(code.text().and_then(Items::of)),
            (Known::Scalar, [Item::Items(Some(items)), Item::Bytes(bytes)]) => {
                match items.numbers(bytes).as_deref() {
                    Some([one]) => Item::Plain(Value::Float(*one)),
                    _ => return Err(PickleError::Damaged("a scalar has the wrong length")),
                }
            }
            (Known::FromBuffer, [Item::Bytes(bytes), Item::Items(Some(items)), ..]) => {
                Item::Plain(numbers(*items, bytes)?)
            }
            // Bytes of Python 3 in protocol 2: a text of code points below 256.
            (Known::Encode, [text, ..]) => {
                let text = text.text().ok_or(ODD)?;
                let byte = |c: char| u8::try_from(u32::from(c)).map_err(|_| ODD);
                Item::Bytes(text.chars().map(byte).collect::<Result<_, _>>()?)
            }
            _ => return Err(ODD),
        };
        self.stack.push(made);
        Ok(())
    }

    /// Gives an object its state: only arrays and their types have one.
    fn build(&mut self) -> Result<(), PickleError> {
        let state = self.pop()?;
        let object = self.pop()?;
        let built = match (object, state) {
            (Item::Items(items), Item::Tuple(state, _)) => {
                // (version, byte order, subtype, names, fields, size, alignment, flags)
                let big_endian = state.get(1).and_then(Item::text) == Some(">");
                let built = Item::Items(items.map(|items| items.ordered(big_endian)));
                // It was remembered without its byte order.
                if let Some(key) = self.items_key.take()
                    && let Ok(at) = self.memo.binary_search_by_key(&key, |(k, _)| *k)
                {
                    self.memo[at].1 = built.clone();
                }
                built
            }
            (Item::Array, Item::Tuple(state, _)) => {
                // (version, shape, type, Fortran order, items)
                let [_, _, Item::Items(items), _, content] = &state[..] else { return Err(ODD) };
                match (items, content) {
                    (Some(items), Item::Bytes(bytes)) => Item::Plain(numbers(*items, bytes)?),
                    // Texts and objects have no numbers.
                    _ => Item::Plain(Value::None),
                }
            }
            _ => return Err(ODD),
        };
        self.stack.push(built);
        Ok(())
    }

    #[allow(clippy::too_many_lines)]
    fn step(&mut self, op: u8) -> Result<(), PickleError> {
        match op {
            // Protocol and frames.
            0x80 => self.take(1).map(drop)?,
            0x95 => self.take(8).map(drop)?,
            b'(' => self.stack.push(Item::Mark),
            b'0' => self.pop().map(drop)?,
            b'1' => self.marked().map(drop)?,
            b'2' => {
                let top = self.stack.last().filter(|v| !matches!(v, Item::Mark)).ok_or(SHORT)?;
                let top = top.clone();
                self.spend(&top)?;
                self.stack.push(top);
            }
            b'N' => self.push(Value::None),
            0x88 => self.push_number(1.0),
            0x89 => self.push_number(0.0),
            b'I' | b'L' => {
                let line = self.line()?.trim_end_matches('L');
                let number =
                    line.parse().map_err(|_| PickleError::Damaged("an integer is none"))?;
                self.push_number(number);
            }
            b'J' => {
                let n = i32::from_le_bytes(self.number()?);
                self.push_number(f64::from(n));
            }
            b'K' => {
                let n = self.take(1)?[0];
                self.push_number(f64::from(n));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.number()?);
                self.push_number(f64::from(n));
            }
            0x8a => {
                let n = self.length(1)?;
                let bytes = self.take(n)?;
                let mut value = 0.0;
                for byte in bytes.iter().rev() {
                    value = value * 256.0 + f64::from(*byte);
                }
                if bytes.last().is_some_and(|b| b & 0x80 != 0) {
                    value -= 256f64.powi(n as i32);
                }
                self.push_number(value);
            }
            b'F' => {
                let line = self.line()?;
                let number = line.parse().map_err(|_| PickleError::Damaged("a float is none"))?;
                self.push_number(number);
            }
            b'G' => {
                let n = f64::from_be_bytes(self.number()?);
                self.push_number(n);
            }
            b'S' => {
                let line = self.raw_line()?;
                let quoted = |q: &[u8]| line.strip_prefix(q).and_then(|l| l.strip_suffix(q));
                let inside = quoted(b"'").or_else(|| quoted(b"\"")).ok_or(ODD)?;
                self.push(Value::Str(unescaped(inside)?));
            }
            b'V' => {
                let line = self.raw_line()?;
                self.push(Value::Str(unescaped(line)?));
            }
            // Python 2's str: text, or bytes of an array.
            b'U' | b'T' => {
                let n = self.length(if op == b'U' { 1 } else { 4 })?;
                match std::str::from_utf8(self.bytes.get(..n).ok_or(PickleError::Truncated)?) {
                    Ok(_) => self.push_text(n)?,
                    Err(_) => self.push_bytes(n)?,
                }
            }
            0x8c => {
                let n = self.length(1)?;
                self.push_text(n)?;
            }
            b'X' => {
                let n = self.length(4)?;
                self.push_text(n)?;
            }
            0x8d => {
                let n = self.length(8)?;
                self.push_text(n)?;
            }
            b'C' => {
                let n = self.length(1)?;
                self.push_bytes(n)?;
            }
            b'B' => {
                let n = self.length(4)?;
                self.push_bytes(n)?;
            }
            0x8e | 0x96 => {
                let n = self.length(8)?;
                self.push_bytes(n)?;
            }
            b']' => self.stack.push(Item::List(Vec::new(), 1)),
            b'}' => self.stack.push(Item::Map(Vec::new(), 1)),
            b')' => self.stack.push(Item::Tuple(Vec::new(), 1)),
            b'l' => {
                let items = self.marked()?;
                let depth = around(&items)?;
                self.stack.push(Item::List(items, depth));
            }
            b'd' => {
                let items = self.marked()?;
                self.stack.push(Item::Map(Vec::new(), 1));
                self.set(items)?;
            }
            b't' => {
                let items = self.marked()?;
                let depth = around(&items)?;
                self.stack.push(Item::Tuple(items, depth));
            }
            0x85..=0x87 => {
                let n = usize::from(op - 0x84);
                let mut items = (0..n).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                items.reverse();
                let depth = around(&items)?;
                self.stack.push(Item::Tuple(items, depth));
            }
            b'a' => {
                let item = self.pop()?;
                self.fill(vec![item])?;
            }
            b'e' => {
                let items = self.marked()?;
                self.fill(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.marked()?;
                self.set(items)?;
            }
            b'p' => {
                let key =
                    self.line()?.parse().map_err(|_| PickleError::Damaged("a memo is none"))?;
                self.remember(key)?;
            }
            b'q' => {
                let key = self.take(1)?[0];
                self.remember(u32::from(key))?;
            }
            b'r' => {
                let key = u32::from_le_bytes(self.number()?);
                self.remember(key)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'g' => {
                let key =
                    self.line()?.parse().map_err(|_| PickleError::Damaged("a memo is none"))?;
                self.recall(key)?;
            }
            b'h' => {
                let key = self.take(1)?[0];
                self.recall(u32::from(key))?;
            }
            b'j' => {
                let key = u32::from_le_bytes(self.number()?);
                self.recall(key)?;
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (module.text(), name.text()) {
                    (Some(module), Some(name)) => {
                        let (module, name) = (module.to_owned(), name.to_owned());
                        self.global(&module, &name)?;
                    }
                    _ => return Err(ODD),
                }
            }
            b'R' => self.call()?,
            b'b' => self.build()?,
            other => return Err(PickleError::Operation(other)),
        }
        Ok(())
    }
}

fn numbers(items: Items, bytes: &[u8]) -> Result<Value, PickleError> {
    let all = items.numbers(bytes);
    all.map(|all| Value::Array(NumArray::f64s(&all)))
        .ok_or(PickleError::Damaged("an array has the wrong length"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
