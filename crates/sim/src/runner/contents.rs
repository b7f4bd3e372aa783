//! Contents of writes and of comparisons: text, hexadecimal digits, or the pattern of a seed.

use luosim_scenario::Call;

use crate::pattern;

/// Bytes handled at once.
pub(super) const CHUNK: usize = 64 << 10;

/// Where contents come from.
pub(super) enum Contents<'a> {
    Bytes(&'a [u8]),
    Pattern { seed: u32, len: u64 },
    Zeros { len: u64 },
}

impl<'a> Contents<'a> {
    /// The contents a call names; `len` where it does not say how many bytes.
    pub(super) fn of(call: &'a Call, len: Option<u64>) -> Option<Self> {
        if let Some(text) = call.text("text") {
            return Some(Self::Bytes(text.as_bytes()));
        }
        if let Some(bytes) = call.bytes("hex") {
            return Some(Self::Bytes(bytes));
        }
        let len = call.u64("len").or(len);
        if let Some(seed) = call.u64("seed") {
            return Some(Self::Pattern { seed: u32::try_from(seed).ok()?, len: len? });
        }
        let zeros = call.number("zero").is_some_and(|zero| zero != 0);
        (zeros || call.op == luosim_scenario::Op::Write && len.is_some())
            .then_some(Self::Zeros { len: len.unwrap_or(0) })
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => u64::try_from(bytes.len()).expect("a length fits in 64 bits"),
            Self::Pattern { len, .. } | Self::Zeros { len } => *len,
        }
    }

    /// Bytes `from..` of the contents, for byte `at` of the file.
    pub(super) fn fill(&self, from: u64, at: u64, buf: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => {
                let from = usize::try_from(from).expect("inside the bytes");
                buf.copy_from_slice(&bytes[from..from + buf.len()]);
            }
            Self::Pattern { seed, .. } => pattern::fill(*seed, at, buf),
            Self::Zeros { .. } => buf.fill(0),
        }
    }

    /// All of it, a gibibyte at most, for byte `at` of the file.
    pub(super) fn bytes(&self, at: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.len().min(1 << 30)).expect("at most a gibibyte")];
        self.fill(0, at, &mut bytes);
        bytes
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Bytes(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
            Self::Pattern { seed, .. } => format!("the pattern of seed {seed}"),
            Self::Zeros { .. } => String::from("zeros"),
        }
    }
}
