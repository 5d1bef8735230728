//! The floor: the same kernel and the same bytes with nothing around them.
//!
//! | way | what works |
//! |---|---|
//! | run | two threads that read a frame's file, prepare, write(2) |
//! | ipc, tcp | `feed` reads and sends pixels; two `work` prepare; `take` writes: std sockets, blocking, one thread a connection |
//!
//! A message is first index, count and length (8 bytes each), then the bytes. Frames are read and sent whole,
//! or, [`Extent::Kept`], no more of them than is kept: rows are read, and a region of those is sent.

use crate::scan::{CASES, Case, Folder, HEADER_BYTES, N};
use crate::usage::wait;
use crate::{Sample, Way, sample};
use bytes::{Bytes, BytesMut};
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{FrameForm, Loaded, RawFrame, Region};
use ptystream_common::index::{Index, IndexRange};
use ptystream_worker::Preparer;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// First argument of a process of the floor.
pub const ROLE: &str = "floor-role";

/// How much of a frame the floor reads and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// What is kept.
    Kept,
}

impl Extent {
    fn name(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Kept => "kept",
        }
    }
}

/// A case, and what is read and sent of its frames.
struct Work<'a> {
    folder: &'a Folder,
    case: &'a Case,
    kept: Region,
}

/// Prepares so many frames.
pub fn measure(folder: &Folder, case: &Case, way: Way, frames: u64, extent: Extent) -> Sample {
    folder.clear();
    let number = CASES.iter().position(|c| std::ptr::eq(c, case)).unwrap();
    let start = |args: &[&str]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(ROLE).arg(folder.root()).args([
            number.to_string(),
            frames.to_string(),
            extent.name().to_owned(),
        ]);
        command.args(args).stdout(Stdio::piped()).spawn().unwrap()
    };
    if way == Way::Run {
        let mut child = start(&["run"]);
        let secs = said(&mut child).parse().unwrap();
        return sample(frames, secs, vec![("run", wait(child, "the floor"))]);
    }
    let bound = |role: &str| {
        let mut child = start(&[role, way.name()]);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next().unwrap().unwrap();
        (child, address, lines)
    };
    let (feeder, feed, _) = bound("feed");
    let (taker, take, mut lines) = bound("take");
    let (one, other) = (start(&["work", &feed, &take]), start(&["work", &feed, &take]));
    let secs = lines.next().unwrap().unwrap().parse().unwrap();
    let roles = vec![
        ("feed", wait(feeder, "the floor's feeder")),
        ("work", wait(one, "the floor's worker").and(wait(other, "the floor's worker"))),
        ("take", wait(taker, "the floor's taker")),
    ];
    sample(frames, secs, roles)
}

fn said(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.trim().to_owned()
}

/// Does one role's work in a process of its own.
pub fn role(args: &[String]) {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let (folder, case, frames) = (Folder::of(Path::new(args[0])), args[1], args[2]);
    let case = &CASES[case.parse::<usize>().unwrap()];
    let frames: u64 = frames.parse().unwrap();
    let kept = match args[3] == Extent::Kept.name() {
        true => case.kept(&folder),
        false => Region::whole([N; 2]),
    };
    let of = Work { folder: &folder, case, kept };
    match args[4..] {
        ["run"] => run(&of, frames),
        ["feed", way] => feed(&of, frames, way),
        ["work", feed, take] => work(&of, feed, take),
        ["take", way] => take(&folder, way),
        _ => panic!("no such role: {args:?}"),
    }
}

/// Hands out batches to whoever asks.
struct Batches {
    next: AtomicU64,
    batch: u64,
    frames: u64,
}

impl Batches {
    fn next(&self) -> Option<IndexRange> {
        let first = self.next.fetch_add(self.batch, Ordering::Relaxed);
        let count = self.batch.min(self.frames.checked_sub(first).filter(|n| *n > 0)?);
        Some(IndexRange::new(first, count as u32))
    }
}

/// Reads the rows of which something is kept.
fn read(of: &Work<'_>, range: IndexRange, pixels: &mut BytesMut) {
    let rows = of.kept.full_rows(N);
    let bytes = rows.shape[0] * N * 2;
    let place = HEADER_BYTES + (rows.first[0] * N * 2) as u64;
    pixels.resize(range.count as usize * bytes, 0);
    for (index, frame) in range.iter().zip(pixels.chunks_exact_mut(bytes)) {
        let file = File::open(of.folder.frame(index.0)).unwrap();
        file.read_exact_at(frame, place).unwrap();
    }
}

/// Prepares a batch of which `there` has been read; gives the memory of the pixels back.
fn prepare(
    preparer: &mut Preparer,
    range: IndexRange,
    pixels: BytesMut,
    there: Region,
) -> (Bytes, BytesMut) {
    let pixels = pixels.freeze();
    let form = FrameForm { dtype: Dtype::U16, shape: [N; 2] };
    let bytes = there.shape[0] * there.shape[1] * 2;
    let loaded: Vec<Loaded> = (0..range.count as usize)
        .map(|k| {
            let frame = RawFrame::part(form, there, pixels.slice(k * bytes..(k + 1) * bytes));
            Loaded::plain(Index(range.first.0 + k as u64), frame)
        })
        .collect();
    let batch = preparer.prepare(range, &loaded).expect("frames that fit");
    drop(loaded);
    (batch.data, pixels.try_into_mut().expect("nobody holds the pixels any more"))
}

