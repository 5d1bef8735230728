//! `ptystream simulate`: publishes a scan as instruments would, for rehearsals, tests and benchmarks.

use crate::app;
use crate::cli::SimulateArgs;
use crate::connection::{Port, all_connected};
use bytes::Bytes;
use ptystream_common::codec::{self, Encoding};
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind};
use ptystream_common::frame::Array;
use ptystream_common::index::Index;
use ptystream_common::link::instrument::{Outgoing, Sending};
use ptystream_common::shutdown::Shutdown;
use ptystream_common::source::{Registry, Source, SourceError};
use ptystream_producer::positions::sends::{self as points, As as Points};
use ptystream_producer::source::detector::sends::Series;
use std::collections::HashMap;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Encoded frames that are kept where frames repeat.
const KEPT: usize = 1000;

/// Where positions go.
enum Positions {
    Published(Outgoing, Points),
    Connection(TcpStream, Points),
    None,
}

impl Positions {
    fn send(&mut self, make: impl FnOnce(Points) -> Bytes) -> Result<(), Failure> {
        match self {
            Self::Published(socket, how) => socket.send(vec![make(*how)]),
            Self::Connection(client, how) => client.write_all(&make(*how)).map_err(|e| {
                Failure::new(Kind::Peer, format!("the connection of the positions is lost: {e}"))
            })?,
            Self::None => {}
        }
        Ok(())
    }
}

/// Binds the positions' socket and waits for whoever takes them.
fn connected(args: &SimulateArgs, shutdown: &Shutdown) -> Result<Option<Positions>, Failure> {
    let Some(how) = args.positions else { return Ok(Some(Positions::None)) };
    let address = &args.positions_bind;
    let how = Points::from(how);
    if how == Points::Contrast {
        let socket = Outgoing::bind(address, Sending::Publish)?;
        eprintln!("bound {}", socket.address);
        let there = all_connected(std::iter::once(&socket), true, shutdown);
        return Ok(there.then_some(Positions::Published(socket, how)));
    }
    let port = Port::bind(address)?;
    eprintln!("bound {}", port.address);
    Ok(port.client(shutdown)?.map(|client| Positions::Connection(client, how)))
}

/// A scan's frames, as they travel.
struct Frames {
    source: Box<dyn Source>,
    series: Series,
    kept: HashMap<u64, Bytes>,
    repeat: Option<u64>,
}

impl Frames {
    fn pixels(&mut self, index: u64) -> Result<Bytes, Failure> {
        let index = self.repeat.map_or(index, |repeat| index % repeat.max(1));
        if let Some(kept) = self.kept.get(&index) {
            return Ok(kept.clone());
        }
        let loaded = self.source.load(&[Index(index)]).map_err(|e| Failure::from(&e))?;
        let frame = loaded.into_iter().next();
        let frame =
            frame.ok_or_else(|| Failure::new(Kind::Input, format!("no frame {index}")))?.frame;
        let data = match &frame.encoding {
            Encoding::Raw => frame.payload,
            Encoding::Filters(filters) => {
                let mut out = Vec::new();
                codec::decode(filters, &frame.payload, frame.form.bytes(), &mut out)
                    .map_err(|e| Failure::new(Kind::Input, format!("frame {index}: {e}")))?;
                out.into()
            }
        };
        let shape = frame.form.shape.to_vec();
        let pixels = self.series.encode(&Array { dtype: frame.form.dtype, shape, data });
        let pixels =
            pixels.map_err(|e| Failure::new(Kind::Input, format!("frame {index}: {e}")))?;
        if self.repeat.is_some_and(|n| n as usize <= KEPT) {
            self.kept.insert(index, pixels.clone());
        }
        Ok(pixels)
    }
}

