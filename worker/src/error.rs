//! What can be wrong with a frame or a plan.

use ptystream_common::codec::CodecError;
use ptystream_common::dtype::Dtype;
use ptystream_common::error::{Failure, Kind, chain};
use ptystream_common::frame::{FrameForm, Region};
use ptystream_common::geometry::GeometryError;
use ptystream_common::index::Index;

/// Errors of preparation.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[must_use]
pub enum PrepareError {
    /// The geometry or the scan's weight does not fit.
    #[error(transparent)]
    Geometry(#[from] GeometryError),
    /// An array of the scan is missing.
    #[error("the plan says that there is a {0}, but none came with it")]
    ArrayMissing(&'static str),
    /// A dark or a flat came that the plan does not know of.
    #[error("a dark or a flat came, but the plan says that frames are not corrected")]
    ArrayUnexpected,
    /// An array of the scan has another extent than the frames.
    #[error(
        "{name} has the extent {got:?}, frames are {}x{}: give one value for each pixel of a frame",
        frame[0], frame[1]
    )]
    ArrayShape {
        /// `dark`, `flat` or `weight`.
        name: &'static str,
        /// Its extent.
        got: Vec<usize>,
        /// Raw frame.
        frame: [usize; 2],
    },
    /// The scan's weight has another type than the plan says.
    #[error("the weight is {got}, the plan says {expected}")]
    WeightType {
        /// In the plan.
        expected: Dtype,
        /// Of the array.
        got: Dtype,
    },
    /// A frame differs from the others of its scan.
    #[error(
        "frame {index} is {}x{} {}, the scan's frames are {}x{} {}: a scan has frames of one kind",
        got.shape[0], got.shape[1], got.dtype,
        expected.shape[0], expected.shape[1], expected.dtype
    )]
    FrameForm {
        /// Which frame.
        index: Index,
        /// Of the scan.
        expected: FrameForm,
        /// Of this frame.
        got: FrameForm,
    },
    /// A frame's payload does not decode.
    #[error("frame {index} cannot be decoded")]
    Decode {
        /// Which frame.
        index: Index,
        /// Why not.
        #[source]
        source: CodecError,
    },
    /// A frame's payload has another length than its extent says.
    #[error("frame {index} has {got} bytes, its extent needs {expected}")]
    FrameLength {
        /// Which frame.
        index: Index,
        /// By type and extent.
        expected: usize,
        /// Of the payload.
        got: usize,
    },
    /// Of a frame other pixels have come than are needed.
    #[error(
        "frame {index} came as {}x{} pixels from ({}, {}) on, needed are {}x{} from ({}, {}) on",
        there.shape[0], there.shape[1], there.first[0], there.first[1],
        needed.shape[0], needed.shape[1], needed.first[0], needed.first[1]
    )]
    Region {
        /// Which frame.
        index: Index,
        /// What is needed.
        needed: Region,
        /// What came.
        there: Region,
    },
    /// A frame came without the weights that the others have, or the other way round.
    #[error("frame {index} came {}: either all frames of a scan have weights or none", if *missing { "without weights" } else { "with weights of its own" })]
    Weights {
        /// Which frame.
        index: Index,
        /// Whether they are missing.
        missing: bool,
    },
    /// A frame's weights have another type or extent than they should.
    #[error(
        "the weights of frame {index} are {got_dtype} of {got:?}, expected are {dtype} of {}x{}",
        shape[0], shape[1]
    )]
    WeightsForm {
        /// Which frame.
        index: Index,
        /// Expected type.
        dtype: Dtype,
        /// Expected extent.
        shape: [usize; 2],
        /// Their type.
        got_dtype: Dtype,
        /// Their extent.
        got: Vec<usize>,
    },
    /// More frames than a batch holds, or none.
    #[error("{got} frames do not make a batch of 1 to {batch}")]
    Batch {
        /// How many came.
        got: usize,
        /// How many fit.
        batch: u32,
    },
    /// The prepared frames do not encode.
    #[error("prepared frames cannot be encoded")]
    Encode(#[source] CodecError),
}

impl PrepareError {
    /// Tells whether one frame is damaged, rather than the scan.
    pub fn is_of_frame(&self) -> bool {
        matches!(
            self,
            Self::FrameForm { .. }
                | Self::Decode { .. }
                | Self::FrameLength { .. }
                | Self::Region { .. }
                | Self::Weights { .. }
                | Self::WeightsForm { .. }
        )
    }
}

impl From<&PrepareError> for Failure {
    fn from(error: &PrepareError) -> Self {
        let kind = match error {
            PrepareError::Geometry(_) => Kind::Config,
            _ => Kind::Input,
        };
        Self::new(kind, chain(error))
    }
}