fn run(of: &Work<'_>, frames: u64) {
    let made: Vec<(Preparer, u32)> = (0..2).map(|_| of.case.preparer(of.folder)).collect();
    let batches = Batches { next: AtomicU64::new(0), batch: made[0].1.into(), frames };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for (number, (mut preparer, _)) in made.into_iter().enumerate() {
            let batches = &batches;
            scope.spawn(move || {
                let out = of.folder.out().join(format!("floor{number}"));
                let mut file = File::create(out).unwrap();
                let mut pixels = BytesMut::new();
                while let Some(range) = batches.next() {
                    read(of, range, &mut pixels);
                    let there = of.kept.full_rows(N);
                    let (data, free) = prepare(&mut preparer, range, pixels, there);
                    pixels = free;
                    file.write_all(&data).unwrap();
                }
            });
        }
    });
    println!("{}", begun.elapsed().as_secs_f64());
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Binds, says where, and waits for both workers.
fn accept_two(folder: &Folder, way: &str, name: &str) -> Vec<Box<dyn Stream>> {
    if way == "tcp" {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        println!("{}", listener.local_addr().unwrap());
        return (0..2)
            .map(|_| {
                let (stream, _) = listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                Box::new(stream) as Box<dyn Stream>
            })
            .collect();
    }
    let path = folder.out().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    println!("{}", path.display());
    (0..2).map(|_| Box::new(listener.accept().unwrap().0) as Box<dyn Stream>).collect()
}

fn connect(address: &str) -> Box<dyn Stream> {
    if address.starts_with('/') {
        return Box::new(UnixStream::connect(address).unwrap());
    }
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    Box::new(stream)
}

fn send(to: &mut dyn Stream, range: IndexRange, bytes: &[u8]) {
    let mut head = [0; 24];
    let words = [range.first.0, range.count.into(), bytes.len() as u64];
    for (place, word) in head.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    to.write_all(&head).unwrap();
    to.write_all(bytes).unwrap();
}

/// Receives a message into `bytes`; `None` at the end of the stream.
fn receive(from: &mut dyn Stream, bytes: &mut BytesMut) -> Option<IndexRange> {
    let mut head = [0; 24];
    match from.read_exact(&mut head) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return None,
        done => done.unwrap(),
    }
    let word = |k: usize| u64::from_le_bytes(head[8 * k..][..8].try_into().unwrap());
    bytes.resize(word(2) as usize, 0);
    from.read_exact(bytes).unwrap();
    Some(IndexRange::new(word(0), word(1) as u32))
}

fn feed(of: &Work<'_>, frames: u64, way: &str) {
    let (_, batch) = of.case.preparer(of.folder);
    let batches = Batches { next: AtomicU64::new(0), batch: batch.into(), frames };
    let streams = accept_two(of.folder, way, "feed");
    let Region { first: [_, left], shape: [_, width] } = of.kept;
    std::thread::scope(|scope| {
        for mut stream in streams {
            let batches = &batches;
            scope.spawn(move || {
                let (mut pixels, mut cut) = (BytesMut::new(), BytesMut::new());
                while let Some(range) = batches.next() {
                    read(of, range, &mut pixels);
                    if width == N {
                        send(&mut stream, range, &pixels);
                        continue;
                    }
                    cut.clear();
                    for row in pixels.chunks_exact(N * 2) {
                        cut.extend_from_slice(&row[left * 2..][..width * 2]);
                    }
                    send(&mut stream, range, &cut);
                }
            });
        }
    });
}

fn work(of: &Work<'_>, feed: &str, take: &str) {
    let (mut preparer, _) = of.case.preparer(of.folder);
    let (mut from, mut to) = (connect(feed), connect(take));
    let mut pixels = BytesMut::new();
    while let Some(range) = receive(&mut from, &mut pixels) {
        let (data, free) = prepare(&mut preparer, range, pixels, of.kept);
        pixels = free;
        send(&mut to, range, &data);
    }
}

fn take(folder: &Folder, way: &str) {
    let streams = accept_two(folder, way, "take");
    let begun: Mutex<Option<Instant>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for (number, mut stream) in streams.into_iter().enumerate() {
            let begun = &begun;
            scope.spawn(move || {
                let mut file = File::create(folder.out().join(format!("floor{number}"))).unwrap();
                let mut bytes = BytesMut::new();
                while receive(&mut stream, &mut bytes).is_some() {
                    begun.lock().unwrap().get_or_insert_with(Instant::now);
                    file.write_all(&bytes).unwrap();
                }
            });
        }
    });
    let begun = begun.into_inner().unwrap().expect("a result came");
    println!("{}", begun.elapsed().as_secs_f64());
}
