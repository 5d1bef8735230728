//! What the beginning of a series says, whatever the protocol; and what protocols hand on.

use super::arrivals::Arrival;
use ptystream_common::dtype::Dtype;
use ptystream_common::frame::{Array, FrameForm};

/// The beginning of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// Number of the series.
    pub series: u64,
    /// Frames that were asked of the detector.
    pub images: Option<u64>,
    /// Rows and columns.
    pub shape: Option<[usize; 2]>,
    /// Type of the pixels.
    pub dtype: Option<Dtype>,
    /// Photon energy in keV.
    pub energy: Option<f64>,
    /// From the sample, metres.
    pub distance: Option<f64>,
    /// Pixel (height, width) in metres.
    pub psize: Option<[f64; 2]>,
    /// The detector's mask, 0 is good.
    pub mask: Option<Array>,
    /// By which pixels have been, or are to be, multiplied.
    pub flatfield: Option<Array>,
    /// Whether the detector has done so already.
    pub flatfield_applied: bool,
}

impl Header {
    /// Returns the form of frames, if it is known.
    pub fn form(&self) -> Option<FrameForm> {
        Some(FrameForm { dtype: self.dtype?, shape: self.shape? })
    }
}

/// What a message of a detector means.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A series begins.
    Start(Box<Header>),
    /// A frame of a series, by its index.
    Image(u64, Arrival),
    /// The series has ended.
    End,
    /// Something of another series.
    OtherSeries,
    /// Something that is no message of the protocol: why.
    Unknown(String),
}