/// Sends a scan; says what was sent.
///
/// # Errors
/// A scan that cannot be read, addresses that cannot be bound.
pub fn simulate(
    args: &SimulateArgs,
    registry: &Registry,
    shutdown: &Shutdown,
) -> Result<String, Failure> {
    let mut scan = args.scan.clone();
    if scan.scan.is_none() && scan.from.is_none() && scan.preset.is_none() {
        // Of a detector's usual type.
        scan.set.splice(0..0, ["data.name=moonflower", "data.dtype=uint16"].map(String::from));
    }
    let config = app::configured(&scan, registry)?;
    let data = &config.data;
    let spec = data.source_spec();
    let mut source = registry.open(&spec).map_err(|e| Failure::from(&e))?;
    if source.is_live() {
        let text = format!("the source '{}' is live itself; give a scan that is there", data.name);
        return Err(Failure::new(Kind::Config, text));
    }
    let input = |e: SourceError| Failure::from(&e);
    let where_ = source.load_positions().map_err(input)?;
    let where_ = where_.map(|a| a.to_f64()).unwrap_or_default();
    let held = source.num_frames().map_err(input)?.unwrap_or(where_.len() / 2) as u64;
    let frames = args.frames.unwrap_or(held);
    let form = source.frame_form().map_err(input)?;
    if !matches!(form.dtype, Dtype::U8 | Dtype::U16 | Dtype::U32) {
        let text = format!("frames are {}; detectors send uint8, uint16 and uint32", form.dtype);
        return Err(Failure::new(Kind::Config, text));
    }
    let recorded = source.recorded().map_err(input)?;
    let series = Series {
        number: args.series,
        frames,
        shape: form.shape,
        dtype: form.dtype,
        energy: recorded.energy.map(|(v, _)| v).or(data.energy).unwrap_or(7.2),
        distance: recorded.distance.map(|(v, _)| v).or(data.distance).unwrap_or(7.19),
        psize: recorded.psize.map(|(v, _)| v).or(data.psize).unwrap_or([0.000_172; 2]),
        period: if args.rate > 0.0 { 1.0 / args.rate } else { 1e-3 },
        compressed: !args.uncompressed,
    };
    let repeat = (frames > held || args.repeat.is_some()).then(|| args.repeat.unwrap_or(held));
    let mut images = Frames { source, series: series.clone(), kept: HashMap::new(), repeat };
    if let Some(repeat) = repeat.filter(|n| *n as usize <= KEPT) {
        // At full speed the first round must not be slower than the others.
        for index in 0..repeat.min(frames) {
            images.pixels(index)?;
        }
    }
    let how = args.detector.into();
    let detector = Outgoing::bind(&args.bind, Sending::Push)?;
    eprintln!("bound {}", detector.address);
    let nobody = "nobody has connected, nothing was sent";
    let Some(mut positions) = connected(args, shutdown)? else { return Ok(nobody.into()) };
    if !all_connected(std::iter::once(&detector), false, shutdown) {
        return Ok(nobody.into());
    }
    let at = |index: u64| {
        let shifted = index.saturating_add_signed(args.shift).min(frames.saturating_sub(1));
        let nth = (shifted % (where_.len() as u64 / 2).max(1)) as usize;
        where_.get(2 * nth..2 * nth + 2).map_or([0.0; 2], |p| [p[0], p[1]])
    };
    detector.send(series.start(how));
    positions.send(points::start)?;
    let began = Instant::now();
    let (mut sent, mut late) = (0u64, Duration::ZERO);
    for index in 0..frames {
        if shutdown.is_begun() {
            break;
        }
        if args.rate > 0.0 {
            let due = Duration::from_secs_f64(index as f64 / args.rate);
            late = late.max(began.elapsed().saturating_sub(due));
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        positions.send(|how| points::point(how, index, at(index)))?;
        if args.lose.is_some_and(|every| (index + 1).is_multiple_of(every.max(1))) {
            continue;
        }
        let pixels = images.pixels(index)?;
        detector.send(series.image(how, index, &pixels));
        sent += 1;
    }
    detector.send(series.end(how));
    positions.send(|how| points::end(how, frames))?;
    let secs = began.elapsed().as_secs_f64();
    drop(detector);
    Ok(format!(
        "{sent} of {frames} frames sent in {secs:.1} s, {:.0} frames/s, at most {:.0} ms late",
        sent as f64 / secs.max(1e-9),
        late.as_secs_f64() * 1e3
    ))
}
