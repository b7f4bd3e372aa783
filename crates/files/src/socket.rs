//! Connected pairs of sockets, as far as they carry descriptors (`SCM_RIGHTS`): a file in flight is held by
//! the message, and let go when the socket that would receive it is closed.

use std::collections::VecDeque;

use luosim_luo::FileId;

/// One end of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEnd {
    /// Small, because every open file description is as large as the largest kind.
    pair: u32,
    side: u8,
}

impl SocketEnd {
    fn pair(self) -> usize {
        usize::try_from(self.pair).expect("an index fits in usize")
    }

    fn side(self) -> usize {
        usize::from(self.side)
    }
}

#[derive(Debug, Default)]
struct Pair {
    /// Messages waiting to be received by each side.
    queues: [VecDeque<Vec<FileId>>; 2],
    closed: [bool; 2],
}

#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pairs: Vec<Pair>,
}

impl Sockets {
    pub(crate) fn pair(&mut self) -> (SocketEnd, SocketEnd) {
        self.pairs.push(Pair::default());
        let pair = u32::try_from(self.pairs.len() - 1).expect("fewer than 2^32 pairs");
        (SocketEnd { pair, side: 0 }, SocketEnd { pair, side: 1 })
    }

    /// `false` if the other side is closed (EPIPE).
    pub(crate) fn send(&mut self, end: SocketEnd, files: &[FileId]) -> bool {
        let pair = &mut self.pairs[end.pair()];
        let other = 1 - end.side();
        if pair.closed[other] {
            return false;
        }
        pair.queues[other].push_back(files.to_vec());
        true
    }

    pub(crate) fn receive(&mut self, end: SocketEnd) -> Option<Vec<FileId>> {
        self.pairs[end.pair()].queues[end.side()].pop_front()
    }

    /// Closes one end; gives the files that were on their way to it.
    pub(crate) fn close(&mut self, end: SocketEnd) -> Vec<FileId> {
        let pair = &mut self.pairs[end.pair()];
        pair.closed[end.side()] = true;
        pair.queues[end.side()].drain(..).flatten().collect()
    }
}
