//! The parameters of positions that come as a stream.

use super::axes::Axes;
use super::columns::Columns;
use super::join::{At, By, Rules};
use crate::source::keys::{Keys, wrong};
use ptystream_common::params::{ParamDecl, ParamDefault, ParamType};
use ptystream_common::source::{SourceError, SourceSpec};
use ptystream_common::value::Value;
use std::path::PathBuf;
use std::time::Duration;

const TEXT: &[ParamType] = &[ParamType::Str, ParamType::None];
const NUMBER_OR_NONE: &[ParamType] = &[ParamType::Float, ParamType::None];

const fn decl(
    name: &'static str,
    types: &'static [ParamType],
    default: ParamDefault,
    help: &'static str,
) -> ParamDecl {
    ParamDecl::new(name, types, default, help)
}

/// The parameters, shared by all live sources.
pub(crate) const PARAMS: [ParamDecl; 22] = [
    decl("positions.kind", &[ParamType::Str], ParamDefault::Str("file"), "Where positions come from.")
        .choices(&["file", "contrast", "panda", "panda_json", "growing", "frames"])
        .doc("`file`: a file that is there. `contrast`: dicts of MAX IV's contrast. `panda`: a PandA's data port. `panda_json`: a PandA's positions as JSON over ZeroMQ. `growing`: a text that grows, `positions.file`. `frames`: what the detector sends with each frame (SIMPLON's image appendix, stream2's user_data)."),
    decl("positions.address", TEXT, ParamDefault::None, "Where positions are sent: tcp://HOST:PORT.")
        .doc("`contrast` and `panda_json` publish (PUB) there; `panda` has a data port, 8888 by default."),
    decl("positions.slow", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name of the slow axis (y) in the stream.")
        .doc("A motor or field, dotted where it is nested: sy, pseudo.y, INENC1.VAL.Mean; of a text, its column from 0 on."),
    decl("positions.fast", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name of the fast axis (x) in the stream."),
    decl("positions.unit", &[ParamType::Str], ParamDefault::Str("m"), "Unit of the positions.").choices(&["m", "mm", "um", "µm", "nm"]),
    decl("positions.flip", &[ParamType::List, ParamType::Bool], ParamDefault::Bool(false), "Whether axes change their signs: [slow, fast], or one for both."),
    decl("positions.swap", &[ParamType::Bool], ParamDefault::Bool(false), "Whether the slow axis is x, the fast one y."),
    decl("positions.join", TEXT, ParamDefault::None, "By what positions and frames belong together.")
        .choices(&["index", "time", "count"])
        .doc("`index`: the number that each position carries. `time`: its time and the frame's exposure. `count`: the order of both. None: `index` where there is one, else `count`."),
    decl("positions.index", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name of the index in the stream; None: the instrument's own count (`panda_json`).").level(1),
    decl("positions.first", &[ParamType::Float], ParamDefault::Float(0.0), "The index of the first frame in the stream.").level(1),
    decl("positions.time", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name of the time in the stream.").unit("s").level(1),
    decl("positions.time_offset", &[ParamType::Float], ParamDefault::Float(0.0), "The positions' time minus the detector's.").unit("s").level(1),
    decl("positions.widest_secs", &[ParamType::Float], ParamDefault::Float(1.0), "By time: positions further apart say nothing of what is between them.").above(0.0).unit("s").level(2),
    decl("positions.at", &[ParamType::Str], ParamDefault::Str("start"), "At which moment of its exposure a frame's position is taken.")
        .choices(&["start", "mid", "end", "mean"])
        .doc("With one position a frame, latched at the start, `mid` and `end` move it along the line of the scan: on snake lines it is half a step off else, to either side in turn. With several, the first, the middle, the last, or their mean."),
    decl("positions.samples", &[ParamType::Int, ParamType::None], ParamDefault::Int(1), "Positions of each frame; None, by index: as many as carry it.").limits(Some(1.0), None).level(1),
    decl("positions.late_secs", &[ParamType::Float], ParamDefault::Float(10.0), "How long a frame waits for its position; then it becomes a gap.").above(0.0).unit("s").level(1).bytes_unaffected(),
    decl("positions.waiting", &[ParamType::Int], ParamDefault::Int(500_000), "Positions that wait for frames at most.").limits(Some(1.0), None).level(2).bytes_unaffected(),
    decl("positions.scalars", &[ParamType::List, ParamType::None], ParamDefault::None, "Names in the stream that are stored for each frame.")
        .doc("Their mean over the frame's samples stands in /ptystream/per_frame.").level(1),
    decl("positions.gate", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name in the stream that says whether the beam was there.")
        .doc("A frame for which it leaves `positions.gate_range` gets weight 0, and is listed.").level(1),
    decl("positions.gate_range", &[ParamType::List], ParamDefault::None, "Within which values of the gate the beam was there, [low, high].")
        .doc("None: 0.5 and more.").level(1),
    decl("positions.normalize", &[ParamType::Str, ParamType::Int, ParamType::None], ParamDefault::None, "Name in the stream (I0) by which frames are divided.").level(1),
    decl("positions.reference", NUMBER_OR_NONE, ParamDefault::None, "By what normalised frames are multiplied; None: the first frame's own value.").level(1),
];

/// Which stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::contrast`].
    Contrast,
    /// [`super::panda`].
    Panda,
    /// [`super::panda_json`].
    PandaJson,
    /// [`super::lines`].
    Growing,
    /// What the detector sends with each frame.
    Frames,
}

/// What is given of positions as a stream.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which stream.
    pub kind: Kind,
    /// Where it is.
    pub address: String,
    /// The text, for [`Kind::Growing`].
    pub file: PathBuf,
    /// What is taken of each message.
    pub columns: Columns,
    /// How it is joined.
    pub rules: Rules,
    /// How long a frame waits.
    pub late: Duration,
    /// Names and columns of what is stored for each frame.
    pub scalars: Vec<(String, usize)>,
    /// Column by which frames are divided.
    pub normalize: Option<usize>,
    /// By what they are multiplied.
    pub reference: Option<f64>,
}

/// Reads a name, or the number of a column.
fn name(keys: Keys<'_>, key: &str) -> Result<Option<String>, SourceError> {
    match keys.0.data.at(key) {
        Some(Value::Int(n)) if *n >= 0 => Ok(Some(n.to_string())),
        _ => Ok(keys.text(key)?.map(str::to_owned)),
    }
}

/// Reads units and signs.
pub(crate) fn axes(keys: Keys<'_>) -> Result<Axes, SourceError> {
    let unit = keys.text("positions.unit")?.unwrap_or("m");
    let unit = Axes::unit_of(unit)
        .ok_or_else(|| wrong("positions.unit", format!("'{unit}' is none; m, mm, um, nm")))?;
    let flip = match keys.0.data.at("positions.flip") {
        None | Some(Value::None) => [false; 2],
        Some(Value::Bool(both)) => [*both; 2],
        Some(Value::List(two)) => match two[..] {
            [Value::Bool(slow), Value::Bool(fast)] => [slow, fast],
            _ => return Err(wrong("positions.flip", "needs two truth values, [slow, fast]")),
        },
        Some(_) => return Err(wrong("positions.flip", "needs two truth values, [slow, fast]")),
    };
    Ok(Axes { unit, flip, swap: keys.flag("positions.swap", false)? })
}

fn range(keys: Keys<'_>) -> Result<[f64; 2], SourceError> {
    let key = "positions.gate_range";
    let bound = |value: &Value| match value {
        Value::None => Some(None),
        other => other.as_f64().map(Some),
    };
    match keys.0.data.at(key) {
        None | Some(Value::None) => Ok([0.5, f64::INFINITY]),
        Some(Value::List(two)) => {
            match two.iter().map(bound).collect::<Option<Vec<_>>>().as_deref() {
                Some(&[low, high]) => {
                    let range = [low.unwrap_or(f64::NEG_INFINITY), high.unwrap_or(f64::INFINITY)];
                    match range[0] <= range[1] {
                        true => Ok(range),
                        false => Err(wrong(key, format!("{} lies above {}", range[0], range[1]))),
                    }
                }
                _ => Err(wrong(key, "needs two numbers, [low, high]")),
            }
        }
        Some(_) => Err(wrong(key, "needs two numbers, [low, high]")),
    }
}

impl Settings {
    /// Reads the parameters; `None` if positions are no stream.
    ///
    /// # Errors
    /// What is missing or contradicts itself.
    pub fn read(spec: &SourceSpec) -> Result<Option<Self>, SourceError> {
        let keys = Keys(spec);
        let kind = match keys.text("positions.kind")?.unwrap_or("file") {
            "contrast" => Kind::Contrast,
            "panda" => Kind::Panda,
            "panda_json" => Kind::PandaJson,
            "growing" => Kind::Growing,
            "frames" => Kind::Frames,
            _ => return Ok(None),
        };
        let mut columns = Columns::default();
        let mut column = |key: &str| -> Result<Option<usize>, SourceError> {
            Ok(name(keys, key)?.map(|name| columns.want(&name)))
        };
        let needed = |key: &'static str, found: Option<usize>| {
            found.ok_or_else(|| wrong(key, "is needed: the name of the axis in the stream"))
        };
        let slow = column("positions.slow")?;
        let fast = column("positions.fast")?;
        let position = [needed("positions.slow", slow)?, needed("positions.fast", fast)?];
        let index = column("positions.index")?;
        let time = column("positions.time")?;
        let gate = column("positions.gate")?;
        let normalize = column("positions.normalize")?;
        let counts = index.is_some() || matches!(kind, Kind::PandaJson | Kind::Frames);
        let by = match keys.text("positions.join")? {
            Some("index") => By::Index,
            Some("time") => By::Time,
            Some(_) => By::Count,
            None if counts => By::Index,
            None => By::Count,
        };
        if by == By::Index && !counts {
            return Err(wrong("positions.index", "is needed with data.positions.join = \"index\""));
        }
        if by == By::Time && time.is_none() {
            return Err(wrong("positions.time", "is needed with data.positions.join = \"time\""));
        }
        if kind == Kind::Frames && by != By::Index {
            return Err(wrong("positions.join", "has no effect: positions come with their frames"));
        }
        let samples = match keys.0.data.at("positions.samples") {
            Some(Value::None) if by == By::Index => None,
            Some(Value::None) => {
                return Err(wrong(
                    "positions.samples",
                    "None is for positions that carry their index",
                ));
            }
            _ => Some(keys.count("positions.samples")?.unwrap_or(1)),
        };
        let mut scalars = Vec::new();
        if let Some(list) = keys.0.data.at("positions.scalars").filter(|v| !v.is_none()) {
            let Value::List(items) = list else {
                return Err(wrong("positions.scalars", "needs a list of names"));
            };
            for item in items {
                let name = item
                    .as_str()
                    .map(str::to_owned)
                    .or_else(|| item.as_i64().map(|n| n.to_string()));
                let name =
                    name.ok_or_else(|| wrong("positions.scalars", "needs a list of names"))?;
                let column = columns.want(&name);
                scalars.push((name, column));
            }
        }
        let columns_of_text = columns.names().iter().all(|n| n.parse::<usize>().is_ok());
        if kind == Kind::Growing && !columns_of_text {
            let names = columns.names().join(", ");
            let text = format!("a text has columns 0, 1, ... and no names ({names})");
            return Err(wrong("positions.slow", text));
        }
        let address = keys.text("positions.address")?.map(str::to_owned);
        let address = match kind {
            Kind::Contrast | Kind::Panda | Kind::PandaJson => {
                let text = "is needed: tcp://HOST:PORT of the positions";
                address.ok_or_else(|| wrong("positions.address", text))?
            }
            Kind::Growing | Kind::Frames => String::new(),
        };
        let file = keys.input_path("positions.file")?;
        if kind == Kind::Growing && file.is_none() {
            return Err(wrong("positions.file", "is needed: the text that grows"));
        }
        let number = |key: &str, default| keys.number(key).map(|n| n.unwrap_or(default));
        let late = number("positions.late_secs", 10.0)?;
        let rules = Rules {
            by,
            at: match keys.text("positions.at")? {
                Some("mid") => At::Mid,
                Some("end") => At::End,
                Some("mean") => At::Mean,
                _ => At::Start,
            },
            samples,
            position,
            index,
            first: number("positions.first", 0.0)?,
            time,
            time_offset: number("positions.time_offset", 0.0)?,
            widest: number("positions.widest_secs", 1.0)?,
            axes: axes(keys)?,
            gate: gate.map(|at| range(keys).map(|range| (at, range))).transpose()?,
            most: keys.count("positions.waiting")?.unwrap_or(500_000),
        };
        Ok(Some(Self {
            kind,
            address,
            file: file.unwrap_or_default(),
            columns,
            rules,
            late: Duration::try_from_secs_f64(late).unwrap_or(Duration::MAX),
            scalars,
            normalize,
            reference: keys.number("positions.reference")?,
        }))
    }

    /// Returns how the positions are called where something is said of them.
    pub fn origin(&self) -> String {
        match self.kind {
            Kind::Growing => format!("'{}'", self.file.display()),
            Kind::Frames => "the frames' own".into(),
            _ => self.address.clone(),
        }
    }
}
